"""BERT encoders with a SQuAD head as ONNX models: seeded, well-scaled random weights, pruned and quantized as asked.

`qdq` is the plain form: inputs of every linear layer and of both attention products are quantized (u8 per tensor,
weights s8 per channel), outputs are not. `integer` is what SparseML exports: MatMulInteger, int32 bias, Cast, Mul.
Ranges are those of one run of the float model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .pruning import pruned


@dataclass(frozen=True)
class BertConfig:
    """`batch` and `seq` may be names of dynamic dimensions."""

    layers: int = 12
    hidden: int = 768
    heads: int = 12
    inner: int = 3072
    vocabulary: int = 30522
    batch: int | str = 1
    seq: int | str = 128
    sparsity: float = 0.0
    pattern: str = "dense"
    quantized: bool = False
    form: str = "qdq"
    seed: int = 0


BERT_BASE = BertConfig()
MINILM_L6 = BertConfig(layers=6, hidden=384, heads=12, inner=1536)


def bert(config: BertConfig) -> onnx.ModelProto:
    """The model; opset 13."""
    if not config.quantized:
        return _Writer(config, None).model()
    float_model = _Writer(BertConfig(**{**config.__dict__, "quantized": False}), None)
    return _Writer(config, float_model.ranges()).model()


def _weight_scale(w: np.ndarray) -> np.ndarray:
    """Per column, symmetric; 1 where a column is empty."""
    largest = np.abs(w).max(0)
    return np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)


class _Writer:
    def __init__(self, config: BertConfig, ranges: dict[str, tuple[float, float]] | None) -> None:
        self.c = config
        self.found = ranges
        self.rng = np.random.default_rng(config.seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.observed: list[str] = []
        self.quantized: dict[str, str] = {}
        self.n = 0

    def constant(self, name: str, array: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def op(self, kind: str, inputs: list[str], name: str = "", **attrs: object) -> str:
        self.n += not name  # the same names with and without quantization
        out = name or f"t{self.n}"
        self.nodes.append(helper.make_node(kind, inputs, [out], name=f"{out}_{kind}", **attrs))
        return out

    def quantize(self, x: str) -> str:
        """x, or what it is after a round trip through u8."""
        if self.found is None:
            self.observed.append(x)
            return x
        if x not in self.quantized:
            low, high = self.found[x]
            low, high = min(low, 0.0), max(high, 0.0)
            scale = self.constant(f"{x}_scale", np.float32((high - low) / 255 or 1.0))
            zero = self.constant(f"{x}_zero", np.uint8(round(-low / ((high - low) / 255 or 1.0))))
            q = self.op("QuantizeLinear", [x, scale, zero], f"{x}_q")
            self.quantized[x] = self.op("DequantizeLinear", [q, scale, zero], f"{x}_dq")
        return self.quantized[x]

    def linear(self, x: str, name: str, out: int, k: int, prune: bool = True) -> str:
        c = self.c
        w = pruned(self.rng, out, k, c.sparsity if prune else 0, c.pattern if prune else "dense").T
        if self.found is not None and c.form == "integer":
            return self.integer_linear(x, name, w)
        x = self.quantize(x)
        if self.found is None:
            weight = self.constant(f"{name}.weight", w)
        else:
            scale = _weight_scale(w)
            integers = np.clip(np.rint(w / scale), -127, 127).astype(np.int8)
            parts = [
                self.constant(f"{name}.weight_q", integers),
                self.constant(f"{name}.weight_scale", scale.astype(np.float32)),
                self.constant(f"{name}.weight_zero", np.zeros(out, np.int8)),
            ]
            weight = self.op("DequantizeLinear", parts, f"{name}.weight_dq", axis=1)
        product = self.op("MatMul", [x, weight], f"{name}.product")
        bias = self.constant(f"{name}.bias", 0.1 * self.rng.standard_normal(out).astype(np.float32))
        return self.op("Add", [product, bias], f"{name}.out")

    def integers(self, x: str) -> tuple[str, str, str]:
        """(x as u8, its scale, its zero point)."""
        self.quantize(x)
        return f"{x}_q", f"{x}_scale", f"{x}_zero"

    def integer_linear(self, x: str, name: str, w: np.ndarray) -> str:
        q, scale, zero = self.integers(x)
        x_scale = next(numpy_helper.to_array(c) for c in self.constants if c.name == scale)
        w_scale = _weight_scale(w)
        weight = self.constant(f"{name}.weight_q", np.clip(np.rint(w / w_scale), -127, 127).astype(np.int8))
        product = self.op("MatMulInteger", [q, weight, zero, self.zero_weight()], f"{name}.product")
        bias = 0.1 * self.rng.standard_normal(w.shape[1]).astype(np.float32)
        steps = self.constant(f"{name}.bias_q", np.rint(bias / (x_scale * w_scale)).astype(np.int32))
        total = self.op("Cast", [self.op("Add", [product, steps], f"{name}.sum")], f"{name}.cast", to=TensorProto.FLOAT)
        factor = self.constant(f"{name}.factor", (x_scale * w_scale).astype(np.float32))
        return self.op("Mul", [total, factor], f"{name}.out")

    def zero_weight(self) -> str:
        if "zero_weight" not in {c.name for c in self.constants}:
            self.constant("zero_weight", np.int8(0))
        return "zero_weight"

    def activation_product(self, a: str, b: str) -> str:
        """Of two activations."""
        if self.found is None or self.c.form != "integer":
            return self.op("MatMul", [self.quantize(a), self.quantize(b)])
        (qa, sa, za), (qb, sb, zb) = self.integers(a), self.integers(b)
        scales = [next(numpy_helper.to_array(c) for c in self.constants if c.name == s) for s in (sa, sb)]
        out = self.op("", [])  # keeps the numbering of the float model
        self.nodes.pop()
        product = self.op("MatMulInteger", [qa, qb, za, zb], f"{out}_int")
        total = self.op("Cast", [product], f"{out}_cast", to=TensorProto.FLOAT)
        return self.op("Mul", [total, self.constant(f"{out}_factor", np.float32(scales[0] * scales[1]))], out)

    def norm(self, x: str, name: str) -> str:
        H = self.c.hidden
        mean = self.op("ReduceMean", [x], axes=[-1], keepdims=1)
        centred = self.op("Sub", [x, mean])
        square = self.op("Pow", [centred, "two"])
        variance = self.op("ReduceMean", [square], axes=[-1], keepdims=1)
        deviation = self.op("Sqrt", [self.op("Add", [variance, "epsilon"])])
        scaled = self.op("Div", [centred, deviation])
        gamma = self.constant(f"{name}.gamma", (1 + 0.1 * self.rng.standard_normal(H)).astype(np.float32))
        beta = self.constant(f"{name}.beta", (0.1 * self.rng.standard_normal(H)).astype(np.float32))
        return self.op("Add", [self.op("Mul", [scaled, gamma]), beta], f"{name}.out")

    def heads(self, x: str, axes: list[int]) -> str:
        return self.op("Transpose", [self.op("Reshape", [x, "split_heads"])], perm=axes)

    def layer(self, x: str, i: int, mask: str) -> str:
        H, p = self.c.hidden, f"layer{i}"
        q = self.heads(self.linear(x, f"{p}.q", H, H), [0, 2, 1, 3])
        k = self.heads(self.linear(x, f"{p}.k", H, H), [0, 2, 3, 1])
        v = self.heads(self.linear(x, f"{p}.v", H, H), [0, 2, 1, 3])
        scores = self.op("Div", [self.activation_product(q, k), "root"])
        weights = self.op("Softmax", [self.op("Add", [scores, mask])], axis=-1)
        context = self.activation_product(weights, v)
        merged = self.op("Reshape", [self.op("Transpose", [context], perm=[0, 2, 1, 3]), "merge_heads"])
        x = self.norm(self.op("Add", [self.linear(merged, f"{p}.attention", H, H), x]), f"{p}.norm1")
        inner = self.linear(x, f"{p}.inner", self.c.inner, H)
        erf = self.op("Erf", [self.op("Div", [inner, "root_two"])])
        gelu = self.op("Mul", [self.op("Mul", [inner, self.op("Add", [erf, "one"])]), "half"])
        outer = self.linear(gelu, f"{p}.outer", H, self.c.inner)
        return self.norm(self.op("Add", [outer, x]), f"{p}.norm2")

    def embedding(self, name: str, rows: int) -> str:
        table = self.rng.standard_normal((rows, self.c.hidden)).astype(np.float32)
        if self.found is None or self.c.form == "integer":
            return self.op("Gather", [self.constant(f"{name}.table", table), name], f"{name}.rows")
        scale = np.float32(np.abs(table).max() / 127)
        data = self.constant(f"{name}.table_q", np.clip(np.rint(table / scale), -127, 127).astype(np.int8))
        parts = [self.constant(f"{name}.scale", scale), self.constant(f"{name}.zero", np.int8(0))]
        rows = self.op("Gather", [data, name], f"{name}.rows_q")
        return self.op("DequantizeLinear", [rows, *parts], f"{name}.rows")

    def model(self, observed: bool = False) -> onnx.ModelProto:
        """The whole graph; `observed`: with every tensor to be quantized as an output."""
        c = self.c
        d = c.hidden // c.heads
        batch = c.batch if isinstance(c.batch, int) else 0
        scalars = {"two": 2.0, "epsilon": 1e-12, "root": d**0.5, "root_two": 2**0.5, "one": 1.0, "half": 0.5}
        for name, value in {**scalars, "masked": -10000.0}.items():
            self.constant(name, np.float32(value))
        self.constant("split_heads", np.array([batch, -1, c.heads, d], np.int64))
        self.constant("merge_heads", np.array([batch, -1, c.hidden], np.int64))
        self.constant("mask_axes", np.array([1, 2], np.int64))
        mask = self.op("Cast", ["attention_mask"], to=TensorProto.FLOAT)
        mask = self.op("Mul", [self.op("Sub", ["one", self.op("Unsqueeze", [mask, "mask_axes"])]), "masked"])
        words, types = self.embedding("input_ids", c.vocabulary), self.embedding("token_type_ids", 2)
        x = self.op("Add", [words, types])
        if isinstance(c.seq, int):
            places = self.rng.standard_normal((c.seq, c.hidden)).astype(np.float32)
            x = self.op("Add", [x, self.constant("positions", places)])
        x = self.norm(x, "embeddings")
        for i in range(c.layers):
            x = self.layer(x, i, mask)
        logits = self.linear(x, "head", 2, c.hidden, prune=False)
        first = self.constant("first", np.array(0, np.int64))
        second = self.constant("second", np.array(1, np.int64))
        outputs = [
            self.op("Gather", [logits, first], "start_logits", axis=2),
            self.op("Gather", [logits, second], "end_logits", axis=2),
        ]
        outputs = self.observed if observed else outputs
        shape = [c.batch, c.seq]
        inputs = [
            helper.make_tensor_value_info(n, TensorProto.INT64, shape)
            for n in ("input_ids", "attention_mask", "token_type_ids")
        ]
        graph = helper.make_graph(
            self.nodes,
            "bert",
            inputs,
            [helper.make_tensor_value_info(o, TensorProto.FLOAT, None if observed else shape) for o in outputs],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Smallest and largest value of every tensor to be quantized, in one run of the float model."""
        import onnxruntime as ort

        model = self.model(observed=True)
        shape = [s if isinstance(s, int) else 32 for s in (self.c.batch, self.c.seq)]
        rng = np.random.default_rng(1)
        feeds = {
            "input_ids": rng.integers(0, self.c.vocabulary, shape),
            "attention_mask": np.ones(shape, np.int64),
            "token_type_ids": np.zeros(shape, np.int64),
        }
        session = ort.InferenceSession(model.SerializeToString())
        values = session.run(None, feeds)
        return {o.name: (float(v.min()), float(v.max())) for o, v in zip(session.get_outputs(), values, strict=True)}
