"""The outputs of a kernel that has 16 columns of a feature in a register: panels of floats, of bytes, or several.

`panel_outputs.c.j2` has the macros that write them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .integer import inverse
from .layout import GROUP, Layout, Quantized
from .use import Output, Packed, Pointer

_SUFFIX = {"rows": "", "panels": "panels", "bytes": "u8"}


@dataclass(frozen=True)
class PanelOutputs:
    """`declared` are (C type, name) of the parameters that take `pointers`; the outputs are the last `count`."""

    declared: tuple[tuple[str, str], ...]
    pointers: tuple[Pointer, ...]
    list: tuple[dict[str, object], ...]
    step: int
    """Features that are written at once."""
    suffix: str

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.list)

    @property
    def parameters(self) -> str:
        """In C."""
        return ", ".join(f"{kind}restrict {name}" for kind, name in self.declared)


def panel_outputs(layouts: tuple[Layout, ...]) -> PanelOutputs:
    """Outputs in these layouts; with bytes among them, the features are a multiple of 4."""
    hows = [(i, layout) for i, layout in enumerate(layouts) if isinstance(layout, Quantized)]
    kinds = ["bytes" if isinstance(layout, Quantized) else layout for layout in layouts]
    tables = {i: np.frombuffer(how.table, np.uint8) for i, how in hows if how.table}
    ctypes = {"bytes": "uint8_t *", "panels": "float *", "rows": "float *"}
    numbers = [np.array([inverse(how.scale), how.zero_point], np.float32) for _, how in hows]
    return PanelOutputs(
        (
            *(("const float *", f"how{i}") for i, _ in hows),
            *(("const uint8_t *", f"table{i}") for i in tables),
            *((ctypes[k], f"Y{i}") for i, k in enumerate(kinds)),
        ),
        (*map(Packed, numbers), *map(Packed, tables.values()), *(Output(i) for i in range(len(layouts)))),
        tuple(
            {
                "kind": kind,
                "name": f"Y{i}",
                "how": f"how{i}",
                "table": f"table{i}" if i in tables else "",
            }
            for i, kind in enumerate(kinds)
        ),
        GROUP if hows else 1,
        "_".join(_SUFFIX[kind] + "t" * (i in tables) for i, kind in enumerate(kinds)),
    )
