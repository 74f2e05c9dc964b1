"""`sparsec.sparsify`: the whole way from a dense model to a sparse and quantized one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import SparsecError
from .allocate import GRID, allocate
from .data import Feed, load_feeds, python_function, runner
from .masks import check_suffix, write_masks
from .network import Network
from .oneshot import Outcome, Progress, prunable, run
from .patterns import Pattern
from .recipe import Pruning, Quantization, Recipe
from .search import Candidate, Ledger, fast_enough, key, within_drop
from .sources import load_weights, refuse_quantized
from .speed import milliseconds, runs_here

if TYPE_CHECKING:
    import onnx

    from .cost import LayerCosts

PathLike = str | os.PathLike[str]
Data = PathLike | Mapping[str, np.ndarray] | Iterable[Mapping[str, np.ndarray]]
Metric = Callable[[Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]], float]


def sparsify(
    model: PathLike | onnx.ModelProto,
    *,
    data: Data,
    weights: PathLike | None = None,
    output: PathLike | None = None,
    sparsity: float | None = None,
    pattern: str | None = None,
    quantize: str | None = None,
    exclude: Sequence[str] = (),
    recipe: Recipe | PathLike | None = None,
    write_recipe: PathLike | None = None,
    target: str | None = None,
    speedup: float | None = None,
    max_drop: float | None = None,
    metric: str | Metric | None = None,
    masks: PathLike | None = None,
    report: PathLike | None = None,
    work: PathLike | None = None,
    seed: int | None = None,
    on_progress: Progress = lambda *_: None,
) -> Outcome:
    """Makes a dense model sparse and quantizes it, with calibration data and without training.

    Args:
        model: path of an ONNX file, or a `ModelProto`.
        data: inputs to calibrate on: an .npz file, a folder of them, `python:module:function`, or dictionaries of
            arrays.
        weights: checkpoint (.safetensors, or a folder of them) whose weights replace those of `model`; also one that
            llm-compressor wrote, pruned or quantized.
        output: where to write the model; None to have it only in the result.
        sparsity: share of zeros among the weights of the layers, 0 to 1.
        pattern: `unstructured`, RxC such as `1x4`, or N:M such as `2:4`.
        quantize: `int8` or `none`.
        exclude: names of nodes or weights that stay as they are; `*` matches anything.
        recipe: all of this and more as a `Recipe` or a YAML file; the other arguments override it.
        write_recipe: where to write, as YAML, what was done, each layer's sparsity included.
        target: a row of `sparsec targets`; with it sparsity goes where this target's cost model gains by it.
        speedup: search for the least sparsity that makes the model so many times as fast as the dense one, measured
            here.
        max_drop: search for the highest sparsity that lowers the metric by no more than this.
        metric: function, or `python:module:function`, that takes `run(inputs) -> outputs`, both dictionaries of arrays,
            and returns a number that is better when it is higher.
        masks: where to write the masks, .npz or .safetensors.
        report: where to write an HTML report.
        work: folder in which a run that was stopped finds what it had done; by default nothing is kept.
        seed: of every random choice.
        on_progress: called with (what, done, of how many).

    Raises:
        SparsecError: an argument is out of range, or the search finds nothing; ModelError, InputError, ToolchainError:
            see `sparsec.errors`.
    """
    plan = _merge(recipe, sparsity, pattern, quantize, exclude, seed, searching=(max_drop or speedup) is not None)
    _check_search(plan, max_drop, speedup, metric)
    if masks is not None:
        check_suffix(Path(masks))
    _check_files(output, masks, report, write_recipe)
    score = python_function(metric) if isinstance(metric, str) else metric
    network = Network.load(model)
    refuse_quantized(network)
    if weights is not None:
        network.scales = load_weights(network, Path(weights))
    feeds = load_feeds(data, network)
    with _folder(work) as root:
        folder = root / key(network.model().SerializeToString(deterministic=True), _digestible(feeds), plan, target)
        folder.mkdir(exist_ok=True)
        job = _Job(network, plan, feeds, folder, target, score, speedup is not None, on_progress)
        if max_drop is not None:
            outcome = job.outcome(within_drop(job.candidate, job.dense_metric(), max_drop).sparsity)
        elif speedup is not None:
            outcome = job.outcome(fast_enough(job.candidate, speedup).sparsity)
        else:
            outcome = job.outcome(plan.pruning.sparsity if plan.pruning else 0.0)
        outcome.candidates = job.ledger.rows
        if score is not None:
            outcome.metrics = (job.dense_metric(), score(runner(outcome.network.model().SerializeToString())))
    _write(outcome, output, masks, report, write_recipe)
    return outcome


class _Job:
    """One model, one recipe and one set of data, at any sparsity."""

    def __init__(
        self, network: Network, plan: Recipe, feeds: list[Feed], folder: Path, target: str | None,
        score: Metric | None, timed: bool, progress: Progress,
    ) -> None:  # fmt: skip
        self.network = network
        self.plan = plan
        self.feeds = feeds
        self.folder = folder
        self.target = target
        self.score = score
        self.timed = timed or (target is not None and runs_here(target))
        self.progress = progress
        self.ledger = Ledger(folder)
        self.made: dict[float, Outcome] = {}
        self.harm: dict[str, np.ndarray] = {}
        self._dense_metric: float | None = None
        self._dense_ms: float | None = None
        self._costs: LayerCosts | None = None

    def dense_metric(self) -> float:
        """Of the model as it was given."""
        assert self.score is not None
        if self._dense_metric is None:
            self._dense_metric = float(self.score(runner(self.network.model().SerializeToString())))
        return self._dense_metric

    def at(self, sparsity: float) -> Recipe:
        """The recipe with another sparsity."""
        pruning = self.plan.pruning
        if pruning is None:
            return self.plan
        dense = sparsity == 0 and Pattern.parse(pruning.pattern).fixed_sparsity is None
        return replace(self.plan, pruning=None if dense else replace(pruning, sparsity=sparsity))

    def outcome(self, sparsity: float) -> Outcome:
        """The finished network at a sparsity."""
        if sparsity not in self.made:
            plan = self.at(sparsity)
            with tempfile.TemporaryDirectory(prefix="spill-", dir=self.folder) as spill:
                sparsities: dict[str, float] = {}
                if plan.pruning is not None:
                    sparsities = allocate(
                        self.network, plan, self.feeds, Path(spill), self.progress, self.costs(), self.harm
                    )
                keep = self.folder / f"layers_{key(sorted(sparsities.items()))}"
                keep.mkdir(exist_ok=True)
                done = run(self.network, plan, self.feeds, Path(spill), sparsities, self.progress, keep)
            for name, errors in self.harm.items():
                done.layers[name].sensitivity = float(np.interp(sparsities.get(name, 0.0), GRID, errors))
            done.recipe = replace(plan, pruning=replace(plan.pruning, layers=sparsities) if plan.pruning else None)
            # only the last is kept: networks are large, and candidates are on disk
            self.made = {sparsity: done}
        return self.made[sparsity]

    def candidate(self, sparsity: float) -> Candidate:
        """The finished network at a sparsity, scored and timed as far as was asked for; from disk if it is there."""
        return self.ledger.get(sparsity, self._make)

    def _make(self, sparsity: float) -> Candidate:
        done = self.outcome(sparsity)
        path = self.folder / f"candidate_{sparsity:g}.onnx"
        done.network.save(path)
        score = self.score(runner(path.read_bytes())) if self.score is not None else None
        speedup = None
        if self.timed:
            self.progress("timing", 0, 1)
            speedup = self.dense_ms() / milliseconds(path, self.feeds[0], self.target or "native")
        return Candidate(sparsity, score, speedup, done.output_error, path.stat().st_size, path.name)

    def dense_ms(self) -> float:
        """Measured time of the model as it was given."""
        if self._dense_ms is None:
            self._dense_ms = milliseconds(self.dense_file(), self.feeds[0], self.target or "native")
        return self._dense_ms

    def dense_file(self) -> Path:
        """The model as it was given, at an opset that quantization needs."""
        path = self.folder / "dense.onnx"
        if not path.is_file():
            self.network.save(path)
        return path

    def costs(self) -> LayerCosts | None:
        """What the target's cost model says of each layer; None without a target."""
        if self.target is None or self.plan.pruning is None or self.plan.pruning.allocation != "sensitivity":
            return None
        if self._costs is None:
            from .cost import layer_costs

            layers = [la for la in prunable(self.network, self.plan.pruning) if not la.fixed]
            self._costs = layer_costs(
                self.dense_file(), self.network, layers, self.feeds[0], self.plan.pruning.pattern, self.target
            )
        return self._costs


