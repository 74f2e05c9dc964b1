"""Operators that are taken apart into others: Unique, Col2Im, DeformConv and some of onnxruntime's."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import floats, model, node
from microsoft import build, check, ms
from onnx.reference import ReferenceEvaluator
from relax_vm import run_model, run_onnxruntime

import sparsec
from sparsec.compiler.frontend.load import load
from sparsec.compiler.frontend.prepare import prepare
from sparsec.errors import UnsupportedError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("is_sorted", [0, 1])
def test_unique(is_sorted, tmp_path):
    made = model([node("Unique", "x", "y first inverse counts", sorted=is_sorted)], {"x": ("int64", ["n", 2])},
                 "y first inverse counts")  # fmt: skip
    path = sparsec.build(made, output=tmp_path / "m.so", dims={"n": (1, 9)})
    loaded = sparsec.load(path)
    for n, most in ((9, 4), (1, 1), (5, 1), (7, 100)):
        x = RNG.integers(0, most, (n, 2))
        found = loaded.run({"x": x})
        for name, want in run_onnxruntime(made, {"x": x}).items():
            np.testing.assert_array_equal(found[name], want)


def agrees_with_reference(made: onnx.ModelProto, inputs):
    (want,) = ReferenceEvaluator(made).run(None, inputs)
    np.testing.assert_allclose(run_model(made, inputs)["y"], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 0, 2, 1]])
@pytest.mark.parametrize(("strides", "dilations"), [([1, 1], [1, 1]), ([2, 3], [1, 1]), ([1, 2], [2, 1])])
def test_col2im(pads, strides, dilations):
    image, block = [7, 9], [2, 3]
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, block, strict=True)]
    places = [(n + pads[i] + pads[i + 2] - spans[i]) // strides[i] + 1 for i, n in enumerate(image)]
    x = floats(2, 3 * 6, int(np.prod(places)))
    op = node("Col2Im", "x image block", "y", pads=pads, strides=strides, dilations=dilations)
    made = model([op], {"x": ("float32", list(x.shape))}, "y", opset=18, image=np.array(image), block=np.array(block))
    agrees_with_reference(made, {"x": x})


@pytest.mark.parametrize(("group", "offset_group", "masked"), [(1, 1, True), (2, 1, False), (1, 2, True), (2, 2, True)])
def test_deform_conv(group, offset_group, masked):
    """Offsets reach beyond the image, strides and dilations differ by axis."""
    inputs = {"x": floats(2, 4, 7, 6), "o": 2 * floats(2, offset_group * 12, 4, 3, seed=1)}
    constants = {"w": floats(6, 4 // group, 2, 3, seed=2), "b": floats(6, seed=3)}
    if masked:
        inputs["m"] = np.abs(floats(2, offset_group * 6, 4, 3, seed=4))
    attrs = {"pads": [1, 0, 0, 1], "strides": [2, 2], "dilations": [1, 1], "group": group, "offset_group": offset_group}
    op = node("DeformConv", "x w o b m" if masked else "x w o b", "y", kernel_shape=[2, 3], **attrs)
    types = {name: ("float32", list(value.shape)) for name, value in inputs.items()}
    agrees_with_reference(model([op], types, "y", opset=19, **constants), inputs)


@pytest.mark.parametrize(
    ("op", "inputs", "reason"),
    [
        (node("Unique", "x", "y", axis=0, name="the_node"), {"x": ("float32", [3, 3])}, "slices along an axis"),
        (node("Col2Im", "x s s", "y", name="the_node"), {"x": ("float32", [1, 4, 4]), "s": ("int64", [2])},
         "must be constant"),
        (node("DeformConv", "x w o", "y", name="the_node"),
         {"x": ("float32", [1, 2, "h", 5]), "o": ("float32", [1, 8, 3, 4])}, "bind height and width"),
    ],
)  # fmt: skip
def test_refused(op, inputs, reason):
    made = model([op], inputs, "y", opset=19, w=floats(2, 2, 2, 2))
    with pytest.raises(UnsupportedError, match=f"the_node.*{reason}"):
        prepare(load(made), {"h": (4, 8)} if op.op_type == "DeformConv" else {}).diagnostics.check()


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16])
def test_quantize_of_onnxruntime(dtype):
    nodes = [ms("QuantizeLinear", "x s z", "q", axis=1), ms("DequantizeLinear", "q s z", "y", axis=1)]
    scale, zero = np.abs(floats(3, seed=1)) / 20 + 0.01, np.array([3, 0, 7], dtype)
    check(nodes, {"x": floats(2, 3, 4)}, s=scale.astype(np.float32), z=zero)


def test_others_of_onnxruntime():
    check([ms("Trilu", "x k", "y", upper=0)], {"x": floats(2, 4, 5)}, k=np.array(1))
    pads = np.array([0, 1, 2, 0], np.int64)
    check([ms("Pad", "x p v", "y")], {"x": floats(3, 4)}, p=pads, v=np.array(2.5, np.float32))


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("per_column", [False, True])
def test_lstm_with_weights_in_8_bits(direction, per_column):
    """onnxruntime rounds inputs and states to 8 bits, so the results agree to what that costs."""
    directions, hidden, features = 1 + (direction == "bidirectional"), 8, 6
    count = (directions, 4 * hidden) if per_column else (directions,)
    constants = {"b": 0.1 * floats(directions, 8 * hidden)}
    for name, depth in (("w", features), ("r", hidden)):
        constants[name] = RNG.integers(0, 256, (directions, depth, 4 * hidden)).astype(np.uint8)
        constants[f"{name}s"] = np.full(count, 0.004, np.float32)
        constants[f"{name}z"] = np.full(count, 128, np.uint8)
    lstm = ms("DynamicQuantizeLSTM", "x w r b - - - - ws wz rs rz", "y h c", hidden_size=hidden, direction=direction)
    made = build([lstm], {"x": floats(5, 2, features)}, "y h c", **constants)
    check_within(made, {"x": floats(5, 2, features)}, 0.03)


def check_within(made, inputs, tolerance):
    want, got = run_onnxruntime(made, inputs), run_model(made, inputs)
    for name, value in want.items():
        assert got[name].dtype == value.dtype
        np.testing.assert_allclose(got[name], value, rtol=0, atol=tolerance * np.abs(value).max())
