"""Model folders and the store by content.

A manifest lists the files of a folder. The store keeps each as `<store>/<aa>/<sha256>`, complete or
absent, never hard-linked to a file in use.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from strop.errors import RegistryError
from strop.files import hashed_files, place, sha256_of, sha256_of_hashes
from strop.registry.records import Manifest

UNFINISHED = ".incoming-"
ABANDONED = 24 * 3600.0
"""Seconds after which an unfinished copy belongs to a process that died."""

HASHED = ("*.safetensors", "config.json", "adapter_config.json", "tokenizer.json")
"""Files at the top of the folder that make up its weights hash."""


class Objects:
    """`Objects(Path("registry.objects"))`; the folder is made when the first file comes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256

    def put(self, folder: Path, manifest: Manifest) -> None:
        """Copy the files of a folder that the store lacks; a damaged copy is replaced.

        Raises `RegistryError` for a file that no longer matches the manifest.
        """
        with self.incoming() as inbox:
            for name, file in manifest.items():
                if not self.is_whole(file["sha256"]):
                    copy = inbox / file["sha256"]
                    copy_file(folder / name, copy)
                    if sha256_of(copy) != file["sha256"]:
                        raise RegistryError("the file changed while it was stored",
                                            where=str(folder / name), fix="try again")  # fmt: skip
                    self.place(copy)

    def place(self, copy: Path) -> None:
        """Move a verified copy, named by its sha256, from the inbox to its final path."""
        home = self.path(copy.name)
        home.parent.mkdir(parents=True, exist_ok=True)
        copy.chmod(0o444)
        place(copy, home)

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """A temporary folder beside the objects for copies that are not verified yet."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=self.folder) as inbox:
                yield Path(inbox)
        except OSError as error:
            raise RegistryError(
                f"the files cannot be stored: {error}",
                where=str(self.folder),
                fix="check permissions and the room left on the disk",
            ) from None

    def is_whole(self, sha256: str) -> bool:
        path = self.path(sha256)
        return path.is_file() and sha256_of(path) == sha256

    def missing(self, manifest: Manifest) -> list[str]:
        """Names whose object is missing or has the wrong size; cheap, because nothing is read."""
        return [
            name for name, file in manifest.items() if not self._has(file["sha256"], file["size"])
        ]

    def _has(self, sha256: str, size: int) -> bool:
        path = self.path(sha256)
        return path.is_file() and path.stat().st_size == size

    def restore(self, manifest: Manifest, folder: Path) -> None:
        """Write the files into an empty folder; raises `RegistryError` for a damaged object."""
        for name, file in manifest.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if self.path(file["sha256"]).is_file():
                copy_file(self.path(file["sha256"]), target)
            if not target.is_file() or sha256_of(target) != file["sha256"]:
                raise RegistryError(f"{name} is damaged or missing in the store",
                                    where=str(self.path(file["sha256"])),
                                    fix="import an archive of the entry")  # fmt: skip

    def sizes(self) -> dict[str, int]:
        """Bytes of every object, by sha256."""
        return {
            path.name: path.stat().st_size
            for path in sorted(self.folder.glob("??/*"))
            if path.is_file() and path.name.startswith(path.parent.name)
        }

    def remove(self, sha256: str) -> None:
        self.path(sha256).unlink()

    def abandoned(self) -> list[Path]:
        """Inboxes of processes that died."""
        before = time.time() - ABANDONED
        found = self.folder.glob(f"{UNFINISHED}*")
        return sorted(inbox for inbox in found if inbox.stat().st_mtime < before)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file; if the file system supports it, the copy shares blocks until a write."""
    with source.open("rb") as read, target.open("wb") as write:
        try:
            while os.copy_file_range(read.fileno(), write.fileno(), 1 << 30):
                pass
        except OSError:  # not between these file systems
            read.seek(0)
            write.seek(0)
            shutil.copyfileobj(read, write, 1 << 20)


def manifest_of(folder: Path) -> Manifest:
    """sha256 and size of every file, by relative name; links are followed.

    Raises `RegistryError` for a link that leads nowhere and a file that cannot be read.
    """
    try:
        return hashed_files(folder, files_of(folder))
    except OSError as error:
        raise RegistryError(f"the model folder cannot be read: {error}",
                            where=str(folder)) from None  # fmt: skip


def files_of(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path
        elif not path.is_dir():
            raise RegistryError("is no file, or a link that leads nowhere", where=str(path),
                                fix="take it out of the model folder")  # fmt: skip


def weights_of(manifest: Manifest) -> str:
    """The hash that `strop.model.load.weights_hash` returns for a folder of these files."""
    return sha256_of_hashes(
        (name, manifest[name]["sha256"])
        for name in sorted(manifest)
        if "/" not in name and any(fnmatchcase(name, pattern) for pattern in HASHED)
    )


def expect_weights(manifest: Manifest, weights: str, path: str) -> None:
    """Raise `RegistryError` unless these files hold weights, and exactly those."""
    if not any(name.endswith(".safetensors") for name in manifest):
        raise RegistryError("the folder holds no safetensors weights", where=path,
                            fix="promote a folder saved with save_pretrained")  # fmt: skip
    if weights_of(manifest) != weights:
        raise RegistryError(
            f"the folder's weights hash to {weights_of(manifest)}, not to {weights}",
            where=path,
            fix="something writes to the folder; wait until it has ended",
        )
