"""Every network in every variant and form, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from .bert import BERT_BASE, MINILM_L6, Bert
from .graph import Config, Writer, generate
from .mlp import MLP, Mlp
from .mobilenetv2 import MOBILENETV2, MobileNet
from .resnet50 import RESNET50, ResNet
from .yolov5s import YOLOV5S, Yolo

NETWORKS: dict[str, tuple[Callable[[Any, Any], Writer], Config]] = {
    "bert_base": (Bert, BERT_BASE),
    "bert_base_384": (Bert, replace(BERT_BASE, seq=384)),
    "minilm_l6": (Bert, MINILM_L6),
    "mlp": (Mlp, MLP),
    "resnet50": (ResNet, RESNET50),
    "yolov5s": (Yolo, YOLOV5S),
    "yolov5s_maps": (Yolo, replace(YOLOV5S, decode=False)),
    "mobilenetv2": (MobileNet, MOBILENETV2),
}
PATTERNS: dict[str, dict[str, Any]] = {
    "dense": {},
    "2:4": {"sparsity": 0.5, "pattern": "2:4"},
    "unstructured_90": {"sparsity": 0.9, "pattern": "unstructured"},
    "1x4_80": {"sparsity": 0.8, "pattern": "1x4"},
}
VARIANTS: dict[str, dict[str, Any]] = {
    f"{kind}_{name}": {**pattern, "quantized": kind == "int8"}
    for kind in ("fp32", "int8")
    for name, pattern in PATTERNS.items()
}


def network(name: str, variant: str, form: str = "qdq", **changes: Any) -> onnx.ModelProto:
    """A model; `changes` are fields of its configuration (batch, seq, seed, …). The form matters to int8 ones only."""
    writer, config = NETWORKS[name]
    return generate(writer, replace(config, **VARIANTS[variant], form=form, **changes))


def inputs(name: str, batch: int = 1, **changes: Any) -> dict[str, np.ndarray]:
    """Seeded inputs of a network, by name."""
    writer, config = NETWORKS[name]
    return writer(replace(config, batch=batch, **changes), None).feeds(batch)
