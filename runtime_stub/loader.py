"""Loads an artifact and runs it: numpy and cffi, no compiler."""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArtifactError, CpuError, InputError, SparsecError
from .artifact import ABI_VERSION, check_loadable
from .declarations import declarations

_MESSAGE_BYTES = 512
_ERR_ARGUMENT, _ERR_CPU, _ERR_MEMORY, _ERR_THREADS, _ERR_BUSY = 1, 3, 4, 8, 9
_KINDS = {0: "int", 1: "uint", 2: "float", 4: "bfloat"}


@dataclass(frozen=True)
class TensorInfo:
    """An input or output; `shape` holds a dimension's name, or an expression, where it is dynamic."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


def load(
    path: str | os.PathLike[str], threads: int = 1, timed: bool = False, state: Mapping[str, str] | None = None
) -> Model:
    """Opens an artifact and gives it a context of its own.

    Args:
        path: a `.so` that `sparsec build` made.
        threads: how many threads a run may use; -1 for all that CPU affinity and cgroup quota allow.
        timed: whether runs measure each layer: see `Model.layer_seconds`.
        state: output -> input whose value it is in the next run: a recurrent network's hidden state, a cache. `run`
            then neither takes these inputs nor returns these outputs. They begin as zeros and are never copied.

    Raises:
        ArtifactError: not an artifact, cut short, or of another ABI version.
        CpuError: this CPU lacks instructions that the artifact uses.
        InputError: a state's names are not the model's, or its two tensors do not fit each other.
    """
    path = Path(path)
    manifest = check_loadable(path)
    return Model(_Library(path, manifest), threads, timed, state)


_FILES: dict[str, dict[tuple[int, int], int]] = {}
"""path -> (device, inode) of the files that were loaded by it -> number"""


def _name_for_linker(path: Path) -> str:
    """A spelling of the path that no other file was loaded by.

    The dynamic linker takes a name that it knows for the library that it knows, even when a new build has replaced the
    file. Extra slashes and dots tell the builds apart.
    """
    status = path.stat()
    folder, _, name = str(path.resolve()).rpartition("/")
    files = _FILES.setdefault(f"{folder}/{name}", {})
    number = files.setdefault((status.st_dev, status.st_ino), len(files))
    spelling = "".join("/." if bit == "1" else "/" for bit in f"{number:b}") if number else ""
    return f"{folder}{spelling}/{name}"


class _Library:
    """An opened artifact, shared by its contexts."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self.prefix = str(manifest.get("options", {}).get("symbol_prefix", "sparsec_"))
        self.ffi = declarations(self.prefix)
        try:
            self.lib = self.ffi.dlopen(_name_for_linker(path))
        except OSError as error:
            raise ArtifactError(f"cannot load {path}: {error}") from error
        model = self.ffi.new(f"const {self.prefix}model **")
        message = self.ffi.new("char[]", _MESSAGE_BYTES)
        status = self.call("model_open", ABI_VERSION, model, message, _MESSAGE_BYTES)
        if status:
            text = f"{path}: {self.text(message)}"
            raise (CpuError if status == _ERR_CPU else ArtifactError)(text)
        self.model = model[0]
        if "fallbacks" in manifest:
            self.manifest = json.loads(self.text(self.call("manifest", self.model)))

    def call(self, name: str, *arguments: Any) -> Any:
        """A function of sparsec.h by its name without prefix."""
        return getattr(self.lib, self.prefix + name)(*arguments)

    def text(self, pointer: Any) -> str:
        """A C string."""
        return bytes(self.ffi.string(pointer)).decode("utf-8", "replace")


