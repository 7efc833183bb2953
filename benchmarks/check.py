"""Has anything become slower? The ratios of results against the recorded ones.

    python -m benchmarks.check RESULT.json ... [--record]

A ratio is a speed-up over somebody else in the same run, so that it depends less on the machine
than seconds do. One that is more than 15 % below the recorded one is a fault: it is named and the
exit code is 1. A ratio that was never recorded, or with other settings, is said and is no fault;
nor is one that a contender which cannot run here leaves out. --record writes the results' medians
into benchmarks/recorded.json instead. Exit code 2: a file that cannot be used.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

RECORDED = Path(__file__).with_name("recorded.json")
TOLERANCE = 0.15

_OF_THE_CALL = ("rounds", "json", "folder")  # settings that change no ratio
# benchmark -> ratio -> {"recorded": its median, "machine": where, "settings": how}
Records = dict[str, dict[str, dict[str, Any]]]


class UnusableFileError(Exception):
    """A file is not there, or is not what a benchmark writes."""


class Compared(NamedTuple):
    """A ratio as it is now, None if left out, and as it was recorded with these settings, None if
    it never was.
    """

    benchmark: str
    ratio: str
    now: float | None
    recorded: float | None

    @property
    def is_slower(self) -> bool:
        if self.now is None or self.recorded is None:
            return False
        return self.now < (1 - TOLERANCE) * self.recorded


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare or record. The exit code."""
    options = _options(arguments)
    try:
        results, records = [_read(file) for file in options.results], _read(options.recorded)
        if options.record:
            _write(options.recorded, recorded(results, records))
            return 0
        compared = [each for result in results for each in compare(result, records)]
    except (UnusableFileError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    Console(width=100).print(table(compared))
    slower = [f"{each.benchmark} {each.ratio}" for each in compared if each.is_slower]
    if slower:
        print(f"more than {TOLERANCE:.0%} below the recorded: {', '.join(slower)}", file=sys.stderr)
    return 1 if slower else 0


def compare(result: dict[str, Any], records: Records) -> Iterator[Compared]:
    """Every ratio of a result. Raises UnusableFileError where it is no result."""
    benchmark, medians = _benchmark(result), _medians(result)
    for ratio in dict.fromkeys((*medians, *_recorded_ratios(records, benchmark))):
        record = _record(records, benchmark, ratio, _settings(result))
        if ratio in medians or record is not None:
            yield Compared(benchmark, ratio, medians.get(ratio), record)


def recorded(results: Sequence[dict[str, Any]], records: Records) -> Records:
    """The records with the medians of these results in them."""
    records = dict(records)
    for result in results:
        about = {"machine": result.get("machine"), "settings": _settings(result)}
        new = {name: about | {"recorded": now} for name, now in _medians(result).items()}
        records[_benchmark(result)] = records.get(_benchmark(result), {}) | new
    return records


def table(compared: Sequence[Compared]) -> Table:
    """The comparison for a reader."""
    shown = Table("benchmark", "ratio", "now", "recorded", "now / recorded", "")
    for each in compared:
        if each.recorded is None or each.now is None:
            numbers = (
                "-" if number is None else f"{number:.3f}" for number in (each.now, each.recorded)
            )
            shown.add_row(
                each.benchmark,
                each.ratio,
                *numbers,
                "-",
                "left out" if each.recorded else "not recorded",
            )
        else:
            share = f"{each.now / each.recorded:.3f}"
            verdict = "slower" if each.is_slower else "ok"
            shown.add_row(
                each.benchmark,
                each.ratio,
                f"{each.now:.3f}",
                f"{each.recorded:.3f}",
                share,
                verdict,
            )
    return shown


def _benchmark(result: dict[str, Any]) -> str:
    return str(result.get("benchmark"))


def _medians(result: dict[str, Any]) -> dict[str, float]:
    try:
        return {str(name): _positive(spread["median"]) for name, spread in result["ratios"].items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise UnusableFileError(
            f"{_benchmark(result)}: this is no result of a benchmark, its ratios are bad"
        ) from error


def _settings(result: dict[str, Any]) -> dict[str, Any]:
    """Those that a ratio depends on, as JSON has them."""
    settings = result.get("settings")
    return (
        {name: value for name, value in settings.items() if name not in _OF_THE_CALL}
        if settings
        else {}
    )


def _recorded_ratios(records: Records, benchmark: str) -> list[str]:
    found = records.get(benchmark, {})
    if not isinstance(found, dict):
        raise UnusableFileError(
            f"the records of {benchmark} cannot be read: they are no JSON object"
        )
    return list(found)


def _record(records: Records, benchmark: str, ratio: str, settings: dict[str, Any]) -> float | None:
    try:
        record = records.get(benchmark, {}).get(ratio)
        if record is None:
            return None
        found = _positive(record["recorded"])
        return found if record.get("settings", settings) == settings else None
    except (AttributeError, KeyError, TypeError) as error:
        raise UnusableFileError(
            f"the records of {benchmark} cannot be read: {ratio} has none that is a number"
        ) from error


def _positive(number: object) -> float:
    if not isinstance(number, (int, float)) or not 0 < number < float("inf"):
        raise UnusableFileError(f"a ratio is {number!r:.60}, not a number above 0")
    return float(number)


def _read(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnusableFileError(f"{file} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise UnusableFileError(f"{file} cannot be read: it holds no JSON object")
    return value


def _write(file: Path, records: Records) -> None:
    file.write_text(json.dumps(records, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULT.json")
    parser.add_argument(
        "--record", action="store_true", help="write the medians into the recorded ones"
    )
    parser.add_argument("--recorded", type=Path, default=RECORDED, metavar="FILE")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
