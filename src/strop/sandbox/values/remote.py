"""The referee's side of an object that stays with the candidate.

The candidate may be asked for everything that a test could also learn by calling one of its
functions, and answers with data. It is never asked whether its object equals, is less than or
contains an expected value: an object that always says yes would pass every test.

An object is *made* if the tests call a class of the candidate by name (`Pair(5, 24)`). The tests
then rely on that class's own operators, so comparing such an object by value is left unjudged
(`is`, attributes, `str` can be judged).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol

from strop.sandbox.values.codec import BASES

CONTAINERS = {"add", "append", "clear", "copy", "discard", "extend", "get", "insert", "items",
              "keys", "pop", "popitem", "remove", "reverse", "setdefault", "sort", "update",
              "values"}  # fmt: skip
"""Methods of built-in collections that user-defined classes often have, too."""

REVEALING = {
    name
    for kind in (str, bytes, list, tuple, dict, set, frozenset, int, float, complex)
    for name in dir(kind)
    if not name.startswith("__")
} - CONTAINERS | {"equals", "isclose", "almost_equals"}
"""Methods that a test calls on text or numbers, with an expected value as argument."""


class UnjudgedError(Exception):
    """Only the candidate's own code could decide whether a claim holds."""


class Host(Protocol):
    """The process that keeps the objects."""

    def ask(self, order: list[Any]) -> Any:
        """What the candidate answers."""

    def leave_unjudged(self, why: str) -> None:
        """End the tests without a verdict: raises `UnjudgedError`."""


Role = Literal["answer", "mixed", "made", "class", "mixed class"]
"""An answer of the candidate; an object made by the tests; the class that they call to make one. A
mixed object may be made or be a function's answer, since the tests compare it with plain data: it
is treated as an answer."""

MAKES: dict[Role, Role] = {"class": "made", "mixed class": "mixed"}
"""The role of the result of calling an object; other results are answers."""


