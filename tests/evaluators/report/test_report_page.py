"""One whole report of a run, its control and two checkpoints: what is written, and its page in a
real browser.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import csv

from engine.store.run_store import RunStore
from evaluators.database.run_tables import open_database
from evaluators.report.build import Report, build_report, compare, known_files
from evaluators.report.csv_file import to_csv
from evaluators.report.page import Drawn, render
from evaluators.report.runs import open_runs
from evaluators.report.sections import SECTIONS
from tests.support.browser import Opened, opened
from tests.support.report_runs import make_run, matching

MATCHES = {"criterion": "random", "threshold": None, "match": "elsewhere/<b>sweep"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    sweep = make_run(folder / "<b>sweep", rl="models/step_5")
    control = make_run(
        folder / "control",
        config=MATCHES,
        identity=matching(sweep),
        number=1,
        gated=True,
        rl="models/step_5",
    )
    return [
        sweep,
        control,
        make_run(folder / "later", identity={"rl": "9"}, rl="models/step_9", graded=False),
    ]


@pytest.fixture(scope="module")
def report(runs: list[Path]) -> Report:
    return build_report(runs, runs[0] / "report")


@pytest.fixture(scope="module")
def page(report: Report) -> Iterator[Opened]:
    with opened(report.index, width_px=1280) as page:
        yield page


def test_every_table_and_figure_is_written(report: Report) -> None:
    written = {
        str(file.relative_to(report.index.parent)) for file in (*report.tables, *report.figures)
    }
    assert written == known_files()
    assert all(file.stat().st_size for file in (*report.tables, *report.figures))


def test_csv_files_hold_the_tables(report: Report, runs: list[Path]) -> None:
    with open_database() as database:
        tables = compare(database, open_runs(database, runs), lambda stage: None).results.tables
    assert {file.stem for file in report.tables} == tables.keys()
    for file in report.tables:
        assert file.read_bytes() == to_csv(tables[file.stem])
        assert csv.read_csv(
            file, parse_options=csv.ParseOptions(newlines_in_values=True)
        ).num_rows == len(tables[file.stem])


def test_a_run_with_a_report_in_it_is_still_a_run(report: Report, runs: list[Path]) -> None:
    assert report.index.parent.parent == runs[0]
    with RunStore.open(runs[0], {"identity": RunStore.read(runs[0]).manifest["identity"]}) as store:
        assert len(store.done()) == store.num_expected


def test_a_report_that_is_stopped_leaves_the_old_one_as_it_was(
    report: Report, runs: list[Path]
) -> None:
    before = {file: file.read_bytes() for file in (report.index, *report.tables)}

    def stop(stage: str) -> None:
        if stage.startswith("figures: sparsity"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_report(runs[1:], report.index.parent, stop)
    assert {file: file.read_bytes() for file in before} == before


def test_the_page_opens_from_disk_without_a_complaint_or_a_request(page: Opened) -> None:
    assert page.complaints == [] and page.requests == []


def test_the_policy_of_the_page_allows_no_script_and_no_address(page: Opened) -> None:
    policy = (
        page.tab.locator("meta[http-equiv=Content-Security-Policy]").get_attribute("content") or ""
    )
    assert (
        "default-src 'none'" in policy
        and "script-src" not in policy
        and "unsafe-inline" not in policy
    )
    assert page.tab.locator("script, [style], link, iframe").count() == 0


def test_the_style_sheet_is_in_force(page: Opened) -> None:
    assert (
        page.tab.evaluate("getComputedStyle(document.querySelector('.layout')).display") == "grid"
    )
    colours = page.tab.evaluate(
        "[...document.querySelectorAll('.swatch')].map(i => getComputedStyle(i).color)"
    )
    assert len(set(colours)) == 3


def test_every_figure_is_there_with_a_size_and_words_for_who_cannot_see_it(
    page: Opened, report: Report
) -> None:
    sizes = page.tab.evaluate(
        "[...document.images].map(i => [i.naturalWidth, i.clientWidth, i.clientHeight,"
        " i.alt.length])"
    )
    assert len(sizes) == len(report.figures) // 2
    assert all(
        natural > 0 and width > 300 and height > 50 and alt > 20
        for natural, width, height, alt in sizes
    )
    captions = page.tab.locator("figcaption").all_inner_texts()
    assert all(re.search(r"n: .*\d", caption) and "{" not in caption for caption in captions)


def test_every_link_leads_somewhere(page: Opened, report: Report) -> None:
    links = page.tab.evaluate(
        "[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))"
    )
    ids = set(page.tab.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)"))
    assert all(
        link[1:] in ids if link.startswith("#") else (report.index.parent / link).is_file()
        for link in links
    )
    assert {link for link in links if not link.startswith("#")} == known_files()


def test_nothing_is_wider_than_1280_pixels_also_with_all_tables_open(page: Opened) -> None:
    page.tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= 1280
    page.tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = false)")


def test_the_page_says_what_is_missing_and_what_was_compared(page: Opened) -> None:
    assert "later: not graded" in page.tab.locator("#missing").inner_text()
    runs = page.tab.locator("#runs").inner_text()
    assert all(
        text in runs
        for text in ("<b>sweep", "models/step_9", "36 of 36", "random", "top-p 0.7", "2026-01-01")
    )
    numbers = page.tab.locator("#numbers").inner_text()
    assert all(text in numbers for text in ("control (control)", "unlimited", "0 (base)", "100.0"))


def test_a_figure_that_is_too_large_as_svg_is_shown_as_png(runs: list[Path]) -> None:
    name = next(section.drawings[0].name for section in SECTIONS if section.name == "sparsity")
    with open_database() as database:
        content = compare(database, open_runs(database, runs[:1]), lambda stage: None)
        for svg, kind in ((b"<svg/>", "svg+xml"), (b" " * 2_000_000, "png")):
            page = render(content.runs, SECTIONS, content.results, {name: Drawn(b"PNG", svg)}, [])
            assert page.count('src="data:image/') == 1 and f'src="data:image/{kind};base64,' in page


def test_a_table_is_shown_to_its_30th_row(page: Opened, report: Report) -> None:
    [long] = [file for file in report.tables if file.stem == "js_percentiles"]
    table: pa.Table = csv.read_csv(long)
    details = page.tab.locator("details", has_text="js_percentiles")
    assert details.locator("tbody tr").count() == 30 < table.num_rows
    assert f"{table.num_rows:,} rows" in details.locator("summary").inner_text()
