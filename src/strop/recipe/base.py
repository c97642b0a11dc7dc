"""What all recipe classes share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo


class Strict(BaseModel):
    """Frozen; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    def plain(self) -> dict[str, Any]:
        """The recipe as plain values, for YAML, JSON and hashing."""
        return self.model_dump(mode="json")


def _absolute(value: str, info: ValidationInfo) -> str:
    folder = (info.context or {}).get("folder", ".")
    return str((Path(folder) / Path(value).expanduser()).resolve())


def _model_path(value: str, info: ValidationInfo) -> str:
    local = Path(_absolute(value, info))
    is_path = value.startswith((".", "/", "~")) or value.count("/") > 1
    return str(local) if is_path or local.exists() else value


LocalPath = Annotated[str, AfterValidator(_absolute)]
"""A file or folder; a relative one is relative to the file that names it."""

ModelPath = Annotated[str, AfterValidator(_model_path)]
"""A model folder, or the name of a hub model where no such folder exists."""
