"""C's names for TIR's types, and numbers as C literals."""

from __future__ import annotations

import math

import numpy as np

C_TYPES = {
    "float32": "float", "float64": "double", "float16": "_Float16", "bfloat16": "__bf16", "bool": "uint8_t",
    **{f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip


def is_signed(dtype: str) -> bool:
    """Of an integer type."""
    return dtype.startswith("int")


def wide(dtype: str) -> str:
    """The type in which C computes: at least 32 bits."""
    return dtype if dtype.endswith(("32", "64")) else f"{dtype.rstrip('0123456789')}32"


def int_literal(value: int, dtype: str) -> str:
    """An integer or bool."""
    if dtype == "bool":
        return str(int(value))
    bits = int(dtype.lstrip("uint"))
    if not is_signed(dtype):
        return f"UINT64_C({value})" if bits == 64 else f"{value}u" if bits == 32 else str(value)
    if bits >= 32 and value == -(1 << bits - 1):
        return f"INT{bits}_MIN"
    text = f"INT64_C({value})" if bits == 64 and abs(value) >= 1 << 31 else str(value)
    return f"({text})" if value < 0 else text


def float_literal(value: float, dtype: str) -> str:
    """Exact; NaN and infinities too."""
    suffix = "" if dtype == "float64" else "f"
    if math.isnan(value):
        text = f'__builtin_nan{suffix}("")'
    elif math.isinf(value):
        text = f"({'-' if value < 0 else ''}__builtin_inf{suffix}())"
    else:
        text = f"{value.hex() if dtype == 'float64' else float(np.float32(value)).hex()}{suffix}"
    if dtype in ("float16", "bfloat16"):
        return f"(({C_TYPES[dtype]}){text})"
    return f"({text})" if value < 0 else text
