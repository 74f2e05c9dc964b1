"""The byte encoder of AArch64 pattern code against an assembler."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from sparsec.codegen_templates.pattern import PatternCode, dense_blocks, row_blocks
from sparsec.compiler.emit.code.aarch64 import assembler, encode, encode_block


def assembled(text: str, folder) -> bytes:
    """The .text section that clang makes of it."""
    from elftools.elf.elffile import ELFFile

    (folder / "block.s").write_text(f".text\n{text}")
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-gnu.2.17", "-mcpu=generic+dotprod+i8mm"]
    subprocess.run([*command, "-c", "block.s", "-o", "block.o"], cwd=folder, check=True)
    with (folder / "block.o").open("rb") as file:
        return ELFFile(file).get_section_by_name(".text").data()


def check(code: PatternCode, folder) -> None:
    texts = [assembler(code, block) for block in code.blocks]
    whole = b"".join(encode_block(code, block) for block in code.blocks)
    assert whole == assembled("".join(texts), folder)


@pytest.mark.parametrize("kind", ["f32", "u8s8"])
def test_bytes_are_the_assembler_s(kind, tmp_path):
    """Blocks that save registers or do not, streams that end in every number of units, deeper than a load reaches."""
    rng = np.random.default_rng(0)
    for rows, depth, density in [(28, 40, 0.5), (3, 7, 0.9), (17, 300, 0.2), (28, 1100, 0.4), (20, 5, 1.0)]:
        code = PatternCode(kind, 64 * np.arange(depth), row_blocks(rng.random((rows, depth)) < density), 1)
        check(code, tmp_path)
    for units in range(1, 10):
        check(PatternCode(kind, 64 * np.arange(units), row_blocks(np.ones((1, units), bool))), tmp_path)


def test_sums_that_resume(tmp_path):
    blocks = row_blocks(np.ones((40, 9), bool))
    check(PatternCode("f32", 64 * np.arange(9), blocks, resumes=True), tmp_path)


def test_taps_of_planes(tmp_path):
    """Offsets anywhere on words, before and behind, further than a load reaches."""
    rng = np.random.default_rng(1)
    offsets = rng.integers(-40_000, 400_000, 300) * 4
    check(PatternCode("f32", offsets, row_blocks(rng.random((28, 300)) < 0.2)), tmp_path)


@pytest.mark.parametrize(("turns", "turn_bytes"), [(24, 512), (70_000, 64_000)])
def test_dense_blocks_are_loops(turns, turn_bytes, tmp_path):
    check(PatternCode("u8s8", 64 * np.arange(9), dense_blocks(50, 9), turns=turns, turn_bytes=turn_bytes), tmp_path)


@pytest.mark.parametrize("rows", [28, 3, 17])
@pytest.mark.parametrize(("units", "turns", "turn_bytes"), [(9, 3, 640), (1, 70_000, 64_000), (8, 1, 512), (40, 2, 4)])
def test_matrix_products(rows, units, turns, turn_bytes, tmp_path):
    offsets = np.random.default_rng(rows).integers(-9_000, 90_000, units) * 4
    blocks = dense_blocks(rows, units)
    check(PatternCode("s8_pairs", offsets, blocks, turns=turns, turn_bytes=turn_bytes), tmp_path)


def test_an_empty_block_only_clears_and_stores(tmp_path):
    check(PatternCode("f32", 64 * np.arange(8), row_blocks(np.zeros((5, 8), bool))), tmp_path)


def test_offsets_off_words_are_refused():
    code = PatternCode("f32", np.array([2]), row_blocks(np.ones((1, 1), bool)))
    with pytest.raises(ValueError, match="not on words"):
        encode_block(code, code.blocks[0])


def test_the_table_leads_to_every_block():
    code = PatternCode("f32", 64 * np.arange(100), row_blocks(np.eye(100, dtype=bool)), tiles=3)
    data = encode(code)
    count = len(code.blocks)
    table = np.frombuffer(data[: 4 * (3 * count + 1)], "<u4")
    assert table[count] == len(data)
    for begin, block in zip(table, code.blocks, strict=False):
        assert data[begin:].startswith(encode_block(code, block))
        assert begin % 64 == 0
    sizes, streams = np.diff(table[: count + 1].astype(int)), np.array([4 * len(b.k) for b in code.blocks])
    ahead = table[count + 1 :].reshape(2, -1).astype(int)
    assert (3 * ahead[0] >= np.roll(sizes, -1)).all()
    assert (3 * ahead[1] >= np.roll(streams, -1)).all()
