"""What the compiler writes for tiny models, stage by stage, to the letter; `make golden` rewrites the files.

A change here is no error by itself: read the difference, and commit it with what caused it. Kernels of the catalogue
and the runtime's C are left out, their tests run them.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from generators.bert import BertConfig, bert
from onnx import TensorProto, helper, numpy_helper

import sparsec
from sparsec.compiler.pipeline import STAGES

FOLDER = Path(__file__).parent
LEFT_OUT = {"load.txt", "emit.json"}
"""The first follows from the model alone; the other is the manifest, full of versions."""


def constant(name, *shape):
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 8 - 1
    return numpy_helper.from_array(values, name)


def scalar(name, value):
    return numpy_helper.from_array(np.array(value, np.float32), name)


def model(name, lines, x_shape, y_shape, weights):
    """Nodes from lines `out = Op(inputs) attributes`, which is ONNX's own text form."""
    nodes = onnx.parser.parse_graph(f"g (float[1] x) => (float[1] y) {{ {lines} }}").node
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, x_shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, y_shape)
    graph = helper.make_graph(nodes, name, [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def encoder():
    """Layer norm and GELU spelled out, a linear layer, a residual, SiLU, softmax; a dynamic batch."""
    lines = """
        mean = ReduceMean <axes = [-1]> (x)
        centred = Sub (x, mean)
        square = Pow (centred, two)
        variance = ReduceMean <axes = [-1]> (square)
        safe = Add (variance, tiny)
        root = Sqrt (safe)
        normed = Div (centred, root)
        scaled = Mul (normed, gamma)
        shifted = Add (scaled, beta)
        product = MatMul (shifted, w)
        biased = Add (product, b)
        inner = Div (biased, root2)
        erf = Erf (inner)
        onemore = Add (erf, one)
        gated = Mul (biased, onemore)
        gelu = Mul (gated, half)
        residual = Add (gelu, x)
        sigmoid = Sigmoid (residual)
        silu = Mul (residual, sigmoid)
        y = Softmax <axis = -1> (silu)
    """
    scalars = {"two": 2.0, "tiny": 1e-5, "root2": 2**0.5, "one": 1.0, "half": 0.5}
    weights = [constant("gamma", 8), constant("beta", 8), constant("w", 8, 8), constant("b", 8)]
    weights += [scalar(name, value) for name, value in scalars.items()]
    return model("encoder", lines, ["batch", 3, 8], ["batch", 3, 8], weights), {"dims": {"batch": (1, 4)}}, None


def pixels():
    """Shape arithmetic, convolution and pooling; a reduction, data movement and SiLU through TIR."""
    lines = """
        conv = Conv <pads = [1, 1, 1, 1]> (x, w, b)
        relu = Relu (conv)
        pool = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (relu)
        shape = Shape <start = 0, end = 2> (pool)
        rest = Constant <value_ints = [-1]> ()
        target = Concat <axis = 0> (shape, rest)
        flat = Reshape (pool, target)
        turned = Transpose <perm = [0, 2, 1]> (flat)
        largest = ReduceMax <axes = [-1], keepdims = 1> (turned)
        shifted = Sub (turned, largest)
        exponent = Exp (shifted)
        sigmoid = Sigmoid (exponent)
        silu = Mul (exponent, sigmoid)
        y = Slice (silu, starts, ends, axes)
    """
    bounds = {"starts": 1, "ends": 9, "axes": 1}
    weights = [constant("w", 4, 2, 3, 3), constant("b", 4)]
    weights += [numpy_helper.from_array(np.array([value]), name) for name, value in bounds.items()]
    return model("pixels", lines, [1, 2, 8, 8], [1, 8, 4], weights), {}, None


def integers():
    """A BERT of one layer in the form of SparseML's exports, with block-sparse weights; of it, the passes it is for."""
    sizes = {"layers": 1, "hidden": 64, "heads": 2, "inner": 64, "vocabulary": 16, "seq": 16}
    config = BertConfig(**sizes, sparsity=0.8, pattern="1x4", quantized=True, form="integer")
    shown = ("transposes", "integer_forms", "round_trips", "attention", "fuse_layers", "choose", "layouts")
    return bert(config), {"target": "avx512"}, {f"{name}.py.txt" for name in shown}


def images():
    """Quantized convolutions with a stride, a pool and a residual between them; of it, the passes it is for."""
    lines = """
        xq = QuantizeLinear (x, step, middle)
        xd = DequantizeLinear (xq, step, middle)
        wd = DequantizeLinear (w, step, level)
        conv = Conv <pads = [1, 1, 1, 1]> (xd, wd, b)
        relu = Relu (conv)
        pool = MaxPool <kernel_shape = [3, 3], strides = [1, 1], pads = [1, 1, 1, 1]> (relu)
        pq = QuantizeLinear (pool, step, zero)
        pd = DequantizeLinear (pq, step, zero)
        conv1 = Conv <pads = [1, 1, 1, 1]> (pd, wd)
        sum = Add (conv1, pd)
        sq = QuantizeLinear (sum, step, middle)
        sd = DequantizeLinear (sq, step, middle)
        last = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (sd, wd)
        turned = Transpose <perm = [0, 2, 3, 1]> (last)
        y = Sigmoid (turned)
    """
    w = (np.arange(4 * 4 * 9, dtype=np.int64).reshape(4, 4, 3, 3) % 11 - 5).astype(np.int8)
    points = {"middle": np.uint8(128), "zero": np.uint8(0), "level": np.int8(0), "w": w}
    weights = [constant("b", 4), scalar("step", 0.0625)]
    weights += [numpy_helper.from_array(np.asarray(value), name) for name, value in points.items()]
    shown = {f"{name}.py.txt" for name in ("activations", "hoist", "attention", "qconv", "unroll_rows", "plan_planes")}
    return model("images", lines, [1, 4, 8, 8], [1, 4, 4, 4], weights), {"target": "avx512"}, shown


def rows():
    """A first convolution with windows of 2 channels and 5 columns; of it, the pass it is for."""
    lines = """
        xq = QuantizeLinear (x, step, middle)
        xd = DequantizeLinear (xq, step, middle)
        wd = DequantizeLinear (w, step, level)
        y = Conv <pads = [1, 2, 1, 2], strides = [2, 2]> (xd, wd)
    """
    w = (np.arange(4 * 2 * 15, dtype=np.int64).reshape(4, 2, 3, 5) % 11 - 5).astype(np.int8)
    points = {"middle": np.uint8(128), "level": np.int8(0), "w": w}
    weights = [scalar("step", 0.0625)]
    weights += [numpy_helper.from_array(np.asarray(value), name) for name, value in points.items()]
    shown = {"qconv.py.txt", "unroll_rows.py.txt"}
    return model("rows", lines, [1, 2, 6, 8], [1, 4, 3, 4], weights), {"target": "avx512"}, shown


def attention():
    """Attention in float32, as torch exports it; of it, the pass it is for."""
    lines = """
        q = Transpose <perm = [0, 2, 1, 3]> (x)
        heads = Reshape (q, joined)
        turned = Transpose <perm = [0, 2, 1]> (heads)
        k = Reshape (turned, split)
        qs = Mul (q, root)
        ks = Mul (k, root)
        scores = MatMul (qs, ks)
        weights = Softmax <axis = -1> (scores)
        context = MatMul (weights, q)
        y = Transpose <perm = [0, 2, 1, 3]> (context)
    """
    weights = [scalar("root", 0.5)]
    for name, shape in (("joined", [2, 8, 4]), ("split", [1, 2, 4, 8])):
        weights.append(numpy_helper.from_array(np.array(shape), name))
    shown = {f"{name}.py.txt" for name in ("hoist", "transposes", "plan_planes", "float_attention")}
    return model("attention", lines, [1, 8, 2, 4], [1, 8, 2, 4], weights), {}, shown


def settled():
    """Results quantized behind their operators as well; of it, the passes it is for."""
    lines = """
        xq = QuantizeLinear (x, step, middle)
        xd = DequantizeLinear (xq, step, middle)
        wd = DequantizeLinear (w, step, level)
        product = MatMul (xd, wd)
        pq = QuantizeLinear (product, step, middle)
        pd = DequantizeLinear (pq, step, middle)
        turned = Transpose <perm = [1, 0]> (pd)
        tq = QuantizeLinear (turned, step, middle)
        td = DequantizeLinear (tq, step, middle)
        again = MatMul (td, wd)
        aq = QuantizeLinear (again, step, level)
        ad = DequantizeLinear (aq, step, level)
        y = Sigmoid (ad)
    """
    w = (np.arange(16, dtype=np.int64).reshape(4, 4) % 11 - 5).astype(np.int8)
    points = {"middle": np.uint8(128), "level": np.int8(0), "w": w}
    weights = [scalar("step", 0.0625)]
    weights += [numpy_helper.from_array(np.asarray(value), name) for name, value in points.items()]
    shown = {f"{name}.py.txt" for name in ("integer_forms", "unsigned", "round_trips", "fuse_layers")}
    return model("settled", lines, [4, 4], [4, 4], weights), {"target": "avx2"}, shown


def cache():
    """Keys that grow by those of a run; of it, the pass it is for and the program."""
    lines = """
        present = Concat <axis = 1> (past, x)
        turned = Transpose <perm = [0, 2, 1]> (present)
        y = MatMul (x, turned)
    """
    made = model("cache", lines, [2, 1, 4], [2, 1, "total"], [])
    for values, name, length in ((made.graph.input, "past", "length"), (made.graph.output, "present", "total")):
        values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, length, 4]))
    return made, {"dims": {"length": (0, 7)}}, {"import.py.txt", "states.py.txt", "lower.txt", "model.c"}


