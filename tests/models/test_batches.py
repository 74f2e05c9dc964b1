"""Convolutional networks on batches: the same bytes at any number of threads, and onnxruntime's values."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import sparsec
from sparsec.compiler.pipeline import Options, run_until
from sparsec.compiler.target import resolve


def network(batch: int | str) -> onnx.ModelProto:
    """A stem, residual blocks with and without strides, a depthwise convolution, pools and a head, half of it zeros."""
    rng = np.random.default_rng(0)
    nodes, constants = [], []

    def constant(array: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(array.astype(np.float32), f"c{len(constants)}"))
        return constants[-1].name

    def node(kind: str, inputs: list[str], **attrs) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"t{len(nodes)}"], **attrs))
        return f"t{len(nodes) - 1}"

    def conv(x: str, c: int, o: int, taps: int, stride: int = 1, groups: int = 1) -> str:
        weights = rng.standard_normal((o, c // groups, taps, taps)) * np.sqrt(2 / (c // groups * taps * taps))
        weights *= rng.random(weights.shape) < (0.3 if groups == 1 else 1)
        return node("Conv", [x, constant(weights), constant(rng.standard_normal(o) / 9)], kernel_shape=[taps, taps],
                    strides=[stride, stride], pads=[taps // 2] * 4, group=groups)  # fmt: skip

    x = node("MaxPool", [node("Relu", [conv("x", 3, 12, 3, 2)])], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for c, o, stride in ((12, 24, 1), (24, 40, 2), (40, 40, 1)):
        y = node("Relu", [conv(x, c, 16, 1)])
        y = conv(node("Relu", [conv(y, 16, 16, 3, stride)]), 16, o, 1)
        x = node("Relu", [node("Add", [y, conv(x, c, o, 1, stride)])])
    x = node("GlobalAveragePool", [conv(x, 40, 40, 3, groups=40)])
    node("Flatten", [x])
    graph = helper.make_graph(
        nodes,
        "batches",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 33, 40])],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        constants,
    )
    return onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    )


@pytest.mark.parametrize(("batch", "sizes"), [(11, [11]), ("N", [1, 2, 7, 20])])
def test_batches(batch, sizes, tmp_path):
    model = network(batch)
    dims = {} if isinstance(batch, int) else {"N": (1, 20)}
    path = sparsec.build(model, output=tmp_path / "model.so", dims=dims)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_outputs()[0].name
    for size in sizes:
        x = np.random.default_rng(size).standard_normal((size, 3, 33, 40)).astype(np.float32)
        want = session.run(None, {"x": x})[0]
        results = [sparsec.load(path, threads=threads).run({"x": x})[name] for threads in (1, 2, 3)]
        assert np.abs(results[0] - want).max() <= 1e-5 * np.abs(want).max()
        for result in results[1:]:
            np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("batch", [11, "N"])
def test_a_run_walks_through_a_batch(batch, tmp_path):
    dims = {} if isinstance(batch, int) else {"N": (1, 20)}
    options = Options((resolve("avx512"),), tmp_path / "model.so", dims=dims)
    program = run_until(network(batch), options, "lower").program
    walked = {i for walk in program.walks for i in range(walk.first, walk.last)}
    assert walked.issuperset(range(len(program.steps) - 1)), "all but the copy to the output"
    assert any(walk.inside for walk in program.walks)
