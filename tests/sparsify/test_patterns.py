"""Masks: the pattern holds, the count is exact, the best stay."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.errors import SparsecError
from sparsec.sparsify.patterns import Pattern

BLOCKS = st.sampled_from([(1, 1), (1, 4), (2, 4), (4, 4), (3, 1), (1, 2)])


@settings(max_examples=80, deadline=None)
@given(BLOCKS, st.integers(1, 5), st.integers(1, 6), st.floats(0, 0.99), st.integers(0, 2**32 - 1))
def test_blocks(block, high, wide, sparsity, seed):
    pattern = Pattern(*block)
    scores = np.random.default_rng(seed).random((high * block[0], wide * block[1]))
    mask = pattern.mask(scores, sparsity)
    kept = mask.reshape(high, block[0], wide, block[1]).transpose(0, 2, 1, 3).reshape(high * wide, -1)
    assert np.all(kept.all(1) | ~kept.any(1))
    assert np.count_nonzero(~kept.any(1)) == round(sparsity * high * wide)
    pooled = pattern.pool(scores).ravel()
    if kept.any() and not kept.all():
        assert pooled[kept.all(1)].min() >= pooled[~kept.any(1)].max()


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from([(2, 4), (4, 8), (1, 4), (1, 2)]), st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1)
)
def test_n_of_m(ratio, rows, groups, seed):
    keep, of = ratio
    scores = np.random.default_rng(seed).random((rows, groups * of))
    mask = Pattern(1, of, keep).mask(scores, 0).reshape(rows, groups, of)
    assert np.all(mask.sum(2) == keep)
    parts = scores.reshape(rows, groups, of)
    assert np.all(np.where(mask, parts, np.inf).min(2) >= np.where(mask, -np.inf, parts).max(2))


@pytest.mark.parametrize("text", ["unstructured", "1x4", "2x4", "2:4", "4:8", "16x1"])
def test_text_round_trip(text):
    assert str(Pattern.parse(text)) == text


@pytest.mark.parametrize("text", ["", "4:2", "4:4", "0x4", "1x", "x4", "dense", "1x4 "])
def test_unknown_pattern(text):
    with pytest.raises(SparsecError, match="unknown pattern"):
        Pattern.parse(text)
