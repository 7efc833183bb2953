"""`xsample doctor`: whether this machine is able to run; leaves nothing behind.

`installed.py` checks what is installed, `host.py` what the machine offers, `gpus.py` its GPUs. The
import of vLLM takes seconds, and all else is checked meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distributions
from typing import TYPE_CHECKING

from engine.models.pair_info import TINY_PAIR
from xsample.doctor import gpus, host, installed
from xsample.doctor.finding import Finding

if TYPE_CHECKING:
    from rich.table import Table


def diagnose(quick: bool = False) -> list[Finding]:
    """Find what `xsample doctor` shows, in its order; takes as long as importing vLLM does.

    Args:
        quick: Only what imports nothing and what a run in progress does not change. For the health
            check of a container, which asks while a run uses all memory and cores.
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
    with ThreadPoolExecutor(max_workers=1) as executor:
        vllm = executor.submit(installed.find_vllm_import)
        changing = [
            gpus.find_gpus(),
            gpus.find_links(),
            installed.find_driver(),
            gpus.find_model_runner(),
            host.find_cores(),
            host.find_memory(),
            host.find_shared_memory(),
            host.find_temporary_room(),
            host.find_locks(),
            gpus.find_compiler(),
        ]
        return [*steady, vllm.result(), *changing]


def render(findings: Sequence[Finding]) -> Table:
    """The findings as a rich table, with each advice below the value that it is for."""
    from rich.markup import escape
    from rich.table import Table

    marks = {True: "[green]ok[/]", False: "[red]no[/]", None: ""}
    table = Table(box=None, show_header=False)
    for finding in findings:
        advice = f"\n[yellow]{escape(finding.advice)}[/]" if finding.advice else ""
        table.add_row(marks[finding.ok], escape(finding.name), escape(finding.value) + advice)
    return table
