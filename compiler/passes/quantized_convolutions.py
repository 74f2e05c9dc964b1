"""Convolutions of quantized images, and all between them, in integers.

`conv2d(dequantize(q), dequantize(constant))` and what follows it, up to the next quantizations, becomes one layer whose
outputs are 8-bit images, and floats only where something else reads them. A quantization commutes with taking maxima,
concatenating and repeating, so these are done on 8-bit images too. Shapes and types stay as ONNX has them; how images
lie in memory is decided by plan_planes.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import tvm
import tvm_ffi
from tvm import relax

from ...codegen_templates.epilogue import EpilogueOp
from ...codegen_templates.pattern import MAX_ROWS
from ...codegen_templates.qconv import STATEMENTS, FloatOutput, can_follow_added, takes_tensor
from ...codegen_templates.qplanes import GROUP, Geometry
from ...codegen_templates.qplanes_move import can_pool
from ..graph import LAYER_PREFIX, REPEAT, Dataflow, Graph, Layer, constant, free_vars, op_name
from .fuse_layers import epilogue_op, matrix_transpose
from .layer_anchor import Values

Wanted: TypeAlias = tuple[float, int]
"""Scale and zero point of u8."""
Image: TypeAlias = tuple[relax.Var, Wanted]
"""A float variable as u8, or an 8-bit one as it is."""


def quantized_convolutions(graph: Graph) -> Graph:
    """Forms the layers `qconv`, `qpool`, `qconcat`, `qrepeat`, and `to_planes` and `from_planes` at their borders."""
    return _Former(graph).run()


@dataclass
class _Chain:
    """A convolution and what is computed on its sums; `outputs` are what is wanted of the last value."""

    data: Image
    zero_point: int
    weights: np.ndarray
    window: Geometry
    scale: np.ndarray
    """float64 [O]: of the exact sums."""
    last: relax.Var
    bias: np.ndarray
    """int32 [O]."""
    epilogue: list[EpilogueOp] = field(default_factory=list)
    operands: list[Any] = field(default_factory=list)
    """Constants, float variables, and images."""
    added: _Chain | None = None
    """The convolution of the epilogue's `add_convolution`."""


