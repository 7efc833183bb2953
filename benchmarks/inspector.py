"""How soon is the inspector's page of long responses there? In a headless Chromium.

    python -m benchmarks.inspector [--rounds 5] [--tokens 8_000] [--json FILE]

The page has four responses, all measured, and is opened from disk; it is there when the last token
can be pointed at and its numbers are shown. The browser runs before anything is timed.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
from playwright.sync_api import sync_playwright

from benchmarks.result import Result, options, spread, spreads_table
from engine.core import Trajectory
from engine.store.schema import TOKENS
from evaluators.inspector.page import inspect_html
from evaluators.inspector.sample import Sample, Traced

AIM_SECONDS = 2.0
BUDGETS = (None, 64, 8, 1)
VOCABULARY_SIZE = 1_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    """Open the page, print the table."""
    parser = options(__doc__, rounds=5)
    parser.add_argument("--tokens", type=int, default=8_000, help="of each response")
    asked = parser.parse_args()
    found = measure(asked)
    found.publish([spreads_table(f"aim: {AIM_SECONDS:g} s", found.measured)], asked.json)


def measure(asked: argparse.Namespace) -> Result:
    """The rounds."""
    began = time.perf_counter()
    html = inspect_html(long_sample(asked.tokens), False)
    made = time.perf_counter() - began
    with TemporaryDirectory(prefix="xsample-") as folder:
        file = Path(folder, "page.html")
        file.write_text(html, encoding="utf-8")
        seconds = seconds_to_open(file, asked.rounds)
    found = Result("inspector", {"rounds": asked.rounds, "tokens": asked.tokens})
    found.measured = {
        "page is written, s": spread([made]),
        "page is there, s": spread(seconds),
        "page, MB": spread([len(html.encode()) / 1e6]),
    }
    return found


def seconds_to_open(file: Path, rounds: int) -> list[float]:
    """Seconds until the last token of the page shows its numbers, a round each.

    Raises:
        RuntimeError: There is no Chromium.
    """
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        raise RuntimeError(f"none of {', '.join(BROWSERS)} is installed")
    seconds = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        for _ in range(rounds):
            tab = browser.new_page()
            began = time.perf_counter()
            tab.goto(file.as_uri(), wait_until="load")
            tab.locator(f"#t{len(BUDGETS) - 1} .tokens .t").last.hover()
            tab.locator("#tip").wait_for(state="visible")
            seconds.append(time.perf_counter() - began)
            tab.close()
        browser.close()
    return seconds


def long_sample(num_tokens: int) -> Sample:
    """A sample of four measured responses of so many tokens; nothing of one is like another."""
    rng = np.random.default_rng(0)
    return Sample(
        run="r",
        problem="p",
        sample=0,
        manifest={},
        question="?",
        prompt="",
        answer="4",
        gated=False,
        trajectories=tuple(_long_trajectory(budget, num_tokens, rng) for budget in BUDGETS),
        texts={token: f" w{token}" for token in range(VOCABULARY_SIZE)},
    )


def _long_trajectory(budget: int | None, length: int, rng: np.random.Generator) -> Traced:
    key = Trajectory("p", 0, "forward", budget)
    columns: dict[str, Any] = {name: [None] * length for name in TOKENS.names}
    columns |= {name: [value] * length for name, value in key._asdict().items()}
    columns |= {"position": range(length), "token": rng.integers(0, VOCABULARY_SIZE, length)}
    columns |= {name: rng.random(length) < 0.1 for name in ("intervened", "effective")}
    for field in TOKENS:
        if pa.types.is_floating(field.type):
            scale = 0.69 if field.name == "js" else -5
            columns[field.name] = rng.random(length).astype(np.float32) * scale
        elif field.name.startswith(("rank", "nucleus", "top1", "primary")):
            columns[field.name] = rng.integers(1, VOCABULARY_SIZE, length)
    top_k = rng.integers(0, VOCABULARY_SIZE, (length, 10)).tolist()
    lists = [ids if position % 10 == 0 else None for position, ids in enumerate(top_k)]
    columns |= {"topk_base": lists, "topk_rl": lists}
    rows = pa.table([pa.array(columns[field.name], field.type) for field in TOKENS], TOKENS)
    response = {
        "tokens": length,
        "finish_reason": "stop",
        "interventions": int(np.sum(columns["intervened"])),
        "effective_interventions": int(np.sum(columns["effective"])),
    }
    return Traced(key, rows, response)


if __name__ == "__main__":
    main()
