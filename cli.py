"""The command line: reads arguments, calls the library, prints. Only `build` and `verify` need the compiler."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import __version__
from .errors import InputError, SparsecError

if TYPE_CHECKING:
    import numpy as np

    from .runtime_stub.bench import BenchResult, LayerTime

_FILE = click.Path(path_type=Path)


class _Group(click.Group):
    """The one place where an exception becomes a line on stderr and exit status 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except SparsecError as error:
            text = str(error)
        except BrokenPipeError:
            raise  # the reader of a pipe has left, which click ends without a message
        except OSError as error:
            text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        except ModuleNotFoundError as error:
            if not error.name or error.name.partition(".")[0] == __package__:
                raise
            text = f"the package {error.name} is not installed; pip install 'sparsec[compiler]'"
        click.echo(f"error: {text}", err=True)
        ctx.exit(2)


# --- arguments --------------------------------------------------------------------------------------------------------

Bound = int | tuple[int, int]


def _bound(text: str) -> Bound:
    lower, dots, upper = text.partition("..")
    return (int(lower), int(upper)) if dots else int(lower)


class _Dim(click.ParamType):
    """A dimension's name with its size or its bounds; the last `=` separates, names may hold others."""

    name = "NAME=INT|LO..HI"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Bound]:
        """Reads `batch=1` or `batch=1..8`."""
        name, _, text = str(value).rpartition("=")
        try:
            bound = _bound(text)
        except ValueError:
            name = ""
        if not name:
            self.fail(f"{value!r} is not NAME=INT or NAME=LO..HI", param, ctx)
        return name, bound


class _Kernel(click.ParamType):
    """A layer's tensor with the kernel it takes; the last `=` separates."""

    name = "LAYER=KERNEL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Reads `encoder.out=dense`."""
        name, _, kernel = str(value).rpartition("=")
        if not name or not kernel:
            self.fail(f"{value!r} is not LAYER=KERNEL", param, ctx)
        return name, kernel


class _Size(click.ParamType):
    """A number of bytes, with a unit or without."""

    name = "BYTES|KB|MB|GB"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Reads `48MB`, `1.5 GB`, `900kB` or `48000000`; a unit is a power of 1000."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmg]?)b?", str(value).strip().lower())
        if found is None:
            self.fail(f"{value!r} is not a size such as 48MB", param, ctx)
        return int(float(found[1]) * {"": 1, "k": 1e3, "m": 1e6, "g": 1e9}[found[2]])


class _Shape(click.ParamType):
    """An input's name with its whole shape."""

    name = "INPUT=INT,INT,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """Reads `image=1,3,48,320`; an axis may be a range."""
        name, _, text = str(value).rpartition("=")
        try:
            shape = tuple(_bound(axis) for axis in text.split(",")) if text else ()
        except ValueError:
            name = ""
        if not name:
            self.fail(f"{value!r} is not INPUT=INT,INT,…", param, ctx)
        return name, shape


class _Fixed(click.ParamType):
    """An input's name with its value; the first `=` separates."""

    name = "INPUT=NUMBER|FILE.npy"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """Reads `rate=16000`, `training=false` or `table=table.npy`."""
        name, _, text = str(value).partition("=")
        if not name or not text:
            self.fail(f"{value!r} is not INPUT=NUMBER or INPUT=FILE.npy", param, ctx)
        if text.endswith(".npy"):
            return name, Path(text)
        try:
            return name, json.loads(text.lower())
        except ValueError:
            self.fail(f"{text!r} is no number and no .npy file", param, ctx)


class _Assignment(click.ParamType):
    """A tensor's name with a file; the first `=` separates."""

    name = "NAME=FILE.npy"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Path]:
        """Reads `image=photo.npy`."""
        name, _, file = str(value).partition("=")
        if not name or not file:
            self.fail(f"{value!r} is not NAME=FILE.npy", param, ctx)
        return name, Path(file)


# --- what several commands share --------------------------------------------------------------------------------------


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns two blanks apart."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)
    return "\n".join(lines)


