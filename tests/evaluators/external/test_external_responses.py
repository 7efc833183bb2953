"""Given responses: real files and run directories read, each refusal in one line that names the
row.
"""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.core import ExternalResponses, Problem, Task, Trajectory
from engine.errors import ModelError, UsageError
from engine.models.pair_info import TINY_PAIR
from engine.models.prompt import render_prompts
from engine.run.settings import load
from engine.store.run_store import RunStore
from engine.store.schema import RESPONSES, TOKENS
from evaluators.external.reading import is_run, read_external, task_of

EOS = 0
TASK = Task(
    "t",
    (Problem("t/1", "11+22=?", "33"), Problem("t/2", "22+33=?", "55")),
    "{question}",
    1,
    9,
    "integer",
)
ROW: dict[str, Any] = {"prompt_token_ids": [49, 26], "token_ids": [17, EOS]}
MANIFEST = {"identity": {}, "task": {"grader": "integer", "gated": True}}


@cache
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(TINY_PAIR / "rl")


def encoded(text: str) -> list[int]:
    return list(tokenizer()(text, add_special_tokens=False)["input_ids"])


def read(place: Path, task: Task | None = None, **options: Any) -> ExternalResponses:
    return read_external(place, load(None, options), task, tokenizer(), (EOS,), 256)


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    """The rows as a JSONL file."""
    file = folder / "mine.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def message(place: Path, task: Task | None = None) -> str:
    """Why it is refused, which is one line."""
    with pytest.raises(UsageError) as refused:
        read(place, task)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# What is read


def test_ids_are_taken_as_they_are(tmp_path: Path) -> None:
    [one] = read(written(tmp_path, ROW)).responses
    assert (one.prompt, one.response, one.stopped) == ([49, 26], [17, EOS], True)
    assert one.where == f"{tmp_path}/mine.jsonl, line 1"


def test_text_is_tokenised_as_the_model_saw_it_blanks_and_special_tokens_too(
    tmp_path: Path,
) -> None:
    row = {"prompt": "<|endoftext|>Q: 1+2=?\nA:", "response": " 3\n"}
    [one] = read(written(tmp_path, row)).responses
    assert one.prompt == [EOS, *encoded("Q: 1+2=?\nA:")]
    assert one.response == encoded(" 3\n") != encoded("3")


@pytest.mark.parametrize("name", ["response", "text", "output", "completion", "Completion"])
def test_the_usual_names_of_a_response_are_known_in_any_case(name: str, tmp_path: Path) -> None:
    assert read(written(tmp_path, {"prompt": "Q", name: "3"})).responses[0].response == encoded("3")


@pytest.mark.parametrize(
    "name", ["token_ids", "response_token_ids", "output_token_ids", "TOKEN-IDS"]
)
def test_the_usual_names_of_token_ids_are_known_in_any_case(name: str, tmp_path: Path) -> None:
    assert read(written(tmp_path, {"prompt": "Q", name: [3]})).responses[0].response == [3]


@pytest.mark.parametrize(("reason", "stopped"), [("stop", True), ("length", False), (None, False)])
def test_text_that_stopped_by_itself_ends_in_eos(
    reason: str | None, stopped: bool, tmp_path: Path
) -> None:
    [one] = read(
        written(tmp_path, {"prompt": "Q", "response": "3", "finish_reason": reason})
    ).responses
    assert (one.response, one.stopped) == (encoded("3") + [EOS] * stopped, stopped)


def test_an_eos_that_is_written_out_is_not_doubled_and_says_that_it_stopped(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Q", "response": "3<|endoftext|>", "finish_reason": reason}
        for reason in ("stop", None)
    ]
    assert [(one.response, one.stopped) for one in read(written(tmp_path, *rows)).responses] == [
        ([*encoded("3"), EOS], True)
    ] * 2


