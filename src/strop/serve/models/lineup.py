"""Which version each name stands for, and which versions are loaded."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from strop.engines.server.held import Held
from strop.files import SHORT, sha256_hex
from strop.serve.errors import RefusedError
from strop.serve.models.holder import Holder
from strop.serve.models.places import Place
from strop.serve.models.version import Version, base_of, label_of, opened

Opener = Callable[[str], Holder]


class Lineup:
    """Versions by the names (or roles) they stand for. Adapters of one base share its weights.

    A version that no name stands for any more is let go when its last answer is done: nobody's
    answer changes its weights. Nothing is let go within `changing`: what is loaded there may stand
    on it. All methods but `load` are for the event loop's thread.
    """

    def __init__(self, hold: Opener = Held) -> None:
        self._hold = hold
        self._names: dict[str, Version] = {}
        self._using: Counter[Version] = Counter()
        self._bases: dict[str, Holder] = {}
        self._versions: set[Version] = set()
        self._models: set[Holder] = set()
        self._changing = 0

    def load(self, name: str, place: Place) -> Version:
        """Load weights (or find them loaded) as a version of a name. Takes as long as it takes;
        one at a time, within `changing`. Raises `UsageError` for weights that cannot be served,
        which are not held then."""
        label = label_of(name, place)
        for version in list(self._versions):
            if version.label == label and version.place == place:
                return version
        base = base_of(place)
        where = str(Path(base).resolve()) if base else place.folder
        held = self._bases.get(where)
        if held is None:
            held = self._hold(base or place.folder)
            self._models.add(held)
            if base is not None:
                self._bases[where] = held
        if base is None:
            version = opened(place, name, held, None)
        else:
            adapter = sha256_hex(f"{label}/{place.entry}/{place.folder}", SHORT)  # without dots
            held.load_adapter(adapter, place.folder).result()
            try:
                version = opened(place, name, held, adapter)
            except BaseException:
                held.unload_adapter(adapter)
                raise
        self._versions.add(version)
        return version

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Within it weights are loaded and names assigned."""
        self._changing += 1
        try:
            yield
        finally:
            self._changing -= 1
            self._let_go()

    def assign(self, name: str, version: Version) -> None:
        """From now on the name stands for this version."""
        self._names[name] = version
        self._let_go()

    def withdraw(self, name: str) -> None:
        """The name stands for nothing any more."""
        self._names.pop(name, None)
        self._let_go()

    def version(self, name: str) -> Version:
        """What a name stands for; raises `RefusedError` (404)."""
        found = self._names.get(name)
        if found is None:
            raise no_model(name, list(self._names))
        return found

    @contextmanager
    def using(self, version: Version) -> Iterator[Version]:
        """Within it the version is not let go."""
        self._using[version] += 1
        try:
            yield version
        finally:
            self._using[version] -= 1
            if not self._using[version]:
                del self._using[version]
                self._let_go()

    def close(self) -> None:
        for held in list(self._models):
            held.close()

    def _let_go(self) -> None:
        """Let versions go that no name stands for and nobody waits for, and models of none."""
        if self._changing:
            return
        left = {*self._names.values(), *self._using}
        for version in self._versions - left:
            logging.getLogger("strop.serve").info("let go of %s", version.label)
            if version.adapter is not None:
                version.held.unload_adapter(version.adapter)
        self._versions &= left
        for held in self._models - {one.held for one in left}:
            self._bases = {w: one for w, one in self._bases.items() if one is not held}
            self._models.discard(held)
            asyncio.get_running_loop().run_in_executor(None, held.close)


def no_model(name: str, known: list[str]) -> RefusedError:
    return RefusedError(404, f"there is no model {name!r} here: there are {', '.join(known)}",
                        param="model", code="model_not_found")  # fmt: skip
