"""Kernels that work on rows: softmax and layer normalization over the last axis."""

from __future__ import annotations

import hashlib

import numpy as np

from .catalogue import find, source
from .epilogue import c_float
from .layout import COLUMNS, Layout
from .panel_outputs import panel_outputs
from .use import OUT, KernelUse, Operand, Packed, Size, Tensor, ceil_div, product


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


def plan_layer_norm_panels(
    isa: str, columns: Size, features: int, epsilon: float, layouts: tuple[Layout, ...]
) -> list[KernelUse]:
    """The same for x in panels of floats; the outputs are panels of floats or bytes (layout.py)."""
    row = find("layer_norm_panels", isa)
    outputs = panel_outputs(layouts)
    name = f"layer_norm_to_{outputs.suffix}"
    symbol = f"sparsec_k_{name}"
    unit = source(row.template, name, symbol=symbol, outputs=outputs)
    small = Packed(np.array([epsilon], np.float32))
    pointers = (Operand(0), Operand(1), Operand(2), small, *outputs.pointers)
    panels = ceil_div(columns, COLUMNS)
    return [
        KernelUse(row.name, symbol, (unit,), pointers, (features, columns), panels, "panels", n_outputs=outputs.count)
    ]
