"""TIR expressions to C: integers keep their type and wrap around, indices made from data are checked."""

from __future__ import annotations

from typing import Any, Protocol

import tvm_ffi
from tvm import tirx

from ...errors import InternalError
from ...schedules.walk import walk
from .c_types import C_TYPES, float_literal, int_literal, is_signed, wide
from .tir_nodes import conjuncts, dtype_of, is_buffer

_INFIX = {
    "Add": "+", "Sub": "-", "Mul": "*", "Div": "/", "Mod": "%", "EQ": "==", "NE": "!=", "LT": "<", "LE": "<=",
    "GT": ">", "GE": ">=", "And": "&&", "Or": "||", "BitwiseAnd": "&", "BitwiseOr": "|", "BitwiseXor": "^",
    "LShift": "<<", "RShift": ">>",
}  # fmt: skip

_WRAPPING = ("+", "-", "*", "<<", ">>")

_DIVISIONS = {"/": "div", "%": "mod"}

_INFIX_CALLS = {"bitwise_and": "&", "bitwise_or": "|", "bitwise_xor": "^", "shift_left": "<<", "shift_right": ">>"}


class Names(Protocol):
    """What a kernel's text shares with the function's other kernels."""

    name: str
    bindings: list[tuple[Any, Any]]
    """Made before the nests."""

    def name_of(self, var: Any) -> str:
        """A unique C identifier."""

    def identity(self, store: Any) -> str | None:
        """What a reduction starts from, where it is not the value that is stored."""


