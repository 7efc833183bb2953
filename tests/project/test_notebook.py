"""The notebook of the examples in a real kernel, which starts engines of its own."""

from __future__ import annotations

import json
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.paths import ROOT

NOTEBOOK = ROOT / "examples" / "first_run.ipynb"
# What one run leaves behind must not disturb the next.
SECOND_RUN = """
second = xsample.run(
    limit=1, samples=1, budget=2, direction="reverse", device="cpu", seed=1, out="runs/second",
    progress=False,
)
print(second.num_made, second.summary()["total"]["missing"])
"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The notebook, and behind it another run in the same process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
        text = NOTEBOOK.read_text(encoding="utf-8")
        notebook: Any = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
        second: Any = nbformat.v4.new_code_cell(SECOND_RUN)  # type: ignore[no-untyped-call]
        notebook.cells.append(second)
        resources = {"metadata": {"path": str(tmp_path_factory.mktemp("notebook"))}}
        NotebookClient(notebook, timeout=600, resources=resources).execute()
    return notebook


def test_the_notebook_runs_with_its_progress_in_one_output(executed: Any) -> None:
    [cell] = [cell for cell in executed.cells if cell.source.startswith("run = xsample.run")]
    [progress] = [out for out in cell.outputs if out.output_type == "display_data"]
    assert "accuracy" in progress["data"]["text/plain"]
    assert "run directory: runs/notebook" in progress["data"]["text/plain"]
    assert [out for out in cell.outputs if out.get("name") == "stderr"] == []


def test_two_runs_in_one_process_each_have_a_cluster_of_their_own(executed: Any) -> None:
    assert [out["text"] for out in executed.cells[-1].outputs] == ["1 0\n"]


def test_the_notebook_is_stored_without_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert not any(cell.get("outputs") for cell in notebook["cells"])
