"""The inspector without a browser: what is read, where trajectories part, what is redacted, what a
terminal shows.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from math import exp, log
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from engine.core import Grade, Problem, Trajectory
from engine.errors import RunDirectoryError, StoreError, UsageError, XsampleError
from engine.store.schema import TOKENS
from evaluators.inspector.alignment import Aligned, align
from evaluators.inspector.colours import MAX_JS, NUM_SHADES, palette, shade
from evaluators.inspector.columns import page_data
from evaluators.inspector.listing import NUM_DIVERGENT, notable_rows
from evaluators.inspector.page import inspect_html
from evaluators.inspector.reading import read_sample
from evaluators.inspector.redaction import redact
from evaluators.inspector.sample import HIDDEN, Sample
from evaluators.inspector.terminal import inspect_terminal
from tests.support.inspector_runs import (
    HOSTILE,
    TEXTS,
    grade,
    key,
    make_run,
    measured,
    sample_of,
    small_run,
    token,
)


def printed(sample: Sample, show_text: bool = False, width: int = 120, **options: Any) -> str:
    console = Console(width=width, highlight=False, **options)
    with console.capture() as capture:
        console.print(inspect_terminal(sample, show_text))
    return capture.get()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("runs") / "run")


# Reading


def test_a_sample_is_all_its_trajectories_with_their_rows_and_nothing_of_others(run: Path) -> None:
    sample = read_sample(run, "p", 0)
    assert [traced.key for traced in sample.trajectories] == [
        key("forward", None), key("forward", 1), key("reverse", None), key("reverse", 1)
    ]  # fmt: skip
    assert (
        sample.trajectories[3].rows.to_pylist()
        == pa.Table.from_pylist(
            measured(key("reverse", 1), [1, 2, 7, 6, 8, 9, 0]), TOKENS
        ).to_pylist()
    )
    assert (sample.question, sample.answer, sample.prompt) == ("What is 2 + 2?", "4", "4 the")
    assert [sample.text(1), sample.text(10), sample.text(99)] == [" the", "#10", "#99"]


def test_an_ungraded_run_is_shown_with_a_note_and_a_graded_one_with_its_verdicts(
    run: Path, tmp_path: Path
) -> None:
    [note] = read_sample(run, "p", 0).notes
    assert "xsample grade" in note
    graded = Path(shutil.copytree(run, tmp_path / "graded"))
    grade(
        graded,
        Grade(key("forward", 1), None, "5", "last", "guessed", False),
        Grade(key(), "4", None, "b", "correct", True),
    )
    sample = read_sample(graded, "p", 0)
    assert sample.notes == ()
    assert [(t.verdict, t.answer) for t in sample.trajectories] == [
        ("correct", "4"),
        ("guessed", "5"),
        (None, None),
        (None, None),
    ]


@pytest.mark.parametrize(
    ("problem", "sample", "says"),
    [
        ("arithmetic/1+2", 0, r"'arithmetic/1\+2'.* which has 3: .*'arithmetic/1\+1'"),
        ("no such", 0, r"'no such'.* which has 3: give one of them, such as '"),
        ("\x1b\n", 0, r"problem '\\x1b\\n' is not in run"),
        ("other", 7, r"sample 7 of problem 'other' .* samples 0 to 3$"),
        ("other", 10**30, r"sample 1000000000000000000000000000000 of problem"),
        ("other", -1, r"sample -1 of problem 'other' .* samples 0 to 3$"),
    ],
)
def test_what_is_not_in_the_run_is_named_with_what_is(
    tmp_path: Path, problem: str, sample: int, says: str
) -> None:
    problems = ["arithmetic/1+1", "arithmetic/12+12", "other"]
    expected = {"problems": problems, "samples": 4, "directions": ["forward"], "budgets": [8]}
    run = make_run(tmp_path, [], expected=expected)
    with pytest.raises(UsageError, match=says) as caught:
        read_sample(run, problem, sample)
    assert len(str(caught.value).splitlines()) == 1


def test_an_incomplete_run_says_what_is_missing_and_shows_the_rest(tmp_path: Path) -> None:
    expected = {
        "problems": ["p"],
        "samples": 2,
        "directions": ["forward", "reverse"],
        "budgets": [1, None],
    }
    run = make_run(tmp_path, [[measured(key("forward", 1), [1, 0])]], expected=expected)
    sample = read_sample(run, "p", 0)
    assert len(sample.trajectories) == 1
    assert sample.notes[0].startswith(
        "3 of 4 trajectories are missing: p sample 0 forward budget unlimited,"
    )
    with pytest.raises(RunDirectoryError, match="no responses of problem 'p', sample 1"):
        read_sample(run, "p", 1)


def test_a_damaged_tokens_part_leaves_the_tokens_without_numbers(run: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(run, tmp_path / "run"))
    (damaged / "tokens" / "part-000001.parquet").write_bytes(b"PAR1 no more")
    (damaged / "problems.parquet").write_bytes(b"")
    (damaged / "vocabulary.parquet").unlink()
    sample = read_sample(damaged, "p", 0)
    assert sample.trajectories[2].tokens == [1, 2, 7, 6, 0]
    assert sample.trajectories[2].rows["js"].null_count == 5
    assert sample.trajectories[0].rows["js"].null_count == 0
    notes = "\n".join(sample.notes)
    assert (
        "tokens/part-000001.parquet is unreadable" in notes
        and "problems.parquet" in notes
        and "ids are shown" in notes
    )
    assert "#7" in printed(sample) and "#7" in inspect_html(sample, False)


def test_a_part_that_is_gone_is_a_note_and_its_rest_is_shown(run: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(run, tmp_path / "run"))
    (damaged / "responses" / "part-000000.parquet").write_bytes(b"")
    (damaged / "tokens" / "part-000001.parquet").unlink()
    sample = read_sample(damaged, "p", 0)
    assert [traced.key.direction for traced in sample.trajectories] == ["reverse", "reverse"]
    assert any("responses/part-000000.parquet is unreadable" in note for note in sample.notes)
    assert any("tokens/part-000001.parquet is missing" in note for note in sample.notes)
    assert all("\n" not in note for note in sample.notes)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(XsampleError, match=r"holds no run\.json"):
        read_sample(tmp_path, "p", 0)


@pytest.mark.parametrize(
    ("manifest", "error", "says"),
    [
        ("{", StoreError, r"run\.json cannot be read"),
        ('{"schema_version": 3}', RunDirectoryError, "schema_version 3"),
    ],
)
def test_a_run_json_that_is_damaged_or_of_another_version_is_refused(
    run: Path, tmp_path: Path, manifest: str, error: type[XsampleError], says: str
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / "run.json").write_text(manifest)
    with pytest.raises(error, match=says):
        read_sample(copy, "p", 0)


def test_a_scored_run_without_gold_answers_is_not_told_to_grade(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run", [[measured(key("given"), [1, 0])]], scored=True, problems=False
    )
    [note] = read_sample(run, "p", 0).notes
    assert "no gold answers" in note and "with --task" in note and "xsample grade" not in note


# Alignment


BUDGETS = st.none() | st.integers(0, 9)
KEYS = st.builds(key, st.sampled_from(["forward", "reverse", "given"]), BUDGETS)
SAMPLES = st.dictionaries(KEYS, st.lists(st.integers(0, 2), max_size=6), max_size=6)


@settings(max_examples=200, deadline=None)
@given(SAMPLES)
def test_each_parts_from_an_earlier_one_with_the_longest_common_prefix(
    tokens: dict[Trajectory, list[int]],
) -> None:
    aligned = align(tokens)
    assert {one.key for one in aligned} == set(tokens)
    for place, one in enumerate(aligned):
        mine, earlier = tokens[one.key], [other.key for other in aligned[:place]]
        longest = max((common(mine, tokens[other]) for other in earlier), default=0)
        assert one.num_shared == longest
        assert one.same == any(tokens[other] == mine for other in earlier)
        if one.parts_from is None:
            assert longest == 0 and not one.same
        else:
            theirs = tokens[one.parts_from]
            assert one.parts_from in earlier and common(mine, theirs) == longest
            assert one.same == (mine == theirs)
        assert not one.folds or any(other.direction == one.key.direction for other in earlier)


def common(one: Sequence[int], other: Sequence[int]) -> int:
    return next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )


@settings(max_examples=50, deadline=None)
@given(SAMPLES)
def test_directions_come_in_turn_each_with_its_largest_budget_first(
    tokens: dict[Trajectory, list[int]],
) -> None:
    found = [(one.key.direction, one.key.budget) for one in align(tokens)]
    order = ["forward", "reverse", "given"]
    assert found == sorted(
        found, key=lambda arm: (order.index(arm[0]), -1e9 if arm[1] is None else -arm[1])
    )


def test_the_same_tokens_are_folded_but_for_the_first_of_a_direction() -> None:
    tokens = {
        key("forward", 8): [1, 2],
        key("forward", 4): [1, 2],
        key("reverse", 8): [1, 2],
        key("reverse", 4): [1, 3],
    }
    assert align(tokens) == [
        Aligned(key("forward", 8)),
        Aligned(key("forward", 4), key("forward", 8), 2, same=True, folds=True),
        Aligned(key("reverse", 8), key("forward", 8), 2, same=True, folds=False),
        Aligned(key("reverse", 4), key("reverse", 8), 1, same=False, folds=True),
    ]


# Colours


def test_shades_rise_with_divergence_and_colours_get_darker() -> None:
    shades = [shade(js) for js in (0.0, 1e-4, 0.001, 0.01, 0.1, 0.3, MAX_JS)]
    assert (
        shades == sorted(shades)
        and shades[0] == 0
        and shades[-1] == shade(MAX_JS * 1.0001) == NUM_SHADES - 1
    )
    luminances = [luminance(colour) for colour in palette()]
    assert luminances == sorted(luminances, reverse=True)


def test_black_text_is_legible_on_every_colour() -> None:
    assert all((luminance(colour) + 0.05) / 0.05 >= 4.5 for colour in palette())


def luminance(colour: str) -> float:
    """Relative luminance as in WCAG 2.2."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


