from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.compiler.lower.memory import ALIGNMENT, plan_memory, root_of
from sparsec.compiler.lower.program import Buffer, Constant, Dim, Program, Step


def step(*pointers, n_outputs=1):
    return Step("k", tuple(pointers), n_outputs, (), 1, 1, "test", ())


def chain(sizes, dims=()):
    """A straight line: input -> t1 -> t2 -> … -> output."""
    buffers = [Buffer(i, f"t{i}", "float32", (size,)) for i, size in enumerate(sizes)]
    steps = [step(a, b) for a, b in pairwise(buffers)]
    return Program(dims, (buffers[0],), (buffers[-1],), steps)


def test_a_chain_needs_room_for_two_neighbours():
    plan = plan_memory(chain([16, 16, 16, 16, 16]))
    assert plan.arena_bytes == plan.lower_bound == 2 * 64


def test_an_alias_keeps_its_root_alive():
    a, view, b, c = (Buffer(i, "", "float32", (16,)) for i in range(4))
    program = Program((), (), (c,), [step(a), step(b), step(view, b, c)], {view.id: a.id})
    plan = plan_memory(program)
    assert root_of(program, view) == a.id
    assert len({plan.offsets[i] for i in (a.id, b.id, c.id)}) == 3


def test_constants_take_no_room():
    out = Buffer(0, "y", "float32", (4,))
    program = Program((), (), (out,), [step(Constant(np.ones(1000, np.float32)), out)])
    assert plan_memory(program).arena_bytes == ALIGNMENT


def test_dynamic_sizes_count_at_their_bound():
    from tvm import tirx

    n = tirx.Var("n", "int64")
    program = chain([n * 4, n * 4], (Dim("n", 1, 100),))
    assert plan_memory(program).arena_bytes == 2 * 1600


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 400), st.lists(st.integers(0, 30), max_size=3)), min_size=2, max_size=25))
def test_living_buffers_never_overlap(rows):
    buffers = [Buffer(i, "", "float32", (size,)) for i, (size, _) in enumerate(rows)]
    steps = []
    for i, (_, reads) in enumerate(rows):
        sources = [buffers[r % i] for r in reads] if i else []
        steps.append(step(*sources, buffers[i]))
    program = Program((), (), (buffers[-1],), steps)
    plan = plan_memory(program)
    first = {b.id: i for i, b in enumerate(buffers)}
    last = {b.id: max(i for i, s in enumerate(steps) if b in s.pointers) for b in buffers}
    last[buffers[-1].id] = len(steps)
    for a in buffers:
        assert plan.offsets[a.id] % ALIGNMENT == 0
        assert plan.offsets[a.id] + 4 * a.shape[0] <= plan.arena_bytes
        for b in buffers:
            if a.id < b.id and first[a.id] <= last[b.id] and first[b.id] <= last[a.id]:
                low, high = sorted((a, b), key=lambda x: plan.offsets[x.id])
                assert plan.offsets[low.id] + 4 * low.shape[0] <= plan.offsets[high.id]
    assert plan.arena_bytes >= plan.lower_bound
