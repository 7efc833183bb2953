"""How many token rows a second do the driver and the store take? A whole run with the engines'
messages played back.

    python -m benchmarks.throughput [--rows 20_000_000] [--rounds 3] [--budgets unlimited 8] [--json
    FILE]

`engine.run.execute` itself: scheduler, pair, join, detokenising, recorder, and parts committed to a
folder. Only the two engines and Ray are not there: benchmarks/playback sends what workers would
have sent, made before anything is timed. There is no grader, which has processes of its own
(benchmarks/grading). The tokenizer is a byte-level one with 150,000 ids, as large models have.
Budget unlimited: every row has both policies' numbers. Budget 8: most rows come from one engine,
behind a paired prefix. Beside it stands pyarrow alone, which writes the same tables, ready in
memory, with its own defaults. Memory is that of the process, the messages included, by tenths of
the last run of each.
"""

from __future__ import annotations

import argparse
import cProfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from io import StringIO
from pathlib import Path
from pstats import Stats
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from benchmarks import result, synthetic
from benchmarks.memory import Watch
from benchmarks.playback import Lease, Playback
from benchmarks.result import Result, speed_up, spread, spreads_table
from benchmarks.synthetic_tokens import VOCABULARY_SIZE
from engine.lockstep.engine_pair import PairConfig
from engine.lockstep.lease_runner import LeaseRunner
from engine.run.execute import execute
from engine.run.hosting import Hosting, hosted_by
from engine.run.plan import Plan, prepare
from engine.run.scheduler import MAX_GROUPS
from engine.run.settings import load
from engine.store.run_store import RunStore
from engine.system.display import PlainDisplay
from evaluators.tasks.registry import load_task

AIM = 1_000_000  # rows a second
PROBLEMS, SAMPLES = 128, 4
RESPONSES = PROBLEMS * SAMPLES * 2  # of a lease, both directions
SLOTS = RESPONSES // MAX_GROUPS
TENTHS, LARGEST_PARTS, PROFILED_LEASES = 10, 15, 4


@dataclass
class Contender:
    """A budget, the player of its messages, and a lease's rows as they are committed."""

    budget: str
    player: Playback
    tokens: pa.Table
    responses: pa.Table


def main() -> None:
    """Make the messages, run the rounds, print the tables."""
    parser = result.options(__doc__, rounds=3)
    parser.add_argument(
        "--rows", type=int, default=20_000_000, help="token rows of a run, in whole leases"
    )
    parser.add_argument(
        "--budgets",
        nargs="+",
        default=["unlimited", "8"],
        help="a contender each; 0,1,2 is a sweep",
    )
    parser.add_argument("--folder", type=Path, help="where runs are written, and removed again")
    options = parser.parse_args()
    found = measure(options)
    found.publish(
        [spreads_table(f"aim: {AIM:,} rows/s", found.measured), *profiles(found)], options.json
    )


def measure(options: argparse.Namespace) -> Result:
    """The rounds, after a lease of every contender that does not count."""
    lease = Lease(RESPONSES)
    contenders = [contender(budget, lease, options.folder) for budget in options.budgets]
    found = defaultdict[str, list[float]](list)
    by_tenth: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for one in contenders:
            run, alone = (
                carry_out(one, options.rows, options.folder),
                write_alone(one, options.folder),
            )
            found[f"budget {one.budget}: rows/s"].append(run.rows / run.seconds)
            found[f"budget {one.budget}: us/row"].append(1e6 * run.seconds / run.rows)
            found[f"budget {one.budget}: CPU us/row"].append(1e6 * run.cpu_seconds / run.rows)
            found[f"budget {one.budget}: us/row of pyarrow alone"].append(
                1e6 * alone / one.tokens.num_rows
            )
            found[f"budget {one.budget}: peak resident memory, GB"].append(run.memory.peak / 1e9)
            by_tenth[one.budget] = [peak / 1e9 for peak in run.memory.peaks(TENTHS)]
    ratios = {
        f"pyarrow alone, budget {one.budget}": speed_up(
            found[f"budget {one.budget}: us/row"],
            found[f"budget {one.budget}: us/row of pyarrow alone"],
        )
        for one in contenders
    }
    return Result(
        "throughput",
        {"rows": options.rows, "rounds": options.rounds, "responses_of_a_lease": RESPONSES},
        {name: spread(values) for name, values in found.items()},
        ratios,
        {
            "aim_rows_s": AIM,
            "peak_gb_by_tenth_of_a_run": by_tenth,
            "own_cpu_seconds_a_million_rows": {
                one.budget: profile(one, options.folder) for one in contenders
            },
        },
    )


