"""The examples with a picture in and a picture out: what they find is what their pictures show."""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from generators.networks import NETWORKS
from public_models import PUBLIC_MODELS

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
pytest.importorskip("PIL", reason="pillow is not installed: the examples need it")


def run(script: str, monkeypatch, capsys, *arguments: str) -> list[str]:
    """The lines that the script prints."""
    path = EXAMPLES / script
    monkeypatch.setattr(sys, "argv", [str(path), "--seconds", "0.1", *arguments])
    monkeypatch.syspath_prepend(str(path.parent))
    runpy.run_path(str(path), run_name="__main__")
    return capsys.readouterr().out.splitlines()


def need(name: str) -> None:
    """Skips where the package that holds the model cannot be had."""
    try:
        PUBLIC_MODELS[name].path()
    except RuntimeError as error:
        pytest.skip(f"the model {name} is not there: {error}")


def test_detect(monkeypatch, capsys, tmp_path):
    from PIL import Image

    need("ddddocr_det")
    lines = run("detect/detect.py", monkeypatch, capsys, "-o", str(tmp_path / "boxes.png"))
    boxes = sorted([float(v) for v in line.split()[1:5]] for line in lines if line.startswith("box "))
    assert len(boxes) == 4, "one box for each character"
    for i, (left, top, right, bottom) in enumerate(boxes):  # they are 60 pixels apart
        assert 16 + 60 * i <= (left + right) / 2 <= 80 + 60 * i
        assert 20 < right - left < 64 and 20 < bottom - top < 80
    with Image.open(tmp_path / "boxes.png") as drawn:
        assert drawn.convert("RGB").getpixel((round(boxes[0][0]), round(boxes[0][3]) - 3))[0] > 180, "a red line"
    assert any("frames per second" in line for line in lines)


def test_ocr(monkeypatch, capsys, tmp_path):
    text = "Gate 17 at 12:40"
    need("ocr_rec")
    lines = run("ocr/ocr.py", monkeypatch, capsys, "--text", text, "-o", str(tmp_path / "read.png"))
    assert lines[0].startswith(f"read: {text} (")
    assert (tmp_path / "read.png").stat().st_size > 0
    assert any("frames per second" in line for line in lines)


def test_camera(monkeypatch, capsys):
    make, config = NETWORKS["yolov5s"]
    monkeypatch.setitem(NETWORKS, "yolov5s", (make, replace(config, size=64, width=8, depths=(1, 1, 1, 1))))
    lines = run("detect/camera.py", monkeypatch, capsys, "--threads", "2")
    assert "64 x 64, 2 thread(s)" in lines[0]
    assert sum("frames per second" in line for line in lines) == 2