class Remote:
    """A proxy of an object of the candidate: `Remote(host, 7, "Node", "made")`."""

    __slots__ = ("__based", "__host", "__kind", "__number", "__role")

    def __init__(
        self, host: Host, number: int, kind: str, role: Role = "answer", *, based: bool = False
    ) -> None:
        for name, value in (("host", host), ("number", number), ("kind", kind), ("role", role),
                            ("based", based)):  # fmt: skip
            object.__setattr__(self, f"_Remote__{name}", value)

    # --- attributes and calls: data again ---

    def __getattr__(self, name: str) -> Any:
        found = _ask(self, "getattr", name)
        is_stand_in = name in REVEALING and type(found) is Remote and not is_made(self)
        return _Method(self, name) if found is METHOD or is_stand_in else found

    def __setattr__(self, name: str, value: Any) -> None:
        _ask(self, "setattr", name, value)

    def __delattr__(self, name: str) -> None:
        _ask(self, "delattr", name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__host.ask(["call", self, args, kwargs])

    def __dir__(self) -> list[str]:
        return []

    # --- comparisons: never asked ---

    def __eq__(self, other: object) -> bool:
        if other is None:
            return False
        if self.__based and type(other) is not Remote:
            return bool(_live(self) == other)
        if is_made(self) or is_made(other):
            _unjudged(self if is_made(self) else other, "only the class could say if it is equal")
        return same(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: Any) -> Any:
        return _live(_ordered(self, other)) < other

    def __le__(self, other: Any) -> Any:
        return _live(_ordered(self, other)) <= other

    def __gt__(self, other: Any) -> Any:
        return _live(_ordered(self, other)) > other

    def __ge__(self, other: Any) -> Any:
        return _live(_ordered(self, other)) >= other

    def __hash__(self) -> int:
        if self.__role == "made":
            _unjudged(self, "its hash is its own")
        return hash((Remote, self.__number))

    def __contains__(self, item: Any) -> bool:
        if self.__role == "made":
            return bool(_ask(self, "contains", item))
        return any(one is item or one == item for one in self)

    # --- what needs no argument of the tests ---

    def __bool__(self) -> bool:
        return _ask(self, "bool") is True

    def __len__(self) -> int:
        return int(_ask(self, "len"))

    def __iter__(self) -> Iterator[Any]:
        return self if _ask(self, "is_iterator") is True else _ask(self, "iter")

    def __next__(self) -> Any:
        return _ask(self, "next")

    def __reversed__(self) -> Any:
        return _ask(self, "reversed")

    def __str__(self) -> str:
        return _text(_ask(self, "str"))

    def __repr__(self) -> str:
        return _text(_ask(self, "repr"))

    def __format__(self, how: str) -> str:
        return _text(_ask(self, "format", how))

    def __int__(self) -> int:
        return int(_ask(self, "int"))

    def __float__(self) -> float:
        return float(_ask(self, "float"))

    def __complex__(self) -> complex:
        return complex(_ask(self, "complex"))

    def __bytes__(self) -> bytes:
        return bytes(_ask(self, "bytes"))

    def __index__(self) -> int:
        found = _ask(self, "index")
        if not isinstance(found, int):
            raise TypeError("no index")
        return found

    def __getitem__(self, key: Any) -> Any:
        return _ask(self, "getitem", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        _ask(self, "setitem", key, value)

    def __delitem__(self, key: Any) -> None:
        _ask(self, "delitem", key)

    def __enter__(self) -> Any:
        return _ask(self, "enter")

    def __exit__(self, *error: Any) -> bool:
        return _ask(self, "exit", *(None for _ in error)) is True


METHOD = object()
"""Stands for an attribute that is a method."""


class _Method:
    """A method of an object that stays with the candidate: one question, once it is called."""

    __slots__ = ("_name", "_of")

    def __init__(self, of: Remote, name: str) -> None:
        self._of, self._name = of, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._name in REVEALING and (args or kwargs) and not is_made(self._of):
            raise TypeError(f"{self._name} of an object that is no text, number or collection")
        return _ask(self._of, "method", self._name, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(_ask(self._of, "getattr", self._name), name)


# The host is read by functions, not methods, because every public name belongs to the candidate's
# object.


def number_of(value: Remote) -> int:
    found: int = object.__getattribute__(value, "_Remote__number")
    return found


def host_of(value: Remote) -> Any:
    return object.__getattribute__(value, "_Remote__host")


def kind_of(value: Remote) -> str:
    found: str = object.__getattribute__(value, "_Remote__kind")
    return found


def is_made(value: object) -> bool:
    return type(value) is Remote and role_of(value) == "made"


def role_of(value: Remote) -> Role:
    found: Role = object.__getattribute__(value, "_Remote__role")
    return found


def same(one: object, other: object) -> bool:
    """Python's `is`, for objects that stay with the candidate too."""
    if type(one) is Remote and type(other) is Remote:
        return host_of(one) is host_of(other) and number_of(one) == number_of(other)
    return one is other


def _ask(value: Remote, operation: str, *args: Any) -> Any:
    return host_of(value).ask(["op", operation, [value, *args]])


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return str(value)


def _live(value: Remote) -> Any:
    """The current plain data of an object of a derived class."""
    return _ask(value, "base")


def _ordered(value: Remote, other: object) -> Remote:
    if object.__getattribute__(value, "_Remote__based") and type(other) is not Remote:
        return value
    if is_made(value) or is_made(other):
        _unjudged(value if is_made(value) else other, "only its own class could order it")
    raise TypeError("an object of a class of one's own is not ordered")


def _unjudged(value: Any, why: str) -> None:
    host_of(value).leave_unjudged(
        f"the tests compare a {kind_of(value)}, a class of the candidate's: {why}"
    )


def _binary(operation: str) -> Callable[[Remote, Any], Any]:
    def forward(self: Remote, other: Any) -> Any:
        if not (is_made(self) or is_made(other)):
            return NotImplemented
        return host_of(self).ask(["op", operation, [self, other]])

    return forward


def _reflected(operation: str) -> Callable[[Remote, Any], Any]:
    def backward(self: Remote, other: Any) -> Any:
        if not is_made(self):
            return NotImplemented
        return host_of(self).ask(["op", operation, [other, self]])

    return backward


def _unary(operation: str) -> Callable[[Remote], Any]:
    def apply(self: Remote, *args: Any) -> Any:
        if not is_made(self):
            raise TypeError(f"{operation} of an object that is no number")
        return _ask(self, operation, *args)

    return apply


for _operation in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_",
                   "or_", "xor", "lshift", "rshift", "divmod"):  # fmt: skip
    setattr(Remote, f"__{_operation.strip('_')}__", _binary(_operation))
    setattr(Remote, f"__r{_operation.strip('_')}__", _reflected(_operation))
for _operation in ("neg", "pos", "invert", "abs", "round"):
    setattr(Remote, f"__{_operation}__", _unary(_operation))


def derived(name: str, value: Any, remote: Remote) -> Any:
    """Plain data of a class that the candidate derived from a built-in one.

    It has the built-in type's own equality, hash and operators; only attributes that the built-in
    type lacks are read from the candidate.
    """

    def asked(self: Any, wanted: str) -> Any:
        return getattr(remote, wanted)

    made = {"__getattr__": asked, "__slots__": ()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(name, (type(value),), made)(*value)
    if type(value) not in BASES or type(value) is bool:
        return value
    return type(name, (type(value),), made)(value)


def is_instance(value: Any, kinds: Any) -> bool:
    """Python's `isinstance` for classes that may be the candidate's."""
    listed = kinds if isinstance(kinds, tuple) else (kinds,)
    return any(_is_of(value, kind) for kind in listed)


def _is_of(value: Any, kind: Any) -> bool:
    if type(kind) is not Remote:
        return isinstance(value, kind)
    return _ask(value, "isinstance", kind) is True if type(value) is Remote else False


def type_of(value: Any) -> Any:
    """Python's `type` for objects that may be the candidate's."""
    return _ask(value, "type") if type(value) is Remote else type(value)
