"""sparsec: ONNX models, dense or sparse, compiled ahead of time to native shared libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .compiler import build as build
    from .compiler.frontend.custom import custom_op as custom_op
    from .runtime_stub.loader import Model as Model
    from .runtime_stub.loader import load as load
    from .sparsify.api import sparsify as sparsify

__version__ = "0.1.0"

_WHERE = {
    "build": ".compiler",
    "custom_op": ".compiler.frontend.custom",
    "load": ".runtime_stub.loader",
    "Model": ".runtime_stub.loader",
}

__all__ = ["Model", "SparsecError", "build", "custom_op", "load", "sparsify"]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "SparsecError":
        return import_module(".errors", __name__).SparsecError
    if name == "sparsify":
        return import_module(".sparsify", __name__)  # a module that can be called
    if name in _WHERE:
        return getattr(import_module(_WHERE[name], __name__), name)
    raise AttributeError(f"module 'sparsec' has no attribute {name!r}")
