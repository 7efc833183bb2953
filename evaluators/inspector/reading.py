"""Read all that a run directory holds of one sample of a problem.

What is damaged or missing becomes a note. A run is refused only where its run.json cannot be read
or has another schema version: then the meaning of its tables is not known. Responses are read part
by part, and of the tokens only the parts that hold the sample, with the filter pushed down: a run
may be far larger than memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from engine.core import TRAJECTORY_KEY, Problem, Trajectory
from engine.errors import RunDirectoryError, UsageError
from engine.store.manifest import is_gated
from engine.store.run_reader import RunReader, or_note, read_run
from engine.store.schema import RESPONSES, TOKENS
from engine.store.tables import conform
from engine.system.files import reason
from evaluators.inspector.sample import Sample, Traced

_MAX_NAMED = 3
_MAX_CHARS = 1_000  # of a token
_NO_GOLD = (
    "the run holds no gold answers, so it is not graded: score its responses again with --task"
)
_RESPONSE = (*TRAJECTORY_KEY, "prompt_token_ids", "token_ids", "finish_reason", "interventions",
             "effective_interventions")  # fmt: skip


def read_sample(run: Path, problem: str, sample: int) -> Sample:
    """Read all trajectories of one sample of a problem.

    Args:
        run: The run directory.
        problem: Id of the problem.
        sample: Number of the sample, from 0.

    Raises:
        UsageError: The run has no such problem or sample.
        RunDirectoryError: Nothing of the sample is made yet, or `run` is no run directory, or one
            of another schema version.
        StoreError: Its run.json cannot be read.
    """
    reader = read_run(run)
    expected = _expected(reader)
    if expected:
        _check_known(run, expected, problem, sample)
    notes: list[str] = []
    responses = _responses(reader, problem, sample, notes)
    missing = [
        key
        for key in expected
        if (key.problem, key.sample) == (problem, sample) and key not in responses
    ]
    if not responses:
        raise RunDirectoryError(_nothing_there(run, problem, sample, notes))
    if missing:
        notes.append(
            f"{len(missing)} of {len(missing) + len(responses)} trajectories are missing: "
            f"{_first(missing)}"
        )
    problems = or_note(reader.problems, None, notes)
    trajectories = _trajectories(
        run, responses, _grades(reader, problem, sample, problems, notes), notes
    )
    texts = _texts(reader, notes)
    asked = next((known for known in problems or () if known.id == problem), None)
    prompt = next(row["prompt_token_ids"] or [] for row, _ in responses.values())
    return Sample(
        run=str(run),
        problem=problem,
        sample=sample,
        manifest=reader.manifest,
        question=asked.question or None if asked else None,
        prompt="".join(texts.get(token, f"#{token}") for token in prompt),
        answer=asked.answer if asked else None,
        gated=is_gated(reader.manifest),
        trajectories=trajectories,
        texts=texts,
        notes=tuple(notes),
    )


def _expected(reader: RunReader) -> list[Trajectory]:
    """The trajectories of the run; none where run.json does not say which."""
    try:
        return list(reader.expected())
    except RunDirectoryError:
        return []


def _check_known(run: Path, expected: Iterable[Trajectory], problem: str, sample: int) -> None:
    samples: dict[str, set[int]] = {}
    for key in expected:
        samples.setdefault(key.problem, set()).add(key.sample)
    if problem not in samples:
        near = (
            get_close_matches(problem, samples, n=_MAX_NAMED, cutoff=0.4)
            or list(samples)[:_MAX_NAMED]
        )
        raise UsageError(
            f"problem {problem!r} is not in run {run}, which has {len(samples):,}: give one of "
            "them, such as " + ", ".join(map(repr, near))
        )
    if sample not in samples[problem]:
        known = _ranges(samples[problem])
        raise UsageError(
            f"sample {sample} of problem {problem!r} is not in run {run}: it has {known}"
        )


def _ranges(numbers: Iterable[int]) -> str:
    """Sample numbers in words: one alone, or the first and the last."""
    ordered = sorted(numbers)
    gaps = ", with gaps" if ordered[-1] - ordered[0] >= len(ordered) else ""
    return (
        f"samples {ordered[0]} to {ordered[-1]}{gaps}"
        if len(ordered) > 1
        else f"sample {ordered[0]} alone"
    )


def _nothing_there(run: Path, problem: str, sample: int, notes: Sequence[str]) -> str:
    details = f" ({'; '.join(notes)})" if notes else ""
    return (
        f"run directory {run} holds no responses of problem {problem!r}, sample "
        f"{sample}{details}: the command that made "
        f"it, again with --out {run}, makes them"
    )


def _responses(
    reader: RunReader, problem: str, sample: int, notes: list[str]
) -> dict[Trajectory, tuple[dict[str, Any], str]]:
    """Response and name of its part by trajectory; the first where there are several."""
    schema = pa.schema([RESPONSES.field(name) for name in _RESPONSE])
    responses: dict[Trajectory, tuple[dict[str, Any], str]] = {}
    for part in reader.parts():
        for row in _read(part.responses, schema, problem, sample, notes).to_pylist():
            responses.setdefault(
                Trajectory(*(row[name] for name in TRAJECTORY_KEY)), (row, part.name)
            )
    return responses


def _read(part: Path, schema: pa.Schema, problem: str, sample: int, notes: list[str]) -> pa.Table:
    """The rows of a sample in one file; a file that cannot be read is a note.

    Columns that the file lacks are null.
    """
    where = (
        (ds.field("problem") == problem)
        & (ds.field("sample") == sample)
        & ds.field("direction").is_valid()
    )
    try:
        return ds.dataset([str(part)], schema=schema, format="parquet").to_table(filter=where)
    except (OSError, pa.ArrowException, ValueError) as error:
        what = (
            "missing"
            if isinstance(error, FileNotFoundError)
            else f"unreadable ({reason(error)[:80]})"
        )
        notes.append(f"{part.parent.name}/{part.name} is {what}")
        return schema.empty_table()


def _trajectories(
    run: Path,
    responses: dict[Trajectory, tuple[dict[str, Any], str]],
    grades: dict[Trajectory, dict[str, Any]],
    notes: list[str],
) -> tuple[Traced, ...]:
    first = next(iter(responses))
    names = sorted({name for _, name in responses.values()})
    tokens = {
        name: _read(run / "tokens" / name, TOKENS, first.problem, first.sample, notes)
        for name in names
    }
    traced = []
    for key, (row, name) in responses.items():
        grade = grades.get(key, {})
        answer = grade.get("answer") or grade.get("guess")
        traced.append(
            Traced(key, _rows(key, row, tokens[name], notes), row, grade.get("verdict"), answer)
        )
    return tuple(traced)


def _rows(
    key: Trajectory, response: dict[str, Any], tokens: pa.Table, notes: list[str]
) -> pa.Table:
    """The rows of a trajectory if they match its token ids, else rows of its token ids alone."""
    budget = (
        pc.is_null(tokens["budget"])
        if key.budget is None
        else pc.equal(tokens["budget"], key.budget)
    )
    rows = tokens.filter(pc.and_(pc.equal(tokens["direction"], key.direction), budget)).sort_by(
        "position"
    )
    ids = [token for token in response["token_ids"] or [] if token is not None]
    if rows["token"].to_pylist() == ids and rows["position"].to_pylist() == list(range(len(ids))):
        return rows
    notes.append(
        f"the token rows of {key} are not those of its {len(ids)} tokens: it is shown without "
        "numbers"
    )
    return _bare(key, ids)


def _bare(key: Trajectory, ids: Sequence[int]) -> pa.Table:
    known = {**key._asdict(), "intervened": False, "effective": False}
    rows = [{**known, "position": position, "token": token} for position, token in enumerate(ids)]
    nullable = pa.schema([field.with_nullable(True) for field in TOKENS], TOKENS.metadata)
    return conform(pa.Table.from_pylist(rows, nullable), TOKENS)


def _grades(
    reader: RunReader, problem: str, sample: int, problems: list[Problem] | None, notes: list[str]
) -> dict[Trajectory, dict[str, Any]]:
    if problems == [] and not (reader.path / "grades.parquet").exists():
        notes.append(_NO_GOLD)
        return {}
    grades = or_note(reader.grades, None, notes)
    if grades is None:
        return {}
    mine = grades.filter(
        pc.and_(pc.equal(grades["problem"], problem), pc.equal(grades["sample"], sample))
    )
    return {Trajectory(*(row[name] for name in TRAJECTORY_KEY)): row for row in mine.to_pylist()}


def _texts(reader: RunReader, notes: list[str]) -> dict[int, str]:
    texts = or_note(reader.vocabulary, None, notes)
    if texts is None:
        return {}
    if not texts:
        notes.append("the run does not hold the texts of its tokens: ids are shown")
    return {token: _shortened(text) for token, text in texts.items()}


def _shortened(text: str) -> str:
    """A token's text, cut where a damaged vocabulary holds pages of it."""
    return text if len(text) <= _MAX_CHARS else f"{text[: _MAX_CHARS - 1]}\N{HORIZONTAL ELLIPSIS}"


def _first(keys: Sequence[Trajectory]) -> str:
    more = f" and {len(keys) - _MAX_NAMED} more" if len(keys) > _MAX_NAMED else ""
    return ", ".join(map(str, keys[:_MAX_NAMED])) + more
