"""The activations that onnxruntime's fused operators carry as attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..diagnostics import CannotConvert

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..expansion import Expansion

_PARAMETERS: dict[str, tuple[str, ...]] = {
    "": (),
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
    "Softplus": (),
    "Softsign": (),
    "HardSwish": (),
    "LeakyRelu": ("alpha",),
    "Elu": ("alpha",),
    "ThresholdedRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Selu": ("alpha", "gamma"),
    "Clip": ("min", "max"),
}


def activate(e: Expansion, x: str, kind: str, parameters: Sequence[float]) -> None:
    """Writes the activation of `x` to the node's first output; absent parameters have the operator's defaults."""
    names = _PARAMETERS.get(kind)
    if names is None:
        raise CannotConvert(f"its activation {kind!r} is not supported")
    given: dict[str, Any] = dict(zip(names, parameters, strict=False))
    if kind == "Clip":
        limits = [e.scalar(given[name], e.input(0)) if name in given else "" for name in names]
        e.op(kind, [x, *limits], e.node.outputs[0])
    else:
        e.op(kind or "Identity", [x], e.node.outputs[0], **given)
