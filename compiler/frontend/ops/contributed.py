"""Operators of onnxruntime that are standard ones by another name, or nearly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..registry import expander

if TYPE_CHECKING:
    from ..expansion import Expansion

_MICROSOFT = "com.microsoft"


@expander("QuantizeLinear", "DequantizeLinear", domain=_MICROSOFT)
def quantize(e: Expansion) -> None:
    """com.microsoft QuantizeLinear-1, DequantizeLinear-1: (x, scale, zero point)."""
    e.op(e.node.op_type, [name for name in e.node.inputs if name], e.node.outputs[0], axis=e.attr("axis", 1))


@expander("Trilu", "GridSample", domain=_MICROSOFT)
def same(e: Expansion) -> None:
    """com.microsoft Trilu-1, GridSample-1."""
    version = 16 if e.node.op_type == "GridSample" else 14
    e.op(e.node.op_type, e.node.inputs, e.node.outputs[0], version=version, **e.node.attrs)


@expander("Pad", domain=_MICROSOFT)
def pad(e: Expansion) -> None:
    """com.microsoft Pad-1: (data, pads, value); pads may be [1, 2 · rank]."""
    pads = e.op("Reshape", [e.input(1), e.ints([-1])])
    e.op("Pad", [e.input(0), pads, *e.node.inputs[2:]], e.node.outputs[0], mode=e.attr("mode", "constant"))


@expander("DynamicQuantizeLSTM", domain=_MICROSOFT)
def dynamic_quantize_lstm(e: Expansion) -> None:
    """com.microsoft DynamicQuantizeLSTM-1: an LSTM whose weights are stored in 8 bits.

    They are dequantized; inputs and states stay float, where onnxruntime rounds them to 8 bits in every step.
    (X, W[directions, input, 4 · hidden], R, B, sequence_lens, initial_h, initial_c, P, W_scale, W_zero_point, R_scale,
    R_zero_point).
    """
    weights = []
    for index, scale, zero in ((1, 8, 9), (2, 10, 11)):
        directions, _, columns = e.shape(e.input(index))
        is_per_column = len(e.shape(e.input(scale))) == 2
        view = e.ints([directions, 1, columns if is_per_column else 1])
        float_type = e.float_type(e.input(scale))
        values, points = (e.op("Cast", [e.input(i)], to=float_type) for i in (index, zero))
        centred = e.op("Sub", [values, e.op("Reshape", [points, view])])
        whole = e.op("Mul", [centred, e.op("Reshape", [e.input(scale), view])])
        weights.append(e.op("Transpose", [whole], perm=[0, 2, 1]))
    outputs = [*e.node.outputs, "", ""][:3]
    e.nodes.append(e.like("LSTM", [e.input(0), *weights, *e.node.inputs[3:8]], outputs))
