"""The inspector's page in a browser: no error, no request, and what is shown are the numbers of the
row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import exp
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator

from benchmarks.inspector import long_sample
from engine.core import Grade, Problem
from evaluators.inspector.page import inspect_html
from evaluators.inspector.reading import read_sample
from evaluators.inspector.sample import HIDDEN
from evaluators.inspector.wording import ABSENT
from tests.support.browser import Opened, opened
from tests.support.inspector_runs import (
    HOSTILE,
    grade,
    key,
    make_run,
    measured,
    sample_of,
    small_run,
    token,
)


def written(path: Path, page: str) -> Path:
    path.write_text(page, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    folder = tmp_path_factory.mktemp("page")
    run = small_run(folder / "run")
    grade(run, Grade(key(), "4", None, "boxed", "correct", True))
    with opened(
        written(folder / "page.html", inspect_html(read_sample(run, "p", 0), False))
    ) as page:
        yield page
        assert page.complaints == [] and page.requests == []


def tokens(page: Opened, block: int) -> Locator:
    return page.tab.locator(f"#t{block} .tokens .t")


def tip(page: Opened) -> str:
    """The text of the tooltip, empty where it is hidden."""
    box = page.tab.locator("#tip")
    return box.inner_text() if box.is_visible() else ""


def numbers(page: Opened) -> dict[str, list[str]]:
    """Row of the tooltip's table -> its two cells."""
    rows = page.tab.locator("#tip tbody tr").all()
    return {row.locator("th").inner_text(): row.locator("td").all_inner_texts() for row in rows}


def close_to(value: float) -> Any:
    return pytest.approx(value, rel=6e-4)


def test_pointing_at_a_token_shows_the_numbers_of_its_row(page: Opened) -> None:
    row = measured(key(), [1, 2, 3, 5, 4, 0])[2]
    tokens(page, 0).nth(2).hover()
    text, found = tip(page), numbers(page)
    assert re.search(r"position 2 .*is.* #3\n", text)
    assert float(text.split("JS ")[1].split()[0]) == close_to(row["js"])
    for place, policy in enumerate(("base", "rl")):
        probability, rank = re.fullmatch(
            r"(\S+) \(rank (\d+)\)", found["probability"][place]
        ).groups()  # type: ignore[union-attr]
        assert float(probability) == close_to(exp(row[f"logp_{policy}"]))
        assert int(rank) == row[f"rank_{policy}"]
        assert float(found["entropy, nats"][place]) == close_to(row[f"entropy_{policy}"])
        assert int(found["nucleus, tokens"][place]) == row[f"nucleus_{policy}"]
    assert found["top-1 of base “␣the”"][1] == f"{exp(row['logp_rl_of_top1_base']):.4g} (rank 7)"
    assert found["top-1 of rl “␣sum”"][0] == f"{exp(row['logp_base_of_top1_rl']):.4g} (rank 4)"
    assert "effective intervention of rl: base would have sampled “␣is”" in text
    assert page.tab.locator(".topk-base").inner_text().split()[1:] == ["“␣the”", "“␣sum”", "“␣is”"]
    assert page.tab.locator(".topk-rl").inner_text().split()[1:] == ["“␣sum”", "“␣the”", "“␣so”"]


def test_leaving_a_token_hides_its_numbers(page: Opened) -> None:
    tokens(page, 0).nth(2).hover()
    assert tip(page)
    page.tab.locator("h1").hover()
    assert not tip(page)


def test_an_intervention_without_effect_says_so(page: Opened) -> None:
    tokens(page, 0).nth(3).hover()
    assert "intervention, not effective of rl: base would have sampled “4”" in tip(page)


def test_the_keyboard_moves_from_token_to_token_and_to_interventions(page: Opened) -> None:
    tokens(page, 0).nth(0).focus()
    assert "position 0" in tip(page)
    for pressed, position in (
        ("ArrowRight", 1),
        ("n", 2),
        ("n", 3),
        ("p", 2),
        ("End", 5),
        ("ArrowRight", 5),
        ("Home", 0),
    ):
        page.tab.keyboard.press(pressed)
        assert f"position {position} " in tip(page), pressed
    page.tab.keyboard.press("Escape")
    assert not tip(page)


def test_one_token_a_trajectory_is_reached_by_tab(page: Opened) -> None:
    for block in range(4):
        assert page.tab.locator(f"#t{block} .t[tabindex='0']").count() == (0 if block == 1 else 1)


def test_interventions_are_outlined_and_effective_ones_bold(page: Opened) -> None:
    style = "e => [getComputedStyle(e).outlineStyle, getComputedStyle(e).fontWeight]"
    page.tab.locator("h1").click()
    assert tokens(page, 0).nth(1).evaluate(style) == ["none", "400"]
    assert tokens(page, 0).nth(2).evaluate(style) == ["solid", "700"]
    assert tokens(page, 0).nth(3).evaluate(style) == ["solid", "400"]


def test_line_ends_are_seen_and_break_the_line(page: Opened) -> None:
    assert tokens(page, 0).nth(4).inner_text() == "⏎⏎"
    top = "e => e.getBoundingClientRect().top"
    assert tokens(page, 0).nth(5).evaluate(top) > tokens(page, 0).nth(4).evaluate(top) + 30


def test_what_is_the_same_is_folded_and_unfolds(page: Opened) -> None:
    assert tokens(page, 1).count() == 0
    assert "same tokens as forward, unlimited" in page.tab.locator("#t1").inner_text()
    page.tab.locator("#t1 .fold").click()
    assert tokens(page, 1).count() == 6
    assert tokens(page, 1).nth(2).get_attribute("class") == "t intervened effective"
    page.tab.locator("#t1 .fold").click()
    assert tokens(page, 1).count() == 0


