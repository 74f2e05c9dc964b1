"""Programs for several sizes in one artifact: the smallest that fits computes the same as onnxruntime."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from decoder import Decoder

import sparsec
from sparsec.cli import cli
from sparsec.errors import InputError, ShapeError
from sparsec.runtime_stub.artifact import read_manifest

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))

from raw_context import OK, RawContext

BUCKETS = {"batch": 1, "tokens": (1, 2), "past": [(0, 8), 16, 40]}


@pytest.fixture(scope="module")
def decoder():
    return Decoder().model()


@pytest.fixture(scope="module")
def artifact(decoder, tmp_path_factory):
    return sparsec.build(decoder, output=tmp_path_factory.mktemp("buckets") / "m.so", dims=BUCKETS)


def _inputs(model, past, tokens=1):
    rng = np.random.default_rng(past)
    caches = {i.name: rng.standard_normal((1, 4, past, 8)).astype(np.float32) for i in model.inputs[1:]}
    return {"token": rng.integers(0, 50, (1, tokens)), **caches}


def _which(model, run):
    """The bucket whose layers took time."""
    before = model.layer_seconds().copy()
    run()
    took, first, found = model.layer_seconds() - before, 0, []
    for bucket in model.manifest["buckets"]:
        if took[first : first + bucket["layers"]].any():
            found.append(bucket["dims"]["past"])
        first += bucket["layers"]
    (only,) = found
    return only


@pytest.mark.parametrize("threads", [1, 2])
def test_the_smallest_that_fits(decoder, artifact, threads):
    model = sparsec.load(artifact, threads=threads, timed=True)
    session = ort.InferenceSession(decoder.SerializeToString(), providers=["CPUExecutionProvider"])
    results = {}
    for past, bucket in ((40, 40), (0, 8), (8, 8), (9, 16), (16, 16), (17, 40), (3, 8)):
        inputs = _inputs(model, past, tokens=1 + past % 2)
        assert _which(model, lambda inputs=inputs, past=past: results.update({past: model.run(inputs)})) == bucket
        for name, want in zip(results[past], session.run(None, inputs), strict=True):
            np.testing.assert_allclose(results[past][name], want, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match=r"past is 41, but the artifact was built for 0\.\.40"):
        model.run(_inputs(model, 41))
    np.testing.assert_array_equal(model.run(_inputs(model, 3, 2))["logits"], results[3]["logits"])


def test_a_state_grows_through_the_buckets(artifact):
    free = sparsec.load(artifact)
    names = [i.name for i in free.inputs[1:]]
    bound = sparsec.load(artifact, timed=True, state={n.replace("past", "present"): n for n in names})
    caches = _inputs(free, 0)
    results, taken = {}, []
    for step in range(40):
        token = np.array([[step]])
        want = free.run({**caches, "token": token})
        taken.append(_which(bound, lambda token=token: results.update(bound.run({"token": token}))))
        np.testing.assert_array_equal(results["logits"], want["logits"])
        caches = {n: want[n.replace("past", "present")] for n in names}
    assert taken == [8] * 9 + [16] * 8 + [40] * 23
    with pytest.raises(InputError, match="has room for 40"):
        bound.run({"token": token})
    for name in names:
        bound.state_set(name, caches[name][:, :, :5])
    bound.run({"token": token})
    np.testing.assert_array_equal(bound.state_get(names[0])[:, :, :5], caches[names[0]][:, :, :5])


def test_outputs_stay_in_the_workspace_whatever_the_bucket(artifact):
    """A tensor that one program's run filled in is filled in again by another's."""
    model = sparsec.load(artifact)
    with RawContext(artifact) as c:
        assert c.create() == OK
        outputs = [c.ffi.new("DLTensor *") for _ in model.outputs]
        for past in (2, 30, 12, 5):
            inputs = _inputs(model, past)
            assert c.run(list(inputs.values()), outputs) == OK, c.message()
            found = np.frombuffer(c.ffi.buffer(outputs[0].data, 4 * 50), np.float32)
            np.testing.assert_array_equal(found, model.run(inputs)["logits"].reshape(-1))


def test_weights_and_kernels_are_there_once(decoder, artifact, tmp_path):
    alone = sparsec.build(decoder, output=tmp_path / "one.so", dims={**BUCKETS, "past": (0, 40)})
    one, three = read_manifest(alone), read_manifest(artifact)
    assert three["weights_bytes"] == one["weights_bytes"] and "buckets" not in one
    assert artifact.stat().st_size < 1.6 * alone.stat().st_size
    arenas = [bucket["arena_bytes"] for bucket in three["buckets"]]
    assert arenas == sorted(arenas) and arenas[-1] == one["arena_bytes"] == three["arena_bytes"]
    assert len(three["layers"]) == sum(bucket["layers"] for bucket in three["buckets"])


def test_several_dimensions_on_the_command_line(decoder, tmp_path):
    """Every combination; and inspect tells them."""
    (tmp_path / "m.onnx").write_bytes(decoder.SerializeToString())
    out = tmp_path / "m.so"
    arguments = ["build", f"{tmp_path}/m.onnx", "-o", f"{out}", "--dim", "tokens=1,4", "--dim", "past=0..8,16"]
    done = CliRunner().invoke(cli, [*arguments, "--dim", "batch=1"], catch_exceptions=False)
    assert done.exit_code == 0 and "programs for tokens<=1 past<=8, tokens<=1 past<=16" in done.output
    shown = CliRunner().invoke(cli, ["inspect", str(out)]).output
    assert "bucket   tokens up to 4, past up to 8: arena" in shown and "layer tokens<=1 past<=16" in shown
    model = sparsec.load(out, timed=True)
    model.run(_inputs(model, 3, tokens=4))
    assert CliRunner().invoke(cli, ["bench", str(out), "--per-layer", "--seconds", "0.01"]).exit_code == 0
    assert sparsec.load(out, timed=True).run(_inputs(model, 16))["logits"].shape == (1, 1, 50)


@pytest.mark.parametrize("sizes", [[], [8, 4], [4, 4], [0, 4], [(3, 2), 4], [4, (5, 6)]])
def test_lists_that_make_no_sense(decoder, sizes, tmp_path):
    with pytest.raises(ShapeError, match=r"--dim past: .* are no sizes in ascending order"):
        sparsec.build(decoder, output=tmp_path / "m.so", dims={**BUCKETS, "past": sizes})


def test_too_many(decoder, tmp_path):
    dims = {"batch": 1, "tokens": [1, 2, 3, 4, 5], "past": [1, 2, 3, 4]}
    with pytest.raises(ShapeError, match="20 combinations of sizes; at most 16"):
        sparsec.build(decoder, output=tmp_path / "m.so", dims=dims)