class _Former:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.main = Dataflow.of(graph)
        self.values: Values = self.main.values()
        self.uses: Mapping[relax.Var, int] = self.main.uses()
        self.readers = self.main.readers()
        self.chains: dict[relax.Var, _Chain] = {}
        self.inside: set[relax.Var] = set()
        self.wanted: dict[relax.Var, list[Wanted]] = {}
        """What is wanted as 8-bit images of a float or 8-bit variable."""
        self.moved: set[relax.Var] = set()
        """What a chain's own layer does, and chains that another one's does."""
        self.layers: dict[str, Layer] = dict(graph.layers)
        self.made: dict[tuple[relax.Var, Wanted], relax.Var] = {}
        self.bindings: list[tuple[relax.Var, relax.Expr]] = []

    def run(self) -> Graph:
        for var, value in self.main.bindings:
            chain = self._anchor(var, value) if var not in self.inside else None
            if chain is not None:
                self._grow(chain)
                self.chains[chain.last] = chain
        if not self.chains:
            return self.graph
        for chain in self.chains.values():
            for reader in self.readers.get(chain.last, ()):
                parameters = self._parameters_of(reader)
                if parameters is not None:
                    self._want(chain.last, parameters)
            self._want(*chain.data)
            for operand in chain.operands:
                if isinstance(operand, tuple):
                    self._want(*operand)
        for chain in self.chains.values():
            self._take_added(chain)
        for var in self.main.params:
            self._images_of(var)
        for var, value in self.main.bindings:
            if var in self.moved:
                continue
            if var in self.chains:
                self._emit_chain(var, self.chains[var])
            elif not self._from_planes(var, value):
                self.bindings.append((var, value))
            self._images_of(var)
        main = Dataflow(self.main.params, self.bindings, self.main.result, self.main.attrs)
        return self.graph.with_main(main.live(), self.layers)

    # --- finding ------------------------------------------------------------------------------------------------------

    def _anchor(self, var: relax.Var, call: relax.Expr) -> _Chain | None:
        if op_name(call) != "relax.nn.conv2d" or (call.attrs.data_layout, call.attrs.kernel_layout) != ("NCHW", "OIHW"):
            return None
        data = self._quantized(call.args[0])
        weights = _weights(call.args[1], self.values)
        shape, out = _image(call.args[0]), _image(var)
        if data is None or weights is None or shape is None or out is None:
            return None
        array, weight_scale = weights
        array = ungrouped(array, int(call.attrs.groups))
        window = Geometry(
            array.shape[2:], _ints(call.attrs.strides), _ints(call.attrs.dilation), _ints(call.attrs.padding)
        )
        image, (x_scale, zero) = data
        scale = np.float64(x_scale) * weight_scale.astype(np.float64)
        return _Chain(image, zero, array, window, scale, var, np.zeros(len(array), np.int32))

    def _quantized(self, expr: relax.Expr) -> tuple[Image, Wanted] | None:
        """(the image, scale and zero point that give back numbers) of a dequantized one.

        The scale need not be that of the quantization: integer forms of products have it elsewhere.
        """
        value = self.values.get(expr) if isinstance(expr, relax.Var) else None
        if value is None or op_name(value) != "relax.dequantize" or not isinstance(value.args[0], relax.Var):
            return None
        data = value.args[0]
        wanted = _parameters(value, str(data.ty.dtype), self.values)
        if wanted is None or _image(data) is None:
            return None
        made = self._parameters_of(data)
        if made is not None and made[1] == wanted[1]:
            return (self.values[data].args[0], made), wanted
        return (data, wanted), wanted

    def _parameters_of(self, var: relax.Var) -> Wanted | None:
        """Scale and zero point, where the variable is a quantization of a float."""
        value = self.values.get(var)
        if value is None or op_name(value) != "relax.quantize" or not isinstance(value.args[0], relax.Var):
            return None
        return _parameters(value, str(var.ty.dtype), self.values)

    def _grow(self, chain: _Chain) -> None:
        while True:
            reader = self._only_reader(chain.last)
            if reader is None or not self._take(chain, reader):
                return

    def _only_reader(self, var: relax.Var) -> relax.Var | None:
        """What alone reads a variable, and is in no chain yet."""
        readers = self.readers.get(var, [])
        return readers[0] if self.uses[var] == 1 == len(readers) and readers[0] not in self.inside else None

    def _take(self, chain: _Chain, reader: relax.Var) -> bool:
        """Whether the chain takes the reader of its last value, and does."""
        value, last = self.values[reader], chain.last
        if op_name(value) == "relax.quantize":
            return self._take_round_trip(chain, reader)
        if op_name(value) == "relax.add" and not chain.epilogue:
            steps = self._integer_bias(value, chain)
            if steps is not None:
                chain.bias = chain.bias + steps
                self._extend(chain, reader)
                return True
        if op_name(value) == "relax.add":
            left = isinstance(value.args[0], relax.Var) and value.args[0].same_as(last)
            other = value.args[1] if left else value.args[0]
            source = self._quantized(other)
            if source is not None and tvm_ffi.structural_equal(other.ty, last.ty):
                chain.epilogue.append(EpilogueOp("add_quantized", source[1]))
                chain.operands.append(source[0])
                self._extend(chain, reader)
                return True
        step = epilogue_op(last, value, 1, self.values)
        if step is None or step[0].kind not in STATEMENTS:
            return False
        chain.epilogue.append(step[0])
        chain.operands += step[1]
        self._extend(chain, reader)
        return True

    def _take_round_trip(self, chain: _Chain, reader: relax.Var) -> bool:
        """Quantized and at once dequantized again, for something that the chain takes too."""
        wanted, back = self._parameters_of(reader), self._only_reader(reader)
        then = None if back is None else self._only_reader(back)
        if wanted is None or back is None or then is None or op_name(self.values[back]) != "relax.dequantize":
            return False
        if _parameters(self.values[back], str(reader.ty.dtype), self.values) != wanted:
            return False
        before = (chain.last, chain.bias, list(chain.epilogue), list(chain.operands))
        chain.epilogue.append(EpilogueOp("round_trip", wanted))
        chain.last = back
        if self._take(chain, then):
            self.inside |= {reader, back}
            return True
        chain.last, chain.bias, chain.epilogue, chain.operands = before
        return False

    def _extend(self, chain: _Chain, reader: relax.Var) -> None:
        self.inside.add(reader)
        chain.last = reader

    def _integer_bias(self, value: tvm.ir.Call, chain: _Chain) -> np.ndarray | None:
        """int32 [O] of a bias that was quantized with the scale of the sums."""
        for expr in value.args:
            while isinstance(expr, relax.Var) and expr in self.values:
                expr = self.values[expr]
                if op_name(expr) in ("relax.reshape", "relax.expand_dims"):
                    expr = expr.args[0]
            if op_name(expr) != "relax.dequantize":
                continue
            steps, scale, zero = (constant(a, self.values) for a in expr.args)
            if steps is None or scale is None or zero is None or steps.dtype != np.int32 or zero.any():
                continue
            if steps.size == len(chain.scale) and np.allclose(scale.reshape(-1), chain.scale, rtol=1e-5, atol=0):
                return steps.reshape(-1)
        return None

    def _take_added(self, chain: _Chain) -> None:
        """Makes a convolution whose floats the chain alone reads, to add them, a part of the chain."""
        at = 0
        for i, op in enumerate(chain.epilogue):
            if not takes_tensor(op):
                continue
            operand = chain.operands[at]
            other = self.chains.get(operand) if op.kind == "add" and isinstance(operand, relax.Var) else None
            if other is not None and self._can_be_added(other):
                chain.added = other
                chain.epilogue[i] = EpilogueOp("add_convolution")
                del chain.operands[at]
                self.moved.add(operand)
                return
            at += 1

    def _can_be_added(self, chain: _Chain) -> bool:
        """Whether one reader of floats alone has a use for a chain, and needs no more than its own constants for it."""
        var = chain.last
        alone = self.uses[var] == 1 and var not in free_vars(self.main.result) and not self.wanted.get(var)
        return alone and chain.added is None and all(map(can_follow_added, chain.epilogue))

    # --- wanting ------------------------------------------------------------------------------------------------------

    def _want(self, var: relax.Var, wanted: Wanted) -> None:
        """Notes that an 8-bit image is wanted, of what it is made of too."""
        if wanted in self.wanted.setdefault(var, []):
            return
        self.wanted[var].append(wanted)
        for source in self._sources(var):
            self._want(source, wanted)

    def _sources(self, var: relax.Var) -> list[relax.Var]:
        """What a maximum, concatenation or repetition is made of; empty for everything else."""
        value = self.values.get(var)
        if value is None or var in self.chains:
            return []
        if op_name(value) == "relax.nn.max_pool2d" and _poolable(value, var):
            return [value.args[0]]
        if op_name(value) == "relax.concat" and int(value.attrs.axis) == 1:
            fields = list(value.args[0].fields) if isinstance(value.args[0], tvm.ir.Tuple) else []
            shapes = [_image(f) for f in fields if isinstance(f, relax.Var)]
            if fields and len(shapes) == len(fields) and all(s is not None and s[0] % GROUP == 0 for s in shapes):
                return fields
        if _repeats(value) is not None and _image(var) is not None:
            return [value.args[1].fields[0]]
        return []

    def _float_is_read(self, var: relax.Var) -> bool:
        """Whether anything but quantizations that are done already reads a chain's float value."""
        if var in free_vars(self.main.result):
            return True
        return any(not self._is_done(reader, set()) for reader in self.readers.get(var, ()))

    def _is_done(self, var: relax.Var, seen: set[relax.Var]) -> bool:
        """Whether the value of `var` is not needed as ONNX has it: 8-bit images replace it."""
        if var in seen:
            return True
        seen.add(var)
        value = self.values[var]
        if op_name(value) == "relax.quantize":
            wanted = self._parameters_of(var)
            return wanted is not None and wanted in self.wanted.get(value.args[0], ())
        if var in free_vars(self.main.result) or not self._sources(var) or var not in self.wanted:
            return False
        return all(self._is_done(reader, seen) for reader in self.readers.get(var, ()))

    # --- emitting -----------------------------------------------------------------------------------------------------

    def _layer(self, family: str, attrs: dict[str, Any], epilogue: tuple[EpilogueOp, ...], var: relax.Var) -> str:
        name = f"{LAYER_PREFIX}{len(self.layers)}"
        self.layers[name] = Layer(family, attrs, epilogue, self.graph.tensors.get(var.name, var.name))
        return name

    def _bind(self, var: relax.Var, wanted: Wanted, value: relax.Expr) -> None:
        image = relax.Var(f"{var.name}_u8", relax.TensorType(var.ty.shape, "uint8"))
        self.bindings.append((image, value))
        self.made[var, wanted] = image

    def _emit_chain(self, var: relax.Var, chain: _Chain) -> None:
        wanted = self.wanted.get(var, [])
        floats = not wanted or self._float_is_read(var)
        lines = self._lines(var) if floats else None
        float_var, inner = lines or (var, 0)
        types = [relax.TensorType(var.ty.shape, "uint8")] * len(wanted) + ([float_var.ty] if floats else [])
        operands = [self.made[o] if isinstance(o, tuple) else o for o in chain.operands]
        attrs = {
            "window": chain.window,
            "zero_point": chain.zero_point,
            "scale": chain.scale,
            "bias": chain.bias,
            "out": _image(var),
            "outputs": (*wanted, *([FloatOutput(inner)] if floats else [])),
        }
        operands = [self.made[chain.data], relax.const(chain.weights), *operands]
        if chain.added is not None:
            other = chain.added
            operands += [self.made[other.data], relax.const(other.weights), *other.operands]
            attrs["added"] = {
                "window": other.window,
                "zero_point": other.zero_point,
                "scale": other.scale,
                "bias": other.bias,
                "epilogue": tuple(other.epilogue),
            }
        name = self._layer("qconv", attrs, tuple(chain.epilogue), float_var)
        arguments = relax.Tuple(operands)
        call = relax.op.call_dps_packed(name, arguments, out_ty=types if len(types) > 1 else types[0])
        if len(types) == 1:
            if floats:
                self.bindings.append((float_var, call))
            else:
                self._bind(var, wanted[0], call)
            return
        several = relax.Var(f"{var.name}_outputs", relax.TupleType(types))
        self.bindings.append((several, call))
        for i, want in enumerate(wanted):
            self._bind(var, want, relax.TupleGetItem(several, i))
        if floats:
            self.bindings.append((float_var, relax.TupleGetItem(several, len(wanted))))

    def _lines(self, var: relax.Var) -> tuple[relax.Var, int] | None:
        """(the transpose that alone reads the floats of a chain, channels in a line of its result)."""
        image, readers = _image(var), [r for r in self.readers.get(var, []) if not self._is_done(r, set())]
        moves: list[relax.Var] = []
        while len(readers) == 1 and var not in free_vars(self.main.result) and image is not None:
            (move,) = readers
            moves.append(move)
            if op_name(self.values[move]) == "relax.permute_dims":
                _, inner, columns = matrix_transpose(self.values[move]) or (0, 0, 0)
                fits = isinstance(inner, int) and columns == image[1] * image[2] and inner >= MAX_ROWS
                if not fits or image[0] % inner:
                    return None
                self.moved.update(moves)
                return move, inner
            if op_name(self.values[move]) != "relax.reshape":
                return None
            var, readers = move, self.readers.get(move, [])
        return None

    def _images_of(self, var: relax.Var) -> None:
        """Everything that is wanted of a variable, as soon as it is there."""
        for wanted in self.wanted.get(var, []):
            if (var, wanted) in self.made:
                continue
            scale, zero = wanted
            sources = self._sources(var)
            operands = [self.made[s, wanted] for s in sources] or [var]
            attrs: dict[str, Any] = {"zero_point": zero}
            if not sources:
                family, attrs["scale"] = "to_planes", scale
            elif op_name(self.values[var]) == "relax.concat":
                family = "qconcat"
            elif op_name(self.values[var]) == "relax.call_tir":
                family, attrs["repeat"] = "qrepeat", _repeats(self.values[var])
            else:
                family, attrs["window"] = "qpool", _pool_window(self.values[var])
            name = self._layer(family, attrs, (), var)
            ty = relax.TensorType(var.ty.shape, "uint8")
            self._bind(var, wanted, relax.op.call_dps_packed(name, relax.Tuple(operands), out_ty=ty))

    def _from_planes(self, var: relax.Var, value: relax.Expr) -> bool:
        """A quantization that exists as planes, for others who read it."""
        wanted = self._parameters_of(var)
        image = None if wanted is None else self.made.get((value.args[0], wanted))
        if image is None or (value.args[0] not in self.chains and not self._sources(value.args[0])):
            return False
        name = self._layer("from_planes", {}, (), var)
        self.bindings.append((var, relax.op.call_dps_packed(name, relax.Tuple([image]), out_ty=var.ty)))
        return True


