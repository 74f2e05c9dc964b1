"""One artifact at many sizes: every one as onnxruntime computes it, the same bytes at any number of threads."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from public_models import PUBLIC_MODELS

import sparsec
from sparsec.compiler.tools.verify import FLOAT_TOLERANCE, compare, reference
from sparsec.errors import InputError, UnsupportedError
from sparsec.runtime_stub.inputs import random_inputs


class Case(NamedTuple):
    bounds: dict[str, Any]
    sizes: tuple[dict[str, int], ...]
    outside: tuple[dict[str, int], ...]


CASES = {
    "minilm": Case(
        {"dims": {"batch_size": (1, 8), "sequence_length": (1, 128)}},
        tuple({"batch_size": b, "sequence_length": s} for b, s in ((1, 1), (1, 128), (3, 17), (8, 5), (8, 128))),
        tuple({"batch_size": b, "sequence_length": s} for b, s in ((9, 5), (1, 129), (0, 5), (1, 0))),
    ),
    "ocr_rec": Case(
        {"shapes": {"x": (1, 3, 48, (32, 320))}},
        (
            {"p2o.DynamicDimension.1": 32},
            {"p2o.DynamicDimension.1": 47},
            {"p2o.DynamicDimension.1": 200},
            {"p2o.DynamicDimension.1": 320},
        ),
        ({"p2o.DynamicDimension.1": 31}, {"p2o.DynamicDimension.1": 321}),
    ),
    "mtcnn_pnet": Case(
        {"shapes": {"input_1": (1, (12, 300), (12, 300), 3)}},
        ({"M1": 12, "M2": 12}, {"M1": 57, "M2": 131}, {"M1": 300, "M2": 299}),
        ({"M1": 11, "M2": 50}, {"M1": 50, "M2": 301}),
    ),
}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Builds each model once, on demand."""
    built = {}

    def get(name):
        if name not in built:
            output = tmp_path_factory.mktemp(name) / "model.so"
            built[name] = sparsec.build(PUBLIC_MODELS[name].path(), output=output, **CASES[name].bounds)
        return built[name]

    return get


def identity(sizes):
    return "x".join(map(str, sizes.values()))


@pytest.mark.parametrize(
    ("name", "sizes"),
    [pytest.param(n, s, id=f"{n}-{identity(s)}") for n, case in CASES.items() for s in case.sizes],
)
def test_size(name, sizes, artifacts):
    with sparsec.load(artifacts(name)) as one, one.new_context(threads=2) as two:
        inputs = random_inputs(one.manifest, dims=sizes)
        got, again = one.run(inputs), two.run(inputs)
    want = reference(onnx.load(str(PUBLIC_MODELS[name].path())), inputs, list(got))
    rows = [compare(output, got[output], want[output], FLOAT_TOLERANCE) for output in want]
    assert all(row.ok for row in rows), rows
    for output, array in got.items():
        assert array.tobytes() == again[output].tobytes(), output


@pytest.mark.parametrize("name", CASES)
def test_sizes_in_any_order(name, artifacts):
    """Nothing of a larger run is left for a smaller one to read."""
    with sparsec.load(artifacts(name)) as model:
        cases = [random_inputs(model.manifest, dims=sizes) for sizes in CASES[name].sizes]
        first = [model.run(inputs) for inputs in cases]
        second = [model.run(inputs) for inputs in reversed(cases)][::-1]
    for one, two in zip(first, second, strict=True):
        for output in one:
            np.testing.assert_array_equal(one[output], two[output])


@pytest.mark.parametrize(
    ("name", "sizes"),
    [pytest.param(n, s, id=f"{n}-{identity(s)}") for n, case in CASES.items() for s in case.outside],
)
def test_outside_of_the_bounds(name, sizes, artifacts):
    inside = CASES[name].sizes[0]
    with sparsec.load(artifacts(name)) as model:
        bounds = {d["name"]: (d["lower"], d["upper"]) for d in model.manifest["dims"]}
        (wrong,) = (n for n, size in sizes.items() if not bounds[n][0] <= size <= bounds[n][1])
        before = model.run(random_inputs(model.manifest, dims=inside))
        with pytest.raises(InputError, match=re.escape(str(sizes[wrong]))) as caught:
            model.run(random_inputs(model.manifest, dims=sizes))
        assert str(bounds[wrong][1]) in str(caught.value)
        after = model.run(random_inputs(model.manifest, dims=inside))
    for output, array in before.items():
        np.testing.assert_array_equal(array, after[output])


def test_inputs_must_agree(artifacts):
    with sparsec.load(artifacts("minilm")) as model:
        inputs = random_inputs(model.manifest, dims={"batch_size": 2, "sequence_length": 7})
        inputs["attention_mask"] = np.ones((2, 8), np.int64)
        with pytest.raises(InputError, match="sequence_length"):
            model.run(inputs)


def test_a_range_that_the_model_cannot_take(tmp_path):
    """512 position embeddings: a longer sequence has none."""
    with pytest.raises(UnsupportedError, match="sequence_length compare: narrow their ranges"):
        sparsec.build(
            PUBLIC_MODELS["minilm"].path(),
            output=tmp_path / "model.so",
            dims={"batch_size": 1, "sequence_length": (1, 1024)},
        )
    assert not list(tmp_path.iterdir())
