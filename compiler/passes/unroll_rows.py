"""Images of few channels for the convolution that alone reads them: what a row of its window covers becomes channels.

Kernels multiply four channels of a position at once. With three channels a fourth of that is lost, with one three
fourths. The 7 columns by 3 channels of a row of ResNet's first window are 6 units instead of 7, the 6 by 3 of YOLOv5's
5 instead of 6. The window that is left has one column and no stride in a row, so that no phases are needed for it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm import relax

from ...codegen_templates.qplanes_move import can_unroll, unrolled
from ..graph import Dataflow, Graph, Layer, op_name


def unroll_rows(graph: Graph) -> Graph:
    """Replaces `to_planes` by `unroll_rows` and changes the convolution behind it."""
    main = Dataflow.of(graph)
    values, readers = main.values(), main.readers()
    layers: dict[str, Layer] = dict(graph.layers)
    fresh: dict[relax.Var, relax.Var] = {}
    bindings = []
    for var, value in main.bindings:
        layer = layers.get(op_name(value))
        only = readers.get(var, [])
        if layer is not None and layer.family == "to_planes" and len(only) == 1:
            image = _unrolled_image(var, only[0], values[only[0]], layers)
            if image is not None:
                reader = layers[op_name(values[only[0]])]
                attrs = {**layer.attrs, "window": reader.attrs["window"]}
                layers[op_name(value)] = replace(layer, family="unroll_rows", attrs=attrs)
                fresh[var] = image
                bindings.append((image, relax.op.call_dps_packed(op_name(value), value.args[1], out_ty=image.ty)))
                continue
        if layer is not None and layer.family == "qconv" and value.args[1].fields[0] in fresh:
            data, weights, *others = value.args[1].fields
            attrs = {**layer.attrs, "window": unrolled(layer.attrs["window"])}
            layers[op_name(value)] = replace(layer, attrs=attrs)
            operands = relax.Tuple([fresh[data], relax.const(_unrolled_weights(weights.value.numpy())), *others])
            types = list(var.ty.fields) if isinstance(var.ty, relax.TupleType) else var.ty
            value = relax.op.call_dps_packed(op_name(value), operands, out_ty=types)
        bindings.append((var, value))
    if not fresh:
        return graph
    return graph.with_main(Dataflow(main.params, bindings, main.result, main.attrs), layers)


def _unrolled_image(var: relax.Var, reader: relax.Var, value: relax.Expr, layers: dict[str, Layer]) -> relax.Var | None:
    """The image [N, columns of the window * C, H, output columns], where its reader is a convolution that gains."""
    layer = layers.get(op_name(value))
    if layer is None or layer.family != "qconv" or not value.args[1].fields[0].same_as(var):
        return None
    images, channels, height, width = list(var.ty.shape)
    window, columns = layer.attrs["window"], layer.attrs["out"][2]
    if not can_unroll(window, int(channels), int(width), columns):
        return None
    shape = [images, window.kernel[1] * int(channels), height, columns]
    return relax.Var(f"{var.name}_rows", relax.TensorType(shape, "uint8"))


def _unrolled_weights(weights: np.ndarray) -> np.ndarray:
    """[O, C, KH, KW] to [O, KW * C, KH, 1]."""
    O, C, rows, columns = weights.shape  # noqa: E741
    return np.ascontiguousarray(weights.transpose(0, 3, 1, 2).reshape(O, columns * C, rows, 1))
