"""One set of weights that is loaded, and what it takes to ask it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.errors import ModelError
from strop.model.adapters import adapter_base, is_adapter_folder
from strop.model.load import load_tokenizer, stops_of, weights_hash
from strop.serve.models.holder import Holder
from strop.serve.models.places import Place
from strop.serve.models.renderer import Renderer
from strop.serve.models.selftest import expect_parity

LABEL_DIGITS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """`Version("support@3f2a9c1b", place, held, adapter="support@3f2a9c1b", renderer)`: `label`
    tells it from other versions of the same name; `adapter` is the name of its adapter in `held`,
    `None` where the model is whole."""

    label: str
    place: Place
    held: Holder
    adapter: str | None
    renderer: Renderer
    ends: frozenset[int]

    @property
    def tokenizer(self) -> Any:
        return self.renderer.tokenizer

    @property
    def context(self) -> int | None:
        """Tokens that the model reads, answer included."""
        return self.held.context


def base_of(place: Place) -> str | None:
    """The base that an adapter belongs to; `None` for a whole model.

    Raises `ModelError` where the base is not the one that the adapter was trained on: its hash is
    in the adapter's lineage.
    """
    if not is_adapter_folder(place.folder):
        return None
    base = adapter_base(place.folder)
    trained_on = _parent(Path(place.folder))
    if trained_on is not None and Path(trained_on["path"]).resolve() == Path(base).resolve():
        here = weights_hash(base)
        if here != trained_on["sha256"]:
            raise ModelError(
                f"the adapter was trained on the weights {trained_on['sha256']} of {base}, which "
                f"holds {here} now",
                where=place.folder,
                fix="put the base back that it was trained on, or train the adapter again",
            )
    return base


def opened(place: Place, name: str, held: Holder, adapter: str | None) -> Version:
    """A version of what was loaded. Raises `ModelError` where it would not end as trained."""
    tokenizer = load_tokenizer(place.folder)
    ends = held.ends
    if adapter is not None:
        _expect_ends(place.folder, tokenizer, ends)
    renderer = Renderer(tokenizer)
    expect_parity(renderer, ends, place.folder)
    return Version(label_of(name, place), place, held, adapter, renderer, ends)


def label_of(name: str, place: Place) -> str:
    return f"{name}@{place.weights[:LABEL_DIGITS]}"


def _expect_ends(folder: str, tokenizer: Any, ends: frozenset[int]) -> None:
    """Raise `ModelError` for an adapter whose answers end at tokens where the base's do not."""
    further = {*stops_of(folder), tokenizer.eos_token_id} - ends - {None}
    if further:
        raise ModelError(
            f"answers of the adapter end at the tokens {sorted(further)}, those of its base at "
            f"{sorted(ends)}",
            where=folder,
            fix="merge it (`strop merge`) and serve the whole model",
        )


def _parent(folder: Path) -> dict[str, Any] | None:
    """What the run that wrote an adapter began from."""
    lineage = folder.parent / "lineage.json"
    if not lineage.is_file():
        return None
    parent = json.loads(lineage.read_text(encoding="utf-8")).get("parent")
    return parent if isinstance(parent, dict) and {"path", "sha256"} <= parent.keys() else None