def _shape(shape: Iterable[object]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _bytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.2f} kB"


def _read_arrays(path: Path) -> Any:
    """What `np.load` makes of the file."""
    import numpy as np

    try:
        return np.load(path)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} holds no numpy arrays: {error}") from None


def _read_array(path: Path) -> np.ndarray:
    import numpy as np

    array = _read_arrays(path)
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} is an archive of arrays, not a single .npy array")
    return array


def _read_archive(path: Path) -> dict[str, np.ndarray]:
    import numpy as np

    archive = _read_arrays(path)
    if isinstance(archive, np.ndarray):
        raise InputError(f"{path} is a single array; --inputs takes an .npz archive with one array per input")
    with archive:
        return dict(archive)


# --- commands ---------------------------------------------------------------------------------------------------------


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="sparsec")
def cli() -> None:
    """Compiles ONNX models, dense or sparse, ahead of time to native shared libraries, and runs them."""


@cli.command()
@click.argument("model", type=_FILE, metavar="MODEL.onnx")
@click.option("-o", "--output", type=_FILE, metavar="OUT", help="Where to write; default: the model's name, here.")
@click.option("--target", default="native", show_default=True, help="A row of `sparsec targets`, or native.")
@click.option("--triple", metavar="ARCH-linux-LIBC", help="Another C library than the target's: aarch64-linux-musl.")
@click.option("--dim", "dims", type=_Dim(), multiple=True, help="Fixes a dimension, or keeps it dynamic in bounds.")
@click.option("--shape", "shapes", type=_Shape(), multiple=True, help="An input's whole shape.")
@click.option("--emit", type=click.Choice(["so", "a", "o", "c"]), default="so", show_default=True,
              help="Shared library, static library, one object, or a folder of C sources.")  # fmt: skip
@click.option("--symbol-prefix", default="sparsec_", show_default=True, help="What exported names begin with.")
@click.option(
    "--kernel", "kernels", type=_Kernel(), multiple=True, help="The kernel of a layer, instead of the chosen."
)
@click.option("--optimize", type=click.Choice(["speed", "size"]), default="speed", show_default=True,
              help="size: the smallest kernels that are no slower than dense ones.")  # fmt: skip
