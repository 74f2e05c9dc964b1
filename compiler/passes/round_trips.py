"""Round trips of tensors through 8 bits, which models quantized in full have behind every operator.

A round trip before another one with the same scale and zero point changes nothing that the second one would not: where
nothing but reshapes and transposes lies between the two, the first is dropped. The others become part of the layer
that makes the tensor (fuse_layers.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from ..graph import Dataflow, Graph, constant, free_vars, op_name, substitute

_BYTES = ("uint8", "int8")
_VIEWS = ("relax.reshape", "relax.permute_dims", "relax.expand_dims", "relax.squeeze")
_PRODUCTS = ("relax.matmul", "relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d", "relax.permute_dims")


@dataclass(frozen=True)
class RoundTrip:
    """float32 -> 8 bits -> float32 with one scale and zero point."""

    source: relax.Var
    quantized: relax.Var
    scale: float
    zero_point: int
    dtype: str

    @property
    def parameters(self) -> tuple[float, int, str]:
        """What makes two of them equal."""
        return self.scale, self.zero_point, self.dtype


def round_trip(value: Any, values: Mapping[relax.Var, relax.Expr]) -> RoundTrip | None:
    """What `value` is, if it dequantizes what was just quantized with the same constants."""
    if op_name(value) != "relax.dequantize" or not isinstance(value.args[0], relax.Var):
        return None
    quantized = value.args[0]
    inner: Any = values.get(quantized)
    back, there = parameters(value, values), parameters(inner, values)
    if op_name(inner) != "relax.quantize" or back is None or back != there or not isinstance(inner.args[0], relax.Var):
        return None
    return RoundTrip(inner.args[0], quantized, *back, str(quantized.ty.dtype))


def parameters(value: Any, values: Mapping[relax.Var, relax.Expr]) -> tuple[float, int] | None:
    """Scale and zero point of a quantization to or from 8 bits, if they are constants for the whole tensor."""
    if op_name(value) not in ("relax.quantize", "relax.dequantize"):
        return None
    if op_name(value) == "relax.dequantize" and str(value.args[0].ty.dtype) not in _BYTES:
        return None
    numbers = [constant(a, values) for a in value.args[1:]]
    if any(n is None or n.size != 1 for n in numbers):
        return None
    scale, zero = (np.asarray(n).reshape(())[()] for n in numbers)
    return float(scale), int(zero)


def read_by_products_alone(
    var: relax.Var, readers: Mapping[relax.Var, list[relax.Var]], values: Mapping[relax.Var, relax.Expr]
) -> bool:
    """Whether every reader is an operator that takes dequantized operands as integers."""
    return all(op_name(values[r]) in _PRODUCTS for r in readers.get(var, ()))


def drop_round_trips(graph: Graph) -> Graph:
    """Without those that another one repeats, and with one dequantization of each tensor."""
    main = Dataflow.of(graph)
    values = main.values()
    readers = main.readers()
    results = set(free_vars(main.result))
    replaced: dict[relax.Var, relax.Expr] = {}
    first: dict[tuple[relax.Var, float, int], relax.Var] = {}
    bindings = []
    for var, value in main.bindings:
        back = parameters(value, values) if op_name(value) == "relax.dequantize" else None
        if back is not None and isinstance(value.args[0], relax.Var) and var not in results:
            same = first.setdefault((value.args[0], *back), var)
            if not same.same_as(var):  # each reader of an integer tensor may have its own dequantization
                replaced[var] = replaced.get(same, same)
                continue
        trip = round_trip(value, values)
        if trip is not None and var not in results and _repeated(var, trip, readers, values, results):
            replaced[var] = replaced.get(trip.source, trip.source)
            continue
        bindings.append((var, substitute(value, replaced)))
    main.bindings = bindings
    return graph.with_main(main.live())


def _repeated(
    var: relax.Var,
    trip: RoundTrip,
    readers: Mapping[relax.Var, list[relax.Var]],
    values: Mapping[relax.Var, relax.Expr],
    results: set[relax.Var],
) -> bool:
    """Whether all that is ever read of `var` is quantized as it was."""
    for reader in readers.get(var, ()):
        value = values[reader]
        if reader in results:
            return False
        if op_name(value) in _VIEWS:
            if not _repeated(reader, trip, readers, values, results):
                return False
        elif op_name(value) != "relax.quantize" or (*(parameters(value, values) or ()), str(reader.ty.dtype)) != (
            trip.parameters
        ):
            return False
    return bool(readers.get(var))
