"""`sparsec.sparsify(...)`: a dense ONNX model becomes a sparse int8 one, in one shot.

The package is named as its function, so that the module itself can be called.
"""

from __future__ import annotations

import sys
import types
from typing import Any

__all__ = ["Recipe", "sparsify"]


class _Callable(types.ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:
        from .api import sparsify

        return sparsify(*args, **options)


sys.modules[__name__].__class__ = _Callable


def __getattr__(name: str) -> Any:
    if name == "sparsify":
        from .api import sparsify

        return sparsify
    if name in ("Recipe", "Pruning", "Quantization"):
        from . import recipe

        return getattr(recipe, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
