"""numpy references of the kernels, in float64."""

from __future__ import annotations

from math import erf

import numpy as np

_ERF = np.vectorize(erf, otypes=[np.float64])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "silu": lambda x: x * sigmoid(x),
    "gelu_erf": lambda x: x * 0.5 * (1 + _ERF(x / np.sqrt(2))),
    "gelu_tanh": lambda x: x * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "hard_swish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
}


def apply_epilogue(x, ops, operands, channel_axis):
    """The chain on the accumulator; `operands` are its tensors in order."""
    tensors = list(operands)
    shape = [1] * x.ndim
    shape[channel_axis] = -1
    for op in ops:
        if op.kind == "bias":
            x = x + tensors.pop(0).reshape(shape)
        elif op.kind == "prelu":
            x = np.where(x < 0, x * tensors.pop(0).reshape(shape), x)
        elif op.kind == "add":
            x = x + tensors.pop(0)
        elif op.kind == "mul":
            x = x * tensors.pop(0)
        elif op.kind == "fake_quantize":
            inverse, scale, low, high = tensors.pop(0)
            x = np.rint(np.clip(x.astype(np.float32) * inverse, low, high)) * scale
        elif op.kind == "scale":
            x = x * op.params[0]
        elif op.kind == "clip":
            x = np.clip(x, *op.params)
        elif op.kind == "leaky_relu":
            x = np.where(x < 0, x * op.params[0], x)
        else:
            x = ACTIVATIONS[op.kind](x)
    return x


def conv2d(x, w, strides, dilation, padding, groups):
    """NCHW by OIHW."""
    n = len(x)
    o, i, kh, kw = w.shape
    top, left, bottom, right = padding
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    oh = (x.shape[2] - (kh - 1) * dilation[0] - 1) // strides[0] + 1
    ow = (x.shape[3] - (kw - 1) * dilation[1] - 1) // strides[1] + 1
    out = np.zeros((n, o, oh, ow))
    per = o // groups
    for a in range(kh):
        for b in range(kw):
            rows = slice(a * dilation[0], a * dilation[0] + (oh - 1) * strides[0] + 1, strides[0])
            cols = slice(b * dilation[1], b * dilation[1] + (ow - 1) * strides[1] + 1, strides[1])
            part = x[:, :, rows, cols].reshape(n, groups, i, oh, ow)
            taps = w[:, :, a, b].astype(np.float64).reshape(groups, per, i)
            out += np.einsum("goi,ngihw->ngohw", taps, part).reshape(n, o, oh, ow)
    return out


def pool2d(x, kind, kernel, strides, dilation, padding, include_pad):
    top, left, bottom, right = padding
    fill = -np.inf if kind == "max" else 0.0
    wide = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    ones = np.pad(np.ones(x.shape[2:]), ((top, bottom), (left, right)), constant_values=float(include_pad))
    oh = (wide.shape[2] - (kernel[0] - 1) * dilation[0] - 1) // strides[0] + 1
    ow = (wide.shape[3] - (kernel[1] - 1) * dilation[1] - 1) // strides[1] + 1
    parts, counts = [], []
    for a in range(kernel[0]):
        for b in range(kernel[1]):
            rows = slice(a * dilation[0], a * dilation[0] + (oh - 1) * strides[0] + 1, strides[0])
            cols = slice(b * dilation[1], b * dilation[1] + (ow - 1) * strides[1] + 1, strides[1])
            parts.append(wide[:, :, rows, cols])
            counts.append(ones[rows, cols])
    return np.max(parts, axis=0) if kind == "max" else np.sum(parts, axis=0) / np.sum(counts, axis=0)
