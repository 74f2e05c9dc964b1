"""What follows a kernel's accumulator: a chain of scalar operations on `x`, in a loop that clang vectorizes.

ONE row per operation. A statement may use `x`, its tensor as {t}, its numbers as {0}, {1}, and the indices `channel`
and `element` (of the output) that every kernel's loop defines.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .integer import inverse


@dataclass(frozen=True)
class EpilogueOp:
    """One operation; `params` are its numbers. A tensor, if it takes one, is a further operand of the layer."""

    kind: str
    params: tuple[float, ...] = ()

    @property
    def takes_operand(self) -> bool:
        """Whether it reads a tensor beside the accumulator."""
        return "{t}" in STATEMENTS[self.kind]


STATEMENTS = {
    # one value per channel
    "bias": "x += {t}[channel];",
    "prelu": "x = x < 0 ? x * {t}[channel] : x;",
    # a tensor like the output
    "add": "x += {t}[element];",
    "mul": "x *= {t}[element];",
    # four numbers: to 8 bits and back, see fake_quantize_operand
    "fake_quantize": "x *= {t}[0]; x = x > {t}[2] ? x : {t}[2]; x = x < {t}[3] ? x : {t}[3]; "
    "x = ((x + 0x1.8p+23f) - 0x1.8p+23f) * {t}[1];",
    # numbers; comparisons are such that NaN stays NaN
    "scale": "x *= {0};",
    "relu": "x = x < 0 ? 0 : x;",
    "clip": "x = x < {0} ? {0} : x; x = x > {1} ? {1} : x;",
    "leaky_relu": "x = x < 0 ? x * {0} : x;",
    "sigmoid": "x = sparsec_sigmoid_float32(x);",
    "tanh": "x = sparsec_tanh_float32(x);",
    "silu": "x *= sparsec_sigmoid_float32(x);",
    "gelu_erf": "x *= 0.5f + 0.5f * sparsec_erf_float32(x * 0x1.6a09e6p-1f);",
    "gelu_tanh": "x *= sparsec_sigmoid_float32(x * (0x1.988454p+0f + 0x1.2444f2p-4f * x * x));",
    "hard_swish": "{{ float h = x * 0x1.555556p-3f + 0.5f; h = h < 0 ? 0 : h; h = h > 1 ? 1 : h; x *= h; }}",
}
"""Operation -> C statements."""

VECTOR_STATEMENTS = {
    "bias": "x += {t};",
    "prelu": "x = vselect((vi)(x < vset(0)), x * {t}, x);",
    "add": "x += {t};",
    "mul": "x *= {t};",
    "fake_quantize": "x = vfake_quantize(x, {t});",
    "scale": "x *= vset({0});",
    "relu": "x = vselect((vi)(x < vset(0)), vset(0), x);",
    "clip": "x = vclamp(x, {0}, {1});",
    "leaky_relu": "x = vselect((vi)(x < vset(0)), x * vset({0}), x);",
    "sigmoid": "x = vsigmoid(x);",
    "tanh": "x = vtanh(x);",
    "silu": "x *= vsigmoid(x);",
    "gelu_erf": "x = vgelu(x);",
    "gelu_tanh": "x *= vsigmoid(x * (vset(0x1.988454p+0f) + vset(0x1.2444f2p-4f) * x * x));",
    "hard_swish": "x *= vclamp(x * vset(0x1.555556p-3f) + vset(0.5f), 0, 1);",
}
"""The same for a vector `x`; {t} is the vector of the tensor's values that belong to its lanes, or the numbers."""


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


_erf = np.vectorize(math.erf, otypes=[np.float64])

FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "scale": lambda x, factor: x * factor,
    "relu": lambda x: np.maximum(x, 0),
    "clip": np.clip,
    "leaky_relu": lambda x, slope: np.where(x < 0, x * slope, x),
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "silu": lambda x: x * _sigmoid(x),
    "gelu_erf": lambda x: 0.5 * x * (1 + _erf(x * np.sqrt(0.5))),
    "gelu_tanh": lambda x: x * _sigmoid(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)),
    "hard_swish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
}
"""The same in numpy, float64, for the operations without a tensor: tables are made of them."""

FULL_TENSOR = ("add", "mul")
"""Operations whose tensor is shaped like the output."""
NUMBERS = ("fake_quantize",)
"""Operations whose tensor is a few numbers."""


def fake_quantize_operand(scale: float, zero_point: int, dtype: str) -> np.ndarray:
    """What a round trip through 8 bits reads: reciprocal of the scale, scale, lowest and highest step."""
    limits = np.iinfo(dtype)
    return np.array([inverse(scale), scale, limits.min - zero_point, limits.max - zero_point], np.float32)


@dataclass(frozen=True)
class EpilogueText:
    """A chain as C: names of its tensor parameters, its statements, and a suffix for symbols that tells it apart."""

    parameters: tuple[str, ...]
    text: str
    suffix: str


def c_float(value: float) -> str:
    """An exact C literal of a float32; infinities too."""
    if value in (float("inf"), float("-inf")):
        return "__builtin_inff()" if value > 0 else "(-__builtin_inff())"
    return f"({float(value).hex()}f)"


def epilogue_text(ops: tuple[EpilogueOp, ...]) -> EpilogueText:
    """The chain in C."""
    parameters, lines = [], []
    for number, op in enumerate(ops):
        name = f"e{number}_{op.kind}"
        if op.takes_operand:
            parameters.append(name)
        lines.append(STATEMENTS[op.kind].format(*(c_float(p) for p in op.params), t=name))
    suffix = "_".join(op.kind for op in ops)
    if any(op.params for op in ops) or len(suffix) > 40:
        digest = hashlib.sha256(repr([(op.kind, op.params) for op in ops]).encode()).hexdigest()[:8]
        suffix = f"{suffix[:40]}_{digest}"
    return EpilogueText(tuple(parameters), "\n".join(lines), suffix)


def vector_lines(ops: tuple[EpilogueOp, ...], tensors: tuple[str, ...]) -> list[str]:
    """The chain for a vector `x`; `tensors` are C expressions, one for each op that takes a tensor, in order."""
    rest = iter(tensors)
    return [
        VECTOR_STATEMENTS[op.kind].format(*(c_float(p) for p in op.params), t=next(rest) if op.takes_operand else "")
        for op in ops
    ]