# The page's data


def test_a_policys_own_top_token_has_a_probability_where_a_stored_number_is_that() -> None:
    rows = [
        token(
            key(),
            0,
            5,
            top1_base=1,
            top1_rl=1,
            logp_base=-9.0,
            logp_base_of_top1_rl=-0.5,
            logp_rl_of_top1_base=-0.25,
        ),
        token(
            key(),
            1,
            5,
            top1_base=5,
            top1_rl=1,
            logp_base=-0.75,
            logp_rl=-3.0,
            logp_base_of_top1_rl=-2.0,
        ),
        token(key(), 2, 5, top1_base=1),
    ]
    sample = sample_of(rows)
    [trajectory] = page_data(sample, align({key(): [5, 5, 5]}))["trajectories"]
    assert trajectory["columns"]["logp_base_of_own_top1"] == [-0.5, -0.75, None]
    assert trajectory["columns"]["logp_rl_of_own_top1"] == [-0.25, None, None]


# Redaction


def gated_sample(path: Path) -> Sample:
    run = small_run(path, gated=True, problem=Problem("p", "What is 2 + 2?", "4711"))
    grade(run, Grade(key(), "4711", None, "boxed", "correct", True))
    return read_sample(run, "p", 0)


def test_a_gated_set_shows_neither_text_nor_ids_but_its_numbers(tmp_path: Path) -> None:
    sample = gated_sample(tmp_path)
    page, text = inspect_html(sample, False), printed(sample)
    for shown in (page, text):
        assert "--show-text" in shown and HIDDEN * 4 in shown
        assert not [
            secret for secret in ("2 + 2", "4711", "4 the", "<eos>", "# sum") if secret in shown
        ]
    data = data_of(page)
    assert all(id is None and set(text) == {HIDDEN} for id, text in data["names"])
    assert len({text for _, text in data["names"]}) == len(data["names"]), (
        "equal tokens can be told from others"
    )
    assert (
        data["trajectories"][0]["columns"]["js"]
        == data_of(inspect_html(sample, True))["trajectories"][0]["columns"]["js"]
    )


