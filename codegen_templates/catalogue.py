"""The kernel catalogue: ONE row per kernel, tile shapes included. The docs table is generated from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import jinja2

from .use import Source

LANES = {"avx512": 16, "avx2": 8, "generic": 4, "neon": 4}
"""Float32 values in one vector register, by ISA."""
TILES = ("avx512", "avx2", "neon")
"""ISAs whose kernels work on tiles of 16 columns."""
BYTE_TILES = ("avx512", "avx2", "neon-dotprod")
"""The same of bytes."""
MATRIX_TILES = (*BYTE_TILES, "neon-i8mm")
"""The same, where ISAs with matrix products have a kernel of their own."""
_X86_TILES = ("avx512", "avx2")
_INCLUDES = {
    "avx512-novnni": "avx512",
    "avx512-amx": "avx512",
    "avx2-vnni": "avx2",
    "neon-dotprod": "neon",
    "neon-i8mm": "neon-dotprod",
}
_LACKS = {"avx512-novnni": ("blended_u8s8", "qconv_blend", "qconv_n_of_m", "unroll_rows")}
"""Families that need an instruction which is not there."""


def base_isa(isa: str) -> str:
    """The ISA whose rows another has too: it differs by instructions that templates or pattern code know of."""
    return isa.partition("-")[0]


def kept_lower(isa: str) -> int:
    """By how much panels and planes keep bytes of 0..255 lower: 128 where products take signed ones (wide_bytes.h)."""
    return 128 if base_isa(isa) == "neon" else 0


@dataclass(frozen=True)
class Kernel:
    """A row. `rows` x `vectors` is the register tile, where the kernel has one."""

    name: str
    family: str
    isa: str
    template: str
    summary: str
    rows: int = 1
    vectors: int = 1

    @property
    def columns(self) -> int:
        """Width of the register tile in elements."""
        return self.vectors * LANES.get(self.isa, 1)


def _tiled(
    family: str, template: str, summary: str, tiles: dict[str, tuple[int, int]], dtype: str = "f32"
) -> list[Kernel]:
    return [
        Kernel(f"{family}_{dtype}_r{r}n{v * LANES[isa]}_{isa}", family, isa, template, summary, r, v)
        for isa, (r, v) in tiles.items()
    ]


def _plain(family: str, summary: str, isas: tuple[str, ...] = ("any",), template: str | None = None) -> list[Kernel]:
    suffix = {isa: "" if isa == "any" else "_" + isa.replace("-", "_") for isa in isas}
    return [Kernel(family + suffix[isa], family, isa, template or family, summary) for isa in isas]


# 32 registers hold 24 accumulators, one row of inputs and a broadcast; 16 registers hold 12.
_GEMM_TILES = {"avx512": (8, 3), "avx2": (4, 3), "generic": (4, 3), "neon": (8, 3)}
_CONV_TILES = {"avx512": (8, 3), "avx2": (4, 3), "generic": (4, 3), "neon": (8, 3)}
# Keys by vectors of queries; keys divide a vector.
_ATTENTION_TILES = {"avx512": (8, 2), "avx2": (4, 2), "generic": (4, 2), "neon": (4, 4)}
_DEPTHWISE_TILES = dict.fromkeys(LANES, (1, 4))

CATALOGUE: tuple[Kernel, ...] = (
    *_tiled("gemm", "gemm", "C = A·B, B in panels, rows of A broadcast; batched; epilogue", _GEMM_TILES),
    *_tiled("conv2d", "conv2d", "convolution of planes, positions in lanes; groups; epilogue", _CONV_TILES),
    *_tiled("depthwise", "depthwise", "depthwise convolution of planes; epilogue", _DEPTHWISE_TILES),
    *_plain("spmm_f32", "sparse W·X, the pattern as code, 28 rows by 16 columns; epilogue", TILES, "spmm"),
    *_plain("spmm_u8s8", "the same for int8 in blocks of 1x4, exact int32 sums", BYTE_TILES, "spmm"),
    *_plain(
        "blended_u8s8",
        "the same for int8 whose zeros lie anywhere: bytes of several units blended for each row",
        ("avx512",),
        "spmm",
    ),
    *_plain(
        "gemv_f32_mask",
        "few columns, 16 outputs in lanes, zeros not stored: a bit per weight; epilogue",
        _X86_TILES,
        "gemv",
    ),
    *_plain("gemv_u8s8_dense", "few columns, 16 outputs in lanes, exact int32 sums; epilogue", _X86_TILES, "gemv"),
    *_plain("gemv_u8s8_mask", "the same, zeros not stored: a bit per weight", _X86_TILES, "gemv"),
    *_plain("gemv_u8s8_mask4", "the same, blocks of 1x4 zeros not stored: a bit per block", _X86_TILES, "gemv"),
    *_plain(
        "n_of_m_u8s8",
        "int8 W·X with at most 4 of 8 weights (2:4, 4:8), places as data; epilogue",
        _X86_TILES,
        "n_of_m",
    ),
    *(
        row
        for kind in ("f32", "u8s8")
        for shared, rows in ((1, "the pattern as data"), (2, "for two rows"), (4, "for four rows"))
        for row in _plain(f"indexed{shared}_{kind}", f"sparse {kind} W·X, {rows}; epilogue", _X86_TILES, "indexed")
    ),
    *_plain("tiles_u8s8", "dense int8 W·X by AMX tiles, exact int32 sums; epilogue", ("avx512-amx",), "amx"),
    *_plain("tile_blocks_u8s8", "the same for blocks of 16x4 zeros, which are left out", ("avx512-amx",), "amx"),
    *_plain("dense_u8s8", "dense int8 W·X in the same tiles, exact int32 sums; epilogue", MATRIX_TILES, "spmm"),
    *(
        Kernel(
            f"depthwise_planes_{isa}",
            "depthwise_planes",
            isa,
            "depthwise_planes",
            "depthwise convolution of planes, down columns of 16; epilogue",
            1,
            16 // LANES[isa],
        )
        for isa in TILES
    ),
    *_plain("conv2d_sparse", "sparse convolution, the pattern as code; epilogue", TILES, "conv_pattern"),
    *_plain("conv2d_dense", "convolution in the same tiles, by loops over channels", TILES, "conv_pattern"),
    *_plain("winograd_input", "tiles of planes to Winograd's domain", ("avx512",)),
    *_plain("winograd", "3x3 convolution by Winograd's F(2x2) or F(4x4), in the same tiles; epilogue", ("avx512",)),
    *_tiled("qgemm", "qgemm", "8-bit C = A·B in 16-bit pairs, exact int32 sums, any zero points", _GEMM_TILES, "s16"),
    *_plain("widen_pairs", "8-bit rows less their zero point to 16-bit pairs"),
    *_plain("dynamic_range", "scale and zero point of a tensor by its range in this run"),
    *_plain("dynamic_quantize", "quantization by a scale and zero point of this run"),
    *_plain("run_quantization", "start of the sums and scales, where activations are quantized by scales of the run"),
    *_plain("pack_pairs", "run-time 8-bit B less its zero point into panels of 16-bit pairs"),
    *_plain("qconv", "int8 convolution of u8 planes, sparse in blocks of 1x4; epilogue", BYTE_TILES),
    *_plain("qconv_blend", "the same, zeros anywhere; epilogue", ("avx512",), "qconv"),
    *_plain("qconv_n_of_m", "the same, at most 4 of 8 weights, places as data; epilogue", ("avx512",), "qconv"),
    *_plain("qconv_dense", "the same with every weight; epilogue", MATRIX_TILES, "qconv"),
    *_plain("to_planes", "NCHW to planes of u8, quantized where it is float", BYTE_TILES),
    *_plain("unroll_rows", "the same, the values that a row of a window covers as channels", ("avx512",)),
    *_plain("from_planes", "planes of u8 to NCHW", BYTE_TILES),
    *_plain("copy_planes", "planes of u8 with other padding, by phases, or side by side", BYTE_TILES),
    *_plain("pool_planes", "maximum over windows of u8 planes", BYTE_TILES),
    *_tiled(
        "attention", "attention_f32", "softmax(Q·Kᵀ + mask)·V in tiles of queries, the scores in L1", _ATTENTION_TILES
    ),
    *_plain("attention_u8", "quantized attention of a head, scores in tiles of 16 queries", BYTE_TILES),
    *_plain("transpose", "matrices transposed, in squares of 16x16"),
    *_plain("panels", "rows to panels of 16 columns, in squares of 16x16", TILES),
    *_plain("rows", "panels of floats to rows", TILES),
    *_plain("layer_norm_panels", "layer normalization of panels, a column in each lane", TILES),
    *_plain("pack_panels", "run-time B into panels, transposed where it lies along k"),
    *_plain("pad_planes", "planes to padded planes, one per phase of the stride"),
    *_plain("pool2d_max", "maximum over windows", template="pool2d"),
    *_plain("pool2d_avg", "mean over windows", template="pool2d"),
    *_plain("global_average_pool", "mean of a plane"),
    *_plain("softmax", "softmax and log-softmax of rows"),
    *_plain("layer_norm", "layer normalization of rows"),
    *_plain("nonzero", "coordinates of what is not zero, counted by each run"),
    *_plain("non_max_suppression", "greedy, per batch and class, counted by each run"),
    *_plain("copy_rows", "rows of a cache, appended where they stay"),
    *_plain("gather", "slices chosen by index, checked"),
)


def has(family: str, isa: str) -> bool:
    """Whether there is a row."""
    return _row(family, isa) is not None


def find(family: str, isa: str) -> Kernel:
    """The row of a family for an ISA, or for the next one that it includes."""
    row = _row(family, isa)
    if row is None:
        raise KeyError(f"no {family} kernel for {isa}")
    return row


def _row(family: str, isa: str) -> Kernel | None:
    if family in _LACKS.get(isa, ()):
        return None
    rows = {kernel.isa: kernel for kernel in CATALOGUE if kernel.family == family}
    while isa not in rows and isa in _INCLUDES:
        isa = _INCLUDES[isa]
    return rows.get(isa, rows.get("any"))


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    loader = jinja2.PackageLoader("sparsec.codegen_templates", ".")
    return jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)


def source(template: str, name: str, **values: object) -> Source:
    """The C unit that a template makes; `name` must tell all that went into it."""
    return Source(name, _environment().get_template(f"{template}.c.j2").render(**values))
