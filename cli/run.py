"""Commands that run artifacts: run and bench."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import SparsecError
from .arguments import FILE, AssignmentType
from .text import read_array, shape_text, table

if TYPE_CHECKING:
    import numpy as np

    from ..runtime_stub.bench import BenchResult, LayerTime


@click.command()
@click.argument("artifact", type=FILE, metavar="MODEL.so")
@click.option("--input", "given", type=AssignmentType(), multiple=True, help="An input; the others are random.")
@click.option("--output", type=FILE, metavar="DIR", help="Writes every output there as NAME.npy.")
@click.option("--threads", type=click.IntRange(min=-1), default=1, show_default=True, help="-1: all CPUs.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random inputs.")
def run(artifact: Path, given: tuple[tuple[str, Path], ...], output: Path | None, threads: int, seed: int) -> None:
    """Runs an artifact once and prints what came out."""
    from ..runtime_stub.inputs import random_inputs
    from ..runtime_stub.loader import load

    arrays = {name: read_array(path) for name, path in given}
    with load(artifact, threads=threads) as model:
        missing = [row for row in model.manifest["inputs"] if row["name"] not in arrays]
        dims = _sizes(model.manifest, arrays)
        results = model.run({**random_inputs({**model.manifest, "inputs": missing}, dims, seed), **arrays})
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        for file, array in zip(_file_names(results), results.values(), strict=True):
            _save(output / file, array)
    header = ("output", "dtype", "shape", "min", "mean", "max", "not finite")
    click.echo(table(header, [_statistics(name, array) for name, array in results.items()]))


def _save(path: Path, array: np.ndarray) -> None:
    """By a rename: a file is whole, or as it was."""
    import numpy as np

    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            np.save(file, array)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise SparsecError(f"cannot write {path}: {error.strerror or error}") from None


def _sizes(manifest: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
    """The dynamic dimensions that the given arrays bind, so that the random inputs agree with them."""
    shapes = {row["name"]: row["shape"] for row in manifest["inputs"]}
    return {
        axis: size
        for name, array in arrays.items()
        for axis, size in zip(shapes.get(name, ()), array.shape, strict=False)
        if isinstance(axis, str)
    }


def _statistics(name: str, array: np.ndarray) -> list[str]:
    import numpy as np

    values = array.astype(np.float64, copy=False).ravel()
    finite = values[np.isfinite(values)]
    numbers = [f"{v:.6g}" for v in (finite.min(), finite.mean(), finite.max())] if finite.size else ["-"] * 3
    return [name, str(array.dtype), shape_text(array.shape), *numbers, str(values.size - finite.size)]


def _file_names(names: Iterable[str]) -> list[str]:
    """One file name per tensor name: without separators, and no two alike."""
    files: list[str] = []
    for name in names:
        stem = re.sub(r"[^\w.+-]", "_", name).lstrip(".") or "output"
        number, file = 1, f"{stem}.npy"
        while file in files:
            number += 1
            file = f"{stem}_{number}.npy"
        files.append(file)
    return files


@click.command()
@click.argument("artifact", type=FILE, metavar="MODEL.so")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--against", metavar="PEER", help="Takes turns with this runtime, e.g. onnxruntime; needs --model.")
@click.option("--model", type=FILE, metavar="MODEL.onnx", help="What the peer runs.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=3.0, show_default=True,
              help="How long each side is measured.")  # fmt: skip
@click.option("--per-layer", is_flag=True, help="Shows where the time of a run goes.")
@click.option("--cold-start", is_flag=True, help="Times loading and the first run, in processes of their own.")
@click.option("--json", "as_json", is_flag=True, help="Prints JSON.")
def bench(
    artifact: Path,
    threads: int,
    against: str | None,
    model: Path | None,
    seconds: float,
    per_layer: bool,
    cold_start: bool,
    as_json: bool,
) -> None:
    """Times an artifact, on its own or against a peer in the same process."""
    from ..runtime_stub.bench import bench as measure
    from ..runtime_stub.bench import bench_layers

    if cold_start:
        if against is not None or per_layer:
            raise SparsecError("--cold-start times the artifact alone: leave out --against and --per-layer")
        _show_cold_start(artifact, threads, as_json)
        return
    if per_layer:
        if against is not None:
            raise SparsecError("--per-layer times the artifact alone: leave out --against")
        _show_layers(bench_layers(artifact, threads=threads, seconds=seconds), as_json)
        return
    result = measure(artifact, threads=threads, against=against, model=model, seconds=seconds)
    if as_json:
        click.echo(json.dumps(asdict(result), indent=2))
        return
    rows = [_timing("sparsec", result)]
    if result.peer is not None:
        rows.append(_timing(str(against), result.peer))
    click.echo(table(("", "load ms", "first ms", "median ms", "p90 ms", "runs/s", "peak MB"), rows))
    if result.ratio is not None:
        click.echo(f"ratio {result.ratio:.2f} ({against} / sparsec, medians)")


def _show_cold_start(artifact: Path, threads: int, as_json: bool) -> None:
    from ..runtime_stub.cold_start import cold_start

    times = cold_start(artifact, threads)
    if as_json:
        click.echo(json.dumps(asdict(times), indent=2))
        return
    row = [f"{value:.2f}" for value in (times.open_ms, times.first_ms, times.total_ms)]
    click.echo(table(("open ms", "first run ms", "together ms"), [row]))
    click.echo(f"medians of {times.processes} fresh processes, the file in the page cache")


def _show_layers(layers: list[LayerTime], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([asdict(layer) for layer in layers], indent=2))
        return
    rows = [(r.name, r.kernel, f"{r.ms:.4f}", f"{r.share:.1%}", f"{r.gmacs:.1f}") for r in layers]
    click.echo(table(("layer", "kernel", "ms", "share", "GMAC/s"), rows))
    kernels: dict[str, list[LayerTime]] = {}
    for layer in layers:
        kernels.setdefault(layer.kernel, []).append(layer)
    sums = sorted(((sum(r.ms for r in group), name, group) for name, group in kernels.items()), reverse=True)
    totals = [
        (name, str(len(group)), f"{ms:.3f}", f"{sum(r.share for r in group):.1%}",
         f"{sum(r.gmacs * r.ms for r in group) / ms:.1f}") for ms, name, group in sums
    ]  # fmt: skip
    click.echo("\n" + table(("kernel", "layers", "ms", "share", "GMAC/s"), totals))


def _timing(name: str, result: BenchResult) -> list[str]:
    times = [f"{v:.3f}" for v in (result.load_ms, result.first_ms, result.median_ms, result.p90_ms)]
    return [name, *times, f"{result.per_second:.1f}", f"{result.peak_rss_mb:.1f}"]
