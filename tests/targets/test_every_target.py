"""Every row of `sparsec targets` builds ResNet-50 on one host; a small model runs with a sanitizer's checks on."""

from __future__ import annotations

import numpy as np
import pytest
from emulation import MACHINES, Program
from generators.resnet50 import ResNetConfig, resnet50
from small_models import CONVNET_DIMS, convnet

import sparsec
from sparsec.compiler.target import GENERIC, TARGETS, resolve
from sparsec.runtime_stub.artifact import read_manifest
from sparsec.runtime_stub.inputs import random_inputs


def groups() -> list[str]:
    """Lists of targets that one artifact can hold, so that what they have in common is done once."""
    found: dict[str, list[str]] = {}
    for row in TARGETS.values():
        if row.name not in (GENERIC, "x86-64"):
            found.setdefault(row.triple, []).append(row.name)
    x86 = found[TARGETS["x86-64"].triple]
    return [",".join([*x86, "x86-64"]), *(",".join(names) for names in found.values() if names is not x86)]


GROUPS = groups()


@pytest.fixture(scope="module")
def model():
    return resnet50(ResNetConfig(quantized=True, sparsity=0.8, pattern="1x4"))


def test_every_target_is_in_a_group():
    assert {name for group in GROUPS for name in group.split(",")} == set(TARGETS) - {GENERIC}
    assert resolve(GENERIC, TARGETS["x86-64"].triple).c_flags == TARGETS["x86-64"].c_flags, "the same compilation"


@pytest.mark.parametrize("group", GROUPS)
def test_resnet50_is_built(group, model, tmp_path):
    path = sparsec.build(model, target=group, output=tmp_path / "resnet50.so")
    manifest = read_manifest(path)
    members = [manifest, *manifest.get("fallbacks", ())]
    assert [member["target"]["name"] for member in members] == group.split(",")
    for member in members:
        computing = {node for layer in member["layers"] if layer["macs"] for node in layer["nodes"]}
        assert len(computing) >= 50, "54 layers, of which one may be computed with another"
    path.unlink()


@pytest.mark.parametrize("machine", [m for m in MACHINES if m.target == "armv7"], ids=lambda m: m.id)
def test_no_undefined_behaviour_in_emulation(machine, tmp_path):
    if machine.missing():
        pytest.skip(machine.missing())
    plain = Program(convnet(), machine, tmp_path / "plain", dims=CONVNET_DIMS)
    inputs = random_inputs(plain.manifest, dims=dict.fromkeys(CONVNET_DIMS, 3))
    expected = np.frombuffer(plain.run(inputs, 3), np.float32)
    checked = Program.checked(convnet(), machine, tmp_path / "checked", dims=CONVNET_DIMS)
    found = np.frombuffer(checked.run(inputs, 3, threads=2), np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
