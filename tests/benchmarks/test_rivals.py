"""The rivals that work by vLLM's log-probabilities, on small chains in the place of engines, and
the check of them all.

A chain gives what vLLM would: tokens, and the top log-probabilities of positions, flat. With real
engines the same check is part of the benchmark.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.against import refuse_void
from benchmarks.rivals import top_logprobs
from benchmarks.rivals.ask import Ask
from benchmarks.rivals.contender import start
from benchmarks.rivals.per_token import PerToken, decide
from benchmarks.rivals.regenerate import Regenerate
from benchmarks.rivals.same import same_distribution
from benchmarks.rivals.top_logprobs import TOP, Truncated, draw, js_divergence, truncated
from engine.sampling.distribution import Sampling
from engine.sampling.rule import Rule
from tests.support import reference

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # vLLM and what it imports are not ours to mend
    from vllm import SamplingParams

VOCAB, STOP, MAX_TOKENS, TOP_P = 60, 0, 10, 0.7
PROMPTS, SAMPLES = [[5, 1], [6, 2], [7, 3]], 60
Responses = list[list[int]]


class Chain(reference.Policy):
    """The next token depends on the last one only; in "rl" otherwise than in "base", but after
    every third token.
    """

    def __init__(self, name: str | Path) -> None:
        noise = np.random.default_rng(0)
        base, change = noise.normal(scale=2.5, size=(2, VOCAB, VOCAB))
        differs = np.arange(VOCAB)[:, None] % 3 > 0
        logits = np.where(differs, base + change / 1.5, base) if name == "rl" else base
        self.p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)

    def read(self) -> None:
        """It remembers nothing."""

    def distribution(self, ids: list[int]) -> reference.Vector:
        p: reference.Vector = self.p[ids[-1]]
        return p


class ChainEngine:
    """A chain that is asked as `vllm.LLM` is."""

    def __init__(
        self, model: str, max_model_len: int, max_num_seqs: int, block_size: int | None = None
    ) -> None:
        self._chain, self._most = Chain(model), max_model_len

    def reset_prefix_cache(self) -> None:
        """It has none."""

    def generate(
        self, prompts: list[dict[str, list[int]]], params: Any, use_tqdm: bool
    ) -> list[Any]:
        each = params if isinstance(params, list) else [params] * len(prompts)
        return [
            self._respond(prompt["prompt_token_ids"], one)
            for prompt, one in zip(prompts, each, strict=True)
        ]

    def _respond(self, prompt: list[int], params: SamplingParams) -> Any:
        ids = list(prompt)
        while len(ids) < len(prompt) + params.max_tokens and (
            ids == prompt or ids[-1] not in params.stop_token_ids
        ):
            p = reference.nucleus(
                self._chain.distribution(ids), params.top_p if params.temperature else 1e-9
            )
            ids.append(int(torch.multinomial(torch.from_numpy(p), 1)))
        assert len(ids) <= self._most
        output = SimpleNamespace(
            token_ids=ids[len(prompt) :], logprobs=self._flat(ids, len(prompt))
        )
        return SimpleNamespace(outputs=[output], prompt_logprobs=self._flat(prompt, 1))

    def _flat(self, ids: list[int], first: int) -> Any:
        """Of every position from `first` on: its token, then the most probable ones."""
        rows = [
            (token, self._chain.p[last])
            for last, token in zip(ids[first - 1 :], ids[first:], strict=False)
        ]
        tokens = [
            np.concatenate(([token], np.argsort(-p, kind="stable")[:TOP])) for token, p in rows
        ]
        log_p = [np.log(p[token]) for (_, p), token in zip(rows, tokens, strict=True)]
        return SimpleNamespace(
            token_ids=np.ravel(tokens).tolist(), logprobs=np.ravel(log_p).tolist()
        )


@pytest.fixture(autouse=True)
def chains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chains in the place of engines."""
    monkeypatch.setattr(top_logprobs, "load_engine", ChainEngine)


def ask(budget: int | None) -> Ask:
    prompts = [prompt for prompt in PROMPTS for _ in range(SAMPLES)]
    return Ask("base", "rl", prompts, budget, 0.1, Sampling(1.0, TOP_P), MAX_TOKENS, (STOP,))


def oracle(budget: int | None, rule: Rule = reference.PAPER, seed: int = 0) -> list[Responses]:
    """By problem."""
    policies: dict[str, reference.Policy] = {name: Chain(name) for name in ("base", "rl")}
    return [
        [
            [
                row.token
                for row in reference.cross_sample(
                    policies,
                    "base",
                    prompt,
                    str(prompt),
                    sample,
                    budget,
                    seed,
                    rule,
                    top_p=TOP_P,
                    max_tokens=MAX_TOKENS,
                )
            ]
            for sample in range(SAMPLES)
        ]
        for prompt in PROMPTS
    ]


