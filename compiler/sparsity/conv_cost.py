"""Which kernel a float32 convolution takes on AVX-512, by predicted cycles per tile of 16 positions."""

from __future__ import annotations

import numpy as np

from ...codegen_templates.conv_pattern import matrix_of
from ...codegen_templates.pattern import rows_per_block
from .cost import CODE_LIMIT, LOAD_CYCLES, Choice, pattern_cost, sparsity_text

_DENSE = 0.9
"""No pattern gains above this density."""


def choose_convolution(weights: np.ndarray, groups: int) -> Choice:
    """For `weights`[O, C / groups, KH, KW] on images of known size.

    `pattern`, `dense`: weights compiled into code; `depthwise`; `planes`: the kernel of dense groups.
    """
    density = np.count_nonzero(weights) / weights.size
    taps = "x".join(map(str, weights.shape[2:]))
    if groups > 1 and weights.shape[1] == 1:
        return Choice("depthwise", f"depthwise {taps}")
    inside = f" in {groups} groups" if groups > 1 else ""
    dense = Choice(
        "planes" if groups > 1 else "dense",
        f"dense {taps}{inside}" + (f", {sparsity_text(density)}" if density < 1 else ""),
    )
    if density > _DENSE:
        return dense
    units = matrix_of(weights, groups)
    cycles, code_bytes = pattern_cost(units)
    if code_bytes > CODE_LIMIT * weights.nbytes:
        return Choice(dense.kernel, f"{dense.reason}: code would be larger than {CODE_LIMIT:g} times the weights")
    blocks = -(-len(units) // rows_per_block(len(units)))
    dense_cycles = weights.size + LOAD_CYCLES * blocks * weights[0].size
    gain = dense_cycles / max(cycles, 1.0)
    reason = f"{taps}{inside}, {sparsity_text(density)}: code predicted at {gain:.2f}x dense"
    return Choice("pattern", f"sparse {reason}", gain) if gain > 1 else Choice(dense.kernel, f"dense {reason}")
