"""An ONNX model as lists and dictionaries: what is cheap to walk, to change and to cut into pieces."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from ..errors import ModelError, SparsecError

MIN_OPSET = 13
"""The first with scales per channel in QuantizeLinear and DequantizeLinear."""
_INLINE_LIMIT = 1 << 30
"""Bytes of constants above which they are written to a file of their own: protobuf ends at 2 GiB."""


@dataclass
class Network:
    """Nodes in topological order and all constants by name; `Constant` nodes have become constants."""

    header: onnx.ModelProto
    """The model without nodes and initializers: inputs, outputs, opsets, metadata, functions."""
    nodes: list[NodeProto]
    constants: dict[str, np.ndarray]
    taken: set[str] = field(default_factory=set)
    scales: dict[str, np.ndarray] = field(default_factory=dict)
    """Weight's name -> scale per output [M] on whose grid the weight lies already."""

    @staticmethod
    def load(model: str | os.PathLike[str] | onnx.ModelProto) -> Network:
        """Reads a model and brings it to opset 13 at least.

        Raises:
            ModelError: the file is no ONNX model, or its opset cannot be raised.
        """
        proto = _read(model)
        opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), MIN_OPSET)
        if opset < MIN_OPSET:
            proto = _upgraded(proto, opset)
        constants = {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}
        nodes = []
        for node in proto.graph.node:
            value = _constant(node)
            if value is not None:
                constants[node.output[0]] = value
            else:
                nodes.append(NodeProto())
                nodes[-1].CopyFrom(node)
        inputs = [i for i in proto.graph.input if i.name not in constants]
        outputs = list(proto.graph.output)
        header = onnx.ModelProto()
        header.CopyFrom(proto)
        for name in ("node", "initializer", "input", "output", "value_info"):
            header.graph.ClearField(name)
        header.graph.input.extend(inputs)
        header.graph.output.extend(outputs)
        network = Network(header, nodes, constants)
        network.taken = {n for node in nodes for n in (*node.output, node.name)} | set(constants)
        network._name_nodes()
        return network

    def _name_nodes(self) -> None:
        """Every node gets a name of its own."""
        seen: set[str] = set()
        for node in self.nodes:
            if not node.name or node.name in seen:
                node.name = self.fresh(node.name or f"{node.op_type}_{node.output[0]}")
            seen.add(node.name)

    def copy(self) -> Network:
        """A network whose nodes and tables may be changed; arrays are shared, and never written in place."""
        nodes = []
        for node in self.nodes:
            nodes.append(NodeProto())
            nodes[-1].CopyFrom(node)
        return Network(self.header, nodes, dict(self.constants), set(self.taken), dict(self.scales))

    def fresh(self, stem: str) -> str:
        """A name that nothing has yet."""
        name, number = stem, 0
        while name in self.taken:
            number += 1
            name = f"{stem}_{number}"
        self.taken.add(name)
        return name

    def add_constant(self, stem: str, value: np.ndarray) -> str:
        """Stores an array under a new name and returns the name."""
        name = self.fresh(stem)
        self.constants[name] = np.asarray(value)
        return name

    @property
    def inputs(self) -> list[str]:
        """Names of the graph's inputs."""
        return [i.name for i in self.header.graph.input]

    @property
    def outputs(self) -> list[str]:
        """Names of the graph's outputs."""
        return [o.name for o in self.header.graph.output]

    def consumers(self) -> dict[str, list[NodeProto]]:
        """The nodes that read each tensor, those with bodies that read it from inside included."""
        readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(reads(node)):
                readers.setdefault(name, []).append(node)
        return readers

    def model(self) -> onnx.ModelProto:
        """The whole network as a model; constants that nothing reads are left out."""
        model = onnx.ModelProto()
        model.CopyFrom(self.header)
        model.graph.node.extend(self.nodes)
        used = {n for node in self.nodes for n in reads(node)} | set(self.outputs)
        model.graph.initializer.extend(_tensors(self.constants, used))
        return model

    def piece(self, nodes: Sequence[NodeProto], feeds: Mapping[str, Any], outputs: Iterable[str]) -> onnx.ModelProto:
        """A model of some nodes: its inputs are the arrays `feeds`, its outputs the named tensors."""
        model = onnx.ModelProto()
        model.CopyFrom(self.header)
        for name in ("input", "output"):
            model.graph.ClearField(name)
        used = {n for node in nodes for n in reads(node)}
        for name, array in feeds.items():
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            model.graph.input.append(helper.make_tensor_value_info(name, kind, None))
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(_tensors(self.constants, used))
        return model

    def save(self, path: Path) -> None:
        """Writes the model; large constants go to `NAME.data` beside it."""
        model = self.model()
        if sum(c.nbytes for c in self.constants.values()) > _INLINE_LIMIT:
            onnx.save(model, str(path), save_as_external_data=True, location=f"{path.name}.data")
            return
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            partial.write_bytes(model.SerializeToString(deterministic=True))
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise SparsecError(f"cannot write {path}: {error.strerror}") from None


def reads(node: NodeProto) -> list[str]:
    """Tensors that a node reads, from inside of its bodies too."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for body in [attribute.g, *attribute.graphs] if attribute.HasField("g") or attribute.graphs else []:
            own = {i.name for i in body.input} | {i.name for i in body.initializer}
            own |= {o for inner in body.node for o in inner.output}
            names += [n for inner in body.node for n in reads(inner) if n not in own]
            names += [o.name for o in body.output if o.name not in own]
    return names


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """Value of an attribute, or the default."""
    for item in node.attribute:
        if item.name == name:
            return helper.get_attribute_value(item)
    return default


def _read(model: str | os.PathLike[str] | onnx.ModelProto) -> onnx.ModelProto:
    if isinstance(model, onnx.ModelProto):
        return model
    try:
        return onnx.load(os.fspath(model))
    except OSError:
        raise
    except Exception as error:  # protobuf's own, whose classes differ between its implementations
        raise ModelError(f"{os.fspath(model)} is no ONNX model: {error}") from None


def _upgraded(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    from onnx import version_converter

    try:
        return version_converter.convert_version(proto, MIN_OPSET)
    except Exception as error:  # the converter raises RuntimeError and others for operators it cannot convert
        first = str(error).strip().splitlines()[0]
        raise ModelError(
            f"the model has opset {opset}, sparsify needs {MIN_OPSET} or newer and cannot raise it ({first}); "
            f"export the model again with opset {MIN_OPSET}"
        ) from None


def _constant(node: NodeProto) -> np.ndarray | None:
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    item = node.attribute[0]
    value = helper.get_attribute_value(item)
    if item.name == "value":
        return numpy_helper.to_array(value)
    if item.name in ("value_float", "value_floats"):
        return np.array(value, np.float32)
    if item.name in ("value_int", "value_ints"):
        return np.array(value, np.int64)
    return None


def _tensors(constants: Mapping[str, np.ndarray], used: set[str]) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.asarray(a, order="C"), n) for n, a in constants.items() if n in used]
