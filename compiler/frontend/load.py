"""Reading an ONNX model without ever copying its weights through protobuf.

Initializers leave the proto right after parsing and live on as numpy arrays: a view of the parsed bytes, or a
copy-on-write memory map of the external data file, so models beyond 2 GB take no more memory than their pages in use.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from google.protobuf.message import Message
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from ...errors import ModelError
from .names import label

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SUBGRAPH_INLINE_BYTES = 4096
"""Constants of subgraphs and of Constant nodes up to this size stay in the proto."""

_KEY = "sparsec_weight"


@dataclass
class LoadedModel:
    """A checked model: `proto` holds no initializers, `weights` has them by tensor name."""

    proto: ModelProto
    weights: dict[str, np.ndarray]
    sha256: str
    """Of the model file and then of its external data files, in the order of their first use."""
    path: Path | None = None
    opsets: dict[str, int] = field(default_factory=dict)


def load(source: str | os.PathLike[str] | ModelProto) -> LoadedModel:
    """Read and check a model, from a file or a proto in memory (which is left as it was).

    Raises:
        ModelError: not an ONNX file, cut short, cyclic, with duplicate names or missing external data, or against the
            ONNX specification.
    """
    digest = hashlib.sha256()
    if isinstance(source, ModelProto):
        proto, path = source, None
        digest.update(_proto_bytes(source))
    else:
        path = Path(source)
        proto = _parse(path, digest)
    if not proto.HasField("graph") or (not proto.graph.node and not proto.graph.output):
        raise ModelError(f"{path or 'the model'} is not an ONNX model: it holds no graph.")
    opsets = {o.domain if o.domain != "ai.onnx" else "": o.version for o in proto.opset_import}
    if not opsets:
        raise ModelError(f"{path or 'the model'} names no opset; is it an ONNX model?")
    _check_opset(opsets)
    weights, owned = _split_weights(proto, path, digest)
    loaded = LoadedModel(owned, weights, digest.hexdigest(), path, opsets)
    _check_names(loaded)
    _sort_nodes(loaded)
    _check_nodes(loaded)
    return loaded


def tensor_array(tensor: TensorProto, weights: dict[str, np.ndarray]) -> np.ndarray:
    """The value of a tensor that stayed in the proto, or of the array it was replaced by."""
    for entry in tensor.external_data:
        if entry.key == _KEY:
            return weights[entry.value]
    return numpy_helper.to_array(tensor)


def _parse(path: Path, digest: hashlib._Hash) -> ModelProto:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"Cannot read {path}: {error.strerror or error}.") from None
    digest.update(data)
    proto = ModelProto()
    try:
        proto.ParseFromString(data)
    except Exception:  # protobuf raises its own DecodeError, or a RuntimeError
        raise ModelError(f"{path} is not an ONNX model, or is damaged or cut short.") from None
    if (text := _undecoded(proto)) is not None:
        raise ModelError(f"{path} is damaged: a name in it is not UTF-8: {text!r}.")
    return proto


def _undecoded(message: Message) -> bytes | None:
    """A text that protobuf could not decode and left as bytes: damage shows there."""
    for kind, value in message.ListFields():
        if kind.type == kind.TYPE_STRING:
            for text in value if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else (value,):
                if isinstance(text, bytes):
                    return text
        elif kind.type == kind.TYPE_MESSAGE:
            for inner in (value,) if isinstance(value, Message) else value:
                if (text := _undecoded(inner)) is not None:
                    return text
    return None


def _proto_bytes(proto: ModelProto) -> bytes:
    try:
        return proto.SerializeToString(deterministic=True)
    except Exception:
        raise ModelError(
            "The model in memory is larger than protobuf's 2 GB: save it with external data and pass the path."
        ) from None


def _check_opset(opsets: dict[str, int]) -> None:
    newest = onnx.defs.onnx_opset_version()
    version = opsets.get("")
    if version is not None and not 1 <= version <= newest:
        raise ModelError(
            f"The model uses opset {version}; opsets 1 to {newest} can be read. "
            "Re-export it, or convert it with onnx.version_converter."
        )


# ---- weights ---------------------------------------------------------------------------------------------------------


def _split_weights(
    proto: ModelProto, path: Path | None, digest: hashlib._Hash
) -> tuple[dict[str, np.ndarray], ModelProto]:
    """All initializers as arrays, and a proto without them. A caller's proto is not changed."""
    external = _ExternalData(path, digest)
    graph = proto.graph
    weights: dict[str, np.ndarray] = {}
    for tensor in graph.initializer:
        if tensor.name in weights:
            raise ModelError(f"Two initializers are named '{tensor.name}'.")
        weights[tensor.name] = _take(tensor, external, free=path is not None)
    for sparse in graph.sparse_initializer:
        weights[sparse.values.name] = _dense(sparse)
    if path is None:
        copy = ModelProto(ir_version=proto.ir_version)
        copy.opset_import.extend(proto.opset_import)
        copy.functions.extend(proto.functions)
        copy.graph.name = graph.name
        copy.graph.node.extend(graph.node)
        copy.graph.input.extend(graph.input)
        copy.graph.output.extend(graph.output)
        copy.graph.value_info.extend(graph.value_info)
        proto = copy
    else:
        del graph.initializer[:]
        del graph.sparse_initializer[:]
    for where, tensor in _inner_tensors(proto):
        size = len(tensor.raw_data)
        if tensor.data_location == TensorProto.EXTERNAL or size > _SUBGRAPH_INLINE_BYTES:
            key = f"{where}/{tensor.name or 'value'}"
            while key in weights:
                key += "'"
            weights[key] = _take(tensor, external, free=True)
            del tensor.external_data[:]
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key=_KEY, value=key)
    return weights, proto


