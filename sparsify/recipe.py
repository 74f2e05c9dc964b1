"""What is to be done to a model, as an object and as a YAML file in the spirit of SparseML's recipes.

version: 1
seed: 0
modifiers:
  - PruningModifier:
      method: alps
      sparsity: 0.8
      pattern: 1x4
      allocation: sensitivity
      ignore: ["classifier*"]
  - QuantizationModifier:
      activations: mse
      rounding: quantease
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..errors import SparsecError
from .methods import METHODS
from .patterns import Pattern
from .quantize.ranges import RANGES
from .quantize.weights import ROUNDINGS

ALLOCATIONS = ("uniform", "global", "sensitivity")
_VERSION = 1


@dataclass(frozen=True)
class Pruning:
    """`targets` and `ignore` are names of nodes or weights, with `*`."""

    sparsity: float
    pattern: str = "unstructured"
    method: str = "alps"
    allocation: str = "uniform"
    """uniform: every layer alike; global: the smallest weights of all layers; sensitivity: measured."""
    correct: bool = True
    """Fit to the dense network's outputs, biases and norms included."""
    targets: tuple[str, ...] = ("*",)
    ignore: tuple[str, ...] = ()
    layers: dict[str, float] = field(default_factory=dict)
    """Sparsity of single layers, by name; they need no allocation."""

    def check(self) -> None:
        """Raises SparsecError where a value is out of range."""
        Pattern.parse(self.pattern)
        _one_of("method", self.method, METHODS)
        _one_of("allocation", self.allocation, ALLOCATIONS)
        for value in (self.sparsity, *self.layers.values()):
            if not 0 <= value < 1:
                raise SparsecError(f"a sparsity of {value} is not between 0 and 1")


@dataclass(frozen=True)
class Quantization:
    """int8 weights per output channel, uint8 activations per tensor."""

    activations: str = "mse"
    rounding: str = "quantease"
    products: bool = True
    """Products of two activations too, as in attention."""
    smooth: float = 0.0
    """Strength of SmoothQuant, 0 to 1; 0 is off."""
    equalize: bool = False
    """Cross-layer equalization of convolutions."""
    tolerance: float = 0.05
    """A layer whose output would change by more than this share of its energy stays float."""
    ignore: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises SparsecError where a value is out of range."""
        _one_of("activations", self.activations, RANGES)
        _one_of("rounding", self.rounding, ROUNDINGS)
        if not 0 <= self.smooth <= 1:
            raise SparsecError(f"smooth: {self.smooth} is not between 0 and 1")


@dataclass(frozen=True)
class Recipe:
    """Pruning, quantization, or both, in this order."""

    pruning: Pruning | None = None
    quantization: Quantization | None = None
    seed: int = 0

    def check(self) -> None:
        """Raises SparsecError where a value is out of range."""
        for part in (self.pruning, self.quantization):
            if part is not None:
                part.check()

    def write(self, path: Path) -> None:
        """As YAML."""
        import yaml

        parts = [("PruningModifier", self.pruning), ("QuantizationModifier", self.quantization)]
        modifiers = [{name: _plain(asdict(part))} for name, part in parts if part is not None]
        text = yaml.safe_dump({"version": _VERSION, "seed": self.seed, "modifiers": modifiers}, sort_keys=False)
        path.write_text(text, encoding="utf-8")

    @staticmethod
    def read(path: Path) -> Recipe:
        """From YAML.

        Raises:
            SparsecError: it is no recipe, or holds something unknown or out of range.
        """
        import yaml

        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise SparsecError(f"{path} is no YAML file: {' '.join(str(error).split())}") from None
        try:
            recipe = _from_plain(content)
            recipe.check()
        except SparsecError as error:
            raise SparsecError(f"{path}: {error}") from None
        return recipe


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def _from_plain(content: Any) -> Recipe:
    if not isinstance(content, dict) or not isinstance(content.get("modifiers"), list):
        raise SparsecError("a recipe has a list `modifiers`")
    if unknown := set(content) - {"version", "seed", "modifiers"}:
        raise SparsecError(f"unknown entry {sorted(map(str, unknown))[0]!r}")
    if content.get("version", _VERSION) != _VERSION:
        raise SparsecError(f"version {content['version']} is not known, only {_VERSION}")
    parts: dict[str, Any] = {}
    kinds = {"PruningModifier": Pruning, "QuantizationModifier": Quantization}
    for item in content["modifiers"]:
        if not isinstance(item, dict) or len(item) != 1 or next(iter(item)) not in kinds:
            raise SparsecError(f"a modifier is one of {', '.join(kinds)}, with its options, not {item!r}")
        name, options = next(iter(item.items()))
        if name in parts:
            raise SparsecError(f"{name} occurs twice")
        parts[name] = _modifier(kinds[name], name, options or {})
    return Recipe(parts.get("PruningModifier"), parts.get("QuantizationModifier"), int(content.get("seed", 0)))


def _modifier(kind: type, name: str, options: Any) -> Any:
    known = {f.name: f for f in fields(kind)}
    if not isinstance(options, dict) or (unknown := set(options) - set(known)):
        what = sorted(map(str, unknown))[0] if isinstance(options, dict) else options
        raise SparsecError(f"{name} has no option {what!r}; it has {', '.join(known)}")
    try:
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in options.items()})
    except TypeError as error:
        raise SparsecError(f"{name}: {error}") from None


def _one_of(what: str, value: str, known: Any) -> None:
    if value not in known:
        raise SparsecError(f"unknown {what} {value!r}; one of: {', '.join(known)}")
