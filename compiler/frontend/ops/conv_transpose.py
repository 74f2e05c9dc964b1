"""Transposed convolution as an ordinary one: with stride s each output phase sees every s-th tap of the kernel.

For one axis, y[s·q + r] = Σ_j x[q - j] · w[s·j + r]: a convolution with ceil(K / s) taps that makes s phases as extra
channels, which are then interleaved. A kernel as large as its stride needs one tap: a matrix product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax

from ..context import constant, sizes
from ..diagnostics import CannotConvert
from ..registry import converter
from .conv import _SPATIAL, add_bias

if TYPE_CHECKING:
    from ..context import Context
    from ..graph import Node, Size


@converter("ConvTranspose")
def conv_transpose(context: Context, node: Node) -> Any:
    """ConvTranspose-22, `output_shape`, `auto_pad`, groups and dilations included, in one to three dimensions."""
    shape, weight_shape = context.shape(node.inputs[0]), context.shape(node.inputs[1])
    spatial = len(shape) - 2
    if spatial not in _SPATIAL:
        raise CannotConvert(f"transposed convolutions over {spatial} dimensions are not supported")
    strides = node.attrs.get("strides", [1] * spatial)
    dilations = node.attrs.get("dilations", [1] * spatial)
    groups = node.attrs.get("group", 1)
    reach = [(k - 1) * d + 1 for k, d in zip(weight_shape[2:], dilations, strict=True)]
    begins, out = _geometry(context, node, shape[2:], reach, strides)
    taps = [-(-k // s) for k, s in zip(reach, strides, strict=True)]
    kernel = _kernel(context, node.inputs[1], groups, strides, dilations, taps)
    first = [min(b // s, t - 1) for b, s, t in zip(begins, strides, taps, strict=True)]
    steps = [
        context.algebra.ceildiv(b + o, s) - f for b, o, s, f in zip(begins, out, strides, first, strict=True)
    ]  # positions the convolution must make, from `first` on
    left = [t - 1 - f for t, f in zip(taps, first, strict=True)]
    right = []
    for n, p, t, begin in zip(shape[2:], steps, taps, left, strict=True):
        needed = context.algebra.size(p + t - 1 - n - begin)
        needed = context.algebra.maximum(0, needed)
        if not isinstance(needed, int):
            raise CannotConvert("its output size is not a fixed multiple of the dynamic input size")
        right.append(needed)
    function = {1: relax.op.nn.conv1d, 2: relax.op.nn.conv2d, 3: relax.op.nn.conv3d}[spatial]
    y = context.emit(
        function(
            context.expr(node.inputs[0]),
            kernel,
            strides=[1] * spatial,
            padding=left + right,
            dilation=[1] * spatial,
            groups=groups,
            data_layout="NC" + _SPATIAL[spatial],
            kernel_layout="OI" + _SPATIAL[spatial],
        )
    )
    made = [context.algebra.size(n + b + e - t + 1) for n, b, e, t in zip(shape[2:], left, right, taps, strict=True)]
    y = _interleave(context, y, [shape[0], weight_shape[1] * groups], strides, made)
    cuts = [b - f * s for b, f, s in zip(begins, first, strides, strict=True)]
    full = [context.algebra.size(m * s) for m, s in zip(made, strides, strict=True)]
    if any(cuts) or not context.algebra.same(full, out):
        ends = [context.algebra.size(c + o) for c, o in zip(cuts, out, strict=True)]
        axes = list(range(2, 2 + spatial))
        y = context.emit(relax.op.strided_slice(y, axes, sizes(cuts), sizes(ends), assume_inbound=True))
    return add_bias(context, y, node.input(2), spatial)


def _geometry(
    context: Context, node: Node, extents: tuple[Size, ...], reach: list[int], strides: list[int]
) -> tuple[list[int], list[Size]]:
    """How much is cut at each begin, and the output's sizes."""
    spatial = len(reach)
    added = node.attrs.get("output_padding", [0] * spatial)
    auto = node.attrs.get("auto_pad", "NOTSET")
    given = node.attrs.get("output_shape")
    full = [
        context.algebra.size((n - 1) * s + k + a) for n, s, k, a in zip(extents, strides, reach, added, strict=True)
    ]
    if given is None and auto in ("NOTSET", "VALID"):
        pads = node.attrs.get("pads", [0] * (2 * spatial)) if auto == "NOTSET" else [0] * (2 * spatial)
        out = [context.algebra.size(f - pads[i] - pads[spatial + i]) for i, f in enumerate(full)]
        return list(pads[:spatial]), out
    wanted = list(given)[-spatial:] if given is not None else [n * s for n, s in zip(extents, strides, strict=True)]
    begins = []
    for size, goal in zip(full, wanted, strict=True):
        total = context.algebra.size(size - goal)
        if not isinstance(total, int):
            raise CannotConvert("output_shape of a dynamic input: bind the dimension")
        # ONNX splits as for Conv; more output than the full one is grown at the end
        total = max(total, 0)
        begins.append(total // 2 if auto == "SAME_UPPER" else total - total // 2)
    return begins, [context.algebra.size(w) for w in wanted]


def _kernel(context: Context, name: str, groups: int, strides: list[int], dilations: list[int], taps: list[int]) -> Any:
    """[in, out / g, k…] -> [g · out / g · s…, in / g, taps…], dilation written out as zeros."""
    value = context.value(name)
    shape = context.shape(name)
    if any(not isinstance(d, int) for d in shape):
        raise CannotConvert("a weight of dynamic size is not supported")
    spatial = len(strides)
    if value is None or context.abstract(value):
        return _kernel_at_run_time(context, name, groups, strides, dilations, taps)
    grid = np.zeros([*shape[:2], *[t * s for t, s in zip(taps, strides, strict=True)]], value.dtype)
    places = tuple(slice(0, (k - 1) * d + 1, d) for k, d in zip(shape[2:], dilations, strict=True))
    grid[(slice(None), slice(None)) + places] = value  # noqa: RUF005 - Python 3.10 takes no star here
    split = [groups, shape[0] // groups, shape[1]]
    for t, s in zip(taps, strides, strict=True):
        split += [t, s]
    grid = grid.reshape(split)
    grid = np.flip(grid, tuple(3 + 2 * i for i in range(spatial)))
    phases, steps = [4 + 2 * i for i in range(spatial)], [3 + 2 * i for i in range(spatial)]
    grid = grid.transpose([0, 2, *phases, 1, *steps])
    rows = groups * shape[1] * int(np.prod(strides))
    return constant(np.ascontiguousarray(grid).reshape([rows, shape[0] // groups, *taps]))


def _kernel_at_run_time(
    context: Context, name: str, groups: int, strides: list[int], dilations: list[int], taps: list[int]
) -> Any:
    """The same rearrangement by Relax operators, for a weight that is an input."""
    spatial, shape = len(strides), context.shape(name)
    x = context.expr(name)
    if any(d != 1 for d in dilations):
        spread = list(shape[:2])
        for k in shape[2:]:
            spread += [k, 1]
        x = context.emit(context.reshape(x, spread))
        widths = [0] * 4
        for d in dilations:
            widths += [0, 0, 0, d - 1]
        x = context.emit(relax.op.nn.pad(x, widths))
        x = context.emit(context.reshape(x, [*shape[:2], *[k * d for k, d in zip(shape[2:], dilations, strict=True)]]))
        reach = [(k - 1) * d + 1 for k, d in zip(shape[2:], dilations, strict=True)]
        x = context.emit(relax.op.strided_slice(x, list(range(2, 2 + spatial)), sizes([0] * spatial), sizes(reach)))
        shape = (*shape[:2], *reach)
    grow = [t * s - k for t, s, k in zip(taps, strides, shape[2:], strict=True)]
    if any(grow):
        x = context.emit(relax.op.nn.pad(x, [0] * 4 + [w for g in grow for w in (0, g)]))
    split: list[Size] = [groups, shape[0] // groups, shape[1]]
    for t, s in zip(taps, strides, strict=True):
        split += [t, s]
    x = context.emit(context.reshape(x, split))
    for i in range(spatial):
        if taps[i] > 1:
            x = context.emit(relax.op.flip(x, 3 + 2 * i))
    phases, steps = [4 + 2 * i for i in range(spatial)], [3 + 2 * i for i in range(spatial)]
    x = context.emit(relax.op.permute_dims(x, [0, 2, *phases, 1, *steps]))
    rows = groups * shape[1] * int(np.prod(strides))
    return context.emit(context.reshape(x, [rows, shape[0] // groups, *taps]))


def _interleave(context: Context, y: Any, head: list[Size], strides: list[int], made: list[Size]) -> Any:
    """[n, c · s…, q…] -> [n, c, q · s…]."""
    if all(s == 1 for s in strides):
        return y
    spatial = len(strides)
    y = context.emit(context.reshape(y, [*head, *strides, *made]))
    order = [0, 1]
    for i in range(spatial):
        order += [2 + spatial + i, 2 + i]
    y = context.emit(relax.op.permute_dims(y, order))
    full = [context.algebra.size(m * s) for m, s in zip(made, strides, strict=True)]
    return context.emit(context.reshape(y, [*head, *full]))
