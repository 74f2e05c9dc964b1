"""Face or not: MTCNN's O-Net on scikit-image's 200 patches of Labeled Faces in the Wild, enlarged to 48 x 48.

Calibration takes 25 patches of each kind and their mirror images; the others are evaluated.
"""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image
from public_models import PUBLIC_MODELS, PublicModel

NAME = "faces"
DIMS: dict[str, int] = {}
SHAPES = {"input_3": (16, 48, 48, 3)}
_PATCHES = PublicModel("lfw", "scikit-image==0.26.0", "skimage/data/lfw_subset.npy")
_FACES = 100
"""The first hundred are faces, the other hundred are not."""
_CALIBRATION = 25


def model():
    return PUBLIC_MODELS["mtcnn_onet"].path()


@functools.cache
def _images() -> np.ndarray:
    """[200, 48, 48, 3], columns before rows as the network wants them, scaled as MTCNN scales."""
    patches = np.load(_PATCHES.path())
    images = [np.asarray(Image.fromarray((255 * p).astype(np.uint8)).resize((48, 48), Image.BILINEAR)) for p in patches]
    scaled = (np.stack(images).astype(np.float32) - 127.5) / 128
    return np.repeat(scaled.transpose(0, 2, 1)[..., None], 3, axis=3)


def _split() -> tuple[np.ndarray, np.ndarray]:
    """(indices for calibration, for evaluation)."""
    order = np.random.default_rng(0)
    chosen = np.concatenate([kind + order.permutation(_FACES)[:_CALIBRATION] for kind in (0, _FACES)])
    return chosen, np.setdiff1d(np.arange(2 * _FACES), chosen)


def calibration() -> list[dict[str, np.ndarray]]:
    images = _images()[_split()[0]]
    both = np.concatenate([images, images[:, ::-1]])
    return [{"input_3": np.ascontiguousarray(both[i : i + 20])} for i in range(0, len(both), 20)]


def metric(run) -> float:
    """Accuracy of the face score at 0.5."""
    chosen = _split()[1]
    scores = run({"input_3": _images()[chosen]})["softmax_2"][:, 1]
    return float(np.mean((scores > 0.5) == (chosen < _FACES)))
