"""Draws boxes around the characters in a picture: `python examples/detect/detect.py photo.png -o boxes.png`.

The detector is ddddocr's, of YOLOX's kind, 416 x 416; without a picture one is made. Needs Pillow beside the compiler.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from boxes import corners, draw, letterbox, suppress
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "benchmarks"))

from public_models import PUBLIC_MODELS

import sparsec

SIZE = 416
STRIDES = (8, 16, 32)
LEAST_SCORE, MOST_OVERLAP = 0.25, 0.45


def made_picture(text: str = "KR7M") -> Image.Image:
    """Characters over lines, every one at another height and angle."""
    picture = Image.new("RGB", (60 * len(text) + 40, 120), (236, 232, 224))
    pen = ImageDraw.Draw(picture)
    for i in range(5):
        pen.line((0, 20 * i, picture.width, 110 - 25 * i), fill=(190, 200, 210), width=2)
    font = ImageFont.load_default(52)
    for i, character in enumerate(text):
        tile = Image.new("L", (64, 72))
        ImageDraw.Draw(tile).text((12, 4), character, 255, font=font)
        tile = tile.rotate((-14, 9, -6, 12)[i % 4], resample=Image.Resampling.BICUBIC)
        picture.paste((40 + 30 * (i % 3), 50, 110), (16 + 60 * i, 20 + 12 * (i % 2)), tile)
    return picture


def decoded(output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[n, 6] of a YOLOX head without decoding (Ge et al., 2021) to corners in the network's pixels, and scores."""
    sides = [SIZE // stride for stride in STRIDES]
    grid = np.concatenate([np.stack(np.meshgrid(np.arange(n), np.arange(n)), -1).reshape(-1, 2) for n in sides])
    stride = np.repeat(STRIDES, [n * n for n in sides])[:, None]
    centres, extents = (output[:, :2] + grid) * stride, np.exp(output[:, 2:4]) * stride
    return corners(np.concatenate([centres, extents], 1)), output[:, 4] * output[:, 5]


def detect(model, picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """(corners in the picture's pixels, scores), best first."""
    pixels, scale = letterbox(picture, SIZE)
    output = model.run({"images": pixels[:, ::-1]})["output"][0]  # the network takes BGR
    boxes, scores = decoded(output)
    likely = scores > LEAST_SCORE
    boxes, scores = boxes[likely], scores[likely]
    kept = suppress(boxes, scores, MOST_OVERLAP)
    return boxes[kept] / scale, scores[kept]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", nargs="?", type=Path, help="default: one that is made")
    parser.add_argument("-o", "--output", type=Path, default=Path("boxes.png"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long to time")
    options = parser.parse_args()
    picture = Image.open(options.picture) if options.picture else made_picture()
    with tempfile.TemporaryDirectory() as folder:
        artifact = sparsec.build(PUBLIC_MODELS["ddddocr_det"].path(), output=Path(folder) / "detector.so")
        model = sparsec.load(artifact, threads=options.threads)
        boxes, scores = detect(model, picture)
        frames, end = 0, time.perf_counter() + options.seconds
        begin = time.perf_counter()
        while frames == 0 or time.perf_counter() < end:
            detect(model, picture)
            frames += 1
        rate = frames / (time.perf_counter() - begin)
    for box, score in zip(boxes, scores, strict=True):
        print("box", *(f"{v:.0f}" for v in box), f"score {score:.2f}")
    draw(picture, boxes, scores).save(options.output)
    print(f"{len(boxes)} found, drawn in {options.output}")
    print(f"{rate:.1f} frames per second on {options.threads} thread(s), from picture to boxes")


if __name__ == "__main__":
    main()
