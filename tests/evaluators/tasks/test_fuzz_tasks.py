"""Task files and files of given responses of strangers: read, or refused in one line, whatever is
in their cells.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.models.pair_info import PairInfo, inspect_pair
from engine.models.prompt import check_external as check_given
from engine.run.settings import load
from evaluators.external.reading import read_external, task_of
from evaluators.tasks.registry import load_task
from tests.support.fuzzing import (
    altered,
    cases,
    damaged,
    depths,
    judged,
    numbers,
    quiet,
    scalars,
    texts,
    values,
)

pytestmark = quiet

COLUMNS = st.sampled_from(
    ["problem", "question", "prompt", "answer", "solution", "id", "ID", "options", "extra_info", ""]
)
QUESTIONS = st.sampled_from(["What is 1+1?", "Again?", " what  is 1+1?"]) | texts
ANSWERS = (
    st.sampled_from(["2", "\\boxed{2}", "#### 2", "\\frac{1}{2}", "x^2", '["2"]', 2, 2.0])
    | texts
    | numbers
)
nested = depths.map(lambda depth: '{"a":' * depth + "1" + "}" * depth)
rows = st.fixed_dictionaries(
    {"problem": QUESTIONS | values, "answer": ANSWERS | values},
    optional={"id": texts | scalars, "solution": values, "extra_info": values, "options": values},
)
tables = st.lists(
    rows | st.dictionaries(COLUMNS | texts, values, max_size=5), min_size=1, max_size=4
)
GRADERS = st.sampled_from(["math", "integer", "choice", "exact"])


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tasks")


@pytest.fixture(scope="module")
def pair() -> PairInfo:
    return inspect_pair(None, None, False)


def as_json(table: list[dict[str, Any]]) -> bytes:
    return "\n".join(map(json.dumps, table)).encode()


def as_csv(table: list[dict[str, Any]]) -> bytes:
    file = io.StringIO()
    names = list(dict.fromkeys(name for row in table for name in row))
    writer = csv.DictWriter(file, names, escapechar="\\")
    writer.writeheader()
    writer.writerows(table)
    return file.getvalue().encode("utf-8", "surrogatepass")


def as_parquet(table: list[dict[str, Any]]) -> bytes:
    """Of what Arrow takes; what it does not is text."""
    file = io.BytesIO()
    try:
        pq.write_table(pa.Table.from_pylist(table), file)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        words = [{repr(name): repr(cell) for name, cell in row.items()} for row in table]
        pq.write_table(pa.Table.from_pylist(words), file)
    return file.getvalue()


FORMATS = {"a.jsonl": as_json, "a.csv": as_csv, "a.parquet": as_parquet}


def asked(own: Path, name: str, content: bytes, **settings: Any) -> None:
    (own / name).write_bytes(content)
    config = load(None, {"task": str(own / name), **settings})
    judged(lambda: load_task(config), own)


@cases(80, 0.5)
@given(name=st.sampled_from(list(FORMATS)), table=tables, grader=GRADERS)
def test_a_task_of_any_cells_is_read_or_refused(
    own: Path, name: str, table: list[dict[str, Any]], grader: str
) -> None:
    asked(own, name, FORMATS[name](table), grader=grader)


GOOD = [
    {"id": str(number), "problem": f"What is {number}+1?", "answer": number + 1}
    for number in range(3)
]


@cases(80, 0.4)
@given(name=st.sampled_from(list(FORMATS)), data=st.data(), packed=st.booleans())
def test_a_damaged_task_is_read_or_refused(
    own: Path, name: str, data: st.DataObject, packed: bool
) -> None:
    content = FORMATS[name](GOOD)
    packed = packed and not name.endswith(".parquet")
    content = data.draw(damaged(gzip.compress(content, mtime=0) if packed else content))
    asked(own, name + ".gz" * packed, content, grader="exact")


@cases(10, 0.05)
@given(name=st.sampled_from(["a.jsonl", "a.json"]), text=nested, cell=st.booleans())
def test_a_deeply_nested_task_is_read_or_refused(
    own: Path, name: str, text: str, cell: bool
) -> None:
    row = (
        json.dumps({"problem": text, "answer": text})
        if cell
        else f'{{"problem": {text}, "answer": {text}}}'
    )
    asked(own, name, row.encode(), grader="exact")


@cases(4, 0.05)
@given(
    name=st.sampled_from(list(FORMATS)),
    question=texts,
    answer=texts,
    times=st.sampled_from([1, 100_000]),
)
def test_long_cells_are_read_or_refused(
    own: Path, name: str, question: str, answer: str, times: int
) -> None:
    table = [{"problem": (question * times)[:100_000], "answer": (answer * times)[:100_000]}]
    asked(own, name, FORMATS[name](table), grader="math")


# Given responses

IDS = st.lists(st.integers(0, 40) | numbers | scalars, max_size=5)
RESPONSES: list[dict[str, Any]] = [
    {
        "prompt_token_ids": [1, 2],
        "token_ids": [3, 4, 5],
        "problem": "a",
        "sample": 0,
        "finish_reason": "stop",
    },
    {
        "prompt": "<|user|>1+1<|assistant|>",
        "response": "2<|end|>",
        "problem": "b",
        "direction": "forward",
        "budget": 1,
    },
]
given_rows = st.dictionaries(
    st.sampled_from(
        [
            "token_ids",
            "response",
            "prompt",
            "prompt_token_ids",
            "problem",
            "sample",
            "direction",
            "budget",
            "finish_reason",
            "text",
            "id",
        ]
    ),
    IDS | values,
    max_size=6,
)


def scored(own: Path, name: str, content: bytes, pair: PairInfo, task: str | None) -> None:
    (own / name).write_bytes(content)
    config = load(None, {"limit": 2, **({"task": task} if task else {})})

    def read() -> None:
        found = read_external(
            own / name,
            config,
            task_of(own / name, config),
            pair.tokenizer,
            pair.stop_token_ids,
            pair.context_length,
        )
        check_given(found, None, pair.context_length, pair.vocab_size)

    judged(read, own)


@cases(80, 0.6)
@given(
    name=st.sampled_from(list(FORMATS)),
    table=st.lists(
        altered(RESPONSES[0]) | altered(RESPONSES[1]) | given_rows, min_size=1, max_size=3
    ),
    task=st.sampled_from([None, None, "arithmetic"]),
)
def test_responses_of_any_cells_are_read_or_refused(
    own: Path, pair: PairInfo, name: str, table: list[Any], task: str | None
) -> None:
    scored(
        own,
        name,
        FORMATS[name]([row if isinstance(row, dict) else {"response": row} for row in table]),
        pair,
        task,
    )


@cases(60, 0.4)
@given(name=st.sampled_from(list(FORMATS)), data=st.data())
def test_damaged_responses_are_read_or_refused(
    own: Path, pair: PairInfo, name: str, data: st.DataObject
) -> None:
    scored(own, name, data.draw(damaged(FORMATS[name](RESPONSES))), pair, None)
