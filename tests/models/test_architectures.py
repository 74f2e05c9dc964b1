"""Usual architectures as torch exports them, with dynamic dimensions, against onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from exported import TO_THE_END, Exported
from onnx import numpy_helper

import sparsec

LOWEST = np.float32(-3.4028235e38)
HEADS, DEPTH, WORDS, LAYERS = 4, 8, 50, 2
WIDTH = HEADS * DEPTH


def gpt2() -> onnx.ModelProto:
    """Key and value in one cache, a bias cut from a constant triangle, a mask with a dimension of its own."""
    g = Exported(13)
    ids = g.input("input_ids", ["batch", "seq"], "int64")
    mask = g.input("attention_mask", ["batch", "total"], "int64")
    pasts = [g.input(f"past_{i}", [2, "batch", HEADS, "past", DEPTH]) for i in range(LAYERS)]
    batch, new = g.size(ids, 0), g.size(ids, 1)
    start = g.size(pasts[0], 3)
    places = g.unsqueeze(g.op("Range", start, g.op("Add", start, new), np.array(1)), 0)
    x = g.op("Add", g.op("Gather", g.weight(WORDS, WIDTH), ids), g.op("Gather", g.weight(64, WIDTH), places))
    visible = g.op("Cast", g.unsqueeze(mask, 1, 2), to=1)
    hidden = g.op("Mul", g.op("Sub", np.float32(1), visible), LOWEST)
    triangle = g.constant(np.tril(np.ones((1, 1, 64, 64), bool)))
    for i, past in enumerate(pasts):
        rows = g.op("Reshape", g.layer_norm(x, WIDTH), np.array([-1, WIDTH]))
        rows = g.op("Gemm", rows, g.weight(WIDTH, 3 * WIDTH), g.weight(3 * WIDTH, scale=0.1))
        parts = g.ops("Split", g.op("Reshape", rows, g.vector(batch, new, 3 * WIDTH)), np.array([WIDTH] * 3),
                      outputs=3, axis=2)  # fmt: skip
        q, k, v = (g.heads(part, HEADS, DEPTH) for part in parts)
        k, v = (g.op("Concat", g.op("Gather", past, np.array(n), axis=0), x_, axis=2) for n, x_ in enumerate((k, v)))
        g.output(f"present_{i}", g.op("Concat", g.unsqueeze(k, 0), g.unsqueeze(v, 0), axis=0))
        scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2]))
        scores = g.op("Div", scores, np.float32(DEPTH**0.5))
        queries, keys = g.size(scores, 2), g.size(scores, 3)
        bias = g.slice(g.slice(triangle, g.op("Sub", keys, queries), keys, 2), 0, keys, 3)
        scores = g.op("Add", g.op("Where", bias, scores, np.float32(-1e4)), hidden)
        mixed = g.joined(g.op("MatMul", g.op("Softmax", scores, axis=3), v), WIDTH)
        x = g.op("Add", g.linear(mixed, WIDTH, WIDTH), x)
        inner = g.gelu_tanh(g.linear(g.layer_norm(x, WIDTH), WIDTH, 4 * WIDTH))
        x = g.op("Add", x, g.linear(inner, 4 * WIDTH, WIDTH))
    g.output("logits", g.op("MatMul", g.layer_norm(x, WIDTH), g.weight(WIDTH, WORDS)))
    return g.model()


def llama(kv_heads: int = 2) -> onnx.ModelProto:
    """Rotary embeddings of run-time positions, keys and values repeated, a causal mask made of comparisons."""
    g = Exported()
    ids = g.input("input_ids", ["batch", "seq"], "int64")
    mask = g.input("attention_mask", ["batch", "total"], "int64")
    positions = g.input("position_ids", ["batch", "seq"], "int64")
    pasts = [[g.input(f"past.{i}.{n}", ["batch", kv_heads, "past", DEPTH]) for n in "kv"] for i in range(LAYERS)]
    x = g.op("Gather", g.weight(WORDS, WIDTH, scale=1), ids)
    batch, new, start = g.size(ids, 0), g.size(ids, 1), g.size(pasts[0][0], 2)
    total = g.op("Add", start, new)
    filled = g.op("ConstantOfShape", g.vector(new, total), value=numpy_helper.from_array(np.array([LOWEST])))
    row = g.op("Reshape", g.op("Range", start, total, np.array(1)), np.array([-1, 1]))
    later = g.op("Greater", g.op("Range", np.array(0), total, np.array(1)), row)
    causal = g.unsqueeze(g.op("Mul", filled, g.op("Cast", later, to=1)), 0, 0)
    causal = g.op("Expand", causal, g.vector(batch, 1, new, total))
    visible = g.op("Cast", g.unsqueeze(mask, 1, 2), to=1)
    causal = g.op("Where", g.op("Equal", g.op("Add", causal, visible), np.float32(0)), LOWEST, causal)
    rates = (10000.0 ** (-np.arange(0, DEPTH, 2) / DEPTH)).astype(np.float32)[None, :, None]
    rates = g.op("Expand", rates, g.vector(batch, DEPTH // 2, 1))
    angles = g.op("MatMul", rates, g.op("Cast", g.unsqueeze(positions, 1), to=1))
    angles = g.op("Transpose", angles, perm=[0, 2, 1])
    angles = g.op("Concat", angles, angles, axis=-1)
    cos, sin = (g.unsqueeze(g.op(kind, angles), 1) for kind in ("Cos", "Sin"))

    def rotated(t: str) -> str:
        half = g.op("Div", g.size(t, 3), np.array(2))
        first, second = g.slice(t, 0, half, 3), g.slice(t, half, TO_THE_END[0], 3)
        turned = g.op("Concat", g.op("Neg", second), first, axis=-1)
        return g.op("Add", g.op("Mul", t, cos), g.op("Mul", turned, sin))

    def repeated(t: str) -> str:
        rows, length = g.size(t, 0), g.size(t, 2)
        wide = g.expand(g.unsqueeze(t, 2), g.vector(rows, kv_heads, HEADS // kv_heads, length, DEPTH), 5)
        return g.op("Reshape", wide, g.vector(rows, HEADS, length, DEPTH))

    for i, (past_k, past_v) in enumerate(pasts):
        h = g.rms_norm(x, WIDTH)
        q = rotated(g.heads(g.linear(h, WIDTH, WIDTH, bias=False), HEADS, DEPTH))
        k = rotated(g.heads(g.linear(h, WIDTH, kv_heads * DEPTH, bias=False), kv_heads, DEPTH))
        v = g.heads(g.linear(h, WIDTH, kv_heads * DEPTH, bias=False), kv_heads, DEPTH)
        k, v = g.op("Concat", past_k, k, axis=-2), g.op("Concat", past_v, v, axis=-2)
        g.output(f"present.{i}.k", k)
        g.output(f"present.{i}.v", v)
        keys, values = repeated(k), repeated(v)
        scores = g.op("MatMul", q, g.op("Transpose", keys, perm=[0, 1, 3, 2]))
        scores = g.op("Mul", scores, np.float32(DEPTH**-0.5))
        scores = g.op("Softmax", g.op("Add", scores, g.slice(causal, 0, g.size(keys, 2), 3)), axis=-1)
        x = g.op("Add", x, g.linear(g.joined(g.op("MatMul", scores, values), WIDTH), WIDTH, WIDTH, bias=False))
        h = g.rms_norm(x, WIDTH)
        gate = g.silu(g.linear(h, WIDTH, 2 * WIDTH, bias=False))
        inner = g.op("Mul", gate, g.linear(h, WIDTH, 2 * WIDTH, bias=False))
        x = g.op("Add", x, g.linear(inner, 2 * WIDTH, WIDTH, bias=False))
    g.output("logits", g.op("MatMul", g.rms_norm(x, WIDTH), g.weight(WIDTH, WORDS)))
    return g.model()


def deeplab(width: int = 16) -> onnx.ModelProto:
    """Dilated branches and a pooled one, resized to the sizes of others in three coordinate modes."""
    g = Exported(13)
    image = g.input("image", [1, 3, "h", "w"])

    def conv(x: str, inputs: int, outputs: int, side: int = 3, dilation: int = 1, stride: int = 1) -> str:
        pad = dilation * (side // 2)
        made = g.op("Conv", x, g.weight(outputs, inputs, side, side), g.weight(outputs, scale=0.1), pads=[pad] * 4,
                    kernel_shape=[side] * 2, dilations=[dilation] * 2, strides=[stride] * 2)  # fmt: skip
        return g.op("Relu", made)

    def resized(x: str, like: str, mode: str) -> str:
        outer, inner = g.slice(g.op("Shape", x), 0, 2, 0), g.slice(g.op("Shape", like), 2, 4, 0)
        extents = g.op("Concat", outer, g.op("Cast", inner, to=7), axis=0)
        return g.op("Resize", x, "", "", extents, mode="linear", coordinate_transformation_mode=mode)

    low = conv(image, 3, width, stride=2)
    x = g.op("MaxPool", low, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    branches = [conv(x, width, width, 1), conv(x, width, width, dilation=2), conv(x, width, width, dilation=4)]
    branches.append(resized(conv(g.op("GlobalAveragePool", x), width, width, 1), x, "half_pixel"))
    x = conv(g.op("Concat", *branches, axis=1), 4 * width, width, 1)
    x = g.op("Concat", resized(x, low, "align_corners"), low, axis=1)
    x = resized(conv(x, 2 * width, 5), image, "pytorch_half_pixel")
    g.output("scores", x)
    return g.model()


def conformer(width: int = 16, heads: int = 2) -> onnx.ModelProto:
    """Relative positions by a pad, a reshape and a cut; a gated depthwise convolution; frames masked by lengths."""
    g = Exported(16)
    x, lengths = g.input("frames", ["batch", "time", 8]), g.input("lengths", ["batch"], "int64")
    depth, x = width // heads, g.linear(x, 8, width)
    time = g.size(x, 1)
    there = g.op("Less", g.unsqueeze(g.op("Range", np.array(0), time, np.array(1)), 0), g.unsqueeze(lengths, 1))
    beyond = g.op("Not", there)
    places = g.op("Cast", g.op("Range", g.op("Sub", np.array(1), time), time, np.array(1)), to=1)
    rates = (10.0 ** (-np.arange(width // 2) / 4)).astype(np.float32)[None]
    angles = g.op("Mul", g.unsqueeze(places, 1), rates)
    table = g.op("Concat", g.op("Sin", angles), g.op("Cos", angles), axis=1)

    def split(t: str) -> str:
        return g.op("Transpose", g.op("Reshape", t, np.array([0, 0, heads, depth])), perm=[0, 2, 1, 3])

    h = g.layer_norm(x, width)
    q, k, v = (split(g.linear(h, width, width)) for _ in range(3))
    content = g.op("MatMul", g.op("Add", q, g.weight(1, heads, 1, depth)), g.op("Transpose", k, perm=[0, 1, 3, 2]))
    relative = g.op("Reshape", g.linear(table, width, width, bias=False), np.array([1, -1, heads, depth]))
    position = g.op("MatMul", g.op("Add", q, g.weight(1, heads, 1, depth)),
                    g.op("Transpose", relative, perm=[0, 2, 3, 1]))  # fmt: skip
    batch, rows, columns = (g.size(position, axis) for axis in (0, 2, 3))
    shifted = g.op("Pad", position, np.array([0, 0, 0, 1, 0, 0, 0, 0]), np.float32(0))
    shifted = g.op("Reshape", shifted, g.vector(batch, heads, g.op("Add", columns, np.array(1)), rows))
    shifted = g.op("Reshape", g.slice(shifted, 1, TO_THE_END[0], 2), g.vector(batch, heads, rows, columns))
    scores = g.op("Add", content, g.slice(shifted, 0, time, 3))
    masked = g.unsqueeze(beyond, 1, 1)
    scores = g.op("Softmax", g.op("Where", masked, np.float32(-1e4), scores), axis=-1)
    scores = g.op("Where", masked, np.float32(0), scores)
    x = g.op("Add", x, g.linear(g.joined(g.op("MatMul", scores, v), width), width, width))
    h = g.op("Transpose", g.layer_norm(x, width), perm=[0, 2, 1])
    h = g.op("Conv", h, g.weight(2 * width, width, 1), kernel_shape=[1])
    left, right = g.ops("Split", h, np.array([width, width]), outputs=2, axis=1)
    h = g.op("Mul", left, g.op("Sigmoid", right))
    h = g.op("Where", g.unsqueeze(beyond, 1), np.float32(0), h)
    h = g.silu(g.op("Conv", h, g.weight(width, 1, 7), kernel_shape=[7], pads=[3, 3], group=width))
    x = g.op("Add", x, g.op("Transpose", g.op("Conv", h, g.weight(width, width, 1)), perm=[0, 2, 1]))
    g.output("logits", g.op("LogSoftmax", g.linear(x, width, 11), axis=-1))
    return g.model()


def detector() -> onnx.ModelProto:
    """Boxes that suppression leaves, and of them at most five, the best."""
    g = Exported(13)
    image = g.input("image", [1, 3, 64, 64])
    x = g.op("Conv", image, g.weight(8, 3, 3, 3), strides=[4, 4], pads=[1, 1, 1, 1], kernel_shape=[3, 3])
    x = g.op("LeakyRelu", x, alpha=0.1)
    scores = g.op("Sigmoid", g.op("Conv", x, g.weight(3, 8, 1, 1), g.weight(3, scale=1)))
    scores = g.op("Reshape", scores, np.array([1, 3, -1]))
    boxes = g.op("Reshape", g.op("Conv", x, g.weight(4, 8, 1, 1)), np.array([1, 4, -1]))
    boxes = g.op("Transpose", boxes, perm=[0, 2, 1])
    grid = np.stack(np.meshgrid(np.arange(16), np.arange(16)), -1).reshape(1, -1, 2).astype(np.float32) * 4
    centre = g.op("Add", g.op("Mul", g.slice(boxes, 0, 2, 2), np.float32(4)), grid)
    half = g.op("Mul", g.op("Exp", g.slice(boxes, 2, 4, 2)), np.float32(4))
    corners = g.op("Concat", g.op("Sub", centre, half), g.op("Add", centre, half), axis=2)
    chosen = g.op("NonMaxSuppression", corners, scores, np.array([10]), np.array([0.5], np.float32),
                  np.array([0.3], np.float32))  # fmt: skip
    kept = g.op("GatherND", scores, chosen)
    count = g.op("Min", g.op("Shape", kept), np.array([5]))
    best, order = g.ops("TopK", kept, count, outputs=2, axis=0)
    g.output("scores", best)
    g.output("classes", g.op("Gather", g.op("Gather", chosen, np.array(1), axis=1), order), "int64")
    g.output("boxes", g.op("GatherND", corners, g.op("Gather", chosen, np.array([0, 2]), axis=1)))
    return g.model()


def _floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def _decoder(caches: dict[str, tuple[int, ...]], batch: int, new: int, past: int) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(past).integers(0, WORDS, (batch, new))
    shapes = {name: tuple({-1: batch, -2: past}.get(d, d) for d in shape) for name, shape in caches.items()}
    made = {name: _floats(*shape) for name, shape in shapes.items()}
    return {"input_ids": ids, "attention_mask": np.ones((batch, past + new), np.int64), **made}


_SIZES = ((1, 4, 0), (2, 1, 7), (1, 3, 5))
_OF_DECODERS = {"batch": (1, 2), "seq": (1, 8), "past": (0, 16), "total": (1, 24)}
_GPT2 = {f"past_{i}": (2, -1, HEADS, -2, DEPTH) for i in range(LAYERS)}
_LLAMA = {f"past.{i}.{n}": (-1, 2, -2, DEPTH) for i in range(LAYERS) for n in "kv"}
CASES = {
    "gpt2": (gpt2, _OF_DECODERS, [_decoder(_GPT2, *sizes) for sizes in _SIZES]),
    "llama": (llama, _OF_DECODERS, [
        {**_decoder(_LLAMA, b, n, p), "position_ids": np.tile(np.arange(p, p + n), (b, 1))} for b, n, p in _SIZES]),
    "deeplab": (deeplab, {"h": (16, 64), "w": (16, 64)}, [{"image": _floats(1, 3, *s)} for s in ((33, 48), (64, 64))]),
    "conformer": (conformer, {"batch": (1, 2), "time": (1, 40)}, [
        {"frames": _floats(n, t, 8), "lengths": np.array([t, 5][:n])} for n, t in ((1, 9), (2, 40))]),
    "detector": (detector, {}, [{"image": _floats(1, 3, 64, 64)}, {"image": np.zeros((1, 3, 64, 64), np.float32)}]),
}  # fmt: skip


def in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every float32 becomes a float16."""

    def halved(tensor: onnx.TensorProto) -> None:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            value = np.clip(numpy_helper.to_array(tensor), -65504, 65504).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))

    for tensor in model.graph.initializer:
        halved(tensor)
    for info in (*model.graph.input, *model.graph.output):
        if info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    for attribute in (a for node in model.graph.node for a in node.attribute):
        halved(attribute.t)
        if attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT:
            attribute.i = onnx.TensorProto.FLOAT16
    return model