@click.option("--max-size", type=_Size(), metavar="SIZE",
              help="Most weights and generated code, as 48MB: layers take smaller kernels until it fits.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(min=1), help="Parallel compiler processes; default: one per CPU.")
@click.option("--report", type=_FILE, metavar="FILE.json", help="Writes what was built, as JSON.")
@click.option("--dump-ir", type=_FILE, metavar="DIR", help="Writes the IR after every stage.")
@click.option("--fix", "fixed", type=_Fixed(), multiple=True, help="Makes a constant of an input that never changes.")
@click.option("--custom-ops", "custom_ops", type=_FILE, multiple=True, metavar="FILE.py",
              help="Python file with operators of the model's own.")  # fmt: skip
@click.option("--quiet", is_flag=True, help="Prints nothing unless the build fails.")
def build(
    model: Path,
    custom_ops: tuple[Path, ...],
    dims: tuple[tuple[str, Bound], ...],
    shapes: tuple[tuple[str, Any], ...],
    fixed: tuple[tuple[str, Any], ...],
    kernels: tuple[tuple[str, str], ...],
    report: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Compiles a model."""
    from .compiler.tools.console import build_on_console

    if custom_ops:
        from .compiler.frontend.custom import load_custom_ops

        for path in custom_ops:
            load_custom_ops(path)
    values = {name: _read_array(value) if isinstance(value, Path) else value for name, value in fixed}
    sizes = {"dims": dict(dims), "shapes": dict(shapes), "fixed": values, "kernels": dict(kernels)}
    build_on_console(model, report=report, quiet=quiet, **sizes, **options)


@cli.command()
@click.argument("model", type=_FILE, metavar="MODEL.onnx")
@click.option("--target", default="native", show_default=True, help="A row of `sparsec targets`, or native.")
@click.option("--dim", "dims", type=_Dim(), multiple=True, help="Fixes a dimension, or gives its bounds.")
@click.option("--shape", "shapes", type=_Shape(), multiple=True, help="An input's whole shape.")
@click.option("--impose-sparsity", type=float, metavar="SHARE", help="Predicts for the weights pruned so far.")
@click.option("--pattern", default="1x4", show_default=True, help="Of that pruning: unstructured, 1x4 or 2:4.")
def analyze(
    model: Path,
    target: str,
    dims: tuple[tuple[str, Bound], ...],
    shapes: tuple[tuple[str, Any], ...],
    impose_sparsity: float | None,
    pattern: str,
) -> None:
    """Shows the zeros in each linear layer and what they buy; nothing is built."""
    from .compiler.tools.analyze import analyze as run_analysis
    from .compiler.tools.analyze import total_gain

    rows = run_analysis(
        model, target=target, dims=dict(dims), shapes=dict(shapes), sparsity=impose_sparsity, pattern=pattern
    )
    header = ["layer", "type", "shape", "columns", "zeros", "1x4 zeros", "kernel", "gain"]
    table = [
        [r.tensor, r.dtype, f"{r.rows}x{r.depth}", str(r.columns), f"{r.sparsity:.0%}", f"{r.block_sparsity:.0%}",
         r.kernel, f"{r.gain:.2f}"] for r in rows
    ]  # fmt: skip
    if impose_sparsity is not None:
        header += ["pruned kernel", "pruned gain"]
        for cells, row in zip(table, rows, strict=True):
            cells += [row.imposed.kernel, f"{row.imposed.gain:.2f}"] if row.imposed else ["", ""]
    click.echo(_table(header, table))
    click.echo(f"all linear layers: predicted {total_gain(rows, False):.2f}x their dense kernels' speed", nl=False)
    pruned = f", {total_gain(rows, True):.2f}x after pruning" if impose_sparsity is not None else ""
    click.echo(pruned)


@cli.command()
@click.argument("model", type=_FILE, metavar="MODEL.onnx")
@click.option("-o", "--output", type=_FILE, metavar="OUT.onnx", required=True, help="Where to write.")
@click.option("--data", required=True, metavar="FILE.npz|DIR|python:MODULE:FUNCTION", help="Inputs to calibrate on.")
@click.option("--weights", type=_FILE, metavar="CHECKPOINT", help="Takes the weights from .safetensors files.")
@click.option("--sparsity", type=float, metavar="SHARE", help="Of zeros in the layers' weights, 0 to 1.")
@click.option("--pattern", help="unstructured (default), RxC (1x4, …) or N:M (2:4, …).")
@click.option("--quantize", type=click.Choice(["int8", "none"]), help="Default: int8.")
@click.option("--exclude", multiple=True, metavar="NAME", help="A layer that stays as it is; * matches anything.")
@click.option("--recipe", type=_FILE, metavar="FILE.yaml", help="All of this and more; other options override it.")
@click.option("--write-recipe", type=_FILE, metavar="FILE.yaml", help="Writes what was done, layer by layer.")
@click.option("--target", help="Puts the zeros where this row of `sparsec targets` gains most by them.")
@click.option("--speedup", type=float, metavar="TIMES", help="Least sparsity that is so much faster, measured here.")
@click.option("--max-drop", type=float, metavar="DROP", help="Highest sparsity that costs no more of the metric.")
@click.option("--metric", metavar="python:MODULE:FUNCTION", help="Takes run(inputs) -> outputs; higher is better.")
@click.option("--masks", type=_FILE, metavar="FILE", help="Writes the masks: .npz or .safetensors.")
@click.option("--report", type=_FILE, metavar="FILE.html", help="Writes a report.")
@click.option("--work", type=_FILE, metavar="DIR", help="Keeps what was done, so that a stopped run goes on.")
@click.option("--seed", type=int, help="Of every random choice; default: the recipe's, else 0.")
@click.option("--quiet", is_flag=True, help="Prints nothing unless it fails.")
def sparsify(model: Path, **options: Any) -> None:
    """Prunes and quantizes a dense model in one shot, without training."""
    from .sparsify.console import sparsify_on_console

    sparsify_on_console(model, **options)


@cli.command()
@click.argument("artifact", type=_FILE, metavar="MODEL.so")
@click.option("--input", "given", type=_Assignment(), multiple=True, help="An input; the others are random.")
@click.option("--output", type=_FILE, metavar="DIR", help="Writes every output there as NAME.npy.")
@click.option("--threads", type=click.IntRange(min=-1), default=1, show_default=True, help="-1: all CPUs.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random inputs.")
def run(artifact: Path, given: tuple[tuple[str, Path], ...], output: Path | None, threads: int, seed: int) -> None:
    """Runs an artifact once and prints what came out."""
    from .runtime_stub.inputs import random_inputs
    from .runtime_stub.loader import load

    arrays = {name: _read_array(path) for name, path in given}
    with load(artifact, threads=threads) as model:
        missing = [row for row in model.manifest["inputs"] if row["name"] not in arrays]
        dims = _sizes(model.manifest, arrays)
        results = model.run({**random_inputs({**model.manifest, "inputs": missing}, dims, seed), **arrays})
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        for file, array in zip(_file_names(results), results.values(), strict=True):
            _save(output / file, array)
    header = ("output", "dtype", "shape", "min", "mean", "max", "not finite")
    click.echo(_table(header, [_statistics(name, array) for name, array in results.items()]))


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
    return [name, str(array.dtype), _shape(array.shape), *numbers, str(values.size - finite.size)]


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


@cli.command()
@click.argument("model", type=_FILE, metavar="MODEL.onnx")
@click.argument("artifact", type=_FILE, metavar="MODEL.so")
@click.option("--inputs", type=_FILE, metavar="FILE.npz", help="One array per input; default: random ones.")
@click.option("--per-layer", is_flag=True, help="Gives every layer the reference's own inputs.")
@click.pass_context
def verify(ctx: click.Context, model: Path, artifact: Path, inputs: Path | None, per_layer: bool) -> None:
    """Compares an artifact with onnxruntime; the exit status is 1 when they differ by more than the tolerance."""
    from .compiler.tools.verify import verify as compare

    report = compare(model, artifact, inputs=_read_archive(inputs) if inputs else None, per_layer=per_layer)
    header = ("layer" if per_layer else "output", "max abs", "max rel", "max ULP", "")
    rows = [
        (name, f"{absolute:.3e}", f"{relative:.3e}", f"{ulp:.4g}", "ok" if ok else "WRONG")
        for name, absolute, relative, ulp, ok in report.table()
    ]
    click.echo(_table(header, rows))
    ctx.exit(0 if report.ok else 1)


@cli.command()
@click.argument("artifact", type=_FILE, metavar="MODEL.so")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--against", metavar="PEER", help="Takes turns with this runtime, e.g. onnxruntime; needs --model.")
@click.option("--model", type=_FILE, metavar="MODEL.onnx", help="What the peer runs.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=3.0, show_default=True,
              help="How long each side is measured.")  # fmt: skip
@click.option("--per-layer", is_flag=True, help="Shows where the time of a run goes.")
@click.option("--json", "as_json", is_flag=True, help="Prints JSON.")
def bench(
    artifact: Path,
    threads: int,
    against: str | None,
    model: Path | None,
    seconds: float,
    per_layer: bool,
    as_json: bool,
) -> None:
    """Times an artifact, on its own or against a peer in the same process."""
    from .runtime_stub.bench import bench as measure
    from .runtime_stub.bench import bench_layers

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
    click.echo(_table(("", "load ms", "first ms", "median ms", "p90 ms", "runs/s", "peak MB"), rows))
    if result.ratio is not None:
        click.echo(f"ratio {result.ratio:.2f} ({against} / sparsec, medians)")


def _show_layers(layers: list[LayerTime], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([asdict(layer) for layer in layers], indent=2))
        return
    rows = [(r.name, r.kernel, f"{r.ms:.4f}", f"{r.share:.1%}", f"{r.gmacs:.1f}") for r in layers]
    click.echo(_table(("layer", "kernel", "ms", "share", "GMAC/s"), rows))
    kernels: dict[str, list[LayerTime]] = {}
    for layer in layers:
        kernels.setdefault(layer.kernel, []).append(layer)
    sums = sorted(((sum(r.ms for r in group), name, group) for name, group in kernels.items()), reverse=True)
    totals = [
        (name, str(len(group)), f"{ms:.3f}", f"{sum(r.share for r in group):.1%}",
         f"{sum(r.gmacs * r.ms for r in group) / ms:.1f}") for ms, name, group in sums
    ]  # fmt: skip
    click.echo("\n" + _table(("kernel", "layers", "ms", "share", "GMAC/s"), totals))


def _timing(name: str, result: BenchResult) -> list[str]:
    times = [f"{v:.3f}" for v in (result.load_ms, result.first_ms, result.median_ms, result.p90_ms)]
    return [name, *times, f"{result.per_second:.1f}", f"{result.peak_rss_mb:.1f}"]


@cli.command()
@click.argument("artifact", type=_FILE, metavar="MODEL.so")
@click.option("--json", "as_json", is_flag=True, help="Prints the manifest as JSON.")
def inspect(artifact: Path, as_json: bool) -> None:
    """Shows what an artifact holds, without running any of its code."""
    from .runtime_stub.artifact import read_manifest

    manifest = read_manifest(artifact)
    if as_json:
        click.echo(json.dumps(manifest, indent=2))
        return
    target = manifest["target"]
    facts = [
        ("file", str(artifact)),
        ("size", _bytes(artifact.stat().st_size)),
        ("weights", _bytes(manifest["weights_bytes"])),
        ("arena", _bytes(manifest["arena_bytes"])),
        ("target", f"{target['name']} ({target['triple']}; needs {' '.join(target['features']) or 'nothing more'})"),
        ("model", f"sha256 {manifest['model_sha256']}"),
        ("options", json.dumps(manifest["options"])),
        ("made by", ", ".join(f"{k} {v}" for k, v in {"sparsec": manifest["sparsec"], **manifest["tools"]}.items())),
        ("ABI", str(manifest["abi"])),
    ]
    click.echo("\n".join(f"{name:<8} {value}" for name, value in facts))
    for kind in ("inputs", "outputs"):
        rows = [(row["name"], row["dtype"], _shape(row["shape"])) for row in manifest[kind]]
        click.echo("\n" + _table((kind, "dtype", "shape"), rows))
    if manifest["dims"]:
        rows = [(row["name"], str(row["lower"]), str(row["upper"])) for row in manifest["dims"]]
        click.echo("\n" + _table(("dimension", "from", "to"), rows))
    layers = [
        (", ".join(row["nodes"]) or row["name"], row["kernel"], _shape(row["shape"]), f"{row['macs'] / 1e6:.3f}",
         row["reason"]) for row in manifest["layers"]
    ]  # fmt: skip
    click.echo("\n" + _table(("layer", "kernel", "shape", "MMACs", "why"), layers))


@cli.command()
def targets() -> None:
    """Lists the targets, what they require, and whether this CPU has it."""
    from .compiler.target import TARGETS
    from .runtime_stub.cpu import host_features, host_machine

    machine, have = host_machine(), host_features()
    rows = []
    for row in TARGETS.values():
        missing = [feature for feature in row.requires if feature not in have]
        verdict = f"no, this is {machine}" if row.machine != machine else f"no, lacks {' '.join(missing)}"
        runs = row.machine == machine and not missing
        rows.append((row.name, "yes" if runs else verdict, row.summary, " ".join(row.requires) or "-"))
    click.echo(_table(("target", "this CPU", "for", "requires"), rows))


def main() -> None:
    """Entry point of the `sparsec` command."""
    cli(prog_name="sparsec")
