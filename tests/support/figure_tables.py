"""Tidy tables as a report makes them, from seeded arrays that look like a real pair: most positions
near zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

Row = dict[str, Any]
NUM_POSITIONS = 5_000
BUDGETS = (0, 1, 2, 4, 8, 16, 32, 64, None)
TOKENS = [
    " the", "\n", "$", "\\frac", "{", "}", "_", "^", " so", "So", "Wait", "\n\n", " we", " =", " +",
    "1", "2", "Let", "<|im_end|>", " let", "\\boxed", "首先", " $x_{1}$", ".", ",", " find",
    "Alternatively", " need", " check", "\t", " ", "To", " is", "  ", "Since", " But", " Therefore",
    "$$", "\\(", "\\)", "\u202e", "�", "é", " that", "->", "First", " value", " given", "-",
    " equation",
]  # fmt: skip
RUNS = (
    "dapo-qwen2.5-32b",
    "simplerl",
    "sft",
    "a-run-with-a-very-long-name/checkpoints/global_step_100",
)
WAYS = ("forward", "reverse")


def table(
    rows: Callable[[int, str, str], Sequence[Row]],
    runs: Sequence[str] = RUNS,
    ways: Sequence[str] = WAYS,
) -> pa.Table:
    """Rows of each run and direction under one another; `rows` gets a seed, the run and the
    direction.
    """
    return pa.Table.from_pylist(
        [
            {"run": run, "direction": way, **row}
            for i, run in enumerate(runs)
            for j, way in enumerate(ways)
            for row in rows(10 * i + j, run, way)
        ]
    )


def js_values(seed: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """JS [positions]: a share exactly 0, most far below 0.01, some up to ln 2."""
    random = np.random.default_rng(seed)
    small = 10 ** random.normal(-5 + 0.3 * (seed // 10), 1.3, NUM_POSITIONS)
    large = random.beta(1.2, 4, NUM_POSITIONS) * np.log(2)
    js = np.where(
        random.random(NUM_POSITIONS) < 0.03 + 0.05 * (seed // 10), large, np.minimum(small, 0.5)
    )
    js[random.random(NUM_POSITIONS) < 0.3] = 0
    return np.asarray(js)


def js_bins(js: np.ndarray[Any, np.dtype[np.float64]], per_octave: int) -> list[Row]:
    rows = [{"js_low": 0.0, "js_high": 0.0, "positions": int((js == 0).sum())}]
    positive = js[js > 0]
    if positive.size:
        numbers = np.floor(per_octave * np.log2(positive)).astype(int)
        for n in range(numbers.min(), numbers.max() + 1):
            edges = {"js_low": 2 ** (n / per_octave), "js_high": 2 ** ((n + 1) / per_octave)}
            rows.append({**edges, "positions": int((numbers == n).sum())})
    return [{**row, "share": row["positions"] / js.size} for row in rows]


def js_histogram(seed: int, run: str, way: str) -> list[Row]:
    return js_bins(js_values(seed), 4)


def js_percentiles(seed: int, run: str, way: str) -> list[Row]:
    percentiles = [*(half / 2 for half in range(200)), 99.9, 99.99, 100.0]
    found = np.percentile(js_values(seed), percentiles, method="inverted_cdf").tolist()
    return [{"percentile": p, "js": js} for p, js in zip(percentiles, found, strict=True)]


def js_by_position(seed: int, run: str, way: str) -> list[Row]:
    rows = []
    for place, js in enumerate(np.array_split(js_values(seed), 50)):
        scaled = js * (1 + 2 * np.exp(-place / 6) + 0.4 * (place / 49) ** 8)
        quantiles = dict(
            zip(
                ("p5", "p25", "median", "p75", "p95"),
                np.quantile(scaled, [0.05, 0.25, 0.5, 0.75, 0.95]).tolist(),
                strict=True,
            )
        )
        rows.append(
            {
                "bin": place,
                "start": place / 50,
                "stop": (place + 1) / 50,
                "positions": js.size,
                "mean": float(scaled.mean()),
                **quantiles,
            }
        )
    return rows


def entropies(seed: int) -> tuple[Any, Any, Any]:
    random = np.random.default_rng(seed)
    js = js_values(seed)
    base = random.exponential(0.15 + 2.5 * np.minimum(js * 8, 0.5))
    rl = np.maximum(0, base * random.normal(0.7, 0.15, js.size) + random.exponential(0.03, js.size))
    return js, base, rl


def entropy_histogram(seed: int, run: str, way: str) -> list[Row]:
    js, base, rl = entropies(seed)
    rows = []
    for policy, values in (("base", base), ("rl", rl)):
        for name, there in (
            ("low", js <= 0.01),
            ("middle", (js > 0.01) & (js <= 0.1)),
            ("high", js > 0.1),
        ):
            counts = np.bincount((values[there] * 10).astype(int))
            rows += [
                {
                    "policy": policy,
                    "divergence": name,
                    "entropy_low": i / 10,
                    "entropy_high": (i + 1) / 10,
                    "positions": int(n),
                    "share": int(n) / int(there.sum()),
                }
                for i, n in enumerate(counts)
            ]
    return rows


def entropy_joint(seed: int, run: str, way: str) -> list[Row]:
    _, base, rl = entropies(seed)
    cells, counts = np.unique(
        np.stack([(base * 10).astype(int), (rl * 10).astype(int)]), axis=1, return_counts=True
    )
    return [
        {"entropy_base_low": b / 10, "entropy_rl_low": r / 10, "positions": int(n)}
        for b, r, n in zip(*cells.tolist(), counts, strict=True)
    ]


def sequences(seed: int, run: str, way: str) -> list[Row]:
    random = np.random.default_rng(seed)
    entropy = random.gamma(9, 0.04, 800)
    js = 0.01 * (1 + seed // 10) + entropy * random.normal(0.06, 0.012, 800)
    return [
        {
            "problem": f"p{i // 8}",
            "sample": i % 8,
            "budget": 0,
            "positions": 900,
            "js_mean": float(max(0, j)),
            "entropy_base_mean": float(e),
            "entropy_rl_mean": float(0.6 * e + 0.02),
        }
        for i, (e, j) in enumerate(zip(entropy, js, strict=True))
    ]


def frequent_tokens(seed: int, run: str, way: str) -> list[Row]:
    random = np.random.default_rng(seed)
    rows = []
    for name in ("low", "high"):
        order = random.permutation(len(TOKENS))
        shares = 1 / (np.arange(len(TOKENS)) + 1.5)
        for rank, place in enumerate(order.tolist()):
            share_high = random.beta(1, 60) if name == "low" else random.beta(2, 4)
            rows.append(
                {
                    "divergence": name,
                    "rank": rank + 1,
                    "token": place,
                    "text": TOKENS[place],
                    "positions": int(1e4 * shares[rank]),
                    "share": float(shares[rank] / 6),
                    "share_high": float(share_high),
                }
            )
    return rows


def token_js(seed: int, run: str, way: str) -> list[Row]:
    rows = []
    for rank in range(1, 21):
        js = js_values(seed + 100 * rank)[:: 3 * rank]
        rows += [
            {"token": rank, "text": TOKENS[rank], "rank": rank, **bin_} for bin_ in js_bins(js, 2)
        ]
    return [{name: value for name, value in row.items() if name != "share"} for row in rows]


def topk_overlap(seed: int, run: str, way: str) -> list[Row]:
    start = 0.45 + 0.02 * seed % 0.4
    return [{"k": k, "overlap": 1 - (1 - start) / k**0.7, "positions": 900} for k in range(1, 21)]


def top1_ranks(seed: int, run: str, way: str) -> list[Row]:
    rows = []
    for of, under in (("rl", "base"), ("base", "rl")):
        shares = np.random.default_rng(seed).dirichlet(8 / np.arange(1, 12) ** 1.6)
        for rank, (share, cumulative) in enumerate(
            zip(shares.tolist(), np.cumsum(shares).tolist(), strict=True), 1
        ):
            rows.append(
                {
                    "of": of,
                    "under": under,
                    "rank": rank,
                    "positions": 90,
                    "share": share,
                    "cumulative": min(1.0, cumulative),
                }
            )
    return rows


def tail_probability(seed: int, run: str, way: str) -> list[Row]:
    return [
        {
            "of": of,
            "under": under,
            "cutoff": cutoff,
            "below": min(1.0, (1.3 + 0.05 * (seed // 10)) * cutoff**0.6),
            "positions": 900,
        }
        for of, under in (("rl", "base"), ("base", "rl"))
        for cutoff in (0.5, 0.1, 0.05, 0.01, 0.001)
    ]


def shift_classes(seed: int, run: str, way: str) -> list[Row]:
    shares = {
        "all": (0.93, 0.05, 0.02),
        "high": (0.31 + 0.03 * (seed // 10), 0.5, 0.19 - 0.03 * (seed // 10)),
    }
    return [
        {"where": where, "shift": shift, "positions": 900, "share": share}
        for where, of_where in shares.items()
        for shift, share in zip(("unshifted", "marginal", "shifted"), of_where, strict=True)
    ]


def truncations(seed: int, run: str, way: str) -> list[Row]:
    low = 0.02 * (seed // 10) + 0.005 * (seed % 10)
    names = ["top-p 0.7", "top-p 0.95", "top-1 (greedy)", "full distribution, lower bound"]
    sources = ["measured", "measured", "stored data, exact", "stored data, a lower bound"]
    return [
        {
            "truncation": name,
            "source": source,
            "positions": 900,
            "near_zero": 0.85 + 0.03 * i - low,
            "high": 0.04 - 0.005 * i + low,
            "mean": 0.02,
        }
        for i, (name, source) in enumerate(zip(names, sources, strict=True))
    ]


def accuracy(seed: int, run: str, way: str) -> list[Row]:
    base, rl = 0.08, 0.44 - 0.06 * (seed // 10)
    rows = []
    for place, budget in enumerate(BUDGETS):
        moved = place / (len(BUDGETS) - 1)
        mean = base + (rl - base) * (moved if way == "forward" else 1 - moved)
        if run.startswith("control"):
            mean = base + 0.08 * moved if way == "forward" else 0.4 - 0.05 * moved
        rows.append({
            "budget": budget, "control": run.startswith("control"), "given": False, "problems": 30,
            "samples": 32, "responses": 960, "accuracy": mean, "low": max(0.0, mean - 0.06),
            "high": mean + 0.06, "interventions": 3.0 * place, "interventions_share": 0.01 * place,
            "effective": 2.0 * place, "effective_share": 0.0003 * (2**place - 1),
            "tokens_mean": 950.0,
        })  # fmt: skip
    return rows


def differences(seed: int, run: str, way: str) -> list[Row]:
    sign = 1 if way == "forward" else -1
    rows = []
    for place, budget in enumerate(BUDGETS[1:], 1):
        for against, against_budget, size in (
            (run, 0, 0.04),
            (run, 1, 0.03),
            ("control", budget, 0.025),
        ):
            if against == "control" and run == "control":
                continue
            mean = sign * size * place * (0.2 if run == "control" else 1)
            rows.append({
                "budget": budget, "against_run": against, "against_direction": way,
                "against_budget": against_budget, "problems": 30, "pairs": 960, "difference": mean,
                "low": mean - 0.05, "high": mean + 0.05,
            })  # fmt: skip
    return rows


def js_by_step(seed: int, run: str, way: str) -> list[Row]:
    rows = []
    for step in (25, 50, 75, 100, 200, 400):
        grown = {
            name: value * (step / 100) ** 0.8
            for name, value in (
                ("mean", 0.01),
                ("median", 2e-5),
                ("p75", 4e-4),
                ("p90", 0.006),
                ("p95", 0.05),
                ("p99", 0.15),
            )
        }
        rows.append(
            {
                "step": step,
                "label": f"global_step_{step}",
                **grown,
                "share_high": 0.02,
                "positions": 9000,
            }
        )
    return rows


def high_overlap(seed: int, run: str, way: str) -> list[Row]:
    return [
        {
            "step": step,
            "label": f"global_step_{step}",
            "shared": 90,
            "either": 100,
            "jaccard": 0.2 + 0.8 * step / 400 - 0.04 * (seed % 2) * (step < 400),
            "positions": 9000,
        }
        for step in (25, 50, 75, 100, 200, 400)
    ]
