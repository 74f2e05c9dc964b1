"""ResNet-50 (v1.5: strides in the 3x3 convolutions), batch norms folded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from .graph import Config, Writer, generate


@dataclass(frozen=True)
class ResNetConfig(Config):
    """`depths` is the number of blocks of each stage; `width` the stem's channels."""

    size: int = 224
    depths: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    classes: int = 1000


RESNET50 = ResNetConfig()


def resnet50(config: ResNetConfig) -> onnx.ModelProto:
    return generate(ResNet, config)


class ResNet(Writer):
    def __init__(self, config: ResNetConfig, ranges: dict[str, tuple[float, float]] | None) -> None:
        super().__init__(config, ranges)
        self.c = config

    def network(self) -> list[tuple[str, list[int | str]]]:
        c = self.c
        image = self.input("image", TensorProto.FLOAT, [c.batch, 3, c.size, c.size])
        x = self.op("Relu", [self.conv(image, "stem", (c.width, 3, 7), stride=2, prune=False)])
        x = self.op("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        channels = c.width
        for stage, depth in enumerate(c.depths):
            inner = c.width << stage
            for i in range(depth):
                x = self.block(x, f"stage{stage}.{i}", channels, inner, 2 if stage and not i else 1)
                channels = 4 * inner
        x = self.op("Flatten", [self.op("GlobalAveragePool", [x])])
        return [(self.linear(x, "head", c.classes, channels, prune=False), [c.batch, c.classes])]

    def block(self, x: str, name: str, channels: int, inner: int, stride: int) -> str:
        """1x1, 3x3, 1x1 and the way around them, which holds what the first of them reads: the quantized tensor."""
        gain = 2**0.5  # of relu
        y = self.op("Relu", [self.conv(x, f"{name}.a", (inner, channels, 1), gain=gain)])
        y = self.op("Relu", [self.conv(y, f"{name}.b", (inner, inner, 3), stride=stride, gain=gain)])
        y = self.settle(self.conv(y, f"{name}.c", (4 * inner, inner, 1)))
        if channels != 4 * inner:
            around = self.settle(self.conv(x, f"{name}.around", (4 * inner, channels, 1), stride=stride))
        else:
            around = self.quantize(x)
        return self.op("Relu", [self.op("Add", [y, around])])

    def feeds(self, batch: int = 1) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(1)
        return {"image": rng.standard_normal((batch, 3, self.c.size, self.c.size)).astype(np.float32)}
