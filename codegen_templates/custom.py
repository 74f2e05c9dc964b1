"""C kernels that come with a model's own operators."""

from __future__ import annotations

from .use import KernelUse, Operand, Output, Pointer, Size, Source, Tensor


def plan_custom(
    operands: list[Tensor],
    text: str,
    function: str,
    digest: str,
    kernel: str,
    n_outputs: int,
    sizes: tuple[Size, ...],
    extent: Size,
    grain: int,
) -> list[KernelUse]:
    """One call of `function` in the C source `text`, whose `digest` makes the symbol unique in a program."""
    symbol = f"sparsec_k_custom_{digest}"
    unit = Source(f"custom_{digest}", f"#include <stdint.h>\n#define {function} {symbol}\n#line 1\n{text}")
    pointers: tuple[Pointer, ...] = (
        *(Operand(i) for i in range(len(operands))),
        *(Output(i) for i in range(n_outputs)),
    )
    return [
        KernelUse(kernel, symbol, (unit,), pointers, sizes, extent, "custom operator", grain=grain, n_outputs=n_outputs)
    ]
