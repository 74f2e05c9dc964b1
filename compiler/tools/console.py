"""What `sparsec build` shows on a terminal: the stages as they pass, and a table of what became of the layers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from .. import build

_MAX_ROWS = 40
_FILE_WIDTH = 160
"""Columns of the table where the output is no terminal."""


def build_on_console(model: Path, *, report: Path | None = None, quiet: bool = False, **options: Any) -> None:
    """Builds with progress on stderr and a table on stdout; `options` as for `sparsec.build`."""
    if quiet:
        build(model, report=report, **options)
        return
    with tempfile.TemporaryDirectory(prefix="sparsec-") as folder:
        path = report or Path(folder) / "report.json"
        _with_progress(model, report=path, **options)
        built = json.loads(path.read_text(encoding="utf-8"))
    show_report(built, _console())


def _console(stderr: bool = False) -> Console:
    # names hold brackets, which are no markup
    console = Console(stderr=stderr, markup=False, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, markup=False, highlight=False, width=_FILE_WIDTH)


def _with_progress(model: Path, **options: Any) -> None:
    from ..debug import level
    from ..pipeline import STAGES

    console = _console(stderr=True)
    # with SPARSEC_DEBUG the stages write lines of their own
    hidden = not console.is_terminal or level() > 0
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(24), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task("", total=len(STAGES))

        def on_stage(number: int, name: str) -> None:
            progress.update(task, completed=number, description=f"{name:<12} {STAGES[number].reason}")

        build(model, on_stage=on_stage, **options)


# --- the table --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One line of the table: a layer, or several that are shown as one."""

    layer: str
    shape: str
    kernel: str
    why: str
    macs: int


def layer_rows(layers: Sequence[Mapping[str, Any]], limit: int = _MAX_ROWS) -> list[Row]:
    """The manifest's layers in their order, neighbours made of TIR as one row; beyond `limit` only the heaviest."""
    groups: list[list[Mapping[str, Any]]] = []
    for layer in layers:
        if groups and layer["kernel"] == "tir" and groups[-1][0]["kernel"] == "tir":
            groups[-1].append(layer)
        else:
            groups.append([layer])
    rows = [_row(group) for group in groups]
    if len(rows) <= limit:
        return rows
    heaviest = sorted(range(len(rows)), key=lambda i: -rows[i].macs)[: limit - 1]
    kept = [rows[i] for i in sorted(heaviest)]
    rest = sum(row.macs for row in rows) - sum(row.macs for row in kept)
    return [*kept, Row(f"{len(rows) - len(kept)} lighter rows", "", "", "see sparsec inspect", rest)]


def _row(group: Sequence[Mapping[str, Any]]) -> Row:
    first, last = group[0], group[-1]
    layer = (last["nodes"] or [last["name"]])[-1]
    kernel = first["kernel"] if len(group) == 1 else f"{first['kernel']} x{len(group)}"
    why = "; ".join(dict.fromkeys(g["reason"] for g in group if g["reason"]))
    return Row(layer, f"[{', '.join(map(str, last['shape']))}]", kernel, why, sum(g["macs"] for g in group))


def show_report(report: Mapping[str, Any], console: Console) -> None:
    """A table of layers for each target, and a line on the file."""
    manifest = report["manifest"]
    members = [manifest, *manifest.get("fallbacks", ())]
    for member in members:
        _show_layers(member, console, titled=len(members) > 1)
    facts = [f"weights {_size(manifest['weights_bytes'])}", f"arena {_size(report['arena_bytes'])}",
             f"{sum(report['seconds'].values()):.1f} s"]  # fmt: skip
    if report["bytes"] is not None:
        facts.insert(0, _size(report["bytes"]))
    if len(members) > 1:
        sizes = [f"{row['name']} {_size(row['code_bytes'])}" for row in report["targets"] if row["code_bytes"]]
        if sizes:
            facts.insert(-1, f"code of {', '.join(sizes)}")
    if "buckets" in manifest:
        sizes = [" ".join(f"{n}<={size}" for n, size in row["dims"].items()) for row in manifest["buckets"]]
        console.print(f"programs for {', '.join(sizes)}; shown is the last", soft_wrap=True)
    console.print(f"{report['output']}: {', '.join(facts)}", soft_wrap=True)


def _show_layers(member: Mapping[str, Any], console: Console, titled: bool) -> None:
    buckets = member.get("buckets")
    rows = layer_rows(member["layers"][-buckets[-1]["layers"] :] if buckets else member["layers"])
    total = sum(row.macs for row in rows)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=member["target"]["name"] if titled else None)
    for name in ("layer", "shape", "kernel", "why"):
        table.add_column(name, no_wrap=True, overflow="ellipsis", min_width=6)
    for name in ("MMACs", "share"):
        table.add_column(name, no_wrap=True, justify="right", min_width=6)
    for row in rows:
        share = f"{100 * row.macs / total:.1f}%" if row.macs else ""
        table.add_row(row.layer, row.shape, row.kernel, row.why, f"{row.macs / 1e6:.3f}" if row.macs else "", share)
    console.print(table)


def _size(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.2f} kB"
