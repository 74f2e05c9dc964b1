"""Each kernel on shapes of real networks, one thread, beside what the machine can do: `make bench-kernels`."""

from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "kernels"))

from generators.pruning import pruned
from harness import Bound, _library

from sparsec.codegen_templates import conv, gemm, indexed, n_of_m, planes, qplanes, spmm
from sparsec.codegen_templates.attention import AttentionParameters, AttentionShape, plan_attention
from sparsec.codegen_templates.epilogue import EpilogueOp
from sparsec.codegen_templates.gemv import plan_gemv, stored_bytes
from sparsec.codegen_templates.layout import Quantized, panel_shape
from sparsec.codegen_templates.qconv import PlanesOutput, QConv, plan_qconv
from sparsec.codegen_templates.qplanes import Geometry
from sparsec.codegen_templates.tile_epilogue import constant_quantization
from sparsec.codegen_templates.use import KernelUse, Tensor
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
_PEAK_VNNI = """
#include <immintrin.h>
#include <stdint.h>
int32_t peak(int32_t *out, int64_t n, int64_t begin, int64_t end) {
    __m512i a[12];
    for (int i = 0; i < 12; ++i) a[i] = _mm512_set1_epi32(i);
    __m512i x = _mm512_set1_epi32(*out), s = x;
    for (int64_t k = 0; k < n; ++k) {
#pragma unroll
        for (int i = 0; i < 12; ++i) {
            a[i] = _mm512_dpbusd_epi32(a[i], x, x);
            __asm__ volatile("" : "+v"(a[i]));
        }
    }
    for (int i = 0; i < 12; ++i) s = _mm512_add_epi32(s, a[i]);
    *out = _mm512_reduce_add_epi32(s);
    return 0;
}
"""
SPARSE = (
    ("dense", 0.0, ("dense",)),
    ("1x4", 0.8, ("pattern", "indexed1", "dense")),
    ("4x4", 0.8, ("pattern", "indexed4")),
    ("2:4", 0.5, ("n_of_m", "dense")),
    ("unstructured", 0.9, ("blend", "pattern", "indexed1")),
)
"""Pattern of zeros, their share, kernels."""
QCONV = ((64, 56, 64, 3), (256, 56, 64, 1), (128, 28, 128, 3), (1024, 14, 256, 1))
"""Channels in, size, channels out, kernel."""
QCONV_METHODS = ((0.0, "dense", "dense"), (0.8, "1x4", "pattern"), (0.9, "unstructured", "blend"))
GEMV = (("dense", 0.0, "dense"), ("unstructured", 0.9, "mask"), ("1x4", 0.8, "mask4"))
LINEAR = ((128, 768, 768), (128, 768, 3072), (128, 3072, 768), (384, 768, 768), (1, 768, 768), (16, 512, 512))
CONV = (
    # channels in, size, channels out, kernel, stride
    (3, 224, 64, 7, 2), (64, 56, 64, 1, 1), (64, 56, 64, 3, 1), (64, 56, 256, 1, 1), (128, 56, 128, 3, 2),
    (128, 28, 128, 3, 1), (256, 14, 256, 3, 1), (1024, 14, 256, 1, 1), (512, 7, 512, 3, 1), (16, 160, 32, 3, 1),
)  # fmt: skip


def seconds(
    target: Target, uses: list[KernelUse], operands: list[np.ndarray], shape: tuple[int, ...], dtype: str = "float32"
) -> float:
    """Median of one call of all uses."""
    bound = Bound(target, uses, operands, [(shape, dtype)])
    ranges = [(call, int(use.extent)) for call, use in zip(bound.calls, uses, strict=True)]
    times = []
    end = time.perf_counter() + 0.3
    while len(times) < 5 or time.perf_counter() < end:
        begin = time.perf_counter()
        for call, extent in ranges:
            call(0, extent)
        times.append(time.perf_counter() - begin)
    return median(times)


def peak_gops(target: Target, quantized: bool = False) -> float:
    """Multiplications and additions, 1e9 a second: of float32, or of bytes by VNNI."""
    per_lane = 4 if quantized else 1
    library = _library(target.name, (("peak", _PEAK_VNNI if quantized else _PEAK),))
    out = np.zeros(16, np.float32)
    count = 2_000_000
    best = 1e9
    for _ in range(5):
        begin = time.perf_counter()
        library["peak"](ctypes.c_void_p(out.ctypes.data), ctypes.c_int64(count), ctypes.c_int64(0), ctypes.c_int64(1))
        best = min(best, time.perf_counter() - begin)
    return 2e-9 * count * 12 * per_lane * target.vector_bits / 32 / best


