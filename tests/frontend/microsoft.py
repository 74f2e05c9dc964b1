"""Models of onnxruntime's own operators, and how they are compared with it."""

from __future__ import annotations

import numpy as np
import onnx
from graphs import model, node
from onnx import helper
from relax_vm import run_model, run_onnxruntime


def check(nodes, inputs, outputs="y", tolerance=2e-5, **constants) -> dict[str, np.ndarray]:
    """Builds the model and compares both results."""
    made = build(nodes, inputs, outputs, **constants)
    want = run_onnxruntime(made, inputs)
    got = run_model(made, inputs)
    for name, value in want.items():
        assert got[name].dtype == value.dtype
        np.testing.assert_allclose(got[name], value, rtol=0, atol=tolerance * max(np.abs(value).max(), 1))
    return got


def build(nodes, inputs, outputs="y", **constants) -> onnx.ModelProto:
    types = {name: (str(value.dtype), list(value.shape)) for name, value in inputs.items()}
    made = model(nodes, types, outputs, **constants)
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return made


def ms(op, inputs, outputs="y", **attrs):
    return node(op, inputs, outputs, domain="com.microsoft", **attrs)
