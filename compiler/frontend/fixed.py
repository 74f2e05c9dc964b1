"""Inputs that the user fixes: they become constants before anything else happens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ShapeError
from .onnx_schema import to_dtype, to_numpy

if TYPE_CHECKING:
    import onnx

    from .load import LoadedModel


def fixed_inputs(loaded: LoadedModel, fixed: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The values as arrays of the inputs' dtypes and shapes; a number fills an input whose extents are all 1.

    Raises:
        ShapeError: a name is no input's, or the value has another shape or does not fit the dtype.
    """
    inputs = {v.name: v for v in loaded.proto.graph.input if v.name not in loaded.weights}
    result = {}
    for name, value in fixed.items():
        if name not in inputs:
            known = ", ".join(f"'{n}'" for n in sorted(inputs))
            raise ShapeError(f"--fix: the model has no input named '{name}'; it has {known}.")
        result[name] = _array(inputs[name], value)
    return result


def _array(declared: onnx.ValueInfoProto, value: Any) -> np.ndarray:
    name, tensor = declared.name, declared.type.tensor_type
    dtype = to_numpy(to_dtype(tensor.elem_type))
    try:
        given = np.asarray(value)
        array = given.astype(dtype)
    except (TypeError, ValueError):
        raise ShapeError(f"--fix {name}: {value!r} is not a value of type {dtype}.") from None
    is_rounded = dtype.kind != "f" and not np.array_equal(array, given)
    if given.dtype.kind not in "biuf" or is_rounded:
        raise ShapeError(f"--fix {name}: {value!r} is not a value of type {dtype}.")
    if not tensor.HasField("shape"):
        return array
    axes = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    if array.ndim == 0 and all(d in (1, None) for d in axes):
        array = array.reshape([1] * len(axes))
    if len(axes) != array.ndim or any(d is not None and d != n for d, n in zip(axes, array.shape, strict=True)):
        wanted = ",".join("?" if d is None else str(d) for d in axes)
        raise ShapeError(f"--fix {name} has shape {list(array.shape)}, the model takes [{wanted}].")
    return array
