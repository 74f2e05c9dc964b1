"""Attention as exporters spell it, built and compared with onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import sparsec
from sparsec.compiler.pipeline import Options, run_until
from sparsec.compiler.target import resolve

B, H, S, T, D = 2, 3, 10, 20, 8


def model_of(spell, shapes: dict[str, tuple], result: list) -> onnx.ModelProto:
    """A graph whose output `y` is written by `spell(op, constant)`."""
    nodes, constants = [], []

    def op(kind, inputs, **attrs):
        out = "y" if attrs.pop("last", False) else f"t{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [out], **attrs))
        return out

    def constant(value):
        constants.append(numpy_helper.from_array(np.asarray(value, np.float32), f"c{len(constants)}"))
        return constants[-1].name

    spell(op, constant)
    info = helper.make_tensor_value_info
    inputs = [info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "attention", inputs, [info("y", TensorProto.FLOAT, result)], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def families(model, **options) -> list[str]:
    c = run_until(model, Options((resolve("native"),), "unused", **options), "fuse_layers")
    return sorted(layer.family for layer in c.graph.layers.values())


def agrees(model, tmp_path, **dims) -> None:
    """Built and run, the model gives what onnxruntime gives, at the given sizes and at the smallest."""
    import onnxruntime as ort

    from sparsec.runtime_stub.inputs import random_inputs

    loaded = sparsec.load(sparsec.build(model, output=tmp_path / "m.so", dims=dims))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for sizes in [{}, {name: low for name, (low, _) in dims.items()}] if dims else [{}]:
        inputs = random_inputs(loaded.manifest, sizes)
        np.testing.assert_allclose(loaded.run(inputs)["y"], session.run(None, inputs)[0], rtol=1e-4, atol=2e-6)


def bert(op, constant, divide=True, first="scores"):
    """[B, S, H, D] transposed; scores divided; mask on either side."""
    q, v = (op("Transpose", [x], perm=[0, 2, 1, 3]) for x in "qv")
    scores = op("MatMul", [q, op("Transpose", ["k"], perm=[0, 2, 3, 1])])
    scores = op("Div", [scores, constant(3)]) if divide else op("Mul", [constant(0.3), scores])
    masked = op("Add", [scores, "mask"] if first == "scores" else ["mask", scores])
    product = op("MatMul", [op("Softmax", [masked], axis=-1), v])
    op("Transpose", [product], perm=[0, 2, 1, 3], last=True)


def torch(op, constant):
    """scaled_dot_product_attention: the root of the scale on both factors, K transposed twice."""
    q, v = (op("Transpose", [x], perm=[0, 2, 1, 3]) for x in "qv")
    k = op("Transpose", [op("Transpose", ["k"], perm=[0, 2, 1, 3])], perm=[0, 1, 3, 2])
    scores = op("MatMul", [op("Mul", [q, constant(0.6)]), op("Mul", [k, constant(0.6)])])
    product = op("MatMul", [op("Softmax", [op("Add", [scores, "mask"])], axis=3), v])
    op("Transpose", [product], perm=[0, 2, 1, 3], last=True)


TOKENS = {"q": (B, S, H, D), "k": (B, T, H, D), "v": (B, T, H, D)}


@pytest.mark.parametrize("mask", [(B, 1, 1, T), (1, 1, S, T), (B, H, S, T), (T,)])
@pytest.mark.parametrize("spelled", [bert, torch])
def test_transposed(spelled, mask, tmp_path):
    model = model_of(spelled, {**TOKENS, "mask": mask}, [B, S, H, D])
    assert families(model) == ["float_attention"]
    agrees(model, tmp_path)


@pytest.mark.parametrize("options", [{"divide": False}, {"first": "mask"}])
def test_multiplied_or_the_mask_first(options):
    model = model_of(lambda o, c: bert(o, c, **options), {**TOKENS, "mask": (B, 1, 1, T)}, [B, S, H, D])
    assert families(model) == ["float_attention"]


@pytest.mark.parametrize("shape", [(B, H), (H,)])
def test_heads_first(shape, tmp_path):
    shapes = {"q": (*shape, S, D), "k": (*shape, T, D), "v": (*shape, T, D)}

    def spell(op, constant):
        rank = len(shape) + 2
        order = [*range(rank - 2), rank - 1, rank - 2]
        scores = op("MatMul", [op("Div", ["q", constant(2)]), op("Transpose", ["k"], perm=order)])
        op("MatMul", [op("Softmax", [scores], axis=-1), "v"], last=True)

    model = model_of(spell, shapes, [*shape, S, D])
    assert families(model) == ["float_attention"]
    agrees(model, tmp_path)


def test_dynamic_batch_and_sequence(tmp_path):
    shapes = dict.fromkeys("qkv", ("b", "s", H, D))
    model = model_of(bert, {**shapes, "mask": ("b", 1, 1, "s")}, ["b", "s", H, D])
    assert families(model, dims={"b": (1, 3), "s": (1, 40)}) == ["float_attention"]
    agrees(model, tmp_path, b=(1, 3), s=(1, 40))


def test_softmax_over_another_axis_is_left_alone():
    def spell(op, constant):
        scores = op("MatMul", ["q", op("Transpose", ["k"], perm=[0, 1, 3, 2])])
        op("MatMul", [op("Softmax", [scores], axis=2), "v"], last=True)

    shapes = {"q": (B, H, S, D), "k": (B, H, T, D), "v": (B, H, T, D)}
    assert "float_attention" not in families(model_of(spell, shapes, [B, H, S, D]))


def test_scores_that_something_else_reads_are_computed():
    def spell(op, constant):
        scores = op("MatMul", ["q", op("Transpose", ["k"], perm=[0, 1, 3, 2])])
        product = op("MatMul", [op("Softmax", [scores], axis=-1), "v"])
        op("Add", [product, op("ReduceMax", [scores], axes=[-1], keepdims=1)], last=True)

    shapes = {"q": (B, H, S, D), "k": (B, H, T, D), "v": (B, H, T, D)}
    assert "float_attention" not in families(model_of(spell, shapes, [B, H, S, D]))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("folded", [False, True])
def test_the_operator_of_onnx(folded, causal, tmp_path):
    """Attention-23, with heads apart or side by side; its function says what a query without keys gets."""
    shape = [B, S, H * D] if folded else [B, H, S, D]
    heads = {"q_num_heads": H, "kv_num_heads": H} if folded else {}
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"], is_causal=int(causal), **heads)
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "qkvy"]
    graph = helper.make_graph([node], "attention", infos[:3], infos[3:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    assert families(model) == ["float_attention"]
    rng = np.random.default_rng(0)
    inputs = {name: rng.standard_normal(shape).astype(np.float32) for name in "qkv"}
    loaded = sparsec.load(sparsec.build(model, output=tmp_path / "m.so"))
    want = ReferenceEvaluator(model).run(None, inputs)[0]
    np.testing.assert_allclose(loaded.run(inputs)["y"], want, rtol=1e-4, atol=2e-6)


def test_zeros_for_other_queries_than_those_without_keys_are_computed():
    """`where` with a condition that does not follow from the mask."""

    def spell(op, constant, rows):
        scores = op("MatMul", ["q", op("Transpose", ["k"], perm=[0, 1, 3, 2])])
        mask = np.zeros((S, T), np.float32)
        mask[3] = -np.inf
        weights = op("Softmax", [op("Add", [scores, constant(mask)])], axis=-1)
        none = np.zeros((S, 1), np.float32)
        none[rows] = 1
        chosen = op("Where", [op("Greater", [constant(none), constant(0)]), constant(0), weights])
        op("MatMul", [chosen, "v"], last=True)

    shapes = {"q": (B, H, S, D), "k": (B, H, T, D), "v": (B, H, T, D)}
    for rows, fused in (([3], True), ([2], False), ([3, 4], False)):
        model = model_of(lambda o, c, rows=rows: spell(o, c, rows), shapes, [B, H, S, D])
        assert ("float_attention" in families(model)) == fused
