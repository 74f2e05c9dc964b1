"""The C functions of an artifact, called as a C program would: options and statuses as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparsec.runtime_stub.declarations import declarations

ABI_VERSION = 1
OK = 0
ERR_ARGUMENT, ERR_ABI, ERR_CPU, ERR_MEMORY, ERR_SHAPE = range(1, 6)
ERR_DTYPE, ERR_INDEX, ERR_THREADS, ERR_BUSY, ERR_UNPREPARED = range(6, 11)
_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}


class RawContext:
    """A library, its model, and one context once `create` was called."""

    def __init__(self, path: Path, prefix: str = "sparsec_") -> None:
        self.prefix = prefix
        self.ffi = declarations(prefix)
        self.lib = self.ffi.dlopen(str(path))
        self._message = self.ffi.new("char[]", 256)
        model = self.ffi.new(f"const {prefix}model **")
        assert self.call("model_open", ABI_VERSION, model, self._message, 256) == OK
        self.model = model[0]
        self.context = self.ffi.NULL
        self._alive: list[Any] = []

    def call(self, name: str, *arguments: Any) -> Any:
        """A function of sparsec.h by its name without prefix."""
        return getattr(self.lib, self.prefix + name)(*arguments)

    def create(self, **options: Any) -> int:
        """The status of sparsec_context_create; `options` are members of sparsec_options."""
        o = self.ffi.new(f"{self.prefix}options *")
        o.size = self.ffi.sizeof(f"{self.prefix}options")
        for name, value in options.items():
            setattr(o, name, value)
        context = self.ffi.new(f"{self.prefix}context **")
        status = self.call("context_create", self.model, o, context, self._message, 256)
        self.context = context[0]
        return status

    def created_message(self) -> str:
        """What the last `create` had to say."""
        return self.ffi.string(self._message).decode()

    def message(self) -> str:
        """What the last run or prepare had to say."""
        return self.ffi.string(self.call("message", self.context)).decode()

    def prepare(self, shapes: Sequence[tuple[int, ...]]) -> int:
        """The status of sparsec_prepare."""
        rows = self.ffi.new(f"{self.prefix}shape[]", len(shapes))
        extents = [self.ffi.new("int64_t[]", s or (0,)) for s in shapes]
        for row, shape, e in zip(rows, shapes, extents, strict=True):
            row.ndim, row.extents = len(shape), e
        return self.call("prepare", self.context, rows, len(shapes))

    def run(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
        """The status of sparsec_run on arrays, or on `DLTensor *`s as `tensor` makes them."""
        ins = [self.tensor(a) if isinstance(a, np.ndarray) else a for a in inputs]
        outs = [self.tensor(a) if isinstance(a, np.ndarray) else a for a in outputs]
        in_list, out_list = self.ffi.new("const DLTensor *[]", ins), self.ffi.new("DLTensor *[]", outs)
        return self.call("run", self.context, in_list, len(ins), out_list, len(outs))

    def tensor(self, array: np.ndarray) -> Any:
        """A DLTensor on the array's memory; lives as long as this object."""
        tensor = self.ffi.new("DLTensor *")
        shape = self.ffi.new("int64_t[]", array.shape or (0,))
        strides = self.ffi.new("int64_t[]", [s // array.itemsize for s in array.strides] or (0,))
        tensor.data = self.ffi.cast("void *", array.ctypes.data)
        tensor.device.device_type = 1
        tensor.ndim = array.ndim
        tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes = _CODES[array.dtype.kind], 8 * array.itemsize, 1
        tensor.shape, tensor.strides = shape, strides
        self._alive += [shape, strides, array]
        return tensor

    def __enter__(self) -> RawContext:
        return self

    def __exit__(self, *_: object) -> None:
        self.call("context_destroy", self.context)
        self.context = self.ffi.NULL
