"""Which function converts which operator, or takes it apart. Modules of `ops` register theirs by being imported."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from .context import Context
    from .expansion import Expansion
    from .graph import Node

Converter: TypeAlias = "Callable[[Context, Node], Any]"
"""Gives the Relax expression of the node's only output, or a list of them, one per output."""

Expander: TypeAlias = "Callable[[Expansion], Any]"
"""Says an operator in terms of others: adds their nodes to the expansion."""

_CONVERTERS: dict[tuple[str, str], Converter] = {}
_EXPANDERS: dict[tuple[str, str], Expander] = {}


def converter(*ops: str, domain: str = "") -> Callable[[Converter], Converter]:
    """Register a function for operators in their newest form."""

    def register(function: Converter) -> Converter:
        for op in ops:
            if (domain, op) in _CONVERTERS:
                raise ValueError(f"{op} has two converters")
            _CONVERTERS[domain, op] = function
        return function

    return register


def expander(*ops: str, domain: str = "") -> Callable[[Expander], Expander]:
    """Register a function for operators that become nodes of others while the graph is prepared."""

    def register(function: Expander) -> Expander:
        _EXPANDERS.update({(domain, op): function for op in ops})
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


def find_expander(domain: str, op: str) -> Expander | None:
    """What takes an operator apart."""
    _load()
    return _EXPANDERS.get((domain, op))


def registered() -> list[tuple[str, str]]:
    """(domain, operator) of all that have a function here."""
    _load()
    return sorted(_CONVERTERS | _EXPANDERS)
