"""The rivals that use none of our engines: they decide as the oracle does, and what they make is
cross-sampled.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from benchmarks.rivals.ask import Ask
from benchmarks.rivals.http_servers import free_ports, nucleus
from benchmarks.rivals.transformers_loop import (
    TransformersLoop,
    decide,
    js_divergence,
    padded_left,
    truncate,
)
from engine.sampling.distribution import Sampling
from tests.support import reference
from tests.support.paths import ROOT

BASE, RL = (str(ROOT / "engine" / "tiny_pair" / name) for name in ("base", "rl"))
QUESTIONS = (
    "Q: 4+8=?\nA:",
    "Q: 47+48-44=?\nA:",
    "Q: 9+1-3=?\nA:",
    "Q: 25+31=?\nA:",
    "Q: 60-12+7=?\nA:",
)
TOP_P, THRESHOLD, MAX_TOKENS = 0.7, 0.1, 16


def random_logits(seed: int, num_rows: int = 64, num_tokens: int = 50) -> torch.Tensor:
    """Rows from flat to peaked."""
    noise = torch.Generator().manual_seed(seed)
    return (
        torch.randn(num_rows, num_tokens, generator=noise)
        * torch.logspace(-1, 1, num_rows)[:, None]
    )


def distribution(logits: torch.Tensor) -> reference.Vector:
    p: reference.Vector = logits.double().softmax(-1).numpy()
    return p


def is_clear_cut(p: reference.Vector, top_p: float) -> bool:
    """Whether rounding cannot change what is in the nucleus."""
    return bool(np.abs(np.cumsum(-np.sort(-p)) - top_p).min() > 1e-5)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.5])
@pytest.mark.parametrize("top_p", [0.3, 0.7, 0.95])
def test_a_batch_is_truncated_as_the_oracle_truncates_each_row(
    temperature: float, top_p: float
) -> None:
    logits = random_logits(seed=1)
    got = truncate(logits, Sampling(temperature, top_p)).double().numpy()
    rows = [
        (row, reference.warm(p, temperature))
        for row, p in zip(got, distribution(logits), strict=True)
    ]
    clear = [(row, p) for row, p in rows if is_clear_cut(p, top_p)]
    assert len(clear) > 60
    for row, p in clear:
        np.testing.assert_allclose(row, reference.nucleus(p, top_p), atol=1e-5)


def test_top_k_keeps_the_most_probable_and_top_p_cuts_what_it_leaves() -> None:
    logits = random_logits(seed=2)
    for row, p in zip(
        truncate(logits, Sampling(1.0, 1.0, 5)).numpy(), distribution(logits), strict=True
    ):
        assert set(np.flatnonzero(row)) == set(np.argsort(-p)[:5])
    kept = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()  # of the three most probable, two hold 7/9
    np.testing.assert_allclose(
        truncate(kept, Sampling(1.0, 0.75, 3)), [[4 / 7, 3 / 7, 0, 0]], atol=1e-6
    )


def test_at_temperature_0_only_the_most_probable_token_is_left() -> None:
    logits = random_logits(seed=3)
    assert torch.equal(truncate(logits, Sampling(0.0, 1.0)).argmax(-1), logits.argmax(-1))


def test_the_divergence_is_the_oracles_and_0_of_equals() -> None:
    p, q = (truncate(random_logits(seed), Sampling(1.0, TOP_P)) for seed in (4, 5))
    expected = [
        reference.js(a, b) for a, b in zip(p.double().numpy(), q.double().numpy(), strict=True)
    ]
    np.testing.assert_allclose(js_divergence(p, q), expected, atol=1e-5)
    assert not js_divergence(p, p).any()


def test_a_token_comes_from_the_policy_whose_turn_it_is_as_often_as_it_says() -> None:
    p, q = torch.tensor([[0.7, 0.3, 0.0]] * 20_000), torch.tensor([[0.0, 0.2, 0.8]] * 20_000)
    left = torch.arange(20_000) % 2
    token, intervened = decide(p, q, left, THRESHOLD, torch.Generator().manual_seed(0))
    assert torch.equal(intervened, left == 1)
    for rows, expected in ((intervened, q[0]), (~intervened, p[0])):
        share = token[rows].bincount(minlength=3) / rows.sum()
        np.testing.assert_allclose(share, expected, atol=0.02)  # 4 standard deviations
    assert not decide(p, p, left, THRESHOLD, torch.Generator())[1].any()


def test_prompts_end_together() -> None:
    ids, mask = padded_left([[7], [8, 9, 10]])
    assert ids.tolist() == [[0, 0, 7], [8, 9, 10]] and mask.tolist() == [[0, 0, 1], [1, 1, 1]]


class Case(NamedTuple):
    """The rival and the oracle, loaded. stop: a token that soon ends some of the responses, and not
    others.
    """

    loop: TransformersLoop
    policies: list[reference.Policy]
    prompts: list[list[int]]
    stop: int

    def respond(self, budget: int | None, seed: int) -> list[list[int]]:
        limits = (budget, THRESHOLD, Sampling(1.0, TOP_P), MAX_TOKENS, (self.stop,))
        return self.loop.respond(Ask(BASE, RL, self.prompts, *limits), seed)

    def num_interventions(self, prompt: list[int], response: list[int], budget: int | None) -> int:
        """Hold every token of a response against the oracle."""
        spent = 0
        for policy in self.policies:
            policy.read()
        for place, token in enumerate(response):
            full = [policy.distribution(prompt + response[:place]) for policy in self.policies]
            p, q = (reference.nucleus(each, TOP_P) for each in full)
            fires = reference.js(p, q) > THRESHOLD and (budget is None or spent < budget)
            assert (q if fires else p)[token] > 0
            spent += fires
        return spent


@pytest.fixture(scope="module")
def case() -> Case:
    tokenizer = Tokenizer.from_file(f"{BASE}/tokenizer.json")
    stop = tokenizer.token_to_id("4")
    assert stop is not None
    policies = [reference.Policy(Path(folder)) for folder in (BASE, RL)]
    prompts = [tokenizer.encode(question).ids for question in QUESTIONS]
    return Case(TransformersLoop(BASE, RL, max_model_len=64, batch=4), policies, prompts, stop)


@pytest.mark.parametrize("budget", [0, 1, None])
def test_every_token_is_from_the_nucleus_of_the_policy_whose_turn_it_was(
    case: Case, budget: int | None
) -> None:
    responses = case.respond(budget, seed=7)
    pairs = zip(case.prompts, responses, strict=True)
    spent = [case.num_interventions(prompt, response, budget) for prompt, response in pairs]
    assert max(spent) == budget if budget is not None else max(spent) > 1


def test_responses_end_with_a_stop_token_or_at_the_most_tokens(case: Case) -> None:
    responses = case.respond(None, seed=7)
    stopped = [case.stop in response for response in responses]
    assert any(stopped) and not all(stopped)
    for response, has_stop in zip(responses, stopped, strict=True):
        assert case.stop not in response[:-1] and len(response) <= MAX_TOKENS
        assert has_stop or len(response) == MAX_TOKENS


def test_the_seed_decides_the_responses(case: Case) -> None:
    assert case.respond(None, seed=7) == case.respond(None, seed=7) != case.respond(None, seed=8)


@pytest.mark.parametrize("top_p", [0.3, TOP_P, 1.0])
def test_a_servers_log_probabilities_become_the_oracles_nucleus(top_p: float) -> None:
    for p in distribution(random_logits(seed=6)):
        top = {
            f"token_id:{token}": float(np.log(p[token]))
            for token in np.random.default_rng(0).permutation(len(p))
        }
        got = nucleus(top, top_p)
        dense = np.zeros(len(p))
        dense[got.token[0]] = got.p[0]
        np.testing.assert_allclose(dense, reference.nucleus(p, top_p), atol=1e-12)


def test_free_ports_differ() -> None:
    assert len(set(free_ports(8))) == 8
