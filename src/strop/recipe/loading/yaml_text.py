"""Parses YAML of plain values and limited size."""

from __future__ import annotations

import reprlib
from typing import Any

import yaml

from strop.errors import RecipeError

MOST_VALUES = 100_000
"""Most values of a file, with every alias expanded."""

DEEPEST = 100
"""Levels of lists and mappings."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120
_SHORT.maxlist = _SHORT.maxdict = _SHORT.maxlevel = 4


def shown(value: Any) -> str:
    """A value for a message: `'1e-5'`; a long value is shortened in the middle."""
    return _SHORT.repr(value)


def short(name: str, most: int = 80) -> str:
    """A name for a message, shortened."""
    return name if len(name) <= most else f"{name[: most - 3]}..."


class _Loader(yaml.SafeLoader):
    """Raises for scalars that do not fit their tags."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, str):
                value.encode()
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
            kind = str(node.tag).rpartition(":")[2]
            raise yaml.constructor.ConstructorError(
                None, None, f"{shown(node.value)} is no {kind}", node.start_mark
            ) from None
        if isinstance(value, int) and value.bit_length() > 64:
            raise yaml.constructor.ConstructorError(
                None, None, "a whole number of more than 64 bits", node.start_mark
            )
        return value


def parsed(text: str, where: str) -> tuple[Any, yaml.Node | None]:
    """The plain values of a YAML text, and its nodes (which know their lines).

    Raises `RecipeError` for invalid YAML, for tags of other than plain values, and (before building
    anything) for aliases that contain themselves or expand to more than `MOST_VALUES`.
    """
    fix = "see what the lines above it open and do not close; put odd text in quotes"
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, None
        _weigh(node, where, {}, set())
        return loader.construct_document(node), node
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError(
            f"not valid YAML: {short(error.problem or '', 200)}", where=f"{where}:{line}", fix=fix
        ) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise RecipeError(
            f"not valid YAML: {error.reason}", where=f"{where}:{line}", fix="take them out"
        ) from None
    except RecursionError:
        raise _unread("nested too deeply", where, fix="check the brackets") from None


def _weigh(
    node: yaml.Node, where: str, known: dict[int, tuple[int, int]], above: set[int]
) -> tuple[int, int]:
    """(values, levels) below a node with every alias expanded."""
    if id(node) in known:
        return known[id(node)]
    place = f"{where}:{node.start_mark.line + 1}"
    if id(node) in above:
        raise _unread("this value holds itself", place, fix="write the value out")
    parts = list(node.value) if isinstance(node, yaml.SequenceNode) else []
    if isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    below = [_weigh(part, where, known, above | {id(node)}) for part in parts]
    size, depth = 1 + sum(one for one, _ in below), 1 + max((one for _, one in below), default=0)
    if size > MOST_VALUES or depth > DEEPEST:
        raise _unread(
            f"more than {MOST_VALUES} values or {DEEPEST} levels, with every alias written out",
            place,
            fix="write less into one file",
        )
    known[id(node)] = (size, depth)
    return size, depth


def _unread(problem: str, where: str, *, fix: str) -> RecipeError:
    return RecipeError(f"not valid YAML: {problem}", where=where, fix=fix)
