"""The oracle: cross-sampling as the paper defines it, two transformers models, one sequence at a time, nothing batched.

Slow and obvious, in float64 over dense vectors. Of the engine it takes only the noise, which is a matter of definition.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import AutoModelForCausalLM, DynamicCache

from engine.noise import gumbel, stream_key

Vector = np.ndarray[Any, np.dtype[np.float64]]


class Position(NamedTuple):
    """What happened at one position. js and the absent policy's numbers are None where the primary was alone."""

    token: int
    intervened: bool
    effective: bool
    js: float | None
    entropy_base: float | None
    entropy_rl: float | None
    logp_base: float | None
    logp_rl: float | None


class Policy:
    """One model, asked for p(. | ids). A prefix that was asked for before is remembered, not computed again."""

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
                logits = self._model(new, past_key_values=self._cache).logits[0, -1].double().numpy()
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


def cross_sample(
    policies: dict[str, Policy], primary: str, prompt: list[int], problem: str, sample: int, budget: int | None,
    seed: int = 0, threshold: float = 0.1, top_p: float = 0.7, max_tokens: int = 192, stop: int = 0,
) -> list[Position]:  # fmt: skip
    """One trajectory, by a policy `primary` ("base" or "rl") that the other one may correct `budget` times."""
    key, other = stream_key(seed, problem, sample), {"base": "rl", "rl": "base"}[primary]
    response: list[Position] = []
    num_interventions = 0
    for policy in policies.values():
        policy.read()
    while len(response) < max_tokens and not (response and response[-1].token == stop):
        ids, position = prompt + [row.token for row in response], len(response)
        paired = budget is None or num_interventions < budget
        full = {name: policies[name].distribution(ids) for name in ([primary, other] if paired else [primary])}
        own = draw(nucleus(full[primary], top_p), key, position)
        divergence = js(nucleus(full[primary], top_p), nucleus(full[other], top_p)) if paired else None
        intervened = divergence is not None and divergence > threshold
        token = draw(nucleus(full[other], top_p), key, position) if intervened else own
        num_interventions += intervened
        entropy = {name: float(-(p * np.log(p)).sum()) for name, p in full.items()}
        logp = {name: float(np.log(p[token])) for name, p in full.items()}
        response.append(
            Position(
                token, intervened, token != own, divergence,
                entropy.get("base"), entropy.get("rl"), logp.get("base"), logp.get("rl"),
            )
        )  # fmt: skip
    return response
