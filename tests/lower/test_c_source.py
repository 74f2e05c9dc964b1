"""Relax operators through schedules and C, against numpy: ragged, dynamic, cut in odd pieces, with NaN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from programs import StepError, compiled, const, lowered, run, texts
from references import conv2d, erf, group_norm, scatter_elements, scatter_nd, softmax, topk
from tvm import relax, tirx

from sparsec.schedules import UNSCHEDULED

op = relax.op
nn = relax.op.nn
F32, F64, I32, I64, BOOL = "float32", "float64", "int32", "int64", "bool"


@dataclass(frozen=True)
class Case:
    """`reference(*arrays)` is what `build(*inputs)` computes; inputs are (shape, dtype[, low, high])."""

    name: str
    build: Callable[..., Any]
    reference: Callable[..., Any]
    inputs: tuple[Any, ...]
    tolerance: float = 0.0
    sizes: tuple[dict[str, int], ...] = ({},)


CASES: list[Case] = []


def case(name, build, reference, *inputs, tol=0.0, sizes=({},)):
    CASES.append(Case(name, build, reference, inputs, tol, tuple(sizes)))


# fmt: off
DYNAMIC = [{"n": 1}, {"n": 5}, {"n": 16}]

# elementwise
case("chain", lambda x, y: nn.relu(op.subtract(op.multiply(x, const(3.0)), y)),
     lambda x, y: np.maximum(x * np.float32(3) - y, 0), ((3, 5, 7), F32), ((3, 5, 7), F32))
case("broadcast_last", op.add, np.add, ((3, 5, 7), F32), ((7,), F32))
case("broadcast_middle", op.multiply, np.multiply, ((2, 3, 5, 7), F32), ((3, 1, 1), F32))
case("broadcast_both", op.add, np.add, ((4, 1, 7), F32), ((1, 5, 1), F32))
case("broadcast_scalar", op.subtract, np.subtract, ((5, 7), F32), ((), F32))
case("broadcast_to", lambda x: op.broadcast_to(x, (4, 3, 7)), lambda x: np.broadcast_to(x, (4, 3, 7)), ((3, 1), F32))
case("dynamic", lambda x, y: nn.relu(op.add(x, y)), lambda x, y: np.maximum(x + y, 0), (("n", 7), F32), ((7,), F32),
     sizes=DYNAMIC)
case("dynamic_last", op.multiply, np.multiply, ((3, "n"), F32), (("n",), F32), sizes=DYNAMIC)
case("dynamic_two", op.add, np.add, (("n", 3, "m"), F32), (("m",), F32), sizes=[{"n": 3, "m": 9}, {"n": 1, "m": 1}])
case("scalar", lambda x: op.add(op.multiply(x, x), x), lambda x: x * x + x, ((), F32))
case("divide", op.divide, np.divide, ((33,), F32), ((33,), F32))
case("double", lambda x, y: op.sqrt(op.abs(op.divide(x, y))), lambda x, y: np.sqrt(np.abs(x / y)), ((33,), F64),
     ((33,), F64))
case("sign_round", lambda x: op.add(op.sign(x), op.round(x)), lambda x: np.sign(x) + np.rint(x), ((65,), F32))
case("floor_ceil_trunc", lambda x: op.add(op.floor(x), op.multiply(op.ceil(x), op.trunc(x))),
     lambda x: np.floor(x) + np.ceil(x) * np.trunc(x), ((65,), F32))
case("negative_abs", lambda x: op.subtract(op.negative(x), op.abs(x)), lambda x: -x - np.abs(x), ((65,), F32))
case("int_negative_abs", lambda x: op.subtract(op.negative(x), op.abs(x)), lambda x: -x - np.abs(x), ((65,), I32))
case("rsqrt", op.rsqrt, lambda x: 1 / np.sqrt(x), ((65,), F32, 0.01, 50), tol=2e-7)
case("square", op.square, np.square, ((65,), F32))
for _name in ("exp", "log", "sin", "cos", "tan", "tanh", "sinh", "cosh", "atan", "asinh", "sigmoid", "erf"):
    _low = 0.01 if _name == "log" else -3
    _numpy = {
        "asinh": np.arcsinh, "atan": np.arctan, "sigmoid": lambda x: 1 / (1 + np.exp(-x.astype(np.float64))),
        "erf": erf,
    }.get(_name) or getattr(np, _name)
    case(_name, getattr(op, _name), _numpy, ((77,), F32, _low, 3), tol=1e-6)
    case(f"{_name}_double", getattr(op, _name), _numpy, ((7,), F64, _low, 3), tol=1e-13)
for _name, _numpy in (("asin", np.arcsin), ("acos", np.arccos), ("atanh", np.arctanh)):
    case(_name, getattr(op, _name), _numpy, ((77,), F32, -0.99, 0.99), tol=1e-6)
case("acosh", op.acosh, np.arccosh, ((77,), F32, 1.0, 9.0), tol=1e-6)
case("atan2", op.atan2, np.arctan2, ((77,), F32), ((77,), F32), tol=1e-6)
case("power", op.power, np.power, ((77,), F32, 0.1, 4), ((77,), F32), tol=1e-6)
case("power_constant", lambda x: op.power(x, const(2.0)), lambda x: np.power(x, np.float32(2)), ((77,), F32),
     tol=1e-6)
case("power_cube", lambda x: op.power(x, const(3.0)), lambda x: np.power(x, np.float32(3)), ((77,), F32), tol=1e-6)
case("mod_float", op.mod, np.fmod, ((77,), F32), ((77,), F32, 0.5, 3))
case("gelu", nn.gelu, lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))), ((77,), F32), tol=1e-6)
case("silu", nn.silu, lambda x: x / (1 + np.exp(-x)), ((77,), F32), tol=1e-6)
case("leakyrelu", lambda x: nn.leakyrelu(x, 0.1), lambda x: np.where(x > 0, x, np.float32(0.1) * x), ((77,), F32))
case("prelu", lambda x, s: nn.prelu(x, s, axis=1), lambda x, s: np.where(x > 0, x, x * s[:, None]), ((2, 5, 7), F32),
     ((5,), F32))

# comparison, logic, choice
for _name, _numpy in (("less", np.less), ("greater_equal", np.greater_equal), ("equal", np.equal),
                      ("not_equal", np.not_equal)):
    case(_name, getattr(op, _name), _numpy, ((5, 13), I32, -2, 2), ((13,), I32, -2, 2))
    case(f"{_name}_float", getattr(op, _name), _numpy, ((5, 13), F32), ((13,), F32))
case("logic", lambda a, b: op.logical_xor(op.logical_and(a, b), op.logical_or(op.logical_not(a), b)),
     lambda a, b: (a & b) ^ (~a | b), ((5, 13), BOOL), ((13,), BOOL))
case("where", op.where, np.where, ((5, 1), BOOL), ((5, 13), F32), ((13,), F32))
case("where_compare", lambda x, y: op.where(op.less(x, y), x, const(0.0)),
     lambda x, y: np.where(x < y, x, np.float32(0)), ((5, 13), F32), ((5, 13), F32))
case("bitwise", lambda a, b: op.bitwise_xor(op.bitwise_and(a, b), op.bitwise_or(op.bitwise_not(a), b)),
     lambda a, b: (a & b) ^ (~a | b), ((5, 13), I32, -99, 99), ((13,), I32, -99, 99))
case("shift", op.left_shift, np.left_shift, ((5, 13), I32, 0, 99), ((13,), I32, 0, 9))
case("shift_right", op.right_shift, np.right_shift, ((5, 13), I32, -99, 99), ((13,), I32, 0, 9))
case("shift_unsigned", op.right_shift, np.right_shift, ((5, 13), "uint8", 0, 255), ((13,), "uint8", 0, 7))

# integers
for _type in ("int8", "int32", "int64"):
    case(f"floor_divide_{_type}", op.floor_divide, np.floor_divide, ((5, 13), _type, -99, 99), ((13,), _type, -7, -1))
    case(f"floor_mod_{_type}", op.floor_mod, np.mod, ((5, 13), _type, -99, 99), ((13,), _type, 1, 7))
    case(f"mod_{_type}", op.mod, np.fmod, ((5, 13), _type, -99, 99), ((13,), _type, 1, 7))
case("divide_int", op.divide, lambda a, b: np.trunc(a / b).astype(np.int32), ((5, 13), I32, -99, 99),
     ((13,), I32, -7, -1))
case("floor_divide_float", op.floor_divide, np.floor_divide, ((5, 13), F32), ((13,), F32, 0.5, 2))
case("floor_mod_float", op.floor_mod, np.mod, ((5, 13), F32), ((13,), F32, 0.5, 2), tol=1e-6)
case("wrap_int8", lambda a, b: op.add(op.multiply(a, b), a), lambda a, b: a * b + a, ((99,), "int8", -128, 127),
     ((99,), "int8", -128, 127))
case("wrap_uint8", op.subtract, np.subtract, ((99,), "uint8", 0, 255), ((99,), "uint8", 0, 255))
case("wrap_int32", op.multiply, np.multiply, ((99,), I32, -(2**31), 2**31 - 1), ((99,), I32, -(2**31), 2**31 - 1))
case("compare_uint8", lambda a, b: op.less(op.add(a, b), b), lambda a, b: (a + b) < b, ((99,), "uint8", 0, 255),
     ((99,), "uint8", 0, 255))
case("large_long", lambda x: op.add(x, const(2**40, I64)), lambda x: x + 2**40, ((9,), I64))
case("smallest_int", lambda x: op.maximum(x, const(-(2**31), I32)), lambda x: x, ((9,), I32))
case("smallest_long", lambda x: op.maximum(x, const(-(2**63), I64)), lambda x: x, ((9,), I64))
case("largest_uint", lambda x: op.minimum(x, const(2**32 - 1, "uint32")), lambda x: x, ((9,), "uint32", 0, 2**32 - 1))

# casts
for _from, _to in ((F32, I32), (F32, I64), (I32, F32), (I64, F32), (BOOL, F32), (F32, BOOL), (I32, BOOL), (I64, I32),
                   (F32, "uint8"), (F64, F32), (F32, F64), (I32, "uint8"),
                   (F32, "float16"), ("float16", F32), (BOOL, I64), (I32, "int8")):
    _low, _high = (0, 200) if "uint8" in (_from, _to) else (-90, 90)
    case(f"cast_{_from}_{_to}", lambda x, to=_to: op.astype(x, to), lambda x, to=_to: x.astype(to),
         ((5, 13), _from, _low, _high))
case("half_sum", op.add, np.add, ((5, 13), "float16"), ((13,), "float16"))

# shape changes
case("transpose", lambda x: op.permute_dims(x, [1, 0]), lambda x: x.T, ((5, 13), F32))
case("transpose_tiles", lambda x: nn.relu(op.permute_dims(x, [0, 2, 1])), lambda x: np.maximum(x.transpose(0, 2, 1), 0),
     ((2, 70, 131), F32))
case("transpose_tiles_dynamic", lambda x, y: op.add(op.permute_dims(x, [1, 0]), y), lambda x, y: x.T + y,
     (("n", 100), F32), (("n",), F32), sizes=[*DYNAMIC, {"n": 130}])
case("transpose_4d", lambda x: op.permute_dims(x, [0, 3, 1, 2]), lambda x: x.transpose(0, 3, 1, 2),
     ((2, 3, 5, 7), F32))
case("transpose_dynamic", lambda x: op.permute_dims(x, [1, 0, 2]), lambda x: x.transpose(1, 0, 2),
     (("n", 4, 7), F32), sizes=DYNAMIC)
case("transpose_add", lambda x, y: op.add(op.permute_dims(x, [1, 0]), y), lambda x, y: x.T + y, ((5, 13), F32),
     ((13, 5), F32))
case("reshape_between", lambda x: op.exp(op.reshape(op.negative(x), (7, 15))), lambda x: np.exp(-x).reshape(7, 15),
     ((3, 5, 7), F32), tol=1e-6)
case("reshape_dynamic", lambda x: op.permute_dims(op.reshape(x, (x.ty.shape[0], 3, 4)), [0, 2, 1]),
     lambda x: x.reshape(-1, 3, 4).transpose(0, 2, 1), (("n", 12), F32), sizes=DYNAMIC)
case("expand_squeeze", lambda x: op.squeeze(op.expand_dims(op.negative(x), 1), [1]), lambda x: -x, ((5, 13), F32))
case("concat", lambda x, y: op.concat([x, y], 1), lambda x, y: np.concatenate([x, y], 1), ((3, 5), F32),
     ((3, 7), F32))
case("concat_middle", lambda x, y, z: op.concat([x, y, z], 1), lambda *a: np.concatenate(a, 1), ((2, 1, 5), I32),
     ((2, 3, 5), I32), ((2, 2, 5), I32))
case("concat_relu", lambda x, y: nn.relu(op.concat([op.negative(x), y], 0)),
     lambda x, y: np.maximum(np.concatenate([-x, y], 0), 0), ((3, 5), F32), ((2, 5), F32))
case("concat_dynamic", lambda x, y: op.concat([x, y], 1), lambda x, y: np.concatenate([x, y], 1), (("n", 5), F32),
     (("n", 7), F32), sizes=DYNAMIC)
case("split", lambda x: op.split(x, [2, 5], 1), lambda x: np.split(x, [2, 5], 1), ((3, 9, 4), F32))
case("split_even", lambda x: op.split(x, 3, -1), lambda x: np.split(x, 3, -1), ((3, 9), F32))
case("split_dynamic", lambda x: op.split(x, 3, -1), lambda x: np.split(x, 3, -1), (("n", 9), F32), sizes=DYNAMIC)
case("slice", lambda x: op.strided_slice(x, [0, 1], [1, 2], [4, 11], [1, 3]), lambda x: x[1:4, 2:11:3],
     ((5, 13), F32))
case("slice_back", lambda x: op.strided_slice(x, [1], [-1], [-20], [-2]), lambda x: x[:, ::-2], ((5, 13), F32))
case("pad", lambda x: nn.pad(x, [0, 0, 1, 2, 3, 0], "constant", 1.5),
     lambda x: np.pad(x, [(0, 0), (1, 2), (3, 0)], constant_values=1.5), ((2, 3, 5), F32))
case("pad_last_dynamic", lambda x: nn.pad(x, [1, 0, 1, 2]), lambda x: np.pad(x, [(1, 0), (1, 2)]), ((3, "n"), F32),
     sizes=DYNAMIC)
case("pad_images", lambda x: nn.pad(x, [0, 0, 1, 0, 1, 2, 3, 1]),
     lambda x: np.pad(x, [(0, 0), (1, 0), (1, 2), (3, 1)]), ((2, 3, 5, 7), F32))
case("pad_sum", lambda x, y: op.add(nn.pad(x, [1, 2, 0, 1]), nn.pad(y, [2, 1, 1, 0])),
     lambda x, y: np.pad(x, [(1, 2), (0, 1)]) + np.pad(y, [(2, 1), (1, 0)]), ((4, 9), F32), ((4, 9), F32))
case("concat_last_dynamic", lambda x, y: op.concat([x, y], 1), lambda x, y: np.concatenate([x, y], 1), ((3, "n"), F32),
     ((3, 4), F32), sizes=DYNAMIC)
case("concat_many", lambda *a: nn.relu(op.concat(list(a), 1)), lambda *a: np.maximum(np.concatenate(a, 1), 0),
     *[((2, n, 3), F32) for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)])
case("concat_flat", lambda x, y, z: op.concat([x, y, z], 0), lambda *a: np.concatenate(a), ((3,), F32), ((100,), F32),
     ((65,), F32))
case("pad_dynamic", lambda x: nn.pad(x, [0, 0, 1, 2]), lambda x: np.pad(x, [(0, 0), (1, 2)]), (("n", 5), F32),
     sizes=DYNAMIC)
for _mode in ("reflect", "replicate"):
    case(f"pad_{_mode}", lambda x, m=_mode: nn.pad(x, [0, 0, 2, 1], m),
         lambda x, m=_mode: np.pad(x, [(0, 0), (2, 1)], {"replicate": "edge"}.get(m, m)), ((3, 5), F32))
case("tile", lambda x: op.tile(x, (2, 1, 3)), lambda x: np.tile(x, (2, 1, 3)), ((2, 3, 5), F32))
case("repeat", lambda x: op.repeat(x, 3, 1), lambda x: np.repeat(x, 3, 1), ((2, 3, 5), F32))
case("flip", lambda x: op.flip(x, 1), lambda x: x[:, ::-1], ((3, 5), F32))
case("stack", lambda x, y: op.stack([x, y], 1), lambda x, y: np.stack([x, y], 1), ((3, 5), F32), ((3, 5), F32))
case("tril", lambda x: op.tril(x, 1), lambda x: np.tril(x, 1), ((2, 5, 5), F32))
case("one_hot", lambda x: op.one_hot(x, tirx.const(1.0, F32), tirx.const(0.0, F32), 6, -1),
     lambda x: np.eye(6, dtype=np.float32)[x], ((5, 3), I64, 0, 5))
case("ones", lambda x: op.add(x, op.ones((3, 5), F32)), lambda x: x + 1, ((3, 5), F32))
case("arange", lambda x: op.add(x, op.arange(0, 5, 1, I64)), lambda x: x + np.arange(5), ((3, 5), I64))

# reductions
REDUCERS = {"sum": np.sum, "max": np.max, "min": np.min, "mean": np.mean, "prod": np.prod}
for _name, _numpy in REDUCERS.items():
    for _axis in (0, 1, 2, (0, 1), (0, 2), (1, 2), None):
        case(f"{_name}_{_axis}",
             lambda x, f=_name, a=_axis: getattr(op, f)(x, list(a) if isinstance(a, tuple) else a),
             lambda x, f=_numpy, a=_axis: f(x.astype(np.float64), axis=a), ((3, 37, 70), F32, 0.9, 1.1),
             tol=0 if _name in ("max", "min") else (4e-4 if _name == "prod" else 2e-6))
    case(f"{_name}_keep", lambda x, f=_name: getattr(op, f)(x, [1], keepdims=True),
         lambda x, f=_numpy: f(x, axis=1, keepdims=True), ((3, 8, 5), F32), tol=1e-5)
    case(f"{_name}_dynamic", lambda x, f=_name: getattr(op, f)(x, [1]), lambda x, f=_numpy: f(x, axis=1),
         ((3, "n", 5), F32, 0.5, 1.5), tol=1e-6, sizes=DYNAMIC)
    case(f"{_name}_dynamic_rows", lambda x, f=_name: getattr(op, f)(x, [1]), lambda x, f=_numpy: f(x, axis=1),
         (("n", 67), F32, 0.9, 1.1), tol=1e-6, sizes=DYNAMIC)
case("sum_ragged", lambda x: op.sum(x, [1]), lambda x: x.sum(1), ((3, 5, 131), F32), tol=1e-5)
case("sum_columns_dynamic", lambda x: nn.relu(op.sum(x, [0])), lambda x: np.maximum(x.sum(0), 0), ((9, "n"), F32),
     tol=1e-5, sizes=[{"n": 1}, {"n": 127}, {"n": 300}])
case("mean_planes", lambda x: op.mean(x, [2, 3]), lambda x: x.mean((2, 3)), ((2, 20, 7, 9), F32), tol=1e-5)
case("mean_channels", lambda x: op.mean(x, [1]), lambda x: x.mean(1), ((2, 20, 28, 28), F32), tol=1e-5)
case("moments", lambda x: (op.mean(x, [1]), op.variance(x, [1])), lambda x: [x.mean(1), x.var(1)], ((40, 100), F32),
     tol=1e-5)
case("sum_int", lambda x: op.sum(x, [1]), lambda x: x.sum(1, dtype=np.int32), ((3, 70), I32))
case("max_int8", lambda x: op.max(x, [0]), lambda x: x.max(0), ((3, 70), "int8"))
case("max_long", lambda x: op.max(x, [1]), lambda x: x.max(1), ((3, 70), I64))
case("sum_double", lambda x: op.sum(x, [1]), lambda x: x.sum(1), ((3, 70), F64), tol=1e-14)
case("sum_half", lambda x: op.sum(x, [1]), lambda x: x.astype(F32).sum(1), ((3, 20), "float16"), tol=1e-2)
case("sum_of_squares", lambda x: op.sqrt(op.sum(op.square(x), [-1])), lambda x: np.sqrt((x * x).sum(-1)),
     ((5, 37), F32), tol=1e-6)
case("sum_then", lambda x, y: nn.relu(op.add(op.sum(x, [1]), y)), lambda x, y: np.maximum(x.sum(1) + y, 0),
     ((3, 37, 64), F32), ((64,), F32), tol=2e-5)
case("variance", lambda x: op.variance(x, [1]), lambda x: x.var(1), ((3, 37, 5), F32), tol=1e-5)
case("std", lambda x: op.std(x, [-1], keepdims=True), lambda x: x.std(-1, keepdims=True), ((3, 37), F32), tol=1e-5)
for _name, _numpy in (("argmax", np.argmax), ("argmin", np.argmin)):
    for _axis in (0, 1, 2):
        case(f"{_name}_{_axis}", lambda x, f=_name, a=_axis: getattr(op, f)(x, a),
             lambda x, f=_numpy, a=_axis: f(x, a), ((3, 37, 70), F32))
    case(f"{_name}_ties", lambda x, f=_name: getattr(op, f)(x, 1), lambda x, f=_numpy: f(x, 1), ((30, 37), I32, 0, 3))
    case(f"{_name}_all", lambda x, f=_name: getattr(op, f)(x), lambda x, f=_numpy: f(x), ((30, 37), F32))
    case(f"{_name}_dynamic", lambda x, f=_name: getattr(op, f)(x, 1, keepdims=True),
         lambda x, f=_numpy: f(x, 1, keepdims=True), (("n", 37, 3), F32), sizes=DYNAMIC)
for _axis in (0, 1, 2):
    case(f"softmax_{_axis}", lambda x, a=_axis: nn.softmax(x, a), lambda x, a=_axis: softmax(x, a),
         ((3, 37, 20), F32), tol=2e-6)
    case(f"log_softmax_{_axis}", lambda x, a=_axis: nn.log_softmax(x, a), lambda x, a=_axis: np.log(softmax(x, a)),
         ((3, 37, 20), F32), tol=2e-6)
case("softmax_dynamic", lambda x: nn.softmax(x, 1), lambda x: softmax(x, 1), ((3, "n", 20), F32), tol=2e-6,
     sizes=DYNAMIC)
case("logsumexp", lambda x: op.log(op.sum(op.exp(x), [1])), lambda x: np.log(np.exp(x.astype(F64)).sum(1)),
     ((3, 37), F32), tol=2e-6)
case("layer_norm", lambda x, g, b: nn.layer_norm(x, g, b, [-1], 1e-5),
     lambda x, g, b: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * g + b, ((5, 37), F32),
     ((37,), F32), ((37,), F32), tol=2e-5)
case("instance_norm", lambda x, g, b: nn.instance_norm(x, g, b, 1, [2, 3], 1e-5),
     lambda x, g, b: (x - x.mean((2, 3), keepdims=True)) / np.sqrt(x.var((2, 3), keepdims=True) + 1e-5)
     * g[:, None, None] + b[:, None, None],
     ((2, 3, 7, 9), F32), ((3,), F32), ((3,), F32), tol=2e-5)
case("group_norm", lambda x, g, b: nn.group_norm(x, g, b, 2, 1, [2, 3], 1e-5),
     lambda x, g, b: group_norm(x, g, b, 2), ((2, 6, 5, 9), F32), ((6,), F32), ((6,), F32), tol=2e-5)
case("rms_norm", lambda x, g: nn.rms_norm(x, g, [-1], 1e-5),
     lambda x, g: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * g, ((5, 37), F32), ((37,), F32), tol=1e-5)

# products and convolutions that no kernel took
case("matmul", op.matmul, np.matmul, ((37, 19), F32), ((19, 70), F32), tol=1e-5)
case("matmul_batch", op.matmul, np.matmul, ((2, 3, 7, 19), F32), ((3, 19, 10), F32), tol=1e-5)
case("matmul_dynamic", op.matmul, np.matmul, (("n", 7, 19), F32), (("n", 19, 16), F32), tol=1e-5, sizes=DYNAMIC)
case("matmul_vector", op.matmul, np.matmul, ((5, 19), F32), ((19,), F32), tol=1e-5)
case("matmul_int", op.matmul, np.matmul, ((7, 19), I32, -9, 9), ((19, 10), I32, -9, 9))
case("matmul_bias_relu", lambda x, w, b: nn.relu(op.add(op.matmul(x, w), b)),
     lambda x, w, b: np.maximum(x @ w + b, 0), ((7, 19), F32), ((19, 48), F32), ((48,), F32), tol=1e-5)
case("matmul_transposed", lambda x, w: op.matmul(x, op.permute_dims(w, [1, 0])), lambda x, w: x @ w.T,
     ((7, 19), F32), ((48, 19), F32), tol=1e-5)
case("conv2d_grouped", lambda x, w: nn.conv2d(x, w, padding=1, groups=2), lambda x, w: conv2d(x, w, 1, 1, 2),
     ((2, 4, 7, 9), F32), ((6, 2, 3, 3), F32), tol=1e-5)
case("conv2d_relu", lambda x, w: nn.relu(nn.conv2d(x, w, strides=2, padding=1)),
     lambda x, w: np.maximum(conv2d(x, w, 2, 1, 1), 0), ((1, 3, 9, 16), F32), ((5, 3, 3, 3), F32), tol=1e-5)
case("conv2d_dynamic", nn.conv2d, lambda x, w: conv2d(x, w, 1, 0, 1), (("n", 3, 6, 7), F32),
     ((4, 3, 2, 2), F32), tol=1e-5, sizes=DYNAMIC)
case("max_pool", lambda x: nn.max_pool2d(x, (2, 2), (2, 2)), lambda x: x.reshape(2, 3, 4, 2, 5, 2).max((3, 5)),
     ((2, 3, 8, 10), F32))
case("avg_pool", lambda x: nn.avg_pool2d(x, (2, 2), (2, 2)), lambda x: x.reshape(2, 3, 4, 2, 5, 2).mean((3, 5)),
     ((2, 3, 8, 10), F32), tol=1e-6)
case("einsum", lambda a, b: op.einsum([a, b], "bij,bkj->bik"), lambda a, b: np.einsum("bij,bkj->bik", a, b),
     ((2, 5, 7), F32), ((2, 3, 7), F32), tol=1e-5)

# index operators
case("take", lambda x, i: op.take(x, i, 0), lambda x, i: x[i], ((9, 13), F32), ((4, 3), I64, 0, 8))
case("take_last", lambda x, i: op.take(x, i, 1), lambda x, i: x[:, i], ((9, 13), F32), ((4,), I64, 0, 12))
case("take_relu", lambda x, i: nn.relu(op.take(x, i, 0)), lambda x, i: np.maximum(x[i], 0), ((9, 13), F32),
     (("n",), I64, 0, 8), sizes=DYNAMIC)
case("gather_elements", lambda x, i: op.gather_elements(x, i, 1), lambda x, i: np.take_along_axis(x, i, 1),
     ((5, 13), F32), ((5, 4), I64, 0, 12))
case("gather_nd", op.gather_nd, lambda x, i: x[i[..., 0], i[..., 1]], ((5, 13, 3), F32),
     ((7, 2), I64, 0, 4))
case("cumsum", lambda x: op.cumsum(x, 1), lambda x: np.cumsum(x, 1), ((3, 9, 4), F32), tol=1e-5)
case("cumsum_last", lambda x: op.cumsum(x, -1), lambda x: np.cumsum(x, -1), ((3, 9), I64))
case("cumsum_exclusive", lambda x: op.cumsum(x, 1, exclusive=True), lambda x: np.cumsum(x, 1) - x, ((3, 9), I64))
case("cumsum_dynamic", lambda x: op.cumsum(x, 1), lambda x: np.cumsum(x, 1), (("n", 9), I64), sizes=DYNAMIC)
case("cumprod", lambda x: op.cumprod(x, 1), lambda x: np.cumprod(x, 1), ((3, 9), F32), tol=1e-5)
for _reduce in ("update", "add", "mul", "max", "min"):
    case(f"scatter_elements_{_reduce}", lambda x, i, u, r=_reduce: op.scatter_elements(x, i, u, 1, r),
         lambda x, i, u, r=_reduce: scatter_elements(x, i, u, r), ((5, 13), F32), ((5, 4), I64, 0, 12), ((5, 4), F32),
         tol=1e-6)
    case(f"scatter_nd_{_reduce}", lambda x, i, u, r=_reduce: op.scatter_nd(x, i, u, r),
         lambda x, i, u, r=_reduce: scatter_nd(x, i, u, r), ((9, 4), F32), ((6, 1), I64, 0, 8), ((6, 4), F32), tol=1e-6)
case("topk", lambda x: op.topk(x, 3, -1, "both", True, I64), lambda x: topk(x, 3), ((5, 13), F32))
case("topk_smallest", lambda x: op.topk(x, 3, -1, "both", False, I64), lambda x: topk(x, 3, False), ((5, 13), F32))
case("topk_middle", lambda x: op.topk(x, 2, 1, "values", True, I64), lambda x: -np.sort(-x, 1)[:, :2],
     ((2, 7, 3), F32))
case("sort", lambda x: op.sort(x, -1), lambda x: np.sort(x, -1), ((5, 13), F32))
case("sort_long", lambda x: op.sort(x, -1), lambda x: np.sort(x, -1), ((2, 1000), I32, 0, 99))
case("sort_one", lambda x: op.sort(x, -1), lambda x: x, ((5, 1), F32))
case("sort_dynamic", lambda x: op.argsort(x, 1, True, I64), lambda x: np.argsort(-x, 1, "stable"),
     ((2, "n", 3), I32, 0, 4), sizes=DYNAMIC)
case("topk_dynamic", lambda x: op.topk(x, 1, -1, "both", True, I64), lambda x: topk(x, 1), (("n", 9), F32),
     sizes=DYNAMIC)
case("argsort", lambda x: op.argsort(x, -1, False, I64), lambda x: np.argsort(x, -1, "stable"), ((5, 13), F32))

# quantized
case("quantize", lambda x: op.quantize(x, const(0.1), const(3, "int8"), out_dtype="int8"),
     lambda x: np.clip(np.rint(x / np.float32(0.1)) + 3, -128, 127).astype(np.int8), ((5, 13), F32, -20, 20))
case("dequantize", lambda x: op.dequantize(x, const(0.1), const(3, "int8"), out_dtype=F32),
     lambda x: (x.astype(I32) - 3) * np.float32(0.1), ((5, 13), "int8", -128, 127), tol=1e-6)
case("dequantize_axis", lambda x, s, z: op.dequantize(x, s, z, axis=0, out_dtype=F32),
     lambda x, s, z: (x.astype(I32) - z.astype(I32)[:, None]) * s[:, None], ((5, 13), "int8", -128, 127),
     ((5,), F32, 0.1, 1),
     ((5,), "int8", -9, 9), tol=1e-6)

# several functions and results
case("twins", lambda x: (op.negative(x), op.sum(x, [1]), x), lambda x: [-x, x.sum(1), x], ((5, 13), F32), tol=1e-5)
case("chain_of_reductions",
     lambda x: op.divide(x, op.sqrt(op.sum(op.square(op.subtract(x, op.max(x, [1], True))), [0], True))),
     lambda x: x / np.sqrt(np.square(x - x.max(1, keepdims=True)).sum(0, keepdims=True)), ((5, 64), F32), tol=1e-5)
# fmt: on


def sample(rng, shape, dtype, low=-4.0, high=4.0):
    if dtype == BOOL:
        return rng.random(shape) < 0.5
    if np.dtype(dtype).kind in "iu":
        return rng.integers(int(low), int(high), shape, dtype=dtype, endpoint=True)
    return np.asarray(rng.uniform(low, high, shape)).astype(dtype)


@pytest.mark.parametrize("c", CASES, ids=lambda c: c.name)
def test_matches_numpy(c, tmp_path):
    names = [f"x{i}" for i in range(len(c.inputs))]
    program = lowered(c.build, {n: spec[:2] for n, spec in zip(names, c.inputs, strict=True)})
    library = compiled(program.sources, tmp_path)
    for sizes in c.sizes:
        rng = np.random.default_rng(len(c.name))
        arrays = {}
        for name, (shape, *rest) in zip(names, c.inputs, strict=True):
            arrays[name] = sample(rng, tuple(sizes.get(s, s) for s in shape), *rest)
        whole = run(program, library, arrays)
        with np.errstate(all="ignore"):
            expected = c.reference(*arrays.values())
        expected = expected if isinstance(expected, list | tuple) else [expected]
        assert len(whole) == len(expected)
        for got, want in zip(whole, expected, strict=True):
            want = np.asarray(want)
            assert got.shape == want.shape
            if got.dtype.kind != "f":
                assert (got == want).all(), texts(program)
            else:
                np.testing.assert_allclose(got, want, rtol=c.tolerance, atol=c.tolerance, err_msg=texts(program))
        for cuts in (2, 3, 7):
            again = run(program, library, arrays, cuts=cuts, poison=0x5A)
            assert [a.tobytes() for a in again] == [w.tobytes() for w in whole], f"{cuts} slices differ"


ORDERS = {
    "maximum": (op.maximum, np.maximum, 2),
    "minimum": (op.minimum, np.minimum, 2),
    "relu": (nn.relu, lambda x: np.maximum(x, np.float32(0)), 1),
    "clip": (lambda x: op.clip(x, -1, 2), lambda x: np.clip(x, np.float32(-1), np.float32(2)), 1),
    "max_rows": (lambda x: op.max(x, [1]), lambda x: x.max(1), 1),
    "min_rows": (lambda x: op.min(x, [1]), lambda x: x.min(1), 1),
    "max_columns": (lambda x: op.max(x, [0]), lambda x: x.max(0), 1),
    "sum_rows": (lambda x: op.sum(x, [1]), lambda x: x.sum(1), 1),
    "exp": (op.exp, np.exp, 1),
    "tanh": (op.tanh, np.tanh, 1),
    "sigmoid": (op.sigmoid, lambda x: 1 / (1 + np.exp(-x)), 1),
    "erf": (op.erf, erf, 1),
}


@pytest.mark.parametrize("name", ORDERS)
def test_nan_and_infinity(name, tmp_path):
    build, reference, count = ORDERS[name]
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 1e30], np.float32)
    x = np.tile(special, (8, 9))
    x[4:] = np.random.default_rng(0).uniform(-3, 3, x[4:].shape)
    x[5, 1] = x[6, 40] = x[7, 71] = np.nan
    arrays = {"x": x, "y": np.roll(x, 3, 1)} if count == 2 else {"x": x}
    program = lowered(build, {n: (a.shape, F32) for n, a in arrays.items()})
    (got,) = run(program, compiled(program.sources, tmp_path), arrays, cuts=3)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(got, reference(*arrays.values()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["max", "min", "argmax", "argmin"])
@pytest.mark.parametrize("axis", [0, 1])
def test_nothing_but_infinities(name, axis, tmp_path):
    x = np.full((40, 40), -np.inf if "max" in name else np.inf, np.float32)
    x[:2, :2] = 1
    program = lowered(lambda x: getattr(op, name)(x, axis), {"x": (x.shape, F32)})
    (got,) = run(program, compiled(program.sources, tmp_path), {"x": x}, cuts=3)
    assert (got == getattr(np, name)(x, axis)).all()


def test_local_memory_beyond_the_limit_falls_back(tmp_path, monkeypatch):
    monkeypatch.setattr("sparsec.compiler.lower.c_statements._STACK_BYTES", 0)
    program = lowered(lambda x: op.mean(x, [1]), {"x": ((20, 12), F32)})
    assert {step.reason for step in program.steps} == {UNSCHEDULED}
    x = np.arange(240, dtype=np.float32).reshape(20, 12)
    (got,) = run(program, compiled(program.sources, tmp_path), {"x": x})
    np.testing.assert_allclose(got, x.mean(1), rtol=1e-6)


@pytest.mark.parametrize("index", [-99, 9, 2**40])
def test_an_index_outside_of_the_tensor_ends_the_run(index, tmp_path):
    program = lowered(lambda x, i: op.take(x, i, 0), {"x": ((9, 13), F32), "i": ((4,), I64)})
    x = np.zeros((9, 13), np.float32)
    with pytest.raises(StepError, match="7"):
        run(program, compiled(program.sources, tmp_path), {"x": x, "i": np.array([0, 1, index, 2])})


def test_an_index_outside_of_the_target_writes_nothing_there(tmp_path):
    program = lowered(
        lambda x, i, u: op.scatter_elements(x, i, u, 0), {"x": ((9, 3), F32), "i": ((2, 3), I64), "u": ((2, 3), F32)}
    )
    arrays = {"x": np.zeros((9, 3), np.float32), "i": np.full((2, 3), 9), "u": np.ones((2, 3), np.float32)}
    with pytest.raises(StepError, match="7"):
        run(program, compiled(program.sources, tmp_path), arrays)


def test_text_is_the_same_every_time():
    def build(x, y):
        return nn.softmax(op.add(x, y), 1)

    inputs = {"x": (("n", 5, 7), F32), "y": ((7,), F32)}
    assert lowered(build, inputs).sources == lowered(build, inputs).sources


def test_written_buffers_are_the_last_pointers():
    program = lowered(lambda x: op.split(x, 3, 1), {"x": ((4, 9), F32)})
    outputs = {b.id for b in program.outputs}
    for step in program.steps:
        written = step.pointers[len(step.pointers) - step.n_outputs :]
        assert written
        assert {b.id for b in written} <= outputs
    assert {b.id for step in program.steps for b in step.pointers} >= outputs


def test_units_hold_many_functions():
    def build(x):
        for axis in (0, 1) * 12:
            x = op.subtract(x, op.max(x, [axis], keepdims=True))
        return x

    program = lowered(build, {"x": ((4, 9), F32)})
    assert len(program.steps) > 1
    assert len(program.sources) <= 1 + len(program.steps) // 16
    assert all(source.text.startswith('#include "scalar_math.h"') for source in program.sources)
