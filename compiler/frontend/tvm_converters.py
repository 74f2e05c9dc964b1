"""TVM's own ONNX converters, for the operators we have none of our own for."""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import numpy_helper

from .diagnostics import CannotConvert, reason_of
from .onnx_schema import NEWEST, default_attrs

if TYPE_CHECKING:
    from .context import Context
    from .graph import Node

STANDARD = frozenset(
    [
        *(
            "Abs",
            "Acos",
            "Acosh",
            "And",
            "ArgMax",
            "ArgMin",
            "Asin",
            "Asinh",
            "Atan",
            "Atanh",
        ),
        *("BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Ceil", "Cos", "Cosh", "CumSum"),
        *("Einsum", "Erf", "Exp", "Floor", "GatherElements", "GatherND", "Gelu"),
        *("GlobalLpPool", "Greater", "GreaterOrEqual", "GridSample", "HardSigmoid", "HardSwish", "Hardmax", "IsNaN"),
        *("LRN", "Less", "LessOrEqual", "Log", "Mish", "Neg", "Not", "Or"),
        *("Reciprocal", "Relu", "Round", "ScatterElements", "ScatterND", "Shrink", "Sigmoid", "Sign", "Sin"),
        *("Sinh", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh", "Trilu", "Xor"),
    ]
)
"""Those whose results were compared with onnxruntime's; what is not listed is not used."""


@functools.cache
def _classes() -> dict[str, Any]:
    from tvm.relax.frontend.onnx import onnx_frontend

    return dict(onnx_frontend._get_convert_map())


def has(domain: str, op: str) -> bool:
    """Whether TVM's converter is used for an operator."""
    return not domain and op in STANDARD


def convert(context: Context, node: Node) -> Any:
    """Call TVM's converter; it may print and raise anything, so both are caught.

    Raises:
        CannotConvert: with the first line of what it said.
    """
    from tvm.relax.frontend.onnx.onnx_frontend import onnx_input

    inputs = onnx_input([context.expr(name) if name else None for name in node.inputs])
    attrs = {name: _raw(value) for name, value in default_attrs(node).items()}
    attrs["tvm_custom"] = {"name": node.name, "num_outputs": len(node.outputs)}
    version = NEWEST if not node.domain else 1
    implementation = _classes()[node.op_type].get_converter(version)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return context.normalize(implementation(context.builder, inputs, attrs, [context.exprs, {}]))
    except Exception as error:
        raise CannotConvert(f"TVM's importer refuses it: {reason_of(error)}") from None


def _raw(value: Any) -> Any:
    """An attribute as TVM's importer parses it: strings as bytes, lists as tuples, tensors as protos."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, list):
        return tuple(_raw(v) for v in value)
    if isinstance(value, np.ndarray):
        return numpy_helper.from_array(value)
    return value
