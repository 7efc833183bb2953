"""A real Slurm on this machine, for the tests: munged, slurmctld and a slurmd a node, all in one
temporary folder.

Nodes are names that share this machine: each is told that it has all of its cores, and memory
enough for a job.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tests.support.waiting import comes_true

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
_SYSTEM_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
_END_SECONDS = 60.0  # a daemon that is not gone by then is killed


def why_not() -> str | None:
    """Why no Slurm can be started here; None where it can."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path=_SYSTEM_PATH)]
    if missing:
        return f"Slurm's {', '.join(missing)} not installed: apt-get install slurm-wlm munge"
    return None if os.getuid() == 0 else "slurmd must be started by root"


@dataclass(frozen=True)
class Job:
    """A job as squeue or its record shows it. state: Slurm's word, such as RUNNING."""

    id: str
    state: str
    restarts: int
    exit_code: int


class Machine:
    """A Slurm that is up. `environment` is what its commands need."""

    def __init__(self, folder: Path, nodes: Sequence[str]) -> None:
        self.folder, self.nodes = folder, tuple(nodes)
        self.environment = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": _SYSTEM_PATH,
        }

    def command(
        self,
        *words: str | Path,
        cwd: Path | None = None,
        check: bool = True,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """The output of one of Slurm's commands, with `variables` in its environment."""
        done = subprocess.run(
            [str(word) for word in words], env=self.environment | dict(variables), cwd=cwd,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{words}: {done.stdout}"
        return done.stdout

    def job(self, number: str) -> Job:
        """What the controller says of a job, or of one task of an array (`7_1`)."""
        words = self.command("scontrol", "--oneliner", "show", "job", number).split()
        record = dict(word.partition("=")[::2] for word in words)
        return Job(
            record["JobId"],
            record["JobState"],
            int(record["Restarts"]),
            int(record["ExitCode"].split(":")[0]),
        )

    def reaches(self, number: str, *states: str) -> Job:
        """The job once it is in one of the states."""
        came = comes_true(lambda: self.job(number).state in states)
        assert came, f"job {number} is {self.job(number)}, and never in {states}"
        return self.job(number)


@contextmanager
def machine(nodes: Sequence[str] = ("n1", "n2")) -> Iterator[Machine]:
    """Start a Slurm with these nodes, and end it with all its jobs."""
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True)
            )
        )
        folder.chmod(0o755)  # munged asks for a socket that everybody can reach
        slurm = Machine(folder, nodes)
        _configure(slurm)
        stack.enter_context(_daemon(slurm, "munged", *_munged_arguments(folder)))
        assert comes_true((folder / "munge.socket").exists), _log(folder, "munged")
        stack.enter_context(_daemon(slurm, "slurmctld", "-D", "-i"))
        for node in nodes:
            stack.enter_context(_daemon(slurm, "slurmd", "-D", "-N", node))
        assert comes_true(lambda: _is_up(slurm)), _log(folder, "slurmd")
        try:
            yield slurm
        finally:
            slurm.command("scancel", "--user=root", check=False)
            slurm.command("scancel", "--user=root", "--signal=KILL", "--full", check=False)
            comes_true(lambda: not slurm.command("squeue", "--noheader", check=False))


def _is_up(slurm: Machine) -> bool:
    states = slurm.command(
        "sinfo", "--noheader", "--Node", "--partition=main", "--format=%T", check=False
    ).split()
    return states == ["idle"] * len(slurm.nodes)


def _configure(slurm: Machine) -> None:
    folder, host = slurm.folder, socket.gethostname()
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o400)
    controller, *ports = _free_ports(1 + len(slurm.nodes))
    cores, memory = (
        os.cpu_count(),
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
    )
    (folder / "slurm.conf").write_text(
        f"""\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobRequeue=1
MailProg=/bin/true
ReturnToService=2
MinJobAge=3600
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
"""
        + "".join(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cores} "
            f"RealMemory={memory}\n"
            for node, port in zip(slurm.nodes, ports, strict=True)
        )
        + "PartitionName=main Nodes=ALL Default=YES PriorityTier=1 GraceTime=60\n"
        + "PartitionName=urgent Nodes=ALL PriorityTier=2\n"
    )
    (folder / "state").mkdir()
    for node in slurm.nodes:
        (folder / f"spool-{node}").mkdir()


def _munged_arguments(folder: Path) -> list[str]:
    files = {
        "socket": "munge.socket",
        "key-file": "munge.key",
        "pid-file": "munged.pid",
        "seed-file": "munge.seed",
    }
    return [
        "--foreground",
        "--force",
        *(f"--{name}={folder / file}" for name, file in files.items()),
    ]


@contextmanager
def _daemon(slurm: Machine, *words: str) -> Iterator[None]:
    """A daemon in the foreground of a process group of its own; its log is in the folder."""
    with open(slurm.folder / f"{words[0]}.log", "a") as log:
        process = subprocess.Popen(
            words, env=slurm.environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _log(folder: Path, daemon: str) -> str:
    return (
        f"{daemon} does not come up:\n"
        + (folder / f"{daemon}.log").read_text(errors="replace")[-2000:]
    )
