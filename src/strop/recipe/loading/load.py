"""Loads recipes from YAML or plain values. Messages name the line of every mistake and the nearest
valid key. Also hashes recipes and flattens them to dotted keys."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from strop.errors import RecipeError, UsageError
from strop.files import SHORT, read_text, sha256_hex
from strop.recipe.base import Contradiction, Strict
from strop.recipe.loading.yaml_text import parsed, short, shown
from strop.recipe.train.methods import METHODS, Recipe
from strop.recipe.train.telling import WHICH_KIND

Loc = tuple[str | int, ...]
Given = str | Path | Mapping[str, Any] | Strict
"""A recipe of any kind as a user gives it: a YAML file, a dictionary of its values, or a recipe
object."""

Overrides = Sequence[str] | Mapping[str, Any]
"""`["optim.learning_rate=1e-5"]` as on the command line, or `{"optim.learning_rate": 1e-5}`."""

StrictT = TypeVar("StrictT", bound=Strict)

RECIPE_BYTES = 1 << 18
"""A longer YAML file is refused, as nobody writes one by hand."""

ENUMERATED = ("literal_error", "union_tag_invalid")
"""Mistakes in a value of which there is a list."""

MOST_MISTAKES = 20
"""Mistakes in one message."""

LONGEST_MESSAGE = 500
"""Characters of one mistake, since it may quote a value of any length."""


@dataclass(frozen=True, slots=True)
class Source:
    """The values of a recipe, and the lines of its keys and list items in the YAML file; `path` is
    `None` for a dictionary. `overridden` are the keys whose values came from overrides, with what a
    message calls those: `{"optim.learning_rate": "--set optim.learning_rate"}`."""

    path: Path | None
    values: dict[str, Any]
    lines: Mapping[Loc, int]
    overridden: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The base of relative paths: the file's folder, or the working directory."""
        return Path.cwd() if self.path is None else self.path.resolve().parent

    def place(self, loc: Loc) -> str:
        """Where a value comes from: the override that gave it, or `file:line` of the closest known
        place."""
        dotted = ".".join(map(str, loc))
        for name, said in self.overridden.items():
            below = loc not in self.lines and name.startswith(f"{dotted}.") and dotted
            if dotted == name or dotted.startswith(f"{name}.") or below:
                return said
        if self.path is None:
            return "the recipe"
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return f"{self.path}:{self.lines.get(loc, 1)}"


def load_recipe(recipe: Given, overrides: Overrides = ()) -> Recipe:
    """Read a training recipe; its `method` decides which keys it may have."""
    if isinstance(recipe, Recipe) and not overrides:
        return recipe
    return recipe_from(read_source(recipe, overrides))


def recipe_from(source: Source) -> Recipe:
    """The training recipe of these values."""
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
            f"unknown method {shown(method)}",
            where=source.place(("method",)),
            fix=f"{hint}known methods: {', '.join(METHODS)}",
        )
    return validate(METHODS[method].recipe, source)


def load(cls: type[StrictT], given: Given, overrides: Overrides = ()) -> StrictT:
    """Read any other recipe (suite, policy, pipeline)."""
    if isinstance(given, cls) and not overrides:
        return given
    return validate(cls, read_source(given, overrides))


def digest(recipe: Strict) -> str:
    """Hash of all values of a recipe, 16 hex digits."""
    text = json.dumps(recipe.plain(), sort_keys=True)
    return sha256_hex(text, SHORT)


def read_source(given: Given, overrides: Overrides = ()) -> Source:
    """The values of a file, a dictionary (which is not changed) or a recipe, with overrides."""
    if isinstance(given, str | Path):
        return read_yaml(given, overrides)
    said = given.model_dump(mode="json", exclude_unset=True) if isinstance(given, Strict) else given
    values = _copied(said)
    return Source(None, values, {}, _override(values, overrides))


def _copied(value: Any) -> Any:
    """Plain values as in YAML: paths are text."""
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def read_yaml(path: str | Path, overrides: Overrides = ()) -> Source:
    """Parse a YAML mapping safely, refuse duplicate keys, apply overrides."""
    path = Path(path)
    text = read_text(path, RecipeError, limit=RECIPE_BYTES)
    values, node = parsed(text, str(path))
    if not isinstance(values, dict):
        raise RecipeError(
            "expected `key: value` lines", where=f"{path}:1", fix="write a mapping, one key a line"
        )
    lines: dict[Loc, int] = {}
    for loc, line in _lines(node, (), path) if node else ():
        lines[loc] = line
    return Source(path, values, lines, _override(values, overrides))


def _lines(node: yaml.Node, loc: Loc, path: Path) -> Iterator[tuple[Loc, int]]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen:
                raise RecipeError(
                    f"the key `{short(name)}` appears twice", where=f"{path}:{line}", fix="keep one"
                )
            seen.add(name)
            yield (*loc, name), line
            yield from _lines(value, (*loc, name), path)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*loc, index), item.start_mark.line + 1
            yield from _lines(item, (*loc, index), path)


