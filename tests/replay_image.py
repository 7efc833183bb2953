"""Replays docker/cpu.Dockerfile where there is no Docker: `python -m tests.replay_image [FOLDER]`,
as root, 10 minutes.

Every FROM becomes a fresh Debian made by debootstrap, every RUN a command in it (chroot), every
COPY a copy of what .dockerignore lets through. Then the container's commands run there as the
image's user would run them under docker/compose.yaml: a root that is read-only, no capabilities, no
network but loopback, a /dev/shm of its own.

Debian 12 has Python 3.11 where the image has 3.12. pip's configuration of this machine (indices,
folders of wheels) is passed in by environment; folders that it names are mounted read-only. FOLDER
keeps the roots; else they are removed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.support.dockerfile import Instruction, arguments, lets_through, read, stages
from tests.support.paths import ROOT

DOCKERFILE = ROOT / "docker" / "cpu.Dockerfile"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PYTHON = """
apt-get -qq update
apt-get -qq install -y --no-install-recommends python3 python3-pip ca-certificates >/dev/null
ln -sf python3 /usr/bin/python
rm -rf /usr/lib/python3*/EXTERNALLY-MANAGED /var/lib/apt/lists/*
"""
_DEMO = [
    "run",
    "--direction",
    "reverse",
    "--budget",
    "8",
    "--limit",
    "2",
    "--samples",
    "1",
    "--out",
    "runs/demo",
]


def main() -> None:
    """Replay in a mount and process namespace of its own: whatever is mounted or started there ends
    with it.
    """
    if os.environ.get("XSAMPLE_REPLAY") == "inside":
        return replay(Path(sys.argv[1]))
    missing = [name for name in ("debootstrap", "unshare", "ip") if not shutil.which(name)]
    if os.geteuid() or missing:
        sys.exit(
            "replay_image: needs root and debootstrap, unshare and ip; missing:"
            f" {', '.join(missing) or 'root'}"
        )
    work = Path(sys.argv[1] if sys.argv[1:] else tempfile.mkdtemp(prefix="replay-")).resolve()
    apart = [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        sys.executable,
        "-m",
        "tests.replay_image",
    ]
    status = subprocess.call(
        [*apart, str(work)], env=os.environ | {"XSAMPLE_REPLAY": "inside"}, cwd=ROOT
    )
    if not sys.argv[1:]:  # only here: inside, folders of this machine are mounted below it
        shutil.rmtree(work)
    sys.exit(status)


def replay(work: Path) -> None:
    """Build the image's root in `work`, then run the health check, the doctor and a small demo in
    it.
    """
    base = work / "base"
    if not base.exists():
        say("debootstrap")
        run(
            [
                "debootstrap",
                "--variant=minbase",
                "--include=ca-certificates",
                "bookworm",
                str(base),
            ],
            quiet=True,
        )
        with_system(base)
        run(chroot(base, ["sh", "-ec", _PYTHON], {"DEBIAN_FRONTEND": "noninteractive"}))
        without_system(base)
    image = Image(work, base)
    for stage in stages(image.instructions):
        image.build(stage)
    use(image)


class Image:
    """The roots of the stages by name, and what the last one says about how it is run."""

    def __init__(self, work: Path, base: Path) -> None:
        self.instructions = read(DOCKERFILE)
        self.work, self.base = work, base
        self.roots: dict[str, Path] = {}
        self.pip = pip_environment()
        self._enter(base, "")

    def _enter(self, root: Path, user: str) -> None:
        self.root, self.user, self.folder = root, user, "/"
        self.variables: dict[str, str] = {}
        self.arguments = (
            {"DEBIAN_FRONTEND": "noninteractive"} | arguments(self.instructions) | self.pip
        )
        self.said: dict[str, Instruction] = {}

    def build(self, stage: list[Instruction]) -> None:
        """Carry out one stage in a root of its own."""
        name = [*stage[0].text.split(" AS "), "final"][1]
        root = self.roots[name] = self.work / name
        shutil.rmtree(root, ignore_errors=True)
        run(["cp", "-a", str(self.base), str(root)])
        self._enter(root, "root")
        with_system(root, self.pip)
        for instruction in stage[1:]:
            began = time.monotonic()
            getattr(self, f"do_{instruction.name.lower()}", self.remember)(instruction)
            say(
                f"{time.monotonic() - began:6.1f} s  {instruction.name}"
                f" {' '.join(instruction.text.split())[:100]}"
            )
        without_system(root)
        say(f"stage {name}: {size(root) - size(self.base)} MiB on top of {size(self.base)} MiB")

    def remember(self, instruction: Instruction) -> None:
        """What is said to whoever runs the image: LABEL, HEALTHCHECK, ENTRYPOINT, CMD."""
        self.said[instruction.name] = instruction

    def do_arg(self, instruction: Instruction) -> None:
        """Its default is known already."""

    def do_env(self, instruction: Instruction) -> None:
        self.variables |= dict(word.split("=", 1) for word in instruction.words)

    def do_user(self, instruction: Instruction) -> None:
        self.user = instruction.text

    def do_workdir(self, instruction: Instruction) -> None:
        self.folder = instruction.text
        (self.root / self.folder.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def do_copy(self, instruction: Instruction) -> None:
        """Copy from the context what .dockerignore lets through."""
        *sources, target = instruction.words
        into = self.root / os.path.join(self.folder, target).lstrip("/")
        for source in sources:
            files = (
                [ROOT / source] if (ROOT / source).is_file() else sorted((ROOT / source).rglob("*"))
            )
            for file in (
                file
                for file in files
                if file.is_file() and lets_through(str(file.relative_to(ROOT)))
            ):
                below = into / (
                    file.name if (ROOT / source).is_file() else file.relative_to(ROOT / source)
                )
                to = below if target.endswith("/") or (ROOT / source).is_dir() else into
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, to)

    def do_run(self, instruction: Instruction) -> None:
        """Run a command as root, with a folder of another stage mounted where it asks for one."""
        if mount := instruction.flags.get("mount"):
            fields = dict(field.split("=", 1) for field in mount.split(","))
            assert fields["type"] == "bind", mount
            bind(
                self.roots[fields["from"]] / fields["source"].lstrip("/"),
                self.root / fields["target"].lstrip("/"),
            )
        environment = self.arguments | self.variables
        run(chroot(self.root, ["sh", "-c", f"cd {self.folder} && {instruction.text}"], environment))
        if mount:
            run(["umount", str(self.root / fields["target"].lstrip("/"))])
            (self.root / fields["target"].lstrip("/")).rmdir()


def use(image: Image) -> None:
    """Run what a container would run, as it would."""
    root = image.root
    bind(root, root)
    with_system(root)
    for folder, options in (
        ("tmp", "mode=1777"),
        ("home/xsample", "mode=1777"),
        ("dev/shm", "size=2g"),
    ):
        run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(root / folder)])
    for folder in ("work/runs", "huggingface"):
        volume = image.work / "volumes" / folder
        shutil.rmtree(volume, ignore_errors=True)
        volume.mkdir(parents=True)
        volume.chmod(0o1777)
        bind(volume, root / folder)
    run(["mount", "-o", "remount,ro,bind", str(root)])
    health = image.said["HEALTHCHECK"].text.partition("CMD")[2]
    entry = image.said["ENTRYPOINT"].words
    commands = {
        "the health check": Instruction("CMD", {}, health.strip()).words,
        "xsample doctor": [*entry, "doctor"],
        "the demo": [*entry, *_DEMO],
        "the demo again": [*entry, *_DEMO],
        "xsample verify": [*entry, "verify", "runs/demo"],
    }
    for name, command in commands.items():
        began = time.monotonic()
        say(f"{name}: {' '.join(command)}")
        run(contained(image, command))
        say(f"{name}: ended with 0 after {time.monotonic() - began:.1f} s")


def contained(image: Image, command: list[str]) -> list[str]:
    """`command` as a container runs it: as the image's user, with no capabilities, no network but
    loopback.
    """
    user, group = image.user.split(":")
    drop = [
        "setpriv",
        f"--reuid={user}",
        f"--regid={group}",
        "--clear-groups",
        "--bounding-set=-all",
        "--no-new-privs",
    ]
    there = ["sh", "-c", f'cd {image.folder} && exec "$@"', "sh", *drop, *command]
    environment = image.variables | {"HF_HUB_OFFLINE": "1"}
    inside = [
        "sh",
        "-c",
        'ip link set lo up && exec "$@"',
        "sh",
        *chroot(image.root, there, environment),
    ]
    return [
        "unshare",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        f"--mount-proc={image.root}/proc",
        *inside,
    ]


def chroot(root: Path, command: list[str], environment: Mapping[str, str]) -> list[str]:
    """`command` in `root`, with this environment and nothing of ours."""
    variables = {"PATH": _PATH, "HOME": "/root", **environment}
    return [
        "chroot",
        str(root),
        "env",
        "-i",
        *(f"{name}={value}" for name, value in variables.items()),
        *command,
    ]


def with_system(root: Path, pip: Mapping[str, str] | None = None) -> None:
    """What every container finds; for pip also how names are resolved, and the folders that it is
    told of.
    """
    run(["mount", "-t", "proc", "proc", str(root / "proc")])
    run(["mount", "-t", "sysfs", "-o", "ro", "sysfs", str(root / "sys")])
    run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(root / "dev")])
    for device in ("null", "zero", "full", "random", "urandom", "tty"):
        (root / "dev" / device).touch()
        run(["mount", "--bind", f"/dev/{device}", str(root / "dev" / device)])
    (root / "dev" / "fd").symlink_to("/proc/self/fd")
    (root / "dev" / "shm").mkdir(mode=0o1777)
    if not pip:
        return
    shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
    for word in " ".join(pip.values()).split():  # an index refers to files beside it
        path = (
            Path(word.removeprefix("file://")).parent if word.startswith("file://") else Path(word)
        )
        if path.is_absolute() and path.exists():
            bind(path.resolve(), root / str(path).lstrip("/"))
            run(["mount", "-o", "remount,ro,bind", str(root / str(path).lstrip("/"))])


def without_system(root: Path) -> None:
    """Take away what `with_system` put there."""
    mounted = re.findall(rf" {re.escape(str(root))}(/\S+) ", Path("/proc/mounts").read_text())
    for path in sorted(mounted, reverse=True):
        run(["umount", "-l", f"{root}{path}"])


def pip_environment() -> dict[str, str]:
    """This machine's configuration of pip as environment variables."""
    shown = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    found = re.findall(r"^.*\.([a-z-]+)='(.*)'$", shown.stdout, re.MULTILINE)
    return {f"PIP_{name.upper().replace('-', '_')}": value for name, value in found}


def bind(source: Path, target: Path) -> None:
    """Mount `source` at `target`, which is made."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    elif not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    run(["mount", "--bind", str(source), str(target)])


def size(root: Path) -> int:
    """MiB that a root takes on disk."""
    return int(
        subprocess.run(
            ["du", "-smx", str(root)], capture_output=True, text=True, check=True
        ).stdout.split()[0]
    )


def run(command: list[str], quiet: bool = False) -> None:
    """Run a command; whatever fails ends the replay with its name."""
    status = subprocess.call(command, stdout=subprocess.DEVNULL if quiet else None)
    if status:
        sys.exit(f"replay_image: ended with {status}: {' '.join(command)}")


def say(text: str) -> None:
    """A line of progress."""
    print(f"replay: {text}", flush=True)


if __name__ == "__main__":
    main()
