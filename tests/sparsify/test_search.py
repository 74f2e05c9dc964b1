"""The closed loop on made-up curves, then on a network; resuming; what is written beside the model."""

import numpy as np
import pytest
from networks import correlated, perceptron

import sparsec
from sparsec.errors import SparsecError
from sparsec.sparsify import Pruning, Recipe, search
from sparsec.sparsify.search import Candidate, Ledger, fast_enough, within_drop


def curve(metric=None, speedup=None):
    """(function from sparsity to candidate, list of what was asked)."""
    asked = []

    def get(sparsity):
        asked.append(sparsity)
        made = [f(sparsity) if f else None for f in (metric, speedup)]
        return Candidate(sparsity, *made, 0.0, 0, "")

    return get, asked


def test_within_drop_finds_the_edge():
    get, asked = curve(metric=lambda s: 0.9 if s <= 0.62 else 0.5)
    found = within_drop(get, 0.9, 0.01)
    assert 0.6 <= found.sparsity <= 0.62
    assert len(set(asked)) <= 8


def test_within_drop_says_when_nothing_is():
    with pytest.raises(SparsecError, match=r"even at a sparsity of 0 the metric is 0\.5000, below 0\.8900"):
        within_drop(curve(metric=lambda s: 0.5)[0], 0.9, 0.01)


def test_fast_enough_finds_the_edge():
    found = fast_enough(curve(speedup=lambda s: 1 / (1 - s))[0], 3)
    assert 0.66 <= found.sparsity <= 0.69
    assert fast_enough(curve(speedup=lambda s: 4.0)[0], 3).sparsity == 0
    with pytest.raises(SparsecError, match=r"at 97% it is 2\.00x"):
        fast_enough(curve(speedup=lambda s: 2.0)[0], 3)


def test_ledger_resumes(tmp_path):
    made = []

    def make(sparsity):
        made.append(sparsity)
        (tmp_path / "c.onnx").write_bytes(b"")
        return Candidate(sparsity, 0.5, None, 0.1, 3, "c.onnx")

    first = Ledger(tmp_path).get(0.5, make)
    assert Ledger(tmp_path).get(0.5, make) == first
    assert made == [0.5]


DATA = [{"x": correlated(96, 32)}]


def agreement(run):
    """Share of the inputs whose class is the dense model's."""
    fresh = correlated(400, 32)[96:]
    import onnxruntime as ort

    dense = ort.InferenceSession(perceptron().SerializeToString(), providers=["CPUExecutionProvider"])
    return float(np.mean(run({"x": fresh})["scores"].argmax(1) == dense.run(None, {"x": fresh})[0].argmax(1)))


def test_max_drop(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "_ROUNDS", 4)
    files = {"output": tmp_path / "o.onnx", "report": tmp_path / "r.html", "masks": tmp_path / "m.npz",
             "write_recipe": tmp_path / "r.yaml"}  # fmt: skip
    done = sparsec.sparsify(perceptron(), data=DATA, max_drop=0.1, metric=agreement, work=tmp_path / "work", **files)
    assert done.metrics[0] == 1.0 and done.metrics[1] >= 0.9
    assert 0.2 < done.sparsity < 0.97
    assert [c.sparsity for c in done.candidates] == sorted(c.sparsity for c in done.candidates)
    assert max(c.sparsity for c in done.candidates if c.metric >= 0.9) == pytest.approx(done.sparsity, abs=0.01)
    text = files["report"].read_text()
    assert text.startswith("<!doctype html>") and "<svg" in text and "second" in text
    assert "http" not in text and "<script" not in text
    with np.load(files["masks"]) as masks:
        assert set(masks) == {"w1", "w2"} and masks["w1"].shape == (32, 48)
    again = Recipe.read(files["write_recipe"])
    assert set(again.pruning.layers) == {"first", "second"}
    repeated = sparsec.sparsify(perceptron(), data=DATA, recipe=again)
    assert repeated.network.model().SerializeToString(deterministic=True) == (files["output"]).read_bytes()


def test_a_stopped_run_goes_on(tmp_path):
    """Layers that are done are not pruned again, and the result is the same."""
    options = {"data": DATA, "recipe": Recipe(Pruning(0.5)), "work": tmp_path}

    def stop(what, done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sparsec.sparsify(perceptron(), on_progress=stop, **options)
    kept = list(tmp_path.rglob("layer_1.npz"))
    assert len(kept) == 1 and not list(tmp_path.rglob("layer_2.npz"))
    before = kept[0].stat().st_mtime_ns
    resumed = sparsec.sparsify(perceptron(), **options)
    assert kept[0].stat().st_mtime_ns == before
    fresh = sparsec.sparsify(perceptron(), data=DATA, recipe=Recipe(Pruning(0.5)))
    one, other = (d.network.model().SerializeToString(deterministic=True) for d in (resumed, fresh))
    assert one == other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_drop": 0.1}, "needs --metric"),
        ({"max_drop": 0.1, "speedup": 2, "metric": agreement}, "two ends of one curve"),
        ({"speedup": 2, "pattern": "2:4"}, "pattern 2:4 is fixed"),
        ({"sparsity": 0.5, "masks": "m.txt"}, "written as .npz or .safetensors"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(SparsecError, match=message):
        sparsec.sparsify(perceptron(), data=DATA, **options)


def test_masks_as_safetensors(tmp_path):
    from safetensors.numpy import load_file

    done = sparsec.sparsify(perceptron(), data=DATA, sparsity=0.5, masks=tmp_path / "m.safetensors")
    masks = load_file(tmp_path / "m.safetensors")
    assert {n: m.tobytes() for n, m in masks.items()} == {n: m.tobytes() for n, m in done.masks.items()}