def _override(values: dict[str, Any], overrides: Overrides) -> dict[str, str]:
    """Apply every override; returns their keys, with what they are called in messages."""
    if isinstance(overrides, Mapping):
        for name, value in overrides.items():
            _put(values, name, _copied(value))
        return {name: f"the override {short(name)}" for name in overrides}
    names = {}
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name:
            raise _unfit(override, "is not of the form a.b=c")
        value, _ = parsed(text, f"--set {short(name)}")
        _put(values, name, value)
        names[name] = f"--set {short(name)}"
    return names


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    """The value at `optim.learning_rate`."""
    *parents, last = name.split(".")
    here: Any = values
    for parent in parents:
        here = here.setdefault(parent, {}) if isinstance(here, dict) else _item(here, parent, name)
    if isinstance(here, list):
        here[_index(here, last, name)] = value
    elif isinstance(here, dict):
        here[last] = value
    else:
        raise _unfit(name, f"{'.'.join(parents)} holds no keys")


def _item(here: Any, part: str, name: str) -> Any:
    if not isinstance(here, list):
        raise _unfit(name, f"{part!r} is below a plain value")
    return here[_index(here, part, name)]


def _index(here: list[Any], part: str, name: str) -> int:
    # "\u00b2" is a digit too, but no index; a longer one is beyond every list
    if not part.isdecimal() or len(part) > 9 or int(part) >= len(here):
        raise _unfit(name, f"{part!r} is not an index of a list of {len(here)}")
    return int(part)


def _unfit(override: str, problem: str) -> RecipeError:
    return RecipeError(
        f"--set {short(override)}: {problem}", fix="name a key as in --set optim.learning_rate=1e-5"
    )


def validate(cls: type[StrictT], source: Source) -> StrictT:
    """Check every key and value; all mistakes are reported in one message."""
    try:
        # YAML 1.1 reads 1e-5 as text; pydantic turns such text into a number
        context = {"folder": source.folder, "source": source}
        return cls.model_validate(source.values, context=context)
    except ValidationError as error:
        # a default that is derived from a wrong value is no separate mistake
        found = [dict(e) for e in error.errors() if e["type"] != "default_factory_not_called"]
        mistakes = [_explain(cls, source, item) for item in found[:MOST_MISTAKES]]
    (where, text, fix), *rest = mistakes
    lines = [text, *(f"{at}: {said}\n  fix: {advice}" for at, said, advice in rest)]
    if rest:  # the last line of a message is the fix of the whole
        lines[0] += f"\n  fix: {fix}"
        fix = "mend all of these"
    raise RecipeError("\n".join(lines), where=where, fix=fix)


def _explain(cls: type[BaseModel], source: Source, item: dict[str, Any]) -> tuple[str, str, str]:
    """A mistake as (file and line, problem, fix)."""
    loc = _yaml_loc(source.values, item["loc"])
    names = [str(part) for part in loc if isinstance(part, str)]
    dotted = short(".".join(map(str, loc)))
    if item["type"] == "extra_forbidden":
        return source.place(loc), *_unknown_key(cls, names, str(item["loc"][-2:-1]))
    if item["type"] == "missing":
        return source.place(loc[:-1]), f"missing key `{dotted}`", "add it"
    if item["type"] == "union_tag_not_found":
        return source.place(loc), f"missing key `{dotted}.kind`", "add it"
    if item["type"] == "union_tag_invalid":
        loc, dotted = (*loc, "kind"), f"{dotted}.kind"
    if item["type"] in ENUMERATED:
        said, fix = _none_of(dotted, item)
        return source.place(loc), said, fix
    if isinstance(item["input"], dict):
        several = [kind for kind in _telling(item) if kind in item["input"]]
        if len(several) > 1:
            named = " and ".join(f"`{kind}`" for kind in several)
            said = f"`{dotted}` has {named}, and each of them says what it is"
            return source.place((*loc, several[1])), said, "keep one of them"
    raised = item.get("ctx", {}).get("error")
    if isinstance(raised, Contradiction):
        return source.place((*loc, *_parts(raised.key))), str(raised), raised.fix
    message = str(item["msg"]).removeprefix("Value error, ")[:LONGEST_MESSAGE]
    given = f" (got {shown(item['input'])})" if not isinstance(item["input"], dict) else ""
    said = f"`{dotted}`: {message}{given}" if dotted else message
    if item["type"] == "string_type":  # YAML reads `on`, `3` and `2024-01-01` as other things
        return source.place(loc), said, "put the text in quotes"
    whole = "change these values" if source.path is None else "change the file"
    fix = f"change `{dotted}`" if dotted else whole
    return source.place(loc), said, _meant_kind(item) or fix


def _parts(key: str) -> Loc:
    return tuple(int(part) if part.isdecimal() else part for part in key.split("."))


