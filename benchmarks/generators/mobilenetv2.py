"""MobileNetV2, width 1, batch norms folded. Depthwise convolutions are never pruned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from .graph import Config, Writer, generate


@dataclass(frozen=True)
class MobileNetConfig(Config):
    """`stages`: (expansion, channels, blocks, stride of the first block) of each stage."""

    size: int = 224
    stem: int = 32
    stages: tuple[tuple[int, int, int, int], ...] = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    features: int = 1280
    classes: int = 1000


MOBILENETV2 = MobileNetConfig()


def mobilenetv2(config: MobileNetConfig) -> onnx.ModelProto:
    return generate(MobileNet, config)


class MobileNet(Writer):
    def __init__(self, config: MobileNetConfig, ranges: dict[str, tuple[float, float]] | None) -> None:
        super().__init__(config, ranges)
        self.c = config

    def network(self) -> list[tuple[str, list[int | str]]]:
        c = self.c
        self.constant("zero", np.float32(0))
        self.constant("six", np.float32(6))
        image = self.input("image", TensorProto.FLOAT, [c.batch, 3, c.size, c.size])
        x = self.relu6(self.conv(image, "stem", (c.stem, 3, 3), stride=2, prune=False))
        channels = c.stem
        for stage, (expansion, out, blocks, stride) in enumerate(c.stages):
            for i in range(blocks):
                x = self.block(x, f"stage{stage}.{i}", channels, expansion, out, 1 if i else stride)
                channels = out
        x = self.relu6(self.conv(x, "features", (c.features, channels, 1), gain=2**0.5))
        x = self.op("Flatten", [self.op("GlobalAveragePool", [x])])
        return [(self.linear(x, "head", c.classes, c.features, prune=False), [c.batch, c.classes])]

    def relu6(self, x: str) -> str:
        return self.op("Clip", [x, "zero", "six"])

    def block(self, x: str, name: str, channels: int, expansion: int, out: int, stride: int) -> str:
        """Expand, depthwise, project; the input is added, as the expansion reads it, where the shapes are equal."""
        inner, gain = channels * expansion, 2**0.5
        y = x
        if expansion > 1:
            y = self.relu6(self.conv(x, f"{name}.expand", (inner, channels, 1), gain=gain))
        y = self.relu6(self.conv(y, f"{name}.depthwise", (inner, inner, 3), stride=stride, group=inner, gain=gain))
        y = self.settle(self.conv(y, f"{name}.project", (out, inner, 1)))
        return self.op("Add", [y, self.quantize(x)]) if stride == 1 and channels == out else y

    def feeds(self, batch: int = 1) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(1)
        return {"image": rng.standard_normal((batch, 3, self.c.size, self.c.size)).astype(np.float32)}
