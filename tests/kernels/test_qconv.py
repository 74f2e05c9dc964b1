"""Convolutions of quantized planes against the numpy definition, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from harness import run_outputs, tile_targets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planes import check_padding, from_planes, to_planes
from qconv_cases import case

from sparsec.codegen_templates import integer, qplanes
from sparsec.codegen_templates.epilogue import EpilogueOp
from sparsec.codegen_templates.qconv import METHODS, Added, FloatOutput, PlanesOutput, QConv, methods_for, plan_qconv
from sparsec.codegen_templates.qplanes import Geometry
from sparsec.codegen_templates.use import Tensor

TILES = pytest.mark.parametrize("target", tile_targets())
SWEEP = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def fitting(c: int, method: str) -> tuple[int, int]:
    """Channels that a method can take, and how many weights of every eight, or 0."""
    return (c + 4 * (qplanes.groups(c) % 2), 4) if method == "n_of_m" else (c, 0)


WINDOWS = st.builds(
    Geometry,
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
)


@TILES
@SWEEP
@given(
    window=WINDOWS,
    n=st.integers(1, 2),
    c=st.integers(1, 9),
    o=st.integers(1, 60),
    size=st.tuples(st.integers(4, 12), st.integers(4, 20)),
    zero=st.sampled_from([0, 7, 255]),
    density=st.sampled_from([0.0, 0.2, 1.0]),
    method=st.sampled_from(METHODS),
    block=st.sampled_from([1, 4]),
    extreme=st.booleans(),
    copied=st.booleans(),
)
def test_planes_and_floats(target, window, n, c, o, size, zero, density, method, block, extreme, copied):
    rng = np.random.default_rng([n, c, o, *size])
    if method not in methods_for(target.isa):
        return
    reach = window.reach()
    if size[0] + window.padding[0] + window.padding[2] <= reach[0] or size[1] + sum(window.padding[1::2]) <= reach[1]:
        return
    c, most = fitting(c, method)
    x, w, total, out, pitch = case(rng, n, c, o, size, window, zero, density, extreme, block, most)
    planes = qplanes.plain(*size, pitch, *qplanes.margins(window, pitch))
    if copied or not qplanes.serves(planes, window, out, pitch):
        planes = qplanes.phased(*size, window, out, pitch)
    scale = rng.uniform(1e-4, 1e-2, o)
    bias = rng.integers(-5000, 5000, o).astype(np.int32)
    written = qplanes.plain(*out, pitch, 17, 5)
    conv = QConv(window, planes, zero, scale, bias, out, pitch, (PlanesOutput(0.37, 3, written), FloatOutput()))
    operands = [to_planes(x, planes, zero), w]
    types = [(written.shape(n, o), "uint8"), ((n, o, *out), "float32")]
    tensors = [Tensor("uint8", operands[0].shape), Tensor("int8", w.shape, w)]
    uses = plan_qconv(target.isa, tensors, (), conv, "", method)
    (quantized, floats), status = run_outputs(target, uses, operands, types)
    assert status == 0
    want = integer.rescale(integer.wrapped(total.astype(np.int64) + bias[:, None, None]),
                           scale.astype(np.float32)[:, None, None])  # fmt: skip
    np.testing.assert_array_equal(floats, want)
    np.testing.assert_array_equal(
        from_planes(quantized, written, o), integer.quantize(want, float(integer.inverse(0.37)), 3, "uint8")
    )
    if o % 4 == 0:
        check_padding(quantized, written, 3)


def vector(rng, o):
    return rng.standard_normal(o).astype(np.float32)


@TILES
@pytest.mark.parametrize("zero", [0, 31])
@pytest.mark.parametrize("kind", ["relu", "clip", "none"])
def test_one_quantized_output_divides_the_multiplier(target, kind, zero):
    rng = np.random.default_rng(5)
    window = Geometry((3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
    x, w, total, out, pitch = case(rng, 1, 8, 24, (7, 9), window, 12, 0.5)
    planes = qplanes.plain(7, 9, pitch, *qplanes.margins(window, pitch))
    scale, bias = rng.uniform(1e-4, 1e-2, 24), vector(rng, 24)
    step = float(np.float32(6 / 255))
    ops = {"relu": (EpilogueOp("relu"),), "clip": (EpilogueOp("clip", (0.0, 6.0)),), "none": ()}[kind]
    written = qplanes.plain(7, 9, pitch)
    conv = QConv(window, planes, 12, scale, np.zeros(24, np.int32), out, pitch, (PlanesOutput(step, zero, written),))
    tensors = [Tensor("uint8", ()), Tensor("int8", w.shape, w), Tensor("float32", (24,), bias)]
    tensors[0] = Tensor("uint8", planes.shape(1, 8))
    uses = plan_qconv(target.isa, tensors, (EpilogueOp("bias"), *ops), conv, "", "pattern")
    (got,), _ = run_outputs(target, uses, [to_planes(x, planes, 12), w, bias], [(written.shape(1, 24), "uint8")])
    y = integer.rescale(total, integer.multiplier(1.0, scale, step)[:, None, None])
    y = y + (bias.astype(np.float64) / step).astype(np.float32)[:, None, None]
    if kind != "none":
        y = np.maximum(y, 0)
    if kind == "clip":
        y = np.minimum(y, np.float32(6 / step))
    np.testing.assert_array_equal(from_planes(got, written, 24), integer.quantize(y, 1.0, zero, "uint8"))


@TILES
def test_residuals_and_activations(target):
    rng = np.random.default_rng(6)
    window = Geometry((1, 1), (1, 1), (1, 1), (0, 0, 0, 0))
    x, w, total, out, _ = case(rng, 2, 16, 40, (7, 7), window, 100, 0.4)
    planes, written = qplanes.plain(7, 7, 8), qplanes.plain(7, 7, 8, 9, 9)
    scale, bias = rng.uniform(1e-4, 1e-3, 40), vector(rng, 40)
    shortcut = rng.integers(0, 256, (2, 40, 7, 7)).astype(np.uint8)
    other = rng.standard_normal((2, 40, 7, 7)).astype(np.float32)
    ops = (
        EpilogueOp("bias"),
        EpilogueOp("round_trip", (0.05, 120)),
        EpilogueOp("add_quantized", (0.03, 17)),
        EpilogueOp("add"),
        EpilogueOp("silu"),
    )
    outputs = (PlanesOutput(0.02, 10, written), FloatOutput())
    conv = QConv(window, planes, 100, scale, np.zeros(40, np.int32), out, 8, outputs, (written,))
    operands = [to_planes(x, planes, 100), w, bias, to_planes(shortcut, written, 17), other]
    tensors = [Tensor(str(o.dtype), o.shape, o if i in (1, 2) else None) for i, o in enumerate(operands)]
    uses = plan_qconv(target.isa, tensors, ops, conv, "", "pattern")
    types = [(written.shape(2, 40), "uint8"), (other.shape, "float32")]
    (quantized, floats), _ = run_outputs(target, uses, operands, types)
    y = integer.rescale(total, scale.astype(np.float32)[:, None, None]) + bias[:, None, None]
    y = integer.round_trip(y, 0.05, 120, "uint8") + integer.dequantize(shortcut, np.float32(0.03), 17) + other
    want = y / (1 + np.exp(-y.astype(np.float64)))
    assert (np.abs(floats - want) <= 4e-6 * np.abs(y) + 1e-7).all()
    np.testing.assert_array_equal(
        from_planes(quantized, written, 40), integer.quantize(floats, float(integer.inverse(0.02)), 10, "uint8")
    )


@TILES
@pytest.mark.parametrize("zeros", [(0, 0), (17, 0), (0, 9)])
def test_residual_and_relu(target, zeros):
    """Zero points of the residual and of the result; without one the maximum is the saturation's."""
    rng = np.random.default_rng(zeros)
    window = Geometry((1, 1), (1, 1), (1, 1), (0, 0, 0, 0))
    x, w, total, out, _ = case(rng, 1, 16, 60, (5, 7), window, 100, 0.4)
    planes, written = qplanes.plain(5, 7, 8), qplanes.plain(5, 7, 8, 9, 9)
    scale, bias = rng.uniform(1e-4, 1e-3, 60), rng.integers(-999, 999, 60).astype(np.int32)
    shortcut = rng.integers(0, 256, (1, 60, 5, 7)).astype(np.uint8)
    ops = (EpilogueOp("add_quantized", (0.03, zeros[0])), EpilogueOp("relu"))
    conv = QConv(window, planes, 100, scale, bias, out, 8, (PlanesOutput(0.02, zeros[1], written),), (written,))
    operands = [to_planes(x, planes, 100), w, to_planes(shortcut, written, zeros[0])]
    tensors = [Tensor(str(o.dtype), o.shape, o if i == 1 else None) for i, o in enumerate(operands)]
    uses = plan_qconv(target.isa, tensors, ops, conv, "", "pattern")
    (got,), _ = run_outputs(target, uses, operands, [(written.shape(1, 60), "uint8")])
    y = integer.rescale(integer.wrapped(total.astype(np.int64) + bias[:, None, None]),
                        scale.astype(np.float32)[:, None, None])  # fmt: skip
    y = np.maximum(y + integer.dequantize(shortcut, np.float32(0.03), zeros[0]), 0)
    want = integer.quantize(y, float(integer.inverse(0.02)), zeros[1], "uint8")
    assert 0.2 < (y == 0).mean() < 0.8
    np.testing.assert_array_equal(from_planes(got, written, 60), want)


