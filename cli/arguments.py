"""Kinds of arguments of the commands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

FILE = click.Path(path_type=Path)

Bound = int | tuple[int, int] | list[int | tuple[int, int]] | str


def _bound(text: str) -> int | tuple[int, int]:
    lower, dots, upper = text.partition("..")
    return (int(lower), int(upper)) if dots else int(lower)


class DimType(click.ParamType):
    """A dimension's name with its size, bounds or buckets; the last `=` separates, names may hold others."""

    name = "NAME=INT|LO..HI|INT,INT,…|NAME+NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Bound]:
        """Reads `batch=1`, `batch=1..8`, `seq=16,64,128` or `total=past+seq`."""
        name, _, text = str(value).rpartition("=")
        try:
            bound: Bound = [_bound(size) for size in text.split(",")] if "," in text else _bound(text)
        except ValueError:
            bound = text
            name = name if ".." not in text and re.search(r"[^\d.,+* -]", text) else ""
        if not name:
            self.fail(f"{value!r} is not NAME=INT, NAME=LO..HI, NAME=INT,INT,… or a sum NAME=NAME+NAME", param, ctx)
        return name, bound


class KernelType(click.ParamType):
    """A layer's tensor with the kernel it takes; the last `=` separates."""

    name = "LAYER=KERNEL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Reads `encoder.out=dense`."""
        name, _, kernel = str(value).rpartition("=")
        if not name or not kernel:
            self.fail(f"{value!r} is not LAYER=KERNEL", param, ctx)
        return name, kernel


class TurnsType(click.ParamType):
    """A Loop's name with a number; the last `=` separates."""

    name = "LOOP=INT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Reads `decoder/loop=20`."""
        name, _, text = str(value).rpartition("=")
        if not name or not text.isdecimal():
            self.fail(f"{value!r} is not LOOP=INT", param, ctx)
        return name, int(text)


class SizeType(click.ParamType):
    """A number of bytes, with a unit or without."""

    name = "BYTES|KB|MB|GB"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Reads `48MB`, `1.5 GB`, `900kB` or `48000000`; a unit is a power of 1000."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmg]?)b?", str(value).strip().lower())
        if found is None:
            self.fail(f"{value!r} is not a size such as 48MB", param, ctx)
        return int(float(found[1]) * {"": 1, "k": 1e3, "m": 1e6, "g": 1e9}[found[2]])


class ShapeType(click.ParamType):
    """An input's name with its whole shape."""

    name = "INPUT=INT,INT,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """Reads `image=1,3,48,320`; an axis may be a range."""
        name, _, text = str(value).rpartition("=")
        try:
            shape = tuple(_bound(axis) for axis in text.split(",")) if text else ()
        except ValueError:
            name = ""
        if not name:
            self.fail(f"{value!r} is not INPUT=INT,INT,…", param, ctx)
        return name, shape


class FixedType(click.ParamType):
    """An input's name with its value; the first `=` separates."""

    name = "INPUT=NUMBER|FILE.npy"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """Reads `rate=16000`, `training=false` or `table=table.npy`."""
        name, _, text = str(value).partition("=")
        if not name or not text:
            self.fail(f"{value!r} is not INPUT=NUMBER or INPUT=FILE.npy", param, ctx)
        if text.endswith(".npy"):
            return name, Path(text)
        try:
            return name, json.loads(text.lower())
        except ValueError:
            self.fail(f"{text!r} is no number and no .npy file", param, ctx)


class AssignmentType(click.ParamType):
    """A tensor's name with a file; the first `=` separates."""

    name = "NAME=FILE.npy"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Path]:
        """Reads `image=photo.npy`."""
        name, _, file = str(value).partition("=")
        if not name or not file:
            self.fail(f"{value!r} is not NAME=FILE.npy", param, ctx)
        return name, Path(file)
