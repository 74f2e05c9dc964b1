"""What the zeros save, in instructions that qemu counts: they do not depend on the machine."""

from __future__ import annotations

from dataclasses import replace

import pytest
from emulation import MACHINES, Program
from generators.mlp import MlpConfig, mlp

from sparsec.runtime_stub.inputs import random_inputs

DENSE = MlpConfig(batch=16, sizes=(1024, 1024), quantized=True)
SPARSE = replace(DENSE, sparsity=0.8, pattern="1x4")
MACHINE = next(m for m in MACHINES if m.target == "aarch64-dotprod")


def test_a_layer_at_80_percent_takes_a_third_of_its_dense_instructions(tmp_path):
    if MACHINE.missing():
        pytest.skip(MACHINE.missing())
    counts = []
    for name, config in (("dense", DENSE), ("sparse", SPARSE)):
        program = Program(mlp(config), MACHINE, tmp_path / name)
        inputs = random_inputs(program.manifest)
        counts.append(program.instructions(inputs))
        assert program.instructions(inputs) == pytest.approx(counts[-1], rel=1e-3)
    products = 1024 // 4 * 1024 * (16 // 4)  # of one register each
    assert products < counts[0] < 1.5 * products
    assert counts[1] <= 0.35 * counts[0]
