"""Pictures for detectors of YOLO's kind and what they find: letterboxing, suppression of doubles, drawing."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

GREY = 114


def letterbox(picture: Image.Image, size: int) -> tuple[np.ndarray, float]:
    """float32 [1, 3, size, size], RGB from 0 to 255, grey where the picture ends; and the scale that it has there."""
    scale = min(size / picture.width, size / picture.height)
    resized = picture.convert("RGB").resize(
        (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BILINEAR
    )
    canvas = np.full((size, size, 3), GREY, np.uint8)
    canvas[: resized.height, : resized.width] = np.asarray(resized)
    return np.ascontiguousarray(canvas.transpose(2, 0, 1), np.float32)[None], scale


def corners(boxes: np.ndarray) -> np.ndarray:
    """(centre x, centre y, width, height) to (left, top, right, bottom)."""
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)


def suppress(boxes: np.ndarray, scores: np.ndarray, most_overlap: float) -> list[int]:
    """Boxes to keep, best first: none overlaps a better one by more than that part of their union."""
    order, kept = np.argsort(-scores), []
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    while len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        low, high = np.maximum(boxes[best, :2], boxes[order, :2]), np.minimum(boxes[best, 2:], boxes[order, 2:])
        common = np.prod(np.clip(high - low, 0, None), 1)
        order = order[common <= most_overlap * (areas[best] + areas[order] - common)]
    return kept


def draw(picture: Image.Image, boxes: np.ndarray, scores: np.ndarray) -> Image.Image:
    """A copy with the boxes and their scores."""
    drawn = picture.convert("RGB")
    pen = ImageDraw.Draw(drawn)
    for box, score in zip(boxes, scores, strict=True):
        pen.rectangle([float(v) for v in box], outline=(220, 30, 30), width=2)
        pen.text((float(box[0]) + 3, float(box[1]) + 1), f"{score:.2f}", fill=(220, 30, 30))
    return drawn
