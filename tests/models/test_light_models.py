"""The nine architectures of the onnx package against onnxruntime."""

from __future__ import annotations

import onnx
import pytest
from light_models import LIGHT_MODELS, light_model

import sparsec
from sparsec.compiler.tools.verify import verify

_LARGE = {"vgg19", "bvlc_alexnet", "zfnet512"}


def test_all_nine_are_there():
    assert len(LIGHT_MODELS) == 9


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in _LARGE else ()) for n in LIGHT_MODELS])
def test_light_model(name, tmp_path):
    source = tmp_path / "model.onnx"
    onnx.save(light_model(name), str(source))
    report = verify(source, sparsec.build(source, output=tmp_path / "model.so"))
    assert report.ok, report.table()
    assert all(row.max_abs > 0 for row in report.rows), "constant weights?"
