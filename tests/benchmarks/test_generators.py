"""Small networks of the benchmarks: the three quantized forms hold the same integers and follow the float network."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from generators.bert import Bert, BertConfig
from generators.graph import FORMS, generate
from generators.mlp import Mlp, MlpConfig
from generators.mobilenetv2 import MobileNet, MobileNetConfig
from generators.networks import VARIANTS, network
from generators.pruning import pruned
from generators.resnet50 import ResNet, ResNetConfig
from generators.yolov5s import ANCHORS, Yolo, YoloConfig

SMALL = {
    "bert": (Bert, BertConfig(layers=1, hidden=32, heads=2, inner=64, vocabulary=50, seq=12)),
    "mlp": (Mlp, MlpConfig(sizes=(32, 64, 16))),
    "resnet": (ResNet, ResNetConfig(size=32, depths=(1, 2), width=8, classes=10)),
    "mobilenet": (MobileNet, MobileNetConfig(size=32, stem=8, stages=((1, 8, 1, 1), (6, 16, 2, 2)), features=32)),
    "yolo": (Yolo, YoloConfig(size=64, width=8, depths=(1, 1, 1, 1), classes=3, decode=False)),
}


def run(model, feeds):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options).run(None, feeds)


def feeds(name, **changes):
    """The inputs that the ranges are of."""
    writer, config = SMALL[name]
    return writer(replace(config, **changes), None).feeds()


def make(name, **changes):
    writer, config = SMALL[name]
    return generate(writer, replace(config, **changes))


def error(got, want):
    return max(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("variant", [v for v in VARIANTS if v.startswith("int8")])
@pytest.mark.parametrize("per_channel", [False, True])
def test_forms_agree(name, variant, per_channel):
    """The plain and the integer form differ by roundings of floats and of the bias alone; few values move by a step."""
    want = run(make(name, **{**VARIANTS[variant], "quantized": False}), feeds(name))
    results = {}
    for form in FORMS:
        model = make(name, **VARIANTS[variant], form=form, per_channel=per_channel)
        onnx.checker.check_model(model, full_check=True)
        results[form] = run(model, feeds(name))
        assert error(results[form], want) < 0.2, form
    assert error(results["integer"], results["qdq"]) < 0.05


@pytest.mark.parametrize("name", SMALL)
def test_what_the_forms_hold(name):
    counts = {}
    for form in FORMS:
        counts[form] = Counter(node.op_type for node in make(name, quantized=True, form=form).graph.node)
    plain, full, integer = counts.values()
    assert plain["MatMul"] == integer["MatMulInteger"] and plain["Conv"] == integer["ConvInteger"]
    assert not integer["MatMul"] and not integer["Conv"]
    assert plain["QuantizeLinear"] == integer["QuantizeLinear"] < full["QuantizeLinear"]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("form", FORMS)
def test_batches(name, form):
    """A batch, fixed or a name, computes what single inputs do; a sum in another order may move a few by a step."""
    writer, config = SMALL[name]
    inputs = writer(config, None).feeds(3)
    whole = run(make(name, quantized=True, form=form, batch=3), inputs)
    single = run(make(name, quantized=True, form=form), {k: v[1:2] for k, v in inputs.items()})
    named = run(make(name, quantized=True, form=form, batch="batch"), inputs)
    for all_three, alone, any_number in zip(whole, single, named, strict=True):
        moved = np.abs(all_three[1:2] - alone) > 1e-5 * np.abs(alone).max()
        assert moved.mean() < 0.01 and error([all_three[1:2]], [alone]) < 0.01
        assert any_number.shape == all_three.shape


@pytest.mark.parametrize("name", SMALL)
def test_equal_seeds_give_equal_models(name):
    first, again, other = (make(name, quantized=True, seed=s).SerializeToString() for s in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("variant", ["int8_dense", "int8_unstructured_90"])
def test_activations_keep_their_scale(variant):
    """Neither dying nor exploding from layer to layer: the ranges of a full network's tensors stay moderate."""
    model = network("mobilenetv2", variant)
    constants = {c.name: onnx.numpy_helper.to_array(c) for c in model.graph.initializer}
    steps = [float(constants[node.input[1]]) for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert min(steps) > 0.005 and max(steps) < 0.5


@pytest.mark.parametrize(("pattern", "sparsity"), [("unstructured", 0.9), ("1x4", 0.8), ("2:4", 0.5), ("dense", 0)])
def test_patterns(pattern, sparsity):
    w = pruned(np.random.default_rng(0), 64, 128, sparsity, pattern)
    assert abs((w == 0).mean() - sparsity) < 0.01
    groups = (w.reshape(64, 32, 4) != 0).sum(2)
    if pattern == "1x4":
        assert set(np.unique(groups)) == {0, 4}
    if pattern == "2:4":
        assert set(np.unique(groups)) == {2}


@pytest.mark.parametrize("pattern", ["1x4", "2:4"])
def test_blocks_of_convolutions_lie_along_input_channels(pattern):
    model = make("resnet", pattern=pattern, sparsity=0.8)
    weights = {c.name: onnx.numpy_helper.to_array(c) for c in model.graph.initializer}
    w = weights["stage0.0.b.weight"]
    groups = (w.reshape(len(w), -1, 4, 3, 3) != 0).sum(2)
    assert set(np.unique(groups)) == ({0, 4} if pattern == "1x4" else {2})
    assert (weights["stem.weight"] != 0).all() and (weights["head.weight"] != 0).all()


def test_boxes():
    """The detection head in numpy: sigmoids, cells, strides, anchors."""
    writer, config = SMALL["yolo"]
    inputs = feeds("yolo")
    maps = run(generate(writer, config), inputs)
    (boxes,) = run(generate(writer, replace(config, decode=True)), inputs)
    want = []
    for i, values in enumerate(maps):
        stride, side = 8 << i, values.shape[-1]
        y = 1 / (1 + np.exp(-values.reshape(3, 8, side, side)))
        for anchor, row, column in np.ndindex(3, side, side):
            x = y[anchor, :, row, column]
            centre = (2 * x[:2] + (column, row) - np.float32(0.5)) * stride
            want.append(np.concatenate([centre, (2 * x[2:4]) ** 2 * ANCHORS[i][anchor], x[4:]]))
    np.testing.assert_allclose(boxes[0], want, rtol=1e-4, atol=1e-4)
