"""What a match of a layer's operation says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from tvm import relax

Values: TypeAlias = Mapping[relax.Var, relax.Expr]


@dataclass(frozen=True)
class Anchor:
    """The layer's family and attributes, its operands, and the output's channel axis (None: no epilogue)."""

    family: str
    attrs: Mapping[str, Any]
    operands: tuple[relax.Expr, ...]
    channel_axis: int | None
    note: str = ""
    """For the report, see `Layer`."""
