"""Reads a line of text: `python examples/ocr/ocr.py line.png -o read.png`; `--text "Total 12.50"` makes one.

The recognizer is PP-OCRv4's, for lines of 48 x 320 pixels. Writes the line with what was read below it. Needs Pillow
beside the compiler.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "benchmarks"))

from public_models import PUBLIC_MODELS

import sparsec

HEIGHT, WIDTH = 48, 320


def made_picture(text: str) -> Image.Image:
    """The text, dark on light."""
    font = ImageFont.load_default(32)
    left, top, right, bottom = font.getbbox(text)
    picture = Image.new("RGB", (int(right - left) + 24, int(bottom - top) + 18), (238, 236, 230))
    ImageDraw.Draw(picture).text((12 - left, 9 - top), text, (30, 30, 50), font=font)
    return picture


def alphabet(model: Path) -> list[str]:
    """Characters by class: the blank of CTC, those in the model's metadata, the space."""
    metadata = {p.key: p.value for p in onnx.load(model).metadata_props}
    return ["", *metadata["character"].splitlines(), " "]


def pixels(picture: Image.Image) -> np.ndarray:
    """float32 [1, 3, 48, 320] from -1 to 1, BGR, 0 where the line ends; longer lines are narrowed."""
    width = min(WIDTH, round(picture.width * HEIGHT / picture.height))
    line = np.asarray(picture.convert("RGB").resize((width, HEIGHT), Image.Resampling.BILINEAR), np.float32)
    out = np.zeros((1, 3, HEIGHT, WIDTH), np.float32)
    out[0, :, :, :width] = (line[:, :, ::-1] / 127.5 - 1).transpose(2, 0, 1)
    return out


def read(model, picture: Image.Image, characters: list[str]) -> tuple[str, float]:
    """The text and the mean probability of its characters (greedy CTC: no repetitions, no blanks)."""
    (scores,) = model.run({"x": pixels(picture)}).values()
    best = scores[0].argmax(1)
    kept = np.flatnonzero((best != 0) & np.r_[True, best[1:] != best[:-1]])
    sure = float(scores[0, kept, best[kept]].mean()) if len(kept) else 0.0
    return "".join(characters[i] for i in best[kept]), sure


def labelled(picture: Image.Image, text: str) -> Image.Image:
    """The line, and below it what was read."""
    font = ImageFont.load_default(20)
    out = Image.new("RGB", (max(picture.width, int(font.getlength(text)) + 16), picture.height + 32), "white")
    out.paste(picture.convert("RGB"), (0, 0))
    ImageDraw.Draw(out).text((8, picture.height + 4), text, (0, 110, 60), font=font)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", nargs="?", type=Path, help="of one line; default: one that is made")
    parser.add_argument("--text", default="Invoice 2041: 318.50", help="what the made picture says")
    parser.add_argument("-o", "--output", type=Path, default=Path("read.png"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long to time")
    options = parser.parse_args()
    picture = Image.open(options.picture) if options.picture else made_picture(options.text)
    source = PUBLIC_MODELS["ocr_rec"].path()
    characters = alphabet(source)
    with tempfile.TemporaryDirectory() as folder:
        artifact = sparsec.build(source, output=Path(folder) / "reader.so", shapes={"x": (1, 3, HEIGHT, WIDTH)})
        model = sparsec.load(artifact, threads=options.threads)
        text, sure = read(model, picture, characters)
        lines, begin = 0, time.perf_counter()
        while lines == 0 or time.perf_counter() < begin + options.seconds:
            read(model, picture, characters)
            lines += 1
        rate = lines / (time.perf_counter() - begin)
    labelled(picture, text).save(options.output)
    print(f"read: {text} (probability {sure:.2f}), drawn in {options.output}")
    print(f"{rate:.1f} frames per second on {options.threads} thread(s), from picture to text")


if __name__ == "__main__":
    main()
