"""Caches that grow: the rows of past and new in one buffer whose outermost axis is the one that grows."""

from __future__ import annotations

from .catalogue import find, source
from .gather import item_bytes
from .use import OUT, KernelUse, Operand, Pointer, Size, Tensor, product


def plan_append(isa: str, past: Tensor, new: Tensor, axis: int) -> list[KernelUse]:
    """`past` and then `new`, concatenated along `axis`, to [rows, …] with the other axes in order behind it.

    The first call is for runs whose past comes from the caller.
    """
    first = product(past.shape[:axis]) * product(past.shape[axis + 1 :]) * item_bytes(past.dtype) * past.shape[axis]
    return [
        _copy(isa, Operand(0), past, axis, 0, is_row_major=False, reason="past of the caller"),
        _copy(isa, Operand(1), new, axis, first, is_row_major=False, reason="appended"),
    ]


def plan_appended(isa: str, out: Tensor, axis: int) -> list[KernelUse]:
    """Rows as `plan_append` makes them to the tensor `out`, for runs whose caller wants it."""
    return [_copy(isa, Operand(0), out, axis, 0, is_row_major=True, reason="for the caller")]


def _copy(
    isa: str, pointer: Pointer, tensor: Tensor, axis: int, first: Size, *, is_row_major: bool, reason: str
) -> KernelUse:
    """A tensor to rows, from byte `first` on; or `is_row_major` the rows to the tensor."""
    row = find("copy_rows", isa)
    symbol = f"sparsec_k_{row.name}"
    unit = source(row.template, row.name, symbol=symbol)
    parts, count = product(tensor.shape[:axis]), tensor.shape[axis]
    nbytes = product(tensor.shape[axis + 1 :]) * item_bytes(tensor.dtype)
    rows, columns = (parts * nbytes, nbytes), (nbytes, count * nbytes)
    (from_row, from_part), (to_row, to_part) = (rows, columns) if is_row_major else (columns, rows)
    scalars = (parts, nbytes, from_row, from_part, first, to_row, to_part)
    return KernelUse(row.name, symbol, (unit,), (pointer, OUT), scalars, count, reason)
