"""onnxruntime's operators of decoders, with caches and rotary embeddings, against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import floats, node
from microsoft import build, check, ms
from relax_vm import run_model, run_onnxruntime

import sparsec
from sparsec.errors import InputError, UnsupportedError

HEADS, KV_HEADS, DEPTH, MOST = 4, 2, 16, 32  # onnxruntime wants a multiple of 16


def angles(turned=DEPTH):
    places = np.arange(MOST)[:, None] * 100.0 ** (-np.arange(turned // 2) / (turned // 2))
    return {"cos": np.cos(places).astype(np.float32), "sin": np.sin(places).astype(np.float32)}


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("turned", [DEPTH, 4])
@pytest.mark.parametrize("rank", [3, 4])
def test_rotary_embedding(interleaved, turned, rank):
    x = floats(2, 5, HEADS * DEPTH) if rank == 3 else floats(2, HEADS, 5, DEPTH)
    attrs = {"num_heads": HEADS, "rotary_embedding_dim": turned} if turned < DEPTH else {}
    for places in (np.array([3], np.int64), np.array([[0, 2, 4, 6, 8], [5, 4, 3, 2, 1]])):
        rotary = ms("RotaryEmbedding", "x p cos sin", interleaved=interleaved, **attrs)
        check([rotary], {"x": x, "p": places}, **angles(turned))


def group_query(past, queries, batch=1, packed=False, **attrs):
    width = HEADS * DEPTH
    inputs = {"q": floats(batch, queries, width + 2 * KV_HEADS * DEPTH if packed else width)}
    if not packed:
        inputs["k"] = floats(batch, queries, KV_HEADS * DEPTH, seed=1)
        inputs["v"] = floats(batch, queries, KV_HEADS * DEPTH, seed=2)
    inputs["pk"] = floats(batch, KV_HEADS, past, DEPTH, seed=3)
    inputs["pv"] = floats(batch, KV_HEADS, past, DEPTH, seed=4)
    inputs["lengths"] = np.full(batch, past + queries - 1, np.int32)
    names = ["q", *(["-", "-"] if packed else ["k", "v"]), "pk", "pv", "lengths", "total"]
    if attrs.get("do_rotary"):
        names += ["cos", "sin"]
    gqa = ms("GroupQueryAttention", " ".join(names), "y present_k present_v", num_heads=HEADS, kv_num_heads=KV_HEADS,
             **attrs)  # fmt: skip
    return gqa, inputs


@pytest.mark.parametrize(("past", "queries", "batch"), [(0, 5, 2), (6, 1, 3), (6, 4, 1)])
@pytest.mark.parametrize(
    "attrs",
    [{}, {"do_rotary": 1, "packed": True}, {"do_rotary": 1, "rotary_interleaved": 1}, {"local_window_size": 3},
     {"softcap": 5.0, "scale": 0.5}],
)  # fmt: skip
def test_group_query_attention(past, queries, batch, attrs):
    gqa, inputs = group_query(past, queries, batch, **attrs)
    constants = angles() if "do_rotary" in attrs else {}
    check([gqa], inputs, "y present_k present_v", total=np.array(past + queries, np.int32), **constants)


@pytest.mark.parametrize("heads", [1, HEADS])
def test_group_query_attention_with_a_bias(heads):
    gqa, inputs = group_query(6, 4)
    gqa.input.extend(["", "", "", "bias"])
    inputs["bias"] = floats(1, heads, 4, 10, seed=5)
    check([gqa], inputs, "y present_k present_v", total=np.array(10, np.int32))


def test_a_decoder_of_group_queries(tmp_path):
    """Prompt and tokens through the cache, bound as a state, lengths from a mask as exporters write them."""
    _, inputs = group_query(1, 1)
    nodes = [
        node("ReduceSum", "mask axis", "sum", keepdims=0),
        node("Sub", "sum one", "last"),
        node("Cast", "last", "lengths", to=6),
        node("Shape", "mask", "extents"),
        node("Gather", "extents second", "length"),
        node("Cast", "length", "total", to=6),
        group_query(1, 1, do_rotary=1)[0],
    ]
    one = np.array([1], np.int64)
    made = build(nodes, {**{n: inputs[n] for n in ("q", "k", "v", "pk", "pv")}, "mask": np.ones((1, 2), np.int64)},
                 "y present_k present_v", axis=one, one=np.array(1), second=np.array(1), **angles())  # fmt: skip
    for value in made.graph.input:
        dims = value.type.tensor_type.shape.dim
        axis = {"q": 1, "k": 1, "v": 1, "pk": 2, "pv": 2, "mask": 1}[value.name]
        dims[axis].dim_param = {"p": "past", "m": "total"}.get(value.name[0], "queries")
    dims = {"queries": (1, 4), "past": (0, 12), "total": (1, 16)}
    path = sparsec.build(made, output=tmp_path / "m.so", dims=dims)
    bound = sparsec.load(path, state={"present_k": "pk", "present_v": "pv"})
    free = sparsec.load(path)
    caches = {name: np.zeros((1, KV_HEADS, 0, DEPTH), np.float32) for name in ("pk", "pv")}
    for step, queries in enumerate((4, 1, 1, 3, 1)):
        past = caches["pk"].shape[2]
        new = {name: floats(1, queries, n * DEPTH, seed=10 * step + n + i)
               for i, (name, n) in enumerate((("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)))}  # fmt: skip
        new["mask"] = np.ones((1, past + queries), np.int64)
        want = run_onnxruntime(made, {**new, **caches})
        found = free.run({**new, **caches})
        for name, value in want.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(bound.run(new)["y"], found["y"])
        caches = {"pk": found["present_k"], "pv": found["present_v"]}
    with pytest.raises(InputError, match=r"seqlens_k.*outside"):
        free.run({**new, **caches, "mask": np.ones((1, 5), np.int64)})


@pytest.mark.parametrize(
    ("attrs", "reason"),
    [({"smooth_softmax": 1}, "smooth softmax"), ({"qk_output": 1}, "output_qk"),
     ({"local_window_size": 3, "sliding_window_cache": 1}, "size of the window|window's size")],
)  # fmt: skip
def test_refused(attrs, reason):
    gqa, inputs = group_query(6, 1, **attrs)
    gqa.name = "attend"
    made = build([gqa], inputs, total=np.array(7, np.int32))
    with pytest.raises(UnsupportedError, match=f"attend.*{reason}"):
        run_model(made, inputs)


@pytest.mark.parametrize("causal", [0, 1])
def test_multi_head_attention_with_a_cache(causal):
    inputs = {"q": floats(2, 3, 8), "k": floats(2, 3, 8, seed=1), "v": floats(2, 3, 8, seed=2),
              "pk": floats(2, 2, 5, 4, seed=3), "pv": floats(2, 2, 5, 4, seed=4)}  # fmt: skip
    attention = ms("MultiHeadAttention", "q k v b - - pk pv", "y a b2", num_heads=2, unidirectional=causal)
    check([attention], inputs, "y a b2", b=floats(24, seed=5))


def test_attention_to_another_run_s_keys():
    inputs = {"q": floats(2, 3, 8), "k": floats(2, 2, 7, 4, seed=1), "v": floats(2, 2, 7, 4, seed=2)}
    check([ms("MultiHeadAttention", "q k v", num_heads=2)], inputs)


@pytest.mark.parametrize("past", [0, 3])
def test_attention_of_one_tensor_with_a_cache(past):
    inputs = {"x": floats(2, 5, 8), "past": floats(2, 2, 2, past, 4, seed=3)}
    attention = ms("Attention", "x w b - past", "y present", num_heads=2, unidirectional=1)
    check([attention], inputs, "y present", w=floats(8, 24, seed=1), b=floats(24, seed=2))