class ExpressionText:
    """C expressions of one kernel, and what is known of the variables in them."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.bound: list[str] = []
        """Definitions that have to stand before the kernel's statements."""
        self.free: list[Any] = []
        self.local: set[Any] = set()
        self.natural: set[Any] = set()
        """Variables that are never negative."""
        self.data: set[Any] = set()
        """Variables computed from elements of tensors."""
        self.touched: set[Any] = set()
        self.facts: list[tuple[Any, bool]] = []
        """Conditions that are known where the text stands."""

    def _known(self, condition: Any) -> bool | None:
        """What a condition is known to be in this piece of a loop."""
        for fact, value in self.facts:
            if tvm_ffi.structural_equal(fact, condition):
                return value
        parts = conjuncts(condition)
        if len(parts) > 1:
            known = [self._known(part) for part in parts]
            return False if False in known else None if None in known else True
        return None

    def _touch(self, var: Any) -> None:
        self.touched.add(var)
        if var not in self.local and not any(var.same_as(v) for v in self.free):
            for bound, value in self.names.bindings:
                if bound.same_as(var):
                    self._bind_outer(var, value)
                    return
            self.free.append(var)

    def _bind_outer(self, var: Any, value: Any) -> None:
        """A binding made before the nests: repeated in every kernel that reads it."""
        text = self.expr(value)
        self.local.add(var)
        self._classify(var, value)
        self.bound.append(f"const {C_TYPES[dtype_of(var.ty.dtype)]} {self.names.name_of(var)} = {text};")

    def _is_natural(self, e: Any) -> bool:
        """Whether an integer expression is surely not negative: then C's division is floor division."""
        kind = type(e).__name__
        if kind == "IntImm":
            return int(e) >= 0
        if isinstance(e, tirx.Var):
            return e in self.natural or (not is_buffer(e) and e not in self.local)
        if kind in ("Add", "Mul", "Min"):
            return self._is_natural(e.a) and self._is_natural(e.b)
        if kind == "FloorMod":
            return self._is_natural(e.b)
        if kind in ("FloorDiv", "Div", "Mod"):
            return self._is_natural(e.a) and self._is_natural(e.b)
        if kind == "Max":
            return self._is_natural(e.a) or self._is_natural(e.b)
        if kind == "Cast":
            return self._is_natural(e.value)
        return False

    def expr(self, e: Any) -> str:
        """Any expression, fully parenthesised."""
        kind = type(e).__name__
        if kind == "IntImm":
            return int_literal(int(e), dtype_of(e.ty.dtype))
        if kind == "FloatImm":
            return float_literal(float(e), dtype_of(e.ty.dtype))
        if isinstance(e, tirx.Var):
            self._touch(e)
            return self.names.name_of(e)
        if kind == "TensorLoad":
            self._touch(e.source)
            return self._element(e.source, e.indices)
        if kind in _INFIX:
            return self._infix(kind, e)
        if kind in ("FloorDiv", "FloorMod"):
            return self._floor(kind, e)
        if kind in ("Min", "Max"):
            return f"sparsec_{kind.lower()}_{dtype_of(e.ty.dtype)}({self.expr(e.a)}, {self.expr(e.b)})"
        if kind == "Not":
            return f"(!{self.expr(e.a)})"
        if kind == "BitwiseNot":
            return self._inverted(e.a)
        if kind == "Select":
            return self._choose(e.condition, e.true_value, e.false_value)
        if kind == "Cast":
            return self._cast(e)
        if kind == "Let":
            return self._let(e)
        if kind == "Call":
            return self._call(e)
        raise InternalError(f"{self.names.name}: no C for TIR expression {kind}")

    def _element(self, buffer: Any, indices: Any) -> str:
        """One element; an index that was computed from data is checked, for it may come from a model's input."""
        (index,) = indices
        text = self.expr(index)
        if self._is_data(index):
            text = f"SPARSEC_INDEX({text}, {self.expr(buffer.ty.shape[0])})"
        return f"{self.names.name_of(buffer)}[{text}]"

    def _classify(self, var: Any, value: Any) -> None:
        """What is known of a variable, from the value it is bound to."""
        if self._is_natural(value):
            self.natural.add(var)
        if self._is_data(value):
            self.data.add(var)

    def _is_data(self, e: Any) -> bool:
        """Whether a value depends on elements of tensors, not on sizes and loop variables alone."""
        return any(type(node).__name__ == "TensorLoad" or node in self.data for node in walk(e))

    def _infix(self, kind: str, e: Any) -> str:
        if kind == "Mod" and dtype_of(e.ty.dtype).startswith("float"):
            return f"sparsec_fmod_{dtype_of(e.ty.dtype)}({self.expr(e.a)}, {self.expr(e.b)})"
        return self._arithmetic(_INFIX[kind], e.a, e.b)

    def _arithmetic(self, sign: str, a: Any, b: Any) -> str:
        """An operator of C on operands of one type: integers stay in their type and wrap around."""
        dtype = dtype_of(a.ty.dtype)
        if "int" in dtype and sign in _DIVISIONS:
            return self._division(sign, a, b)
        left, right = self.expr(a), self.expr(b)
        if "int" not in dtype or sign not in _WRAPPING:
            return f"({left} {sign} {right})"
        ctype = C_TYPES[dtype]
        if (
            sign in ("<<", "+", "-", "*")
            and is_signed(dtype)
            and (sign == "<<" or self._is_data(a) or self._is_data(b))
        ):
            # Signed overflow would be undefined; indices cannot overflow, and the compiler may use that.
            unsigned = C_TYPES["u" + wide(dtype)]
            return f"(({ctype})(({unsigned}){left} {sign} ({unsigned}){right}))"
        return f"({left} {sign} {right})" if dtype == wide(dtype) else f"(({ctype})({left} {sign} {right}))"

    def _division(self, sign: str, a: Any, b: Any) -> str:
        """Towards zero. Data is checked for what the CPU's instruction would trap at; sizes never are zero."""
        dtype, left, right = dtype_of(a.ty.dtype), self.expr(a), self.expr(b)
        if not self._is_data(b):
            return f"({left} {sign} {right})"
        right = f"SPARSEC_DIVISOR({right})"
        if is_signed(dtype):
            return f"sparsec_{_DIVISIONS[sign]}_{dtype}({left}, {right})"
        return f"({left} {sign} {right})"

    def _inverted(self, e: Any) -> str:
        dtype = dtype_of(e.ty.dtype)
        return f"(!{self.expr(e)})" if dtype == "bool" else f"(({C_TYPES[dtype]})~{self.expr(e)})"

    def _in_parentheses(self, e: Any) -> str:
        """A condition with one pair around it: compilers take two for a doubt about an assignment."""
        text = self.expr(e)
        return text if is_enclosed(text) else f"({text})"

    def _floor(self, kind: str, e: Any) -> str:
        left, right = self.expr(e.a), self.expr(e.b)
        if self._is_data(e.b):
            right = f"SPARSEC_DIVISOR({right})"
        if dtype_of(e.ty.dtype).startswith("uint") or (self._is_natural(e.a) and self._is_natural(e.b)):
            return f"({left} {'/' if kind == 'FloorDiv' else '%'} {right})"
        return f"sparsec_{kind.lower()}({left}, {right})"

    def _choose(self, condition: Any, yes: Any, no: Any) -> str:
        known = self._known(condition)
        if known is not None:
            return self.expr(yes if known else no)
        open_parts = [self.expr(part) for part in conjuncts(condition) if self._known(part) is None]
        return f"({' && '.join(open_parts)} ? {self.expr(yes)} : {self.expr(no)})"

    def _cast(self, e: Any) -> str:
        to, value = dtype_of(e.ty.dtype), self.expr(e.value)
        if to == "bool":
            return f"((uint8_t)({value} != 0))"
        return f"(({C_TYPES[to]}){value})"

    def _let(self, e: Any) -> str:
        value = self.expr(e.value)
        self.local.add(e.var)
        name = self.names.name_of(e.var)
        return f"({{ const {C_TYPES[dtype_of(e.var.ty.dtype)]} {name} = {value}; {self.expr(e.body)}; }})"

    def _call(self, e: Any) -> str:
        name = str(e.op.name).rpartition(".")[2]
        args = list(e.args)
        if name in ("call_pure_extern", "call_extern"):
            name, args = str(args[0].value), args[1:]
        if name == "if_then_else":
            return self._choose(*args)
        if name in ("likely", "assume", "ignore_loop_partition"):
            return self.expr(args[0])
        if name in _INFIX_CALLS:
            return self._arithmetic(_INFIX_CALLS[name], *args)
        if name == "bitwise_not":
            return self._inverted(args[0])
        if name == "reinterpret":
            return f"sparsec_bits_{dtype_of(args[0].ty.dtype)}_{dtype_of(e.ty.dtype)}({self.expr(args[0])})"
        dtype = dtype_of(args[0].ty.dtype) if args else dtype_of(e.ty.dtype)
        return f"sparsec_{name}_{dtype}({', '.join(self.expr(a) for a in args)})"


def is_enclosed(text: str) -> bool:
    """Whether the first parenthesis is closed by the last."""
    depth = 0
    for place, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth == 0:
            return place == len(text) - 1
    return False
