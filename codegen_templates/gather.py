"""Gather with indices known at run time."""

from __future__ import annotations

from .catalogue import find, source
from .use import OUT, KernelUse, Operand, Tensor, product

INDEX_ERROR = 7
"""SPARSEC_ERR_INDEX of sparsec.h."""
_ITEM_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "bool": 1}
_INDEX_TYPES = {"int32": "int32_t", "int64": "int64_t"}


def item_bytes(dtype: str) -> int:
    """Bytes of one element."""
    return _ITEM_BYTES.get(dtype) or int(dtype.lstrip("uint")) // 8


def plan_gather(isa: str, data: Tensor, indices: Tensor, axis: int) -> list[KernelUse]:
    """Gather-13: slices of `data` along `axis`."""
    row = find("gather", isa)
    name = f"{row.name}_{indices.dtype}"
    symbol = f"sparsec_k_{name}"
    unit = source(row.template, name, symbol=symbol, index_type=_INDEX_TYPES[indices.dtype], index_error=INDEX_ERROR)
    axis %= len(data.shape)
    count = product(indices.shape)
    scalars = (data.shape[axis], count, product(data.shape[axis + 1 :]) * item_bytes(data.dtype))
    extent = product(data.shape[:axis]) * count
    return [KernelUse(row.name, symbol, (unit,), (Operand(0), Operand(1), OUT), scalars, extent, "checked indices")]
