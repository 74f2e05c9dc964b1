"""Compiled objects kept between builds, found by the digest of everything that went into them.

In `$SPARSEC_CACHE`, else in `sparsec/objects` of the user's cache folder; `SPARSEC_CACHE=off` switches it off. Weights
never go through it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

_KEPT = 2000
_OFF = "off"


class ObjectCache:
    """A folder of objects; any failure to read or write it only costs time."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    @staticmethod
    def default() -> ObjectCache:
        """The user's."""
        chosen = os.environ.get("SPARSEC_CACHE")
        if chosen == _OFF:
            return ObjectCache(None)
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return ObjectCache(Path(chosen) if chosen else base / "sparsec" / "objects")

    @staticmethod
    def key(parts: Iterable[str | bytes]) -> str:
        """Digest of parts whose borders count."""
        digest = hashlib.sha256()
        for part in parts:
            data = part.encode() if isinstance(part, str) else part
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
        return digest.hexdigest()

    def fetch(self, key: str, destination: Path) -> bool:
        """Copies the object there, if it is known."""
        if self.folder is None:
            return False
        source = self.folder / f"{key}.o"
        try:
            shutil.copyfile(source, destination)
            os.utime(source)
        except OSError:
            return False
        return True

    def store(self, key: str, source: Path) -> None:
        """Keeps an object; the ones unused for longest make room."""
        if self.folder is None:
            return
        partial = self.folder / f".{key}.{os.getpid()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, partial)
            partial.replace(self.folder / f"{key}.o")
            kept = sorted(self.folder.glob("*.o"), key=lambda p: p.stat().st_mtime)
            for old in kept[:-_KEPT]:
                old.unlink(missing_ok=True)
        except OSError:
            partial.unlink(missing_ok=True)
