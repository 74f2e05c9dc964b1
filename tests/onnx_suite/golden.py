"""What each test of the suites is expected to do: a line per case in `expected.json`, written by `--update-golden`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).parent / "expected.json"
PASS = "pass"
REFUSALS = ("UnsupportedError", "ModelError", "ShapeError")
"""The errors that a case may end with: whatever else happens is a defect, and never expected."""
PER_GROUP = 1
"""Default cases of an operator that pass, and of those that are refused; the others are slow."""


class Expected(NamedTuple):
    """The operator of a case, and 'pass' or the refusal in one line."""

    op: str
    status: str


def read() -> dict[str, Expected]:
    """By key of `suite.keyed_cases`, in alphabetical order."""
    rows = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    return {name: Expected(*row) for name, row in rows.items()}


def write(rows: Mapping[str, Expected]) -> None:
    """Replaces the file, a line per case."""
    lines = [f"{json.dumps(name)}: {json.dumps(list(rows[name]))}" for name in sorted(rows)]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def acceptable(verdict: str) -> bool:
    """Whether a verdict may be expected at all."""
    return verdict == PASS or verdict.startswith(tuple(f"{name}: " for name in REFUSALS))


def is_expanded(name: str) -> bool:
    """Whether the case is an operator's function body instead of the operator."""
    return "_expanded" in name


def kind_of(name: str) -> str:
    """The suite of a case."""
    return name.rpartition("/")[0] or "node"


def default_cases(rows: Mapping[str, Expected]) -> set[str]:
    """The quick subset: in each suite for each operator the first that pass and the first that are refused.

    The `light` models are large, and `tests/models` has them with weights that matter.
    """
    count: dict[tuple[str, str, bool], int] = {}
    chosen = set()
    for name, row in rows.items():
        group = (kind_of(name), row.op, row.status == PASS)
        if not is_expanded(name) and group[0] != "light" and count.get(group, 0) < PER_GROUP:
            count[group] = count.get(group, 0) + 1
            chosen.add(name)
    return chosen
