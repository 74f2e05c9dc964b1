"""Optical character recognition: PP-OCRv4's recognizer on rendered lines, whose text is known exactly.

A line is a few random words and numbers in one of the fonts that matplotlib ships, with noise, on 48 x 320 pixels.
Calibration uses other words, other noise and another seed than the evaluation.
"""

from __future__ import annotations

import functools

import numpy as np
import onnx
from PIL import Image, ImageDraw, ImageFont
from public_models import PUBLIC_MODELS, PublicModel

NAME = "text_lines"
DIMS: dict[str, int] = {}
SHAPES = {"x": (1, 3, 48, 320)}
_FONTS = tuple(
    PublicModel(name, "matplotlib==3.10.7", f"matplotlib/mpl-data/fonts/ttf/{name}.ttf")
    for name in ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "DejaVuSans-Bold", "DejaVuSerif-Italic")
)
_EVALUATION, _CALIBRATION, _BATCH = 200, 96, 8
_HEIGHT, _WIDTH = 48, 320
_SYLLABLES = ("ba", "con", "der", "el", "fi", "gra", "hor", "in", "ju", "kel", "lo", "mi", "nor", "or", "pre", "qua",
              "ris", "sta", "tor", "un", "ver", "wa", "xi", "yon", "zer")  # fmt: skip
_OUTPUT = "softmax_11.tmp_0"


def model():
    return PUBLIC_MODELS["ocr_rec"].path()


def _line(rng: np.random.Generator) -> str:
    words = []
    while len(" ".join(words)) < 16:
        if rng.random() < 0.25:
            words.append(str(rng.integers(10, 100000)))
        else:
            word = "".join(rng.choice(_SYLLABLES, rng.integers(2, 4)))
            words.append(word.capitalize() if rng.random() < 0.3 else word)
    return " ".join(words)[:24].strip()


def _image(text: str, rng: np.random.Generator) -> np.ndarray:
    """[3, 48, 320] in [-1, 1]."""
    font = ImageFont.truetype(str(_FONTS[rng.integers(len(_FONTS))].path()), int(rng.integers(22, 34)))
    left, top, right, bottom = font.getbbox(text)
    image = Image.new("L", (right - left + 16, bottom - top + 12), int(rng.integers(200, 256)))
    ImageDraw.Draw(image).text((8 - left, 6 - top), text, int(rng.integers(0, 100)), font=font)
    width = min(_WIDTH, round(image.width * _HEIGHT / image.height))
    pixels = np.asarray(image.resize((width, _HEIGHT), Image.BILINEAR), np.float32)
    pixels = np.clip(pixels + rng.normal(0, 12, pixels.shape), 0, 255)
    out = np.zeros((3, _HEIGHT, _WIDTH), np.float32)
    out[:, :, :width] = pixels / 127.5 - 1
    return out


@functools.cache
def _lines(count: int, seed: int) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(seed)
    texts = [_line(rng) for _ in range(count)]
    return texts, np.stack([_image(text, rng) for text in texts])


def calibration() -> list[dict[str, np.ndarray]]:
    _, images = _lines(_CALIBRATION, 1)
    return [{"x": images[i : i + _BATCH]} for i in range(0, len(images), _BATCH)]


@functools.cache
def _alphabet() -> list[str]:
    metadata = {p.key: p.value for p in onnx.load(model()).metadata_props}
    return ["", *metadata["character"].splitlines(), " "]


def _decode(scores: np.ndarray) -> str:
    """The most likely characters without repetitions and blanks (CTC)."""
    best = scores.argmax(1)
    kept = best[np.r_[True, best[1:] != best[:-1]]]
    return "".join(_alphabet()[i] for i in kept if i)


def _distance(a: str, b: str) -> int:
    """Levenshtein's."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def metric(run) -> float:
    """1 - character error rate on 200 lines."""
    texts, images = _lines(_EVALUATION, 2)
    wrong = 0
    for i in range(0, len(images), _BATCH):
        for text, scores in zip(texts[i : i + _BATCH], run({"x": images[i : i + _BATCH]})[_OUTPUT], strict=True):
            wrong += _distance(text, _decode(scores))
    return 1 - wrong / sum(map(len, texts))
