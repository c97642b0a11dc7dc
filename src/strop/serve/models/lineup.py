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
    answer changes its weights. All methods but `load` are for the event loop's thread.
    """

    def __init__(self, hold: Opener = Held) -> None:
        self._hold = hold
        self._names: dict[str, Version] = {}
        self._using: Counter[Version] = Counter()
        self._bases: dict[str, Holder] = {}

    @property
    def names(self) -> dict[str, Version]:
        return dict(self._names)

    def load(self, name: str, place: Place) -> Version:
        """Load weights (or find them loaded) as a version of a name. Takes as long as it takes;
        one at a time. Raises `UsageError` for weights that cannot be served."""
        label = label_of(name, place)
        for version in self._loaded():
            if version.label == label:
                return version
        base = base_of(place)
        where = str(Path(base or place.folder).resolve()) if base else place.folder
        held = self._bases.get(where)
        if held is None:
            held = self._hold(base or place.folder)
            if base is not None:
                self._bases[where] = held
        adapter = None if base is None else sha256_hex(label, SHORT)  # peft takes no dots in it
        if adapter is not None:
            held.load_adapter(adapter, place.folder).result()
        return opened(place, name, held, adapter)

    def assign(self, name: str, version: Version) -> None:
        """From now on the name stands for this version."""
        before = self._names.get(name)
        self._names[name] = version
        if before is not None and before is not version:
            self._retire(before)

    def withdraw(self, name: str) -> None:
        """The name stands for nothing any more."""
        before = self._names.pop(name, None)
        if before is not None:
            self._retire(before)

    def version(self, name: str) -> Version:
        """What a name stands for; raises `RefusedError` (404)."""
        found = self._names.get(name)
        if found is None:
            raise no_model(name, [name for name in self._names if not name.startswith("(")])
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
                self._retire(version)

    def close(self) -> None:
        for held in {*self._bases.values(), *(one.held for one in self._loaded())}:
            held.close()

    def _loaded(self) -> set[Version]:
        return {*self._names.values(), *self._using}

    def _retire(self, version: Version) -> None:
        """Let a version go that nobody stands for or waits for."""
        left = self._loaded()
        if version in left:
            return
        logging.getLogger("strop.serve").info("let go of %s", version.label)
        if version.adapter is not None:
            version.held.unload_adapter(version.adapter)
        if not any(one.held is version.held for one in left):
            for where in [w for w, held in self._bases.items() if held is version.held]:
                del self._bases[where]
            asyncio.get_running_loop().run_in_executor(None, version.held.close)


def no_model(name: str, known: list[str]) -> RefusedError:
    return RefusedError(404, f"there is no model {name!r} here: there are {', '.join(known)}",
                        param="model", code="model_not_found")  # fmt: skip
