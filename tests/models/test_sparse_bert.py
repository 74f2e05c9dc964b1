"""A small BERT, pruned and quantized in every form: kernels chosen as meant, results as onnxruntime's."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from generators.bert import BertConfig, bert

import sparsec
from sparsec.compiler.target import resolve
from sparsec.compiler.tools.verify import verify
from sparsec.runtime_stub.inputs import random_inputs

SMALL = BertConfig(layers=2, hidden=96, heads=3, inner=160, vocabulary=100, seq=37)
VARIANTS = {
    "float_dense": {},
    "float_unstructured": {"sparsity": 0.9, "pattern": "unstructured"},
    "float_2:4": {"pattern": "2:4"},
    "int8_dense": {"quantized": True},
    "int8_per_channel": {"quantized": True, "per_channel": True},
    "int8_1x4": {"sparsity": 0.8, "pattern": "1x4", "quantized": True},
    "int8_unstructured": {"sparsity": 0.9, "pattern": "unstructured", "quantized": True},
    "integer_1x4": {"sparsity": 0.8, "pattern": "1x4", "quantized": True, "form": "integer"},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Each variant's model and artifact, built on demand."""
    folder = tmp_path_factory.mktemp("bert")
    made = {}

    def get(name):
        if name not in made:
            source = folder / f"{name.replace(':', '')}.onnx"
            onnx.save(bert(replace(SMALL, **VARIANTS[name])), str(source))
            made[name] = source, sparsec.build(source, output=source.with_suffix(".so"))
        return made[name]

    return get


@pytest.mark.parametrize("name", VARIANTS)
def test_matches_onnxruntime(models, name):
    report = verify(*models(name), per_layer=VARIANTS[name].get("quantized", False))
    assert report.rows
    assert report.ok, [row for row in report.rows if not row.ok]


@pytest.mark.parametrize("name", VARIANTS)
def test_threads_give_the_same_bytes(models, name):
    _, artifact = models(name)
    results = []
    for threads in (1, 2, 5):
        with sparsec.load(artifact, threads=threads) as model:
            results.append(model.run(random_inputs(model.manifest)))
    for other in results[1:]:
        for key, value in results[0].items():
            assert value.tobytes() == other[key].tobytes()


@pytest.mark.skipif(resolve("native").isa != "avx512", reason="this CPU has no AVX-512 VNNI")
@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        ("float_unstructured", {"spmm_f32_avx512": 12}),
        ("int8_1x4", {"spmm_u8s8_avx512": 12, "attention_u8_avx512": 2}),
        ("integer_1x4", {"spmm_u8s8_avx512": 12, "attention_u8_avx512": 2}),
        ("int8_dense", {"dense_u8s8_avx512": 13, "attention_u8_avx512": 2}),
    ],
)
def test_kernels_are_chosen(models, name, kernels):
    _, artifact = models(name)
    with sparsec.load(artifact) as model:
        found = Counter(layer["kernel"] for layer in model.manifest["layers"])
        assert {k: found[k] for k in kernels} == kernels
        reasons = [layer["reason"] for layer in model.manifest["layers"] if layer["kernel"].startswith("spmm")]
        assert all("zero" in reason for reason in reasons)


@pytest.mark.parametrize("name", ["float_unstructured", "int8_1x4"])
def test_any_number_of_tokens(name, tmp_path):
    """Quantized results are compared with the same model built for that size alone: bit for bit."""
    source = tmp_path / "model.onnx"
    onnx.save(bert(replace(SMALL, **VARIANTS[name], batch="batch", seq="seq")), str(source))
    artifact = sparsec.build(source, output=tmp_path / "any.so", dims={"batch": (1, 3), "seq": (1, 50)})
    with sparsec.load(artifact) as model:
        for batch, seq in ((1, 1), (2, 16), (3, 50), (1, 37)):
            inputs = random_inputs(model.manifest, dims={"batch": batch, "seq": seq})
            got = model.run(inputs)
            one = sparsec.build(source, output=tmp_path / "one.so", dims={"batch": batch, "seq": seq})
            with sparsec.load(one) as fixed:
                want = fixed.run(inputs)
            for key, value in got.items():
                np.testing.assert_allclose(value, want[key], rtol=0, atol=1e-4 * np.abs(want[key]).max())
            if name.startswith("float"):
                session = ort.InferenceSession(str(source))
                for key, value in zip(got, session.run(list(got), inputs), strict=True):
                    np.testing.assert_allclose(got[key], value, rtol=0, atol=1e-4 * np.abs(value).max())
