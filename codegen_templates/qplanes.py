"""Planes of quantized images: [image][channel / 4][phase][position][4 channels] of u8, padded with the zero point.

Four channels of one position are a unit of the integer kernels. Positions of a row lie together, the next row begins
`pitch` further on; the gap between two rows is the right padding of one and the left padding of the next. So a tap of
a convolution is a constant offset, and 16 positions in a row, whatever rows they belong to, are one vector.

A convolution with strides reads phases: phase (i, j) holds every stride-th row and column of the padded image from row
i and column j on. There a tap is an offset again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .use import Size

TILE = 16
GROUP = 4
"""Channels that lie together."""


@dataclass(frozen=True)
class Geometry:
    """Taps, strides, dilation and padding (top, left, bottom, right) of a 2-D window operation."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int, int, int]

    def reach(self) -> tuple[int, int]:
        """Rows and columns from the first tap to the last."""
        return tuple((k - 1) * d for k, d in zip(self.kernel, self.dilation, strict=True))  # type: ignore[return-value]

    def taps(self) -> list[tuple[int, int]]:
        """(row, column) in the padded image, for output (0, 0)."""
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        return [(y * dh, x * dw) for y in range(kh) for x in range(kw)]


@dataclass(frozen=True)
class Planes:
    """Row r, column c of a phase (i, j) holds row r * strides[0] + i - top, column c * strides[1] + j - left."""

    height: int
    width: int
    """Of the image."""
    pitch: int
    lead: int
    """Positions of padding before the first row, a multiple of 16."""
    positions: int
    """Of one phase, padding included: an odd number of cache lines, so that planes do not meet in one set."""
    strides: tuple[int, int] = (1, 1)
    top: int = 0
    left: int = 0
    phases: tuple[tuple[int, int], ...] = ((0, 0),)

    @property
    def plane(self) -> int:
        """Positions of four channels, all phases."""
        return self.positions * len(self.phases)

    def shape(self, images: Size, channels: int) -> tuple[Size, ...]:
        """Of the array."""
        return images, groups(channels), self.plane, GROUP


def groups(channels: int) -> int:
    """Planes that hold so many channels."""
    return -(-channels // GROUP)


def tiles_of(height: int, width: int, pitch: int) -> int:
    """Vectors of 16 positions that cover an image's rows."""
    return -(-((height - 1) * pitch + width) // TILE)


def plain(height: int, width: int, pitch: int, before: int = 0, after: int = 0) -> Planes:
    """Planes that one layer writes and others read from `before` positions earlier to `after` later than their own."""
    lead = -(-before // TILE) * TILE
    lines = -(-(lead + max(tiles_of(height, width, pitch) * TILE + after, height * pitch)) // TILE)
    return Planes(height, width, pitch, lead, (lines | 1) * TILE)


def margins(window: Geometry, pitch: int) -> tuple[int, int]:
    """(before, after): how far a window without strides reads beyond a position."""
    (down, right), (top, left) = window.reach(), window.padding[:2]
    return max(0, top * pitch + left), max(0, (down - top) * pitch + right - left)


def pitch_for(window: Geometry, width: int, out_width: int) -> int:
    """The least pitch of what a window reads and writes."""
    reach = window.reach()[1]
    if window.strides != (1, 1):
        return out_width + reach // window.strides[1]
    left = window.padding[1]
    right = max(0, out_width - 1 + reach - left - (width - 1))
    return max(width + max(left, right), out_width)


def serves(planes: Planes, window: Geometry, out: tuple[int, int], pitch: int) -> bool:
    """Whether a window with output `out` (height, width) at `pitch` can read the planes as they are."""
    if window.strides != (1, 1) or planes.strides != (1, 1) or planes.pitch != pitch:
        return False
    if pitch < pitch_for(window, planes.width, out[1]):
        return False
    before, after = margins(window, pitch)
    return before <= planes.lead and planes.lead + tiles_of(*out, pitch) * TILE + after <= planes.positions


def phased(height: int, width: int, window: Geometry, out: tuple[int, int], pitch: int) -> Planes:
    """The planes that a window reads with strides, or at another pitch; padding is written out."""
    rows, columns = window.strides
    phases = tuple(sorted({(y % rows, x % columns) for y, x in window.taps()}))
    down, right = (reach // stride for reach, stride in zip(window.reach(), window.strides, strict=True))
    needed = max(tiles_of(*out, pitch) * TILE + down * pitch + right, (out[0] + down) * pitch)
    lines = -(-needed // TILE)
    top, left = window.padding[:2]
    return Planes(height, width, pitch, 0, (lines | 1) * TILE, window.strides, top, left, phases)


def tap_offsets(planes: Planes, window: Geometry) -> np.ndarray:
    """Positions from an output's own position in the first phase to what each tap reads there."""
    (rows, columns), top, left = planes.strides, planes.top - window.padding[0], planes.left - window.padding[1]
    offsets = []
    for y, x in window.taps():
        phase = planes.phases.index(((y + top) % rows, (x + left) % columns))
        offsets.append(phase * planes.positions + (y + top) // rows * planes.pitch + (x + left) // columns)
    return np.asarray(offsets, np.int64)


def valid_positions(height: int, width: int, pitch: int) -> tuple[np.ndarray, np.ndarray]:
    """Per tile: (uint16 mask of positions that belong to the image, int32 how many of the image come before)."""
    count = tiles_of(height, width, pitch) * TILE
    position = np.arange(count)
    valid = (position % pitch < width) & (position // pitch < height)
    masks = (valid.reshape(-1, TILE) << np.arange(TILE)).sum(1).astype(np.uint16)
    before = np.concatenate([[0], np.cumsum(valid)])[:-1:TILE].astype(np.int32)
    return masks, before
