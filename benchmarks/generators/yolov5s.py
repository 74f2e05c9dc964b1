"""YOLOv5s v6, batch norms folded; with its detection head, or ending at the three maps that enter it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from .graph import Config, Writer, generate

ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)  # pixels, for strides 8, 16, 32


@dataclass(frozen=True)
class YoloConfig(Config):
    """`width`: channels after the stem, 32 in the small model; `decode`: with the boxes computed, [batch, n, 85]."""

    size: int = 640
    width: int = 32
    depths: tuple[int, ...] = (1, 2, 3, 1)
    classes: int = 80
    decode: bool = True


YOLOV5S = YoloConfig()


def yolov5s(config: YoloConfig) -> onnx.ModelProto:
    return generate(Yolo, config)


class Yolo(Writer):
    def __init__(self, config: YoloConfig, ranges: dict[str, tuple[float, float]] | None) -> None:
        super().__init__(config, ranges)
        self.c = config

    def network(self) -> list[tuple[str, list[int | str]]]:
        c, w = self.c, self.c.width
        self.constant("twice", np.array([1, 1, 2, 2], np.float32))
        image = self.input("image", TensorProto.FLOAT, [c.batch, 3, c.size, c.size])
        x = self.silu(self.conv(image, "stem", (w, 3, 6), stride=2, pads=2, prune=False))
        maps = []
        for i, depth in enumerate(c.depths):
            x = self.layer(x, f"backbone{i}.down", (2 * w << i, w << i, 3), stride=2)
            x = self.c3(x, f"backbone{i}.c3", 2 * w << i, 2 * w << i, depth)
            maps.append(x)
        _, eighth, sixteenth, _ = maps
        last = self.layer(self.pyramid_pool(x, 16 * w), "neck0", (8 * w, 16 * w, 1))
        x = self.op("Concat", [self.upsample(last), sixteenth], axis=1)
        middle = self.layer(self.c3(x, "neck1.c3", 16 * w, 8 * w, 1, False), "neck1", (4 * w, 8 * w, 1))
        x = self.op("Concat", [self.upsample(middle), eighth], axis=1)
        small = self.c3(x, "neck2.c3", 8 * w, 4 * w, 1, False)
        x = self.layer(small, "neck3", (4 * w, 4 * w, 3), stride=2)
        medium = self.c3(self.op("Concat", [x, middle], axis=1), "neck3.c3", 8 * w, 8 * w, 1, False)
        x = self.layer(medium, "neck4", (8 * w, 8 * w, 3), stride=2)
        large = self.c3(self.op("Concat", [x, last], axis=1), "neck4.c3", 16 * w, 16 * w, 1, False)
        return self.head([small, medium, large])

    def silu(self, x: str) -> str:
        x = self.settle(x)
        return self.op("Mul", [x, self.op("Sigmoid", [x])])

    def layer(self, x: str, name: str, shape: tuple[int, int, int], stride: int = 1) -> str:
        return self.silu(self.conv(x, name, shape, stride=stride, gain=1.6))

    def c3(self, x: str, name: str, channels: int, out: int, depth: int, shortcut: bool = True) -> str:
        """Two 1x1 paths, one through bottlenecks, concatenated."""
        inner = out // 2
        y = self.layer(x, f"{name}.a", (inner, channels, 1))
        for i in range(depth):
            z = self.layer(y, f"{name}.{i}.a", (inner, inner, 1))
            z = self.layer(z, f"{name}.{i}.b", (inner, inner, 3))
            y = self.op("Add", [self.quantize(y), z]) if shortcut else z
        around = self.layer(x, f"{name}.b", (inner, channels, 1))
        return self.layer(self.op("Concat", [y, around], axis=1), f"{name}.c", (out, 2 * inner, 1))

    def pyramid_pool(self, x: str, channels: int) -> str:
        x = self.layer(x, "pool.a", (channels // 2, channels, 1))
        parts = [x]
        for _ in range(3):
            x = self.op("MaxPool", [x], kernel_shape=[5, 5], strides=[1, 1], pads=[2, 2, 2, 2])
            parts.append(x)
        return self.layer(self.op("Concat", parts, axis=1), "pool.b", (channels, 2 * channels, 1))

    def upsample(self, x: str) -> str:
        attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.op("Resize", [x, "", "twice"], **attributes)

    def head(self, maps: list[str]) -> list[tuple[str, list[int | str]]]:
        """The last convolutions (not pruned), and the boxes (centre, size, objectness, classes) in pixels."""
        c = self.c
        values = c.classes + 5
        outputs: list[tuple[str, list[int | str]]] = []
        if c.decode:
            self.constant("double", np.float32(2))
        batch = c.batch if isinstance(c.batch, int) else 0
        for i, x in enumerate(maps):
            side = c.size // (8 << i)
            out = self.conv(x, f"head{i}", (3 * values, 4 * c.width << i, 1), prune=False)
            if not c.decode:
                outputs.append((out, [c.batch, 3 * values, side, side]))
                continue
            split = self.constant(f"split{i}", np.array([batch, 3, values, side, side], np.int64))
            flat = self.constant(f"flat{i}", np.array([batch, 3 * side * side, values], np.int64))
            y = self.op("Transpose", [self.op("Reshape", [out, split])], perm=[0, 1, 3, 4, 2])
            outputs.append((self.op("Reshape", [self.boxes(self.op("Sigmoid", [y]), i, side), flat]), []))
        if c.decode:
            boxes = self.op("Concat", [name for name, _ in outputs], "boxes", axis=1)
            outputs = [(boxes, [c.batch, sum(3 * (c.size // (8 << i)) ** 2 for i in range(len(maps))), values])]
        return outputs

    def boxes(self, y: str, i: int, side: int) -> str:
        """Sigmoids [batch, 3, side, side, values] -> (2 y + cell - 0.5) stride, (2 y)^2 anchor, and the rest."""
        stride = np.float32(8 << i)
        rows, columns = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
        cells = np.stack([columns, rows], 2).astype(np.float32)[None, None] - np.float32(0.5)
        anchors = np.broadcast_to(np.array(ANCHORS[i], np.float32).reshape(1, 3, 1, 1, 2), (1, 3, side, side, 2))
        pieces = self.constant(f"pieces{i}", np.array([2, 2, self.c.classes + 1], np.int64))
        names = [f"centre{i}", f"extent{i}", f"scores{i}"]
        self.nodes.append(onnx.helper.make_node("Split", [y, pieces], names, name=f"split_boxes{i}", axis=4))
        moved = self.op("Add", [self.op("Mul", [names[0], "double"]), self.constant(f"cells{i}", cells)])
        centre = self.op("Mul", [moved, self.constant(f"stride{i}", stride)])
        grown = self.op("Pow", [self.op("Mul", [names[1], "double"]), "double"])
        extent = self.op("Mul", [grown, self.constant(f"anchors{i}", anchors)])
        return self.op("Concat", [centre, extent, names[2]], axis=4)

    def feeds(self, batch: int = 1) -> dict[str, np.ndarray]:
        return {"image": np.random.default_rng(1).random((batch, 3, self.c.size, self.c.size), np.float32)}
