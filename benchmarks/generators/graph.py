"""Writes networks as ONNX graphs: float, or quantized in one of three forms that hold the same integers.

`qdq`: the inputs of linear layers, convolutions and products of activations are quantized (u8 per tensor, weights s8),
their outputs are not. `full_qdq`: their outputs too, and so what enters GELU or SiLU; onnxruntime
computes in integers only then. `integer`: what SparseML exports; ConvInteger or MatMulInteger, int32 bias, Cast, Mul.
Ranges are those of one run of the float network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .pruning import pruned

FORMS = ("qdq", "full_qdq", "integer")


@dataclass(frozen=True)
class Config:
    """What every network has. `batch` may be the name of a dynamic dimension; `pattern` is one of `pruned`.

    Weights have one scale, as SparseML exports them (DeepSparse takes longer otherwise), or `per_channel` ones.
    """

    batch: int | str = 1
    sparsity: float = 0.0
    pattern: str = "dense"
    quantized: bool = False
    form: str = "qdq"
    per_channel: bool = False
    seed: int = 0


AnyConfig = TypeVar("AnyConfig", bound=Config)


class Writer:
    """A graph under construction. Names are the same with and without quantization."""

    def __init__(self, config: Config, ranges: dict[str, tuple[float, float]] | None) -> None:
        if config.form not in FORMS:
            raise ValueError(f"unknown form {config.form!r}; there are {', '.join(FORMS)}")
        self.config = config
        self.ranges = ranges
        self.rng = np.random.default_rng(config.seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.observed: dict[str, None] = {}
        self.scales: dict[str, np.float32] = {}
        self.sources: dict[str, str] = {}  # of dequantized tensors
        self.count = 0

    def network(self) -> list[tuple[str, list[int | str]]]:
        """Writes the nodes; returns each output's name and shape."""
        raise NotImplementedError

    def feeds(self, batch: int = 1) -> dict[str, np.ndarray]:
        """Seeded inputs; those of one are what the ranges are of."""
        raise NotImplementedError

    def input(self, name: str, dtype: int, shape: list[int | str]) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def constant(self, name: str, array: np.ndarray | np.generic) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def op(self, kind: str, inputs: list[str], name: str = "", **attributes: object) -> str:
        """A node with one output, named after it. Unnamed ones are numbered: they must not depend on the form."""
        self.count += not name
        out = name or f"t{self.count}"
        self.nodes.append(helper.make_node(kind, inputs, [out], name=f"{out}_{kind}", **attributes))
        return out

    @property
    def integer(self) -> bool:
        return self.ranges is not None and self.config.form == "integer"

    def quantize(self, x: str) -> str:
        """x, or in a quantized network what is left of it after a round trip through u8."""
        if self.ranges is None:
            self.observed[x] = None
            return x
        x = self.sources.get(x, x)
        q, scale, zero = self.integers(x)
        out = f"{x}_dq"
        if out not in self.sources:
            self.op("DequantizeLinear", [q, scale, zero], out)
            self.sources[out] = x
        return out

    def settle(self, x: str) -> str:
        """An output of a linear layer or convolution: quantized in the full form only."""
        return self.quantize(x) if self.config.form == "full_qdq" else x

    def integers(self, x: str) -> tuple[str, str, str]:
        """x as u8, its scale and its zero point: three tensors."""
        x = self.sources.get(x, x)
        names = f"{x}_q", f"{x}_scale", f"{x}_zero"
        if x not in self.scales:
            assert self.ranges is not None
            low, high = self.ranges[x]
            low, high = min(low, 0.0), max(high, 0.0)
            step = (high - low) / 255 or 1.0
            self.scales[x] = np.float32(step)
            self.constant(names[1], self.scales[x])
            self.constant(names[2], np.uint8(round(-low / step)))
            self.op("QuantizeLinear", [x, *names[1:]], names[0])
        return names

    def scale(self, x: str) -> np.float32:
        return self.scales[self.sources.get(x, x)]

    def linear(self, x: str, name: str, out: int, k: int, prune: bool = True, gain: float = 1.0) -> str:
        """x @ W + b: W is [k, out], pruned as the configuration says."""
        c = self.config
        w = np.float32(gain) * pruned(self.rng, out, k, *((c.sparsity, c.pattern) if prune else (0.0, "dense"))).T
        bias = 0.1 * self.rng.standard_normal(out).astype(np.float32)
        if self.integer:
            return self.integer_linear(x, name, w, bias)
        x = self.quantize(x)
        weight = self.constant(f"{name}.weight", w) if self.ranges is None else self.weights(name, w, 1)
        product = self.op("MatMul", [x, weight], f"{name}.product")
        return self.settle(self.op("Add", [product, self.constant(f"{name}.bias", bias)], f"{name}.out"))

    def integer_linear(self, x: str, name: str, w: np.ndarray, bias: np.ndarray) -> str:
        q, _, zero = self.integers(x)
        integers, scale = self.quantized_weights(w, 1)
        operands = [q, self.constant(f"{name}.weight_q", integers), zero, self.constant("zero_weight", np.int8(0))]
        factor = self.scale(x) * scale
        steps = self.constant(f"{name}.bias_q", np.rint(bias / factor).astype(np.int32))
        return self.rescaled(self.op("MatMulInteger", operands, f"{name}.product"), name, factor, steps)

    def conv(
        self,
        x: str,
        name: str,
        shape: tuple[int, int, int],
        stride: int = 1,
        pads: int | None = None,
        group: int = 1,
        prune: bool = True,
        gain: float = 1.0,
    ) -> str:
        """Convolution with bias; `shape` is (out, in, kernel). Blocks of zeros lie along the input channels.

        Pads keep the size unless given; depthwise weights are never pruned.
        """
        c = self.config
        out, channels, kernel = shape
        channels //= group
        sparsity, pattern = (c.sparsity, c.pattern) if prune and group == 1 else (0.0, "dense")
        rows = pruned(self.rng, out * kernel * kernel, channels, sparsity, pattern)
        w = rows.reshape(out, kernel, kernel, channels).transpose(0, 3, 1, 2) * np.float32(gain / kernel)
        bias = 0.1 * self.rng.standard_normal(out).astype(np.float32)
        pad = kernel // 2 if pads is None else pads
        attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4, "group": group}
        if self.ranges is None:
            parts = [self.constant(f"{name}.weight", w), self.constant(f"{name}.bias", bias)]
            return self.op("Conv", [self.quantize(x), *parts], f"{name}.out", **attributes)
        integers, scale = self.quantized_weights(w, 0)
        q, _, zero = self.integers(x)
        factor = self.scale(x) * scale
        steps = np.rint(bias / factor).astype(np.int32)
        if self.integer:
            operands = [q, self.constant(f"{name}.weight_q", integers), zero, self.constant("zero_weight", np.int8(0))]
            total = self.op("ConvInteger", operands, f"{name}.product", **attributes)
            spread = self.constant(f"{name}.bias_q", steps.reshape(1, out, 1, 1))
            return self.rescaled(total, name, factor.reshape(1, out, 1, 1) if c.per_channel else factor, spread)
        parts = [
            self.constant(f"{name}.bias_q", steps),
            self.constant(f"{name}.bias_scale", factor),
            self.constant(f"{name}.bias_zero", np.zeros(factor.shape, np.int32)),
        ]
        offset = self.op("DequantizeLinear", parts, f"{name}.bias_dq", **({"axis": 0} if c.per_channel else {}))
        return self.op("Conv", [self.quantize(x), self.weights(name, w, 0), offset], f"{name}.out", **attributes)

    def weights(self, name: str, w: np.ndarray, axis: int) -> str:
        """The weights as s8 and a DequantizeLinear."""
        integers, scale = self.quantized_weights(w, axis)
        parts = [
            self.constant(f"{name}.weight_q", integers),
            self.constant(f"{name}.weight_scale", scale),
            self.constant(f"{name}.weight_zero", np.zeros(scale.shape, np.int8)),
        ]
        attributes = {"axis": axis} if self.config.per_channel else {}
        return self.op("DequantizeLinear", parts, f"{name}.weight_dq", **attributes)

    def quantized_weights(self, w: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray | np.float32]:
        """(s8 weights, their scale or one for each index of `axis`), symmetric; a scale is 1 where all are zero."""
        others = tuple(i for i in range(w.ndim) if i != axis or not self.config.per_channel)
        largest = np.abs(w).max(others, keepdims=True)
        scale = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
        integers = np.clip(np.rint(w / scale), -127, 127).astype(np.int8)
        return integers, scale.reshape(-1) if self.config.per_channel else scale.reshape(())[()]

    def rescaled(self, product: str, name: str, factor: np.ndarray | np.float32, bias: str | None = None) -> str:
        """(product + bias) * factor as float, `name`.out."""
        total = self.op("Add", [product, bias], f"{name}.sum") if bias else product
        number = self.op("Cast", [total], f"{name}.cast", to=TensorProto.FLOAT)
        return self.op("Mul", [number, self.constant(f"{name}.factor", factor)], f"{name}.out")

    def activation_product(self, a: str, b: str, name: str) -> str:
        """Of two activations."""
        if not self.integer:
            return self.settle(self.op("MatMul", [self.quantize(a), self.quantize(b)], f"{name}.out"))
        (qa, _, za), (qb, _, zb) = self.integers(a), self.integers(b)
        product = self.op("MatMulInteger", [qa, qb, za, zb], f"{name}.product")
        return self.rescaled(product, name, np.float32(self.scale(a) * self.scale(b)))

    def model(self, observed: bool = False) -> onnx.ModelProto:
        """The whole graph; `observed`: with every tensor to be quantized as an output."""
        outputs = self.network()
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs]
        if observed:
            infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self.observed]
        title = type(self).__name__.lower()
        graph = helper.make_graph(self.nodes, title, self.inputs, infos, list(self.constants.values()))
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def generate(writer: Callable[[AnyConfig, dict[str, tuple[float, float]] | None], Writer], config: AnyConfig):
    """The model; opset 13, IR version 8. Ranges do not depend on the batch."""
    if not config.quantized:
        return writer(config, None).model()
    batch = 1 if isinstance(config.batch, int) else config.batch
    return writer(config, _ranges(writer(replace(config, quantized=False, batch=batch), None))).model()


def _ranges(writer: Writer) -> dict[str, tuple[float, float]]:
    """Smallest and largest value of every tensor to be quantized, in one run of the float network."""
    import onnxruntime as ort

    session = ort.InferenceSession(writer.model(observed=True).SerializeToString())
    values = session.run(None, writer.feeds())
    return {o.name: (float(v.min()), float(v.max())) for o, v in zip(session.get_outputs(), values, strict=True)}