def _inner_tensors(proto: ModelProto) -> Iterator[tuple[str, TensorProto]]:
    """Tensors in attributes and in subgraphs' initializers."""
    queue: deque[tuple[str, Iterable[NodeProto]]] = deque([("", proto.graph.node)])
    queue.extend((f.name, f.node) for f in proto.functions)
    while queue:
        where, nodes = queue.popleft()
        for node in nodes:
            here = f"{where}/{node.name or (node.output[0] if node.output else node.op_type)}"
            for attribute in node.attribute:
                if attribute.type == AttributeProto.TENSOR:
                    yield here, attribute.t
                elif attribute.type == AttributeProto.GRAPH:
                    for tensor in attribute.g.initializer:
                        yield f"{here}/{attribute.name}", tensor
                    queue.append((f"{here}/{attribute.name}", attribute.g.node))


def _take(tensor: TensorProto, external: _ExternalData, free: bool) -> np.ndarray:
    """A tensor's value; small-endian raw bytes are viewed, not decoded. `free` drops the proto's own bytes."""
    if tensor.data_location == TensorProto.EXTERNAL:
        return external.array(tensor)
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        if tensor.HasField("raw_data") and sys.byteorder == "little" and dtype.name not in _PACKED:
            value = np.frombuffer(tensor.raw_data, dtype).reshape(tuple(tensor.dims))
        else:
            value = numpy_helper.to_array(tensor)
    except Exception as error:
        raise ModelError(f"Initializer '{tensor.name}' is damaged: {_first_line(error)}") from None
    if free:
        tensor.ClearField("raw_data")
    return value


_PACKED = {"int4", "uint4", "int2", "uint2", "float4_e2m1fn", "object"}


def _dense(sparse: onnx.SparseTensorProto) -> np.ndarray:
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 2:
        dense[tuple(indices.T)] = values
    else:
        dense.reshape(-1)[indices] = values
    return dense


class _ExternalData:
    """Maps external data files, each once."""

    def __init__(self, path: Path | None, digest: hashlib._Hash) -> None:
        self._base = path.parent.resolve() if path is not None else None
        self._digest = digest
        self._maps: dict[Path, np.ndarray] = {}

    def array(self, tensor: TensorProto) -> np.ndarray:
        entries = {e.key: e.value for e in tensor.external_data}
        location = entries.get("location", "")
        if self._base is None:
            raise ModelError(
                f"Initializer '{tensor.name}' lies in the file '{location}': pass the model's path, not the proto."
            )
        file = (self._base / location).resolve()
        if not location or not file.is_relative_to(self._base):
            raise ModelError(f"Initializer '{tensor.name}' points outside the model's folder: '{location}'.")
        if file not in self._maps:
            self._maps[file] = self._map(file, tensor.name)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        shape = tuple(tensor.dims)
        count = int(np.prod(shape, dtype=np.int64))
        start = int(entries.get("offset", 0))
        length = int(entries.get("length", 0)) or count * dtype.itemsize
        raw = self._maps[file][start : start + length]
        if dtype.name in _PACKED:
            stub = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=shape, raw_data=raw.tobytes())
            return numpy_helper.to_array(stub)
        if raw.nbytes < count * dtype.itemsize:
            raise ModelError(
                f"External data file '{location}' is too short for initializer '{tensor.name}': "
                f"{start + count * dtype.itemsize} bytes needed, {self._maps[file].nbytes} there."
            )
        raw = raw[: count * dtype.itemsize]
        if start % dtype.itemsize:
            raw = raw.copy()
        return raw.view(dtype).reshape(shape)

    def _map(self, file: Path, name: str) -> np.ndarray:
        try:
            empty = file.stat().st_size == 0
            data = np.empty(0, np.uint8) if empty else np.memmap(file, np.uint8, mode="c").view(np.ndarray)
        except OSError:
            raise ModelError(f"Initializer '{name}' needs the external data file '{file.name}', not found.") from None
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                self._digest.update(block)
        return data