def contender(budget: str, lease: Lease, folder: Path | None) -> Contender:
    """A contender that has made its messages: one lease has gone through."""
    player = Playback(lease)
    with TemporaryDirectory(prefix="xsample-", dir=folder) as out:
        store = make(plan(budget, SAMPLES, Path(out)), player)
        return Contender(budget, player, store.tokens().to_table(), store.responses())


class Carried(NamedTuple):
    """A run: token rows, wall and CPU seconds, resident memory."""

    rows: int
    seconds: float
    cpu_seconds: float
    memory: Watch


def carry_out(one: Contender, rows: int, folder: Path | None) -> Carried:
    """A run of about so many rows, in whole leases, all of which must be there afterwards."""
    leases = max(1, round(rows / one.tokens.num_rows))
    with TemporaryDirectory(prefix="xsample-", dir=folder) as out:
        planned = plan(one.budget, SAMPLES * leases, Path(out))
        with Watch() as watch:
            began, cpu_began = time.perf_counter(), time.process_time()
            store = make(planned, one.player)
            seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
        made = store.tokens().count_rows()
        assert made == leases * one.tokens.num_rows, (
            f"{made} rows are there, not {leases * one.tokens.num_rows}"
        )
    return Carried(made, seconds, cpu_seconds, watch)


def write_alone(one: Contender, folder: Path | None) -> float:
    """Seconds to write the rows of a lease, ready in memory, as pyarrow does where nothing else is
    said.
    """
    with TemporaryDirectory(prefix="xsample-", dir=folder) as out:
        began = time.perf_counter()
        pq.write_table(one.tokens, f"{out}/tokens.parquet")
        pq.write_table(one.responses, f"{out}/responses.parquet")
        return time.perf_counter() - began


def make(planned: Plan, player: Playback) -> RunStore:
    """The run, as `xsample run` makes it."""

    def played_back(config: PairConfig) -> LeaseRunner:
        runner = LeaseRunner(config)
        runner.engines = cast(Any, player)
        return runner

    hosting = Hosting(played_back, lambda plan: nullcontext())
    with hosted_by(hosting), PlainDisplay(StringIO()) as display:
        return execute(planned, None, display)


def plan(budget: str, samples: int, out: Path) -> Plan:
    """As `xsample run` plans it: problems x samples x both directions, with a large vocabulary."""
    settings = {
        "budget": budget,
        "samples": samples,
        "limit": PROBLEMS,
        "max_num_seqs": SLOTS,
        "device": "cpu",
    }
    config = load(None, settings | {"direction": "both", "out": str(out)})
    planned = prepare(config, load_task(config))
    words = replace(planned.pair, tokenizer=tokenizer(), vocab_size=VOCABULARY_SIZE)
    return replace(planned, pair=words)


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """The words of the synthetic run, as a byte-level tokenizer has them."""
    words = {
        text.replace(" ", "\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}"): id_
        for id_, text in enumerate(synthetic.vocabulary())
    }
    made = Tokenizer(models.BPE(vocab=words, merges=[]))
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>")


def profile(one: Contender, folder: Path | None) -> dict[str, float]:
    """Both threads of the driver: a part's own CPU seconds a million rows, the largest parts
    first.
    """
    profiles = [cProfile.Profile(time.thread_time)]

    def begin(*_: Any) -> None:
        profiles.append(cProfile.Profile(time.thread_time))
        profiles[-1].enable()  # in the place of this function

    threading.setprofile(begin)
    try:
        with profiles[0]:
            run = carry_out(one, PROFILED_LEASES * one.tokens.num_rows, folder)
    finally:
        threading.setprofile(None)
    stats = Stats(*profiles).stats  # type: ignore[attr-defined]
    own = {f"{Path(file).name}:{name}": values[2] for (file, _, name), values in stats.items()}
    largest = sorted(own, key=lambda name: -own[name])[:LARGEST_PARTS]
    return {name: own[name] * 1e6 / run.rows for name in largest}


def profiles(found: Result) -> Iterator[Table]:
    """Where the time goes, for a reader."""
    for budget, parts in found.details["own_cpu_seconds_a_million_rows"].items():
        shown = Table(
            f"budget {budget}: part",
            "own CPU s a million rows",
            caption="both threads of the driver",
        )
        for name, seconds in parts.items():
            shown.add_row(name, f"{seconds:.3f}")
        yield shown


if __name__ == "__main__":
    main()
