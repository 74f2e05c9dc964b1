"""How many frames of a camera YOLOv5s takes a second: `python examples/detect/camera.py --threads 2`.

640 x 640, int8, four fifths of its weights zero in blocks of 1x4, as pruned for the speed of VNNI. The network comes
from the benchmarks' generator with random weights: its speed is that of a trained one, its boxes mean nothing, so none
are drawn. Timed is all that a camera needs: letterboxing, the network, suppression of doubles.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from boxes import corners, letterbox, suppress
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "benchmarks"))

from generators.networks import network

import sparsec

LEAST_SCORE, MOST_OVERLAP, MOST_BOXES = 0.25, 0.45, 300


def made_frame(number: int) -> Image.Image:
    """1280 x 720 of noise."""
    pixels = np.random.default_rng(number).integers(0, 256, (90, 160, 3), np.uint8)
    return Image.fromarray(pixels).resize((1280, 720), Image.Resampling.BILINEAR)


def checked(model, frame: Image.Image, size: int) -> int:
    """How many boxes are left."""
    pixels, _ = letterbox(frame, size)
    found = model.run({"image": pixels / 255})["boxes"][0]
    scores = found[:, 4] * found[:, 5:].max(1)
    best = np.argsort(-scores)[:MOST_BOXES]
    best = best[scores[best] > LEAST_SCORE]
    return len(suppress(corners(found[best, :4]), scores[best], MOST_OVERLAP))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", nargs="?", type=Path, help="of the camera; default: noise")
    parser.add_argument("--variant", default="int8_1x4_80", help="of the weights, as benchmarks/generate.py names them")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long to time")
    options = parser.parse_args()
    frames = [Image.open(options.picture)] if options.picture else [made_frame(i) for i in range(4)]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "yolov5s.onnx"
        onnx.save(network("yolov5s", options.variant, "qdq"), str(source))
        model = sparsec.load(sparsec.build(source, output=source.with_suffix(".so")), threads=options.threads)
        size = model.inputs[0].shape[2]
        checked(model, frames[0], size)
        count, begin = 0, time.perf_counter()
        while count < len(frames) or time.perf_counter() < begin + options.seconds:
            checked(model, frames[count % len(frames)], size)
            count += 1
        whole = count / (time.perf_counter() - begin)
        pixels = {"image": letterbox(frames[0], size)[0] / 255}
        count, begin = 0, time.perf_counter()
        while count == 0 or time.perf_counter() < begin + options.seconds:
            model.run(pixels)
            count += 1
        alone = count / (time.perf_counter() - begin)
    print(f"YOLOv5s {options.variant}, {size} x {size}, {options.threads} thread(s)")
    print(f"{whole:.1f} frames per second from camera picture to boxes")
    print(f"{alone:.1f} frames per second of the network alone")


if __name__ == "__main__":
    main()