# ---- structure -------------------------------------------------------------------------------------------------------


def outer_names(node: NodeProto) -> set[str]:
    """Every tensor that a node reads: its inputs and what its subgraphs capture."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.type == AttributeProto.GRAPH else list(attribute.graphs)
        for graph in graphs:
            names |= _captured(graph)
    return names


def _captured(graph: GraphProto) -> set[str]:
    own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    own |= {name for node in graph.node for name in node.output}
    used = {name for node in graph.node for name in outer_names(node)} | {o.name for o in graph.output}
    return used - own


def _check_names(loaded: LoadedModel) -> None:
    graph = loaded.proto.graph
    seen: dict[str, str] = {}
    for value in graph.input:
        if value.name in seen:
            raise ModelError(f"Two inputs are named '{value.name}'.")
        seen[value.name] = "an input"
    for name in loaded.weights:
        seen.setdefault(name, "an initializer")
    for node in graph.node:
        for name in node.output:
            if name and name in seen:
                raise ModelError(f"Tensor '{name}' is made twice: by {label(node)} and by {seen[name]}.")
            seen[name] = label(node)
    outputs: set[str] = set()
    for value in graph.output:
        if value.name not in seen:
            raise ModelError(f"Output '{value.name}' is made by no node.")
        if not value.name:
            raise ModelError("An output has no name.")
        if value.name in outputs:
            raise ModelError(f"Output '{value.name}' is listed twice; list it once.")
        outputs.add(value.name)
    for node in graph.node:
        for name in sorted(outer_names(node)):
            if name not in seen:
                raise ModelError(f"{label(node)} reads tensor '{name}', which nothing makes.")


def _sort_nodes(loaded: LoadedModel) -> None:
    """Put the nodes in topological order, keeping the given order where it is one."""
    nodes = list(loaded.proto.graph.node)
    maker = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    waiting = [{maker[name] for name in outer_names(node) if name in maker} for node in nodes]
    if all(max(before, default=-1) < i for i, before in enumerate(waiting)):
        return
    users: dict[int, list[int]] = {}
    for i, before in enumerate(waiting):
        for j in before:
            users.setdefault(j, []).append(i)
    missing = [len(before) for before in waiting]
    ready = deque(i for i, count in enumerate(missing) if count == 0)
    order: list[int] = []
    while ready:
        order.append(i := ready.popleft())
        for j in users.get(i, ()):
            missing[j] -= 1
            if missing[j] == 0:
                ready.append(j)
    if len(order) < len(nodes):
        cycle = _find_cycle([i for i in range(len(nodes)) if missing[i]], waiting)
        raise ModelError("The graph has a cycle: " + " -> ".join(label(nodes[i]) for i in [*cycle, cycle[0]]) + ".")
    del loaded.proto.graph.node[:]
    loaded.proto.graph.node.extend(nodes[i] for i in order)


def _find_cycle(stuck: list[int], waiting: list[set[int]]) -> list[int]:
    inside, path, at = set(stuck), [], stuck[0]
    while at not in path:
        path.append(at)
        at = min(waiting[at] & inside)
    return path[path.index(at) :][::-1]


def _check_nodes(loaded: LoadedModel) -> None:
    """onnx.checker on every node whose schema is known; unknown ops are the importer's to report, all at once."""
    context = onnx.checker.C.CheckerContext()
    context.ir_version = loaded.proto.ir_version or onnx.IR_VERSION
    context.opset_imports = dict(loaded.opsets)
    local = {(f.domain, f.name) for f in loaded.proto.functions}
    for node in _all_nodes(loaded.proto.graph):
        domain = "" if node.domain == "ai.onnx" else node.domain
        if (domain, node.op_type) in local or any(a.type == AttributeProto.GRAPH for a in node.attribute):
            continue
        if any(a.type == AttributeProto.TENSOR and a.t.data_location == TensorProto.EXTERNAL for a in node.attribute):
            continue
        if domain not in loaded.opsets or not onnx.defs.has(node.op_type, loaded.opsets[domain], domain):
            continue
        try:
            onnx.checker.check_node(node, context)
        except onnx.checker.ValidationError as error:
            raise ModelError(f"{label(node)} breaks the ONNX specification: {_first_line(error)}") from None


def _all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """The graph's nodes and those of subgraphs."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _all_nodes(attribute.g)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
