"""What is stored, what is refused, and that nothing promoted can change unseen."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from strop.errors import RegistryError
from strop.model.load import weights_hash
from strop.registry.objects import manifest_of, weights_of
from strop.registry.records import Entry, content_id
from strop.registry.store import Registry
from tests.support.registries import FILES, damage, model, passed, promote, stored


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