def ungrouped(weights: np.ndarray, groups: int) -> np.ndarray:
    """[O, C / groups, KH, KW] to [O, C, KH, KW]: zeros where a channel is of another group.

    The pattern of zeros is compiled in, so a convolution in groups is a sparse one.
    """
    if groups == 1:
        return weights
    O, C = weights.shape[:2]  # noqa: E741
    whole = np.zeros((O, C * groups, *weights.shape[2:]), weights.dtype)
    for row in range(O):
        first = row * groups // O * C
        whole[row, first : first + C] = weights[row]
    return whole


def _ints(values: Any) -> Any:
    return tuple(int(v) for v in values)


def _image(expr: relax.Expr) -> tuple[int, int, int] | None:
    """Channels, height and width, where the value is an image and they are known."""
    shape = list(expr.ty.shape)
    if len(shape) != 4 or any(not isinstance(d, tvm.tirx.IntImm) for d in shape[1:]):
        return None
    return tuple(int(d) for d in shape[1:])  # type: ignore[return-value]


def _parameters(value: tvm.ir.Call, dtype: str, values: Values) -> Wanted | None:
    """(scale, zero point) of a quantization or dequantization of a whole tensor, as if it were u8."""
    scale, zero = (constant(a, values) for a in value.args[1:])
    if scale is None or zero is None or scale.size != 1 or zero.size != 1 or dtype not in ("uint8", "int8"):
        return None
    return float(scale.reshape(())), int(zero.reshape(())) + (128 if dtype == "int8" else 0)