def by_problem(responses: Responses) -> list[Responses]:
    return [responses[start : start + SAMPLES] for start in range(0, len(responses), SAMPLES)]


@pytest.mark.parametrize("budget", [0, 2, None])
def test_a_request_a_token_samples_what_the_oracle_samples(budget: int | None) -> None:
    made = by_problem(PerToken("base", "rl", 12).respond(ask(budget), seed=1))
    assert same_distribution(oracle(budget), made) > 0.01


def test_a_curve_by_regeneration_samples_what_the_oracle_samples_with_each_budget() -> None:
    curve = Regenerate("base", "rl", 12).curve(ask(3), seed=1)
    assert list(curve) == [0, 1, 2, 3]
    for budget, made in curve.items():
        assert same_distribution(oracle(budget), by_problem(made)) > 0.01


def test_regeneration_without_a_limit_samples_what_the_oracle_samples() -> None:
    made = by_problem(Regenerate("base", "rl", 12).respond(ask(None), seed=1))
    assert same_distribution(oracle(None), made) > 0.01


def test_the_check_notices_another_budget_a_higher_threshold_and_a_missing_intervention() -> None:
    right = oracle(None)
    assert same_distribution(right, oracle(None, seed=1)) > 0.01
    assert same_distribution(right, oracle(0, seed=1)) < 0.001
    assert same_distribution(right, oracle(1, seed=1)) < 0.001
    assert same_distribution(right, oracle(None, Rule(threshold=0.4), seed=1)) < 0.001


def test_equal_samplers_get_every_p_value_equally_often() -> None:
    noise = np.random.default_rng(0)
    p = []
    for seed in range(60):
        ours, theirs = (
            [noise.integers(3, size=(6, 5)).tolist() for _ in range(2)] for _ in range(2)
        )
        p.append(same_distribution(ours, theirs, seed))
    assert 0.35 < np.mean(p) < 0.65 and 0.01 < np.mean(np.array(p) <= 0.1) < 0.25


def test_a_response_that_ends_is_not_one_that_goes_on() -> None:
    assert same_distribution([[[1, 2]] * 8] * 2, [[[1, 2, 3]] * 8] * 2) < 0.001


def test_the_top_log_probabilities_are_truncated_and_compared_as_the_oracle_does() -> None:
    engines = [ChainEngine(name, 12, 1) for name in ("base", "rl")]
    params = SamplingParams(max_tokens=1, temperature=0, logprobs=TOP)
    prompts = [{"prompt_token_ids": [last]} for last in range(VOCAB)]
    sides = [
        [out.outputs[0].logprobs for out in engine.generate(prompts, params, False)]
        for engine in engines
    ]
    base, rl = (truncated(side, TOP_P) for side in sides)
    expected = [[reference.nucleus(p, TOP_P) for p in Chain(name).p] for name in ("base", "rl")]
    for got, rows in zip((base, rl), expected, strict=True):
        whole = np.zeros((VOCAB, VOCAB))
        np.put_along_axis(whole, got.token, got.p, 1)
        np.testing.assert_allclose(whole, rows, atol=1e-12)
    js = [reference.js(a, b) for a, b in zip(*expected, strict=True)]
    np.testing.assert_allclose(js_divergence(base, rl), js, atol=1e-12)


def test_a_draw_has_the_probabilities_of_the_nucleus() -> None:
    rows = Truncated(np.tile([4, 9, 7], (20_000, 1)), np.tile([0.6, 0.4, 0.0], (20_000, 1)))
    tokens = draw(rows, np.random.default_rng(0))
    assert set(tokens.tolist()) == {4, 9} and abs((tokens == 4).mean() - 0.6) < 0.02


def test_without_budget_or_below_the_threshold_the_token_is_the_primarys() -> None:
    primary, other = (Truncated(np.array([[3], [3], [token]]), np.ones((3, 1))) for token in (3, 3))
    other.token[:2] = 8
    tokens, intervened = decide(primary, other, np.array([1, 0, 1]), 0.1, np.random.default_rng(0))
    assert tokens.tolist() == [8, 3, 3] and intervened.tolist() == [True, False, False]


def test_rivals_that_run_on_a_cpu_only_are_not_compared_with_a_pair_on_a_gpu() -> None:
    rivals, left_out = start(["transformers", "http"], ("base", "rl"), 256, "cuda")
    assert not rivals and set(left_out) == {"transformers", "http"}


def test_the_command_fails_with_the_name_of_the_rival_whose_responses_differ() -> None:
    refuse_void({"per_token": 0.5})
    with pytest.raises(SystemExit, match="void: http"):
        refuse_void({"per_token": 0.5, "http": 0.0001})
