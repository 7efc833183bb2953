"""Who can reach a run on a single machine: nobody from outside, and nobody without its secret."""

from __future__ import annotations

import ipaddress
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray

from engine.run.placement import pair_config
from engine.system.session import VARIABLE
from tests.support.engines import connect, kept_pair, plan_of

STRANGER = """
import sys
from ray._raylet import GcsClient
GcsClient(address=sys.argv[1])
print("is in", file=sys.stderr, flush=True)
"""


@pytest.fixture(scope="module", autouse=True)
def running() -> None:
    """A cluster of ours, and a pair that has met over TCP in it."""
    connect()
    kept_pair(pair_config(plan_of(limit=1, samples=1), 0)).start()


def folder() -> Path:
    """The session's folder."""
    return Path(ray._private.worker.global_worker.node.get_session_dir_path()).parent.parent


def processes() -> Iterator[psutil.Process]:
    """All that the run has started, and the run itself."""
    yield psutil.Process()
    for process in psutil.process_iter():
        try:
            if process.environ().get(VARIABLE) == str(folder()):
                yield process
        except psutil.Error:
            continue


def listening() -> set[tuple[str, str, int]]:
    """Process, address and port of every socket that waits for somebody."""
    found = set()
    for process in processes():
        try:
            for one in process.net_connections("inet"):
                if one.status == psutil.CONN_LISTEN or (
                    one.type == socket.SOCK_DGRAM and not one.raddr
                ):
                    found.add((process.name(), one.laddr.ip, one.laddr.port))
        except psutil.Error:
            continue
    return found


def is_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address)
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def test_every_socket_of_a_run_listens_on_loopback_only() -> None:
    sockets = listening()
    names = {name for name, *_ in sockets}
    assert {"gcs_server", "raylet"} <= names and any("Worker" in name for name in names), names
    assert [one for one in sockets if not is_loopback(one[1])] == []


def test_ray_has_no_dashboard() -> None:
    assert not {8265, 8266} & {port for *_, port in listening()}
    assert not ray._private.worker.global_worker.node.webui_url


@pytest.mark.parametrize("secret", [None, "0" * 64])
def test_nobody_joins_the_cluster_without_its_token(secret: str | None, tmp_path: Path) -> None:
    hidden = {"RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"}
    variables = {name: value for name, value in os.environ.items() if name not in hidden} | {
        "HOME": str(tmp_path)
    }
    variables |= (
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secret}
        if secret
        else {"RAY_AUTH_MODE": "disabled"}
    )
    address = ray.get_runtime_context().gcs_address
    with subprocess.Popen(
        [sys.executable, "-c", STRANGER, address], env=variables, stderr=subprocess.PIPE, text=True
    ) as stranger:  # it would try for long
        assert stranger.stderr
        said = next(
            line for line in stranger.stderr if "Unauthenticated" in line or "is in" in line
        )
        stranger.kill()
    assert "InvalidAuthToken" in said


def test_the_token_is_read_by_its_user_only_and_is_in_no_command_line() -> None:
    token = folder() / "token"
    assert token.stat().st_mode & 0o077 == 0
    assert len(token.read_text()) == 64
    assert not any(token.read_text() in " ".join(process.cmdline()) for process in processes())