MODELS = {
    "cache": cache,
    "encoder": encoder,
    "pixels": pixels,
    "integers": integers,
    "images": images,
    "rows": rows,
    "attention": attention,
    "settled": settled,
}


@pytest.fixture(scope="module", params=MODELS)
def written(request, tmp_path_factory):
    """(Golden folder, what was written: file name -> text) of one model."""
    folder = tmp_path_factory.mktemp(request.param)
    source, options, shown = MODELS[request.param]()
    options = {"target": "avx2", **options}
    sparsec.build(source, output=folder / "c", emit="c", dump_ir=folder / "ir", **options)
    files = [folder / "c" / "model.c", *(folder / "c").glob("k_tir_*.c"), *(folder / "ir").iterdir()]
    named = {golden_name(path.name): path for path in sorted(files)}
    kept = shown or named.keys() - LEFT_OUT
    texts = {name: stable(path.read_text(encoding="utf-8")) for name, path in named.items() if name in kept}
    return FOLDER / request.param, texts


def golden_name(name):
    """Without the stage's number; what is no Python or C of ours is text to the linters."""
    return re.sub(r"\.py$", ".py.txt", re.sub(r"^\d+_", "", name))


def stable(text):
    """Without what changes at every release."""
    text = re.sub(r"Made by sparsec \S+ for", "Made by sparsec for", text)
    return re.sub(r"[0-9a-f]{64}", "<sha256>", text)


