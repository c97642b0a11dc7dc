"""Rendered sources in memory or, where they outgrow it, in a cache on the disk.

A source is tokenised once: later runs that read the same bytes in the same way memory-map what the
first run wrote. Each source has a folder below `tokens/` in the cache, named by a hash of all that
its trees depend on.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tokenizers
import transformers

import strop
from strop.data.bad_rows import BadRow, LeftOut, Sieve
from strop.data.reading.folders import find
from strop.data.sources import rows_hash, rows_size
from strop.errors import OutputError
from strop.files import (
    hashed_files,
    locked,
    refuse_locked,
    remove,
    sha256_of_parts,
    writing_folder,
)
from strop.recipe.train.data import DataSource, TextRecipe
from strop.recipe.train.methods import Recipe
from strop.text.store import CARD, VERSION, Store, StoreWriter, open_store
from strop.text.trees import Add, Rendered, Tally, in_memory
from strop.types import Origin

OUTGROWN = 64 << 20
"""A recipe whose source files have this many bytes in all goes to the cache on disk: in memory a
token takes about 50 bytes."""

VARIABLE = "STROP_CACHE"
"""The environment variable that says where the cache is."""

TREES = "trees"
"""The store in the folder of a source."""

KEPT_DAYS = 30
"""A store is deleted this many days after its last use, when a run writes another one."""

WAIT = 0.5
"""Seconds between two looks at a store that another run is writing."""

Make = Callable[[Add], Tally]
"""Renders a source: adds every tree, and returns what was counted."""


@dataclass(frozen=True, slots=True)
class HowTokenised:
    """What the trees of a source depend on beside its rows: `HowTokenised(source, "demonstration",
    TextRecipe(), tokenizer, held_out=False)`."""

    source: DataSource
    kind: str
    text: TextRecipe
    tokenizer: Any
    held_out: bool

    def key(self, sieve: Sieve) -> str:
        """Equal for what gives the same trees and drops the same rows; reads all rows."""
        source = self.source
        found = find(Path(source.path), held_out=self.held_out) if source.path else None
        parts = [
            [VERSION, strop.__version__, transformers.__version__, tokenizers.__version__],
            [source.model_dump(mode="json", exclude={"weight"}), sieve.max_bad, self.held_out],
            [str(file) for file in found.files] if found else [],
            [rows_hash(source), self.kind],
            self.text.model_dump(mode="json", exclude={"cache"}),
            tokenizer_hash(self.tokenizer),
        ]
        return sha256_of_parts([json.dumps(parts, sort_keys=True).encode()])


def tokenizer_hash(tokenizer: Any) -> str:
    """Hash of all that is saved of a tokenizer, its chat template among it, 16 hex digits."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = sorted(file for file in Path(folder).rglob("*") if file.is_file())
        return sha256_of_parts([json.dumps(hashed_files(Path(folder), files)).encode()])


class TokenCache:
    """Keeps the rendered sources of a run, in memory or on disk; `used` lists what it did on disk.

    Without `keep` (a dry run) the files of newly tokenised sources vanish once they are closed.
    """

    def __init__(self, recipe: Recipe, *, keep: bool = True) -> None:
        self.on_disk, self.keep = _outgrows_memory(recipe), keep
        self.used: list[str] = []

    def rendered(self, how: HowTokenised, sieve: Sieve, make: Make) -> Rendered:
        """The trees that `make` adds, in memory or from the cache; fills `sieve` with the counts.

        Raises `OutputError` where the cache cannot be written.
        """
        if not self.on_disk:
            return in_memory(make)
        store = self._stored(how, sieve, make)
        return Rendered(store.trees, store.records, Tally(**store.counts["tally"]))

    def checks(self) -> dict[str, str]:
        """For the line of checks: `{"tokenised": "812 MiB on disk, reused"}`."""
        return {"tokenised": "; ".join(dict.fromkeys(self.used))} if self.used else {}

    def _stored(self, how: HowTokenised, sieve: Sieve, make: Make) -> Store:
        root = cache_folder() / "tokens"
        place = root / how.key(sieve)
        with _write_errors(root), ExitStack() as turn:
            if self.keep or place.exists():
                _wait_for(place, turn)
                store = open_store(place / TREES)
                if store is not None:
                    _recall(store, sieve)
                    os.utime(place / TREES / CARD)
                    self.used.append(f"{_said(store.size)} on disk, reused")
                    return store
            warnings.warn(
                f"{how.source.name}: tokenising {_said(rows_size(how.source))} to {root}, which "
                f"{'the next run reuses' if self.keep else 'a dry run does not keep'}",
                stacklevel=4,
            )
            store = _written(place, how.tokenizer, sieve, make, keep=self.keep)
            self.used.append(f"{_said(store.size)} on disk")
            _sweep_old(root)
            return store


def cache_folder() -> Path:
    """`$STROP_CACHE`, else `strop` in `$XDG_CACHE_HOME` or `~/.cache`."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    caches = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    if not caches.is_absolute():
        raise OutputError("there is no home folder for the cache of tokenised records",
                          fix=f"set {VARIABLE} to a folder, or text.cache: never")  # fmt: skip
    return caches / "strop"


def _outgrows_memory(recipe: Recipe) -> bool:
    if recipe.text.cache != "auto":
        return recipe.text.cache == "always"
    looked_at = recipe.eval.data if recipe.eval is not None else []
    return sum(map(rows_size, (*recipe.data, *looked_at))) >= OUTGROWN


def _written(place: Path, tokenizer: Any, sieve: Sieve, make: Make, *, keep: bool) -> Store:
    """Write the store of this source; without `keep` its files are open but already deleted."""
    with ExitStack() as stack:
        if keep:
            folder = stack.enter_context(writing_folder(place / TREES))
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            named = tempfile.TemporaryDirectory(prefix=".dry-", suffix=".tmp", dir=place.parent)
            folder = Path(stack.enter_context(named))
        with StoreWriter(folder, max(tokenizer.get_vocab().values())) as writer:
            tally = make(writer.add)
            writer.finish(
                {"tally": asdict(tally), "rows": sieve.rows, "forms": sieve.forms},
                notes=map(asdict, sieve.dropped),
            )
        store = open_store(folder)
    assert store is not None, "what was just written is whole"
    return store


def _recall(store: Store, sieve: Sieve) -> None:
    """What was counted when the store was written."""
    sieve.rows, sieve.forms = store.counts["rows"], Counter(store.counts["forms"])
    rows = (one | {"origin": Origin(**one["origin"])} for one in store.notes)
    sieve.dropped = LeftOut(BadRow(**one) for one in rows)


def _wait_for(place: Path, turn: ExitStack) -> None:
    """Lock the folder of a source, waiting for any run that writes there."""
    while True:
        try:
            turn.enter_context(locked(place))
            return
        except OutputError:
            time.sleep(WAIT)


def _sweep_old(root: Path) -> None:
    """Delete the stores that no run has used for `KEPT_DAYS`, and what a killed dry run left."""
    for place in root.iterdir():
        with suppress(FileNotFoundError, OutputError):  # swept by another run, or in use
            card = place / TREES / CARD
            used = (card if card.exists() else place).stat().st_mtime
            if time.time() - used > KEPT_DAYS * 86400:
                refuse_locked(place)
                remove(place)


@contextmanager
def _write_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot keep tokenised records here: {error.strerror or error}",
            where=str(root),
            fix=f"make room, set {VARIABLE} to a folder on another disk, or text.cache: never to "
            "keep all records in memory",
        ) from error


def _said(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 29 else f"{size / (1 << 20):.1f} MiB"
