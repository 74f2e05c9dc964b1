"""Types of files: Magika on the files of this machine; the extension is the label.

Which files there are depends on the machine, so that figures are comparable on one machine only: the dense model's
stands beside them. Calibration and evaluation use disjoint files.
"""

from __future__ import annotations

import functools
import json
import sys
import sysconfig
from collections import defaultdict
from pathlib import Path

import numpy as np
from public_models import PUBLIC_MODELS, PublicModel

NAME = "file_types"
DIMS: dict[str, int] = {}
SHAPES = {"bytes": (1, 2048)}
_CONFIG = PublicModel("config", "magika==1.0.3", "magika/models/standard_v3_3/config.min.json")
_KINDS = PublicModel("kinds", "magika==1.0.3", "magika/config/content_types_kb.min.json")
_ROOTS = (sys.base_prefix, sysconfig.get_path("purelib"), "/usr/share", "/usr/include", "/usr/lib", "/etc", "/opt")
_PER_KIND, _EVALUATION, _CALIBRATION, _BATCH = 40, 926, 256, 16
_MIN_FILES = 10
_UNCLEAR = ("crt", "pytorch", "wav")
"""Certificates are PEM text, path files have the extension .pth, and most .wav are SciPy's damaged test files."""
_PADDING, _SIDE, _BLOCK, _MIN_SIZE = 256, 1024, 4096, 16


def model():
    return PUBLIC_MODELS["magika"].path()


@functools.cache
def _labels() -> list[str]:
    return json.loads(_CONFIG.path().read_text())["target_labels_space"]


def _kind_of_extension() -> dict[str, str]:
    """Extensions that belong to one type alone."""
    owners = defaultdict(set)
    for kind, facts in json.loads(_KINDS.path().read_text()).items():
        for extension in facts["extensions"]:
            owners[extension].add(kind)
    return {e: next(iter(k)) for e, k in owners.items() if len(k) == 1 and k <= set(_labels())}


@functools.cache
def _files() -> tuple[np.ndarray, np.ndarray]:
    """(features [n, 2048], labels [n]), shuffled; at most 40 files of a type."""
    kinds, rng = _kind_of_extension(), np.random.default_rng(0)
    found: dict[str, list[Path]] = defaultdict(list)
    for root in dict.fromkeys(_ROOTS):
        for path in sorted(Path(root).rglob("*.*")):
            kind = kinds.get(path.suffix[1:].lower())
            if kind and path.is_file() and not path.is_symlink():
                found[kind].append(path)
    features, labels = [], []
    for kind in sorted(k for k in found if len(found[k]) >= _MIN_FILES and k not in _UNCLEAR):
        for i in rng.permutation(len(found[kind]))[:_PER_KIND]:
            content = found[kind][i].read_bytes()
            if len(content.strip()) >= _MIN_SIZE:
                features.append(_features(content))
                labels.append(_labels().index(kind))
    order = rng.permutation(len(labels))
    return np.stack(features)[order], np.array(labels)[order]


def _features(content: bytes) -> np.ndarray:
    """The first and the last bytes without the white space around them, as Magika takes them."""
    if len(content) <= _BLOCK:
        begin = end = content.strip()
    else:
        begin, end = content[:_BLOCK].lstrip(), content[-_BLOCK:].rstrip()
    out = np.full(2 * _SIDE, _PADDING, np.int32)
    head, tail = begin[:_SIDE], end[-_SIDE:]
    out[: len(head)] = list(head)
    out[2 * _SIDE - len(tail) :] = list(tail)
    return out


def calibration() -> list[dict[str, np.ndarray]]:
    chosen = _files()[0][:_CALIBRATION]
    return [{"bytes": chosen[i : i + _BATCH]} for i in range(0, len(chosen), _BATCH)]


def metric(run) -> float:
    """Share of the files whose most likely type is that of the extension."""
    features, labels = (a[_CALIBRATION : _CALIBRATION + _EVALUATION] for a in _files())
    right = 0
    for i in range(0, len(labels), _BATCH):
        scores = run({"bytes": features[i : i + _BATCH]})["target_label"]
        right += int((scores.argmax(1) == labels[i : i + _BATCH]).sum())
    return right / len(labels)
