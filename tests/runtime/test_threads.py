"""Any number of threads, the caller's or the context's own, gives the same bytes."""

from __future__ import annotations

import ctypes
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import numpy as np
import pytest
from raw_context import ERR_BUSY, OK, RawContext

import sparsec
from sparsec.errors import SparsecError
from sparsec.runtime_stub.cpu import host_machine


def image(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, 3, 16, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(convnet_so):
    """One thread's results, by batch size."""
    with sparsec.load(convnet_so) as model:
        return {n: model.run({"image": image(n)})["scores"] for n in range(1, 9)}


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_same_bytes_at_any_number_of_threads(threads, convnet_so, expected):
    with sparsec.load(convnet_so, threads=threads) as model:
        for _ in range(20):
            for batch, scores in expected.items():
                assert model.run({"image": image(batch)})["scores"].tobytes() == scores.tobytes()


def test_all_available_cpus(convnet_so, expected):
    with sparsec.load(convnet_so, threads=-1) as model:
        assert model.run({"image": image(5)})["scores"].tobytes() == expected[5].tobytes()


@pytest.mark.parametrize("threads", [-2, 1025])
def test_an_impossible_number_of_threads(threads, convnet_so):
    with pytest.raises(SparsecError, match="threads must lie between -1 and 1024"):
        sparsec.load(convnet_so, threads=threads)


def test_threads_live_as_long_as_their_context(convnet_so):
    def alive() -> int:
        with open("/proc/self/status", encoding="ascii") as file:
            return int(next(line for line in file if line.startswith("Threads:")).split()[1])

    def settles_at(n: int) -> bool:
        """Whether so many are left; a thread that was joined still counts for a moment."""
        end = time.monotonic() + 10
        while alive() != n and time.monotonic() < end:
            time.sleep(0.001)
        return alive() == n

    before = alive()
    with sparsec.load(convnet_so) as model:
        assert settles_at(before)
        with model.new_context(threads=4):
            assert settles_at(before + 3)
        assert settles_at(before)


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_the_callers_parallel_for(parts, convnet_so, expected):
    """Backwards, in other threads: parts may run in any order."""
    calls = []
    with ThreadPoolExecutor(parts) as pool, RawContext(convnet_so) as context:

        @context.ffi.callback("void(void *, sparsec_task, void *, int32_t)")
        def parallel_for(user, task, data, n):
            calls.append((int(context.ffi.cast("intptr_t", user)), n))
            list(pool.map(lambda part: task(data, part), reversed(range(n))))

        context.create(threads=parts, parallel_for=parallel_for, parallel_for_user=context.ffi.cast("void *", 77))
        for batch, scores in expected.items():
            found = np.empty((batch, 10), np.float32)
            assert context.run([image(batch)], [found]) == OK
            assert found.tobytes() == scores.tobytes()
    assert calls and {user for user, _ in calls} == {77}
    assert max(n for _, n in calls) == parts


def test_a_context_each_in_parallel(convnet_so, expected):
    failures = []

    def use(context: sparsec.Model, seed: int) -> None:
        for i in range(30):
            batch = (i + seed) % 8 + 1
            if context.run({"image": image(batch)})["scores"].tobytes() != expected[batch].tobytes():
                failures.append((seed, i))

    with sparsec.load(convnet_so) as model:
        contexts = [model.new_context(threads=1 + i % 3) for i in range(6)]
        threads = [Thread(target=use, args=(c, i)) for i, c in enumerate(contexts)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for context in contexts:
            context.close()
    assert failures == []


def test_one_context_from_several_threads_waits(convnet_so, expected):
    with sparsec.load(convnet_so, threads=2) as model, ThreadPoolExecutor(4) as pool:
        batches = [i % 8 + 1 for i in range(80)]
        results = pool.map(lambda n: model.run({"image": image(n)})["scores"], batches)
        assert all(r.tobytes() == expected[n].tobytes() for n, r in zip(batches, results, strict=True))


def test_a_busy_context(convnet_so):
    """A second run of a context, out of its own parallel_for, is refused and harms nothing."""
    statuses, nested = [], []
    with RawContext(convnet_so) as context:
        other = np.empty((2, 10), np.float32)

        @context.ffi.callback("void(void *, sparsec_task, void *, int32_t)")
        def parallel_for(user, task, data, n):
            if not nested:
                nested.append(True)
                statuses.append(context.run([image(2)], [other]))
                statuses.append(context.prepare([(2, 3, 16, 16)]))
                nested.clear()
            for part in range(n):
                task(data, part)

        context.create(threads=2, parallel_for=parallel_for)
        found = np.empty((8, 10), np.float32)
        assert context.run([image(8)], [found]) == OK
        assert context.message() == ""
    assert statuses and set(statuses) == {ERR_BUSY}
    with sparsec.load(convnet_so) as model:
        assert found.tobytes() == model.run({"image": image(8)})["scores"].tobytes()


@pytest.mark.skipif(host_machine() != "x86_64", reason="FE_UPWARD is written for x86-64")
def test_the_callers_rounding_mode(convnet_so, expected):
    """It neither reaches the kernels nor gets lost."""
    libm = ctypes.CDLL("libm.so.6")
    fe_upward, fe_nearest = 0x800, 0
    one, little = np.float32(1), np.float32(1e-10)
    given = image(8)
    with sparsec.load(convnet_so, threads=2) as model:
        libm.fesetround(fe_upward)
        try:
            found = model.run({"image": given})["scores"]
            is_upward = one + little > one
        finally:
            libm.fesetround(fe_nearest)
    assert is_upward and not one + little > one
    assert found.tobytes() == expected[8].tobytes()
