"""What `sparsec sparsify` shows on a terminal: progress, and a table of what became of the layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from .api import sparsify
from .oneshot import Outcome

_FILE_WIDTH = 160
"""Columns of the table where the output is no terminal."""


def sparsify_on_console(model: Path, *, quiet: bool = False, **options: Any) -> None:
    """Runs with progress on stderr and a table on stdout; `options` as for `sparsec.sparsify`."""
    if quiet:
        sparsify(model, **options)
        return
    console = _console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(24), MofNCompleteColumn(),
               TimeElapsedColumn())  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading")

        def on_progress(what: str, done: int, total: int) -> None:
            progress.update(task, description=what, completed=done, total=total)

        outcome = sparsify(model, on_progress=on_progress, **options)
    show(outcome, options.get("output"), _console())


def _console(stderr: bool = False) -> Console:
    # names hold brackets, which are no markup
    console = Console(stderr=stderr, markup=False, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, markup=False, highlight=False, width=_FILE_WIDTH)


def show(outcome: Outcome, output: Path | None, console: Console) -> None:
    """The table of layers, and a line on the whole."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("layer", "kind"):
        table.add_column(name, no_wrap=True, overflow="ellipsis", min_width=6)
    for name in ("shape", "zeros", "type", "error"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column("stays dense or float because", overflow="fold")
    for row in outcome.layers.values():
        reasons = [f"dense: {row.dense_reason}" if row.dense_reason else "",
                   f"float: {row.float_reason}" if row.float_reason else ""]  # fmt: skip
        table.add_row(
            row.name, row.kind, f"{row.rows}x{row.depth}", f"{row.sparsity:.0%}",
            "int8" if row.quantized else "float32",
            f"{row.error + row.quantization_error:.2%}", "; ".join(filter(None, reasons)),
        )  # fmt: skip
    console.print(table)
    if outcome.metrics is not None:
        console.print(f"metric {outcome.metrics[1]:.4f}, of the dense model {outcome.metrics[0]:.4f}")
    where = f"{output}: " if output is not None else ""
    console.print(f"{where}{outcome.sparsity:.1%} of the layers' weights are zero; outputs differ by "
                  f"{outcome.output_error:.2%} of their energy on the calibration data", soft_wrap=True)  # fmt: skip
