"""Runs a network level by level over the calibration data, each level on what the ones before have become.

A level is the set of layers whose inputs depend on the same earlier layers. Between two levels the live tensors of
every batch lie on disk, so that memory holds one batch of one piece of the network, whatever the network's size.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnx import NodeProto

from ..errors import ModelError
from .layers import Layer
from .network import Network, reads

Feed = dict[str, np.ndarray]


class Plan:
    """Which nodes run before which level's layers; fixed when the walk begins."""

    def __init__(self, network: Network, layers: Sequence[Layer]) -> None:
        owner = {node.name: layer for layer in layers for node in layer.nodes}
        level: dict[str, int] = {}
        self.names: list[list[str]] = []
        """Names of the nodes of each piece: piece i ends before the layers of level i."""
        self.levels: list[list[Layer]] = []
        pieces: dict[int, list[str]] = {}
        layer_level: dict[str, int] = {}
        for node in network.nodes:
            depth = max((level.get(name, 0) for name in reads(node)), default=0)
            layer = owner.get(node.name)
            pieces.setdefault(depth + (layer is not None), []).append(node.name)
            if layer is not None:
                # a weight that several nodes share is decided at the last of them
                layer_level[layer.weight] = max(depth, layer_level.get(layer.weight, 0))
            level.update(dict.fromkeys(node.output, depth + (layer is not None)))
        count = max(pieces, default=0) + 1
        self.names = [pieces.get(i, []) for i in range(count)]
        self.levels = [[la for la in layers if layer_level.get(la.weight) == i] for i in range(count)]


class Stream:
    """One network on its way through the plan; `arrays(i)` are the live tensors of batch i."""

    def __init__(self, network: Network, plan: Plan, feeds: Sequence[Feed], folder: Path) -> None:
        self.network = network
        self.plan = plan
        self.folder = folder
        self.batches = len(feeds)
        self.where: dict[str, str] = {}
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in network.inputs:
            self.where[name] = f"t{len(self.where)}"
            for i, feed in enumerate(feeds):
                np.save(self._path(name, i), feed[name])
        self.count = len(self.where)
        self.piece = 0
        self.groups: dict[str, list[NodeProto]] = {}
        """Nodes that stand before a node since the walk began, with the node itself last."""

    def _path(self, name: str, batch: int) -> Path:
        return self.folder / f"{self.where[name]}_{batch}.npy"

    def array(self, name: str, batch: int) -> np.ndarray:
        """A live tensor."""
        return np.load(self._path(name, batch))

    def advance(self, extra: Sequence[str] = ()) -> None:
        """Runs the next piece; `extra` names tensors to keep beside those that later nodes read."""
        by_name = {node.name: node for node in self.network.nodes}
        nodes = self._nodes(self.plan.names[self.piece], by_name)
        later = [name for names in self.plan.names[self.piece + 1 :] for name in names]
        needed = {n for node in self._nodes(later, by_name) for n in reads(node)} | set(self.network.outputs)
        needed |= set(extra)
        made = {name for node in nodes for name in node.output if name}
        wanted = sorted(made & needed)
        taken = [n for n in dict.fromkeys(n for node in nodes for n in reads(node)) if n in self.where]
        if wanted:
            self._run(nodes, taken, wanted)
        for name in [n for n in self.where if n not in needed]:
            for i in range(self.batches):
                self._path(name, i).unlink()
            del self.where[name]
        self.piece += 1

    def _nodes(self, names: Sequence[str], by_name: dict[str, NodeProto]) -> list[NodeProto]:
        return [node for name in names for node in self.groups.get(name, [by_name[name]])]

    def _run(self, nodes: Sequence[NodeProto], taken: list[str], wanted: list[str]) -> None:
        first = {name: self.array(name, 0) for name in taken}
        run = session(self.network.piece(nodes, first, wanted).SerializeToString())
        for name in wanted:
            self.where[name] = f"t{self.count}"
            self.count += 1
        for i in range(self.batches):
            results = run.run(wanted, {name: self.array(name, i) for name in taken})
            for name, array in zip(wanted, results, strict=True):
                np.save(self._path(name, i), array)

    def pairs(self, other: Stream, name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(this stream's, the other's) array of each batch."""
        for i in range(self.batches):
            yield self.array(name, i), other.array(name, i)


def session(model: bytes | str, threads: int = 1) -> ort.InferenceSession:
    """Quantized operators run as they are written: no fusion that depends on the CPU.

    Raises:
        ModelError: onnxruntime refuses the model.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common class
        raise ModelError(f"onnxruntime cannot run the model: {str(error).strip().splitlines()[0]}") from None


class Walk:
    """The network as it becomes, `now`, and the dense one beside it, on the same data at the same level."""

    def __init__(
        self, now: Network, dense: Network, layers: Sequence[Layer], feeds: Sequence[Feed], folder: Path
    ) -> None:
        self.plan = Plan(dense, layers)
        self.folder = folder
        self.now = Stream(now, self.plan, feeds, folder / "now")
        self.dense = Stream(dense, self.plan, feeds, folder / "dense")

    def levels(self) -> Iterator[list[Layer]]:
        """Each level's layers, when their inputs are there; the caller changes their weights before the next."""
        for i, level in enumerate(self.plan.levels):
            pending = {name for layers in self.plan.levels[i:] for layer in layers for name in layer.inputs}
            for stream in (self.now, self.dense):
                stream.advance(sorted(pending))
            if level:
                yield level

    def pairs(self, layer: Layer) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(activation now, of the dense network), of every node that shares the layer's weight."""
        for name in dict.fromkeys(layer.inputs):
            yield from self.now.pairs(self.dense, name)

    def outputs(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(output now, of the dense network), once all levels are done."""
        for name in dict.fromkeys(self.now.network.outputs):
            if name in self.now.where:
                yield from self.now.pairs(self.dense, name)

    def close(self) -> None:
        """Removes what was spilled."""
        for stream in (self.now, self.dense):
            shutil.rmtree(stream.folder, ignore_errors=True)
