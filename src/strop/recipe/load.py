"""YAML -> recipe, with the line of every mistake and the nearest right name."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from strop.errors import RecipeError
from strop.recipe.base import Strict
from strop.recipe.methods import METHODS, Recipe

Loc = tuple[str | int, ...]
StrictT = TypeVar("StrictT", bound=Strict)


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed YAML file: its values and the line of every key and list item."""

    path: Path
    values: dict[str, Any]
    lines: Mapping[Loc, int]

    def place(self, loc: Loc) -> str:
        """`file:line` of the closest known place."""
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return f"{self.path}:{self.lines.get(loc, 1)}"


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a training recipe; its `method` decides which keys it may have."""
    source = read_yaml(path, overrides)
    method = source.values.get("method")
    if method is None:
        raise RecipeError(
            "the recipe has no `method`",
            where=source.place(()),
            fix=f"add `method:` with one of {', '.join(METHODS)}",
        )
    if not isinstance(method, str) or method not in METHODS:
        near = difflib.get_close_matches(str(method), METHODS, 1, 0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise RecipeError(
            f"unknown method {method!r}",
            where=source.place(("method",)),
            fix=f"{hint}known methods: {', '.join(METHODS)}",
        )
    return validate(METHODS[method], source)


def load(cls: type[StrictT], path: str | Path, overrides: Sequence[str] = ()) -> StrictT:
    """Read any other recipe file (suite, policy, pipeline)."""
    return validate(cls, read_yaml(path, overrides))


def digest(recipe: Strict) -> str:
    """Hash of everything a recipe says, 16 hex digits."""
    text = json.dumps(recipe.plain(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_yaml(path: str | Path, overrides: Sequence[str] = ()) -> Source:
    """Parse a YAML mapping safely, refuse duplicate keys, apply `a.b=c` overrides."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"cannot read the file: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError:
        raise RecipeError("the file is not UTF-8 text", where=str(path)) from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError(f"not valid YAML: {error.problem}", where=f"{path}:{line}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"not valid YAML: {error}", where=str(path)) from None
    if not isinstance(values, dict):
        raise RecipeError("expected `key: value` lines", where=f"{path}:1")
    lines: dict[Loc, int] = {}
    for loc, line in _lines(node, (), path) if node else ():
        lines[loc] = line
    for override in overrides:
        _apply(values, override)
    return Source(path, values, lines)


def _lines(node: yaml.Node, loc: Loc, path: Path) -> Iterator[tuple[Loc, int]]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen:
                raise RecipeError(f"the key `{name}` appears twice", where=f"{path}:{line}")
            seen.add(name)
            yield (*loc, name), line
            yield from _lines(value, (*loc, name), path)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*loc, index), item.start_mark.line + 1
            yield from _lines(item, (*loc, index), path)


def _apply(values: dict[str, Any], override: str) -> None:
    """`optim.learning_rate=1e-5`, the value read as YAML."""
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise RecipeError(f"--set {override!r} is not of the form a.b=c")
    *parents, last = name.split(".")
    here: Any = values
    for parent in parents:
        here = here.setdefault(parent, {}) if isinstance(here, dict) else _item(here, parent, name)
    if isinstance(here, list):
        here[_index(here, last, name)] = yaml.safe_load(text)
    elif isinstance(here, dict):
        here[last] = yaml.safe_load(text)
    else:
        raise RecipeError(f"--set {override!r}: {'.'.join(parents)} holds no keys")


def _item(here: Any, part: str, name: str) -> Any:
    if not isinstance(here, list):
        raise RecipeError(f"--set {name}: {part!r} is below a plain value")
    return here[_index(here, part, name)]


def _index(here: list[Any], part: str, name: str) -> int:
    if not part.isdigit() or int(part) >= len(here):
        raise RecipeError(f"--set {name}: {part!r} is not an index of a list of {len(here)}")
    return int(part)


def validate(cls: type[StrictT], source: Source) -> StrictT:
    """Check every key and value; all mistakes are reported in one message."""
    try:
        # YAML 1.1 reads 1e-5 as text; pydantic turns such text into a number
        return cls.model_validate(source.values, context={"folder": source.path.resolve().parent})
    except ValidationError as error:
        mistakes = [_explain(cls, source, dict(item)) for item in error.errors()]
    first, *rest = mistakes
    lines = [first[1], *(f"{where}: {text}" for where, text in rest)]
    raise RecipeError("\n".join(lines), where=first[0])


def _explain(cls: type[BaseModel], source: Source, item: dict[str, Any]) -> tuple[str, str]:
    loc = _yaml_loc(source.values, item["loc"])
    names = [part for part in loc if isinstance(part, str)]
    dotted = ".".join(map(str, loc))
    if item["type"] == "extra_forbidden":
        return source.place(loc), _unknown_key(cls, names)
    if item["type"] == "missing":
        return source.place(loc[:-1]), f"missing key `{dotted}`"
    if item["type"] == "union_tag_not_found":
        return source.place(loc), f"missing key `{dotted}.kind`"
    message = str(item["msg"]).removeprefix("Value error, ")
    given = f" (got {item['input']!r})" if not isinstance(item["input"], dict) else ""
    return source.place(loc), f"`{dotted}`: {message}{given}" if dotted else message


def _yaml_loc(values: Any, loc: Loc) -> Loc:
    """The place in the file: pydantic adds the tags of unions, which are not in it."""
    path: list[str | int] = []
    here = values
    for number, part in enumerate(loc):
        inside = (isinstance(here, dict) and part in here) or (
            isinstance(here, list) and isinstance(part, int) and part < len(here)
        )
        if inside:
            here = here[part]
            path.append(part)
        elif number == len(loc) - 1:
            path.append(part)
    return tuple(path)


def _unknown_key(cls: type[BaseModel], names: list[str]) -> str:
    *parents, name = names
    known = list(_fields(cls, ()))
    siblings = [path[-1] for path in known if list(path[:-1]) == parents]
    near = difflib.get_close_matches(name, siblings, 1, 0.6)
    if near:
        return f"unknown key `{'.'.join(names)}`\n  fix: did you mean `{near[0]}`?"
    homes = sorted({".".join(path) for path in known if path[-1] == name})
    if homes:
        return f"unknown key `{'.'.join(names)}`\n  fix: it belongs at `{homes[0]}`"
    reads = f"known keys here: {', '.join(sorted(set(siblings)))}" if siblings else "remove it"
    return (
        f"unknown key `{'.'.join(names)}`: this method or section does not read it\n  fix: {reads}"
    )


def _fields(cls: type[BaseModel], prefix: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, field in cls.model_fields.items():
        yield (*prefix, name)
        for nested in _classes(field.annotation):
            yield from _fields(nested, (*prefix, name))


def _classes(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _classes(part)
