"""An entry as one archive: whole, the same bytes twice, and forgeries refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from strop.errors import RegistryError
from strop.model.load import weights_hash
from strop.registry.card import card
from strop.registry.objects import manifest_of
from strop.registry.records import Entry, content_id
from strop.registry.store import Registry
from strop.registry.transfer.archive import export
from strop.registry.transfer.unpack import import_archive, is_confined
from strop.registry.upkeep.garbage import collect
from strop.registry.upkeep.verify import verify
from tests.support.registries import FILES, damage, invoke, model, passed, promote, stored


def sealed(files: dict[str, bytes]) -> bytes:
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return "".join(f"{sha256}  {name}\n" for name, sha256 in hashes.items()).encode()


def rewrite(
    source: Path, target: Path, change: Callable[[str, tarfile.TarInfo, bytes], Any]
) -> Path:
    """Copy a tar; `change` gives the members to write in place of each. The sums are made anew."""
    written: dict[str, bytes] = {}
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old:
            content = old.extractfile(member).read()  # type: ignore[union-attr]
            content = sealed(written) if member.name == "SHA256SUMS" else content
            for header, body in change(member.name, member, content):
                written[header.name] = body
                header.size = len(body) if header.type == tarfile.REGTYPE else 0
                new.addfile(header, io.BytesIO(body))
    return target


def relabel(**changes: Any) -> Callable[..., Any]:
    """Change the entry in entry.json and give it the id that fits."""

    def change(name: str, header: tarfile.TarInfo, content: bytes) -> Any:
        if name == "entry.json":
            label = json.loads(content)
            entry = {**label["entry"], **changes}
            parts = {k: entry[k] for k in ("weights", "lineage", "verdict", "manifest")}
            entry["id"] = changes.get("id", content_id(**parts))
            content = json.dumps({**label, "entry": entry}).encode()
        return [(header, content)]

    return change


def instead(which: str, *members: tuple[str, bytes, bytes]) -> Callable[..., Any]:
    """Put (name, type, content) in the place of a member."""

    def change(name: str, header: tarfile.TarInfo, content: bytes) -> Any:
        if name != which:
            return [(header, content)]
        written = []
        for new, kind, body in members:
            other = tarfile.TarInfo(new)
            other.type, other.linkname = kind, "/etc/passwd"
            written.append((other, body))
        return written

    return change


WEIGHTS = "model/model.safetensors"


REG = tarfile.REGTYPE


SOUND = {name: {"sha256": hashlib.sha256(c).hexdigest(), "size": len(c)} for name, c in
         {**FILES, "model.safetensors": b"first"}.items()}  # fmt: skip


FORGERIES = {
    "traversal in the tar": (instead(WEIGHTS, ("../../evil", REG, b"first")), "'../../evil', wh"),
    "absolute in the tar": (instead(WEIGHTS, ("/evil", REG, b"first")), "which its entry does not"),
    "symlink": (instead(WEIGHTS, (WEIGHTS, tarfile.SYMTYPE, b"")), "not a plain file"),
    "hard link": (instead(WEIGHTS, (WEIGHTS, tarfile.LNKTYPE, b"")), "not a plain file"),
    "device": (instead(WEIGHTS, (WEIGHTS, tarfile.CHRTYPE, b"")), "not a plain file"),
    "fifo": (instead(WEIGHTS, (WEIGHTS, tarfile.FIFOTYPE, b"")), "not a plain file"),
    "folder": (instead(WEIGHTS, (WEIGHTS, tarfile.DIRTYPE, b"")), "not a plain file"),
    "other content": (instead(WEIGHTS, (WEIGHTS, REG, b"FIRST")), "is damaged: its sha256"),
    "other size": (instead(WEIGHTS, (WEIGHTS, REG, b"firs")), "another size"),
    "a file too few": (instead(WEIGHTS), "it lacks model/model.safetensors"),
    "a file too many": (
        instead("README.md", ("README.md", REG, b""), ("model/b.py", REG, b"")), "'model/b.py', wh",
    ),
    "a file twice": (instead(WEIGHTS, (WEIGHTS, REG, b"first"), (WEIGHTS, REG, b"first")),
                     "which its entry does not name"),
    "no label": (instead("entry.json"), "entry.json is not where it should be"),
    "another card": (instead("SHA256SUMS", ("SHA256SUMS", REG, b"0  README.md")), "does not fit"),
    "no sums": (instead("SHA256SUMS"), "SHA256SUMS is not where it should be"),
    "something after the end": (
        lambda name, header, content: [(header, content), *(
            [(tarfile.TarInfo("more"), b"")] if name == "SHA256SUMS" else [])], "'more', which",
    ),
    "label of another kind": (instead("entry.json", ("entry.json", REG, b'{"format": "x"}')),
                              "entry.json is not ours: format"),
    "label that is no JSON": (instead("entry.json", ("entry.json", REG, b"\xff{")), "not ours"),
    "label that is a link": (instead("entry.json", ("entry.json", tarfile.SYMTYPE, b"")),
                             "not a plain file"),
    "traversal in the manifest": (
        relabel(manifest={**SOUND, "../evil": SOUND["config.json"]}), "outside of the model",
    ),
    "no hash in the manifest": (
        relabel(manifest={**SOUND, "a": {"sha256": "../../evil", "size": 1}}), "no sha256 for 'a'",
    ),
    "another id": (relabel(id="000000000000"), "does not hash to the id"),
    "another verdict": (relabel(verdict=None, id="keep"), "does not hash to the id"),
    "weights it does not hold": (relabel(weights="0" * 16), "weights hash to"),
    "a verdict that is none": (relabel(verdict={"name": "pass", "checks": [{}]}), "not as a run"),
    "a lineage that is none": (relabel(lineage={}), "not as a run"),
}  # fmt: skip


class TestArchive:
    @pytest.fixture
    def archive(self, registry: Registry, entry: Entry, tmp_path: Path) -> Path:
        export(registry, "algebra", tmp_path / "a.tar")
        return tmp_path / "a.tar"

    @pytest.fixture
    def there(self, tmp_path: Path) -> Registry:
        return Registry(tmp_path / "there" / "r.db")

    def test_the_same_entry_gives_the_same_bytes(
        self, registry: Registry, archive: Path, tmp_path: Path
    ) -> None:
        export(registry, "algebra", tmp_path / "b.tar")
        assert archive.read_bytes() == (tmp_path / "b.tar").read_bytes()

    def test_any_tar_can_read_it(self, archive: Path, tmp_path: Path, entry: Entry) -> None:
        subprocess.run(["tar", "-xf", archive, "-C", tmp_path], check=True)
        assert manifest_of(tmp_path / "model") == entry.manifest
        assert (tmp_path / "README.md").read_text() == card(entry)

    def test_no_file_is_overwritten(self, registry: Registry, archive: Path) -> None:
        before = archive.read_bytes()
        with pytest.raises(RegistryError, match="exists already"):
            export(registry, "algebra", archive)
        assert archive.read_bytes() == before

    def test_a_damaged_object_is_not_exported(
        self, registry: Registry, entry: Entry, tmp_path: Path
    ) -> None:
        damage(registry.objects.path(entry.manifest["model.safetensors"]["sha256"]))
        with pytest.raises(RegistryError, match=r"model\.safetensors is damaged"):
            export(registry, "algebra", tmp_path / "a.tar")
        assert not list(tmp_path.glob("*a.tar*"))

    def test_there_it_is_the_same_entry_under_no_name(
        self, archive: Path, there: Registry, entry: Entry
    ) -> None:
        found = import_archive(there, archive)
        assert found.new
        assert there.names() == []
        (got,) = there.entries()
        assert {**asdict(got), "origin": None} == asdict(entry)
        assert got.origin is not None
        (event,) = got.origin["events"]
        assert (event["name"], event["action"]) == ("algebra", "promote")
        assert not [checked for checked in verify(there) if checked.problems]

    def test_its_history_goes_on(self, archive: Path, there: Registry, tmp_path: Path) -> None:
        import_archive(there, archive, name="mine")
        export(there, "mine", tmp_path / "b.tar")
        third = Registry(tmp_path / "third.db")
        got = import_archive(third, tmp_path / "b.tar").entry
        assert got.origin is not None
        assert [event["name"] for event in got.origin["events"]] == ["algebra", "mine"]

    def test_again_is_nothing_new(self, archive: Path, there: Registry, entry: Entry) -> None:
        import_archive(there, archive)
        before = stored(there)
        assert not import_archive(there, archive).new
        said = invoke("import", archive, "--registry", there.path)
        assert said == f"{entry.id} is here already, with all its files\n"
        assert (len(there.entries()), stored(there)) == (1, before)

    def test_files_that_were_collected_come_back(
        self, archive: Path, there: Registry, entry: Entry
    ) -> None:
        import_archive(there, archive)
        assert collect(there).entries == (entry.id,)
        assert import_archive(there, archive).new
        assert len(stored(there)) == 4

    def test_a_damaged_object_is_mended(
        self, registry: Registry, entry: Entry, archive: Path
    ) -> None:
        damage(registry.objects.path(entry.manifest["model.safetensors"]["sha256"]))
        import_archive(registry, archive)
        assert not [checked for checked in verify(registry) if checked.problems]

    def test_a_name_needs_the_proof(
        self, registry: Registry, there: Registry, archive: Path, tmp_path: Path
    ) -> None:
        folder = model(tmp_path / "two", "second")
        for n, verdict in enumerate((None, {**passed("x"), "name": "pass"})):
            promote(registry, folder, verdict=verdict, override="in a hurry")
            path = tmp_path / f"{n}.tar"
            export(registry, "algebra", path)
            with pytest.raises(RegistryError, match=r"needs a verdict|for other weights"):
                import_archive(there, path, name="mine")
        assert not there.path.exists()
        assert not there.objects.folder.exists()
        import_archive(there, archive, name="mine")
        current = there.current("mine")
        assert current is not None
        assert current.weights == weights_hash(tmp_path / "one")

    @pytest.mark.parametrize("kind", FORGERIES)
    def test_forgeries(self, archive: Path, there: Registry, tmp_path: Path, kind: str) -> None:
        change, message = FORGERIES[kind]
        forged = rewrite(archive, tmp_path / "forged.tar", change)
        with pytest.raises(RegistryError, match=message) as caught:
            import_archive(there, forged)
        assert str(caught.value).startswith(f"{forged}: ")
        assert not there.path.exists()
        assert not there.objects.folder.exists() or not stored(there)
        assert not list(tmp_path.rglob("*evil*"))

    def test_the_forger_can_write_an_archive_that_passes(
        self, archive: Path, there: Registry, tmp_path: Path
    ) -> None:
        same = rewrite(archive, tmp_path / "same.tar", relabel())
        assert import_archive(there, same).new

    def test_things_that_are_no_archive(
        self, archive: Path, there: Registry, tmp_path: Path
    ) -> None:
        (tmp_path / "a.tar.gz").write_bytes(gzip.compress(archive.read_bytes()))
        (tmp_path / "text").write_text("not a tar\n" * 200)
        (tmp_path / "empty").write_text("")
        for name in ("a.tar.gz", "text", "empty", "nowhere", "one"):
            with pytest.raises(RegistryError, match=r"is not taken in|no such archive"):
                import_archive(there, tmp_path / name)

    def test_cut_short_anywhere(self, archive: Path, there: Registry, tmp_path: Path) -> None:
        """A cut is refused wherever it takes something away, the two closing blocks apart."""
        whole = archive.read_bytes()
        with tarfile.open(archive) as opened:
            last = opened.getmembers()[-1]
        end = last.offset_data + last.size
        for cut in [*range(0, end, 97), end - 1]:
            (tmp_path / "cut.tar").write_bytes(whole[:cut])
            with pytest.raises(RegistryError, match="is not taken in"):
                import_archive(there, tmp_path / "cut.tar")
        assert not there.path.exists()

    def test_one_flipped_bit_anywhere(
        self, archive: Path, there: Registry, tmp_path: Path, entry: Entry
    ) -> None:
        """Refused, or it hit what is nobody's content: padding, or a part of a header."""
        whole, rng, accepted = archive.read_bytes(), random.Random(1), 0
        with tarfile.open(archive) as opened:
            spans = [range(m.offset_data, m.offset_data + m.size) for m in opened]
        for _ in range(400):
            at, content = rng.randrange(len(whole)), bytearray(whole)
            content[at] ^= 1 << rng.randrange(8)
            (tmp_path / "bad.tar").write_bytes(content)
            try:
                got = import_archive(there, tmp_path / "bad.tar", dry_run=True).entry
            except RegistryError:
                continue
            accepted += 1
            assert got == entry
            assert not any(at in span for span in spans)
        assert 0 < accepted < 400

    def test_names(self) -> None:
        for name in ("a", "a/b.txt", "..a", "ä ö"):
            assert is_confined(name)
        for name in (
            "",
            ".",
            "..",
            "../a",
            "a/../b",
            "/a",
            "a//b",
            "./a",
            "a/",
            "a\\b",
            "C:a",
            "a\0",
        ):
            assert not is_confined(name)
