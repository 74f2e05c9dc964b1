"""Every public model: built, run without the compiler, and equal to onnxruntime."""

import pytest
from public_models import PUBLIC_MODELS

import sparsec
from sparsec.compiler.tools.verify import verify


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Builds each model once, on demand."""
    folder = tmp_path_factory.mktemp("artifacts")
    built = {}

    def get(name):
        if name not in built:
            model = PUBLIC_MODELS[name]
            output = folder / f"{name}.so"
            built[name] = sparsec.build(model.path(), output=output, shapes=model.shapes, dims=model.dims)
        return built[name]

    return get


@pytest.mark.parametrize("name", PUBLIC_MODELS)
def test_matches_onnxruntime(name, artifacts):
    report = verify(PUBLIC_MODELS[name].path(), artifacts(name))
    assert report.rows
    assert report.ok, [row for row in report.rows if not row.ok]


@pytest.mark.parametrize("name", ["smart_turn", "orientation"])
def test_matches_layer_by_layer(name, artifacts):
    report = verify(PUBLIC_MODELS[name].path(), artifacts(name), per_layer=True)
    assert len(report.rows) > 20
    assert report.ok, [row for row in report.rows if not row.ok]
