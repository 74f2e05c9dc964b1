"""Commands that need the compiler: build, analyze, sparsify, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .arguments import FILE, Bound, DimType, FixedType, KernelType, ShapeType, SizeType, TurnsType
from .text import read_archive, read_array, table


@click.command()
@click.argument("model", type=FILE, metavar="MODEL.onnx")
@click.option("-o", "--output", type=FILE, metavar="OUT", help="Where to write; default: the model's name, here.")
@click.option("--target", default="native", show_default=True, metavar="TARGET[,TARGET…]",
              help="Rows of `sparsec targets`, or native; of several the CPU gets the best it can run.")  # fmt: skip
@click.option("--triple", metavar="ARCH-SYSTEM",
              help="Another C library or system than the target's: aarch64-linux-musl, aarch64-macos.")  # fmt: skip
@click.option(
    "--dim", "dims", type=DimType(), multiple=True, help="A dimension's size, bounds, or sizes to have programs for."
)
@click.option("--shape", "shapes", type=ShapeType(), multiple=True, help="An input's whole shape.")
@click.option("--emit", type=click.Choice(["so", "a", "o", "c"]), default="so", show_default=True,
              help="Shared library, static library, one object, or a folder of C sources.")  # fmt: skip
@click.option("--symbol-prefix", default="sparsec_", show_default=True, help="What exported names begin with.")
@click.option(
    "--kernel", "kernels", type=KernelType(), multiple=True, help="The kernel of a layer, instead of the chosen."
)
@click.option("--optimize", type=click.Choice(["speed", "size"]), default="speed", show_default=True,
              help="size: the smallest kernels that are no slower than dense ones.")  # fmt: skip
@click.option("--max-size", type=SizeType(), metavar="SIZE",
              help="Most weights and generated code, as 48MB: layers take smaller kernels until it fits.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(min=1), help="Parallel compiler processes; default: one per CPU.")
@click.option("--report", type=FILE, metavar="FILE.json", help="Writes what was built, as JSON.")
@click.option("--dump-ir", type=FILE, metavar="DIR", help="Writes the IR after every stage.")
@click.option("--turns", type=TurnsType(), multiple=True, help="The most turns of a Loop that only a run can count.")
@click.option(
    "--fix", "fixed", type=FixedType(), multiple=True, help="Makes a constant of an input that never changes."
)
@click.option("--custom-ops", "custom_ops", type=FILE, multiple=True, metavar="FILE.py",
              help="Python file with operators of the model's own.")  # fmt: skip
@click.option("--quiet", is_flag=True, help="Prints nothing unless the build fails.")
def build(
    model: Path,
    custom_ops: tuple[Path, ...],
    dims: tuple[tuple[str, Bound], ...],
    shapes: tuple[tuple[str, Any], ...],
    fixed: tuple[tuple[str, Any], ...],
    turns: tuple[tuple[str, int], ...],
    kernels: tuple[tuple[str, str], ...],
    report: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Compiles a model."""
    from ..compiler.tools.console import build_on_console

    if custom_ops:
        from ..compiler.frontend.custom import load_custom_ops

        for path in custom_ops:
            load_custom_ops(path)
    values = {name: read_array(value) if isinstance(value, Path) else value for name, value in fixed}
    sizes = {
        "dims": dict(dims),
        "shapes": dict(shapes),
        "fixed": values,
        "turns": dict(turns),
        "kernels": dict(kernels),
    }
    build_on_console(model, report=report, quiet=quiet, **sizes, **options)


