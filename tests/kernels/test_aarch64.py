"""Kernels of 16 columns for AArch64 against numpy, run by qemu: float within rounding, int8 bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from conv_cases import check
from emulated import emulated_targets
from harness import run_outputs, run_uses
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planes import from_planes, to_planes
from products import operands_of, pruned, quantized_reference, rows_of, to_panels
from qconv_cases import case
from reference import apply_epilogue

from sparsec.codegen_templates import integer, norm, qplanes, spmm
from sparsec.codegen_templates.epilogue import EpilogueOp
from sparsec.codegen_templates.layout import PANELS, ROWS, Quantized, panel_shape
from sparsec.codegen_templates.planes import ConvGeometry
from sparsec.codegen_templates.qconv import FloatOutput, PlanesOutput, QConv, plan_qconv
from sparsec.codegen_templates.qplanes import Geometry
from sparsec.codegen_templates.tile_epilogue import constant_quantization
from sparsec.codegen_templates.use import Tensor

NEON = pytest.mark.parametrize("target", emulated_targets(lambda isa: isa == "neon"))
BYTES = pytest.mark.parametrize("target", emulated_targets(lambda isa: isa != "neon"))
SWEEP = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
EPILOGUES = ((), (EpilogueOp("bias"), EpilogueOp("gelu_erf")))
ROWS_OF = st.sampled_from([5, 24, 56, 65])
"""Of a matrix: a unit of C serves all with blocks of one height."""


@NEON
@SWEEP
@given(
    m=ROWS_OF,
    k=st.integers(1, 90),
    n=st.integers(1, 40),
    density=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    ops=st.sampled_from(EPILOGUES),
)
def test_float(target, m, k, n, density, ops):
    rng = np.random.default_rng([m, k, n])
    w, x = pruned(rng, m, k, density), rng.standard_normal((n, k)).astype(np.float32)
    panels = to_panels(target, x, x.dtype != np.float32)
    np.testing.assert_array_equal(panels.transpose(0, 2, 1).reshape(-1, k)[:n], x)
    extra = operands_of(rng, ops, m, n)
    got, _ = run_uses(target, spmm.plan_spmm(target.isa, n, w, ops, None, ""), [panels, w, *extra], (n, m))
    want = apply_epilogue(x.astype(np.float64) @ w.T, ops, extra, 1)
    assert np.abs(got - want).max() <= 4e-6 * max(np.abs(want).max(), 1)


@NEON
def test_deep_float(target):
    """Vectors further apart than a load reaches, and k in parts."""
    rng = np.random.default_rng(1)
    w, x = pruned(rng, 30, 3000, 0.2), rng.standard_normal((130, 3000)).astype(np.float32)
    uses = spmm.plan_spmm(target.isa, 130, w, (), None, "", "pattern", (PANELS,))
    assert len(uses) > 1
    got, _ = run_uses(target, uses, [to_panels(target, x, x.dtype != np.float32), w], panel_shape(130, 30, False))
    want = x.astype(np.float64) @ w.T
    found = got.transpose(0, 2, 1).reshape(-1, 30)[:130]
    assert np.abs(found - want).max() <= 1e-5 * np.abs(want).max()


@BYTES
@SWEEP
@given(
    m=ROWS_OF,
    k=st.integers(1, 40),
    n=st.integers(1, 40),
    zero=st.sampled_from([0, 7, 128, 255]),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    extreme=st.booleans(),
    signed=st.booleans(),
    method=st.sampled_from(["pattern", "dense"]),
)
def test_int8_is_exact(target, m, k, n, zero, density, extreme, signed, method):
    rng = np.random.default_rng([m, k, n, zero])
    k *= 4
    mask = np.repeat(rng.random((m, k // 4)) < density, 4, axis=1)
    w = ((rng.choice([-128, 127], (m, k)) if extreme else rng.integers(-128, 128, (m, k))) * mask).astype(np.int8)
    x = (rng.choice([0, 255], (n, k)) if extreme else rng.integers(0, 256, (n, k))).astype(np.uint8)
    scale = rng.uniform(1e-4, 1e-2, m).astype(np.float32)
    panels = to_panels(target, (x ^ 128).view(np.int8) if signed else x, quantized=True, signed=signed)
    how = constant_quantization(w, zero, scale, None, target.isa)
    got, _ = run_uses(target, spmm.plan_spmm(target.isa, n, w, (), how, "", method), [panels, w], (n, m))
    np.testing.assert_array_equal(got, quantized_reference(x, w, zero, scale))


@BYTES
@pytest.mark.parametrize("table", [False, True])
def test_int8_to_panels_of_the_next_layer(target, table):
    """Bytes are kept 128 lower in panels."""
    rng = np.random.default_rng(7)
    m, n = 64, 37
    w = rng.integers(-127, 128, (m, 64)).astype(np.int8)
    x = rng.integers(0, 256, (n, 64)).astype(np.uint8)
    scale = rng.uniform(1e-4, 1e-3, m).astype(np.float32)
    entries = rng.permutation(256).astype(np.uint8)
    how = Quantized(0.25, 99, table=entries.tobytes() if table else b"")
    quantization = constant_quantization(w, 0, scale, None, target.isa)
    uses = spmm.plan_spmm(target.isa, n, w, (), quantization, "", "pattern", (PANELS, how))
    types = [(panel_shape(n, m, False), "float32"), (panel_shape(n, m, True), "uint8")]
    (floats, got), _ = run_outputs(target, uses, [to_panels(target, x, x.dtype != np.float32), w], types)
    y = quantized_reference(x, w, 0, scale)
    np.testing.assert_array_equal(floats.transpose(0, 2, 1).reshape(-1, m)[:n], y)
    want = integer.quantize(y, integer.inverse(how.scale), how.zero_point, "uint8")
    np.testing.assert_array_equal(rows_of(got ^ 128, m)[:n], entries[want] if table else want)


@BYTES
def test_what_is_not_a_number_becomes_the_lowest_byte(target):
    rng = np.random.default_rng(8)
    n, m = 16, 4
    x = rng.standard_normal((n, m)).astype(np.float32)
    x[3, 1], x[4, 2], x[5, 3] = np.nan, np.inf, -np.inf
    how = Quantized(0.01, 99)
    gamma, beta = np.ones(m, np.float32), np.zeros(m, np.float32)
    uses = norm.plan_layer_norm_panels(target.isa, epsilon=1e-5, layouts=(PANELS, how), columns=n, features=m)
    types = [(panel_shape(n, m, False), "float32"), (panel_shape(n, m, True), "uint8")]
    (floats, got), _ = run_outputs(target, uses, [to_panels(target, x, x.dtype != np.float32), gamma, beta], types)
    y = floats.transpose(0, 2, 1).reshape(-1, m)
    assert np.isnan(y).sum() == 3 * m
    np.testing.assert_array_equal(rows_of(got ^ 128, m), integer.quantize(y, integer.inverse(0.01), 99, "uint8"))


@NEON
@settings(SWEEP, max_examples=12)
@given(
    code=st.sampled_from(["pattern", "dense"]),
    taps=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.integers(1, 3),
    size=st.tuples(st.integers(8, 20), st.integers(8, 30)),
    channels=st.tuples(st.integers(1, 60), st.integers(1, 6)),
    ops=st.sampled_from([(), (EpilogueOp("bias"), EpilogueOp("add"), EpilogueOp("relu"))]),
    density=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_float_convolutions(target, code, taps, stride, size, channels, ops, density):
    geometry = ConvGeometry((stride, stride), (1, 1), (1, 0, 2, 1), 1)
    check(target, (2, channels[1], *size), (*channels, *taps), geometry, density, ops, code)


@NEON
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_float_convolutions(target, stride):
    geometry = ConvGeometry((stride, stride), (1, 1), (1, 1, 1, 1), 5)
    check(target, (1, 5, 17, 37), (5, 1, 3, 3), geometry, 1.0, (EpilogueOp("bias"),), "depthwise")


@NEON
def test_planes_larger_than_a_load_reaches(target):
    check(target, (1, 3, 150, 160), (4, 3, 3, 3), ConvGeometry((1, 1), (1, 1), (1, 1, 1, 1), 1), 0.5)


@BYTES
@settings(SWEEP, max_examples=12)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    stride=st.integers(1, 2),
    c=st.integers(1, 9),
    o=st.sampled_from([3, 28, 60]),
    size=st.tuples(st.integers(5, 12), st.integers(5, 20)),
    zero=st.sampled_from([0, 7, 255]),
    density=st.sampled_from([0.0, 0.2, 1.0]),
    method=st.sampled_from(["pattern", "dense"]),
    extreme=st.booleans(),
)
def test_int8_convolutions_are_exact(target, kernel, stride, c, o, size, zero, density, method, extreme):
    rng = np.random.default_rng([c, o, *size])
    window = Geometry(kernel, (stride, stride), (1, 1), (1, 2, 0, 1))
    x, w, total, out, pitch = case(rng, 2, c, o, size, window, zero, density, extreme)
    planes = qplanes.plain(*size, pitch, *qplanes.margins(window, pitch))
    if not qplanes.serves(planes, window, out, pitch):
        planes = qplanes.phased(*size, window, out, pitch)
    scale, bias = rng.uniform(1e-4, 1e-2, o), rng.integers(-5000, 5000, o).astype(np.int32)
    written = qplanes.plain(*out, pitch, 17, 5)
    conv = QConv(window, planes, zero, scale, bias, out, pitch, (PlanesOutput(0.37, 3, written), FloatOutput()))
    operands = [to_planes(x, planes, zero) ^ 128, w]
    types = [(written.shape(2, o), "uint8"), ((2, o, *out), "float32")]
    tensors = [Tensor("uint8", operands[0].shape), Tensor("int8", w.shape, w)]
    (quantized, floats), status = run_outputs(
        target, plan_qconv(target.isa, tensors, (), conv, "", method), operands, types
    )
    assert status == 0
    want = integer.rescale(integer.wrapped(total.astype(np.int64) + bias[:, None, None]),
                           scale.astype(np.float32)[:, None, None])  # fmt: skip
    np.testing.assert_array_equal(floats, want)
    np.testing.assert_array_equal(
        from_planes(quantized ^ 128, written, o), integer.quantize(want, float(integer.inverse(0.37)), 3, "uint8")
    )


@BYTES
def test_rows_of_int8_products(target):
    """Any number of columns: only whole registers of the last tile are computed."""
    rng = np.random.default_rng(9)
    w = rng.integers(-127, 128, (24, 32)).astype(np.int8)
    scale = np.full(24, 1e-3, np.float32)
    for n in (1, 3, 4, 5, 16, 17):
        x = rng.integers(0, 256, (n, 32)).astype(np.uint8)
        how = constant_quantization(w, 9, scale, None, target.isa)
        uses = spmm.plan_spmm(target.isa, n, w, (), how, "", "pattern", (ROWS,))
        got, _ = run_uses(target, uses, [to_panels(target, x, x.dtype != np.float32), w], (n, 24))
        np.testing.assert_array_equal(got, quantized_reference(x, w, 9, scale))
