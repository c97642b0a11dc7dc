"""What changed is found, and what nothing needs any more is removed."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from strop.errors import MissingEvidenceError, RegistryError
from strop.registry.records import Entry
from strop.registry.store import Registry
from strop.registry.transfer.archive import checkout, export
from strop.registry.upkeep.garbage import collect
from strop.registry.upkeep.verify import expect_unchanged, verify
from tests.support.registries import damage, invoke, model, passed, promote, stored


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
