"""Every network in every variant and form, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import onnx

from .bert import BERT_BASE, MINILM_L6, bert
from .graph import Config
from .mlp import MLP, mlp
from .mobilenetv2 import MOBILENETV2, mobilenetv2
from .resnet50 import RESNET50, resnet50
from .yolov5s import YOLOV5S, yolov5s

NETWORKS: dict[str, tuple[Callable[[Any], onnx.ModelProto], Config]] = {
    "bert_base": (bert, BERT_BASE),
    "bert_base_384": (bert, replace(BERT_BASE, seq=384)),
    "minilm_l6": (bert, MINILM_L6),
    "mlp": (mlp, MLP),
    "resnet50": (resnet50, RESNET50),
    "yolov5s": (yolov5s, YOLOV5S),
    "yolov5s_maps": (yolov5s, replace(YOLOV5S, decode=False)),
    "mobilenetv2": (mobilenetv2, MOBILENETV2),
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
    make, config = NETWORKS[name]
    return make(replace(config, **VARIANTS[variant], form=form, **changes))
