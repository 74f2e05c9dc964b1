"""Which function converts which operator. A module of `ops` registers its functions by being imported."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from .context import Context
    from .graph import Node

Converter: TypeAlias = "Callable[[Context, Node], Any]"
"""Gives the Relax expression of the node's only output, or a list of them, one per output."""

_CONVERTERS: dict[tuple[str, str], Converter] = {}


def converter(*ops: str, domain: str = "") -> Callable[[Converter], Converter]:
    """Register a function for operators in their newest form."""

    def register(function: Converter) -> Converter:
        for op in ops:
            if (domain, op) in _CONVERTERS:
                raise ValueError(f"{op} has two converters")
            _CONVERTERS[domain, op] = function
        return function

    return register


@functools.cache
def _load() -> None:
    from . import ops

    for module in pkgutil.iter_modules(ops.__path__):
        importlib.import_module(f"{ops.__name__}.{module.name}")


def find(domain: str, op: str) -> Converter | None:
    """Our own converter of an operator."""
    _load()
    return _CONVERTERS.get((domain, op))


def registered() -> list[tuple[str, str]]:
    """(domain, operator) of all our own converters."""
    _load()
    return sorted(_CONVERTERS)
