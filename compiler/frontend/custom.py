"""Operators of the user's own: a function that gives Relax, or that names a C kernel. See docs/custom-operators.md.

This is the only part of the frontend that users import: `Call` hides what the other converters see.
"""

from __future__ import annotations

import hashlib
import re
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from tvm import relax

from ...errors import SparsecError
from ..graph import Layer
from . import registry
from .context import constant, sizes
from .diagnostics import CannotConvert

if TYPE_CHECKING:
    from .context import Context
    from .graph import Node, Shape, Size

OutputType = tuple[Sequence[Any], str]
"""(shape, dtype)"""


class Call:
    """One node of the operator: its inputs, its attributes, and ways to say what it computes.

    Shapes hold ints and, for dynamic dimensions, expressions that know `+`, `-`, `*` and `//`.
    """

    def __init__(self, context: Context, node: Node) -> None:
        self._context = context
        self._node = node
        self.attrs: dict[str, Any] = context.attrs(node)
        """The attributes that the node has."""

    def __len__(self) -> int:
        """Number of inputs, absent ones between others included."""
        return len(self._node.inputs)

    def has(self, index: int) -> bool:
        """Whether the input is present."""
        return bool(self._node.input(index))

    def input(self, index: int) -> Any:
        """An input as a Relax expression."""
        return self._context.expr(self._name(index))

    def shape(self, index: int) -> Shape:
        """An input's shape."""
        return self._context.shape(self._name(index))

    def dtype(self, index: int) -> str:
        """An input's dtype as numpy names it."""
        return self._context.dtype(self._name(index))

    def value(self, index: int) -> np.ndarray | None:
        """A constant input's elements; None where they are known only at run time."""
        return self._context.value(self._name(index))

    def constant(self, array: np.ndarray) -> Any:
        """An array as a Relax expression."""
        return constant(np.asarray(array))

    def emit(self, expr: Any) -> Any:
        """Binds an intermediate expression to a variable, so that it is computed once."""
        return self._context.emit(expr)

    def refuse(self, reason: str) -> NoReturn:
        """Ends the build: `reason` stands in the report of all nodes that cannot be compiled."""
        raise CannotConvert(reason)

    def c_kernel(
        self,
        source: str | Path,
        function: str,
        outputs: Sequence[OutputType],
        *,
        inputs: Sequence[Any] | None = None,
        sizes: Sequence[Size] = (),
        extent: Size = 1,
        grain: int = 1,
    ) -> Any:
        """The node as a call of a C function, compiled into the artifact.

        The function is `int32_t function(const T0 *in0, …, U0 *out0, …, int64_t size0, …, int64_t begin, int64_t end)`
        and returns 0. It computes the slice [begin, end) of an axis of its own choice, allocates nothing, keeps no
        state, and gives the same bytes however the axis is cut; tensors are compact and row-major.

        Args:
            source: C11, as text or as the path of a file; it may include headers of libc and libm.
            function: the function's name there.
            outputs: shape and dtype of each output of the node.
            inputs: Relax expressions; default is all inputs of the node.
            sizes: integers that the function is given, known only at run time where they depend on dynamic dimensions.
            extent: length of the axis that threads share; 1 leaves it to one thread.
            grain: slices begin at multiples of this.
        """
        text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
        if not re.search(rf"\b{re.escape(function)}\s*\(", text):
            raise CannotConvert(f"its C source has no function {function}")
        if len(outputs) < len([name for name in self._node.outputs if name]):
            raise CannotConvert(f"its C kernel has {len(outputs)} outputs, the node {len(self._node.outputs)}")
        given = [self.input(i) for i in range(len(self)) if self.has(i)] if inputs is None else list(inputs)
        attrs = {
            "text": text,
            "function": function,
            "digest": hashlib.sha256(f"{function}\0{text}".encode()).hexdigest()[:16],
            "kernel": f"{self._node.domain}.{self._node.op_type}",
            "n_outputs": len(outputs),
            "sizes": tuple(sizes),
            "extent": extent,
            "grain": grain,
        }
        return self._context.layer(Layer("custom", attrs, (), self._node.outputs[0]), given, _types(outputs))

    def _name(self, index: int) -> str:
        if not self.has(index):
            raise CannotConvert(f"its input {index} is missing")
        return self._node.input(index)


def _types(outputs: Sequence[OutputType]) -> list[Any]:
    return [relax.TensorType(sizes(tuple(shape)), dtype) for shape, dtype in outputs]


CustomOp = Callable[[Call], Any]
"""Gives the Relax expression of the only output, or a list of them, one per output."""

_REGISTERED: dict[tuple[str, str], CustomOp] = {}


def custom_op(domain: str, op_type: str) -> Callable[[CustomOp], CustomOp]:
    """Registers the decorated function for the operator `op_type` of `domain`, in every build of this process.

    Raises:
        SparsecError: the operator is one of ONNX's own or of sparsec's.
    """

    def register(function: CustomOp) -> CustomOp:
        key = (domain, op_type)
        if domain in ("", "ai.onnx") or (key not in _REGISTERED and key in registry.registered()):
            raise SparsecError(f"{domain or 'ai.onnx'}.{op_type} is not yours to define: choose a domain of your own")
        if key not in _REGISTERED:
            registry.converter(op_type, domain=domain)(lambda context, node: _REGISTERED[key](Call(context, node)))
        _REGISTERED[key] = function
        return function

    return register


def load_custom_ops(path: Path) -> None:
    """Runs a Python file that registers operators with `custom_op`.

    Raises:
        SparsecError: the file cannot be read, fails, or registers nothing.
    """
    before = dict(_REGISTERED)
    try:
        runpy.run_path(str(path))
    except SparsecError:
        raise
    except OSError as error:
        raise SparsecError(f"cannot read {path}: {error.strerror}") from None
    except Exception as error:
        raise SparsecError(f"{path} failed: {type(error).__name__}: {error}") from error
    if before == _REGISTERED:
        raise SparsecError(
            f"{path} registers no operator: decorate a function with sparsec.custom_op(DOMAIN, OPERATOR)"
        )
