"""Activations between quantized tensors: tables, bit for bit what their definition says."""

from __future__ import annotations

import numpy as np
import pytest
from harness import host_targets, run_outputs
from reference import ACTIVATIONS

from sparsec.codegen_templates import integer, spmm
from sparsec.codegen_templates.epilogue import FUNCTIONS, EpilogueOp, fake_quantize_operand
from sparsec.codegen_templates.layout import PANELS, ROWS, Quantized, panel_shape
from sparsec.codegen_templates.tile_epilogue import constant_quantization
from sparsec.compiler.lower.tables import through_tables

AVX512 = pytest.mark.parametrize("target", [p for p in host_targets() if p.values[0].isa == "avx512"])
ROUND_TRIP = EpilogueOp("fake_quantize")
OPS = [EpilogueOp("leaky_relu", (0.1,)), EpilogueOp("clip", (-0.5, 1.5)), EpilogueOp("scale", (3.0,))]
OPS += [EpilogueOp(kind) for kind in ACTIVATIONS]


def in_groups(x: np.ndarray) -> np.ndarray:
    """Rows of bytes in panels."""
    panels = np.zeros((-(-len(x) // 16), 16, x.shape[1] // 4, 4), np.uint8)
    panels.reshape(-1, x.shape[1])[: len(x)] = x
    return np.ascontiguousarray(panels.transpose(0, 2, 1, 3))


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_functions(kind):
    x = np.linspace(-9, 9, 999)
    np.testing.assert_allclose(FUNCTIONS[kind](x), ACTIVATIONS[kind](x), rtol=1e-12, atol=1e-12)


@AVX512
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("functions", [(op,) for op in OPS] + [(EpilogueOp("silu"), EpilogueOp("relu"))])
def test_exact(target, functions, dtype):
    rng = np.random.default_rng(5)
    m, n, k = 32, 37, 16
    w, x = rng.integers(-127, 128, (m, k)).astype(np.int8), rng.integers(0, 256, (n, k)).astype(np.uint8)
    bias = rng.standard_normal(m).astype(np.float32)
    between, hows = (0.04, 100 if dtype == "uint8" else -28, dtype), (Quantized(0.02, 7), Quantized(0.05, 90))
    numbers = fake_quantize_operand(*between)
    epilogue = (EpilogueOp("bias"), ROUND_TRIP, *functions)
    rest, layouts = through_tables(epilogue, hows, [bias, numbers])
    assert rest == (EpilogueOp("bias"),)
    quantization = constant_quantization(w, 120, np.full(m, 2e-4, np.float32), None)
    uses = spmm.plan_spmm(target.isa, n, w, rest, quantization, "", "dense", layouts)
    shapes = [(panel_shape(n, m, True), "uint8") for _ in hows]
    got, _ = run_outputs(target, uses, [in_groups(x), w, bias], shapes)
    sums = integer.rescale(integer.accumulate(x, 120, w.T, 0), np.float32(2e-4)) + bias
    y = integer.round_trip(sums, *between).astype(np.float64)
    for op in functions:
        y = FUNCTIONS[op.kind](y, *op.params)
    for how, array in zip(hows, got, strict=True):
        want = integer.quantize(y.astype(np.float32), integer.inverse(how.scale), how.zero_point, "uint8")
        rows = array.transpose(0, 2, 1, 3).reshape(-1, m)
        np.testing.assert_array_equal(rows[:n], want)


@pytest.mark.parametrize(
    ("epilogue", "layouts"),
    [
        ((ROUND_TRIP,), (Quantized(1, 0),)),
        ((EpilogueOp("relu"),), (Quantized(1, 0),)),
        ((ROUND_TRIP, EpilogueOp("relu")), (ROWS,)),
        ((ROUND_TRIP, EpilogueOp("relu")), (Quantized(1, 0), PANELS)),
        ((ROUND_TRIP, EpilogueOp("bias")), (Quantized(1, 0),)),
        ((ROUND_TRIP, EpilogueOp("relu"), EpilogueOp("add")), (Quantized(1, 0),)),
    ],
)
def test_what_stays(epilogue, layouts):
    tensors = [fake_quantize_operand(0.1, 3, "uint8")] * 2
    assert through_tables(epilogue, layouts, tensors) == (epilogue, layouts)
