"""Transposes against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from harness import host_targets, run_uses

from sparsec.codegen_templates.transpose import plan_transpose


@pytest.mark.parametrize("target", host_targets())
@pytest.mark.parametrize("shape", [(2, 17, 40), (1, 1, 33), (3, 32, 16), (1, 85, 130)])
def test_squares_and_edges(target, shape):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    got, status = run_uses(target, plan_transpose(target.isa, *shape), [x], (shape[0], shape[2], shape[1]))
    assert status == 0
    np.testing.assert_array_equal(got, x.transpose(0, 2, 1))
