"""What the commands print, and the files of arrays that they read."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    import numpy as np


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns two blanks apart."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)
    return "\n".join(lines)


def shape_text(shape: Iterable[object]) -> str:
    """`[1, 3, rows]`."""
    return f"[{', '.join(map(str, shape))}]"


def size_text(size: int) -> str:
    """A number of bytes with its unit."""
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.2f} kB"


def _read_arrays(path: Path) -> Any:
    """What `np.load` makes of the file."""
    import numpy as np

    try:
        return np.load(path)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} holds no numpy arrays: {error}") from None


def read_array(path: Path) -> np.ndarray:
    """The array of an `.npy` file."""
    import numpy as np

    array = _read_arrays(path)
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} is an archive of arrays, not a single .npy array")
    return array


def read_archive(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file."""
    import numpy as np

    archive = _read_arrays(path)
    if isinstance(archive, np.ndarray):
        raise InputError(f"{path} is a single array; --inputs takes an .npz archive with one array per input")
    with archive:
        return dict(archive)
