"""Text of strangers on the way out: terminals, pages, figures and tables show it, and nothing of it
acts.
"""

from __future__ import annotations

import csv
import io
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.figures.text import name as drawn_name
from evaluators.figures.text import token as drawn_token
from evaluators.report.csv_file import to_csv
from tests.support.browser import opened
from tests.support.fuzzing import HOSTILE, cases, quiet, run, texts
from tests.support.report_runs import make_run

pytestmark = quiet

storable = texts.filter(lambda text: not re.search("[\ud800-\udfff]", text))
SCRIPT = (
    "</script></title><img src=http://nowhere.invalid/x onerror=\"document.title='owned'\">"
    "<script>document.title='owned'</script>"
)
_CONTROL = re.compile(r"[^\t\n -\ud7ff\ue000-\U0010ffff]|[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


def hostile_run(path: Path, text: str, vocabulary: list[str]) -> Path:
    """A run whose problem ids, task, models, answers and vocabulary are `text`, which is also its
    folder's name.
    """
    shutil.rmtree(path, ignore_errors=True)
    make_run(
        path,
        problems=[text],
        samples=1,
        budgets=(0, 2),
        texts=vocabulary,
        rl=text,
        config={"window": text, "match": text},
    )
    return path


@cases(10, 0.1)
@given(text=storable, vocabulary=st.lists(storable, min_size=6, max_size=6))
def test_commands_show_text_of_strangers_and_obey_none_of_it(
    own: Path, text: str, vocabulary: list[str]
) -> None:
    folder = hostile_run(own / "run", text, vocabulary)
    page = own / "page.html"
    for args in (
        ["inspect", str(folder), f"--problem={text}"],
        ["inspect", str(folder), f"--problem={text}", "--html", str(page)],
        ["verify", str(folder)],
        ["grade", str(folder)],
    ):
        assert run(args, own).exit_code == 0
    assert_inert(page.read_text(encoding="utf-8"))


def assert_inert(page: str) -> None:
    """No tag, attribute or control character in the page that its template did not write."""
    assert not _CONTROL.search(page)
    assert page.count("<script") == page.count("</script") == 2
    assert not re.search(r"<(img|iframe|object|embed|base|form)\b", page)


@cases(150, 0.45)
@given(text=storable)
def test_a_cell_of_a_csv_file_is_no_formula_and_reads_back(text: str) -> None:
    content = to_csv(pa.table({"text": [text, "", None], "x": [1.0, 2.0, None]}))
    rows = list(csv.reader(io.StringIO(content.decode(), newline="")))
    assert rows[1][0].removeprefix("'") == text.removeprefix("'") or rows[1][0] == text
    assert not rows[1][0].startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


@cases(150, 0.45)
@given(text=storable, number=st.none() | st.integers(0, 2**31))
def test_text_in_a_figure_is_short_and_one_line_of_glyphs(text: str, number: int | None) -> None:
    for shown in (drawn_name(text), drawn_token(text, number)):
        assert len(shown) <= 40 and (shown.isprintable() or not shown)


def test_a_report_and_an_inspector_of_a_strangers_run_are_inert_in_a_browser(
    tmp_path: Path,
) -> None:
    """The name of the run's folder, of its models and problems, its tokens and its settings are all
    hostile.
    """
    text = SCRIPT + "$\\frac{1}{0}$ \x1b[2J"
    folder = hostile_run(
        tmp_path / text.replace("/", "\N{FRACTION SLASH}"), text, [text, *HOSTILE_STORABLE[:5]]
    )
    assert run(["report", str(folder), "--show-text"], tmp_path).exit_code == 0
    page = tmp_path / "page.html"
    assert (
        run(
            ["inspect", str(folder), f"--problem={text}", "--show-text", "--html", str(page)],
            tmp_path,
        ).exit_code
        == 0
    )
    for file in (folder / "report" / "index.html", page):
        with opened(file) as shown:
            assert shown.complaints == [] and shown.requests == []
            assert shown.tab.title() != "owned"
            assert shown.tab.locator("img[onerror]").count() == 0
    for svg in (folder / "report" / "figures").glob("*.svg"):
        for element in ElementTree.parse(svg).iter():
            assert element.tag.rpartition("}")[2] not in ("script", "a", "foreignObject"), svg
            links = [value for name, value in element.attrib.items() if name.endswith("href")]
            assert all(link.startswith(("#", "data:image/png;")) for link in links), svg


HOSTILE_STORABLE = [text for text in HOSTILE if not re.search("[\ud800-\udfff]", text)]