def test_golden(written, request):
    folder, texts = written
    if request.config.getoption("--update-golden"):
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    assert sorted(texts) == sorted(path.name for path in folder.iterdir())
    changed = {name for name, text in texts.items() if text != (folder / name).read_text(encoding="utf-8")}
    for name in sorted(changed):
        assert texts[name] == (folder / name).read_text(encoding="utf-8"), f"{name}; `make golden` accepts it"


PASSES = {
    "layer_norm": "encoder", "activations": "encoder", "fuse_layers": "encoder", "transposes": "attention",
    "integer_forms": "integers", "unsigned": "settled", "round_trips": "settled", "attention": "integers",
    "qconv": "images", "plan_planes": "images", "hoist": "images", "float_attention": "attention", "choose": "integers",
    "states": "cache", "unroll_rows": "rows",
    "layouts": "integers", "expand": "pixels", "legalize": "pixels", "fuse_tir": "pixels",
}  # fmt: skip


@pytest.mark.parametrize(("stage", "name"), PASSES.items())
def test_a_pass_is_shown_before_and_after(stage, name):
    names = [row.name for row in STAGES]
    assert {*PASSES} == {*names[names.index("import") + 1 : names.index("lower")]}
    before, after = (FOLDER / name / f"{n}.py.txt" for n in (names[names.index(stage) - 1], stage))
    assert before.read_text(encoding="utf-8") != after.read_text(encoding="utf-8")
