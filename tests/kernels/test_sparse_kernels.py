"""Pattern-compiled products against numpy: float within rounding, int8 bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from harness import run_outputs, run_uses, tile_targets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from products import operands_of, pruned, quantized_reference, rows_of, to_panels
from reference import ACTIVATIONS, apply_epilogue

from sparsec.codegen_templates import indexed, integer, n_of_m, norm, spmm
from sparsec.codegen_templates.epilogue import EpilogueOp, fake_quantize_operand
from sparsec.codegen_templates.layout import PANELS, ROWS, Quantized, panel_shape
from sparsec.codegen_templates.tile_epilogue import constant_quantization

TILES = pytest.mark.parametrize("target", tile_targets())
SWEEP = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
EPILOGUES = (
    (),
    (EpilogueOp("bias"), EpilogueOp("gelu_erf")),
    (EpilogueOp("bias"), EpilogueOp("add"), EpilogueOp("relu")),
)


@TILES
@SWEEP
@given(
    m=st.integers(1, 70),
    k=st.integers(1, 90),
    n=st.integers(1, 60),
    density=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    ops=st.sampled_from(EPILOGUES),
)
def test_float(target, m, k, n, density, ops):
    rng = np.random.default_rng([m, k, n])
    w, x = pruned(rng, m, k, density), rng.standard_normal((n, k)).astype(np.float32)
    panels = to_panels(target, x, quantized=False)
    np.testing.assert_array_equal(panels.transpose(0, 2, 1).reshape(-1, k)[:n], x)
    extra = operands_of(rng, ops, m, n)
    uses = spmm.plan_spmm(target.isa, n, w, ops, None, "")
    got, _ = run_uses(target, uses, [panels, w, *extra], (n, m))
    want = apply_epilogue(x.astype(np.float64) @ w.T, ops, extra, 1)
    assert np.abs(got - want).max() <= 4e-6 * max(np.abs(want).max(), 1)


@TILES
@SWEEP
@given(
    m=st.integers(1, 70),
    k=st.integers(1, 40),
    n=st.integers(1, 60),
    zero=st.sampled_from([0, 7, 128, 255]),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    extreme=st.booleans(),
    dense=st.booleans(),
)
def test_int8_is_exact(target, m, k, n, zero, density, extreme, dense):
    rng = np.random.default_rng([m, k, n, zero])
    k *= 4
    mask = np.repeat(rng.random((m, k // 4)) < density, 4, axis=1)
    w = (rng.choice([-128, 127], (m, k)) if extreme else rng.integers(-128, 128, (m, k))).astype(np.int8) * mask
    w = w.astype(np.int8)
    x = (rng.choice([0, 255], (n, k)) if extreme else rng.integers(0, 256, (n, k))).astype(np.uint8)
    scale = rng.uniform(1e-4, 1e-2, m).astype(np.float32)
    panels = to_panels(target, x, quantized=True)
    method = "dense" if dense else "pattern"
    uses = spmm.plan_spmm(target.isa, n, w, (), constant_quantization(w, zero, scale, None), "", method)
    got, _ = run_uses(target, uses, [panels, w], (n, m))
    np.testing.assert_array_equal(got, quantized_reference(x, w, zero, scale))


@TILES
@pytest.mark.parametrize(("m", "n"), [(28, 16), (64, 37), (100, 5)])
def test_int8_to_panels_of_the_next_layer(target, m, n):
    rng = np.random.default_rng([m, n])
    w = rng.integers(-127, 128, (m, 64)).astype(np.int8)
    x = rng.integers(0, 256, (n, 64)).astype(np.uint8)
    scale = rng.uniform(1e-4, 1e-3, m).astype(np.float32)
    how = Quantized(0.25, 99)
    uses = spmm.plan_spmm(
        target.isa, n, w, (EpilogueOp("relu"),), constant_quantization(w, 0, scale, None), "", "pattern", (how,)
    )
    panels = to_panels(target, x, quantized=True)
    got, _ = run_uses(target, uses, [panels, w], panel_shape(n, m, True), "uint8")
    y = np.maximum(quantized_reference(x, w, 0, scale), 0)
    want = integer.quantize(y, integer.inverse(how.scale), how.zero_point, "uint8")
    np.testing.assert_array_equal(rows_of(got, m)[:n], want)


@TILES
@SWEEP
@given(
    m=st.integers(1, 20),
    n=st.integers(1, 40),
    ops=st.sampled_from([(), ("bias", "add"), ("bias", "gelu_erf", "mul")]),
    count=st.integers(1, 3),
    big=st.booleans(),
)
def test_layouts_of_one_output(target, m, n, ops, count, big):
    """Panels of floats, and of bytes for two readers that quantize differently; the sums overflow a byte far."""
    rng = np.random.default_rng([m, n, count])
    m *= 4
    w = rng.integers(-127, 128, (m, 32)).astype(np.int8)
    x = rng.integers(0, 256, (n, 32)).astype(np.uint8)
    scale = np.full(m, 1e9 if big else 2e-4, np.float32)
    epilogue = tuple(EpilogueOp(kind) for kind in ops)
    tensors = [rng.standard_normal((m,) if op.kind == "bias" else (n, m)).astype(np.float32) for op in epilogue
               if op.takes_operand]  # fmt: skip
    in_panels = [t if t.ndim == 1 else to_panels(target, t, quantized=False) for t in tensors]
    layouts = (Quantized(0.25, 99), PANELS, Quantized(0.07, 0))[:count]
    kinds = ["float32" if how == PANELS else "uint8" for how in layouts]
    shapes = [(panel_shape(n, m, kind == "uint8"), kind) for kind in kinds]
    quantization = constant_quantization(w, 0, scale, None)
    uses = spmm.plan_spmm(target.isa, n, w, epilogue, quantization, "", "pattern", layouts)
    operands = [to_panels(target, x, quantized=True), w, *in_panels]
    got, _ = run_outputs(target, uses, operands, shapes)
    want = apply_epilogue(quantized_reference(x, w, 0, scale), epilogue, tensors, 1)
    for how, array in zip(layouts, got, strict=True):
        if how == PANELS:
            floats = array.transpose(0, 2, 1).reshape(-1, m)[:n]
            assert np.abs(floats - want).max() <= 1e-6 * np.abs(want).max()
        else:
            exact = integer.quantize(want.astype(np.float32), integer.inverse(how.scale), how.zero_point, "uint8")
            difference = np.abs(rows_of(array, m)[:n].astype(int) - exact)
            assert difference.max() <= ("gelu_erf" in ops)
            assert (difference > 0).mean() <= 1e-2


@TILES
def test_tensors_larger_than_caches(target):
    """Stored past the caches, and read ahead: the same values as of few columns."""
    rng = np.random.default_rng(6)
    m, n = 256, 4200
    w, x = pruned(rng, m, 4, 0.5), rng.standard_normal((n, 4)).astype(np.float32)
    add, gamma = rng.standard_normal((n, m)).astype(np.float32), rng.standard_normal(m).astype(np.float32)
    outputs = []
    for columns in (n, 64):
        operands = [to_panels(target, a[:columns], quantized=False) for a in (x, add)]
        uses = spmm.plan_spmm(target.isa, columns, w, (EpilogueOp("add"),), None, "", layouts=(PANELS,))
        shape = panel_shape(columns, m, False)
        sums, _ = run_uses(target, uses, [operands[0], w, operands[1]], shape)
        uses = norm.plan_layer_norm_panels(target.isa, columns, m, 1e-5, (PANELS,))
        outputs.append((sums, run_uses(target, uses, [sums, gamma, gamma], shape)[0]))
    for large, small in zip(*outputs, strict=True):
        np.testing.assert_array_equal(large[:4], small)
    assert np.abs(outputs[0][0].transpose(0, 2, 1).reshape(-1, m)[:n] - (x @ w.T + add)).max() < 1e-5


@TILES
@pytest.mark.parametrize("kind", ["sigmoid", "tanh", "silu", "gelu_erf", "gelu_tanh", "hard_swish", "relu"])
def test_vector_activations(target, kind):
    """Error relative to |x| near 0 and to the result far from it; NaN stays, huge values have their limits."""
    x = np.concatenate(
        [np.linspace(-12, 12, 4096), np.geomspace(1e-30, 1, 512), [-1e30, 1e30, -700, np.nan, 5.5, -5.5]]
    )
    x = x.astype(np.float32)[:, None]
    w = np.ones((1, 1), np.float32)
    uses = spmm.plan_spmm(target.isa, len(x), w, (EpilogueOp(kind),), None, "")
    got, _ = run_uses(target, uses, [to_panels(target, x, quantized=False), w], x.shape)
    with np.errstate(over="ignore"):
        want = ACTIVATIONS[kind](x.astype(np.float64))
    assert (np.isnan(got) == np.isnan(x)).all()
    at_zero = ACTIVATIONS[kind](np.float64(0))
    allowed = 1e-6 * np.minimum(np.abs(x), 1) + 5e-7 * np.abs(want - at_zero) + 2e-7 * abs(at_zero)
    excess = np.nan_to_num(np.abs(got - want) - allowed, nan=-1)
    assert excess.max() <= 0, x[np.argmax(excess)]


@TILES
@pytest.mark.parametrize(("n", "features"), [(16, 16), (37, 20), (5, 771), (64, 1)])
def test_rows_of_panels(target, n, features):
    x = np.random.default_rng(2).standard_normal((n, features)).astype(np.float32)
    panels = to_panels(target, x, quantized=False)
    got, _ = run_uses(target, spmm.plan_rows(target.isa, n, features), [panels], x.shape)
    np.testing.assert_array_equal(got, x)


@TILES
@pytest.mark.parametrize(("n", "features"), [(16, 4), (37, 20), (5, 768), (48, 36)])
def test_layer_norm_of_panels(target, n, features):
    rng = np.random.default_rng([n, features])
    x = (3 + rng.standard_normal((n, features))).astype(np.float32)
    x[0] += 30
    gamma, beta = (rng.standard_normal(features).astype(np.float32) for _ in range(2))
    hows = (Quantized(0.02, 100), Quantized(0.05, 3))
    panels = to_panels(target, x, quantized=False)
    uses = norm.plan_layer_norm_panels(target.isa, n, features, 1e-5, (hows[0], PANELS, hows[1]))
    shapes = [(panel_shape(n, features, kind == "uint8"), kind) for kind in ("uint8", "float32", "uint8")]
    (first, floats, second), _ = run_outputs(target, uses, [panels, gamma, beta], shapes)
    floats = floats.transpose(0, 2, 1).reshape(-1, features)[:n]
    exact = x.astype(np.float64) - x.astype(np.float64).mean(-1, keepdims=True)
    want = exact / np.sqrt((exact**2).mean(-1, keepdims=True) + 1e-5) * gamma + beta
    assert np.abs(floats - want).max() <= 2e-5 * np.abs(want).max()
    for how, array in zip(hows, (first, second), strict=True):
        same = integer.quantize(floats, integer.inverse(how.scale), how.zero_point, "uint8")
        np.testing.assert_array_equal(rows_of(array, features)[:n], same)


@TILES
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("after", [(), (EpilogueOp("add"), EpilogueOp("fake_quantize"))])
def test_through_8_bits_and_back(target, dtype, after):
    """Before and behind a residual, and in rows and panels alike."""
    rng = np.random.default_rng(5)
    w = rng.integers(-127, 128, (60, 64)).astype(np.int8)
    x = rng.integers(0, 256, (37, 64)).astype(np.uint8)
    scale = rng.uniform(1e-4, 1e-3, 60).astype(np.float32)
    residual = rng.standard_normal((37, 60)).astype(np.float32)
    numbers = fake_quantize_operand(0.11, 3, dtype)
    extra = [numbers, residual, numbers] if after else [numbers]
    how = constant_quantization(w, 9, scale, None)
    uses = spmm.plan_spmm(target.isa, 37, w, (EpilogueOp("fake_quantize"), *after), how, "")
    got, _ = run_uses(target, uses, [to_panels(target, x, quantized=True), w, *extra], (37, 60))
    want = integer.round_trip(quantized_reference(x, w, 9, scale), 0.11, 3, dtype)
    if after:
        want = integer.round_trip(want + residual, 0.11, 3, dtype)
    np.testing.assert_array_equal(got, want)


@TILES
def test_signed_activations_move_up(target):
    x = np.random.default_rng(0).integers(-128, 128, (37, 24)).astype(np.int8)
    panels = to_panels(target, x.view(np.uint8), quantized=True, signed=True)
    want = (x.astype(np.int16) + 128).astype(np.uint8)
    np.testing.assert_array_equal(rows_of(panels, 24)[:37], want)


@TILES
@pytest.mark.parametrize("n", [700, 33])
def test_runs_of_columns(target, n):
    rng = np.random.default_rng(1)
    w, x = pruned(rng, 60, 900, 0.1), rng.standard_normal((n, 900)).astype(np.float32)
    uses = spmm.plan_spmm(target.isa, n, w, (), None, "")
    got, _ = run_uses(target, uses, [to_panels(target, x, quantized=False), w], (n, 60), cuts=4)
    np.testing.assert_allclose(got, x.astype(np.float64) @ w.T, atol=1e-4)


@TILES
@pytest.mark.parametrize("layouts", [(ROWS,), (PANELS,)])
@pytest.mark.parametrize(("m", "k", "n", "calls"), [(60, 2900, 200, 3), (29, 3001, 90, 2), (28, 1281, 137, 2)])
def test_depth_in_parts(target, m, k, n, calls, layouts):
    """Sums that are kept between calls; whole row blocks of a part may be empty."""
    rng = np.random.default_rng([m, k])
    w, x = pruned(rng, m, k, 0.05), rng.standard_normal((n, k)).astype(np.float32)
    w[:28, 1300:] = 0
    ops = (EpilogueOp("bias"), EpilogueOp("relu"))
    bias = rng.standard_normal(m).astype(np.float32)
    uses = spmm.plan_spmm(target.isa, n, w, ops, None, "", layouts=layouts)
    assert len(uses) == calls
    shape = (n, m) if layouts == (ROWS,) else panel_shape(n, m, False)
    got, _ = run_uses(target, uses, [to_panels(target, x, quantized=False), w, bias], shape, cuts=4)
    got = got if layouts == (ROWS,) else got.transpose(0, 2, 1).reshape(-1, m)[:n]
    np.testing.assert_allclose(got, np.maximum(x.astype(np.float64) @ w.T + bias, 0), atol=1e-4)


@pytest.mark.parametrize("target", tile_targets("blended_u8s8"))
@SWEEP
@given(
    m=st.integers(1, 70),
    k=st.integers(1, 40),
    n=st.integers(1, 60),
    zero=st.sampled_from([0, 7, 128, 255]),
    density=st.sampled_from([0.0, 0.03, 0.2, 0.5, 1.0]),
    extreme=st.booleans(),
)
def test_blended_int8_is_exact(target, m, k, n, zero, density, extreme):
    rng = np.random.default_rng([m, k, n, zero])
    k *= 4
    w = rng.choice([-128, 127], (m, k)) if extreme else rng.integers(-128, 128, (m, k))
    w = (w * (rng.random((m, k)) < density)).astype(np.int8)
    x = (rng.choice([0, 255], (n, k)) if extreme else rng.integers(0, 256, (n, k))).astype(np.uint8)
    scale = rng.uniform(1e-4, 1e-2, m).astype(np.float32)
    uses = spmm.plan_panels(target.isa, n, k, quantized=True, signed=False)
    panels, _ = run_uses(target, uses, [x], panel_shape(n, k, True), "uint8")
    uses = spmm.plan_spmm(target.isa, n, w, (), constant_quantization(w, zero, scale, None), "", "blend")
    got, _ = run_uses(target, uses, [panels, w], (n, m))
    np.testing.assert_array_equal(got, quantized_reference(x, w, zero, scale))


@TILES
@SWEEP
@given(
    m=st.integers(1, 60),
    k=st.integers(1, 12),
    n=st.integers(1, 40),
    zero=st.sampled_from([0, 128, 255]),
    most=st.integers(0, 4),
    extreme=st.booleans(),
)
def test_four_of_eight_is_exact(target, m, k, n, zero, most, extreme):
    rng = np.random.default_rng([m, k, n, zero])
    kept = rng.random((m, k, 8)).argsort(2) < most
    w = rng.choice([-128, 127], kept.shape) if extreme else rng.integers(-128, 128, kept.shape)
    w = (w * kept).astype(np.int8).reshape(m, 8 * k)
    x = (rng.choice([0, 255], (n, 8 * k)) if extreme else rng.integers(0, 256, (n, 8 * k))).astype(np.uint8)
    scale = rng.uniform(1e-4, 1e-2, m).astype(np.float32)
    assert n_of_m.fits(w)
    panels = to_panels(target, x, quantized=True)
    uses = n_of_m.plan_n_of_m(target.isa, n, w, (), constant_quantization(w, zero, scale, None), "")
    got, _ = run_uses(target, uses, [panels, w], (n, m))
    np.testing.assert_array_equal(got, quantized_reference(x, w, zero, scale))


def test_what_is_not_four_of_eight():
    assert not n_of_m.fits(np.ones((3, 12), np.int8))
    assert not n_of_m.fits(np.repeat(np.array([[1, 0]], np.int8), [5, 3], axis=1))


@TILES
@SWEEP
@given(
    m=st.integers(1, 60),
    k=st.sampled_from([1, 3, 40, 700]),
    n=st.sampled_from([1, 16, 40, 64, 100]),
    zero=st.sampled_from([0, 128, 255]),
    density=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
    shared=st.sampled_from(indexed.SHARED),
    extreme=st.booleans(),
)
def test_indexed_int8_is_exact(target, m, k, n, zero, density, shared, extreme):
    """Also where two units are farther apart than a byte counts."""
    rng = np.random.default_rng([m, k, n, zero])
    kept = (rng.random((-(-m // shared), k)) < density).repeat(shared, 0)[:m].repeat(4, 1)
    w = rng.choice([-128, 127], kept.shape) if extreme else rng.integers(-128, 128, kept.shape)
    w = (w * kept).astype(np.int8)
    x = (rng.choice([0, 255], (n, 4 * k)) if extreme else rng.integers(0, 256, (n, 4 * k))).astype(np.uint8)
    scale = rng.uniform(1e-4, 1e-2, m).astype(np.float32)
    panels = to_panels(target, x, quantized=True)
    how = constant_quantization(w, zero, scale, None)
    got, _ = run_uses(target, indexed.plan_indexed(target.isa, n, w, (), how, "", shared), [panels, w], (n, m))
    np.testing.assert_array_equal(got, quantized_reference(x, w, zero, scale))


@TILES
@pytest.mark.parametrize("shared", indexed.SHARED)
@pytest.mark.parametrize(("m", "k", "n"), [(61, 37, 100), (4, 600, 16), (30, 20, 7)])
def test_indexed_float(target, m, k, n, shared):
    rng = np.random.default_rng([m, k, n])
    w, x = pruned(rng, m, k, 0.1), rng.standard_normal((n, k)).astype(np.float32)
    bias = rng.standard_normal(m).astype(np.float32)
    ops = (EpilogueOp("bias"), EpilogueOp("relu"))
    uses = indexed.plan_indexed(target.isa, n, w, ops, None, "", shared)
    got, _ = run_uses(target, uses, [to_panels(target, x, quantized=False), w, bias], (n, m))
    want = apply_epilogue(x.astype(np.float64) @ w.T, ops, [bias], 1)
    assert np.abs(got - want).max() <= 4e-6 * max(np.abs(want).max(), 1)
