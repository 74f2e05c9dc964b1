"""A two-layer decoder with KV caches as exporters write them, 64 tokens, its caches bound as states."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from decoder import DEPTH, HEADS, HIDDEN, TOKENS, WORDS, Decoder

import sparsec

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))

from raw_context import RawContext


@pytest.fixture(scope="module")
def decoder():
    return Decoder().model()


@pytest.fixture(scope="module")
def names(decoder):
    return [i.name for i in decoder.graph.input if i.name.startswith("past")]


@pytest.fixture(scope="module")
def artifact(decoder, tmp_path_factory):
    dims = {"batch": (1, 2), "tokens": (1, 8), "past": (0, TOKENS)}
    return sparsec.build(decoder, output=tmp_path_factory.mktemp("decoder") / "decoder.so", dims=dims)


def _state(names):
    return {name.replace("past", "present"): name for name in names}


@pytest.mark.parametrize(("batch", "prompt", "threads"), [(1, 1, 1), (2, 8, 2)])
def test_sixty_four_tokens(decoder, names, artifact, batch, prompt, threads):
    """Equal to passing the caches by hand, and right; a prompt may come first, several tokens at once."""
    bound = sparsec.load(artifact, threads=threads, state=_state(names))
    free = sparsec.load(artifact)
    session = ort.InferenceSession(decoder.SerializeToString(), providers=["CPUExecutionProvider"])
    caches = {name: np.zeros((batch, HEADS, 0, DEPTH), np.float32) for name in names}
    token = np.random.default_rng(1).integers(0, WORDS, (batch, prompt))
    length = 0
    while length < TOKENS:
        length += token.shape[1]
        expected = session.run(None, {"token": token, **caches})
        unbound = free.run({"token": token, **caches})
        logits = bound.run({"token": token})["logits"]
        np.testing.assert_array_equal(logits, unbound["logits"])
        np.testing.assert_allclose(logits, expected[0], atol=1e-4 * np.abs(expected[0]).max())
        caches = {name: unbound[name.replace("past", "present")] for name in names}
        token = logits[:, -1:].argmax(-1)
        for name, value in caches.items():
            if length % 16 == 0:
                np.testing.assert_array_equal(bound.state_get(name), value)
    with pytest.raises(sparsec.SparsecError, match="has room for 64"):
        bound.run({"token": token})
    for name, value in caches.items():
        np.testing.assert_array_equal(bound.state_get(name), value)


def test_rows_are_appended_where_they_stay(names, artifact):
    """No run moves a cache or writes a row that is there, and what copies past and present takes no time."""
    with RawContext(artifact) as c:
        n = len(names)
        times = c.ffi.new("int64_t[]", 200)
        pairs = c.ffi.new("sparsec_state[]", [(1 + i, 1 + i) for i in range(n)])
        assert c.create(states=pairs, n_states=n, layer_nanoseconds=times) == 0
        token, logits, null = np.array([[3]], np.int64), np.empty((1, 1, WORDS), np.float32), c.ffi.NULL
        view, places = c.ffi.new("DLTensor *"), set()
        for step in range(5):
            assert c.run([token, *[null] * n], [logits, *[null] * n]) == 0
            assert c.call("state_get", c.context, 1, view) == 0
            places.add(int(c.ffi.cast("intptr_t", view.data)))
            assert [view.shape[i] for i in range(4)] == [1, HEADS, step + 1, DEPTH]
            rows = np.frombuffer(c.ffi.buffer(view.data, 4 * (step + 1) * HIDDEN), np.float32).reshape(step + 1, -1)
            assert (rows[:step] == 7).all() and not (rows[step] == 7).any()
            rows[step] = 7
        assert len(places) == 1
    manifest = sparsec.load(artifact).manifest
    copies = [
        i for i, layer in enumerate(manifest["layers"]) if layer["reason"] in ("past of the caller", "for the caller")
    ]
    assert len(copies) == 2 * n and not any(times[i] for i in copies)
    assert any(times[i] for i in range(len(manifest["layers"])))
    assert [row["output"] for row in manifest["caches"]] == list(_state(names))


def test_a_cache_is_cut_set_and_reset(names, artifact):
    """Going back to an earlier token, and to another sequence."""
    model = sparsec.load(artifact, state=_state(names))
    tokens = np.random.default_rng(2).integers(0, WORDS, (2, 8))
    model.run({"token": tokens[:, :5]})
    want = model.run({"token": tokens[:, 5:6]})["logits"]
    kept = {name: model.state_get(name) for name in names}
    for name in names:
        model.state_set(name, kept[name][:, :, :5])
    np.testing.assert_array_equal(model.run({"token": tokens[:, 5:6]})["logits"], want)
    for name in names:
        model.state_set(name, kept[name][1:, :, :5])  # one sequence of the two
    np.testing.assert_allclose(model.run({"token": tokens[1:, 5:6]})["logits"], want[1:], rtol=1e-5, atol=1e-6)
    model.state_reset()
    assert model.state_get(names[0]).shape[2] == 0
    model.run({"token": tokens[:, :5]})
    np.testing.assert_array_equal(model.run({"token": tokens[:, 5:6]})["logits"], want)


def test_bound_to_another_input(names, artifact):
    """Two buffers that change places: the cache of that input is not the output's."""
    state = {"present_key_0": "past_value_0", "present_value_0": "past_key_0"}
    crossed, free = sparsec.load(artifact, state=state), sparsec.load(artifact)
    rest = {name: np.zeros((1, HEADS, 0, DEPTH), np.float32) for name in names if name.endswith("1")}
    both = [np.zeros((1, HEADS, 0, DEPTH), np.float32)] * 2
    for token in ([[3]], [[9]], [[4]]):
        inputs = {"token": np.array(token), **rest}
        want = free.run({**inputs, "past_key_0": both[0], "past_value_0": both[1]})
        np.testing.assert_array_equal(crossed.run(inputs)["logits"], want["logits"])
        both = [want["present_value_0"], want["present_key_0"]]
        rest = {name: want[name.replace("past", "present")] for name in rest}
        crossed_present = crossed.state_get("past_key_0")
        np.testing.assert_array_equal(crossed_present, both[0])
