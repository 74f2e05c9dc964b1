"""Networks of quantized convolutions, computed in planes, against onnxruntime without its optimizations."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import sparsec
from sparsec.compiler.pipeline import Options, run_until
from sparsec.compiler.target import host_features, resolve

pytestmark = pytest.mark.skipif(
    not host_features().issuperset(resolve("avx512").requires), reason="this CPU does not have AVX-512 VNNI"
)


@dataclass
class Net:
    """Writes nodes; `q` and `conv` are the forms that quantizers export."""

    rng: np.random.Generator
    nodes: list = field(default_factory=list)
    constants: list = field(default_factory=list)

    def op(self, kind: str, *inputs: str, **attributes) -> str:
        out = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def const(self, array) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(array), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def q(self, x: str, scale: float, zero: int, dtype=np.uint8) -> str:
        parts = self.const(np.float32(scale)), self.const(dtype(zero))
        return self.op("DequantizeLinear", self.op("QuantizeLinear", x, *parts), *parts)

    def conv(self, x: str, o: int, c: int, kernel=(1, 1), integer_bias: float | None = None, density=0.4, **attributes):
        """`integer_bias`: scale of x, where the bias is int32."""
        group = attributes.get("group", 1)
        w = self.rng.integers(-127, 128, (o, c // group, *kernel)).astype(np.int8)
        blocks = self.rng.random((o, -(-w.shape[1] // 4), *kernel)) < density
        w = w * np.repeat(blocks, 4, axis=1)[:, : w.shape[1]]
        scale = self.rng.uniform(0.5, 1.5, o).astype(np.float32) / np.float32(127 * np.sqrt(w[0].size))
        weights = self.op(
            "DequantizeLinear",
            self.const(w.astype(np.int8)),
            self.const(scale),
            self.const(np.zeros(o, np.int8)),
            axis=0,
        )
        if integer_bias is None:
            bias = self.const(self.rng.standard_normal(o).astype(np.float32))
        else:
            steps = self.const(self.rng.integers(-3000, 3000, o).astype(np.int32))
            parts = self.const(scale * np.float32(integer_bias)), self.const(np.zeros(o, np.int32))
            bias = self.op("DequantizeLinear", steps, *parts, axis=0)
        return self.op("Conv", x, weights, bias, **attributes)

    def model(self, shape, outputs: list[str]) -> onnx.ModelProto:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        infos = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
        graph = helper.make_graph(self.nodes, "net", [x], infos, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def compare(model: onnx.ModelProto, shape, tmp_path, step: float, dims=None, share: float = 0.001) -> None:
    """Same values but for roundings: at most one step of `step`, in a share of them (or one)."""
    onnx.save(model, tmp_path / "net.onnx")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    x = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    want = ort.InferenceSession(str(tmp_path / "net.onnx"), options).run(None, {"x": x})
    path = sparsec.build(tmp_path / "net.onnx", output=tmp_path / "net.so", target="avx512", dims=dims or {})
    results = []
    for threads in (1, 2, 3):
        results.append(list(sparsec.load(path, threads=threads).run({"x": x}).values()))
    for got in results[1:]:
        for a, b in zip(results[0], got, strict=True):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(results[0], want, strict=True):
        off = np.abs(a - b)
        assert off.max() <= 1.01 * step
        assert np.count_nonzero(off > 1e-4 * np.abs(b).max()) <= max(1, a.size * share)


def families(model: onnx.ModelProto, tmp_path, dims=None) -> list[str]:
    """Of the layers that the passes form."""
    options = Options((resolve("avx512"),), tmp_path / "none.so", dims=dims or {})
    return [layer.family for layer in run_until(model, options, "plan_planes").graph.layers.values()]


GEOMETRIES = (
    (12, {"kernel": (3, 3), "pads": [1, 1, 1, 1]}),
    (12, {"kernel": (3, 3)}),
    (12, {"kernel": (3, 3), "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    (5, {"kernel": (1, 7), "pads": [0, 1, 0, 2], "strides": [1, 3]}),
    (30, {"kernel": (3, 3), "pads": [2, 2, 2, 2], "dilations": [2, 2]}),
    (64, {"kernel": (2, 4), "pads": [0, 2, 1, 1]}),
    (8, {"kernel": (3, 3), "pads": [2, 3, 2, 3]}),
)


@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 8), (np.int8, 5)])
def test_geometries(dtype, channels, tmp_path):
    """Between two quantizations: convolutions that read another one's planes, at every geometry."""
    net = Net(np.random.default_rng(1))
    zero = {np.uint8: 100, np.int8: -28}[dtype]
    x = net.op("Relu", net.conv(net.q("x", 0.03, zero, dtype), channels, 3, (1, 1)))
    x = net.q(x, 0.02, zero - 99, dtype)
    outputs = []
    for o, attributes in GEOMETRIES:
        outputs.append(net.q(net.conv(x, o, channels, integer_bias=0.02, **attributes), 0.05, zero, dtype))
    model = net.model([2, 3, 9, 14], outputs)
    found = families(model, tmp_path)
    assert found.count("qconv") == 1 + len(GEOMETRIES)
    assert found.count("from_planes") >= len(GEOMETRIES)
    compare(model, (2, 3, 9, 14), tmp_path, 0.05)


