"""Fourier transforms as products with a constant matrix: their length is known at build time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax, te

from ..context import constant, sizes
from ..diagnostics import CannotConvert
from ..registry import converter

if TYPE_CHECKING:
    from ..context import Context
    from ..graph import Node, Size

_LONGEST = 4096
"""A matrix takes the square of the length."""


@converter("DFT")
def dft(context: Context, node: Node) -> Any:
    """DFT-20, real and complex, inverse, one-sided both ways."""
    attrs, shape = context.attrs(node), list(context.shape(node.inputs[0]))
    axis = int(context.number(node.inputs[2], "axis")) if node.input(2) else -2
    axis %= len(shape)
    if axis == len(shape) - 1:
        raise CannotConvert("its axis is the one of real and imaginary parts")
    given, parts = _static(shape[axis], "transformed axis"), _static(shape[-1], "number of parts")
    inverse, one_sided = bool(attrs["inverse"]), bool(attrs["onesided"])
    length = 2 * (given - 1) if inverse and one_sided else given
    if node.input(1):
        length = int(context.number(node.inputs[1], "length"))
    matrix = _matrix(given, parts, length, inverse, one_sided)
    columns, results = _columns(length, inverse, one_sided)
    x = context.expr(node.inputs[0])
    order = [*(i for i in range(len(shape)) if i not in (axis, len(shape) - 1)), axis, len(shape) - 1]
    rest = [shape[i] for i in order[:-2]]
    x = context.emit(relax.op.permute_dims(x, order))
    x = context.emit(context.reshape(x, [context.algebra.product(rest), given * parts]))
    y = context.emit(relax.op.matmul(x, constant(matrix.astype(context.dtype(node.inputs[0])))))
    y = context.emit(context.reshape(y, [*rest, columns, results]))
    return relax.op.permute_dims(y, [order.index(i) for i in range(len(shape))])


@converter("STFT")
def stft(context: Context, node: Node) -> Any:
    """STFT-17 of a signal of any length: window and transform in one product of the frames."""
    attrs, shape = context.attrs(node), list(context.shape(node.inputs[0]))
    extent = shape[1]
    parts = _static(shape[2], "number of parts") if len(shape) > 2 else 1
    step = int(context.number(node.inputs[1], "frame step"))
    if node.input(3):
        length = int(context.number(node.inputs[3], "frame length"))
    elif node.input(2):
        length = _static(context.shape(node.inputs[2])[0], "window's length")
    else:
        raise CannotConvert("neither window nor frame length are given")
    one_sided = bool(attrs["onesided"])
    matrix = _matrix(length, parts, length, False, one_sided)
    window = context.value(node.input(2)) if node.input(2) else None
    if node.input(2) and not context.algebra.same(context.shape(node.inputs[2]), (length,)):
        raise CannotConvert("a window of another length than the frames is not supported")
    if window is not None:
        matrix = matrix * np.repeat(window.astype(np.float64), parts)[:, None]
    if context.algebra.decide(extent >= length) is not True:
        raise CannotConvert(f"the signal may be shorter than a frame of {length}: raise the dimension's lower bound")
    frames = context.algebra.size(context.algebra.div(extent - length, step) + 1)
    columns, results = _columns(length, False, one_sided)
    x = context.emit(context.reshape(context.expr(node.inputs[0]), [shape[0], extent, parts]))
    x = context.builder.emit_te(lambda signal: _frames(signal, frames, length, step), x)
    rows = context.algebra.size(shape[0] * frames)
    if node.input(2) and window is None:
        x = context.emit(context.reshape(x, [rows, length, parts]))
        factors = context.emit(context.reshape(context.expr(node.inputs[2]), [length, 1]))
        x = context.emit(relax.op.multiply(x, factors))
    x = context.emit(context.reshape(x, [rows, length * parts]))
    y = context.emit(relax.op.matmul(x, constant(matrix.astype(context.dtype(node.inputs[0])))))
    return context.reshape(y, [shape[0], frames, columns, results])


def _frames(signal: Any, count: Size, length: int, step: int) -> Any:
    """[batch, samples, parts] -> [batch, count, length, parts]."""
    batch, _, parts = signal.shape
    shape = [batch, *sizes([count, length]), parts]
    return te.compute(shape, lambda b, f, i, p: signal[b, f * step + i, p], name="frames")


def _static(size: Size, what: str) -> int:
    if not isinstance(size, int):
        raise CannotConvert(f"the {what} must be known at build time: bind the dimension")
    return size


def _columns(length: int, inverse: bool, one_sided: bool) -> tuple[int, int]:
    """How many results there are, and of how many parts each."""
    if inverse and one_sided:
        return length, 1
    return (length // 2 + 1 if one_sided else length), 2


def _matrix(given: int, parts: int, length: int, inverse: bool, one_sided: bool) -> np.ndarray:
    """[given · parts, results · parts of a result]: missing inputs are zeros, surplus ones have no part in it."""
    if max(given, length) > _LONGEST:
        raise CannotConvert(f"a transform of more than {_LONGEST} values is not supported")
    columns, results = _columns(length, inverse, one_sided)
    place = np.arange(given)
    angle = 2 * np.pi * ((place[:, None] * np.arange(columns)) % length) / length
    real, imaginary = np.cos(angle), np.sin(angle) * (1 if inverse else -1)
    used = (place < (length // 2 + 1 if results == 1 else length)).astype(np.float64)
    if results == 1:  # the other half is the conjugate of this one
        used = used * np.where((place == 0) | (2 * place == length), 1.0, 2.0)
    weight = used[:, None] / (length if inverse else 1)
    by_part = np.zeros((given, parts, columns, results))
    by_part[:, 0, :, 0] = real * weight
    if results == 2:
        by_part[:, 0, :, 1] = imaginary * weight
    if parts == 2:
        by_part[:, 1, :, 0] = -imaginary * weight
        if results == 2:
            by_part[:, 1, :, 1] = real * weight
    return by_part.reshape(given * parts, columns * results)
