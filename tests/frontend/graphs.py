"""Small models for the frontend's tests, written as lists of nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


def node(op: str, inputs: str, outputs: str, **attrs: Any) -> onnx.NodeProto:
    """`node("Add", "a b", "c")`; a '-' stands for an absent input."""
    names = [n if n != "-" else "" for n in inputs.split()]
    domain = attrs.pop("domain", "")
    return helper.make_node(op, names, outputs.split(), domain=domain, **attrs)


def model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[str, list[Any]]],
    outputs: str,
    opset: int = 17,
    functions: tuple[onnx.FunctionProto, ...] = (),
    **initializers: np.ndarray,
) -> onnx.ModelProto:
    """A model; inputs are name -> (dtype, shape), initializers are keyword arguments."""
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
        for name, (dtype, shape) in inputs.items()
    ]
    results = [helper.make_empty_tensor_value_info(name) for name in outputs.split()]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in initializers.items()]
    graph = helper.make_graph(nodes, "g", values, results, initializer=weights)
    opsets = [helper.make_opsetid("", opset), *[helper.make_opsetid(f.domain, 1) for f in functions]]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=list(functions))


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    """Normally distributed float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    """An int64 vector."""
    return np.array(values, np.int64)
