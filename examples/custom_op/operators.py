"""Two operators of the domain `example`: one made of others, one as a C kernel.

sparsec build model.onnx --custom-ops examples/custom_op/operators.py
"""

from pathlib import Path

from tvm import relax

import sparsec


@sparsec.custom_op("example", "GatedTanh")
def gated_tanh(call):
    """GatedTanh(x, gate) = tanh(x) * sigmoid(gate)."""
    return relax.op.multiply(relax.op.tanh(call.input(0)), relax.op.sigmoid(call.input(1)))


@sparsec.custom_op("example", "Histogram")
def histogram(call):
    """Histogram(x[rows, n], lowest, highest; attribute bins) -> int32 [rows, bins]."""
    if call.dtype(0) != "float32" or len(call.shape(0)) != 2:
        call.refuse("its first input must be a float32 matrix")
    rows, columns = call.shape(0)
    bins = call.attrs.get("bins", 10)
    return call.c_kernel(
        Path(__file__).with_name("histogram.c"),
        "histogram",
        outputs=[((rows, bins), "int32")],
        sizes=(columns, bins),
        extent=rows,
    )
