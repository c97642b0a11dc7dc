"""Models by folder, registry entry or hub name, each as a folder with its history."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from strop.errors import ModelError, OutputError, RegistryError
from strop.files import temporary_space
from strop.hub import CODE, DESCRIBING, NAME, fetched
from strop.model.adapters import adapter_base, is_adapter_folder
from strop.model.load import expect_weights, weights_hash
from strop.registry.lineage import MADE, ancestry
from strop.registry.objects import copy_file
from strop.registry.store import Registry
from strop.registry.transfer.archive import checkout

LEFT = ("*.safetensors.index.json", "adapter_config.json", "trainer_state.json", MADE)
"""Files beside a model that describe its weights as they are stored, or how they came about."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A model that is there: `Stored(Path("runs/dpo/final"), "runs/dpo/final", "9b1c...",
    {"model": "runs/dpo/final", "method": "dpo", ...})`. `name` is as the user gave it."""

    folder: Path
    name: str
    sha256: str
    lineage: Mapping[str, Any]

    def as_parent(self) -> dict[str, Any]:
        """Its history, for the lineage of what is made of it."""
        return {**self.lineage, "sha256": self.sha256}


@contextmanager
def stored(which: str, registry: Path) -> Iterator[Stored]:
    """The model of a folder, of a registry's entry (or the current one of a name), or of the hub.

    An entry's files are checked out into a temporary folder, which is gone when the block ends.
    Raises `ModelError` for what is none of the three, or holds no weights.
    """
    if Path(which).exists() or which.startswith(("/", ".")):
        yield _in(Path(which), which)
    elif registry.exists() and (_known(which, registry) or not NAME.fullmatch(which)):
        store = Registry(registry)
        entry = store.entry(which)
        with temporary_space(), tempfile.TemporaryDirectory(prefix="strop-") as space:
            folder = Path(space) / "model"
            checkout(store, which, folder)
            yield Stored(folder, which, entry.weights, entry.lineage)
    elif NAME.fullmatch(which):
        yield _in(fetched(which, None), which)
    else:
        raise ModelError(
            "no such model folder, and there is no registry to look the name up in",
            where=which,
            fix="check the path, or name the registry with --registry",
        )


def expect_new(output: Path) -> None:
    """Raise `OutputError` where something stands already."""
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise OutputError("the output exists already", where=str(output),
                          fix="choose another --output, or move it away")  # fmt: skip


def _in(folder: Path, name: str) -> Stored:
    expect_weights(str(folder))
    return Stored(folder, name, weights_hash(folder), {**ancestry(folder), "model": name})


def _known(which: str, registry: Path) -> bool:
    try:
        Registry(registry).entry(which)
    except RegistryError:
        return False
    return True


def base_of(adapter: Stored, given: str | None) -> tuple[Path, tuple[str, ...]]:
    """The folder of the model below an adapter, and what a reader should know of it; `given` takes
    the place of the one that its config names.

    Raises `ModelError` where the base is not there, and where the adapter's lineage says that it
    was trained on other weights.
    """
    named = given or adapter_base(str(adapter.folder))
    if Path(named).is_dir():
        folder = Path(named)
    elif NAME.fullmatch(named):
        folder = fetched(named, None)
    else:
        raise ModelError(
            "the model that the adapter belongs to is not there",
            where=named,
            fix="put it back, or name the place it has now with --base",
        )
    expect_weights(str(folder))
    if is_adapter_folder(str(folder)):
        raise ModelError("the base is itself an adapter", where=named,
                         fix="merge that one first, and give the merged model")  # fmt: skip
    parent = adapter.lineage.get("parent", {})
    if "sha256" not in parent:
        return folder, (f"{adapter.name} has no lineage, so that {named} is the model it was "
                        "trained on is not proven",)  # fmt: skip
    if weights_hash(folder) == parent["sha256"]:
        return folder, ()
    own = f"{folder.parent.name}/{folder.name}"
    if given is None and Path(str(parent.get("model"))).resolve() != folder.resolve():
        return folder, (f"the run made a base of its own ({own}), of which the lineage has no "
                        "hash",)  # fmt: skip
    raise ModelError(
        f"holds other weights ({weights_hash(folder)}) than those that the adapter was trained on "
        f"({parent['sha256']})",
        where=str(folder),
        fix="give the folder of the model that the adapter was trained on with --base",
    )


def carry(source: Path, folder: Path) -> None:
    """Copy what describes a model (config, tokenizer, chat template, generation config, its own
    code), byte for byte; not its weights, its index of them or its lineage."""
    for file in sorted(source.iterdir()):
        kept = any(fnmatchcase(file.name, kind) for kind in (*DESCRIBING, *CODE))
        if file.is_file() and kept and not any(fnmatchcase(file.name, kind) for kind in LEFT):
            copy_file(file, folder / file.name)
