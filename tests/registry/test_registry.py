"""The registry: what is stored, what is refused, and that nothing promoted can change unseen."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import multiprocessing
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from strop.cli.app import app
from strop.errors import MissingEvidenceError, RegistryError
from strop.model.load import weights_hash
from strop.recipe.loading.load import load_recipe
from strop.registry import database
from strop.registry.card import card, front_matter
from strop.registry.diff import Difference, differences
from strop.registry.garbage import collect
from strop.registry.lineage import ancestry
from strop.registry.manifest import manifest_of, weights_of
from strop.registry.records import Entry, content_id
from strop.registry.store import Registry
from strop.registry.transfer.archive import export
from strop.registry.transfer.checkout import checkout
from strop.registry.transfer.unpack import import_archive, is_confined
from strop.registry.tree import drawn, fitted
from strop.registry.verify import expect_unchanged, verify
from strop.train.run import train

FILES = {
    "model.safetensors": b"weights",
    "config.json": b"{}",
    "tokenizer.json": b'{"shared": true}',
    "extra/notes.txt": b"notes",
}
CHECK = {
    "name": "greedy/accuracy", "kind": "target", "estimate": 0.53, "low": 0.48, "high": 0.58,
    "bound": 0.0, "verdict": "pass", "n": 400, "n_needed": None, "method": "tango", "base": 0.44,
    "candidate": 0.97,
}  # fmt: skip


def model(folder: Path, weights: str, **files: bytes) -> Path:
    """A model folder of four small files; only the weights depend on `weights`."""
    for name, content in {**FILES, "model.safetensors": weights.encode(), **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def passed(weights: str) -> dict[str, Any]:
    sides = {side: {"path": f"/{side}", "sha256": weights} for side in ("base", "candidate")}
    return {"name": "pass", "sentence": "Pass: better.", "checks": [CHECK], **sides}


def promote(registry: Registry, folder: Path, name: str = "algebra", **options: Any) -> Entry:
    weights = weights_hash(folder)
    given = {"verdict": passed(weights), "lineage": ancestry(folder), **options}
    return registry.promote(name, weights=weights, path=str(folder), **given)


def stored(registry: Registry) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in registry.objects.folder.rglob("*")
        if path.is_file()
    }  # fmt: skip


def everything(folder: Path) -> dict[str, bytes]:
    """All files under a folder but SQLite's passing ones."""
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }  # fmt: skip


