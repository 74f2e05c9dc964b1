"""How a tensor of N columns (tokens, or pixels) by C features lies in memory.

`ROWS` is the order of the graph, [N][C]. `PANELS` puts 16 columns into a vector register: [N/16][C][16] floats, or
bytes in groups of four features, [N/16][C/4][16][4], as multiply-accumulates of int8 take them. Offsets in panels do
not depend on N. Columns that the last panel has too many hold anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from .use import Size, ceil_div

COLUMNS = 16
"""Of a panel."""
GROUP = 4
"""Features that lie together in panels of bytes."""


@dataclass(frozen=True)
class Quantized:
    """real = scale * (integer - zero_point), integer in 0..255."""

    scale: float
    zero_point: int
    table: bytes = field(default=b"", repr=False)
    """Not empty: 256 bytes, of which the integer chooses the one that is written."""


Rows: TypeAlias = Literal["rows"]
Panels: TypeAlias = Literal["panels"]
Layout: TypeAlias = "Rows | Panels | Quantized"
"""`rows` and `panels` are of float32; `Quantized` is panels of u8, made from the float32 values."""

ROWS: Rows = "rows"
PANELS: Panels = "panels"


def panel_shape(columns: Size, features: int, quantized: bool) -> tuple[Size, ...]:
    """Shape of a tensor in panels of bytes (`features` a multiple of 4) or of floats."""
    panels = ceil_div(columns, COLUMNS)
    return (panels, features // GROUP, COLUMNS, GROUP) if quantized else (panels, features, COLUMNS)
