"""Which kernel a float32 convolution takes, by predicted cycles per tile of 16 positions; AArch64: by instructions."""

from __future__ import annotations

import numpy as np

from ...codegen_templates.catalogue import base_isa
from ...codegen_templates.conv_pattern import matrix_of
from ...codegen_templates.conv_planes import WINOGRAD
from ...codegen_templates.pattern import rows_per_block
from ...codegen_templates.planes import ConvGeometry
from ...codegen_templates.winograd import FILTERS
from . import neon_cost
from .cost import CODE_LIMIT, LOAD_CYCLES, Choice, pattern_cost, sparsity_text

_LANES = 16
_DENSE = 0.9
"""No pattern gains above this density."""
_UNROLLED_TAPS = 49
"""Most that a depthwise kernel has a register, or a place of the stack, for."""


def choose_convolution(weights: np.ndarray, groups: int, isa: str = "avx512") -> Choice:
    """For `weights`[O, C / groups, KH, KW] on images of known size.

    `pattern`, `dense`: weights compiled into code; `depthwise`; `planes`: the kernel of dense groups.
    """
    density = np.count_nonzero(weights) / weights.size
    taps = "x".join(map(str, weights.shape[2:]))
    if groups > 1 and weights.shape[1] == 1:
        unrolled = weights.shape[2] * weights.shape[3] <= _UNROLLED_TAPS
        return Choice("depthwise" if unrolled else "planes", f"depthwise {taps}")
    inside = f" in {groups} groups" if groups > 1 else ""
    dense = Choice(
        "planes" if groups > 1 else "dense",
        f"dense {taps}{inside}" + (f", {sparsity_text(density)}" if density < 1 else ""),
    )
    if density > _DENSE:
        return dense
    units = matrix_of(weights, groups)
    neon = base_isa(isa) == "neon"
    cycles, code_bytes = neon_cost.pattern_cost(units) if neon else pattern_cost(units)
    if code_bytes > CODE_LIMIT * weights.nbytes:
        return Choice(dense.kernel, f"{dense.reason}: code would be larger than {CODE_LIMIT:g} times the weights")
    blocks = -(-len(units) // rows_per_block(len(units)))
    dense_cycles = weights.size + LOAD_CYCLES * blocks * weights[0].size
    if neon:
        dense_cycles = neon_cost.dense_cost((len(weights), weights[0].size))
    gain = dense_cycles / max(cycles, 1.0)
    reason = f"{taps}{inside}, {sparsity_text(density)}: code predicted at {gain:.2f}x dense"
    return Choice("pattern", f"sparse {reason}", gain) if gain > 1 else Choice(dense.kernel, f"dense {reason}")


_IN_CYCLES = {(2, 3): 140.0, (4, 3): 600.0, (4, 4): 900.0}
"""By outputs and taps: of a channel, for up to 16 tiles of a row."""
_OUT_CYCLES = {(2, 3): 200.0, (4, 3): 450.0, (4, 4): 600.0}
"""By outputs and taps: of an output channel, for 16 tiles."""
_LEAST_GAIN = 1.1
"""Below it the larger weights are not worth their place."""


def choose_winograd(weights: np.ndarray, geometry: ConvGeometry, out: tuple[int, int]) -> Choice | None:
    """Winograd's filtering for a dense convolution with images of `out` (rows, columns), where it is faster."""
    O, C, *taps = weights.shape  # noqa: E741
    stride = geometry.strides[0]
    if (
        len({*taps}) > 1
        or geometry.strides not in ((1, 1), (2, 2))
        or (*geometry.dilation, geometry.groups) != (1, 1, 1)
    ):
        return None
    r, channels = -(-taps[0] // stride), C * stride**2
    tiles = -(-(out[0] * (out[1] + 1) - 1) // _LANES)
    direct = (weights.size + LOAD_CYCLES * -(-O // rows_per_block(O)) * weights[0].size) * tiles
    best = None
    for name, m in WINOGRAD.items():
        if (m, r) not in FILTERS:
            continue
        down, across = -(-out[0] // m), -(-out[1] // m)
        vectors, rows = -(-down * across // _LANES), down * -(-across // _LANES)
        transforms = _IN_CYCLES[m, r] * channels * rows + _OUT_CYCLES[m, r] * O * vectors
        gain = direct / ((m + r - 1) ** 2 * O * channels * vectors + transforms)
        if gain > max(_LEAST_GAIN, best.gain if best else 0.0):
            by = "" if stride == 1 else " by phases"
            best = Choice(
                name, f"dense {taps[0]}x{taps[1]}{by}, F({m}x{m}, {r}x{r}): predicted at {gain:.2f}x direct", gain
            )
    return best