def damage(path: Path) -> None:
    """Flip one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "store" / "r.db")


@pytest.fixture
def entry(registry: Registry, tmp_path: Path) -> Entry:
    return promote(registry, model(tmp_path / "one", "first"))


def invoke(*args: object) -> str:
    result = CliRunner().invoke(app, ["registry", *map(str, args)])
    if result.exception is not None:
        raise result.exception
    return result.output


class TestStore:
    def test_files_lie_under_their_hash(self, registry: Registry, entry: Entry) -> None:
        contents = {**FILES, "model.safetensors": b"first"}
        expected = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        assert {name: file["sha256"] for name, file in entry.manifest.items()} == expected
        assert entry.manifest["extra/notes.txt"]["size"] == 5
        for name, sha256 in expected.items():
            assert (registry.path.parent / "r.objects" / sha256[:2] / sha256).read_bytes() == (
                contents[name]
            )
        assert len(stored(registry)) == 4

    def test_a_file_is_stored_once(self, registry: Registry, entry: Entry, tmp_path: Path) -> None:
        shared = registry.objects.path(entry.manifest["tokenizer.json"]["sha256"])
        before = shared.stat()
        promote(registry, model(tmp_path / "two", "second"))
        assert len(stored(registry)) == 5
        assert (shared.stat().st_ino, shared.stat().st_mtime_ns) == (
            before.st_ino, before.st_mtime_ns,
        )  # fmt: skip

    def test_an_edit_in_place_does_not_reach_the_store(
        self, registry: Registry, entry: Entry, tmp_path: Path
    ) -> None:
        with (tmp_path / "one" / "model.safetensors").open("r+b") as stream:
            stream.write(b"FIRST")
        assert registry.objects.is_whole(entry.manifest["model.safetensors"]["sha256"])

    def test_the_id_covers_weights_lineage_verdict_and_files(self, entry: Entry) -> None:
        parts = {
            "weights": entry.weights, "lineage": entry.lineage, "verdict": entry.verdict,
            "manifest": entry.manifest,
        }  # fmt: skip
        assert content_id(**parts) == entry.id  # type: ignore[arg-type]
        others = {"weights": "x", "lineage": {}, "verdict": None, "manifest": {}}
        ids = [content_id(**{**parts, part: other}) for part, other in others.items()]  # type: ignore[arg-type]
        assert len({entry.id, *ids}) == 5

    def test_what_is_current_is_not_pushed_again(
        self, registry: Registry, entry: Entry, tmp_path: Path
    ) -> None:
        assert promote(registry, tmp_path / "one") == entry
        assert len(registry.events()) == 1
        promote(registry, model(tmp_path / "two", "second"))
        assert promote(registry, tmp_path / "one") == entry
        assert len(registry.stacks()["algebra"]) == 3

    def test_a_verdict_that_comes_later_makes_another_entry(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        folder = model(tmp_path / "one", "first")
        forced = promote(registry, folder, verdict=None, override="no evals yet")
        proven = promote(registry, folder)
        assert (forced.verdict, proven.verdict) == (None, passed(proven.weights))
        assert registry.stacks()["algebra"] == [forced.id, proven.id]

    def test_promotion_mends_a_damaged_object(
        self, registry: Registry, entry: Entry, tmp_path: Path
    ) -> None:
        path = registry.objects.path(entry.manifest["config.json"]["sha256"])
        damage(path)
        promote(registry, tmp_path / "one")
        assert path.read_bytes() == b"{}"

    def test_links_are_stored_as_what_they_lead_to(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        folder = model(tmp_path / "one", "first")
        (tmp_path / "blob").write_bytes(b"linked")
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors").symlink_to(tmp_path / "blob")
        made = promote(registry, folder)
        path = registry.objects.path(made.manifest["model.safetensors"]["sha256"])
        assert not path.is_symlink()
        assert path.read_bytes() == b"linked"

    @pytest.mark.parametrize(
        ("fault", "message"),
        [
            (lambda folder: (folder / "model.safetensors").unlink(), "no safetensors weights"),
            (lambda folder: (folder / "gone").symlink_to("/nowhere"), "leads nowhere"),
            (lambda folder: (folder / "config.json").write_bytes(b"[]"), "weights hash to"),
        ],
    )
    def test_folders_that_are_refused(
        self, registry: Registry, tmp_path: Path, fault: Callable[[Path], None], message: str
    ) -> None:
        folder = model(tmp_path / "one", "first")
        weights = weights_hash(folder)
        fault(folder)
        with pytest.raises(RegistryError, match=message):
            registry.promote("algebra", weights=weights, path=str(folder), lineage={},
                             verdict=passed(weights))  # fmt: skip
        assert not registry.path.exists()

    def test_file_systems_that_cannot_share_blocks(
        self, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def cannot(*given: int) -> int:
            raise OSError("not between these file systems")

        monkeypatch.setattr(os, "copy_file_range", cannot)
        made = promote(registry, model(tmp_path / "one", "first"))
        assert all(registry.objects.is_whole(file["sha256"]) for file in made.manifest.values())

    def test_a_name_is_not_empty(self, registry: Registry, tmp_path: Path) -> None:
        with pytest.raises(RegistryError, match="needs a name"):
            promote(registry, model(tmp_path / "one", "first"), name=" ")
        assert not registry.path.exists()

    def test_a_file_that_changes_while_it_is_stored(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        folder = model(tmp_path / "one", "first")
        manifest = manifest_of(folder)
        (folder / "extra/notes.txt").write_bytes(b"other")
        with pytest.raises(RegistryError, match="changed while it was stored"):
            registry.objects.put(folder, manifest)
        assert not any(path.name.startswith(".") for path in registry.objects.folder.iterdir())

    def test_the_hash_is_the_loaders(self, model_folder: Path, tmp_path: Path) -> None:
        folder = model(tmp_path / "one", "first", **{"b.safetensors": b"2", "a.bin": b"3"})
        model(folder / "nested", "other")
        for path in (folder, model_folder):
            assert weights_of(manifest_of(path)) == weights_hash(path)


def _promote_at_once(path: Path, folder: Path, start: Any) -> None:
    start.wait()
    promote(Registry(path), folder)


class TestProcesses:
    def test_promotions_at_once_all_arrive(self, registry: Registry, tmp_path: Path) -> None:
        context = multiprocessing.get_context("fork")
        start = context.Barrier(4)
        folders = [model(tmp_path / str(n), f"weights {n}") for n in range(4)]
        processes = [
            context.Process(target=_promote_at_once, args=(registry.path, folder, start))
            for folder in folders
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0] * 4
        current = [registry.entry(entry).weights for entry in registry.stacks()["algebra"]]
        assert sorted(current) == sorted(map(weights_hash, folders))
        assert not [found for found in verify(registry) if found.problems]

    def test_garbage_collection_in_between_is_noticed(
        self, registry: Registry, entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put = registry.objects.put

        def overtaken(folder: Path, manifest: Any) -> None:
            put(folder, manifest)
            assert collect(Registry(registry.path)).size == len("second")

        monkeypatch.setattr(registry.objects, "put", overtaken)
        with pytest.raises(RegistryError, match="garbage collection took files away"):
            promote(registry, model(tmp_path / "two", "second"))
        assert registry.current("algebra") == entry


class TestDatabase:
    def test_another_schema(self, tmp_path: Path) -> None:
        path = tmp_path / "r.db"
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE entries (id TEXT PRIMARY KEY, weights TEXT NOT NULL)")
        for use in (Registry(path).entries, lambda: attempt(Registry(path))):
            with pytest.raises(RegistryError, match="no registry of this version") as caught:
                use()
            assert caught.value.exit_code == 2
        with sqlite3.connect(path) as db:
            db.execute(f"PRAGMA application_id = {database.APPLICATION}")
            db.execute("PRAGMA user_version = 99")
        with pytest.raises(RegistryError, match="it holds schema 99"):
            Registry(path).entries()

    def test_a_damaged_file(self, registry: Registry, entry: Entry) -> None:
        content = bytearray(registry.path.read_bytes())
        content[100:] = random.Random(0).randbytes(len(content) - 100)
        registry.path.write_bytes(content)
        with pytest.raises(RegistryError, match=r"cannot be used.*\n.*strop registry rebuild"):
            registry.entries()

    def test_a_locked_file(
        self, registry: Registry, entry: Entry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
        holder = sqlite3.connect(registry.path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(RegistryError, match=r"locked\n.*another process"):
            attempt(registry)
        assert registry.entries() == [entry]  # readers do not wait
        holder.close()
        attempt(registry)

    def test_a_place_that_cannot_be(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(RegistryError, match="cannot be used"):
            attempt(Registry(tmp_path / "file" / "r.db"))
        with pytest.raises(RegistryError, match="cannot be used"):
            attempt(Registry(tmp_path))

    def test_read_only_for_this_user(self) -> None:
        """Reading works without any write access; writing is one clear refusal."""
        code = """
