"""The Ray cluster of a run: one of its own on this machine, or one that is running already.

Its own cluster listens on loopback only, asks every peer for a token that is made for the run, has
no dashboard, and keeps its files in the run's session folder. A cluster that is joined is the
business of whoever started it.
"""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.errors import ConfigError, EngineError, first_line
from engine.lockstep import ray_private
from engine.system.log import log_event
from engine.system.session import VARIABLE, environment, session
from engine.system.signals import keep_handlers, restore_handlers

_LOOPBACK = "127.0.0.1"
_OBJECT_STORE_BYTES = 2**28
_MAX_STARTS = 4
_SETTINGS: dict[str, str | None] = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_prestart_worker_first_driver": "0",  # a process a core, of which none is used
    "RAY_worker_niceness": "0",  # 15 else: an engine would stand behind all else on its cores
    "RAY_USAGE_STATS_ENABLED": "0",
}

# In a notebook Ray asks for a package that nothing here needs, as soon as its modules are imported.
logging.getLogger("ray.widgets.util").setLevel(logging.ERROR)


@contextmanager
def own_cluster(num_cpus: int) -> Iterator[None]:
    """A cluster on this machine for this block. It ends with everything that it has started.

    Raises:
        EngineError: Ray could not be started.
    """
    import ray

    with session() as folder, ray_private.process_messages_to(_log_messages):
        inherited = _SETTINGS | _token(folder) | {VARIABLE: str(folder), "TMPDIR": str(folder)}
        with environment(inherited), ray_private.loopback_allowed(), _leaving_sigterm_alone():
            ray_private.forget_token()
            _start(num_cpus, folder)
        try:
            yield
        finally:
            with keep_handlers():
                ray.shutdown()


def _start(num_cpus: int, folder: Path) -> None:
    """Start Ray, again where it has not come up in its own time limit, as on a busy machine.

    Raises:
        EngineError: It does not start.
    """
    import psutil
    import ray

    mine = psutil.Process()
    for attempt in range(1, _MAX_STARTS + 1):
        before = set(mine.children(recursive=True))
        try:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                logging_level="ERROR",
                log_to_driver=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                **ray_private.init_arguments(_LOOPBACK, folder / "ray"),
            )
        except Exception as error:  # Ray has no errors of its own for this
            ray.shutdown()  # which knows nothing of daemons that have come too late
            for daemon in set(mine.children(recursive=True)) - before:
                with suppress(psutil.Error):
                    daemon.kill()
            reason = first_line(error)
            if "timed out during startup" not in reason or attempt == _MAX_STARTS:
                raise EngineError(f"Ray could not be started: {reason}") from None
            log_event("Ray did not start in its own time limit: once more", logging.WARNING)
        else:
            return


@contextmanager
def joined_cluster(address: str) -> Iterator[None]:
    """The running cluster at `address`, for this block.

    Raises:
        ConfigError: No cluster can be joined there.
    """
    import ray

    if address == "local":
        raise ConfigError("ray_address is local: leave it out for a cluster of this run's own")
    host, _, port = address.rpartition(":")
    try:
        if host and "/" not in host and port.isdecimal():  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), 10).close()
        with environment(_SETTINGS), _leaving_sigterm_alone():
            ray_private.forget_token()
            ray.init(address=address, logging_level="ERROR", log_to_driver=False)
    except (OSError, ValueError, OverflowError, RuntimeError) as error:
        raise ConfigError(
            f"ray_address {address}: no Ray cluster can be joined there ({first_line(error)}); give"
            " host:port of its head node, auto on a node of a running cluster, with its token in"
            " RAY_AUTH_TOKEN if it asks for one, or leave it out for a cluster of this run's own"
        ) from None
    try:
        yield
    finally:
        with keep_handlers():
            ray.shutdown()


def dead_processes() -> list[str]:
    """The processes of our own cluster that have died and without which Ray cannot go on.

    Ray itself ends the driver, with no clean-up: at the next object where the raylet died, a minute
    after the GCS did.
    """
    return [name for name in ray_private.dead_processes() if name in ("gcs_server", "raylet")]


def check() -> None:
    """Check that Ray can go on.

    Raises:
        EngineError: One of its processes has died.
    """
    if dead := dead_processes():
        raise EngineError(f"Ray ended: its {' and '.join(dead)} died, perhaps for want of memory")


def _log_messages(lines: list[str]) -> None:
    log_event("Ray says", lines=lines)


def _token(folder: Path) -> dict[str, str | None]:
    """Variables that make Ray's processes ask each other for a secret of this run.

    The secret is in a file that only its user reads.
    """
    file = folder / "token"
    file.touch(0o600)
    file.write_text(secrets.token_hex(32))
    # Where no mode is set, Ray turns token authentication on, in this process too; the user's may
    # be "disabled".
    return {"RAY_AUTH_MODE": None, "RAY_AUTH_TOKEN_PATH": str(file), "RAY_AUTH_TOKEN": None}


@contextmanager
def _leaving_sigterm_alone() -> Iterator[None]:
    """For `ray.init`: what handles SIGTERM stays our business.

    Ray's C++ installs a handler at the very end that ends the process: ours is put back a few
    milliseconds later.
    """
    with ray_private.without_sigterm_handler():
        try:
            yield
        finally:
            restore_handlers()