@pytest.mark.parametrize("name", ["conformer", "llama"])
def test_in_half_precision(name, tmp_path):
    """To float32 as near as that type is, whatever the order of sums."""
    network, dims, feeds = CASES[name]
    session = ort.InferenceSession(network().SerializeToString(), providers=["CPUExecutionProvider"])
    loaded = sparsec.load(sparsec.build(in_half(network()), output=tmp_path / "m.so", dims=dims))
    for feed in feeds:
        halves = {k: v.astype(np.float16) if v.dtype == np.float32 else v for k, v in feed.items()}
        for (name_, value), want in zip(loaded.run(halves).items(), session.run(None, feed), strict=True):
            assert value.dtype == np.float16
            limit = 1e-2 * np.abs(want).max(initial=0)
            np.testing.assert_allclose(value.astype(np.float32), want, rtol=0, atol=limit, err_msg=name_)


@pytest.mark.parametrize("name", CASES)
def test_architecture(name, tmp_path):
    network, dims, feeds = CASES[name]
    model = network()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    loaded = sparsec.load(sparsec.build(model, output=tmp_path / "m.so", dims=dims), threads=2)
    for feed in feeds:
        found = loaded.run(feed)
        for (name_, value), want in zip(found.items(), session.run(None, feed), strict=True):
            assert value.shape == want.shape and value.dtype == want.dtype, name_
            limit = 1e-4 * max(np.abs(want).max(initial=0), 1e-6)
            np.testing.assert_allclose(value, want, rtol=0, atol=limit, err_msg=name_)
