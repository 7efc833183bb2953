"""The Ray cluster of a run: one of its own on this machine, or one that is running already.

Its own listens on loopback only, asks every peer for a token that is made for the run, has no
dashboard, and keeps its files in the run's session folder. A cluster that is joined is the business
of whoever started it.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.errors import ConfigError, EngineError
from engine.system.log import log_event
from engine.system.session import VARIABLE, environment, session
from engine.system.signals import handlers_kept, put_handlers_back

_LOOPBACK = "127.0.0.1"
_OBJECT_STORE_BYTES = 2**28
_SETTINGS: dict[str, str | None] = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_prestart_worker_first_driver": "0",  # a process a core, of which none is used
    # 15 else: an engine would stand behind whatever else runs on its cores
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@contextmanager
def own_cluster(num_cpus: int) -> Iterator[None]:
    """A cluster on this machine for this block, with everything that it starts and leaves."""
    import ray

    with session() as folder:
        inherited = _SETTINGS | _token(folder) | {VARIABLE: str(folder), "TMPDIR": str(folder)}
        with environment(inherited), _staying_on_loopback(), _leaving_sigterm_alone():
            _forget_token()
            _quiet()
            try:
                ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    include_dashboard=False,
                    logging_level="ERROR",
                    log_to_driver=False,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    _node_ip_address=_LOOPBACK,
                    _temp_dir=str(folder / "ray"),
                )
            except Exception as error:  # Ray has no errors of its own for this
                raise EngineError(
                    f"Ray could not be started: {next(iter(str(error).splitlines()), error)}"
                ) from None
        try:
            yield
        finally:
            with handlers_kept():
                ray.shutdown()


def lost() -> list[str]:
    """The processes that have died without which Ray cannot go on; of a cluster of our own only.

    Ray itself ends the driver, with no clean-up: at the next object where the raylet died, a minute
    after the GCS did.
    """
    from ray._private.worker import global_worker

    dead = global_worker.node.dead_processes() if global_worker.node else []
    return [name for name, _ in dead if name in ("gcs_server", "raylet")]


def check() -> None:
    """Raise EngineError if Ray cannot go on."""
    if dead := lost():
        raise EngineError(f"Ray ended: its {' and '.join(dead)} died, perhaps for want of memory")


def _quiet() -> None:
    """Keep what Ray says of its processes, also with log_to_driver off, out of standard output:
    into our log.
    """
    from ray._private import worker

    def to_log(data: dict[str, Any], ignore_prefix: bool) -> None:
        log_event("Ray says", lines=data["lines"])

    worker.print_to_stdstream = to_log


@contextmanager
def joined_cluster(address: str) -> Iterator[None]:
    """The cluster at `address` for this block. Raises ConfigError where there is none."""
    import ray

    if address == "local":
        raise ConfigError("ray_address is local: leave it out for a cluster of this run's own")
    host, _, port = address.rpartition(":")
    try:
        if host and "/" not in host and port.isdecimal():  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), 10).close()
        with environment(_SETTINGS), _leaving_sigterm_alone():
            _forget_token()
            ray.init(address=address, logging_level="ERROR", log_to_driver=False)
    except (OSError, ValueError, OverflowError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(
            f"ray_address {address}: no Ray cluster can be joined there ({reason}); give host:port"
            " of its head node, auto on a node of a running cluster, with its token in"
            " RAY_AUTH_TOKEN if it asks for one, or leave it out for a cluster of this run's own"
        ) from None
    try:
        yield
    finally:
        with handlers_kept():
            ray.shutdown()


def _token(folder: Path) -> dict[str, str | None]:
    """What makes Ray's processes ask each other for a secret of this run; it is in a file that only
    its user reads.
    """
    file = folder / "token"
    file.touch(0o600)
    file.write_text(secrets.token_hex(32))
    # Where no mode is set, Ray turns token authentication on, in this process too; the user's may
    # be "disabled".
    return {"RAY_AUTH_MODE": None, "RAY_AUTH_TOKEN_PATH": str(file), "RAY_AUTH_TOKEN": None}


def _forget_token() -> None:
    """Let Ray read the token anew: it keeps that of an earlier cluster of this process, or the
    user's own.
    """
    from ray._private.authentication.authentication_token_setup import AuthenticationTokenLoader

    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _leaving_sigterm_alone() -> Iterator[None]:
    """For ray.init: what handles SIGTERM stays our business.

    Ray's Python sets a handler that raises SystemExit, which is lost where it strikes a callback,
    as of a fork: here it sets none. Ray's C++ sets one at the very end, which ends the process: it
    is replaced a few ms later.
    """
    from ray._private import utils

    before = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = before
        put_handlers_back()


@contextmanager
def _staying_on_loopback() -> Iterator[None]:
    """Ray on Linux takes a loopback address for a mistake and listens on all interfaces, unless it
    is told that this is no place for a cluster of several nodes, as it assumes on other systems.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
