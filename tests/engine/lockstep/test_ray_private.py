"""The contract with Ray: each private name that `ray_private` uses exists and is of its kind.

No cluster is started. A release of Ray that renames or changes one of these names fails here, and
not in a run.
"""

from __future__ import annotations

import ast
import inspect
import tomllib
import warnings
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from engine.lockstep import ray_private
from tests.support.paths import ROOT, SHIPPED

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray and what it imports are not ours to mend
    import ray
    from ray._private import node, ray_constants, services, utils, worker
    from ray._private.authentication.authentication_token_setup import AuthenticationTokenLoader


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def looks_up(function: Any, name: str) -> bool:
    """Whether a function looks a name up when it runs, so that a replacement takes effect."""
    return name in inspect.unwrap(function).__code__.co_names


def test_the_installed_minor_release_is_the_one_that_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {r.name: r.specifier for r in map(Requirement, project["dependencies"])}["ray"]
    installed = Version(version("ray"))
    major, minor = installed.major, installed.minor
    assert asked == SpecifierSet(f">={major}.{minor},<{major}.{minor + 1}")


def test_no_other_file_that_ships_uses_a_private_name_of_ray() -> None:
    importers = {file for file in SHIPPED if imports_private_ray(file)}
    assert importers == {Path(ray_private.__file__)}


def imports_private_ray(file: Path) -> bool:
    modules: list[str] = []
    for syntax in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(syntax, ast.ImportFrom):
            modules += [f"{syntax.module}.{alias.name}" for alias in syntax.names]
        elif isinstance(syntax, ast.Import):
            modules += [alias.name for alias in syntax.names]
        elif isinstance(syntax, ast.Attribute) and isinstance(syntax.value, ast.Name):
            modules.append(f"{syntax.value.id}.{syntax.attr}")
    return any(module.startswith("ray._") for module in modules)


def test_the_worker_of_this_process_has_no_node_before_a_cluster_is_there() -> None:
    if ray.is_initialized():
        pytest.skip("another test has left a cluster in this process")
    assert worker.global_worker.node is None
    assert ray_private.dead_processes() == []


def test_a_node_lists_its_dead_processes_as_pairs_of_a_name_and_a_process() -> None:
    assert parameters(node.Node.dead_processes) == ["self"]

    dead, alive = (SimpleNamespace(poll=lambda code=code: code) for code in (1, None))
    bare = object.__new__(node.Node)
    bare.all_processes = {
        name: [SimpleNamespace(process=process)]
        for name, process in (("raylet", dead), ("gcs_server", alive))
    }
    assert bare.dead_processes() == [("raylet", dead)]


def test_the_processes_of_a_node_bear_the_names_that_are_asked_for() -> None:
    assert ray_constants.PROCESS_TYPE_GCS_SERVER == "gcs_server"
    assert ray_constants.PROCESS_TYPE_RAYLET == "raylet"


@pytest.mark.parametrize("name", ray_private.init_arguments("127.0.0.1", Path("folder")))
def test_init_takes_each_undocumented_argument(name: str) -> None:
    """`ray.init` has no parameters of these names: it takes them out of any keywords."""
    assert f'kwargs.pop("{name}"' in inspect.getsource(inspect.unwrap(ray.init))


def test_the_token_loader_of_the_process_can_forget_its_token() -> None:
    """It is not told to here: another test's cluster in this process needs its token."""
    loader: Any = AuthenticationTokenLoader
    assert callable(loader.instance().reset_cache)
    assert looks_up(ray_private.forget_token, "reset_cache")


def test_messages_of_processes_go_through_a_function_that_can_be_replaced() -> None:
    plain = worker.print_to_stdstream
    assert looks_up(worker.listen_error_messages, "print_to_stdstream")
    assert parameters(plain) == ["data", "ignore_prefix"]
    received: list[list[str]] = []
    with ray_private.process_messages_to(received.append):
        worker.print_to_stdstream({"lines": ["a process died"]}, ignore_prefix=True)
    assert received == [["a process died"]]
    assert worker.print_to_stdstream is plain


def test_a_driver_installs_its_sigterm_handler_through_a_function_that_can_be_replaced() -> None:
    plain = utils.set_sigterm_handler
    assert len(parameters(plain)) == 1
    assert looks_up(ray.init, "set_sigterm_handler")
    with ray_private.without_sigterm_handler():
        assert utils.set_sigterm_handler is not plain
        utils.set_sigterm_handler(None)
    assert utils.set_sigterm_handler is plain


def test_a_loopback_address_is_kept_while_it_is_allowed() -> None:
    plain = ray_constants.ENABLE_RAY_CLUSTER
    assert isinstance(plain, bool)
    with ray_private.loopback_allowed():
        assert ray_constants.ENABLE_RAY_CLUSTER is False
        assert services.resolve_ip_for_localhost("127.0.0.1") == "127.0.0.1"
    assert ray_constants.ENABLE_RAY_CLUSTER is plain
