"""How weights get to servers: as a folder that they read."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path
from typing import Protocol

from strop.engines.served.server import Server
from strop.model.network import Policy
from strop.model.save import save_network


class Sync(Protocol):
    """Writes versions of a policy, and lets servers load them."""

    def write(self, policy: Policy, version: int) -> None:
        """Write this version, and drop those that nobody loads any more."""

    def load(self, server: Server, version: int) -> None:
        """Let a server load this version."""

    def model(self, version: int, base: str) -> str:
        """By what name to ask for this version, at servers whose model is `base`."""

    def label(self, version: int) -> str | None:
        """What servers call the weights of this version; `None` where its name says it."""


class Folders:
    """Folders `<root>/<run>-<version>`; `run` is new each time, so that no server confuses it with
    what an earlier run gave it. The newest two stay."""

    def __init__(self, root: Path) -> None:
        self.root, self.run = root.resolve(), secrets.token_hex(4)

    def of(self, version: int) -> Path:
        return self.root / f"{self.run}-{version}"

    def write(self, policy: Policy, version: int) -> None:
        save_network(policy, self.of(version))
        shutil.rmtree(self.of(version - 2), ignore_errors=True)


class AdapterSync:
    """The adapter alone, under a new name and folder each time: servers serve an adapter of a known
    name from their cache. The one before is unloaded."""

    def __init__(self, root: Path) -> None:
        self.folders = Folders(root)

    def write(self, policy: Policy, version: int) -> None:
        self.folders.write(policy, version)

    def load(self, server: Server, version: int) -> None:
        folder = self.folders.of(version)
        held = server.about().adapters
        if folder.name not in held:
            server.load_adapter(folder.name, folder)
        for name in held:
            if name.startswith(f"{self.folders.run}-") and name != folder.name:
                server.unload_adapter(name)

    def model(self, version: int, base: str) -> str:
        return self.folders.of(version).name

    def label(self, version: int) -> str | None:
        return None


class DiskSync:
    """The whole model; servers read it again in place."""

    def __init__(self, root: Path) -> None:
        self.folders = Folders(root)

    def write(self, policy: Policy, version: int) -> None:
        self.folders.write(policy, version)

    def load(self, server: Server, version: int) -> None:
        server.reload(self.folders.of(version))

    def model(self, version: int, base: str) -> str:
        return base

    def label(self, version: int) -> str | None:
        return self.folders.of(version).name