import os, sys
from strop.errors import RegistryError
from strop.registry.store import Registry
if os.geteuid() == 0:
    os.setuid(65534)
registry = Registry(sys.argv[1])
print(registry.names())
try:
    registry.rollback("algebra")
except RegistryError as error:
    print(error)
"""
        with tempfile.TemporaryDirectory() as place:
            registry = Registry(Path(place) / "r.db")
            for weights in ("first", "second"):
                promote(registry, model(Path(place) / weights, weights))
            registry.path.chmod(0o444)
            Path(place).chmod(0o555)
            ran = subprocess.run(
                [sys.executable, "-c", code, str(registry.path)],
                capture_output=True, text=True, check=True, timeout=60,
            )  # fmt: skip
            Path(place).chmod(0o755)
        assert ran.stdout.startswith("['algebra']\n")
        assert "attempt to write a readonly database" in ran.stdout
        assert "fix: ask who owns the file" in ran.stdout

    def test_nothing_is_ever_changed(self, registry: Registry, entry: Entry) -> None:
        attempt(registry)
        with sqlite3.connect(registry.path) as db:
            for table in ("entries", "events", "attempts"):
                for change in (f"DELETE FROM {table}", f"UPDATE {table} SET who = 'x'"):
                    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                        db.execute(change)


def attempt(registry: Registry, evidence: str = "e1", **options: Any) -> Any:
    given = {"suite": "gsm8k", "sealed": True, "base": "b", "candidate": "c", "verdict": "pass"}
    return registry.record_attempt(evidence=evidence, **{**given, **options})


class TestAttempts:
    def test_looks_are_counted_by_evidence(self, registry: Registry) -> None:
        looks = [attempt(registry, evidence).look for evidence in ("e1", "e2", "e1", "e1", "e2")]
        assert looks == [1, 1, 2, 3, 2]
        assert [a.look for a in registry.attempts("e1")] == [1, 2, 3]
        assert [a.number for a in registry.attempts()] == [1, 2, 3, 4, 5]
        assert registry.attempts("e3") == []

    def test_everything_is_kept(self, registry: Registry) -> None:
        made = attempt(registry, sealed=False, verdict="inconclusive")
        assert (made.evidence, made.suite, made.sealed, made.base, made.candidate) == (
            "e1", "gsm8k", False, "b", "c",
        )  # fmt: skip
        assert made.verdict == "inconclusive"
        assert made.who
        assert registry.attempts() == [made]

    def test_the_table(self, registry: Registry) -> None:
        attempt(registry)
        attempt(registry, sealed=False)
        said = invoke("attempts", "--registry", registry.path)
        assert "1 sealed" in said
        assert said.count("gsm8k") == 2
        rows = invoke("attempts", "--json", "--registry", registry.path).splitlines()
        assert [json.loads(row)["look"] for row in rows] == [1, 2]


class TestVerify:
    def problems(self, registry: Registry, which: str | None = None) -> list[str]:
        return [problem for found in verify(registry, which) for problem in found.problems]

    def test_what_is_as_promoted(self, registry: Registry, entry: Entry, tmp_path: Path) -> None:
        (found,) = verify(registry)
        assert (found.entry, found.names, found.objects) == (entry.id, ("algebra",), 4)
        assert (found.folder, found.problems) == (str(tmp_path / "one"), ())

    @pytest.mark.parametrize(
        ("fault", "said"),
        [
            (lambda f: damage(f / "model.safetensors"), "one/model.safetensors changed"),
            (lambda f: damage(f / "extra/notes.txt"), "one/extra/notes.txt changed"),
            (lambda f: (f / "config.json").unlink(), "one/config.json is gone"),
            (lambda f: (f / "x.safetensors").write_bytes(b""), "one/x.safetensors is new"),
        ],
    )
    def test_an_edited_folder(
        self, registry: Registry, entry: Entry, tmp_path: Path, fault: Any, said: str
    ) -> None:
        fault(tmp_path / "one")
        with pytest.raises(MissingEvidenceError, match=said) as caught:
            expect_unchanged(registry, verify(registry))
        assert caught.value.exit_code == 12
        assert "checkout" in str(caught.value.fix)
        assert len(self.problems(registry)) == 1

    def test_texts_beside_the_model_may_come(
        self, registry: Registry, entry: Entry, tmp_path: Path
    ) -> None:
        (tmp_path / "one" / "README.md").write_text("a card")
        (tmp_path / "one" / ".gitattributes").write_text("")
        assert self.problems(registry) == []

    def test_damaged_and_missing_objects(self, registry: Registry, entry: Entry) -> None:
        damage(registry.objects.path(entry.manifest["model.safetensors"]["sha256"]))
        registry.objects.path(entry.manifest["config.json"]["sha256"]).unlink()
        missing, damaged = self.problems(registry, entry.id)
        assert missing.startswith("config.json is missing in the store")
        assert damaged.startswith("model.safetensors is damaged in the store")

    def test_an_entry_changed_in_the_database(self, registry: Registry, entry: Entry) -> None:
        with sqlite3.connect(registry.path) as db:
            db.execute("DROP TRIGGER entries_UPDATE")
            db.execute("UPDATE entries SET verdict = ?", (json.dumps(passed("other")),))
        assert self.problems(registry) == ["the entry itself was changed in the registry file"]

    def test_a_folder_that_was_trained_again(
        self, registry: Registry, entry: Entry, tmp_path: Path
    ) -> None:
        second = promote(registry, model(tmp_path / "one", "second"))
        assert self.problems(registry) == []
        registry.rollback("algebra")
        assert registry.current("algebra") == entry
        assert self.problems(registry) == [f"{tmp_path}/one/model.safetensors changed"]
        assert self.problems(registry, second.id) == []

    def test_a_folder_that_is_gone_is_no_problem(
        self, registry: Registry, entry: Entry, tmp_path: Path
    ) -> None:
        shutil.rmtree(tmp_path / "one")
        (found,) = verify(registry)
        assert (found.folder, found.objects, found.problems) == (None, 4, ())

    def test_the_command(self, registry: Registry, entry: Entry, tmp_path: Path) -> None:
        said = invoke("verify", "--registry", registry.path)
        assert said == (
            f"{entry.id}  algebra: as promoted (4 stored files, folder {tmp_path / 'one'})\n"
        )
        damage(tmp_path / "one" / "model.safetensors")
        with pytest.raises(MissingEvidenceError, match="1 of 1 entries"):
            invoke("verify", "algebra", "--json", "--registry", registry.path)

    def test_checkout_is_the_fix(self, registry: Registry, entry: Entry, tmp_path: Path) -> None:
        damage(tmp_path / "one" / "model.safetensors")
        (tmp_path / "one").rename(tmp_path / "away")
        checkout(registry, "algebra", tmp_path / "one")
        assert self.problems(registry) == []
        (tmp_path / "one" / "config.json").write_bytes(b"may be edited")
        assert registry.objects.is_whole(entry.manifest["config.json"]["sha256"])

    def test_checkout_refuses(self, registry: Registry, entry: Entry, tmp_path: Path) -> None:
        with pytest.raises(RegistryError, match="exists already"):
            checkout(registry, entry.id, tmp_path / "one")
        damage(registry.objects.path(entry.manifest["model.safetensors"]["sha256"]))
        with pytest.raises(RegistryError, match=r"model\.safetensors is damaged"):
            checkout(registry, entry.id, tmp_path / "two")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "store"]


class TestGarbage:
    def test_only_what_no_name_can_reach(
        self, registry: Registry, entry: Entry, tmp_path: Path
    ) -> None:
        second = promote(registry, model(tmp_path / "two", "second!"))
        assert collect(registry).objects == ()
        registry.rollback("algebra")
        (registry.objects.folder / "mine.txt").write_text("not ours")
        expected = (second.manifest["model.safetensors"]["sha256"],)
        for dry_run in (True, False):
            found = collect(registry, dry_run=dry_run)
            assert (found.objects, found.size, found.entries) == (expected, 7, (second.id,))
        assert collect(registry).objects == ()
        assert set(stored(registry)) == {
            "mine.txt", *(file["sha256"] for file in entry.manifest.values()),
        }  # fmt: skip
        assert not [found for found in verify(registry) if found.problems]
        with pytest.raises(RegistryError, match=r"no longer holds model\.safetensors"):
            export(registry, second.id, tmp_path / "two.tar")

    def test_a_rollback_still_finds_its_files(
        self, registry: Registry, entry: Entry, tmp_path: Path
    ) -> None:
        promote(registry, model(tmp_path / "two", "second"))
        promote(registry, model(tmp_path / "three", "third"), name="other")
        collect(registry)
        shutil.rmtree(tmp_path / "one")
        assert registry.rollback("algebra") == entry
        checkout(registry, "algebra", tmp_path / "one")
        assert (tmp_path / "one" / "model.safetensors").read_bytes() == b"first"

    def test_what_comes_back_is_stored_again(
        self, registry: Registry, entry: Entry, tmp_path: Path
    ) -> None:
        promote(registry, model(tmp_path / "two", "second"))
        registry.rollback("algebra")
        collect(registry)
        promote(registry, tmp_path / "two")
        assert not [found for found in verify(registry) if found.problems]

    def test_a_store_that_another_registry_shares(
        self, registry: Registry, entry: Entry, tmp_path: Path
    ) -> None:
        other = Registry(registry.path.with_suffix(".sqlite"))
        assert other.objects.folder == registry.objects.folder
        promote(other, model(tmp_path / "two", "second"))
        for each in (registry, other):
            with pytest.raises(RegistryError, match="has the same stored files"):
                collect(each)
        assert not [found for found in verify(other) if found.problems]

    def test_copies_of_dead_processes_go(self, registry: Registry, entry: Entry) -> None:
        for name, age in ((".incoming-old", 90_000), (".incoming-new", 0)):
            inbox = registry.objects.folder / name
            inbox.mkdir()
            at = inbox.stat().st_mtime - age
            os.utime(inbox, (at, at))
        collect(registry)
        left = [path.name for path in registry.objects.folder.glob(".incoming-*")]
        assert left == [".incoming-new"]

    def test_the_command(self, registry: Registry, entry: Entry, tmp_path: Path) -> None:
        promote(registry, model(tmp_path / "two", "second"))
        registry.rollback("algebra")
        here = ("--registry", registry.path)
        assert invoke("gc", "--dry-run", *here).startswith("would free 6 bytes in 1 stored files")
        assert json.loads(invoke("gc", "--json", *here))["size"] == 6


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


def run(folder: Path, parent: Path, method: str, seed: int = 0) -> Path:
    """What a run leaves behind; returns its final folder."""
    made = model(folder / "final", f"{method} {seed}")
    lineage = {
        "method": method, "parent": {"path": str(parent), "sha256": weights_hash(parent)},
        "data": [{"path": "/data/pairs.jsonl", "sha256": "2f34abcd00000000"}], "rows": [896],
        "rewards": ["aa11bb22cc33dd44"], "recipe": "5d2c8e120000",
        "code": {"strop": "0.1.0", "commit": "1a2b3c4d5e6f7a8b"}, "self_check": {},
    }  # fmt: skip
    (folder / "lineage.json").write_text(json.dumps(lineage))
    environment = {"strop": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "system": "Linux",
                   "threads": 1, "cuda": None}  # fmt: skip
    (folder / "env.json").write_text(json.dumps(environment))
    recipe = {"method": method, "seed": seed, "optim": {"learning_rate": 1e-6}}
    (folder / "recipe.resolved.yaml").write_text(yaml.safe_dump(recipe))
    return made


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """base -> sft -> dpo, with paths short enough to write down."""
    monkeypatch.chdir(tmp_path)
    base = model(Path("base"), "raw")
    sft = run(Path("sft"), base, "sft")
    return run(Path("dpo"), sft, "dpo")


class TestLineage:
    def test_everything_a_run_wrote_is_carried(self, chain: Path) -> None:
        made = ancestry(chain)
        assert made["data"] == [
            {"path": "/data/pairs.jsonl", "sha256": "2f34abcd00000000", "rows": 896}
        ]
        assert made["resolved"]["optim"] == {"learning_rate": 1e-6}
        assert made["environment"]["torch"] == "2.13.0"
        assert made["parent"]["method"] == "sft"
        assert made["parent"]["parent"] == {"model": "base", "sha256": weights_hash("base")}

    def test_a_parent_that_was_replaced_is_not_mistaken(self, chain: Path) -> None:
        sha256 = weights_hash("sft/final")
        run(Path("sft"), Path("base"), "sft", seed=1)
        assert ancestry(chain)["parent"] == {
            "model": "sft/final", "changed": True, "sha256": sha256
        }  # fmt: skip
        assert "(other weights lie there now)" in "\n".join(drawn(ancestry(chain)))

    def test_an_adapter_from_elsewhere_names_its_base(self, tmp_path: Path) -> None:
        config = json.dumps({"base_model_name_or_path": "hub/base"}).encode()
        folder = model(tmp_path / "adapter", "lora", **{"adapter_config.json": config})
        assert ancestry(folder) == {"model": str(folder), "parent": {"model": "hub/base"}}

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("lineage.json", "{", "lineage.json: cannot be read"),
            ("lineage.json", "{}", "lineage.json: is no lineage"),
            ("env.json", "[]", "env.json: holds no object"),
            ("recipe.resolved.yaml", "a: [", "recipe.resolved.yaml: cannot be read"),
        ],
    )
    def test_broken_files_of_a_run(
        self, chain: Path, name: str, content: str, message: str
    ) -> None:
        (chain.parent / name).write_text(content)
        with pytest.raises(RegistryError, match=message.replace(".", r"\.")):
            ancestry(chain)

    def test_a_checkpoint_has_the_history_of_its_run(self, chain: Path) -> None:
        checkpoint = model(Path("dpo/checkpoint-10"), "half way")
        assert ancestry(checkpoint)["method"] == "dpo"
        assert ancestry(Path("dpo")) == {"model": "dpo"}

    def test_the_picture(self, chain: Path) -> None:
        assert drawn(ancestry(chain)) == [
            "dpo  dpo/final",
            "├─ data         pairs.jsonl  2f34abcd  896 rows",
            "├─ rewards      aa11bb22",
            "├─ recipe       5d2c8e120000",
            "├─ code         strop 0.1.0, commit 1a2b3c4d5e6f",
            "├─ environment  python 3.11.9, torch 2.13.0, Linux",
            f"└─ parent       sft  sft/final  {weights_hash('sft/final')[:8]}",
            "   ├─ data         pairs.jsonl  2f34abcd  896 rows",
            "   ├─ rewards      aa11bb22",
            "   ├─ recipe       5d2c8e120000",
            "   ├─ code         strop 0.1.0, commit 1a2b3c4d5e6f",
            "   ├─ environment  python 3.11.9, torch 2.13.0, Linux",
            f"   └─ parent       base  {weights_hash('base')[:8]}  (no record)",
        ]

    def test_it_fits(self) -> None:
        deep = {"model": "/very/long" * 30 + "/dpo/final"}
        for _ in range(12):
            deep = {"model": deep["model"], "parent": {**deep, "sha256": "0" * 16}}  # type: ignore[dict-item]
        assert max(map(len, drawn(deep))) <= 100
        assert fitted("a " + "x" * 50 + "/final", 30) == "a xxxxxxxxx…xxxxxxxxxxxx/final"

    def test_a_real_run(self, recipes: dict[str, Path], registry: Registry) -> None:
        final = train(load_recipe(recipes["sft"]))
        entry = promote(registry, final)
        rows = len((recipes["sft"].parent / "sft.jsonl").read_text().splitlines())
        assert [source["rows"] for source in entry.lineage["data"]] == [rows]
        assert entry.lineage["resolved"] == load_recipe(recipes["sft"]).plain()
        assert entry.lineage["environment"]["strop"] == entry.lineage["code"]["strop"]
        assert entry.manifest == manifest_of(final)


class TestDiff:
    def test_only_what_differs(self, chain: Path, registry: Registry) -> None:
        first = promote(registry, chain)
        assert differences(first, first) == []
        other = run(Path("again"), Path("sft/final"), "dpo", seed=1)
        env = json.loads(Path("again/env.json").read_text())
        Path("again/env.json").write_text(json.dumps({**env, "torch": "2.14.0"}))
        weights = weights_hash(other)
        checks = [{**CHECK, "candidate": 0.5}]
        second = promote(registry, other, verdict={**passed(weights), "checks": checks})
        assert differences(first, second) == [
            Difference("weights", "sha256", first.weights, second.weights),
            Difference("recipe", "seed", 0, 1),
            Difference("environment", "torch", "2.13.0", "2.14.0"),
            Difference("scores", "greedy/accuracy", 0.97, 0.5),
        ]

    def test_parents_data_and_code(self, chain: Path, registry: Registry) -> None:
        first = promote(registry, chain)
        lineage = json.loads(Path("dpo/lineage.json").read_text())
        lineage["data"].append({"path": "/b.jsonl", "sha256": "1" * 16})
        lineage |= {"rows": [896, None], "code": {"strop": "0.2.0", "commit": None}}
        lineage["parent"] = {"path": "base", "sha256": weights_hash("base")}
        Path("dpo/lineage.json").write_text(json.dumps(lineage))
        second = promote(registry, chain)
        sft, base = weights_hash("sft/final"), weights_hash("base")
        assert differences(first, second) == [
            Difference("data", "2", None, "b.jsonl  11111111"),
            Difference("code", "strop", "0.1.0", "0.2.0"),
            Difference("code", "commit", "1a2b3c4d5e6f7a8b", None),
            Difference("parents", "1 up", f"sft {sft}", f"model {base}"),
            Difference("parents", "2 up", f"model {base}", None),
        ]

    def test_the_command(self, chain: Path, registry: Registry) -> None:
        first = promote(registry, chain)
        here = ("--registry", registry.path)
        assert invoke("diff", first.id, "algebra", *here) == (
            f"{first.id} and {first.id} do not differ\n"
        )
        second = promote(registry, run(Path("again"), Path("sft/final"), "dpo", seed=1))
        said = invoke("diff", first.id, second.id, *here).splitlines()
        assert said[0].split() == [first.id, second.id]
        assert said[2].split() == ["recipe", "seed", "0", "1"]
        rows = invoke("diff", first.id, second.id, "--json", *here).splitlines()
        assert json.loads(rows[1]) == {"part": "recipe", "key": "seed", "a": 0, "b": 1}

    def test_all_scores_of_the_evals_are_compared(
        self, registry: Registry, entry: Entry, tmp_path: Path
    ) -> None:
        evals = {
            "base": {"folder": "/b", "records": 400, "scores": {"greedy/accuracy": 0.44}},
            "candidate": {"folder": "/c", "records": 400, "scores": {"slow": 0.2}},
        }
        verdict = {**passed(entry.weights), "evals": evals, "remarks": ["2 items were lost"]}
        second = promote(registry, tmp_path / "one", verdict=verdict)
        assert differences(entry, second) == [Difference("scores", "slow", None, 0.2)]
        shown = invoke("show", second.id, "--registry", registry.path)
        assert "evals     base: /b, 400 records" in shown
        assert "remark    2 items were lost" in shown
        assert "\n- 2 items were lost\n" in card(second)


class TestCard:
    def test_the_hub_reads_it(self, chain: Path, registry: Registry) -> None:
        entry = promote(registry, chain)
        read = ModelCard(card(entry), ignore_metadata_errors=False)
        assert read.data.base_model == "base"
        assert read.data.library_name == "transformers"
        assert read.data.tags == ["strop", "sft", "dpo"]
        assert read.data.datasets == ["pairs.jsonl"]
        assert read.data.license is None
        (result,) = read.data.eval_results
        assert (result.task_type, result.dataset_name) == ("text-generation", "greedy")
        assert (result.metric_type, result.metric_value) == ("accuracy", 0.97)
        assert front_matter(entry)["base_model_relation"] == "finetune"

    def test_the_body(self, chain: Path, registry: Registry) -> None:
        text = ModelCard(card(promote(registry, chain))).text
        lines = [line for line in text.splitlines() if line]
        assert lines[:2] == ["# dpo", "**Pass: better.**"]
        assert (
            "| greedy/accuracy | target | 0.44 | 0.97 | +0.53 | +0.48 to +0.58 | 400 | pass |"
            in lines
        )
        assert "| sft | /data/pairs.jsonl | 2f34abcd00000000 | 896 |" in lines
        assert "  learning_rate: 1.0e-06" in lines
        assert 'model = AutoModelForCausalLM.from_pretrained("model")' in lines

    def test_a_band_is_a_ratio(self, registry: Registry, tmp_path: Path) -> None:
        folder = model(tmp_path / "one", "first")
        band = {**CHECK, "kind": "band", "estimate": 1.02, "low": 0.97, "high": 1.07}
        entry = promote(
            registry, folder, verdict={**passed(weights_hash(folder)), "checks": [band]}
        )
        assert "| band | 0.44 | 0.97 | x 1.02 | 0.97 to 1.07 | 400 | pass |" in card(entry)

    def test_adapters_and_hub_names(self, registry: Registry, tmp_path: Path) -> None:
        config = json.dumps({"base_model_name_or_path": "hub/base"}).encode()
        folder = model(tmp_path / "adapter", "lora", **{"adapter_config.json": config})
        entry = promote(registry, folder, verdict=None, override="a trial")
        found = front_matter(entry)
        assert (found["library_name"], found["base_model"]) == ("peft", "hub/base")
        assert found["base_model_relation"] == "adapter"
        assert "model-index" not in found
        assert "**Promoted without a passing verdict**" in card(entry)
        assert "AutoPeftModelForCausalLM" in card(entry)

    def test_nothing_breaks_out_of_the_header(self, registry: Registry, tmp_path: Path) -> None:
        folder = model(tmp_path / "one", "first")
        odd = {"model": str(folder), "method": "dpo", "parent": {"model": "a\n---\nlicense: mit"}}
        entry = promote(registry, folder, lineage=odd)
        assert ModelCard(card(entry)).data.license is None

    def test_the_command(self, chain: Path, registry: Registry, tmp_path: Path) -> None:
        entry = promote(registry, chain)
        here = ("--registry", registry.path)
        assert invoke("card", "algebra", *here) == card(entry)
        output = tmp_path / "README.md"
        assert "would write" in invoke("card", "algebra", "--output", output, "--dry-run", *here)
        assert not output.exists()
        invoke("card", "algebra", "--output", output, *here)
        assert output.read_text() == card(entry)


class TestCommands:
    def test_a_life(self, chain: Path, registry: Registry, tmp_path: Path) -> None:
        here = ("--registry", registry.path)
        verdict = tmp_path / "verdict.json"
        verdict.write_text(json.dumps(passed(weights_hash(chain))))
        args = ("promote", chain, "--entry", "mine", "--verdict", verdict, *here)
        said = invoke(*args, "--dry-run")
        assert not registry.path.parent.exists()
        assert invoke(*args) == said.replace("would be", "is now")
        entry = registry.entry("mine")
        shown = invoke("show", "mine", *here)
        assert "name      mine (current)" in shown
        assert "Pass: better." in shown
        assert "└─ parent" in shown
        assert max(map(len, shown.splitlines())) <= 100
        archive = tmp_path / "mine.tar"
        invoke("export", "mine", archive, *here)
        other = ("--registry", tmp_path / "other.db")
        invoke("import", archive, *other)
        assert f"under no name: {entry.id}" in invoke("list", *other)
        assert "imported  by" in invoke("show", entry.id, *other)
        assert "; mine is this entry" in invoke("import", archive, "--entry", "mine", *other)
        invoke("checkout", "mine", tmp_path / "restored", *other)
        assert manifest_of(tmp_path / "restored") == entry.manifest

    def test_dry_runs_write_nothing(self, registry: Registry, entry: Entry, tmp_path: Path) -> None:
        promote(registry, model(tmp_path / "two", "second"))
        promote(registry, model(tmp_path / "three", "third"), name="other")
        registry.rollback("algebra")
        export(registry, "other", tmp_path / "a.tar")
        folder = model(tmp_path / "four", "fourth")
        before = everything(tmp_path)
        here = ("--dry-run", "--registry", registry.path)
        for args in (
            ("promote", folder, "--entry", "algebra", "--override", "a trial"),
            ("export", "algebra", tmp_path / "b.tar"),
            ("checkout", "algebra", tmp_path / "restored"),
            ("gc",),
            ("card", "algebra", "--output", tmp_path / "README.md"),
        ):
            assert "would" in invoke(*args, *here)
        new = ("--dry-run", "--registry", tmp_path / "new" / "r.db")
        assert "would be imported" in invoke("import", tmp_path / "a.tar", *new)
        with pytest.raises(RegistryError, match="no earlier promotion"):
            invoke("rollback", "algebra", *here)
        assert everything(tmp_path) == before
        assert not (tmp_path / "new").exists()

    @pytest.mark.parametrize(
        "args",
        [("list",), ("show", "x"), ("diff", "x", "y"), ("attempts",), ("card", "x"), ("verify",),
         ("checkout", "x", "f"), ("export", "x", "f.tar"), ("gc",), ("gc", "--dry-run"),
         ("rollback", "x")],
    )  # fmt: skip
    def test_without_a_registry(self, args: tuple[str, ...], tmp_path: Path) -> None:
        with pytest.raises(RegistryError, match="no registry here yet"):
            invoke(*args, "--registry", tmp_path / "r.db")
        assert list(tmp_path.iterdir()) == []

    def test_every_verb_has_an_example_and_speaks_json(self) -> None:
        listed = CliRunner().invoke(app, ["registry", "--help"]).output
        verbs = [line.split()[0] for line in listed.split("Commands:")[1].splitlines() if line]
        assert len(verbs) == 13
        for verb in verbs:
            said = CliRunner().invoke(app, ["registry", verb, "--help"]).output
            assert f"Example: strop registry {verb}" in said
            assert "--json" in said
            assert "--registry" in said
            writes = verb not in ("list", "show", "diff", "attempts", "verify")
            assert ("--dry-run" in said) == writes

    def test_names_come_before_beginnings_of_ids(
        self, registry: Registry, entry: Entry, tmp_path: Path
    ) -> None:
        second = promote(registry, model(tmp_path / "two", "second"), name=entry.id[:3])
        assert registry.entry(entry.id[:3]) == second
        assert registry.entry(entry.id) == entry
        with pytest.raises(RegistryError, match="begins with ''"):
            registry.entry("")
