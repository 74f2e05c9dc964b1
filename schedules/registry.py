"""The rules, in the order in which they are tried; one file each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Rule = Callable[[Any, Any], bool]

RULES: dict[str, Rule] = {}
"""Name -> function(schedule, block): schedules the block and returns True, or returns False and changes nothing."""
_ORDER: dict[str, int] = {}


def rule(name: str, order: int) -> Callable[[Rule], Rule]:
    """Registers a rule under the name that reports show; the one with the smallest order is tried first."""

    def register(function: Rule) -> Rule:
        _ORDER[name] = order
        RULES[name] = function
        for other in sorted(RULES, key=_ORDER.__getitem__):
            RULES[other] = RULES.pop(other)
        return function

    return register
