"""The benchmark's own machinery: engines in processes of their own, recorded rows, bars."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from bars import BARS, COSTS, Bar, judged
from bench import line, save
from cases import Case, Store, entrants, measure, record
from engines.client import PEERS, SPARSEC, EngineError, Process
from generators.graph import generate
from generators.mlp import Mlp, MlpConfig
from generators.networks import NETWORKS, VARIANTS
from tables import circumstances, filled

SMALL = MlpConfig(sizes=(32, 64, 16))


@pytest.fixture
def small(monkeypatch):
    """A case of a network that builds in no time, timed on sparsec and onnxruntime alone."""
    monkeypatch.setitem(NETWORKS, "small", (Mlp, SMALL))
    monkeypatch.setattr("cases.PEERS", PEERS[:1])
    return Case("small", "int8_1x4_80")


def test_engines_agree(small, tmp_path):
    notes: list[str] = []
    who = entrants(small, our_forms=("qdq", "integer"))
    assert [(e.engine.column, e.form) for e in who] == [
        ("sparsec", "qdq"), ("sparsec", "integer"), ("onnxruntime", "full_qdq"), ("onnxruntime", "qdq"),
    ]  # fmt: skip
    row = record(small, measure(small, Store(tmp_path), who, rounds=2, seconds=0, note=notes.append))
    assert not notes
    assert len(row["engines"]) == 4
    for timing in row["engines"]:
        assert 0 < timing["least_ms"] <= timing["ms"] and timing["calls"] == 4
        assert timing["difference"] < 0.05
    assert row["engines"][0]["build"]["size_mb"] > 0
    assert "small" in line(row)


def test_own_variant(small, tmp_path):
    row = record(small, measure(small, Store(tmp_path), entrants(small, False, own="int8_dense"), 1, 0))
    assert [t["engine"] for t in row["engines"]] == ["sparsec", "sparsec int8_dense"]
    assert "met" in judged(Bar("small", "int8_1x4_80", 1, 1, 0.0, (), "int8_dense"), row)


def test_a_failing_engine_says_why(small, tmp_path):
    model, feeds = tmp_path / "m.onnx", tmp_path / "x.npz"
    model.write_bytes(b"no model")
    np.savez(feeds, x=np.zeros((1, 32), np.float32))
    for engine in (SPARSEC, PEERS[0]):
        with pytest.raises(EngineError, match=f"{engine.column} ended: .*"):
            Process(engine, model, feeds, 1, 1)


def test_a_left_out_engine_leaves_the_others(small, tmp_path):
    store = Store(tmp_path)
    store.model(small, "full_qdq").write_bytes(b"no model")
    notes: list[str] = []
    timings = measure(small, store, entrants(small), 1, 0, note=notes.append)
    assert [(t.engine, t.form) for t in timings] == [("sparsec", "qdq"), ("onnxruntime", "qdq")]
    assert len(notes) == 1 and "onnxruntime ended" in notes[0]


def test_batches_enter_every_engine(small, tmp_path):
    case = Case("small", "fp32_2:4", batch=3)
    store = Store(tmp_path)
    timings = measure(case, store, entrants(case), 1, 0)
    assert [t.form for t in timings] == ["float", "float"]
    assert timings[1].difference < 1e-5
    with np.load(store.feeds(case)) as file:
        assert file["x"].shape == (3, 32)
    model = onnx.load(str(store.model(case, "qdq")))
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3


def row(**times):
    engines = [{"engine": name, "form": "qdq", "ms": ms} for name, ms in times.items()]
    return {"network": "mlp", "variant": "int8_dense", "batch": 1, "threads": 1, "engines": engines}


def test_bars_are_judged():
    bar = Bar("mlp", "int8_dense", 1, 1, 1.5)
    assert "  met " in judged(bar, row(sparsec=1.0, OpenVINO=1.5, onnxruntime=9.0))
    assert "  missed " in judged(bar, row(sparsec=1.0, OpenVINO=1.4, onnxruntime=9.0))
    assert "not measured" in judged(bar, row(sparsec=1.0))
    assert "not measured" in judged(Bar("mlp", "int8_dense", 1, 1, 1.5, ("DeepSparse",)), row(sparsec=1, OpenVINO=2))


def test_bars_name_networks_and_variants():
    for bar in BARS:
        assert bar.network in NETWORKS and bar.variant in VARIANTS and bar.own in ("", *VARIANTS)
    assert len({(bar.case, bar.against, bar.own) for bar in BARS}) == len(BARS)
    assert all(c.network in NETWORKS and c.variant in VARIANTS for c in COSTS)


def test_rows_replace_older_ones(tmp_path):
    path = tmp_path / "rows.json"
    save(path, [row(sparsec=1.0), {**row(sparsec=1.0), "threads": 2}])
    save(path, [row(sparsec=2.0)])
    kept = json.loads(path.read_text())
    assert [r["threads"] for r in kept] == [1, 2]
    assert kept[0]["engines"][0]["ms"] == 2.0


def test_equal_cases_share_their_files(small, tmp_path):
    store = Store(tmp_path)
    first = store.model(small, "qdq")
    written = first.stat().st_mtime_ns
    assert store.model(Case("small", "int8_1x4_80", threads=2), "qdq") == first
    assert first.stat().st_mtime_ns == written
    model = generate(Mlp, MlpConfig(sizes=SMALL.sizes, sparsity=0.8, pattern="1x4", quantized=True))
    assert first.read_bytes() == model.SerializeToString()


def test_tables_are_made_of_rows():
    rows = [row(sparsec=2.0, onnxruntime=4.0, DeepSparse=3.0), {**row(sparsec=1.0, OpenVINO=3.0), "threads": 2}]
    for r in rows:
        r["date"], r["isa"] = "2026-01-02", "avx512"
        r["engines"][1]["version"] = "1.2-build"
    text = filled("a\n<!-- made: speed -->\nold\n<!-- end -->\nz\n<!-- made: circumstances -->\n<!-- end -->\n", rows)
    assert "| MLP 1024-4096-4096-1024 | int8 | 2 | 4 |  | 3 | 1.50 | 3.00 |" in text
    assert "old" not in text and text.startswith("a\n<!-- made: speed -->\n| network") and "\nz\n" in text
    assert filled(text, rows) == text
    assert circumstances(rows) == "onnxruntime 1.2, OpenVINO 1.2; 2026-01-02."
