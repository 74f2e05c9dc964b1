"""Layouts between kernels: none changes inside of an encoder, and whatever a graph mixes, its results are the same."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from generators.bert import BertConfig, bert
from onnx import helper, numpy_helper

import sparsec
from sparsec.compiler.graph import Dataflow, op_name
from sparsec.compiler.pipeline import Options, run_until
from sparsec.compiler.target import TARGETS, resolve
from sparsec.runtime_stub.inputs import random_inputs

AVX512 = TARGETS["avx512"]
needs_avx512 = pytest.mark.skipif(resolve("native").isa != "avx512", reason="this CPU has no AVX-512 VNNI")
SMALL = BertConfig(layers=2, hidden=64, heads=2, inner=96, vocabulary=20, seq=24)


def layers_of(model, tmp_path, **dims) -> list:
    c = run_until(model, Options((AVX512,), tmp_path / "unused", dims=dims), "layouts")
    called = [op_name(value) for _, value in Dataflow.of(c.graph).bindings]
    return [c.graph.layers[name] for name in called if name in c.graph.layers]


@pytest.mark.parametrize("form", ["qdq", "integer"])
def test_encoder_has_no_conversions(form, tmp_path):
    """One before the first normalization, one behind the head: no more with two layers than with one."""
    config = replace(SMALL, sparsity=0.8, pattern="1x4", quantized=True, form=form)
    counts = []
    for layers in (1, 2):
        found = layers_of(bert(replace(config, layers=layers)), tmp_path)
        counts.append(Counter(layer.family for layer in found))
    assert counts[0]["panels"] + counts[0]["rows"] <= 2
    assert {k: counts[1][k] for k in ("panels", "rows")} == {k: counts[0][k] for k in ("panels", "rows")}
    assert counts[1]["spmm"] == 13


@pytest.mark.parametrize(
    ("dims", "turned"), [({}, 2), ({"batch": 1, "seq": (1, 40)}, 2), ({"batch": (1, 2), "seq": 40}, 14)]
)
def test_float_encoder_has_no_conversions(dims, turned, tmp_path):
    """Where every batch begins a panel; else attention reads and writes rows."""
    sizes = {"batch": "batch", "seq": "seq"} if dims else {}
    config = replace(SMALL, sparsity=0.9, pattern="unstructured", **sizes)
    found = layers_of(bert(config), tmp_path, **dims)
    counts = Counter(layer.family for layer in found)
    assert counts["float_attention"] == 2
    assert counts["panels"] + counts["rows"] <= turned
    assert [bool(layer.attrs.get("panels")) for layer in found if layer.family == "float_attention"] == [
        turned == 2
    ] * 2


@needs_avx512
@pytest.mark.parametrize("dims", [{"batch": 1, "seq": (1, 40)}, {"batch": (1, 2), "seq": (1, 24)}])
def test_float_encoder_gives_the_same(dims, tmp_path):
    model = bert(replace(SMALL, batch="batch", seq="seq", sparsity=0.9, pattern="unstructured"))
    loaded = sparsec.load(sparsec.build(model, output=tmp_path / "m.so", dims=dims))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for sizes in ({}, {"seq": 17}):
        inputs = random_inputs(loaded.manifest, sizes)
        for name, want in zip(loaded.run(inputs).items(), session.run(None, inputs), strict=True):
            np.testing.assert_allclose(name[1], want, atol=2e-5)


def test_quantizations_are_part_of_the_writer(tmp_path):
    model = bert(replace(SMALL, sparsity=0.8, pattern="1x4", quantized=True))
    c = run_until(model, Options((AVX512,), tmp_path / "unused"), "layouts")
    assert not [v for v, value in Dataflow.of(c.graph).bindings if op_name(value) == "relax.quantize"]


class Net:
    """A few nodes around int8 products, by name."""

    def __init__(self, rng) -> None:
        self.rng, self.nodes, self.constants, self.outputs = rng, [], [], []

    def const(self, array) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def op(self, kind, *inputs, **attrs) -> str:
        name = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attrs))
        return name

    def quantized(self, x, scale=0.05, zero=120, dtype=np.uint8) -> str:
        parts = [self.const(np.float32(scale)), self.const(dtype(zero))]
        return self.op("DequantizeLinear", self.op("QuantizeLinear", x, *parts), *parts)

    def linear(self, x, k, m) -> str:
        w = self.rng.integers(-127, 128, (k, m)).astype(np.int8)
        w = self.op("DequantizeLinear", self.const(w), self.const(np.float32(0.004)), self.const(np.int8(0)))
        bias = self.const(self.rng.standard_normal(m).astype(np.float32))
        return self.op("Add", self.op("MatMul", x, w), bias)

    def norm(self, x, k) -> str:
        gamma, beta = (self.const(self.rng.standard_normal(k).astype(np.float32)) for _ in range(2))
        return self.op("LayerNormalization", x, gamma, beta, axis=-1)

    def model(self, *outputs) -> onnx.ModelProto:
        x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, "n", 16])
        outs = [helper.make_empty_tensor_value_info(o) for o in outputs]
        graph = helper.make_graph(self.nodes, "net", [x], outs, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def mixed(net: Net) -> tuple[str, ...]:
    """A tensor that a product, a sum and an output read; two readers that quantize differently, one of them signed."""
    a = net.linear(net.quantized("x"), 16, 32)
    n = net.norm(a, 32)
    b = net.op("Add", net.linear(net.quantized(n), 32, 32), n)
    c = net.linear(net.quantized(n, 0.03, -4, np.int8), 32, 32)
    return n, net.op("Add", net.norm(b, 32), c)


def odd(net: Net) -> tuple[str, ...]:
    """Features that are no multiple of four, and a tensor that is cut into other columns."""
    a = net.linear(net.quantized("x"), 16, 30)
    b = net.norm(a, 30)
    c = net.linear(net.quantized("x"), 16, 32)
    turned = net.op("Reshape", c, net.const(np.array([2, -1, 16], np.int64)))
    return b, net.linear(net.quantized(turned), 16, 8)


def residual_from_outside(net: Net) -> tuple[str, ...]:
    """A sum with a tensor that no kernel with a choice makes."""
    outside = net.op("Sin", "x")
    a = net.op("Add", net.linear(net.quantized(outside), 16, 16), outside)
    return net.op("Exp", net.norm(a, 16)), net.linear(net.quantized(net.norm(a, 16)), 16, 4)


@needs_avx512
@pytest.mark.parametrize("make", [mixed, odd, residual_from_outside])
def test_results(make, tmp_path):
    net = Net(np.random.default_rng(3))
    model = net.model(*make(net))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    path = sparsec.build(model, output=tmp_path / "net.so", target="avx512", dims={"n": (1, 40)})
    with sparsec.load(path) as ours:
        for n in (1, 8, 21, 40):
            x = np.random.default_rng(n).standard_normal((2, n, 16)).astype(np.float32)
            got = ours.run({"x": x})
            for name, want in zip(got, session.run(list(got), {"x": x}), strict=True):
                assert (np.abs(got[name] - want) > 1e-4 * np.abs(want).max()).mean() < 0.01, (name, n)
