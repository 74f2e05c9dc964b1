"""Collecting everything that cannot be compiled, so that the user hears of all of it at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...errors import UnsupportedError
from .names import label

if TYPE_CHECKING:
    from .graph import Node

HINTS = {
    "RandomNormal": "random numbers are not supported",
    "RandomNormalLike": "random numbers are not supported",
    "RandomUniform": "random numbers are not supported",
    "RandomUniformLike": "random numbers are not supported",
    "Bernoulli": "random numbers are not supported",
    "Multinomial": "random numbers are not supported",
}


class CannotConvert(Exception):  # noqa: N818 - it is a verdict on a node
    """Raised by a converter: why this node cannot be compiled, and what to do about it."""


@dataclass(frozen=True)
class Problem:
    """One node that cannot be compiled."""

    node: str
    op: str
    version: int
    domain: str
    inputs: str
    hint: str

    def __str__(self) -> str:
        domain = self.domain or "ai.onnx"
        return f"{self.node} ({domain} opset {self.version}; inputs {self.inputs}): {self.hint}"


@dataclass
class Diagnostics:
    """The problems found so far; a node is listed once."""

    problems: list[Problem] = field(default_factory=list)

    def add(self, node: Node, opset: int, inputs: list[str], reason: str = "") -> None:
        """Record that `node` of a model in `opset` cannot be compiled; `inputs` are its input types as text."""
        hint = reason or HINTS.get(node.op_type, "no converter for this operator")
        if not reason and node.domain:
            hint += "; define it yourself with --custom-ops (docs/custom-operators.md)"
        if all(p.node != label(node) for p in self.problems):
            shapes = ", ".join(inputs) or "none"
            self.problems.append(
                Problem(label(node), node.op_type, node.version if node.domain else opset, node.domain, shapes, hint)
            )

    def check(self) -> None:
        """Raise one UnsupportedError for everything recorded."""
        if self.problems:
            count = len(self.problems)
            head = f"{count} node{'s' if count > 1 else ''} cannot be compiled:"
            raise UnsupportedError("\n".join([head, *(f"  {p}" for p in self.problems)]))


def describe(dtype: str, shape: tuple[Any, ...] | None) -> str:
    """`float32[1,3,n]`, for messages."""
    return dtype if shape is None else f"{dtype}[{','.join(str(d) for d in shape)}]"


def reason_of(error: BaseException) -> str:
    """An exception's message as one short line."""
    text = str(error).strip()
    if text.startswith("Traceback"):
        text = text.splitlines()[-1]
    line = next((part.strip() for part in text.splitlines() if part.strip()), type(error).__name__)
    return line[:200]