@pytest.mark.parametrize("channels", [1, 3])
def test_first_convolutions_read_whole_rows(channels, tmp_path):
    """Windows of 7x7 and 1x5 with strides; a second reader of the image keeps its planes."""
    for other in (False, True):
        net = Net(np.random.default_rng(4))
        x = net.q("x", 0.03, 120)
        y = net.conv(x, 12, channels, (7, 7), pads=[3, 3, 3, 3], strides=[2, 2])
        outputs = [net.q(net.conv(net.q(y, 0.05, 100), 8, 12, (1, 5), strides=[1, 2]), 0.05, 128)]
        if other:
            outputs.append(net.q(net.conv(x, 8, channels, (1, 3)), 0.05, 128))
        model = net.model([2, channels, 21, 40], outputs)
        found = families(model, tmp_path)
        assert ("unroll_rows" in found, "to_planes" in found) == (not other, other)
        compare(model, (2, channels, 21, 40), tmp_path, 0.05)


@pytest.mark.parametrize("batch", [11, "n"])
def test_residuals_pools_and_concatenation(batch, tmp_path):
    """Nothing between the first quantization and the last layer leaves the planes."""
    net = Net(np.random.default_rng(2))
    x = net.op("Relu", net.conv(net.q("x", 0.03, 120), 16, 3, (3, 3), pads=[1, 1, 1, 1], strides=[2, 2]))
    x = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    x = net.q(x, 0.02, 0)
    a = net.conv(net.q(net.op("Clip", net.conv(x, 8, 16), net.const(np.float32(0)), net.const(np.float32(6))), 0.02, 0),
                 16, 8, (3, 3), pads=[1, 1, 1, 1])  # fmt: skip
    y = net.op("Relu", net.op("Add", a, x))
    side = net.conv(x, 16, 16)
    y = net.op("Add", net.conv(net.q(y, 0.03, 0), 16, 16), side)
    pooled = net.op("MaxPool", y, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    y = net.q(net.op("Concat", y, pooled, axis=1), 0.05, 128)
    z = net.conv(y, 10, 32)
    z = net.op("Mul", z, net.op("Sigmoid", z))
    out = net.op("GlobalAveragePool", z)
    dims = {"n": (1, 11)} if batch == "n" else {}
    model = net.model([batch, 3, 24, 28], [z, out])
    found = families(model, tmp_path, dims)
    assert "conv2d" not in found
    assert {"qpool", "qconcat"} <= set(found)
    assert found.count("qconv") == 5  # of six: one adds the one beside it
    compare(model, (11, 3, 24, 28), tmp_path, 0.2, dims)


def test_groups(tmp_path):
    """Depthwise and grouped convolutions, at both strides."""
    net = Net(np.random.default_rng(5))
    x = net.q("x", 0.03, 120)
    same = {"pads": [1, 1, 1, 1]}
    outputs = [
        net.q(net.conv(x, o, 12, (3, 3), density=1, group=group, strides=[stride] * 2, **same), 0.05, 128)
        for o, group, stride in ((12, 12, 1), (24, 12, 2), (18, 2, 1), (12, 3, 2))
    ]
    model = net.model([1, 12, 9, 21], outputs)
    assert families(model, tmp_path).count("qconv") == 4
    compare(model, (1, 12, 9, 21), tmp_path, 0.05)


def test_upsampling(tmp_path):
    """Nearest neighbours, twice in one network, joined with what has that size already."""
    net = Net(np.random.default_rng(7))
    x = net.conv(net.q("x", 0.03, 120), 8, 3)
    twice = net.const(np.array([1, 1, 2, 2], np.float32))
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    small = net.op("MaxPool", x, kernel_shape=[4, 4], strides=[4, 4])
    y = net.conv(net.q(net.op("Resize", small, "", twice, **how), 0.05, 128), 8, 8)
    y = net.q(net.op("Concat", net.op("Resize", y, "", twice, **how), x, axis=1), 0.05, 128)
    model = net.model([1, 3, 8, 12], [net.conv(y, 6, 16)])
    assert families(model, tmp_path).count("qrepeat") == 2
    compare(model, (1, 3, 8, 12), tmp_path, 0.05, share=0.02)


def test_quantized_everywhere(tmp_path):
    """Outputs of convolutions and of additions are quantized too."""
    net = Net(np.random.default_rng(4))
    x = net.q("x", 0.03, 120)
    y = net.q(net.op("Relu", net.q(net.conv(x, 12, 3), 0.02, 100)), 0.02, 0)
    z = net.q(net.conv(y, 12, 12, (3, 3), pads=[1, 1, 1, 1]), 0.03, 128)
    total = net.q(net.op("Add", z, y), 0.04, 90)
    out = net.conv(total, 7, 12)
    model = net.model([1, 3, 10, 11], [out])
    assert families(model, tmp_path).count("qconv") == 3
    compare(model, (1, 3, 10, 11), tmp_path, 0.05, share=0.02)  # a step in one layer moves what follows a little


@pytest.mark.parametrize(
    ("shape", "target", "why"),
    [([1, 3, "h", 8], "avx512", "its size is dynamic"), ([1, 3, 8, 8], "x86-64", "no integer kernel for this target")],
)
def test_what_is_left_in_float_says_why(shape, target, why, tmp_path):
    net = Net(np.random.default_rng(8))
    model = net.model(shape, [net.conv(net.q("x", 0.03, 120), 8, 3)])
    dims = {"h": (4, 9)} if "h" in shape else {}
    options = Options((resolve(target),), tmp_path / "none.so", dims=dims)
    reasons = [step.reason for step in run_until(model, options, "lower").program.steps]
    assert any(f"in float: {why}" in reason for reason in reasons)
