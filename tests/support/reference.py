"""The oracle: cross-sampling as the paper defines it, two transformers models, one sequence at a
time, nothing batched.

Slow and obvious, in float64 over dense vectors. Of the engine it takes only the noise, which is a
matter of definition.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import AutoModelForCausalLM, DynamicCache

from engine.sampling.noise import POSITIONS, gumbel, stream_key, uniform
from engine.sampling.rule import Rule

Vector = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]
PAPER = Rule()


class Position(NamedTuple):
    """What happened at one position. js and the absent policy's numbers are None where the primary
    was alone.
    """

    token: int
    intervened: bool
    effective: bool
    primary_token: int | None  # what the primary would have taken, where it was intervened
    js: float | None
    entropy_base: float | None
    entropy_rl: float | None
    logp_base: float | None
    logp_rl: float | None


class Policy:
    """One model, asked for p(. | ids). A prefix that was asked for before is remembered, not
    computed again.
    """

    def __init__(self, folder: Path) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self._known: dict[tuple[int, ...], Vector] = {}

    def read(self) -> None:
        """Begin a new sequence."""
        self._cache, self._num_read = DynamicCache(), 0

    def distribution(self, ids: list[int]) -> Vector:
        """The full distribution at temperature 1, [V]; `ids` go on from those of the last call."""
        if tuple(ids) not in self._known:
            with torch.inference_mode():
                new = torch.tensor([ids[self._num_read :]])
                logits = (
                    self._model(new, past_key_values=self._cache).logits[0, -1].double().numpy()
                )
            self._num_read = len(ids)
            p = np.exp(logits - logits.max())
            self._known[tuple(ids)] = p / p.sum()
        return self._known[tuple(ids)]


def nucleus(p: Vector, top_p: float) -> Vector:
    """The fewest tokens, by falling p, whose mass reaches top_p; the others 0; renormalised."""
    order = np.argsort(-p, kind="stable")
    before = np.cumsum(p[order]) - p[order]
    kept: Vector = np.zeros(len(p))
    kept[order[before < top_p]] = p[order[before < top_p]]
    kept /= kept.sum()
    return kept


def kl(a: Vector, b: Vector) -> float:
    there = a > 0
    return float((a[there] * np.log(a[there] / b[there])).sum())


def js(a: Vector, b: Vector) -> float:
    return kl(a, (a + b) / 2) / 2 + kl(b, (a + b) / 2) / 2


def draw(p: Vector, key: int, position: int) -> int:
    tokens = np.flatnonzero(p)
    noise = gumbel(np.full(len(tokens), key, np.uint64), np.full(len(tokens), position), tokens)
    return int(tokens[np.argmax(np.log(p[tokens]) + noise)])


def warm(p: Vector, temperature: float) -> Vector:
    """`p` at another temperature."""
    log_p = np.log(p) / temperature
    q: Vector = np.exp(log_p - log_p.max())
    q /= q.sum()
    return q


def entropy(p: Vector) -> float:
    return float(-(p * np.log(p)).sum())


def coarse_kl(p: Vector, q: Vector, cells: Mask) -> float:
    """KL(p || q), full distributions, of the tokens in `cells` [V] and of all others taken as
    one.
    """
    rest_p, rest_q = max(p[~cells].sum(), 1e-6), max(q[~cells].sum(), 1e-6)
    return kl(p[cells], q[cells]) + float(rest_p * np.log(rest_p / rest_q))


class Moment(NamedTuple):
    """One position as both policies see it: distributions by policy; `own` is the primary's
    token.
    """

    full: dict[str, Vector]
    truncated: dict[str, Vector]
    primary: str
    other: str
    own: int
    key: int
    position: int


def fires(rule: Rule, now: Moment, positions: Collection[int] | None) -> bool:
    """The criterion alone, without budget and window. positions: those of criterion random that are
    given.
    """
    base, rl = now.full["base"], now.full["rl"]
    cells = (now.truncated["base"] > 0) | (now.truncated["rl"] > 0)
    match rule.criterion:
        case "js":
            return js(now.truncated["base"], now.truncated["rl"]) > rule.threshold
        case "kl":
            return coarse_kl(base, rl, cells) > rule.threshold
        case "reverse-kl":
            return coarse_kl(rl, base, cells) > rule.threshold
        case "entropy-base":
            return entropy(base) > rule.threshold
        case "entropy-rl":
            return entropy(rl) > rule.threshold
        case "dlogp":
            return bool(
                np.log(now.full[now.other][now.own] / now.full[now.primary][now.own])
                < rule.threshold
            )
        case "argmax":
            return int(np.argmax(base)) != int(np.argmax(rl))
        case "random" if positions is not None:
            return now.position in positions
        case "random":
            stream = np.array([now.key], np.uint64) ^ POSITIONS
            return bool(
                uniform(stream, np.array([now.position]), np.array([0]))[0] < rule.threshold
            )
        case "always":
            return True
        case "never":
            return False


def proposal(rule: Rule, now: Moment, temperature: float, top_p: float) -> int | None:
    """The intervention's token; None where its stop token is dropped, and so the intervention with
    it.
    """
    p = now.truncated[now.other]
    if rule.extrapolate:
        to, g = rule.extrapolate_to, rule.extrapolate
        away = {"base": "rl", "rl": "base"}[to]
        m = (1 + g) * np.log(now.full[to]) - g * np.log(now.full[away])
        p = nucleus(warm(np.exp(m - m.max()), temperature), top_p)
    token = draw(p, now.key, now.position)
    if token not in rule.stop_token_ids or rule.eos == "keep":
        return token
    allowed = p.copy()
    allowed[list(rule.stop_token_ids)] = 0
    return (
        draw(allowed, now.key, now.position) if rule.eos == "resample" and allowed.any() else None
    )


def cross_sample(
    policies: dict[str, Policy], primary: str, prompt: list[int], problem: str, sample: int,
    budget: int | None, seed: int = 0, rule: Rule = PAPER, temperature: float = 1.0,
    top_p: float = 0.7, max_tokens: int = 192, stop: int = 0,
    positions: Collection[int] | None = None,
) -> list[Position]:  # fmt: skip
    """One trajectory, by a policy `primary` ("base" or "rl") that the other one may correct
    `budget` times.

    positions: of criterion random, where they are given.
    """
    key, other = stream_key(seed, problem, sample), {"base": "rl", "rl": "base"}[primary]
    response: list[Position] = []
    num_interventions = 0
    for policy in policies.values():
        policy.read()
    while len(response) < max_tokens and not (
        response and response[-1].token in {stop, *rule.stop_token_ids}
    ):
        ids, position = prompt + [row.token for row in response], len(response)
        is_left = (budget is None or num_interventions < budget) and position < rule.stop
        paired = is_left or rule.trace == "full"
        full = {
            name: policies[name].distribution(ids)
            for name in ([primary, other] if paired else [primary])
        }
        truncated = {name: nucleus(warm(p, temperature), top_p) for name, p in full.items()}
        own = draw(truncated[primary], key, position)
        now = Moment(full, truncated, primary, other, own, key, position)
        may = is_left and rule.start <= position
        proposed = (
            proposal(rule, now, temperature, top_p) if may and fires(rule, now, positions) else None
        )
        token = own if proposed is None else proposed
        num_interventions += proposed is not None
        divergence = js(truncated["base"], truncated["rl"]) if paired else None
        uncertainty = {name: entropy(p) for name, p in full.items()}
        logp = {name: float(np.log(p[token])) for name, p in full.items()}
        response.append(
            Position(
                token,
                proposed is not None,
                token != own,
                None if proposed is None else own,
                divergence,
                uncertainty.get("base"),
                uncertainty.get("rl"),
                logp.get("base"),
                logp.get("rl"),
            )
        )
    return response
