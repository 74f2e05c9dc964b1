"""Every row of the catalogue that belongs to an ISA compiles, for every target that has it."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources

import numpy as np
import pytest

from sparsec.codegen_templates import amx, conv, float_attention, gemm, indexed, n_of_m, norm, qgemm, qplanes, spmm
from sparsec.codegen_templates.attention import AttentionParameters, AttentionShape, plan_attention
from sparsec.codegen_templates.catalogue import CATALOGUE, base_isa, has
from sparsec.codegen_templates.conv_planes import plan_conv_planes
from sparsec.codegen_templates.epilogue import EpilogueOp
from sparsec.codegen_templates.gemv import plan_gemv
from sparsec.codegen_templates.layout import PANELS, ROWS, Quantized
from sparsec.codegen_templates.planes import ConvGeometry
from sparsec.codegen_templates.qconv import FloatOutput, PlanesOutput, QConv, plan_qconv
from sparsec.codegen_templates.qplanes_move import (
    plan_copy_planes,
    plan_from_planes,
    plan_pool_planes,
    plan_to_planes,
    plan_unroll_rows,
)
from sparsec.codegen_templates.tile_epilogue import constant_quantization
from sparsec.codegen_templates.use import KernelUse, Tensor
from sparsec.compiler.emit.toolchain import kernel_flags
from sparsec.compiler.target import TARGETS

FLOATS = np.eye(16, dtype=np.float32)
BYTES = np.tile(np.array([1, 0, 1, 0], np.int8), (16, 4))
HOW = constant_quantization(BYTES, 3, np.ones(16, np.float32), None)
TABLE = Quantized(0.1, 3, table=bytes(range(256)))
OPS = (EpilogueOp("bias"), EpilogueOp("gelu_erf"))


def f32(*shape: int) -> Tensor:
    return Tensor("float32", shape)


def u8(*shape: int) -> Tensor:
    return Tensor("uint8", shape)


def convolution(isa: str, code: str, groups: int = 1) -> list[KernelUse]:
    weights = np.ones((4, 4 // groups, 3, 3), np.float32)
    geometry = ConvGeometry((1, 1), (1, 1), (1, 1, 1, 1), groups)
    return plan_conv_planes(isa, f32(1, 4, 8, 8), weights, f32(1, 4, 8, 8), geometry, OPS, code, "")


WINDOW = qplanes.Geometry((3, 3), (2, 2), (1, 1), (1, 1, 1, 1))
PLANES, SMALL = qplanes.plain(8, 8, 9, 16, 16), qplanes.plain(4, 4, 5)
IMAGE = u8(*PLANES.shape(1, 8))


def quantized_convolution(isa: str, method: str) -> list[KernelUse]:
    window = qplanes.Geometry((3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
    weights = np.tile(np.array([1, 0, 1, 0, 0, 1, 0, 1], np.int8).reshape(1, 8, 1, 1), (8, 1, 3, 3))
    outputs = (PlanesOutput(0.1, 3, PLANES), FloatOutput(), FloatOutput(8))
    conv_ = QConv(window, PLANES, 3, np.ones(8), np.zeros(8, np.int32), (8, 8), 9, outputs)
    return plan_qconv(isa, [IMAGE, Tensor("int8", weights.shape, weights)], (EpilogueOp("silu"),), conv_, "", method)


def product(isa: str, method: str, *layouts) -> list[KernelUse]:
    return spmm.plan_spmm(isa, 16, BYTES, OPS, HOW, "", method, layouts or (TABLE,))


def attention(isa: str) -> list[KernelUse]:
    ways = (Quantized(0.03, 120), Quantized(0.03, 131), Quantized(1 / 255, 0), Quantized(0.028, 117))
    how = AttentionParameters(*ways, 0.1, 0.1, 0.1, Quantized(0.06, 120))
    parts = (AttentionShape(1, 16, 16, 1, 16), how, f32(1, 1, 1, 16))
    return [*plan_attention(isa, *parts, True, Quantized(0.1, 3)), *plan_attention(isa, *parts, False, ROWS)]


def qlinear(isa: str) -> list[KernelUse]:
    how = qgemm.constant_quantization(0.7, 3, "uint8")
    return qgemm.plan_qlinear(isa, u8(4, 16), how, BYTES, np.ones(16, np.float32), None, OPS, 2)


def unrolled(isa: str) -> list[KernelUse]:
    window = qplanes.Geometry((7, 7), (2, 2), (1, 1), (3, 3, 3, 3))
    return plan_unroll_rows(isa, f32(1, 3, 16, 16), qplanes.plain(16, 8, 9, 40, 40), 0.1, 3, window)


USES = {
    "gemm": lambda isa: gemm.plan_linear(isa, f32(4, 16), FLOATS, OPS),
    "conv2d": lambda isa: conv.plan_conv(isa, f32(1, 4, 8, 8), np.ones((4, 4, 3, 3), np.float32), f32(1, 4, 8, 8),
                                         ConvGeometry((1, 1), (1, 1), (1, 1, 1, 1), 1), OPS),
    "depthwise": lambda isa: conv.plan_conv(isa, f32(1, 4, 8, 8), np.ones((4, 1, 3, 3), np.float32), f32(1, 4, 8, 8),
                                            ConvGeometry((1, 1), (1, 1), (1, 1, 1, 1), 4), OPS),
    "qgemm": qlinear,
    "attention": lambda isa: float_attention.plan_float_attention(
        isa, *[f32(1, 2, 16, 16)] * 4, 1.0, None, float_attention.AttentionAxes()),
    "attention_u8": attention,
    "panels": lambda isa: [*spmm.plan_panels(isa, 16, 16, quantized=True, signed=True),
                           *spmm.plan_panels(isa, 16, 16, quantized=False, signed=False)],
    "rows": lambda isa: spmm.plan_rows(isa, 16, 16),
    "layer_norm_panels": lambda isa: norm.plan_layer_norm_panels(isa, 16, 16, 1e-5, (PANELS, TABLE)),
    "spmm_f32": lambda isa: spmm.plan_spmm(isa, 16, FLOATS, OPS, None, "", layouts=(PANELS,)),
    "spmm_u8s8": lambda isa: [*product(isa, "pattern"), *product(isa, "pattern", ROWS)],
    "dense_u8s8": lambda isa: product(isa, "dense"),
    "blended_u8s8": lambda isa: product(isa, "blend"),
    **{f"indexed{n}_f32": lambda isa, n=n: indexed.plan_indexed(isa, 16, FLOATS, OPS, None, "", n) for n in (1, 2, 4)},
    **{f"indexed{n}_u8s8": lambda isa, n=n: indexed.plan_indexed(isa, 16, BYTES, OPS, HOW, "", n) for n in (1, 2, 4)},
    "n_of_m_u8s8": lambda isa: n_of_m.plan_n_of_m(isa, 16, BYTES, OPS, HOW, ""),
    "gemv_f32_mask": lambda isa: plan_gemv(isa, 2, FLOATS, OPS, None, "", "mask"),
    **{f"gemv_u8s8_{s}": lambda isa, s=s: plan_gemv(isa, 2, BYTES, OPS, HOW, "", s)
       for s in ("dense", "mask", "mask4")},
    "conv2d_sparse": lambda isa: convolution(isa, "pattern"),
    "conv2d_dense": lambda isa: convolution(isa, "dense"),
    "depthwise_planes": lambda isa: convolution(isa, "depthwise", 4),
    "winograd": lambda isa: convolution(isa, "winograd2"),
    "winograd_input": lambda isa: convolution(isa, "winograd4"),
    "qconv": lambda isa: quantized_convolution(isa, "pattern"),
    "qconv_dense": lambda isa: quantized_convolution(isa, "dense"),
    "qconv_blend": lambda isa: quantized_convolution(isa, "blend"),
    "qconv_n_of_m": lambda isa: quantized_convolution(isa, "n_of_m"),
    "to_planes": lambda isa: [*plan_to_planes(isa, f32(1, 8, 8, 8), PLANES, 0.1, 3),
                              *plan_to_planes(isa, Tensor("int8", (1, 8, 8, 8)), PLANES, 0.1, 3)],
    "from_planes": lambda isa: plan_from_planes(isa, PLANES, Tensor("int8", (1, 8, 8, 8))),
    "copy_planes": lambda isa: plan_copy_planes(isa, [(IMAGE, PLANES)], SMALL, 3, ""),
    "pool_planes": lambda isa: plan_pool_planes(isa, IMAGE, PLANES, SMALL, WINDOW, 3),
    "unroll_rows": unrolled,
    "tiles_u8s8": lambda isa: amx.plan_amx(isa, 16, BYTES, OPS, HOW, "", False),
    "tile_blocks_u8s8": lambda isa: amx.plan_amx(isa, 16, BYTES, OPS, HOW, "", True),
}  # fmt: skip
"""Family -> calls of a kernel of it."""


def test_every_family_is_here():
    assert set(USES) == {kernel.family for kernel in CATALOGUE if kernel.isa != "any"}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_rows_compile(target, tmp_path):
    """As kernels of an artifact are compiled, but for the optimizer, which refuses nothing."""
    sources = {}
    for family, uses in USES.items():
        if not has(family, target.isa):
            continue
        made = uses(target.isa)
        assert any(use.kernel.startswith(family) and base_isa(target.isa) in use.kernel for use in made), family
        sources |= {unit.name: unit.text for use in made for unit in use.sources}
    for file in resources.files("sparsec.codegen_templates").iterdir():
        if file.name.endswith(".h"):
            (tmp_path / file.name).write_text(file.read_text())
    for name, text in sources.items():
        (tmp_path / f"{name}.c").write_text(text)
    flags = ["-O0" if flag == "-O3" else flag for flag in kernel_flags(target)]
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-target",
        target.triple or "riscv64-linux-musl",
        *flags,
        "-fno-sanitize=undefined",
    ]
    command += ["-Werror=implicit", "-c", *(f"{name}.c" for name in sources)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]
