"""Activations between two quantized tensors: one table of 256 bytes instead of floats.

quantize(f(dequantize(quantize(x))))  ->  table[quantize(x)]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...codegen_templates import integer
from ...codegen_templates.epilogue import FUNCTIONS, EpilogueOp
from ...codegen_templates.layout import Layout, Quantized


def through_tables(
    epilogue: tuple[EpilogueOp, ...], layouts: tuple[Layout, ...], tensors: Sequence[np.ndarray | None]
) -> tuple[tuple[EpilogueOp, ...], tuple[Layout, ...]]:
    """The epilogue without its end, if that is a round trip through 8 bits and functions, and all outputs are bytes.

    `tensors` are those that operations take, in order, where they are constants. What is dropped has no other.
    """
    at = max((i for i, op in enumerate(epilogue) if op.kind == "fake_quantize"), default=-1)
    functions = epilogue[at + 1 :]
    hows = [layout for layout in layouts if isinstance(layout, Quantized) and not layout.table]
    if at < 0 or not functions or len(hows) < len(layouts) or any(op.kind not in FUNCTIONS for op in functions):
        return epilogue, layouts
    numbers = tensors[sum(op.takes_operand for op in epilogue[:at])]
    if numbers is None:
        return epilogue, layouts
    _, scale, low, _ = numbers.tolist()

    def function(x: np.ndarray) -> np.ndarray:
        for op in functions:
            x = FUNCTIONS[op.kind](x, *op.params)
        return x

    between = Quantized(scale, round(-low))  # signed integers are 128 higher as bytes
    made = []
    for how in hows:
        steps = ((between.scale, between.zero_point, "uint8"), (how.scale, how.zero_point, "uint8"))
        made.append(replace(between, table=integer.table(function, *steps).tobytes()))
    return epilogue[:at], tuple(made)
