"""The numpy definition of integer layers against onnxruntime's operators."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper

from sparsec.codegen_templates import integer


def run_node(op: str, outputs: int, *arrays: np.ndarray) -> list[np.ndarray]:
    names = [f"i{k}" for k in range(len(arrays))]
    outs = [f"o{k}" for k in range(outputs)]
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in zip(names, arrays, strict=True)
    ]
    types = [helper.make_empty_tensor_value_info(o) for o in outs]
    graph = helper.make_graph([helper.make_node(op, names, outs)], "one", inputs, types)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip(names, arrays, strict=True)))


@pytest.mark.parametrize(("x_type", "w_type"), [("uint8", "int8"), ("uint8", "uint8"), ("int8", "int8")])
def test_sums(x_type, w_type):
    rng = np.random.default_rng(0)
    x = rng.integers(np.iinfo(x_type).min, np.iinfo(x_type).max + 1, (3, 5, 301)).astype(x_type)
    w = rng.integers(np.iinfo(w_type).min, np.iinfo(w_type).max + 1, (301, 7)).astype(w_type)
    xz, wz = np.array(17, x_type), np.array(99, w_type)
    (want,) = run_node("MatMulInteger", 1, x, w, xz, wz)
    np.testing.assert_array_equal(integer.accumulate(x, xz, w, wz), want)


def test_sums_wrap():
    assert integer.wrapped(np.array([2**31, -(2**31) - 1, 2**32 + 5])).tolist() == [-(2**31), 2**31 - 1, 5]


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_quantization(dtype):
    """Powers of two, where a reciprocal is exact, ties included; infinities saturate."""
    x = np.array([*np.arange(-300, 300, 0.25), np.inf, -np.inf, 1e30, -1e30], np.float32)
    zero = np.array(3, dtype)
    (want,) = run_node("QuantizeLinear", 1, x, np.array(0.5, np.float32), zero)
    np.testing.assert_array_equal(integer.quantize(x, integer.inverse(0.5), 3, dtype), want)
    (want,) = run_node("DequantizeLinear", 1, want, np.array(0.3, np.float32), zero)
    np.testing.assert_array_equal(integer.round_trip(x, 0.5, 3, dtype) / 0.5, (want / np.float32(0.3)).round())


@pytest.mark.parametrize("low", [-3.0, 0.5, -7.5])
def test_dynamic_parameters(low):
    x = np.random.default_rng(1).uniform(low, low + 5, (4, 9)).astype(np.float32)
    q, scale, zero = run_node("DynamicQuantizeLinear", 3, x)
    got_scale, got_zero = integer.dynamic_parameters(x)
    assert got_scale == scale
    assert got_zero == zero
    np.testing.assert_array_equal(integer.quantize_linear(x, scale, int(zero), "uint8"), q)


def test_tables_keep_bit_patterns():
    table = integer.table(np.negative, (1.0, 0, "int8"), (1.0, 0, "int8"))
    assert table.view(np.int8)[[1, 255, 128]].tolist() == [-1, 1, 127]
