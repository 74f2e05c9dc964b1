"""BERT encoders with a SQuAD head: seeded, well-scaled random weights, pruned and quantized as asked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from .graph import Config, Writer, generate


@dataclass(frozen=True)
class BertConfig(Config):
    """`seq` may be the name of a dynamic dimension; then there are no position embeddings."""

    layers: int = 12
    hidden: int = 768
    heads: int = 12
    inner: int = 3072
    vocabulary: int = 30522
    seq: int | str = 128


BERT_BASE = BertConfig()
MINILM_L6 = BertConfig(layers=6, hidden=384, heads=12, inner=1536)


def bert(config: BertConfig) -> onnx.ModelProto:
    return generate(Bert, config)


class Bert(Writer):
    def __init__(self, config: BertConfig, ranges: dict[str, tuple[float, float]] | None) -> None:
        super().__init__(config, ranges)
        self.c = config

    def network(self) -> list[tuple[str, list[int | str]]]:
        c = self.c
        d = c.hidden // c.heads
        batch = c.batch if isinstance(c.batch, int) else 0
        scalars = {"two": 2.0, "epsilon": 1e-12, "root": d**0.5, "root_two": 2**0.5, "one": 1.0, "half": 0.5}
        for name, value in {**scalars, "masked": -10000.0}.items():
            self.constant(name, np.float32(value))
        self.constant("split_heads", np.array([batch, -1, c.heads, d], np.int64))
        self.constant("merge_heads", np.array([batch, -1, c.hidden], np.int64))
        self.constant("mask_axes", np.array([1, 2], np.int64))
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            self.input(name, TensorProto.INT64, [c.batch, c.seq])
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
        outputs = []
        for i, name in enumerate(("start_logits", "end_logits")):
            index = self.constant(f"{name}_index", np.array(i, np.int64))
            outputs.append((self.op("Gather", [logits, index], name, axis=2), [c.batch, c.seq]))
        return outputs

    def feeds(self, batch: int = 1) -> dict[str, np.ndarray]:
        shape = [batch, self.c.seq if isinstance(self.c.seq, int) else 32]
        return {
            "input_ids": np.random.default_rng(1).integers(0, self.c.vocabulary, shape),
            "attention_mask": np.ones(shape, np.int64),
            "token_type_ids": np.zeros(shape, np.int64),
        }

    def layer(self, x: str, i: int, mask: str) -> str:
        H, p = self.c.hidden, f"layer{i}"
        q = self.heads(self.linear(x, f"{p}.q", H, H), [0, 2, 1, 3])
        k = self.heads(self.linear(x, f"{p}.k", H, H), [0, 2, 3, 1])
        v = self.heads(self.linear(x, f"{p}.v", H, H), [0, 2, 1, 3])
        scores = self.op("Div", [self.activation_product(q, k, f"{p}.scores"), "root"])
        weights = self.op("Softmax", [self.op("Add", [scores, mask])], axis=-1)
        context = self.activation_product(weights, v, f"{p}.context")
        merged = self.op("Reshape", [self.op("Transpose", [context], perm=[0, 2, 1, 3]), "merge_heads"])
        x = self.norm(self.op("Add", [self.linear(merged, f"{p}.attention", H, H), x]), f"{p}.norm1")
        inner = self.linear(x, f"{p}.inner", self.c.inner, H)
        erf = self.op("Erf", [self.op("Div", [inner, "root_two"])])
        gelu = self.op("Mul", [self.op("Mul", [inner, self.op("Add", [erf, "one"])]), "half"])
        outer = self.linear(gelu, f"{p}.outer", H, self.c.inner)
        return self.norm(self.op("Add", [outer, x]), f"{p}.norm2")

    def heads(self, x: str, axes: list[int]) -> str:
        return self.op("Transpose", [self.op("Reshape", [x, "split_heads"])], perm=axes)

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

    def embedding(self, name: str, rows: int) -> str:
        """Rows of a table, which is s8 in a quantized network."""
        table = self.rng.standard_normal((rows, self.c.hidden)).astype(np.float32)
        if self.ranges is None:
            return self.op("Gather", [self.constant(f"{name}.table", table), name], f"{name}.rows")
        scale = np.float32(np.abs(table).max() / 127)
        data = self.constant(f"{name}.table_q", np.clip(np.rint(table / scale), -127, 127).astype(np.int8))
        parts = [self.constant(f"{name}.scale", scale), self.constant(f"{name}.zero", np.int8(0))]
        picked = self.op("Gather", [data, name], f"{name}.rows_q")
        return self.op("DequantizeLinear", [picked, *parts], f"{name}.rows")
