"""Every target runs, and integer models give the same bytes on all of them at any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from emulation import MACHINES, Machine, Program, native_targets
from generators.bert import BertConfig, bert
from generators.mobilenetv2 import MobileNetConfig, mobilenetv2
from generators.resnet50 import ResNetConfig, resnet50
from small_models import CONVNET_DIMS, LOOKUP_DIMS, convnet, lookup

import sparsec
from sparsec.compiler.target import TARGETS
from sparsec.runtime_stub.inputs import random_inputs

INTEGER_MODELS = {
    "resnet": lambda: resnet50(ResNetConfig(size=32, depths=(1, 2, 1, 1), width=8, classes=10,
                                            sparsity=0.8, pattern="1x4", quantized=True)),
    "mobilenet": lambda: mobilenetv2(MobileNetConfig(size=32, stem=8, stages=((1, 8, 1, 1), (4, 12, 2, 2)),
                                                     features=32, classes=10, quantized=True)),
}  # fmt: skip
EVERYWHERE = pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.id)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """Model -> (inputs, bytes that every target gives)."""
    found = {}
    for name, make in INTEGER_MODELS.items():
        model = make()
        answers = {}
        for target in native_targets():
            so = sparsec.build(model, target=target, output=tmp_path_factory.mktemp(name) / f"{target}.so")
            for threads in (1, 3):
                with sparsec.load(so, threads=threads) as loaded:
                    inputs = random_inputs(loaded.manifest)
                    answers[target, threads] = b"".join(a.tobytes() for a in loaded.run(inputs).values())
        assert len(set(answers.values())) == 1, {key: hash(value) for key, value in answers.items()}
        found[name] = model, inputs, next(iter(answers.values()))
    return found


def test_every_target_is_run():
    """No emulator has AVX-VNNI: tests/kernels run its kernels in the form that AVX-512 gives its instructions. AVX-512
    is run where the CPU has it."""
    emulated = {machine.target for machine in MACHINES} | {"avx2-vnni"}
    assert emulated | set(native_targets()) >= {name for name in TARGETS if not name.startswith("avx512")}


@EVERYWHERE
@pytest.mark.parametrize("name", INTEGER_MODELS)
def test_integer_models_give_the_same_bytes(machine, name, expected, tmp_path):
    if machine.missing():
        pytest.skip(machine.missing())
    model, inputs, answer = expected[name]
    program = Program(model, machine, tmp_path)
    assert program.run(inputs) == answer
    assert program.run(inputs, threads=2) == answer


@EVERYWHERE
def test_float_models(machine, tmp_path):
    if machine.missing():
        pytest.skip(machine.missing())
    for name, make, dims, size in (("conv", convnet, CONVNET_DIMS, 3), ("lookup", lookup, LOOKUP_DIMS, 2)):
        so = sparsec.build(make(), output=tmp_path / f"{name}.so", dims=dims)
        with sparsec.load(so) as here:
            inputs = random_inputs(here.manifest, dims=dict.fromkeys(dims, size))
            (answer,) = here.run(inputs).values()
        program = Program(make(), machine, tmp_path / name, dims=dims)
        found = np.frombuffer(program.run(inputs, size), np.float32).reshape(answer.shape)
        np.testing.assert_allclose(found, answer, atol=1e-5 * np.abs(answer).max())


@pytest.mark.parametrize(("target", "cpu", "missing"), [("aarch64-dotprod", "cortex-a53", "dotprod"),
                                                        ("aarch64-i8mm", "cortex-a76", "i8mm")])  # fmt: skip
def test_a_cpu_that_lacks_the_instructions_is_refused(target, cpu, missing, tmp_path):
    machine = Machine(target, "aarch64-linux-musl", ("qemu-aarch64", "-cpu", cpu))
    if machine.missing():
        pytest.skip(machine.missing())
    program = Program(lookup(), machine, tmp_path, dims={"batch": 1, "words": 1})
    inputs = {"ids": np.zeros(1, np.int64), "bias": np.zeros(8, np.float32)}
    with pytest.raises(RuntimeError, match=f"needs {missing}; this CPU has .*: build for a target it has"):
        program.run(inputs)


def test_a_quantized_encoder_on_arm(tmp_path):
    """Attention on panels of bytes and layer normalization between them: floats differ in rounding, bytes by a step."""
    machine = next(m for m in MACHINES if m.target == "aarch64-dotprod")
    if machine.missing():
        pytest.skip(machine.missing())
    model = bert(BertConfig(layers=1, hidden=64, heads=2, inner=128, vocabulary=100, seq=24, sparsity=0.8,
                            pattern="1x4", quantized=True))  # fmt: skip
    so = sparsec.build(model, output=tmp_path / "here.so")
    with sparsec.load(so) as here:
        inputs = random_inputs(here.manifest)
        want = np.concatenate([a.ravel() for a in here.run(inputs).values()])
    program = Program(model, machine, tmp_path / "there")
    assert {"attention_u8_neon_dotprod", "spmm_u8s8_neon_dotprod"} <= {r["kernel"] for r in program.manifest["layers"]}
    found = np.frombuffer(program.run(inputs), np.float32)
    np.testing.assert_allclose(found, want, atol=0.02 * np.abs(want).max())