def test_where_one_parts_is_marked_on_both_and_the_note_goes_there(page: Opened) -> None:
    shared = page.tab.locator("#t3 .shared .t")
    assert shared.count() == 4 and tokens(page, 3).count() == 7
    assert page.tab.locator("#t3 .mark").inner_text() == "▶"
    goto = page.tab.locator("#t3 .goto")
    assert (
        goto.inner_text() == "parts from reverse, unlimited at position 4: “⇥” here, “<eos>” there"
    )
    goto.click()
    assert "position 4 “<eos>”" in tip(page) and "here part: reverse, budget 1" in tip(page)


def test_the_header_holds_question_answer_settings_and_verdict(page: Opened) -> None:
    text = page.tab.locator("body").inner_text()
    for said in (
        "What is 2 + 2?",
        "models/base",
        "threshold\n0.1",
        "correct: 4",
        "not graded",
        "0.693",
    ):
        assert said in text or said.replace("\n", " ") in text


def test_a_long_shared_prefix_is_folded_to_its_last_tokens_so_that_the_rests_are_aligned(
    tmp_path: Path,
) -> None:
    stem = [1, 2] * 30
    trajectories = [
        [
            token(key("forward", budget), i, taken)
            for i, taken in enumerate([*stem[:length], 5, 6, 0])
        ]
        for budget, length in ((None, 60), (4, 40), (2, 21))
    ]
    sample = read_sample(make_run(tmp_path / "run", [trajectories]), "p", 0)
    with opened(written(tmp_path / "page.html", inspect_html(sample, False))) as page:
        assert [tokens(page, block).count() for block in range(3)] == [63, 6 + 3, 6 + 3]
        marks = [page.tab.locator(f"#t{block} .mark").bounding_box() for block in (1, 2)]
        assert marks[0] and marks[1] and marks[0]["x"] == marks[1]["x"]
        page.tab.locator("#t1 .fold").click()
        assert tokens(page, 1).count() == 43
        assert page.tab.evaluate("document.activeElement.className") == "fold"
        assert page.complaints == page.requests == []


def test_what_was_not_measured_has_no_colour_and_says_so(tmp_path: Path) -> None:
    rows = [token(key(), 0, 5, js=0.0), token(key(), 1, 6)]
    with opened(written(tmp_path / "page.html", inspect_html(sample_of(rows), False))) as page:
        colours = [
            tokens(page, 0).nth(i).evaluate("e => e.style.backgroundColor") for i in range(2)
        ]
        assert colours[0] != "" and colours[1] == ""
        tokens(page, 0).nth(1).hover()
        assert "not measured" in tip(page) and set(numbers(page)["probability"]) == {ABSENT}


def test_hostile_text_is_shown_as_text(tmp_path: Path) -> None:
    at = key(problem=HOSTILE)
    run = make_run(
        tmp_path / "run",
        [[measured(at, [0, 1, 2, 3])]],
        [HOSTILE] * 11,
        problem=Problem(HOSTILE, HOSTILE, HOSTILE),
    )
    grade(run, Grade(at, HOSTILE, None, "boxed", "correct", True))
    with opened(
        written(tmp_path / "page.html", inspect_html(read_sample(run, HOSTILE, 0), False))
    ) as page:
        page.tab.on("dialog", lambda dialog: page.complaints.append(dialog.message))
        tokens(page, 0).nth(2).hover()
        assert "</script><script>alert(1)</script>" in tip(page)
        assert "</script><script>alert(1)</script>" in page.tab.locator("h1").inner_text()
        assert page.tab.locator("script").count() == 2
        assert page.complaints == page.requests == []


def test_a_gated_sample_shows_blocks_and_numbers_in_the_browser(tmp_path: Path) -> None:
    sample = read_sample(small_run(tmp_path / "run", gated=True), "p", 0)
    with opened(written(tmp_path / "page.html", inspect_html(sample, False))) as page:
        tokens(page, 0).nth(2).hover()
        assert tokens(page, 0).nth(2).inner_text() == HIDDEN * 3
        assert "JS 0.04 nats" in tip(page) and "#" not in tip(page)
        assert "sum" not in page.tab.locator("main").inner_text()
        assert page.complaints == page.requests == []


def test_the_page_allows_nothing_but_its_own_script_and_style(tmp_path: Path) -> None:
    html = inspect_html(sample_of([token(key(), 0, 5)]), False)
    injected = html.replace(
        "</main>", "<script>document.title='x'</script><img src='http://127.0.0.1/x.png'></main>"
    )
    with opened(written(tmp_path / "page.html", injected)) as page:
        assert page.tab.title() != "x"
        assert len([said for said in page.complaints if "Content Security Policy" in said]) == 2


@pytest.mark.parametrize("length", [1_000, 8_000])
def test_a_page_of_long_responses_has_an_element_a_token_and_few_others(
    tmp_path: Path, length: int
) -> None:
    """How long it takes to open, benchmarks/inspector measures."""
    with opened(written(tmp_path / "page.html", inspect_html(long_sample(length), False))) as page:
        assert tokens(page, 0).count() == length
        assert page.tab.evaluate("document.getElementsByTagName('*').length") < 5 * length
        tokens(page, 3).last.hover()
        assert f"position {length - 1:,}" in tip(page)
        assert page.complaints == []
