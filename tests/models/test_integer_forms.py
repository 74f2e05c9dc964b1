"""Integer layers in every form that users hold, built for every target of this machine, against onnxruntime."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest
from generators.bert import BertConfig, bert
from generators.graph import FORMS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

import sparsec
from sparsec.compiler.target import TARGETS, host_features
from sparsec.compiler.tools.verify import compare, reference, verify
from sparsec.runtime_stub.cpu import host_machine
from sparsec.runtime_stub.inputs import random_inputs

HERE = [
    name
    for name, target in TARGETS.items()
    if target.machine == host_machine() and host_features().issuperset(target.requires)
]
TARGET = pytest.mark.parametrize("target", HERE)
INTEGER = ("qgemm", "u8s8", "attention_u8", "qconv")
SWEEP = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


class Model:
    """Nodes and constants; every op gives the name of its first output."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(seed)

    def constant(self, array) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def op(self, kind: str, *inputs, outputs: int = 1, domain: str = "", **attrs) -> str:
        names = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        outs = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, names, outs, domain=domain, **attrs))
        return outs[0]

    def weights(self, k: int, n: int, dtype: str = "int8") -> np.ndarray:
        limits = np.iinfo(dtype)
        return self.rng.integers(limits.min, limits.max + 1, (k, n)).astype(dtype)

    def model(self, shape, *outputs: str, dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
        inputs = [helper.make_tensor_value_info("x", dtype, shape)]
        results = [helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = helper.make_graph(self.nodes, "forms", inputs, results, self.constants)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def check(model: onnx.ModelProto, target: str, folder, x: np.ndarray, tolerance: float = 1e-5) -> Counter:
    """Builds and compares with onnxruntime; the kernels that were used."""
    path = sparsec.build(model, target=target, output=folder / "model.so")
    with sparsec.load(path) as loaded:
        got = loaded.run({"x": x})
        kernels = Counter(layer["kernel"] for layer in loaded.manifest["layers"])
    want = reference(model, {"x": x}, list(got))
    for name, value in got.items():
        row = compare(name, value, want[name], tolerance)
        assert row.ok, row
    return kernels


def integer_kernels(kernels: Counter) -> int:
    return sum(count for name, count in kernels.items() if any(part in name for part in INTEGER))


@TARGET
@SWEEP
@given(
    shape=st.sampled_from([(5, 8), (2, 19, 12), (1, 2, 3, 7), (33, 1)]),
    n=st.integers(1, 40),
    dtype=st.sampled_from(["uint8", "int8"]),
    w_dtype=st.sampled_from(["uint8", "int8"]),
    per_channel=st.booleans(),
    transposed=st.booleans(),
    bias=st.sampled_from(["none", "float", "int32"]),
    out=st.booleans(),
    zero=st.sampled_from([0, 3, 100]),
    w_zero=st.sampled_from([0, 5, 120]),
)
def test_qdq(target, tmp_path_factory, shape, n, dtype, w_dtype, per_channel, transposed, bias, out, zero, w_zero):
    m = Model(n)
    k = shape[-1]
    transposed = transposed and len(shape) == 2
    x_scale = np.float32(0.05)
    w_scale = m.rng.uniform(1e-3, 1e-2, n if per_channel else ()).astype(np.float32)
    zeros = np.full(w_scale.shape, w_zero, w_dtype)
    how = (np.array(x_scale), np.array(zero, dtype))
    x = m.op("DequantizeLinear", m.op("QuantizeLinear", "x", *how), *how)
    w = m.weights(k, n, w_dtype)
    w = m.op("DequantizeLinear", w.T if transposed else w, w_scale, zeros, axis=0 if transposed else 1)
    steps = m.rng.integers(-3000, 3000, n).astype(np.int32)
    added = (steps * x_scale * w_scale).astype(np.float32)
    if bias == "int32":
        unit = np.broadcast_to(x_scale * w_scale, (n,)).astype(np.float32)
        added = m.op("DequantizeLinear", steps, unit, np.zeros(n, np.int32), axis=0)
    if transposed:
        y = m.op("Gemm", x, w, *([] if bias == "none" else [added]), transB=1)
    else:
        y = m.op("MatMul", x, w)
        y = y if bias == "none" else m.op("Add", y, added)
    if out:
        y_how = (np.array(0.2, np.float32), np.array(7, dtype))
        y = m.op("Relu", m.op("DequantizeLinear", m.op("QuantizeLinear", y, *y_how), *y_how))
    data = (m.rng.standard_normal(shape) * 4).astype(np.float32)
    model = m.model(shape, y)
    tolerance = 0.2 / 40 if out else 1e-5
    kernels = check(model, target, tmp_path_factory.mktemp("qdq"), data, tolerance)
    assert integer_kernels(kernels) == 1, kernels


def dynamic(m: Model, w_dtype: str, bias: bool) -> str:
    """As onnxruntime.quantization.quantize_dynamic writes it."""
    w, w_scale = (
        m.weights(24, 30, w_dtype),
        m.rng.uniform(1e-3, 1e-2, 30 if w_dtype == "int8" else ()).astype(np.float32),
    )
    q = m.op("DynamicQuantizeLinear", "x", outputs=3)
    scale, zero = q.replace("_0", "_1"), q.replace("_0", "_2")
    product = m.op("MatMulInteger", q, w, zero, np.full(w_scale.shape, 0 if w_dtype == "int8" else 117, w_dtype))
    y = m.op("Mul", m.op("Cast", product, to=TensorProto.FLOAT), m.op("Mul", scale, w_scale))
    return m.op("Add", y, m.rng.standard_normal(30).astype(np.float32)) if bias else y


@TARGET
@pytest.mark.parametrize("w_dtype", ["int8", "uint8"])
@pytest.mark.parametrize("bias", [False, True])
def test_dynamic(target, tmp_path, w_dtype, bias):
    m = Model()
    y = dynamic(m, w_dtype, bias)
    x = np.random.default_rng(1).standard_normal((2, 21, 24)).astype(np.float32)
    kernels = check(m.model(x.shape, y), target, tmp_path, x, 2e-3)
    assert integer_kernels(kernels) == 1, kernels
    assert any("dynamic_quantize" in name for name in kernels)


@TARGET
def test_three_forms_of_one_network(target, tmp_path):
    """Same kernels, and results that differ by what the forms round differently."""
    small = BertConfig(layers=1, hidden=32, heads=2, inner=48, vocabulary=50, seq=19, quantized=True)
    results, kernels = {}, {}
    for form in FORMS:
        source = tmp_path / f"{form}.onnx"
        onnx.save(bert(replace(small, form=form)), str(source))
        path = sparsec.build(source, target=target, output=tmp_path / f"{form}.so")
        report = verify(source, path)
        assert report.ok, [row for row in report.rows if not row.ok]
        with sparsec.load(path) as loaded:
            results[form] = loaded.run(random_inputs(loaded.manifest))["start_logits"]
            kernels[form] = Counter(layer["kernel"] for layer in loaded.manifest["layers"])
    assert kernels["qdq"] == kernels["full_qdq"] == kernels["integer"]
    assert (results["qdq"] != results["full_qdq"]).any()


@TARGET
@pytest.mark.parametrize("form", ["MatMulIntegerToFloat", "DynamicQuantizeMatMul"])
def test_fused_dynamic(target, tmp_path, form):
    m = Model()
    w, scale, bias = m.weights(24, 30), m.rng.uniform(1e-3, 1e-2, 30).astype(np.float32), np.ones(30, np.float32)
    zeros = np.zeros(30, np.int8)
    if form == "DynamicQuantizeMatMul":
        y = m.op(form, "x", w, scale, zeros, bias, domain="com.microsoft")
    else:
        q = m.op("DynamicQuantizeLinear", "x", outputs=3)
        how = q.replace("_0", "_1"), q.replace("_0", "_2")
        y = m.op(form, q, w, how[0], scale, how[1], zeros, bias, domain="com.microsoft")
    x = np.random.default_rng(1).standard_normal((2, 21, 24)).astype(np.float32)
    kernels = check(m.model(x.shape, y), target, tmp_path, x, 2e-3)
    assert integer_kernels(kernels) == 1, kernels


@TARGET
@pytest.mark.parametrize("form", ["QLinearMatMul", "QGemm", "QGemm_float"])
def test_qoperator(target, tmp_path, form):
    m = Model()
    how = np.array(0.04, np.float32), np.array(120, np.uint8)
    q = m.op("QuantizeLinear", "x", *how)
    w, scale = m.weights(22, 30), np.array(0.005, np.float32)
    out = np.array(0.1, np.float32), np.array(100, np.uint8)
    if form == "QLinearMatMul":
        y = m.op(form, q, *how, w, scale, np.int8(0), *out)
    else:
        steps = m.rng.integers(-9000, 9000, 30).astype(np.int32)
        operands = [q, *how, np.ascontiguousarray(w.T), scale, np.array(0, np.int8), steps]
        y = m.op("QGemm", *operands, *(out if form == "QGemm" else ()), transB=1, domain="com.microsoft")
    x = np.random.default_rng(1).standard_normal((21, 22)).astype(np.float32)
    kernels = check(m.model(x.shape, y), target, tmp_path, x)
    assert integer_kernels(kernels) == 1, kernels


@TARGET
def test_integers_that_are_read_as_such_too(target, tmp_path):
    """A transpose of 8 bits before a product; 8-bit results that are outputs beside what is computed of them."""
    m = Model()
    how = np.array(0.04, np.float32), np.array(120, np.uint8)
    out = np.array(0.1, np.float32), np.array(100, np.uint8)
    q = m.op("Transpose", m.op("QuantizeLinear", "x", *how), perm=[1, 0])
    scale = m.rng.uniform(1e-3, 1e-2, 30).astype(np.float32)
    y = m.op("QLinearMatMul", q, *how, m.weights(22, 30), scale, np.zeros(30, np.int8), *out)
    z = m.op("Relu", m.op("Add", m.op("DequantizeLinear", y, *out), np.ones(30, np.float32)))
    x = np.random.default_rng(1).standard_normal((22, 21)).astype(np.float32)
    kernels = check(m.model(x.shape, y, z), target, tmp_path, x, 0.1 / 10)
    assert integer_kernels(kernels) == 1, kernels


@TARGET
def test_qoperator_elementwise(target, tmp_path):
    m = Model()
    a = np.array(0.04, np.float32), np.array(120, np.uint8)
    b = np.array(0.03, np.float32), np.array(99, np.uint8)
    ms = {"domain": "com.microsoft"}
    q = m.op("QuantizeLinear", "x", *a)
    outputs = [
        m.op("QLinearAdd", q, *a, q, *a, *b, **ms),
        m.op("QLinearMul", q, *a, q, *a, *b, **ms),
        m.op("QLinearSigmoid", q, *a, np.array(1 / 255, np.float32), np.array(0, np.uint8), **ms),
        m.op("QLinearLeakyRelu", q, *a, *b, alpha=0.2, **ms),
        m.op("QLinearSoftmax", q, *a, np.array(1 / 256, np.float32), np.array(0, np.uint8), axis=-1, opset=13, **ms),
        m.op("QLinearConcat", *b, q, *a, q, *a, axis=1, **ms),
        m.op("QLinearGlobalAveragePool", q, *a, *b, channels_last=0, **ms),
        m.op("QLinearAveragePool", q, *a, *b, kernel_shape=[2, 2], **ms),
    ]
    x = np.random.default_rng(1).standard_normal((2, 6, 9, 7)).astype(np.float32)
    check(m.model(x.shape, *outputs), target, tmp_path, x)


@TARGET
@pytest.mark.parametrize("form", ["QLinearConv", "ConvInteger"])
def test_convolutions(target, tmp_path, form):
    m = Model()
    how = np.array(0.04, np.float32), np.array(120, np.uint8)
    q = m.op("QuantizeLinear", "x", *how)
    w = m.rng.integers(-127, 128, (10, 6, 3, 3)).astype(np.int8)
    scale = m.rng.uniform(1e-3, 5e-3, 10).astype(np.float32)
    steps = m.rng.integers(-9000, 9000, 10).astype(np.int32)
    attrs = {"pads": [1, 1, 1, 1], "strides": [2, 1]}
    if form == "QLinearConv":
        out = np.array(0.1, np.float32), np.array(100, np.uint8)
        y = m.op(form, q, *how, w, scale, np.zeros(10, np.int8), *out, steps, **attrs)
    else:
        total = m.op("Add", m.op(form, q, w, how[1], np.int8(0), **attrs), steps.reshape(1, 10, 1, 1))
        factor = (how[0] * scale).astype(np.float32).reshape(1, 10, 1, 1)
        y = m.op("Mul", m.op("Cast", total, to=TensorProto.FLOAT), factor)
    x = np.random.default_rng(1).standard_normal((2, 6, 9, 7)).astype(np.float32)
    check(m.model(x.shape, y), target, tmp_path, x)


@TARGET
@pytest.mark.parametrize("stored", ["cast", "dequantize"])
def test_weights_alone_quantized(target, tmp_path, stored):
    """Floats meet them: dequantized at build time, and as fast as a float layer."""
    m = Model()
    w, scale = m.weights(24, 30), m.rng.uniform(1e-3, 1e-2, 30).astype(np.float32)
    if stored == "cast":
        w = m.op("Mul", m.op("Cast", w, to=TensorProto.FLOAT), scale)
    else:
        w = m.op("DequantizeLinear", w, scale, np.zeros(30, np.int8), axis=1)
    x = np.random.default_rng(1).standard_normal((2, 21, 24)).astype(np.float32)
    kernels = check(m.model(x.shape, m.op("MatMul", "x", w)), target, tmp_path, x)
    assert sum(count for name, count in kernels.items() if name.startswith(("gemm_f32", "indexed4_f32"))) == 1, kernels


@pytest.mark.parametrize("order", ["gather first", "dequantize first"])
def test_tables_stay_integers(tmp_path, order):
    m = Model()
    table = m.weights(500, 64)
    how = np.array(0.02, np.float32), np.array(3, np.int8)
    if order == "gather first":
        y = m.op("DequantizeLinear", m.op("Gather", table, "x"), *how)
    else:
        y = m.op("Gather", m.op("DequantizeLinear", table, *how), "x")
    x = np.random.default_rng(1).integers(0, 500, (2, 9))
    model = m.model(x.shape, y, dtype=TensorProto.INT64)
    check(model, HERE[0], tmp_path, x)
    with sparsec.load(tmp_path / "model.so") as loaded:
        assert table.nbytes <= loaded.manifest["weights_bytes"] < 2 * table.nbytes


class _Calibration:
    """A few sentences for onnxruntime's quantizer."""

    def __init__(self, config: BertConfig) -> None:
        rng = np.random.default_rng(0)
        shape = (1, config.seq)
        zeros, ones = np.zeros(shape, np.int64), np.ones(shape, np.int64)
        self.rest = [
            {"input_ids": rng.integers(0, config.vocabulary, shape), "attention_mask": ones, "token_type_ids": zeros}
            for _ in range(2)
        ]

    def get_next(self):
        return self.rest.pop() if self.rest else None


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_onnxruntimes_static_quantizer(tmp_path, form):
    """It quantizes every operator it can, signed in one of the forms; each reader dequantizes for itself."""
    small = BertConfig(layers=1, hidden=32, heads=2, inner=48, vocabulary=50, seq=19)
    onnx.save(bert(small), str(tmp_path / "float.onnx"))
    types = {"activation_type": QuantType.QInt8} if form == "QDQ" else {"activation_type": QuantType.QUInt8}
    quantize_static(
        tmp_path / "float.onnx", tmp_path / "model.onnx", _Calibration(small), quant_format=QuantFormat[form],
        weight_type=QuantType.QInt8, **types,
    )  # fmt: skip
    path = sparsec.build(tmp_path / "model.onnx", target=HERE[0], output=tmp_path / "model.so")
    report = verify(tmp_path / "model.onnx", path, per_layer=True)
    assert report.ok, [row for row in report.rows if not row.ok]
    with sparsec.load(path) as loaded:
        kernels = Counter(layer["kernel"] for layer in loaded.manifest["layers"])
    assert integer_kernels(kernels) == 9, kernels  # seven linear layers and two products of activations
