"""Random graphs of elementwise, moving and reducing operators: whatever is fused, the values are numpy's."""

from __future__ import annotations

import numpy as np
import pytest
from programs import compiled, lowered, run, texts
from tvm import relax

op = relax.op
SYMBOLS = {"n": 5}


def unary(rng, x, a):
    """(Relax, numpy) of one operator that keeps the shape."""
    kind = rng.integers(6)
    if kind == 0:
        return op.negative(x), -a
    if kind == 1:
        return op.tanh(x), np.tanh(a)
    if kind == 2:
        return op.nn.relu(x), np.maximum(a, 0)
    if kind == 3:
        return op.multiply(x, relax.const(0.5)), a * np.float32(0.5)
    if kind == 4:
        return op.exp(op.clip(x, -2, 1)), np.exp(np.clip(a, -2, 1))
    return op.add(x, op.multiply(x, relax.const(0.25))), a + a * np.float32(0.25)


def moved(rng, x, a):
    """One operator that changes the shape, keeping the rank; dynamic axes stay whole."""
    rank = a.ndim
    axis = int(rng.integers(rank))
    size = a.shape[axis]
    fixed = not _is_symbolic(x, axis)
    kind = rng.integers(6)
    if kind == 5:
        return op.concat([x, x], axis), np.concatenate([a, a], axis)
    if kind == 0:
        order = [int(i) for i in rng.permutation(rank)]
        return op.permute_dims(x, order), a.transpose(order)
    if kind == 1:
        return op.concat([x, op.negative(x)], axis), np.concatenate([a, -a], axis)
    if kind == 2 and fixed and size > 2:
        index = tuple(slice(1, None, 2) if i == axis else slice(None) for i in range(rank))
        return op.strided_slice(x, [axis], [1], [size], [2]), a[index]
    if kind == 3 and fixed:
        widths = [(1, 2) if i == axis else (0, 0) for i in range(rank)]
        return op.nn.pad(x, [w for pair in widths for w in pair]), np.pad(a, widths)
    return op.flip(x, axis), np.flip(a, axis)


def reduced(rng, x, a):
    """One reduction whose result broadcasts against its operand."""
    axes = sorted({int(i) for i in rng.integers(a.ndim, size=rng.integers(1, 3))})
    kind = rng.integers(4)
    if kind == 0:
        return op.subtract(x, op.max(x, axes, keepdims=True)), a - a.max(tuple(axes), keepdims=True)
    if kind == 1:
        return op.mean(x, axes, keepdims=True), a.mean(tuple(axes), keepdims=True)
    if kind == 2:
        e = np.exp(a - a.max(axes[0], keepdims=True))
        return op.nn.softmax(x, axes[0]), e / e.sum(axes[0], keepdims=True)
    squares = op.sum(op.multiply(x, x), axes, keepdims=True)
    root = np.sqrt((a * a).sum(tuple(axes), keepdims=True) + np.float32(1))
    return op.divide(x, op.sqrt(op.add(squares, relax.const(1.0)))), a / root


def _is_symbolic(x, axis):
    return not isinstance(x.ty.shape[axis], int) and type(x.ty.shape[axis]).__name__ != "IntImm"


def _same_shape(x, y):
    return len(x.ty.shape) == len(y.ty.shape) and all(
        (a.same_as(b) if type(a).__name__ != "IntImm" else str(a) == str(b))
        for a, b in zip(x.ty.shape, y.ty.shape, strict=True)
    )


def check(seed, folder):
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(1, 5))
    sizes = [1, 2, 3, 5, 8, 16, 33, 64][: 8 if rank < 3 else 6]
    shape = [int(rng.choice(sizes)) for _ in range(rank)]
    symbolic = list(shape)
    if rng.random() < 0.3:
        axis = int(rng.integers(rank))
        symbolic[axis], shape[axis] = "n", SYMBOLS["n"]
    arrays = {name: rng.uniform(-2, 2, shape).astype(np.float32) for name in ("x", "y")}
    expected = []

    def build(x, y):
        builder = relax.BlockBuilder.current()
        pool = [(x, arrays["x"]), (y, arrays["y"])]
        for _ in range(int(rng.integers(2, 9))):
            v, a = pool[int(rng.integers(max(0, len(pool) - 3), len(pool)))]
            kind = rng.random()
            if kind < 0.35:
                made = unary(rng, v, a)
            elif kind < 0.55:
                made = moved(rng, v, a)
            elif kind < 0.75:
                made = reduced(rng, v, a)
            else:
                twins = [(w, b) for w, b in pool if _same_shape(v, w)]
                w, b = twins[int(rng.integers(len(twins)))]
                made = (op.add(v, w), a + b)
            if made[1].size < 200_000:
                pool.append((builder.emit(made[0]), made[1].astype(np.float32)))
        results = pool[-int(rng.integers(1, 4)) :]
        expected.extend(a for _, a in results)
        return tuple(v for v, _ in results)

    program = lowered(build, {"x": (tuple(symbolic), "float32"), "y": (tuple(symbolic), "float32")})
    library = compiled(program.sources, folder)
    whole = run(program, library, arrays)
    for got, want in zip(whole, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5, err_msg=f"seed {seed}\n{texts(program)}")
    again = run(program, library, arrays, cuts=5, poison=0x5A)
    assert [a.tobytes() for a in again] == [w.tobytes() for w in whole], f"seed {seed}: slices differ"


@pytest.mark.parametrize("axis", [0, 1])
def test_concatenated_with_itself(axis, tmp_path):
    """Too large to be computed twice for every element, and read in two places."""
    a = np.random.default_rng(0).uniform(-2, 2, (6, 40)).astype(np.float32)

    def build(x):
        once = op.tanh(op.add(op.exp(op.minimum(x, relax.const(0.5))), op.multiply(x, x)))
        return op.concat([once, once], axis)

    program = lowered(build, {"x": (a.shape, "float32")})
    (got,) = run(program, compiled(program.sources, tmp_path), {"x": a})
    once = np.tanh(np.exp(np.minimum(a, 0.5)) + a * a)
    np.testing.assert_allclose(got, np.concatenate([once, once], axis), rtol=2e-4, err_msg=texts(program))


@pytest.mark.parametrize("seed", range(24))
def test_random_graph(seed, tmp_path):
    check(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1300))
def test_many_random_graphs(seed, tmp_path):
    check(seed, tmp_path)
