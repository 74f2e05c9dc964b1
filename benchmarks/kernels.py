"""Each dense kernel on shapes of real networks, one thread, beside the machine's peak: `make bench-kernels`."""

from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "kernels"))

from harness import Guarded, _library

from sparsec.codegen_templates import conv, gemm, planes
from sparsec.codegen_templates.epilogue import EpilogueOp
from sparsec.codegen_templates.use import KernelUse, Operand, Packed, Temp, Tensor
from sparsec.compiler.target import Target, resolve

_PEAK = """
#include "vector.h"
#ifdef __aarch64__
#define SPARSEC_OPAQUE(v) __asm__ volatile("" : "+w"(v))
#else
#define SPARSEC_OPAQUE(v) __asm__ volatile("" : "+v"(v))
#endif
int32_t peak(float *out, int64_t n, int64_t begin, int64_t end) {
    vf a[12];
    for (int i = 0; i < 12; ++i) a[i] = vset((float)i);
    vf x = vset(*out), y = vset(1e-9f);
    for (int64_t k = 0; k < n; ++k) {
#pragma unroll
        for (int i = 0; i < 12; ++i) {
            a[i] = vfma(a[i], x, y);
            SPARSEC_OPAQUE(a[i]);
        }
    }
    vf s = a[0];
    for (int i = 1; i < 12; ++i) s += a[i];
    *out = vsum(s);
    return 0;
}
"""
LINEAR = ((128, 768, 768), (128, 768, 3072), (128, 3072, 768), (384, 768, 768), (1, 768, 768), (16, 512, 512))
CONV = (
    # channels in, size, channels out, kernel, stride
    (3, 224, 64, 7, 2), (64, 56, 64, 1, 1), (64, 56, 64, 3, 1), (64, 56, 256, 1, 1), (128, 56, 128, 3, 2),
    (128, 28, 128, 3, 1), (256, 14, 256, 3, 1), (1024, 14, 256, 1, 1), (512, 7, 512, 3, 1), (16, 160, 32, 3, 1),
)  # fmt: skip


def seconds(target: Target, uses: list[KernelUse], operands: list[np.ndarray], shape: tuple[int, ...]) -> float:
    """Median of one call of all uses."""
    texts = {unit.name: unit.text for use in uses for unit in use.sources}
    library = _library(target.name, tuple(sorted(texts.items())))
    held: dict[object, Guarded] = {}

    def address(pointer: object) -> ctypes.c_void_p:
        if isinstance(pointer, Operand):
            return ctypes.c_void_p(operands[pointer.index].ctypes.data)
        key = pointer.key if isinstance(pointer, Temp) else id(pointer.array) if isinstance(pointer, Packed) else "out"
        if key not in held:
            size = pointer.shape if isinstance(pointer, Temp) else shape
            value = pointer.array if isinstance(pointer, Packed) else None
            held[key] = Guarded(value.shape if value is not None else tuple(map(int, size)), "float32", value)
        return ctypes.c_void_p(held[key].array.ctypes.data)

    calls = []
    for use in uses:
        numbers = [*use.scalars, 0, use.extent]
        calls.append(
            (library[use.symbol], [address(p) for p in use.pointers], [ctypes.c_int64(int(s)) for s in numbers])
        )
    times = []
    end = time.perf_counter() + 0.3
    while len(times) < 5 or time.perf_counter() < end:
        begin = time.perf_counter()
        for function, pointers, scalars in calls:
            function(*pointers, *scalars)
        times.append(time.perf_counter() - begin)
    return median(times)


def peak_gflops(target: Target) -> float:
    library = _library(target.name, (("peak", _PEAK),))
    out = np.zeros(16, np.float32)
    count = 2_000_000
    best = 1e9
    for _ in range(5):
        begin = time.perf_counter()
        library["peak"](ctypes.c_void_p(out.ctypes.data), ctypes.c_int64(count), ctypes.c_int64(0), ctypes.c_int64(1))
        best = min(best, time.perf_counter() - begin)
    return 2e-9 * count * 12 * target.vector_bits / 32 / best


def main() -> None:
    target = resolve("native")
    peak = peak_gflops(target)
    print(f"target {target.name}, one thread, peak {peak:.0f} GFLOP/s")
    rng = np.random.default_rng(0)
    ops = (EpilogueOp("bias"), EpilogueOp("relu"))
    for m, k, n in LINEAR:
        a, w, bias = (rng.standard_normal(s).astype(np.float32) for s in ((m, k), (k, n), (n,)))
        took = seconds(target, gemm.plan_linear(target.isa, Tensor("float32", (m, k)), w, ops), [a, w, bias], (m, n))
        row(f"linear {m}x{k}x{n}", took, 2 * m * k * n, peak)
    for c, size, o, taps, stride in CONV:
        out = size // stride
        x, w, bias = (rng.standard_normal(s).astype(np.float32) for s in ((1, c, size, size), (o, c, taps, taps), (o,)))
        pad = (taps - 1) // 2
        geometry = planes.ConvGeometry((stride, stride), (1, 1), (pad,) * 4, 1)
        shape = (1, o, out, out)
        uses = conv.plan_conv(target.isa, Tensor("float32", x.shape), w, Tensor("float32", shape), geometry, ops)
        took = seconds(target, uses, [x, w, bias], shape)
        row(f"conv {taps}x{taps}/{stride} {c}->{o} @{size}", took, 2 * w.size * out**2, peak)


def row(name: str, took: float, flops: float, peak: float) -> None:
    rate = flops / took * 1e-9
    print(f"{name:<28}{took * 1e6:>10.0f} us {rate:>8.1f} GFLOP/s {100 * rate / peak:>5.0f} %", flush=True)


if __name__ == "__main__":
    main()