class Model:
    """A loaded artifact with one context: its workspace and its threads.

    `run` may be called from several threads; the calls wait for each other. For runs at the same time, give each thread
    a context of its own with `new_context`.
    """

    def __init__(
        self, library: _Library, threads: int, timed: bool = False, state: Mapping[str, str] | None = None
    ) -> None:
        self._library = library
        self._layer_times = np.zeros(len(library.manifest["layers"]), np.int64) if timed else None
        self._lock = threading.Lock()
        self._is_forked = False
        self._context: Any = None
        self._shapes: Any = None
        self.threads = threads
        self.manifest: dict[str, Any] = library.manifest
        self.inputs = [_info(row) for row in self.manifest["inputs"]]
        self.outputs = [_info(row) for row in self.manifest["outputs"]]
        self.state = dict(state or {})
        self._states = [
            (_index("output", self.outputs, o), _index("input", self.inputs, i)) for o, i in self.state.items()
        ]
        self._create_context()
        self._bind_tensors()
        _MODELS.add(self)

    def _create_context(self) -> None:
        ffi, prefix = self._library.ffi, self._library.prefix
        options = ffi.new(f"{prefix}options *")
        options.size = ffi.sizeof(f"{prefix}options")
        options.threads = self.threads
        if self._layer_times is not None:
            options.layer_nanoseconds = ffi.from_buffer("int64_t[]", self._layer_times)
        pairs = ffi.new(f"{prefix}state[]", self._states)
        options.states, options.n_states = pairs, len(self._states)
        context = ffi.new(f"{prefix}context **")
        message = ffi.new("char[]", _MESSAGE_BYTES)
        status = self._library.call("context_create", self._library.model, options, context, message, _MESSAGE_BYTES)
        if status:
            text = f"{self._library.path}: {self._library.text(message)}"
            raise InputError(text) if status == _ERR_ARGUMENT and self._states else SparsecError(text)
        self._context = context[0]

    def _renew_context(self) -> None:
        """After a fork: the old one has no threads, and is busy for ever if a thread of the parent was running it."""
        values = [self._read_state(i) for _, i in self._states]
        self._library.call("context_destroy", self._context)
        self._context = self._shapes = None
        self._create_context()
        self._is_forked = False
        for (_, i), value in zip(self._states, values, strict=True):
            self._write_state(i, value)

    def _bind_tensors(self) -> None:
        """C structures that every run fills in anew."""
        ffi = self._library.ffi
        bound_inputs, bound_outputs = {i for _, i in self._states}, {o for o, _ in self._states}
        self._free_inputs = [i for i in range(len(self.inputs)) if i not in bound_inputs]
        self._free_outputs = [o for o in range(len(self.outputs)) if o not in bound_outputs]
        self._dtypes = [_numpy_dtype(i) for i in self.inputs]
        self._input_tensors = [_Tensor(self._library, len(i.shape), i.dtype) for i in self.inputs]
        self._output_tensors = [_Tensor(self._library, len(o.shape), o.dtype) for o in self.outputs]
        self._output_dtypes = [_numpy_dtype(o) for o in self.outputs]
        null = ffi.NULL
        ins = [null if i in bound_inputs else t.struct for i, t in enumerate(self._input_tensors)]
        outs = [null if o in bound_outputs else t.struct for o, t in enumerate(self._output_tensors)]
        self._input_array = ffi.new("const DLTensor *[]", ins)
        self._output_array = ffi.new("DLTensor *[]", outs)
        self._shape_array = ffi.new(f"{self._library.prefix}shape[]", max(len(self.inputs), 1))
        for row, tensor in zip(self._shape_array, self._input_tensors, strict=False):
            row.ndim, row.extents = tensor.ndim, tensor.shape
        self._extents = ffi.new("int64_t[16]")
        self._ndim = ffi.new("int32_t *")

    def new_context(self, threads: int | None = None) -> Model:
        """Another context of the same artifact, for another thread; its states begin anew."""
        count = self.threads if threads is None else threads
        return Model(self._library, count, self._layer_times is not None, self.state)

    def layer_seconds(self) -> np.ndarray:
        """Time that each layer of the manifest has taken in all runs together, float64.

        Raises:
            SparsecError: the model was not loaded with `timed`.
        """
        if self._layer_times is None:
            raise SparsecError(f"{self._library.path}: layers are timed only where load(…, timed=True) asks for it")
        return self._layer_times * 1e-9

    @property
    def workspace_bytes(self) -> int:
        """Memory that a context takes beside the artifact's own pages."""
        return int(self._library.call("workspace_bytes", self._library.model))

    def run(self, inputs: Mapping[str, Any], outputs: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """Computes the outputs, by name.

        Args:
            inputs: name -> array: numpy, anything with `__dlpack__`, or a buffer. Read in place where it is compact and
                aligned to its element size.
            outputs: arrays to write into, compact, of the right dtype and shape; those not named are new.

        Raises:
            InputError: a name, dtype, shape or index that does not fit the model.
        """
        arrays = self._arrays(inputs)
        with self._lock:
            self._ensure_context()
            for i, array in zip(self._free_inputs, arrays, strict=True):
                self._input_tensors[i].point_to(array)
            shapes = [a.shape for a in arrays]
            if shapes != self._shapes or self._states:
                self._shapes = None
                self._check(self._library.call("prepare", self._context, self._shape_array, len(self.inputs)))
                self._output_shapes = {o: self._output_shape(o) for o in self._free_outputs}
                self._shapes = shapes
            results = self._results(outputs or {})
            for o, array in zip(self._free_outputs, results.values(), strict=True):
                self._output_tensors[o].point_to(array)
            status = self._library.call(
                "run", self._context, self._input_array, len(self.inputs), self._output_array, len(self.outputs)
            )
            self._check(status)
            return self._cut(results)

    def _cut(self, results: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the run has filled, where only the run could know how much that is."""
        if not self.manifest.get("found_dims"):
            return results
        found = {}
        for o, (name, array) in zip(self._free_outputs, results.items(), strict=True):
            shape = self._output_shape(o)
            found[name] = array.reshape(-1)[: int(np.prod(shape, dtype=np.int64))].reshape(shape)
        return found

    def state_reset(self) -> None:
        """Lets every state begin anew, as zeros."""
        with self._lock:
            self._ensure_context()
            self._check(self._library.call("state_reset", self._context))

    def state_get(self, name: str) -> np.ndarray:
        """A copy of the state that the next run reads as its input `name`."""
        with self._lock:
            self._ensure_context()
            return self._read_state(self._bound_input(name))

    def state_set(self, name: str, value: Any) -> None:
        """Copies an array into the state that the next run reads as its input `name`."""
        with self._lock:
            self._ensure_context()
            index = self._bound_input(name)
            self._write_state(index, _as_array(self.inputs[index], value, self._dtypes[index]))

    def _bound_input(self, name: str) -> int:
        for _, i in self._states:
            if self.inputs[i].name == name:
                return i
        raise InputError(f"{name} is no state; inputs that are: {', '.join(self.state.values()) or 'none'}")

    def _read_state(self, index: int) -> np.ndarray:
        tensor = self._library.ffi.new("DLTensor *")
        self._check(self._library.call("state_get", self._context, index, tensor))
        shape, dtype = tuple(tensor.shape[i] for i in range(tensor.ndim)), self._dtypes[index]
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        data = np.frombuffer(self._library.ffi.buffer(tensor.data, nbytes) if nbytes else b"", dtype)
        if not tensor.strides or not nbytes:
            return data.reshape(shape).copy()
        strides = [tensor.strides[i] * dtype.itemsize for i in range(tensor.ndim)]
        return np.ascontiguousarray(np.lib.stride_tricks.as_strided(data, shape, strides)).copy()

    def _write_state(self, index: int, array: np.ndarray) -> None:
        tensor = self._input_tensors[index]
        tensor.point_to(array)
        self._check(self._library.call("state_set", self._context, index, tensor.struct))

    def _ensure_context(self) -> None:
        if self._context is None:
            raise InputError(f"{self._library.path}: the model has been closed")
        if self._is_forked:
            self._renew_context()

    def _arrays(self, inputs: Mapping[str, Any]) -> list[np.ndarray]:
        free = [self.inputs[i] for i in self._free_inputs]
        names = [i.name for i in free]
        if len(inputs) != len(names) or any(name not in inputs for name in names):
            missing = [n for n in names if n not in inputs]
            unknown = [n for n in inputs if n not in names]
            parts = [f"input {n} is missing" for n in missing] + [f"there is no input {n}" for n in unknown]
            raise InputError(f"{'; '.join(parts)}. The model's inputs: {', '.join(names)}")
        return [_as_array(self.inputs[i], inputs[self.inputs[i].name], self._dtypes[i]) for i in self._free_inputs]

    def _results(self, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [self.outputs[o].name for o in self._free_outputs]
        unknown = [n for n in given if n not in names]
        if unknown:
            raise InputError(f"there is no output {unknown[0]}; the model's: {', '.join(names)}")
        results = {}
        for o in self._free_outputs:
            info, shape, dtype = self.outputs[o], self._output_shapes[o], self._output_dtypes[o]
            array = given.get(info.name)
            if array is None:
                array = np.empty(shape, dtype)
            elif not _is_writable(array, dtype, shape):
                raise InputError(f"output {info.name} must be a writeable, C-contiguous {dtype} array of shape {shape}")
            results[info.name] = array
        return results

    def _output_shape(self, index: int) -> tuple[int, ...]:
        self._check(self._library.call("output_shape", self._context, index, self._ndim, self._extents))
        return tuple(self._extents[i] for i in range(self._ndim[0]))

    def _check(self, status: int) -> None:
        if status:
            text = self._library.text(self._library.call("message", self._context)) or f"status {status}"
            raise (SparsecError if status in (_ERR_MEMORY, _ERR_THREADS, _ERR_BUSY) else InputError)(text)

    def close(self) -> None:
        """Ends the context's threads and frees its workspace. The arrays that runs returned stay valid."""
        with self._lock:
            if self._context is not None:
                self._library.call("context_destroy", self._context)
                self._context = None

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_context", None) is not None:
            self.close()


_MODELS: weakref.WeakSet[Model] = weakref.WeakSet()


def _after_fork() -> None:
    """In the child: a lock may be held by a thread that does not exist here."""
    for model in list(_MODELS):
        model._lock = threading.Lock()
        model._is_forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _Tensor:
    """A DLTensor whose data and shape follow a numpy array."""

    def __init__(self, library: _Library, ndim: int, dtype: str) -> None:
        self._ffi = library.ffi
        self.ndim = ndim
        self.struct = self._ffi.new("DLTensor *")
        self.shape = self._ffi.new("int64_t[]", max(ndim, 1))
        self._strides = self._ffi.new("int64_t[]", max(ndim, 1))
        self.struct.device.device_type = 1
        self.struct.shape = self.shape
        self.struct.ndim = ndim
        code, bits = _dl_type(dtype)
        self.struct.dtype.code, self.struct.dtype.bits, self.struct.dtype.lanes = code, bits, 1

    def point_to(self, array: np.ndarray) -> None:
        """Refers to the array's memory; the caller keeps it alive."""
        self.struct.data = self._ffi.cast("void *", array.__array_interface__["data"][0])
        for i, extent in enumerate(array.shape):
            self.shape[i] = extent
        if array.flags.c_contiguous:
            self.struct.strides = self._ffi.NULL
            return
        for i, stride in enumerate(array.strides):
            self._strides[i] = stride // array.itemsize
        self.struct.strides = self._strides


def _index(kind: str, infos: Sequence[TensorInfo], name: str) -> int:
    names = [i.name for i in infos]
    if name not in names:
        raise InputError(f"there is no {kind} {name} to bind as a state; the model's: {', '.join(names)}")
    return names.index(name)


def _info(row: Mapping[str, Any]) -> TensorInfo:
    return TensorInfo(row["name"], row["dtype"], tuple(row["shape"]))


def _dl_type(dtype: str) -> tuple[int, int]:
    if dtype == "bool":
        return 6, 8
    kind = dtype.rstrip("0123456789")
    return {name: code for code, name in _KINDS.items()}[kind], int(dtype[len(kind) :])


def _numpy_dtype(info: TensorInfo) -> np.dtype:
    if info.dtype == "bfloat16":
        try:
            import ml_dtypes
        except ImportError as error:
            raise SparsecError(f"{info.name} is bfloat16: pip install ml_dtypes") from error
        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(info.dtype)


def _is_writable(array: Any, dtype: np.dtype, shape: tuple[int, ...]) -> bool:
    """Whether a run may write its output there."""
    return (
        isinstance(array, np.ndarray)
        and array.dtype == dtype
        and array.shape == shape
        and array.flags.c_contiguous
        and array.flags.writeable
    )


def _view(value: Any) -> np.ndarray:
    if hasattr(value, "__dlpack__"):
        return np.from_dlpack(value)
    if isinstance(value, Sequence | int | float) and not isinstance(value, bytes | bytearray):
        return np.asarray(value)
    return np.asarray(memoryview(value))


def _as_array(info: TensorInfo, value: Any, dtype: np.dtype) -> np.ndarray:
    """A numpy view of the caller's array, with dtype and rank checked."""
    if isinstance(value, np.ndarray):
        array = value
    else:
        try:
            array = _view(value)
        except (TypeError, ValueError, BufferError, RuntimeError) as error:
            raise InputError(f"input {info.name}: cannot read a {type(value).__name__} as an array: {error}") from error
    if array.dtype != dtype:
        raise InputError(f"input {info.name} is {array.dtype}, the model has {info.dtype}: convert it first")
    if array.ndim != len(info.shape):
        raise InputError(
            f"input {info.name} has shape {list(array.shape)}, the model takes [{', '.join(map(str, info.shape))}]"
        )
    if any(s % array.itemsize for s in array.strides):
        array = np.ascontiguousarray(array)
    return array
