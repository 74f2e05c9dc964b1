"""Padded planes: where the values of a float32 image [N, C, H, W] lie, so that a tap of a convolution is an offset.

A plane holds the rows of a channel with a pitch, and the padding that its readers need (8-bit images: qplanes.py).
Columns of padding are shared: the gap between two rows is the right padding of one and the left of the next. For a
reader with strides there is one plane per phase: phase (i, j) holds the padded rows i, i + stride, … and columns
likewise. Output position (h, w) of a convolution is then h * pitch + w, and tap (kh, kw) a constant further
on. Counts are in floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from .use import Size, ceil_div

LINE = 16
"""Elements in a cache line."""


@dataclass(frozen=True)
class ConvGeometry:
    """Strides, dilation and padding (top, left, bottom, right) of a 2-D convolution (ONNX Conv-22)."""

    strides: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int, int, int]
    groups: int


@dataclass(frozen=True)
class Planes:
    """Value (h, w) lies in phase ((h + top) % stride_h, (w + left) % stride_w) of its plane; see planes.h."""

    height: Size
    width: Size
    top: int
    left: int
    bottom: int
    right: int
    stride_h: int
    stride_w: int
    phases_h: int
    phases_w: int
    """Phases that are stored; what belongs to others is not."""
    pitch: Size
    filled: Size
    """Elements of a phase that are values or zeros; what lies behind them may be anything."""
    phase: Size
    """From one phase to the next: `filled`, and what a reader's last vector reads beyond."""
    plane: Size

    @property
    def strides(self) -> tuple[int, int]:
        """Of the readers that the phases are for."""
        return self.stride_h, self.stride_w

    def constant(self) -> np.ndarray:
        """The struct of planes.h; all sizes must be known."""
        return np.asarray(astuple(self), np.int64)

    def serves(self, reader: Reader) -> bool:
        """Whether a convolution can read it as it is. All sizes must be known."""
        geometry = reader[1]
        own = self.top, self.left, self.bottom, self.right
        if geometry.strides != self.strides or any(p > o for p, o in zip(geometry.padding, own, strict=True)):
            return False
        phases = phases_of(reader, self.top, self.left)
        if phases[0] > self.phases_h or phases[1] > self.phases_w:
            return False
        return self.stride_w > 1 or bool(self.width + gap_of(reader) <= self.pitch)


Reader: TypeAlias = "tuple[tuple[int, int], ConvGeometry]"
"""A convolution: its taps (rows, columns) and geometry."""


def plain_planes(height: Size, width: Size) -> Planes:
    """NCHW."""
    count = height * width
    return Planes(height, width, 0, 0, 0, 0, 1, 1, 1, 1, width, count, count, count)


