"""The rules, in the order in which they are tried; one file each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Rule = Callable[[Any, Any], bool]

RULES: dict[str, Rule] = {}
"""Name -> function(schedule, block): schedules the block and returns True, or returns False and changes nothing."""


def rule(name: str) -> Callable[[Rule], Rule]:
    """Registers a rule under the name that reports show."""

    def register(function: Rule) -> Rule:
        RULES[name] = function
        return function

    return register
