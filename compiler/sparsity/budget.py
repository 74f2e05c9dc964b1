"""Which kernels keep the weights and the code of a network within a number of bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .cost import Prediction


def fit(chosen: Sequence[str], kernels: Sequence[Mapping[str, Prediction]], limit: float) -> list[str]:
    """Moves layers to smaller kernels until they take at most `limit` bytes together, or as little as they can.

    Greedy: each move is the one that loses the fewest predicted cycles per byte saved, of all layers and kernels.

    Args:
        chosen: the kernel of each layer so far.
        kernels: of each layer, what may compute it; the chosen one among them.
        limit: bytes of weights and code.
    """
    taken = list(chosen)
    total = sum(options[name].nbytes for name, options in zip(taken, kernels, strict=True))
    steps = [_cheapest(options, name) for options, name in zip(kernels, taken, strict=True)]
    while total > limit:
        step = min((s for s in steps if s is not None), default=None)
        if step is None:
            break
        layer, name = steps.index(step), step[1]
        total += kernels[layer][name].nbytes - kernels[layer][taken[layer]].nbytes
        taken[layer] = name
        steps[layer] = _cheapest(kernels[layer], name)
    return taken


def _cheapest(options: Mapping[str, Prediction], now: str) -> tuple[float, str] | None:
    """(cycles lost per byte saved, kernel) of the best smaller one."""
    one = options[now]
    smaller = [(name, other) for name, other in options.items() if other.nbytes < one.nbytes]
    rated = [((other.cycles - one.cycles) / (one.nbytes - other.nbytes), name) for name, other in smaller]
    return min(rated, default=None)