def padded_planes(
    height: Size,
    width: Size,
    padding: tuple[int, int, int, int],
    strides: tuple[int, int] = (1, 1),
    phases: tuple[int, int] = (1, 1),
    gap: int = 0,
    slack: int = LINE,
) -> Planes:
    """At least `padding` (top, left, bottom, right) around; `slack` elements may be read after the last row.

    `gap`: columns from one row to the next, where there are no strides.
    """
    top, left, bottom, right = padding
    pitch = width + max(gap, left, right) if strides[1] == 1 else ceil_div(width + left + right, strides[1])
    filled = ceil_div(height + top + bottom, strides[0]) * pitch + max(left, right)
    phase = ceil_div(filled + slack, LINE) * LINE
    if isinstance(phase, int):
        phase += LINE * (phase // LINE % 2 == 0)  # an odd number of lines: planes do not meet in one set of the cache
    return Planes(height, width, *padding, *strides, *phases, pitch, filled, phase, phase * (phases[0] * phases[1]))


def gap_of(reader: Reader) -> int:
    """The least gap between rows for a convolution without strides: padding of both sides, and room for outputs."""
    taps, geometry = reader
    _, left, _, right = geometry.padding
    return max(left, right, left + right - (taps[1] - 1) * geometry.dilation[1])


def phases_of(reader: Reader, top: int, left: int) -> tuple[int, int]:
    """How many phases a convolution reads of planes padded by `top`, `left`."""
    taps, geometry = reader
    shifts = (top - geometry.padding[0], left - geometry.padding[1])
    return tuple(
        max((k * d + shift) % s for k in range(n)) + 1
        for n, d, s, shift in zip(taps, geometry.dilation, geometry.strides, shifts, strict=True)
    )  # type: ignore[return-value]


def planes_for(size: tuple[Size, Size], readers: Sequence[Reader], slack: int = LINE) -> Planes:
    """The planes that convolutions of one stride can all read; without any, those that are aligned to lines."""
    if not readers:
        return padded_planes(*size, (0, 0, 0, 0), slack=slack)
    padding = tuple(max(side) for side in zip(*(g.padding for _, g in readers), strict=True))
    strides = readers[0][1].strides
    phases = tuple(max(p) for p in zip(*(phases_of(r, padding[0], padding[1]) for r in readers), strict=True))
    gap = max(map(gap_of, readers)) if strides[1] == 1 else 0
    return padded_planes(*size, padding, strides, phases, gap, slack)


def reads_plain(reader: Reader, size: tuple[Size, Size], vectors: int = 1, lanes: int = LINE) -> bool:
    """Whether a kernel of tiles of so many vectors may read NCHW as it is: no tap reads beside it, nor a last tile."""
    taps, geometry = reader
    positions = size[0] * size[1]
    whole = geometry.strides == (1, 1) and not any(geometry.padding) and taps == (1, 1)
    return whole and isinstance(positions, int) and (positions >= vectors * lanes or positions % lanes == 0)


def tap_offsets(planes: Planes, reader: Reader) -> np.ndarray:
    """int64 [KH * KW]: elements from output position 0 to what each tap reads for it, inside the plane."""
    taps, geometry = reader
    offsets = []
    for kh in range(taps[0]):
        for kw in range(taps[1]):
            y = kh * geometry.dilation[0] + planes.top - geometry.padding[0]
            x = kw * geometry.dilation[1] + planes.left - geometry.padding[1]
            which = y % planes.stride_h * planes.phases_w + x % planes.stride_w
            offsets.append(which * planes.phase + y // planes.stride_h * planes.pitch + x // planes.stride_w)
    return np.asarray(offsets, np.int64)


@lru_cache(maxsize=256)
def tile_segments(planes: Planes, pitch: int, readable: int) -> np.ndarray:
    """Where the lanes of every tile go: int32, for planes.h.

    A tile is 16 output positions in a line over rows of the image with `pitch`; the last begins early where it would
    reach beyond `readable` positions. A segment is lanes that lie in one row of one phase, or that go on from there:
    (element of lane 0, lanes as bits) without phases, lane i at element + i; with phases (element of the first lane,
    lanes), and the lanes are next to each other from there on.
    """
    positions = (planes.height - 1) * pitch + planes.width
    begins = np.arange(0, positions, LINE)
    starts = begins - np.maximum(0, begins + LINE - readable)
    lane = np.arange(LINE)
    position = starts[:, None] + lane
    h, w = position // pitch, position % pitch
    y, x = h + planes.top, w + planes.left
    stored = (y % planes.stride_h < planes.phases_h) & (x % planes.stride_w < planes.phases_w)
    here = (position >= begins[:, None]) & (position < positions) & (w < planes.width) & stored
    phase = y % planes.stride_h * planes.phases_w + x % planes.stride_w
    element = phase * planes.phase + y // planes.stride_h * planes.pitch + x // planes.stride_w
    tile, lanes = np.nonzero(here)
    row = h[here] if planes.stride_w > 1 else np.zeros_like(tile)
    keys = np.stack([tile, row, element[here] * planes.stride_w - lanes], 1)
    found, which = np.unique(keys, axis=0, return_inverse=True)
    bits = np.zeros(len(found), np.int64)
    np.bitwise_or.at(bits, which.reshape(-1), 1 << lanes)
    to = found[:, 2] if planes.stride_w == 1 else np.full(len(found), np.iinfo(np.int64).max)
    if planes.stride_w > 1:
        np.minimum.at(to, which.reshape(-1), element[here])
    first = np.searchsorted(found[:, 0], np.arange(len(begins) + 1))
    return np.concatenate([[len(begins)], first, np.stack([to, bits], 1).reshape(-1)]).astype(np.int32)