@pytest.mark.parametrize(("reason", "stopped"), [("stop", True), ("length", False), (None, False)])
def test_no_eos_is_added_to_ids(reason: str | None, stopped: bool, tmp_path: Path) -> None:
    [one] = read(written(tmp_path, ROW | {"token_ids": [5], "finish_reason": reason})).responses
    assert (one.response, one.stopped) == ([5], stopped)


def test_a_row_with_ids_and_text_uses_the_ids_and_says_so_once(tmp_path: Path) -> None:
    found = read(
        written(
            tmp_path, ROW | {"text": "other"}, ROW | {"text": "more"}, {"prompt": "Q", "text": "3"}
        )
    )
    assert [one.response for one in found.responses] == [[17, EOS], [17, EOS], encoded("3")]
    assert [
        note for note in found.notes if "2 rows hold token ids and text: the ids are taken" in note
    ]


def test_text_of_which_nobody_says_how_it_ended_is_noted(tmp_path: Path) -> None:
    said, unsaid = (
        {"prompt": "Q", "text": "3", "finish_reason": "stop"},
        {"prompt": "Q", "text": "3"},
    )
    found = read(written(tmp_path, said, unsaid, unsaid))
    assert [one.stopped for one in found.responses] == [True, False, False]
    assert [one.response for one in found.responses] == [
        [*encoded("3"), EOS],
        encoded("3"),
        encoded("3"),
    ]
    [note] = found.notes
    assert note.startswith("2 rows of text have no finish_reason") and "\n" not in note


def test_text_that_no_tokeniser_could_fit_into_the_context_is_refused_before_it_is_tokenised(
    tmp_path: Path,
) -> None:
    refused = message(written(tmp_path, {"prompt": "Q", "text": "3" * 2_000_000}))
    assert (
        "line 1: a text of 2,000,000 characters is more than a context of 256 tokens can hold"
        in refused
    )


def test_a_parquet_file_without_rows_holds_no_rows(tmp_path: Path) -> None:
    file = tmp_path / "none.parquet"
    pq.write_table(pa.table({"token_ids": pa.array([], pa.list_(pa.int32()))}), file)
    assert "holds no rows" in message(file)


def test_a_problem_of_the_task_is_rendered_as_a_run_renders_it_and_graded_as_one(
    tmp_path: Path,
) -> None:
    found = read(written(tmp_path, {"problem": "t/2", "response": "55"}), TASK)
    assert found.responses[0].prompt == render_prompts(tokenizer(), TASK)[1]
    assert (found.problems, found.grader, found.gated) == (TASK.problems[1:], "integer", False)


def test_a_prompt_of_the_file_goes_before_the_tasks(tmp_path: Path) -> None:
    found = read(written(tmp_path, {"id": "t/1", "prompt": "Q", "response": "33"}), TASK)
    assert (found.responses[0].prompt, found.problems) == (encoded("Q"), TASK.problems[:1])


def test_without_a_task_no_gold_answer_is_known(tmp_path: Path) -> None:
    assert read(written(tmp_path, ROW | {"problem": "t/1"})).problems == ()


# What it is called


def test_without_names_equal_prompts_are_one_problem_and_samples_are_counted(
    tmp_path: Path,
) -> None:
    prompts = ([1], [2], [1], [1])
    found = read(written(tmp_path, *(ROW | {"prompt_token_ids": prompt} for prompt in prompts)))
    assert [one.key for one in found.responses] == [
        Trajectory(f"p{number}", sample, "given", None)
        for number, sample in ((1, 0), (2, 0), (1, 1), (1, 2))
    ]


def test_names_and_samples_of_the_file_are_kept(tmp_path: Path) -> None:
    found = read(written(tmp_path, ROW | {"problem_id": 7, "problem": "What is\n7?", "sample": 3}))
    assert found.responses[0].key == Trajectory("7", 3, "given", None)