@click.command()
@click.argument("model", type=FILE, metavar="MODEL.onnx")
@click.option("--target", default="native", show_default=True, help="A row of `sparsec targets`, or native.")
@click.option("--dim", "dims", type=DimType(), multiple=True, help="Fixes a dimension, or gives its bounds.")
@click.option("--shape", "shapes", type=ShapeType(), multiple=True, help="An input's whole shape.")
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
    from ..compiler.tools.analyze import analyze as run_analysis
    from ..compiler.tools.analyze import total_gain

    rows = run_analysis(
        model, target=target, dims=dict(dims), shapes=dict(shapes), sparsity=impose_sparsity, pattern=pattern
    )
    header = ["layer", "type", "shape", "columns", "zeros", "1x4 zeros", "kernel", "gain"]
    cells = [
        [r.tensor, r.dtype, f"{r.rows}x{r.depth}", str(r.columns), f"{r.sparsity:.0%}", f"{r.block_sparsity:.0%}",
         r.kernel, f"{r.gain:.2f}"] for r in rows
    ]  # fmt: skip
    if impose_sparsity is not None:
        header += ["pruned kernel", "pruned gain"]
        for line, row in zip(cells, rows, strict=True):
            line += [row.imposed.kernel, f"{row.imposed.gain:.2f}"] if row.imposed else ["", ""]
    click.echo(table(header, cells))
    click.echo(f"all linear layers: predicted {total_gain(rows, False):.2f}x their dense kernels' speed", nl=False)
    pruned = f", {total_gain(rows, True):.2f}x after pruning" if impose_sparsity is not None else ""
    click.echo(pruned)


@click.command()
@click.argument("model", type=FILE, metavar="MODEL.onnx")
@click.option("-o", "--output", type=FILE, metavar="OUT.onnx", required=True, help="Where to write.")
@click.option("--data", required=True, metavar="FILE.npz|DIR|python:MODULE:FUNCTION", help="Inputs to calibrate on.")
@click.option("--weights", type=FILE, metavar="CHECKPOINT", help="Takes the weights from .safetensors files.")
@click.option("--sparsity", type=float, metavar="SHARE", help="Of zeros in the layers' weights, 0 to 1.")
@click.option("--pattern", help="unstructured (default), RxC (1x4, …) or N:M (2:4, …).")
@click.option("--quantize", type=click.Choice(["int8", "none"]), help="Default: int8.")
@click.option("--exclude", multiple=True, metavar="NAME", help="A layer that stays as it is; * matches anything.")
@click.option("--recipe", type=FILE, metavar="FILE.yaml", help="All of this and more; other options override it.")
@click.option("--write-recipe", type=FILE, metavar="FILE.yaml", help="Writes what was done, layer by layer.")
@click.option("--target", help="Puts the zeros where this row of `sparsec targets` gains most by them.")
@click.option("--speedup", type=float, metavar="TIMES", help="Least sparsity that is so much faster, measured here.")
@click.option("--max-drop", type=float, metavar="DROP", help="Highest sparsity that costs no more of the metric.")
@click.option("--metric", metavar="python:MODULE:FUNCTION", help="Takes run(inputs) -> outputs; higher is better.")
@click.option("--masks", type=FILE, metavar="FILE", help="Writes the masks: .npz or .safetensors.")
@click.option("--report", type=FILE, metavar="FILE.html", help="Writes a report.")
@click.option("--work", type=FILE, metavar="DIR", help="Keeps what was done, so that a stopped run goes on.")
@click.option("--seed", type=int, help="Of every random choice; default: the recipe's, else 0.")
@click.option("--quiet", is_flag=True, help="Prints nothing unless it fails.")
def sparsify(model: Path, **options: Any) -> None:
    """Prunes and quantizes a dense model in one shot, without training."""
    from ..sparsify.console import sparsify_on_console

    sparsify_on_console(model, **options)


@click.command()
@click.argument("model", type=FILE, metavar="MODEL.onnx")
@click.argument("artifact", type=FILE, metavar="MODEL.so")
@click.option("--inputs", type=FILE, metavar="FILE.npz", help="One array per input; default: random ones.")
@click.option("--per-layer", is_flag=True, help="Gives every layer the reference's own inputs.")
@click.pass_context
def verify(ctx: click.Context, model: Path, artifact: Path, inputs: Path | None, per_layer: bool) -> None:
    """Compares an artifact with onnxruntime; the exit status is 1 when they differ by more than the tolerance."""
    from ..compiler.tools.verify import verify as compare

    report = compare(model, artifact, inputs=read_archive(inputs) if inputs else None, per_layer=per_layer)
    header = ("layer" if per_layer else "output", "max abs", "max rel", "max ULP", "")
    rows = [
        (name, f"{absolute:.3e}", f"{relative:.3e}", f"{ulp:.4g}", "ok" if ok else "WRONG")
        for name, absolute, relative, ulp, ok in report.table()
    ]
    click.echo(table(header, rows))
    ctx.exit(0 if report.ok else 1)
