"""How weights get to servers: as a folder that they read, by broadcast, or where they lie."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import torch

from strop.engines.served.server import Server
from strop.engines.served.ways import broadcast_way
from strop.errors import TrainingError
from strop.model.network import Policy
from strop.model.save import gathered_weights, save_network


class Sync(Protocol):
    """Writes versions of a policy, and lets servers load them."""

    def write(self, policy: Policy, version: int, flying: Collection[int]) -> None:
        """Write this version, and drop those that nobody loads any more. Answers of the versions
        `flying` are on their way. The weights of a sharded policy are gathered here, which takes
        all processes."""

    def load(self, server: Server, version: int) -> None:
        """Let a server load this version."""

    def tidy(self, server: Server, version: int, flying: Collection[int]) -> None:
        """Let a server that samples from this version drop others, but those that are flying."""

    def holds(self, server: Server, version: int) -> bool:
        """Whether a server knows the name by which this version is asked for."""

    def leave(self, server: Server) -> None:
        """Let a server drop what it was given."""

    def remove(self) -> None:
        """Remove all that was written."""

    def adapter(self, version: int) -> str | None:
        """The adapter to ask for this version; `None` is the servers' model itself."""

    def label(self, version: int) -> str | None:
        """What servers call the weights of this version; `None` where its name says it."""


class Folders:
    """Folders `<root>/<run>-<version>`; `run` is new each time, so that no server confuses it with
    what an earlier run gave it. The newest two stay, and those whose answers are on their way."""

    def __init__(self, root: Path) -> None:
        self.root, self.run = root.resolve(), secrets.token_hex(4)
        self._is_new = not root.exists()

    def of(self, version: int) -> Path:
        return self.root / f"{self.run}-{version}"

    def write(self, policy: Policy, version: int, flying: Collection[int]) -> None:
        weights = gathered_weights(policy, keep=True) if policy.is_sharded else None
        save_network(policy, self.of(version), weights)
        kept = {self.of(one).name for one in (version, version - 1, *flying)}
        for folder in self._all():
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def has(self, name: str) -> bool:
        """Whether one of these folders has this name."""
        return name.startswith(f"{self.run}-")

    def remove(self) -> None:
        """All of them, and what is around them where the first of them made it."""
        for folder in self._all():
            shutil.rmtree(folder, ignore_errors=True)
        if self._is_new:
            with suppress(OSError):  # others write there, too, or nothing was written
                self.root.rmdir()

    def _all(self) -> list[Path]:
        return list(self.root.glob(f"{self.run}-*"))


class AdapterSync:
    """The adapter alone, under a new name and folder each time: servers serve an adapter of a known
    name from their cache. Older ones are unloaded when none of their answers is on its way."""

    def __init__(self, root: Path) -> None:
        self.folders = Folders(root)

    def write(self, policy: Policy, version: int, flying: Collection[int]) -> None:
        self.folders.write(policy, version, flying)

    def load(self, server: Server, version: int) -> None:
        folder = self.folders.of(version)
        if folder.name not in server.about().adapters:
            server.load_adapter(folder.name, folder)

    def tidy(self, server: Server, version: int, flying: Collection[int]) -> None:
        kept = {self.folders.of(one).name for one in (version, *flying)}
        for name in server.about().adapters:
            if self.folders.has(name) and name not in kept:
                server.unload_adapter(name)

    def holds(self, server: Server, version: int) -> bool:
        return self.folders.of(version).name in server.about().adapters

    def leave(self, server: Server) -> None:
        for name in server.about().adapters:
            if self.folders.has(name):
                server.unload_adapter(name, leaving=True)

    def remove(self) -> None:
        self.folders.remove()

    def adapter(self, version: int) -> str | None:
        return self.folders.of(version).name

    def label(self, version: int) -> str | None:
        return None


class DiskSync:
    """The whole model; servers read it again in place."""

    def __init__(self, root: Path) -> None:
        self.folders = Folders(root)

    def write(self, policy: Policy, version: int, flying: Collection[int]) -> None:
        self.folders.write(policy, version, flying)

    def load(self, server: Server, version: int) -> None:
        server.reload(self.folders.of(version))

    def tidy(self, server: Server, version: int, flying: Collection[int]) -> None:
        """There is one set of weights, and it was replaced."""

    def holds(self, server: Server, version: int) -> bool:
        return True  # the base's own name

    def leave(self, server: Server) -> None:
        """Its first weights are read again only where it is restarted."""

    def remove(self) -> None:
        self.folders.remove()

    def adapter(self, version: int) -> str | None:
        return None

    def label(self, version: int) -> str | None:
        return self.folders.of(version).name


class InPlace:
    """What is common to the ways by which one set of weights is replaced, from memory."""

    def __init__(self) -> None:
        self._run = secrets.token_hex(4)

    def tidy(self, server: Server, version: int, flying: Collection[int]) -> None:
        """There is one set of weights, and it was replaced."""

    def holds(self, server: Server, version: int) -> bool:
        return True  # the base's own name

    def leave(self, server: Server) -> None:
        """Its first weights are read again only where it is restarted."""

    def remove(self) -> None:
        """Nothing was written."""

    def adapter(self, version: int) -> str | None:
        return None

    def label(self, version: int) -> str:
        return f"{self._run}-{version}"


class BroadcastSync(InPlace):
    """The whole model from memory to memory. A copy is kept, because a server that was away gets
    this version while the trainer may be at the next."""

    def __init__(self) -> None:
        super().__init__()
        self._weights: Mapping[str, torch.Tensor] = {}
        self._device = "cpu"

    def write(self, policy: Policy, version: int, flying: Collection[int]) -> None:
        own = dict(policy.model.named_parameters())
        self._device = next(iter(own.values())).device.type
        if policy.is_sharded:
            whole = gathered_weights(policy, keep=True)
            self._weights = {name: whole[name] for name in own}
        else:
            self._weights = {name: one.detach().cpu().clone() for name, one in own.items()}

    def load(self, server: Server, version: int) -> None:
        way = broadcast_way(server.started(), self._device, server.url)
        server.receive(self._weights, self.label(version), way)


class IpcSync(InPlace):
    """The whole model, read by servers on the trainer's GPU where it lies. Nothing is copied: the
    weights have to be as they were when they were published."""

    def __init__(self) -> None:
        super().__init__()
        self._weights: Mapping[str, torch.Tensor] = {}
        self._changes: list[int] = []

    def write(self, policy: Policy, version: int, flying: Collection[int]) -> None:
        self._weights = dict(policy.model.named_parameters())
        self._changes = _changes(self._weights)

    def load(self, server: Server, version: int) -> None:
        if _changes(self._weights) != self._changes:
            raise TrainingError(
                f"version {version} cannot be given to a server that was away: the weights were "
                "updated since it was published",
                where=server.url,
                fix="resume the run: strop train --resume",
            )
        server.receive(self._weights, self.label(version), "ipc")


def _changes(weights: Mapping[str, torch.Tensor]) -> list[int]:
    """How often each of them was changed in place."""
    return [one._version for one in weights.values()]


SYNCS: Mapping[str, Callable[[Path], Sync]] = {
    "adapter": AdapterSync, "disk": DiskSync, "broadcast": lambda root: BroadcastSync(),
    "ipc": lambda root: IpcSync(),
}  # fmt: skip
"""How `rollout.engine.sync` names them; each is given the folder for what it writes."""