def test_direction_and_budget_are_kept_where_the_file_has_both(tmp_path: Path) -> None:
    arms = [("forward", 8), ("reverse", None), ("given", None)]
    rows = [
        ROW | {"direction": direction, "budget": budget, "sample": 0} for direction, budget in arms
    ]
    assert [one.key[2:] for one in read(written(tmp_path, *rows)).responses] == arms
    assert read(written(tmp_path, ROW | {"budget": 8})).responses[0].key == Trajectory(
        "p1", 0, "given", None
    )


def test_the_same_key_twice_is_refused_with_both_rows(tmp_path: Path) -> None:
    said = message(written(tmp_path, ROW | {"sample": 4}, ROW, ROW | {"sample": 4}))
    assert "line 1 and " in said and "line 3 are both p1 sample 4" in said


# Files


def test_every_format_gives_the_same_responses(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Q\n", "response": f"{n},", "sample": n, "finish_reason": "stop"}
        for n in range(3)
    ]
    lines = "\n".join(map(json.dumps, rows))
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "a.csv").write_text(
        "prompt,response,sample,finish_reason\n"
        + "".join(f'"Q\n","{n},",{n},stop\n' for n in range(3))
    )
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    found = [
        read(tmp_path / f"a.{kind}") for kind in ("jsonl", "json", "jsonl.gz", "csv", "parquet")
    ]
    assert (
        len(
            {
                str([(one.key, one.prompt, one.response, one.stopped) for one in of.responses])
                for of in found
            }
        )
        == 1
    )
    assert {of.name for of in found} == {"a"}


def test_a_name_with_dots_is_the_source_and_its_stem_the_name(tmp_path: Path) -> None:
    file = written(tmp_path, ROW).rename(tmp_path / "qwen2.5.jsonl")
    assert (read(file).name, read(file).source) == ("qwen2.5", str(file))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "Q"}, "has no response: give token_ids"),
        ({"prompt": "Q", "response": None}, "has no response: give token_ids"),
        ({"prompt": "Q", "response": ""}, "has an empty response"),
        ({"prompt": "Q", "response": "", "finish_reason": "stop"}, "has an empty response"),
        ({"prompt": "Q", "token_ids": []}, "has an empty response"),
        ({"response": "3"}, "has no prompt: give prompt_token_ids"),
        ({"response": "3", "problem": "t/1"}, "has no prompt: give prompt_token_ids"),
        ({"response": "3", "prompt": ""}, "has an empty prompt"),
        (
            ROW | {"token_ids": [1, 2.0]},
            "'token_ids' holds 2.0 at place 1: token ids are whole numbers",
        ),
        (ROW | {"token_ids": [True]}, "'token_ids' holds True"),
        (ROW | {"token_ids": [-1]}, "'token_ids' holds -1"),
        (ROW | {"token_ids": [None]}, "'token_ids' holds None"),
        (ROW | {"token_ids": ["1"]}, "'token_ids' holds '1'"),
        (ROW | {"token_ids": "[1, 2]"}, "'token_ids' is a str: token ids are a list"),
        (ROW | {"prompt_token_ids": [[1]]}, "'prompt_token_ids' holds [1]"),
        ({"prompt": [{"role": "user"}], "response": "3"}, "'prompt' is a list, not text"),
        ({"prompt": "Q", "response": 3}, "'response' is a int, not text"),
        ({"prompt": "Q", "response": "\ud800"}, "'response' is not valid Unicode"),
        (ROW | {"finish_reason": "abort"}, "'finish_reason' is 'abort': give stop or length"),
        (ROW | {"finish_reason": ["stop"]}, "'finish_reason' is ['stop']"),
        (ROW | {"sample": -1}, "'sample' is -1: give whole numbers"),
        (ROW | {"sample": 1.5}, "'sample' is 1.5"),
        (ROW | {"sample": 2**31}, "'sample' is 2147483648"),
        (ROW | {"problem": ["a", "b"]}, "'problem' is no text or number"),
        (ROW | {"problem": "What is\n1+2?"}, "'problem' is no printable line"),
        (ROW | {"direction": "sideways", "budget": 1}, "'direction' is 'sideways'"),
        (ROW | {"direction": None, "budget": 1}, "'direction' is empty"),
        (ROW | {"direction": "forward", "budget": True}, "'budget' is True"),
    ],
)
def test_a_row_that_cannot_be_measured_is_refused_by_its_number(
    row: dict[str, Any], said: str, tmp_path: Path
) -> None:
    fine = {"prompt_token_ids": [9], "token_ids": [9], "problem": "other", "direction": "given"}
    refused = message(written(tmp_path, {**fine, "response": None, "prompt": None}, row))
    assert f"{tmp_path}/mine.jsonl, line 2" in refused and said in refused