def test_a_gated_set_is_shown_when_it_is_asked_for(tmp_path: Path) -> None:
    sample = gated_sample(tmp_path)
    for shown in (inspect_html(sample, True), printed(sample, True)):
        assert "4711" in shown and " sum" in shown and "--show-text" not in shown
        assert "4 the" in shown, "the run does not keep the question, but the prompt is there"


def test_a_run_that_does_not_say_whether_its_set_is_gated_is_redacted(
    run: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    manifest = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(
        json.dumps({name: value for name, value in manifest.items() if name != "task"})
    )
    assert read_sample(copy, "p", 0).gated and not read_sample(run, "p", 0).gated


def test_redaction_keeps_the_lengths(run: Path) -> None:
    sample = read_sample(run, "p", 0)
    hidden = redact(sample)
    assert [len(hidden.text(i)) for i in range(10)] == [len(text) for text in TEXTS[:10]]
    assert hidden.text(10) == hidden.text(99) == HIDDEN
    assert len(hidden.question or "") == len(sample.question or "")


def data_of(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


# Hostile text


def test_nothing_of_a_run_becomes_markup_or_script(tmp_path: Path) -> None:
    at = key(problem=HOSTILE)
    run = make_run(
        tmp_path,
        [[measured(at, [0, 1, 2, 3])]],
        [HOSTILE] * 11,
        problem=Problem(HOSTILE, HOSTILE, HOSTILE),
    )
    grade(run, Grade(at, HOSTILE, None, "boxed", "correct", True))
    sample = read_sample(run, HOSTILE, 0)
    sample = replace(
        sample, manifest={**sample.manifest, "models": {"base": HOSTILE, "rl": HOSTILE}}
    )
    page = inspect_html(sample, False)
    assert page.count("<script") == page.count("</script>") == 2
    assert page.count("alert(1)") > 5 and "<script>alert" not in page
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e\u2028]", page)
    assert all(
        char in data_of(page)["names"][0][1] for char in ["</script>", r"\x1b", r"\u202e", "\u05d0"]
    )


@pytest.mark.parametrize("colour", [None, "truecolor"])
def test_nothing_of_a_run_reaches_the_terminal_as_markup_or_escape(
    tmp_path: Path, colour: Any
) -> None:
    at = key(problem=HOSTILE)
    run = make_run(
        tmp_path,
        [[measured(at, [0, 1, 2, 3])]],
        [HOSTILE] * 11,
        problem=Problem(HOSTILE, HOSTILE, HOSTILE),
    )
    text = printed(
        read_sample(run, HOSTILE, 0), force_terminal=colour is not None, color_system=colour
    )
    assert "\x1b[31m" not in text and "\u202e" not in text and "[bold red]" in text


def test_odd_settings_of_a_run_are_shown_as_they_are_or_left_out(run: Path) -> None:
    sample = replace(
        read_sample(run, "p", 0), manifest={"models": ["x"], "config": None, "task": {"name": 3}}
    )
    assert "task 3" in printed(sample)
    assert inspect_html(sample, False)


# The terminal


def test_without_colour_interventions_stand_in_brackets(run: Path) -> None:
    text = printed(read_sample(run, "p", 0))
    assert "\x1b" not in text
    assert " the sum[* is*][4]\N{RETURN SYMBOL}\N{RETURN SYMBOL}\n\n<eos>" in text


def test_no_color_keeps_the_marks(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = printed(read_sample(run, "p", 0), force_terminal=True, color_system="truecolor")
    assert "[* is*]" in text and "48;2;" not in text


def test_with_colours_divergence_is_the_background_and_interventions_are_underlined(
    run: Path,
) -> None:
    text = printed(read_sample(run, "p", 0), force_terminal=True, color_system="truecolor")
    red, green, blue = (int(palette()[shade(0.04)][place : place + 2], 16) for place in (1, 3, 5))
    assert re.search(rf"\x1b\[1;4;38;2;0;0;0;48;2;{red};{green};{blue}m is", text)
    assert "[*" not in text


def test_what_was_not_measured_has_no_background() -> None:
    text = printed(
        sample_of([token(key(), 0, 5), token(key(), 1, 6)]),
        force_terminal=True,
        color_system="truecolor",
    )
    assert "45" in text


def test_trajectories_that_are_the_same_are_said_to_be_and_not_repeated(run: Path) -> None:
    text = printed(read_sample(run, "p", 0))
    assert "same tokens as forward, unlimited" in text
    assert text.count("[* is*]") == 1


def test_an_empty_response_is_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path, [[measured(key(), [0])]])
    sample = read_sample(run, "p", 0)
    empty = replace(sample.trajectories[0], rows=sample.trajectories[0].rows.slice(0, 0))
    sample = replace(sample, trajectories=(empty, replace(empty, key=key("forward", 1))))
    assert "0 tokens" in printed(sample) and "same tokens as" in inspect_html(sample, False)


# The numbers in the terminal


def test_interventions_are_listed_and_beside_them_the_most_divergent_positions() -> None:
    intervened = {0, 2, 13}
    divergence = [0.0, 0.5, *[0.1] * 9, None, 0.01, 0.3, log(2)]
    rows = [
        token(key(), i, 5, js=js, intervened=i in intervened) for i, js in enumerate(divergence)
    ]
    listed = [row["position"] for row in notable_rows(pa.Table.from_pylist(rows, TOKENS), 0)]
    assert listed == [i for i in range(15) if i not in (11, 12)]
    assert len(set(listed) - intervened) == NUM_DIVERGENT
    assert [row["position"] for row in notable_rows(pa.Table.from_pylist(rows, TOKENS), 12)] == [
        12,
        13,
        14,
    ]


def quoted(text: str) -> str:
    return f"\N{LEFT DOUBLE QUOTATION MARK}{text}\N{RIGHT DOUBLE QUOTATION MARK}"


def test_a_position_in_the_table_is_a_row_for_each_policy() -> None:
    row = measured(key(), [1, 2, 3])[2]
    lines = [line.split() for line in printed(sample_of([{**row, "position": 0}])).splitlines()]
    at = next(i for i, line in enumerate(lines) if line[:1] == ["\N{BLACK DIAMOND}"])
    assert lines[at] == [
        "\N{BLACK DIAMOND}", "0", quoted("␣is"), quoted("␣is"), "0.04",
        "base", f"{exp(-0.3 - 2 / 7):.4g}", "3", "2.5", "13", *map(quoted, ("␣the", "␣sum", "␣is")),
    ]  # fmt: skip
    assert lines[at + 1] == [
        "rl", f"{exp(-1.3 - 2 / 7):.4g}", "4", "3.5", "14", *map(quoted, ("␣sum", "␣the", "␣so"))
    ]  # fmt: skip


def test_effective_interventions_others_and_positions_without_one_are_told_apart(run: Path) -> None:
    lines = [line.split() for line in printed(read_sample(run, "p", 0)).splitlines()]
    white, black = "\N{WHITE DIAMOND}", "\N{BLACK DIAMOND}"
    found = {line[1]: line[0] for line in lines[:30] if line and line[0] in (white, black)}
    assert found == {"2": black, "3": white}
    assert next(line[3:5] for line in lines if line[:2] == [white, "3"]) == ["the", "same"]
    assert any(line[:2] == ["1", quoted("␣sum")] for line in lines)


def test_of_a_list_five_tokens_are_shown_and_without_one_the_first_alone() -> None:
    rows = measured(key(), [1, 2])
    rows[1] |= {"topk_base": [1, 2, 3, 5, 6, 7], "topk_rl": [7] * 6}
    text = printed(sample_of(rows))
    assert " ".join(map(quoted, ("␣the", "␣sum", "␣is", "4", "5"))) + " " in text
    assert text.count(quoted("␣so")) == 5
    assert re.search(rf"rl .* {quoted('␣sum')} *\n", text)


@pytest.mark.parametrize("width", [40, 80, 120, 200])
@pytest.mark.parametrize("length", [1, 60])
def test_nothing_is_cut_and_nothing_vanishes_at_any_width(width: int, length: int) -> None:
    texts = {i: f"{chr(ord('a') + i) * length}{i}" for i in range(12)}
    numbers = {
        "js": 0.00123456,
        "rank_base": 151_641,
        "rank_rl": 151_642,
        "nucleus_base": 98_761,
        "nucleus_rl": 7_654,
    }
    numbers |= {
        "entropy_base": 1.23416,
        "entropy_rl": 2.34516e-05,
        "logp_base": -11.5,
        "logp_rl": -9.25,
    }
    lists = {"topk_base": list(range(2, 7)), "topk_rl": list(range(7, 12))}
    row = token(key(), 0, 0, intervened=True, effective=True, primary_token=1, **numbers, **lists)
    text = printed(sample_of([row], texts=texts), width=width)
    assert max(map(cell_len, text.splitlines())) <= width and "\N{HORIZONTAL ELLIPSIS}" not in text
    listed = "".join(text.split("1 tokens")[1].split())
    said = ("0.001235", "151,641", "151,642", "98,761", "7,654", "1.234", "2.345e-05")
    for value in (
        *said,
        f"{exp(-11.5):.4g}",
        f"{exp(-9.25):.4g}",
        "rank",
        "entropy",
        "nucleus",
        *texts.values(),
    ):
        assert value in listed, value


def test_a_response_in_which_nobody_intervened_has_numbers_too() -> None:
    for at in (key("given"), key("forward", 0)):
        assert re.search(
            r"\n +0 .* base .* 2\.345 .*\n +rl ",
            printed(sample_of([token(at, 0, 5, js=0.1, entropy_base=2.345)])),
        )


# Given responses


def test_responses_of_a_scored_run_are_said_to_be_given_and_only_measured(tmp_path: Path) -> None:
    rows = [
        {**row, "intervened": False, "effective": False}
        for row in measured(key("reverse", 0), [1, 2, 0])
    ]
    sample = read_sample(make_run(tmp_path / "run", [[rows]], scored=True), "p", 0)
    page = inspect_html(sample, False)
    for shown in (page.split("<body")[1].split("<noscript")[0], printed(sample)):
        assert "reverse, budget 0" in shown and "only measured" in shown
        assert not [said for said in ("primary", "intervention", "would") if said in shown]
    assert data_of(page)["trajectories"][0]["primary"] is None