def _merge(
    recipe: Recipe | PathLike | None, sparsity: float | None, pattern: str | None, quantize: str | None,
    exclude: Sequence[str], seed: int | None, searching: bool,
) -> Recipe:  # fmt: skip
    """The recipe with the single arguments put in; without a recipe int8 is on."""
    plan = Recipe(quantization=Quantization()) if recipe is None else recipe
    plan = plan if isinstance(plan, Recipe) else Recipe.read(Path(plan))
    if sparsity is not None or pattern is not None or (searching and plan.pruning is None):
        pruning = plan.pruning or Pruning(0.0)
        pruning = pruning if sparsity is None else replace(pruning, sparsity=sparsity)
        plan = replace(plan, pruning=pruning if pattern is None else replace(pruning, pattern=pattern))
    if quantize not in (None, "int8", "none"):
        raise SparsecError(f"unknown --quantize {quantize!r}; it is int8 or none")
    if quantize is not None:
        plan = replace(plan, quantization=None if quantize == "none" else plan.quantization or Quantization())
    if exclude and plan.pruning:
        plan = replace(plan, pruning=replace(plan.pruning, ignore=(*plan.pruning.ignore, *exclude)))
    if exclude and plan.quantization:
        plan = replace(plan, quantization=replace(plan.quantization, ignore=(*plan.quantization.ignore, *exclude)))
    plan = plan if seed is None else replace(plan, seed=seed)
    plan.check()
    if plan.pruning is None and plan.quantization is None:
        raise SparsecError("nothing to do: give --sparsity, --pattern N:M or --quantize int8")
    return plan


