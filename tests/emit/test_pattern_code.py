"""The byte encoder of pattern code against an assembler."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from sparsec.codegen_templates.blended import BlendCode, blend_blocks
from sparsec.codegen_templates.epilogue import EpilogueOp
from sparsec.codegen_templates.pattern import Ending, PatternCode, dense_blocks, row_blocks, rows_per_block
from sparsec.codegen_templates.row_code import dense_code, sparse_code
from sparsec.compiler.emit.code.x86 import assembler, encode, encode_block, lines_ahead


def assembled(text: str, folder) -> bytes:
    """The .text section that clang makes of it."""
    (folder / "block.s").write_text(f".intel_syntax noprefix\n.text\n{text}")
    zig = [sys.executable, "-m", "ziglang"]
    flags = ["-target", "x86_64-linux-gnu.2.17", "-mcpu=x86_64_v4+avx512vnni+avx512vbmi+avxvnni"]
    subprocess.run([*zig, "cc", *flags, "-c", "block.s", "-o", "block.o"], cwd=folder, check=True)
    from elftools.elf.elffile import ELFFile

    with (folder / "block.o").open("rb") as file:
        return ELFFile(file).get_section_by_name(".text").data()


@pytest.mark.parametrize("kind", ["f32", "u8s8"])
@pytest.mark.parametrize(("rows", "depth", "density"), [(28, 40, 0.5), (3, 7, 0.9), (17, 300, 0.2), (28, 64, 1.0)])
def test_bytes_are_the_assembler_s(kind, rows, depth, density, tmp_path):
    occupied = np.random.default_rng(rows).random((rows, depth)) < density
    code = PatternCode(
        kind, 9 * 64 * np.arange(depth), row_blocks(occupied), resumes=rows == 17, in_registers=rows == 28
    )
    for block in code.blocks:
        assert encode_block(code, block) == assembled(assembler(code, block), tmp_path)


def test_narrow_blocks(tmp_path):
    occupied = np.random.default_rng(1).random((28, 40)) < 0.5
    straight = PatternCode("u8s8", 9 * 64 * np.arange(40), row_blocks(occupied), in_registers=True, narrow=True)
    loop = PatternCode(
        "u8s8", 4 * np.arange(9), dense_blocks(28, 9), 64, turn_bytes=640, tiles=4, in_registers=True, narrow=True
    )
    for code in (straight, loop):
        for block, ahead in zip(code.blocks, lines_ahead(code), strict=True):
            assert encode_block(code, block, ahead) == assembled(assembler(code, block, ahead), tmp_path)


@pytest.mark.parametrize("tiles", [1, 4, 1000])
def test_code_that_fetches_the_next_block_s(tiles, tmp_path):
    occupied = np.random.default_rng(tiles).random((50, 600)) < 0.2
    code = PatternCode("f32", 64 * np.arange(600), row_blocks(occupied), tiles=tiles, fetch_activations=True)
    for block, ahead in zip(code.blocks, lines_ahead(code), strict=True):
        assert encode_block(code, block, ahead) == assembled(assembler(code, block, ahead), tmp_path)


@pytest.mark.parametrize("tiles", [1, 4, 1000])
def test_loops_that_fetch_the_next_block_s_weights(tiles, tmp_path):
    code = PatternCode(
        "f32", 4 * np.arange(9), dense_blocks(50, 9), turns=64, turn_bytes=640, tiles=tiles, fetch_activations=True
    )
    for block, ahead in zip(code.blocks, lines_ahead(code), strict=True):
        assert ahead.step * tiles >= 4 * len(block.k)
        assert encode_block(code, block, ahead) == assembled(assembler(code, block, ahead), tmp_path)


@pytest.mark.parametrize("tiles", [1, 3, 50])
def test_all_of_the_next_block_is_fetched(tiles):
    code = PatternCode("f32", 64 * np.arange(600), row_blocks(np.ones((100, 600), bool)), tiles=tiles)
    table = np.frombuffer(encode(code), "<u4")
    blocks = len(code.blocks)
    sizes, fetched = np.diff(table[: blocks + 1].astype(int)), table[blocks + 1 : 3 * blocks + 1].reshape(2, -1)
    assert (tiles * fetched[0] >= 0.97 * np.roll(sizes, -1) - 64).all()
    assert (tiles * fetched[1] >= np.roll([4 * len(b.k) for b in code.blocks], -1)).all()


@pytest.mark.parametrize("kind", ["f32", "u8s8"])
@pytest.mark.parametrize("rows", [28, 5])
@pytest.mark.parametrize("taps", [1, 9, 64])
def test_dense_blocks_are_loops(kind, rows, taps, tmp_path):
    offsets = np.random.default_rng(taps).permutation(taps) * 4
    code = PatternCode(kind, offsets, dense_blocks(rows, taps), turns=192, turn_bytes=9 * 64)
    for block in code.blocks:
        assert encode_block(code, block) == assembled(assembler(code, block), tmp_path)


@pytest.mark.parametrize(
    "ops",
    [
        (),
        (EpilogueOp("bias"), EpilogueOp("add"), EpilogueOp("relu")),
        (EpilogueOp("clip", (-0.5, 6.0)), EpilogueOp("add")),
    ],
)
@pytest.mark.parametrize("turns", [1, 5])
def test_endings(ops, turns, tmp_path):
    occupied = np.ones((45, 9), bool) if turns > 1 else np.random.default_rng(0).random((45, 100)) < 0.3
    blocks = row_blocks(occupied, 31)
    ending = Ending(ops, 4 * 3344, 3, 4 * 3152, 2)
    code = PatternCode("f32", 64 * np.arange(occupied.shape[1]), blocks, turns, 640, tiles=7, ending=ending)
    for block, ahead in zip(code.blocks, lines_ahead(code), strict=True):
        assert encode_block(code, block, ahead) == assembled(assembler(code, block, ahead), tmp_path)


def test_an_empty_block_only_clears_and_stores(tmp_path):
    code = PatternCode("f32", 64 * np.arange(8), row_blocks(np.zeros((5, 8), bool)))
    assert encode_block(code, code.blocks[0]) == assembled(assembler(code, code.blocks[0]), tmp_path)


def test_the_table_leads_to_every_block():
    code = PatternCode("f32", 64 * np.arange(100), row_blocks(np.eye(100, dtype=bool)))
    data = encode(code)
    table = np.frombuffer(data[: 4 * (len(code.blocks) + 1)], "<u4")
    assert table[-1] == len(data)
    for begin, block in zip(table, code.blocks, strict=False):
        assert data[begin:].startswith(encode_block(code, block))
        assert begin % 64 == 0


@pytest.mark.parametrize(("rows", "height"), [(1, 4), (28, 28), (29, 16), (64, 24), (768, 28), (3072, 28)])
def test_rows_per_block(rows, height):
    assert rows_per_block(rows) == height


@pytest.mark.parametrize("tiles", [0, 3])
@pytest.mark.parametrize(("rows", "units", "density"), [(28, 40, 0.5), (3, 7, 0.9), (17, 600, 0.05), (50, 64, 0.1)])
def test_blended_blocks(rows, units, density, tiles, tmp_path):
    occupied = np.random.default_rng(rows).random((rows, 4 * units)) < density
    code = BlendCode(36 * np.arange(units), blend_blocks(occupied), tiles, in_registers=rows == 17)
    for block, ahead in zip(code.blocks, lines_ahead(code), strict=True):
        assert encode_block(code, block, ahead) == assembled(assembler(code, block, ahead), tmp_path)


def test_an_empty_blended_block(tmp_path):
    code = BlendCode(64 * np.arange(2), blend_blocks(np.zeros((5, 8), bool)))
    assert encode_block(code, code.blocks[0]) == assembled(assembler(code, code.blocks[0]), tmp_path)


@pytest.mark.parametrize("tiles", [0, 2])
@pytest.mark.parametrize(("rows", "taps", "turns"), [(24, 1, 3), (4, 9, 1), (52, 25, 8)])
def test_blocks_of_n_of_m_are_loops(rows, taps, turns, tiles, tmp_path):
    blocks = dense_blocks(rows, taps, 24)
    code = PatternCode("n_of_m", 36 * np.arange(2 * taps), blocks, turns, 1280, tiles, in_registers=True)
    for block, ahead in zip(code.blocks, lines_ahead(code), strict=True):
        assert encode_block(code, block, ahead) == assembled(assembler(code, block, ahead), tmp_path)


ISAS = ("avx2", "avx2-vnni", "avx2-vnni-evex", "avx512-novnni")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ["f32", "u8s8"])
@pytest.mark.parametrize(("rows", "depth", "density"), [(28, 40, 0.5), (3, 7, 0.9), (17, 300, 0.2), (0, 0, 0)])
def test_slices(isa, kind, rows, depth, density, tmp_path):
    """Blocks that are summed a few rows at a time; bytes that 16 bits do not hold come twice."""
    rng = np.random.default_rng(rows)
    rows, depth = max(rows, 5), max(depth, 8)
    units = rng.integers(-(1 << 31), 1 << 31, (rows, depth)).astype(np.int32) * (rng.random((rows, depth)) < density)
    code, values, starts = sparse_code(
        isa, kind, units, 9 * 64 * np.arange(depth), tiles=3, fetch_activations=True, resumes=rows == 17
    )
    assert starts[-1] == len(values) == sum(len(b.k) for b in code.blocks)
    for block, ahead in zip(code.blocks, lines_ahead(code), strict=True):
        assert encode_block(code, block, ahead) == assembled(assembler(code, block, ahead), tmp_path)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ["f32", "u8s8"])
@pytest.mark.parametrize("taps", [1, 9])
def test_slices_of_dense_blocks(isa, kind, taps, tmp_path):
    units = np.ones((50, taps * 64), np.int32)
    code, values, starts = dense_code(isa, kind, units, 4 * np.arange(taps), 640, tiles=7, fetch_activations=True)
    assert starts[-1] == len(values)
    for block, ahead in zip(code.blocks, lines_ahead(code), strict=True):
        assert encode_block(code, block, ahead) == assembled(assembler(code, block, ahead), tmp_path)
