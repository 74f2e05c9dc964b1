"""A multilayer perceptron 1024-4096-4096-1024 with ReLU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from .graph import Config, Writer, generate


@dataclass(frozen=True)
class MlpConfig(Config):
    sizes: tuple[int, ...] = (1024, 4096, 4096, 1024)


MLP = MlpConfig()


def mlp(config: MlpConfig) -> onnx.ModelProto:
    return generate(Mlp, config)


class Mlp(Writer):
    def __init__(self, config: MlpConfig, ranges: dict[str, tuple[float, float]] | None) -> None:
        super().__init__(config, ranges)
        self.c = config

    def network(self) -> list[tuple[str, list[int | str]]]:
        c = self.c
        x = self.input("x", TensorProto.FLOAT, [c.batch, c.sizes[0]])
        for i, (k, out) in enumerate(zip(c.sizes, c.sizes[1:], strict=False)):
            x = self.linear(x if not i else self.op("Relu", [x]), f"layer{i}", out, k, gain=2**0.5 if i else 1.0)
        return [(x, [c.batch, c.sizes[-1]])]

    def feeds(self, batch: int = 1) -> dict[str, np.ndarray]:
        return {"x": np.random.default_rng(1).standard_normal((batch, self.c.sizes[0])).astype(np.float32)}
