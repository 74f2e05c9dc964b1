"""onnxruntime's sum of embeddings, normalized."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx

from ..registry import expander

if TYPE_CHECKING:
    from ..expansion import Expansion


@expander("EmbedLayerNormalization", domain="com.microsoft")
def embed_layer_norm(e: Expansion) -> None:
    """com.microsoft EmbedLayerNormalization-1.

    (input_ids, segment_ids, word, position, segment, gamma, beta, mask, position_ids) -> (output, mask_index,
    embedding_sum); mask_index counts the ones of each row of the mask.
    """
    ids, segments, words, places, segment_table, gamma, beta, mask, position_ids = (e.input(i) for i in range(9))
    outputs = e.node.outputs + [""] * 3
    rows = e.op("Gather", [words, ids], axis=0)
    if position_ids:
        at = e.op("Gather", [places, position_ids], axis=0)
    else:
        ends = [e.ints([0]), e.ints([e.shape(ids)[1]]), e.ints([0])]
        at = e.op("Slice", [places, *ends])
    parts = [rows, at, *([e.op("Gather", [segment_table, segments], axis=0)] if segments else [])]
    total = parts[0]
    for number, part in enumerate(parts[1:], 2):
        total = e.op("Add", [total, part], outputs[2] if number == len(parts) else "")
    e.op("LayerNormalization", [total, gamma, beta], outputs[0], axis=-1, epsilon=e.attr("epsilon", 1e-12))
    if not outputs[1]:
        return
    if mask:
        counted = e.op("ReduceSum", [mask, e.ints([1])], keepdims=0)
        e.op("Cast", [counted], outputs[1], to=onnx.TensorProto.INT32)
    else:
        batch = e.ints([e.shape(ids)[0]])
        e.op("ConstantOfShape", [batch], outputs[1], value=np.zeros(1, np.int32))