def _weights(expr: relax.Expr, values: Values) -> tuple[np.ndarray, np.ndarray] | None:
    """(int8 [O, C, KH, KW], scale[O]) of constant weights with zero point 0."""
    value = values.get(expr) if isinstance(expr, relax.Var) else expr
    if value is None or op_name(value) != "relax.dequantize":
        return None
    array, scale, zero = (constant(a, values) for a in value.args)
    if array is None or scale is None or zero is None or array.dtype != np.int8 or array.ndim != 4 or zero.any():
        return None
    if scale.size > 1 and int(value.attrs.axis) % 4 != 0:
        return None
    return array, np.broadcast_to(scale.reshape(-1), (len(array),))


def _repeats(value: relax.Expr) -> tuple[int, int] | None:
    """How often an image's rows and columns are repeated."""
    name = str(value.args[0].name_hint) if op_name(value) == "relax.call_tir" else ""
    if not name.startswith(REPEAT) or not isinstance(value.args[1], tvm.ir.Tuple):
        return None
    images, channels, *square = (int(n) for n in name.removeprefix(REPEAT).split("_")[0].split("x"))
    return (square[0], square[1]) if len(square) == 2 and images == channels == 1 else None


def _pool_window(call: tvm.ir.Call) -> Geometry:
    attrs = call.attrs
    return Geometry(_ints(attrs.pool_size), _ints(attrs.strides), _ints(attrs.dilation), _ints(attrs.padding))


def _poolable(call: tvm.ir.Call, var: relax.Var) -> bool:
    shape, out = _image(call.args[0]), _image(var)
    if shape is None or out is None or call.attrs.layout != "NCHW" or not isinstance(call.args[0], relax.Var):
        return False
    return can_pool(_pool_window(call), shape[2], out[2])
