"""`xsample doctor`: is this machine able to run? Looks, and leaves nothing behind.

What is installed is judged in `installed.py`, what the machine offers in `host.py`. The import of
vLLM takes seconds; everything else is looked at while it goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distributions
from typing import TYPE_CHECKING

from engine.models.pair_info import TINY_PAIR
from xsample.doctor import host, installed
from xsample.doctor.finding import Finding

if TYPE_CHECKING:
    from rich.table import Table


def diagnose(quick: bool = False) -> list[Finding]:
    """Everything that `xsample doctor` shows, in its order. Takes as long as importing vLLM does.

    quick: only what takes no import and what a run in progress does not change: the health check of
    a container asks beside the run, which may have all memory and wants all cores.
    """
    steady = [
        *installed.find_versions(),
        installed.find_companions(distributions()),
        installed.find_name_clashes(distributions()),
        installed.find_kernel_library(),
        installed.find_pair(TINY_PAIR),
        host.find_temporary_folder(),
        host.find_loopback(),
        host.find_open_files(),
    ]
    if quick:
        return steady
    with ThreadPoolExecutor(max_workers=1) as beside:
        vllm = beside.submit(installed.find_vllm_import)
        changing = [
            host.find_gpus(),
            installed.find_driver(),
            host.find_cores(),
            host.find_memory(),
            host.find_shared_memory(),
            host.find_temporary_room(),
            host.find_locks(),
            host.find_compiler(),
        ]
        return [*steady, vllm.result(), *changing]


def render(findings: Sequence[Finding]) -> Table:
    """The findings as a rich table; the advice below the value that it is for."""
    from rich.markup import escape
    from rich.table import Table

    marks = {True: "[green]ok[/]", False: "[red]no[/]", None: ""}
    table = Table(box=None, show_header=False)
    for finding in findings:
        advice = f"\n[yellow]{escape(finding.advice)}[/]" if finding.advice else ""
        table.add_row(marks[finding.ok], escape(finding.name), escape(finding.value) + advice)
    return table
