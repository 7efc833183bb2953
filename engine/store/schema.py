"""The tables on disk: Arrow schemas with units, and the keys that join them.

A trajectory is (problem, sample, direction, budget); budget null is unlimited. SCHEMA_VERSION goes
up when a column changes its name, type or meaning.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import pyarrow as pa

from engine.core import POLICIES, Trajectory

SCHEMA_VERSION = 4


def expected_trajectories(expected: dict[str, Any]) -> dict[Trajectory, None]:
    """The trajectories that `expected` lists, in its order.

    Args:
        expected: The section of a manifest. Its `trajectories` are the list; without these, the
            list is problems x samples x directions x budgets.

    Returns:
        The trajectories as keys, so that each is there once and quick to look up.
    """
    if "trajectories" in expected:
        return dict.fromkeys(Trajectory(*key) for key in expected["trajectories"])
    samples = range(expected["samples"])
    keys = product(expected["problems"], samples, expected["directions"], expected["budgets"])
    return dict.fromkeys(Trajectory(*key) for key in keys)


def _field(
    name: str, type_: pa.DataType, unit: str, meaning: str, nullable: bool = False
) -> pa.Field:
    return pa.field(name, type_, nullable, {"unit": unit, "meaning": meaning})


def _schema(table: str, fields: list[pa.Field]) -> pa.Schema:
    return pa.schema(
        fields, {"xsample.table": table, "xsample.schema_version": str(SCHEMA_VERSION)}
    )


_DIRECTION = (
    "forward: base is primary; reverse: rl is primary; given: a response from elsewhere, measured"
)
_FORKED_FROM = (
    "budget of the trajectory that it shares its first tokens with; -1 is unlimited; null: made"
    " anew"
)
_KEY = [
    _field("problem", pa.string(), "id", "problem id in its task set"),
    _field("sample", pa.int32(), "index", "sample of the problem, from 0"),
    _field("direction", pa.string(), "forward | reverse | given", _DIRECTION),
    _field(
        "budget",
        pa.int32(),
        "interventions",
        "most interventions allowed; null is unlimited",
        nullable=True,
    ),
]


def _per_model(stem: str, type_: pa.DataType, unit: str, meaning: str) -> list[pa.Field]:
    """The same column for each policy; null where it did not see the position (solo phase)."""
    return [
        _field(f"{stem}_{policy}", type_, unit, f"{meaning}, under {policy}", True)
        for policy in POLICIES
    ]


TOKENS = _schema(
    "tokens",
    [
        *_KEY,
        _field("position", pa.int32(), "token index", "position in the response, from 0"),
        _field("token", pa.int32(), "token id", "the token that the trajectory took"),
        _field("intervened", pa.bool_(), "", "the token was drawn from the intervention policy"),
        _field(
            "effective",
            pa.bool_(),
            "",
            "intervened, and the primary would have taken another token",
        ),
        _field(
            "primary_token",
            pa.int32(),
            "token id",
            "where intervened: what the primary would have taken",
            True,
        ),
        _field(
            "js",
            pa.float32(),
            "nats",
            "Jensen-Shannon divergence of the nuclei; null in the solo phase",
            True,
        ),
        *_per_model(
            "entropy", pa.float32(), "nats", "entropy of the full distribution at temperature 1"
        ),
        *_per_model(
            "logp",
            pa.float32(),
            "nats",
            "log-probability of the token, full distribution, temperature 1",
        ),
        *_per_model(
            "rank", pa.int32(), "rank, 1 is best", "rank of the token in the full distribution"
        ),
        *_per_model("nucleus", pa.int32(), "tokens", "size of the nucleus"),
        *_per_model("top1", pa.int32(), "token id", "most probable token"),
        _field(
            "logp_base_of_top1_rl",
            pa.float32(),
            "nats",
            "base's log-probability of rl's top token",
            True,
        ),
        _field(
            "rank_base_of_top1_rl",
            pa.int32(),
            "rank, 1 is best",
            "base's rank of rl's top token",
            True,
        ),
        _field(
            "logp_rl_of_top1_base",
            pa.float32(),
            "nats",
            "rl's log-probability of base's top token",
            True,
        ),
        _field(
            "rank_rl_of_top1_base",
            pa.int32(),
            "rank, 1 is best",
            "rl's rank of base's top token",
            True,
        ),
        *_per_model(
            "topk",
            pa.list_(pa.int32()),
            "token ids",
            "most probable tokens where js >= record_threshold",
        ),
    ],
)

RESPONSES = _schema(
    "responses",
    [
        *_KEY,
        _field(
            "prompt_token_ids",
            pa.list_(pa.int32()),
            "token ids",
            "the prompt, the same for both policies",
        ),
        _field(
            "token_ids",
            pa.list_(pa.int32()),
            "token ids",
            "the response, with its EOS if it has one",
        ),
        _field("tokens", pa.int32(), "tokens", "length of the response"),
        _field("text", pa.string(), "", "the response decoded, special tokens left out"),
        _field("finish_reason", pa.string(), "stop | length", "EOS, or the length cap"),
        _field("interventions", pa.int32(), "tokens", "tokens drawn from the intervention policy"),
        _field(
            "effective_interventions", pa.int32(), "tokens", "interventions that changed the token"
        ),
        _field("forked_from", pa.int32(), "interventions", _FORKED_FROM, True),
        _field("seed", pa.int64(), "", "seed of the run"),
    ],
)
_OPTIONS = (
    "multiple choice: which option of the source stands at each letter; its option 0 is right"
)
_VERDICTS = "correct | wrong | no_answer | guessed | timed_out | ungradable"

PROBLEMS = _schema(
    "problems",
    [
        _field("problem", pa.string(), "id", "problem id in its task set"),
        _field(
            "question",
            pa.string(),
            "",
            "what was asked, without the prompt; null for a gated set",
            True,
        ),
        _field("answer", pa.string(), "", "the gold answer; a letter in multiple choice"),
        _field("options", pa.list_(pa.int8()), "indices", _OPTIONS, True),
    ],
)

VOCABULARY = _schema(
    "vocabulary",
    [
        _field("token", pa.int32(), "token id", "every token id of the tokenizer, in order"),
        _field(
            "text", pa.string(), "", "the token decoded by itself; incomplete characters are U+FFFD"
        ),
    ],
)

GRADES = _schema(
    "grades",
    [
        *_KEY,
        _field(
            "answer",
            pa.string(),
            "",
            "the answer that the response commits to; null when there is none",
            True,
        ),
        _field(
            "guess",
            pa.string(),
            "",
            "without an answer: what a lenient reader would take for one",
            True,
        ),
        _field(
            "method", pa.string(), "", "how answer or guess was found; null when neither was", True
        ),
        _field("verdict", pa.string(), _VERDICTS, "the verdict"),
        _field("correct", pa.bool_(), "", "true or false; null when ungradable or timed out", True),
        _field("options", pa.list_(pa.int8()), "indices", _OPTIONS, True),
    ],
)

FAILURES = _schema(
    "failures",
    [
        *_KEY,
        _field("attempts", pa.int32(), "", "how often it failed, with what ran beside it"),
        _field("error", pa.string(), "", "what was wrong the last time"),
    ],
)
