"""Instructions that AArch64 kernels execute, counted by qemu: at 80 % zero in blocks of 1x4 against dense weights.

    python benchmarks/instructions.py [TARGET …]      default: aarch64-dotprod, aarch64-i8mm

There is no time in it: emulation says nothing of that. A network's dense path is the same network with dense weights.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "targets"))

from emulation import MACHINES, Machine, Program
from generators.bert import BertConfig, bert
from generators.mlp import MlpConfig, mlp
from generators.resnet50 import ResNetConfig, resnet50

from sparsec.runtime_stub.inputs import random_inputs

BAR = 0.35
NETWORKS = {
    "one layer of BERT-base, 128 tokens": (bert, BertConfig(layers=1, vocabulary=200, quantized=True)),
    "linear layers of BERT-base, 128 tokens": (mlp, MlpConfig(batch=128, sizes=(768, 768, 3072, 768), quantized=True)),
    "ResNet-50": (resnet50, ResNetConfig(quantized=True)),
}


def count(make, config, machine: Machine) -> int:
    """Of one run."""
    with tempfile.TemporaryDirectory() as folder:
        program = Program(make(config), machine, Path(folder))
        return program.instructions(random_inputs(program.manifest))


def main(targets: list[str]) -> int:
    """Status 1 when a network takes more than the bar's share of its dense path."""
    missed = False
    for machine in (m for m in MACHINES if m.target in targets):
        if machine.missing():
            print(machine.missing())
            return 1
        for name, (make, config) in NETWORKS.items():
            dense, sparse = (
                count(make, replace(config, sparsity=s, pattern=p), machine) for s, p in ((0.0, "dense"), (0.8, "1x4"))
            )
            print(
                f"{machine.target:16} {name:40} {dense / 1e6:9.1f} M dense {sparse / 1e6:9.1f} M {sparse / dense:.3f}"
            )
            missed |= sparse > BAR * dense
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["aarch64-dotprod", "aarch64-i8mm"]))
