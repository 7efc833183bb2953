"""Everything that the project uses of Ray beyond its public interface, in one place.

`tests/engine/lockstep/test_ray_private.py` holds the contract: it fails when a release of Ray
changes one of these names. pyproject.toml supports the minor releases of Ray that were tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def dead_processes() -> list[str]:
    """Names of those processes of our own cluster that have died ("raylet", "gcs_server", ...)."""
    from ray._private.worker import global_worker

    node = global_worker.node
    return [name for name, _ in node.dead_processes()] if node else []


def init_arguments(host: str, folder: Path) -> dict[str, Any]:
    """Undocumented arguments of `ray.init`: Ray's address and the folder of its files."""
    return {"_node_ip_address": host, "_temp_dir": str(folder)}


def forget_token() -> None:
    """Let Ray read its authentication token anew.

    Ray keeps the token of an earlier cluster of this process, or the user's own.
    """
    from ray._private.authentication.authentication_token_setup import AuthenticationTokenLoader

    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def process_messages_to(receive: Callable[[list[str]], object]) -> Iterator[None]:
    """Inside the block `receive` gets what Ray would print about its processes, a list of lines.

    Ray prints it on standard output, also with `log_to_driver=False`.
    """
    from ray._private import worker

    before = worker.print_to_stdstream
    worker.print_to_stdstream = lambda data, ignore_prefix: receive(data["lines"])
    try:
        yield
    finally:
        worker.print_to_stdstream = before


@contextmanager
def without_sigterm_handler() -> Iterator[None]:
    """Inside the block `ray.init` installs no Python handler for SIGTERM.

    Ray's handler raises SystemExit, which is lost where it strikes a callback, as of a fork.
    """
    from ray._private import utils

    before = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = before


@contextmanager
def loopback_allowed() -> Iterator[None]:
    """Inside the block Ray listens on a loopback address when it is given one.

    Ray on Linux takes a loopback address for a mistake and listens on all interfaces, unless it
    assumes, as on other systems, that clusters of several nodes are not possible.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
