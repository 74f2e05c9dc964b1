"""Short-time Fourier transforms of signals of any length, against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import floats, model, node
from relax_vm import run_onnxruntime

import sparsec
from sparsec.errors import UnsupportedError


@pytest.mark.parametrize("onesided", [0, 1])
def test_stft(onesided, tmp_path):
    op = node("STFT", "x step window length", "y", onesided=onesided, name="transform")
    constants = {"step": np.array(5), "window": np.hanning(16).astype(np.float32), "length": np.array(16)}
    made = model([op], {"x": ("float32", ["batch", "samples", 1])}, "y", **constants)
    loaded = sparsec.load(sparsec.build(made, output=tmp_path / "m.so", dims={"batch": (1, 2), "samples": (16, 90)}))
    for batch, samples in ((2, 90), (1, 16), (1, 37)):
        feed = {"x": floats(batch, samples, 1)}
        (want,) = run_onnxruntime(made, feed).values()
        np.testing.assert_allclose(loaded.run(feed)["y"], want, rtol=0, atol=1e-5 * np.abs(want).max())
    with pytest.raises(UnsupportedError, match=r"transform.*shorter than a frame of 16"):
        sparsec.build(made, output=tmp_path / "n.so", dims={"batch": 1, "samples": (15, 90)})