def _check_search(plan: Recipe, max_drop: float | None, speedup: float | None, metric: object) -> None:
    if max_drop is None and speedup is None:
        return
    if max_drop is not None and speedup is not None:
        raise SparsecError("--max-drop and --speedup are two ends of one curve; give one of them")
    if max_drop is not None and metric is None:
        raise SparsecError("--max-drop needs --metric python:module:function")
    if plan.pruning is not None and ":" in plan.pruning.pattern:
        raise SparsecError(f"the sparsity of pattern {plan.pruning.pattern} is fixed; there is nothing to search for")


def _check_files(*paths: PathLike | None) -> None:
    """Before the work is done, not after."""
    for path in paths:
        if path is not None and not Path(path).parent.is_dir():
            raise SparsecError(f"cannot write {path}: the folder {Path(path).parent} does not exist")


@contextmanager
def _folder(work: PathLike | None) -> Iterator[Path]:
    if work is None:
        with tempfile.TemporaryDirectory(prefix="sparsec-sparsify-") as folder:
            yield Path(folder)
        return
    path = Path(work)
    path.mkdir(parents=True, exist_ok=True)
    yield path


def _digestible(feeds: Iterable[Feed]) -> str:
    return key(*(part for feed in feeds for name, array in sorted(feed.items()) for part in (name, array.tobytes())))


def _write(
    outcome: Outcome,
    output: PathLike | None,
    masks: PathLike | None,
    report: PathLike | None,
    write_recipe: PathLike | None,
) -> None:  # fmt: skip
    if output is not None:
        outcome.network.save(Path(output))
    if masks is not None:
        write_masks(Path(masks), outcome.masks)
    if write_recipe is not None and outcome.recipe is not None:
        outcome.recipe.write(Path(write_recipe))
    if report is not None:
        from .report import write_report

        write_report(outcome, Path(report))
