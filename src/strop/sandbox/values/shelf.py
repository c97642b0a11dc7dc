"""The candidate's side: keeps objects that do not cross and sends the referee their numbers.

Operations on them that the referee requests run here, in the candidate's own process. Standard
library only.
"""

from __future__ import annotations

import builtins
import operator
import types
from collections.abc import Callable, Mapping
from typing import Any

from strop.sandbox.values.codec import Codec, NotPlainError

METHOD = object()
"""Stands for an attribute that is a method of the object itself."""


class Shelf(Codec):
    """Numbers for objects, the same one for the same object, and the namespace of the code."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace
        self._kept: list[Any] = []
        self._numbers: dict[int, int] = {}

    def pack_other(self, value: Any) -> Any:
        if value is METHOD:
            return {"method": 0}
        if isinstance(value, types.ModuleType):
            return {"module": value.__name__}
        if isinstance(value, BaseException):
            return {"object": [self._keep(value), type(value).__name__, None]}
        try:
            base = self.pack_base(value)
        except NotPlainError:
            base = None
        return {"object": [self._keep(value), type(value).__name__, base]}

    def _keep(self, value: Any) -> int:
        number = self._numbers.setdefault(id(value), len(self._kept))
        if number == len(self._kept):
            self._kept.append(value)
        return number

    def unpack_other(self, tag: str, content: Any) -> Any:
        if tag == "object":
            return self._kept[content]
        return super().unpack_other(tag, content)

    def named(self, name: str, fields: tuple[str, ...]) -> Any:
        """The code's own class of that name, if it has one."""
        own = self.namespace.get(name)
        return own if getattr(own, "_fields", None) == fields else super().named(name, fields)

    def answer(self, order: list[Any]) -> Any:
        """Answer a request of the referee: `["call", "f", args, kwargs]` or `["op", "getattr",
        [...]]`."""
        if order[0] == "call":
            _, function, args, kwargs = order
            if isinstance(function, str):
                function = self._named_function(function)
            return function(*args, **kwargs)
        if order[0] == "names":
            return {n: self.namespace[n] for n in order[1] if n in self.namespace}
        _, name, args = order
        return OPERATIONS[name](*args)

    def _named_function(self, name: str) -> Any:
        if name not in self.namespace:
            raise NameError(f"name {name!r} is not defined")
        return self.namespace[name]


def _get(value: Any, name: str) -> Any:
    found = getattr(value, name)
    return METHOD if getattr(found, "__self__", None) is value and callable(found) else found


def _method(value: Any, name: str, args: list[Any], kwargs: Mapping[str, Any]) -> Any:
    return getattr(value, name)(*args, **kwargs)


def _is_iterator(value: Any) -> bool:
    return hasattr(type(value), "__next__")


def _base_of(value: Any) -> Any:
    """The plain data of an object of a derived class."""
    codec = Codec()
    return codec.unpack(codec.pack_base(value))


def _state(value: Any) -> dict[str, Any]:
    """The attributes of an object, from its dictionary and its slots."""
    slots = [n for kind in type(value).__mro__ for n in vars(kind).get("__slots__", ())]
    held = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    return {**held, **getattr(value, "__dict__", {})}


OPERATIONS: dict[str, Callable[..., Any]] = {
    **{
        name: getattr(operator, name)
        for name in (
            "getitem", "setitem", "delitem", "contains", "add", "sub", "mul", "truediv", "floordiv",
            "mod", "pow", "matmul", "and_", "or_", "xor", "lshift", "rshift", "neg", "pos",
            "invert", "abs", "index",
        )
    },
    **{
        name: getattr(builtins, name)
        for name in (
            "setattr", "delattr", "iter", "next", "len", "bool", "str", "repr", "format", "int",
            "float", "complex", "bytes", "round", "isinstance", "issubclass", "divmod", "reversed",
            "type",
        )
    },
    "getattr": _get,
    "method": _method,
    "is_iterator": _is_iterator,
    "base": _base_of,
    "state": _state,
    "enter": lambda value: value.__enter__(),
    "exit": lambda value, *of: value.__exit__(*of),
}  # fmt: skip
"""Operations that the referee may request on an object that is kept here."""