@TILES
@SWEEP
@given(
    methods=st.tuples(st.sampled_from(METHODS), st.sampled_from(METHODS)),
    n=st.integers(1, 2),
    c=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    o=st.integers(1, 60),
    size=st.tuples(st.integers(3, 9), st.integers(3, 20)),
    stride=st.integers(1, 2),
    settled=st.booleans(),
    zero=st.sampled_from([0, 7]),
)
def test_a_second_convolution_is_added(target, methods, n, c, o, size, stride, settled, zero):
    """A 3x3 and a 1x1 with strides, which may go through 8 bits, as around a block of ResNet."""
    if not set(methods) <= set(methods_for(target.isa)):
        return
    rng = np.random.default_rng([n, o, *c, *size])
    inner = Geometry((3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
    around = Geometry((1, 1), (stride, stride), (1, 1), (0, 0, 0, 0))
    (first, most), (other, most2) = map(fitting, c, methods)
    x, w, total, out, pitch = case(rng, n, first, o, size, inner, 100, 0.4, most=most)
    larger = (stride * size[0] - rng.integers(stride), stride * size[1] - rng.integers(stride))
    x2, w2, total2, *_ = case(rng, n, other, o, larger, around, 3, 0.4, most=most2)
    planes, written = qplanes.plain(*size, pitch, *qplanes.margins(inner, pitch)), qplanes.plain(*size, pitch)
    planes2 = qplanes.phased(*larger, around, out, pitch)
    scales, bias = rng.uniform(1e-4, 1e-2, (2, o)), vector(rng, o)
    nothing = np.zeros(o, np.int32)
    conv = QConv(inner, planes, 100, scales[0], nothing, out, pitch, (PlanesOutput(0.4, zero, written), FloatOutput()))
    second = QConv(around, planes2, 3, scales[1], nothing, out, pitch, ())
    ops = (EpilogueOp("bias"), *([EpilogueOp("round_trip", (0.1, 120))] if settled else []))
    added = Added(second, ops, methods[1])
    operands = [to_planes(x, planes, 100), w, bias, to_planes(x2, planes2, 3), w2, -bias]
    tensors = [Tensor(str(v.dtype), v.shape, v if i in (1, 2, 4, 5) else None) for i, v in enumerate(operands)]
    epilogue = (EpilogueOp("bias"), EpilogueOp("add_convolution"), EpilogueOp("relu"))
    uses = plan_qconv(target.isa, tensors, epilogue, conv, "", methods[0], added)
    types = [(written.shape(n, o), "uint8"), ((n, o, *out), "float32")]
    (quantized, floats), _ = run_outputs(target, uses, operands, types)
    y2 = integer.rescale(total2, scales[1].astype(np.float32)[:, None, None]) - bias[:, None, None]
    y2 = integer.round_trip(y2, 0.1, 120, "uint8") if settled else y2
    y = integer.rescale(total, scales[0].astype(np.float32)[:, None, None]) + bias[:, None, None] + y2
    np.testing.assert_array_equal(floats, np.maximum(y, 0))
    np.testing.assert_array_equal(
        from_planes(quantized, written, o),
        integer.quantize(np.maximum(y, 0), float(integer.inverse(0.4)), zero, "uint8"),
    )


@TILES
@pytest.mark.parametrize("inner", [34, 51, 102])
def test_lines_of_channels(target, inner):
    rng = np.random.default_rng(inner)
    window = Geometry((1, 1), (1, 1), (1, 1), (0, 0, 0, 0))
    x, w, total, out, _ = case(rng, 2, 8, 102, (5, 9), window, 3, 0.7)
    planes = qplanes.plain(5, 9, 10)
    scale = rng.uniform(1e-4, 1e-3, 102)
    ops = (EpilogueOp("sigmoid"),) if inner == 34 else ()
    conv = QConv(window, planes, 3, scale, np.zeros(102, np.int32), out, 10, (FloatOutput(inner),))
    operands = [to_planes(x, planes, 3), w]
    tensors = [Tensor("uint8", operands[0].shape), Tensor("int8", w.shape, w)]
    (got,), _ = run_outputs(
        target,
        plan_qconv(target.isa, tensors, ops, conv, "", "dense"),
        operands,
        [((2, 102 // inner, 45, inner), "float32")],
    )
    want = integer.rescale(total, scale.astype(np.float32)[:, None, None])
    want = want.reshape(2, 102 // inner, inner, 45).transpose(0, 1, 3, 2)
    want = 1 / (1 + np.exp(-want.astype(np.float64))) if ops else want
    np.testing.assert_allclose(got, want, rtol=0, atol=4e-6 if ops else 0)