def reading_gbytes(nbytes: int) -> float:
    """1e9 bytes a second that one thread reads from wherever an array of `nbytes` stays."""
    array = np.ones(nbytes // 8, np.int64)
    best = 1e9
    for _ in range(20):
        begin = time.perf_counter()
        array.max()
        best = min(best, time.perf_counter() - begin)
    return array.nbytes / best * 1e-9


def main() -> None:
    target = resolve("native")
    peak = peak_gops(target)
    print(f"target {target.name}, one thread, peak {peak:.0f} GFLOP/s")
    float_kernels(target, peak)
    if target.isa == "avx512":
        peak = peak_gops(target, quantized=True)
        print(f"\nproducts without the zeros; peak of int8 {peak:.0f} GOP/s")
        sparse_kernels(target, peak)
        quantized_convolutions(target, peak)
        few_columns(target)
        attention_kernels(target, peak)


def float_kernels(target: Target, peak: float) -> None:
    """Dense products and convolutions."""
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


def integers(rng: np.random.Generator, m: int, k: int, sparsity: float, pattern: str) -> np.ndarray:
    """int8 [m, k]; `4x4` repeats the zeros of `1x4` in four rows."""
    rows = 4 if pattern == "4x4" else 1
    kept = pruned(rng, m // rows, k, sparsity, "1x4" if rows > 1 else pattern).repeat(rows, 0) != 0
    return (rng.integers(1, 128, kept.shape) * rng.choice([-1, 1], kept.shape) * kept).astype(np.int8)


def sparse_kernels(target: Target, peak: float) -> None:
    """Int8 products of 128 columns whose weights are zero in a pattern, by every kernel that skips them."""
    rng = np.random.default_rng(0)
    n, k, m = 128, 768, 768
    x = rng.integers(0, 256, (n, k)).astype(np.uint8)
    for pattern, sparsity, kernels in SPARSE:
        w = integers(rng, m, k, sparsity, pattern)
        how = constant_quantization(w, 3, np.full(m, 1e-3, np.float32), None)
        for kernel in kernels:
            if kernel == "n_of_m":
                uses = n_of_m.plan_n_of_m(target.isa, n, w, (), how, "")
            elif kernel.startswith("indexed"):
                uses = indexed.plan_indexed(target.isa, n, w, (), how, "", int(kernel[-1]))
            else:
                uses = spmm.plan_spmm(target.isa, n, w, (), how, "", kernel)
            panels = x.reshape(n // 16, 16, k // 4, 4).transpose(0, 2, 1, 3)
            took = seconds(target, uses, [np.ascontiguousarray(panels), w], (n, m))
            row(f"{kernel} {pattern} {sparsity:.0%}", took, 2 * n * np.count_nonzero(w), peak, "GOP/s")


def quantized_convolutions(target: Target, peak: float) -> None:
    """Int8 convolutions of one image in planes, dense and with zeros in 1x4 or anywhere."""
    rng = np.random.default_rng(0)
    for c, size, o, taps in QCONV:
        window = Geometry((taps, taps), (1, 1), (1, 1), (taps // 2,) * 4)
        pitch = qplanes.pitch_for(window, size, size)
        source = qplanes.plain(size, size, pitch, *qplanes.margins(window, pitch))
        written = qplanes.plain(size, size, pitch)
        x = rng.integers(0, 256, source.shape(1, c)).astype(np.uint8)
        for sparsity, pattern, method in QCONV_METHODS:
            w = integers(rng, o, taps * taps * c, sparsity, pattern).reshape(o, taps, taps, c).transpose(0, 3, 1, 2)
            w = np.ascontiguousarray(w)
            outputs = (PlanesOutput(0.37, 3, written),)
            how = QConv(window, source, 3, np.full(o, 1e-3), np.zeros(o, np.int32), (size, size), pitch, outputs)
            tensors = [Tensor("uint8", x.shape), Tensor("int8", w.shape, w)]
            uses = plan_qconv(target.isa, tensors, (EpilogueOp("relu"),), how, "", method)
            took = seconds(target, uses, [x, w], written.shape(1, o), "uint8")
            name = f"qconv {taps}x{taps} {c}->{o} @{size} {pattern}"
            row(name, took, 2 * size**2 * np.count_nonzero(w), peak, "GOP/s")


def few_columns(target: Target) -> None:
    """Products of one column, beside the time it takes to read their weights."""
    rng = np.random.default_rng(0)
    k, m = 3072, 3072
    x = rng.integers(0, 256, (1, k)).astype(np.uint8)
    for pattern, sparsity, storage in GEMV:
        w = integers(rng, m, k, sparsity, pattern)
        how = constant_quantization(w, 3, np.full(m, 1e-3, np.float32), None)
        took = seconds(target, plan_gemv(target.isa, 1, w, (), how, "", storage), [x, w], (1, m))
        nbytes = int(stored_bytes(w, storage))
        row(f"gemv_{storage} {pattern} {sparsity:.0%}", took, nbytes, reading_gbytes(nbytes), "GB/s")


def attention_kernels(target: Target, peak: float) -> None:
    """Fused int8 attention of 12 heads of 64."""
    rng = np.random.default_rng(0)
    h, d = 12, 64
    ways = (Quantized(0.03, 120), Quantized(0.03, 131), Quantized(1 / 255, 0), Quantized(0.028, 117))
    scale = ways[0].scale * ways[1].scale
    how = AttentionParameters(*ways, scale * d**-0.5, ways[2].scale * ways[3].scale, scale, None)
    for s in (128, 384):
        uses = plan_attention(target.isa, AttentionShape(1, s, s, h, d), how, None, True, Quantized(0.01, 101))
        shape = panel_shape(s, h * d, True)
        operands = [rng.integers(0, 256, shape).astype(np.uint8) for _ in range(3)]
        took = seconds(target, uses, operands, shape, "uint8")
        row(f"attention {s} tokens", took, 4 * s * s * h * d, peak, "GOP/s")


def row(name: str, took: float, work: float, peak: float, unit: str = "GFLOP/s") -> None:
    """`work` is what the calls did, `peak` how much of it 1e9 times a second the machine can do."""
    rate = work / took * 1e-9
    print(f"{name:<32}{took * 1e6:>10.0f} us {rate:>8.1f} {unit} {100 * rate / peak:>5.0f} %", flush=True)


if __name__ == "__main__":
    main()
