"""How nodes and tensors are called in messages and in the IR."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import NodeProto

    from .graph import Node


def label(node: NodeProto | Node) -> str:
    """`Conv 'layer1/conv'`, or `Conv making 'x'` for a node without a name."""
    if node.name:
        return f"{node.op_type} '{node.name}'"
    outputs = getattr(node, "outputs", None) or getattr(node, "output", [])
    made = next((name for name in outputs if name), "")
    return f"{node.op_type} making '{made}'" if made else f"{node.op_type} without outputs"


def identifier(name: str) -> str:
    """A tensor name as an identifier of TVMScript."""
    text = re.sub(r"\W", "_", name, flags=re.ASCII)
    return text if text and not text[0].isdigit() else f"t_{text}"


class NameSupply:
    """Fresh names that collide with none seen before."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def reserve(self, name: str) -> None:
        """Mark a name as taken."""
        self._taken.add(name)

    def fresh(self, wish: str) -> str:
        """`wish`, or `wish_1`, `wish_2` … where it is taken."""
        name, count = wish, 0
        while name in self._taken:
            count += 1
            name = f"{wish}_{count}"
        self._taken.add(name)
        return name
