"""Operators that keep the order of the elements: each is one `relax.reshape`, which costs nothing at run time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..registry import converter
from ..symbolic import resolve_reshape

if TYPE_CHECKING:
    from ..context import Context
    from ..graph import Node


@converter("Reshape")
def reshape(context: Context, node: Node) -> Any:
    """Reshape-25."""
    target = context.ints(node.inputs[1], "target shape")
    shape = resolve_reshape(
        context.algebra, context.shape(node.inputs[0]), target, bool(node.attrs.get("allowzero", 0))
    )
    return context.reshape(context.expr(node.inputs[0]), shape)


@converter("Flatten")
def flatten(context: Context, node: Node) -> Any:
    """Flatten-25."""
    shape = context.shape(node.inputs[0])
    axis = node.attrs.get("axis", 1)
    axis += len(shape) if axis < 0 else 0
    product = context.algebra.product
    return context.reshape(context.expr(node.inputs[0]), [product(shape[:axis]), product(shape[axis:])])


@converter("Squeeze")
def squeeze(context: Context, node: Node) -> Any:
    """Squeeze-25."""
    shape = context.shape(node.inputs[0])
    if node.input(1):
        axes = {int(a) % len(shape) for a in context.ints(node.inputs[1], "axes")}
    else:
        axes = {i for i, d in enumerate(shape) if context.algebra.equal(d, 1)}
    return context.reshape(context.expr(node.inputs[0]), [d for i, d in enumerate(shape) if i not in axes])


@converter("Unsqueeze")
def unsqueeze(context: Context, node: Node) -> Any:
    """Unsqueeze-25."""
    shape = list(context.shape(node.inputs[0]))
    axes = context.ints(node.inputs[1], "axes")
    rank = len(shape) + len(axes)
    for axis in sorted(int(a) % rank for a in axes):
        shape.insert(axis, 1)
    return context.reshape(context.expr(node.inputs[0]), shape)
