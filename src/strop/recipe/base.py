"""The base class and the path types of all recipe classes."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo, model_validator

LONGEST_NAME, LONGEST_PATH = 255, 4096
"""The longest name and path that file systems accept; beyond them even checking whether a file
exists is an error."""

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*)|(\$)|(?=\{))", re.ASCII)
"""`${NAME}`, `$NAME`, `$$`, or a brace that holds anything else."""


class Contradiction(ValueError):  # noqa: N818 - pydantic turns it into an error
    """Keys that do not go together: `Contradiction("...", "reward", fix="...")` names the key that
    is wrong, below the class whose validator raises it."""

    def __init__(self, problem: str, key: str, *, fix: str) -> None:
        self.key, self.fix = key, fix
        super().__init__(problem)


class Strict(BaseModel):
    """Frozen; an unknown key is an error, and so is a number that is NaN, infinite or a bool."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, values: Any) -> Any:
        """Turn a bool for a number into text, so that it is refused."""
        if not isinstance(values, dict):
            return values
        return {
            name: str(value) if isinstance(value, bool) and _is_number(cls, name) else value
            for name, value in values.items()
        }

    def plain(self) -> dict[str, Any]:
        """The recipe as plain values, for YAML, JSON and hashing."""
        return self.model_dump(mode="json", by_alias=True)


def _is_number(cls: type[BaseModel], name: Any) -> bool:
    field = cls.model_fields.get(name)
    kinds = (field.annotation, *get_args(field.annotation)) if field else ()
    return bool({int, float} & set(kinds)) and bool not in kinds


def _expanded(value: str) -> str:
    """A path with the values of its environment variables: `${SCRATCH}/runs` and `$HOME/models`.

    `$$` is a dollar sign. A variable that is not set would make a folder that nobody meant.
    """

    def value_of(found: re.Match[str]) -> str:
        if found[3]:
            return "$"
        name = found[1] or found[2]
        if name is None:
            raise ValueError("of `${...}` only `${NAME}` is read: write the path out")
        if not os.environ.get(name):
            state = "empty" if name in os.environ else "not set"
            raise ValueError(
                f"the environment variable {name} is {state}: set it, or write the path out"
            )
        return os.environ[name]

    return _VARIABLE.sub(value_of, value)


def absolute(value: str, info: ValidationInfo) -> str:
    """A path with its environment variables expanded, relative to the file that names it."""
    return _below(_expanded(value), info)


def _below(value: str, info: ValidationInfo) -> str:
    """The absolute path, relative to the folder of the file that names it."""
    folder = (info.context or {}).get("folder", ".")
    try:
        path = (Path(folder) / Path(value).expanduser()).resolve()
    except (RuntimeError, OSError) as error:  # unknown `~user`, cyclic links
        raise ValueError(f"no path can be made of it: {error}") from None
    if len(os.fsencode(path)) >= LONGEST_PATH or any(
        len(os.fsencode(part)) > LONGEST_NAME for part in path.parts
    ):
        raise ValueError("no path can be made of it: a name of it is too long")
    return str(path)


def _model_path(value: str, info: ValidationInfo) -> str:
    value = _expanded(value)
    local = _below(value, info)
    is_path = value.startswith((".", "/", "~")) or value.count("/") > 1
    return local if is_path or os.path.exists(local) else value


LocalPath = Annotated[str, AfterValidator(absolute)]
"""A file or folder; a relative one is relative to the file that names it. `~` and environment
variables (`${SCRATCH}/runs`) are expanded."""

ModelPath = Annotated[str, AfterValidator(_model_path)]
"""A model folder, or the name of a hub model if no such folder exists."""