def test_a_problem_that_the_task_does_not_have_is_refused_with_names_that_it_has(
    tmp_path: Path,
) -> None:
    named = message(written(tmp_path, ROW | {"problem": "1"}), TASK)
    assert "line 1 names the problem '1': those of the task 't' are called 't/1', 't/2'" in named
    assert "line 1 names no problem" in message(written(tmp_path, ROW), TASK)


def test_two_columns_that_fit_are_refused(tmp_path: Path) -> None:
    assert "'response', 'Response'" in message(
        written(tmp_path, {"prompt": "Q", "response": "3", "Response": "4"})
    )


def test_a_tokenizer_without_a_chat_template_is_refused_only_where_a_prompt_is_rendered(
    tmp_path: Path,
) -> None:
    from copy import copy

    bare = copy(tokenizer())
    bare.chat_template = None
    with_prompt = written(tmp_path, ROW | {"problem": "t/1"})
    assert read_external(with_prompt, load(None, {}), TASK, bare, (EOS,), 256).responses
    with pytest.raises(ModelError, match="chat template"):
        read_external(
            written(tmp_path, {"problem": "t/1", "text": "3"}),
            load(None, {}),
            TASK,
            bare,
            (EOS,),
            256,
        )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b"not json", "line 1: not JSON"),
        ("a.jsonl", b"[]", "holds no rows"),
        ("a.jsonl", b"\xff\xfe\x00", "cannot be read: it is not UTF-8 text"),
        ("a.parquet", b"garbage", "cannot be read"),
        ("a.jsonl.gz", b"garbage", "it is no gzip file"),
        ("a.jsonl", b"17", "line 1 is no JSON object"),
        ("a.txt", b"17", "ends like no file that is read: give a run directory, or a .jsonl"),
    ],
)
def test_a_file_of_garbage_is_refused(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    refused = message(tmp_path / name)
    assert str(tmp_path / name) in refused and said in refused


def test_what_is_neither_a_run_nor_a_file_is_refused(tmp_path: Path) -> None:
    assert "is a folder without run.json: give a run directory" in message(tmp_path)
    assert "does not exist: give a run directory" in message(tmp_path / "none.jsonl")


# Run directories


def made(folder: Path, keys: list[Trajectory], **values: Any) -> Path:
    """A run directory with a response to each key."""
    row = ROW | {
        "tokens": 2,
        "text": "",
        "interventions": 0,
        "effective_interventions": 0,
        "seed": 0,
    }
    rows = [{**row, **key._asdict(), "finish_reason": "stop", **values} for key in keys]
    with RunStore.open(folder / "run", MANIFEST) as store:
        store.write_problems(TASK.problems, gated=True)
        if rows:
            store.commit(TOKENS.empty_table(), pa.Table.from_pylist(rows, RESPONSES))
    return folder / "run"


def test_a_run_is_read_with_its_keys_problems_and_grader(tmp_path: Path) -> None:
    keys = [Trajectory("t/2", 1, "reverse", None), Trajectory("t/2", 0, "forward", 8)]
    run = made(tmp_path, keys, finish_reason="length")
    found = read(run)
    assert [one.key for one in found.responses] == keys
    assert [(one.prompt, one.response, one.stopped) for one in found.responses] == [
        ([49, 26], [17, EOS], False)
    ] * 2
    assert found.responses[1].where == f"{run}: t/2 sample 0 forward budget 8"
    assert [problem.id for problem in found.problems] == ["t/2"]
    assert (found.name, found.source, found.grader, found.gated) == (
        "run",
        str(run),
        "integer",
        True,
    )


def test_another_grader_may_be_given_for_a_run(tmp_path: Path) -> None:
    assert (
        read(made(tmp_path, [Trajectory("t/1", 0, "forward", 8)]), grader="exact").grader == "exact"
    )


def test_an_empty_run_is_refused(tmp_path: Path) -> None:
    assert "holds no responses yet" in message(made(tmp_path, []))


def test_a_run_with_a_trajectory_twice_is_refused(tmp_path: Path) -> None:
    assert "t/1 sample 0 forward budget 8" in message(
        made(tmp_path, [Trajectory("t/1", 0, "forward", 8)] * 2)
    )


def test_a_response_without_tokens_is_refused(tmp_path: Path) -> None:
    assert "has no tokens" in message(
        made(tmp_path, [Trajectory("t/1", 0, "forward", 8)], token_ids=[])
    )


def test_a_part_of_a_run_given_alone_keeps_its_keys(tmp_path: Path) -> None:
    keys = [Trajectory("t/2", 1, "reverse", None), Trajectory("t/2", 0, "forward", 8)]
    run = made(tmp_path, keys)
    part = read(run / "responses" / "part-000000.parquet")
    assert [one.key for one in part.responses] == keys
    assert [one.response for one in part.responses] == [one.response for one in read(run).responses]


# The task


def test_a_run_takes_no_task_and_a_file_takes_what_is_given(tmp_path: Path) -> None:
    run, file = made(tmp_path, []), written(tmp_path, ROW)
    assert is_run(run) and not is_run(file)
    assert task_of(run, load(None, {})) is task_of(file, load(None, {})) is None
    task = task_of(file, load(None, {"task": "arithmetic"}))
    assert task is not None and task.name == "arithmetic"


@pytest.mark.parametrize(
    "option", [{"task": "arithmetic"}, {"prompt": "boxed"}, {"prompt_template": "ask.txt"}]
)
def test_what_is_asked_cannot_be_said_of_a_run(option: dict[str, Any], tmp_path: Path) -> None:
    [(name, value)] = option.items()
    with pytest.raises(UsageError, match=f"^{name} is '{value}', but .*run is a run directory"):
        task_of(made(tmp_path, []), load(None, option))


@pytest.mark.parametrize(
    "option", [{"grader": "exact"}, {"prompt": "boxed"}, {"task_data": "a.csv"}]
)
def test_what_needs_a_task_is_refused_without_one(option: dict[str, Any], tmp_path: Path) -> None:
    [(name, value)] = option.items()
    with pytest.raises(
        UsageError, match=f"^{name} is '{value}', but no task is given: say with --task"
    ):
        task_of(written(tmp_path, ROW), load(None, option))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 400) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=5,
)
NAMES = st.sampled_from(
    [
        "token_ids",
        "response",
        "text",
        "prompt",
        "prompt_token_ids",
        "problem",
        "id",
        "sample",
        "direction",
        "budget",
    ]
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.dictionaries(NAMES, JSON, max_size=6), min_size=1, max_size=3))
def test_whatever_is_in_a_file_it_is_read_or_refused_in_one_line(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    try:
        found = read(written(tmp_path, *rows))
    except UsageError as error:
        assert "\n" not in str(error) and "mine.jsonl" in str(error)
    else:
        assert len(found.responses) == len(rows)
        assert all(one.prompt and one.response for one in found.responses)