@contextmanager
def located(source: Source) -> Iterator[None]:
    """Within it, what is wrong with a key of the recipe names the file and the line of that key
    (`UsageError.key`); a recipe's mistake that names no place names the file."""
    try:
        yield
    except UsageError as error:
        if error.key is None and (error.where is not None or not isinstance(error, RecipeError)):
            raise
        place = _place_of(error, source)
        where = place if error.where is None else f"{place}: {error.where}"
        raise type(error)(error.problem, where=where, fix=error.fix) from None


def _place_of(error: UsageError, source: Source) -> str:
    """The place of the key that an error is about, or names first; else the file."""
    named = re.findall(r"[a-z_]+(?:\.\w+)*", error.problem)
    for key in [error.key] if error.key else named:
        if _parts(key) in source.lines or key in source.overridden:
            return source.place(_parts(key))
    return source.place(_parts(error.key)) if error.key else str(source.path or "the recipe")


def _none_of(dotted: str, item: Mapping[str, Any]) -> tuple[str, str]:
    """A value that is none of those that there are, and the one that it is nearest to."""
    told = item["ctx"]
    given = told.get("tag", item["input"])
    options = re.findall(r"'([^']*)'", str(told.get("expected_tags") or told.get("expected")))
    near = difflib.get_close_matches(str(given), options, 1, 0.6)
    fix = f"did you mean `{near[0]}`?" if near else f"write one of {', '.join(options)}"
    return f"`{dotted}`: {shown(given)} is none of {', '.join(options)}", fix


def _telling(item: Mapping[str, Any]) -> list[str]:
    """The keys of which one has to be there, where that is what is wrong."""
    first, *kinds = str(item["type"]).split()
    return kinds if first == WHICH_KIND else []


def _meant_kind(item: Any) -> str:
    """The telling key that a mistyped one is near to, as a question; empty where there is none."""
    kinds = _telling(item)
    if not kinds or not isinstance(item["input"], dict):
        return ""
    near = {name: difflib.get_close_matches(str(name), kinds, 1, 0.7) for name in item["input"]}
    pairs = [(name, found[0]) for name, found in near.items() if found and found[0] != name]
    return f"did you mean `{pairs[0][1]}` by `{pairs[0][0]}`?" if pairs else ""


def _yaml_loc(values: Any, loc: Loc) -> Loc:
    """The location in the file, without the tags of unions that pydantic adds."""
    path: list[str | int] = []
    here = values
    for number, part in enumerate(loc):
        inside = (isinstance(here, dict) and part in here) or (
            isinstance(here, list) and isinstance(part, int) and part < len(here)
        )
        if inside:
            here = here[part]
            path.append(part)
        elif number == len(loc) - 1 and not str(part).startswith("<"):
            path.append(part)
    return tuple(path)


def _unknown_key(cls: type[BaseModel], names: list[str], tag: str) -> tuple[str, str]:
    """What is wrong with a key that nothing reads. `tag` may hold the kind of what it stands in."""
    *parents, name = names
    known = list(_fields(cls, ()))
    said = f"unknown key `{short('.'.join(names))}`"
    members = _members(cls, parents)
    own = [one for one in members if f"'{_kind(one)}'" in tag] or members
    siblings = [key for one in own for key in _keys(one)]
    near = difflib.get_close_matches(name, siblings, 1, 0.6)
    if near:
        return said, f"did you mean `{near[0]}`?"
    kinds = [_kind(one) for one in members if name in _keys(one)]
    if kinds:
        return f"{said} for kind: {_kind(own[0])}", f"write kind: {' or '.join(kinds)}, or drop it"
    homes = sorted({".".join(path) for path in known if path[-1] == name})
    if homes:
        return said, f"it belongs at {' or '.join(f'`{home}`' for home in homes)}"
    reads = f"known keys here: {', '.join(sorted(set(siblings)))}" if siblings else "remove it"
    return f"{said}: this method or section does not read it", reads


def _members(cls: type[BaseModel], names: Sequence[str]) -> list[type[BaseModel]]:
    """The classes that may stand at these keys: several where a recipe has kinds."""
    found = [cls]
    for name in names:
        fields = [f for one in found for key, f in _keys(one).items() if key == name]
        found = list(dict.fromkeys(nested for f in fields for nested in _classes(f.annotation)))
    return found


def _keys(cls: type[BaseModel]) -> dict[str, FieldInfo]:
    return {known.alias or name: known for name, known in cls.model_fields.items()}


def _kind(cls: type[BaseModel]) -> str:
    """What its key `kind` says; empty for a class that has none."""
    known = cls.model_fields.get("kind")
    said = get_args(known.annotation) if known is not None else ()
    return str(said[0]) if said else ""


def _fields(cls: type[BaseModel], prefix: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, known in cls.model_fields.items():
        key = known.alias or name
        yield (*prefix, key)
        for nested in _classes(known.annotation):
            yield from _fields(nested, (*prefix, key))


def _classes(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _classes(part)


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested plain values flattened to dotted keys, as in `--set`.

    `flat({"optim": {"lr": 1}, "data": ["a"]})` is `{"optim.lr": 1, "data.0": "a"}`.
    """
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, item in items:
        found |= flat(item, f"{prefix}.{key}" if prefix else str(key))
    return found
