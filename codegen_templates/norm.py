"""Kernels that work on rows: softmax and layer normalization over the last axis."""

from __future__ import annotations

import hashlib

from .catalogue import find, source
from .epilogue import c_float
from .use import OUT, KernelUse, Operand, Tensor, product


def plan_softmax(isa: str, x: Tensor, log: bool) -> list[KernelUse]:
    """Softmax-13 or LogSoftmax-13 over the last axis."""
    row = find("softmax", isa)
    name = "log_softmax" if log else "softmax"
    symbol = f"sparsec_k_{name}"
    unit = source(row.template, name, symbol=symbol, log=log)
    rows = product(x.shape[:-1])
    return [KernelUse(row.name, symbol, (unit,), (Operand(0), OUT), (x.shape[-1],), rows, "rows")]


def plan_layer_norm(isa: str, x: Tensor, epsilon: float) -> list[KernelUse]:
    """LayerNormalization-17 over the last axis; operands are x, gamma, beta."""
    row = find("layer_norm", isa)
    name = f"layer_norm_{hashlib.sha256(c_float(epsilon).encode()).hexdigest()[:8]}"
    symbol = f"sparsec_k_{name}"
    unit = source(row.template, name, symbol=symbol, epsilon=c_float(epsilon))
    pointers = (Operand(0), Operand(1), Operand(2), OUT)
    return [KernelUse(row.name, symbol, (unit,), pointers, (x.shape[-1],), product(x.shape[:-1]), "rows")]
