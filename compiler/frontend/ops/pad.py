"""Padding in all four modes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm import relax, te, tirx

from ..context import scalar, sizes
from ..diagnostics import CannotConvert
from ..registry import converter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..context import Context
    from ..graph import Node, Size


@converter("Pad")
def pad(context: Context, node: Node) -> Any:
    """Pad-25: constant, reflect, edge, wrap; negative pads cut. The amounts must be known at build time."""
    shape = context.shape(node.inputs[0])
    before, after = _amounts(context, node, len(shape))
    mode = context.attrs(node)["mode"]
    x = _cut(context, context.expr(node.inputs[0]), shape, before, after)
    shape = tuple(
        context.algebra.size(d + _negative(b) + _negative(a)) for d, b, a in zip(shape, before, after, strict=True)
    )
    before, after = ([0 if isinstance(p, int) and p < 0 else p for p in side] for side in (before, after))
    if all(isinstance(p, int) and p == 0 for p in before + after):
        return x
    if mode == "constant":
        return _constant(context, node, x, shape, before, after)
    out = [context.algebra.size(d + b + a) for d, b, a in zip(shape, before, after, strict=True)]

    def source(index: Any, extent: Any, begin: Any) -> Any:
        at = index - begin
        if mode == "edge":
            return tirx.max(tirx.min(at, extent - 1), tirx.const(0, "int64"))
        if mode == "wrap":
            return tirx.floormod(at, extent)
        period = 2 * extent - 2  # reflect: 0 1 … n-1 n-2 … 1
        turned = tirx.floormod(at, tirx.max(period, tirx.const(1, "int64")))
        return tirx.min(turned, period - turned)

    def body(data: Any, *_: Any) -> Any:
        def element(*index: Any) -> Any:
            at = [
                i if isinstance(b, int) and b == 0 and isinstance(a, int) and a == 0 else source(i, d, b)
                for i, d, b, a in zip(index, sizes(shape), sizes(before), sizes(after), strict=True)
            ]
            return data(*at)

        return te.compute(sizes(out), element, name="pad")

    return context.builder.emit_te(body, x, *[d for d in (*shape, *before, *after) if not isinstance(d, int)])


def _amounts(context: Context, node: Node, rank: int) -> tuple[list[Size], list[Size]]:
    pads = context.ints(node.inputs[1], "pads")
    axes = [int(a) % rank for a in context.ints(node.inputs[3], "axes")] if node.input(3) else list(range(rank))
    before: list[Size] = [0] * rank
    after: list[Size] = [0] * rank
    for i, axis in enumerate(axes):
        before[axis], after[axis] = pads[i], pads[len(axes) + i]
    return before, after


def _negative(amount: Size) -> int:
    return min(0, amount) if isinstance(amount, int) else 0


def _cut(context: Context, x: Any, shape: Any, before: list[Size], after: list[Size]) -> Any:
    axes = [i for i, (b, a) in enumerate(zip(before, after, strict=True)) if _negative(b) or _negative(a)]
    if not axes:
        return x
    begin = [-_negative(before[i]) for i in axes]
    end = [context.algebra.size(shape[i] + _negative(after[i])) for i in axes]
    return context.emit(relax.op.strided_slice(x, axes, sizes(begin), sizes(end), assume_inbound=True))


def _constant(
    context: Context, node: Node, x: Any, shape: tuple[Size, ...], before: list[Size], after: list[Size]
) -> Any:
    fill = context.value(node.inputs[2]) if node.input(2) else None
    if node.input(2) and fill is None:
        raise CannotConvert("the padding value must be known at build time")
    value = fill.reshape(-1)[0].item() if fill is not None else 0
    return pad_with(context, x, context.dtype(node.inputs[0]), shape, before, after, value)


def pad_with(
    context: Context, x: Any, dtype: str, shape: Sequence[Size], before: list[Size], after: list[Size], value: Any
) -> Any:
    """Pad with a constant; the amounts may be symbolic, and are not negative."""
    if dtype.startswith("float") and all(isinstance(p, int) for p in before + after):
        widths = [int(w) for pair in zip(before, after, strict=True) for w in pair]
        return relax.op.nn.pad(x, widths, "constant", float(value))
    out = [context.algebra.size(d + b + a) for d, b, a in zip(shape, before, after, strict=True)]

    def body(data: Any, *_: Any) -> Any:
        def element(*index: Any) -> Any:
            at = [i - b for i, b in zip(index, sizes(before), strict=True)]
            inside = tirx.const(True, "bool")
            for i, d in zip(at, sizes(shape), strict=True):
                inside = tirx.And(inside, tirx.And(i >= 0, i < d))
            return tirx.if_then_else(inside, data(*at), tirx.const(value, dtype))

        return te.compute(sizes(out), element, name="pad")

    if dtype == "bool":
        x = context.emit(relax.op.astype(x, "uint8"))
        dtype, value = "uint8", int(value)
        padded = context.builder.emit_te(body, x, *[d for d in (*shape, *before, *after) if not isinstance(d, int)])
        return relax.op.not_equal(padded, scalar(0, "uint8"))
    return context.builder.emit_te(body, x, *[d for d in (*shape, *before, *after) if not isinstance(d, int)])
