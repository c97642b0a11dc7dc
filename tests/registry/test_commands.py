"""`strop registry` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from strop.cli.app import app
from strop.errors import RegistryError
from strop.model.load import weights_hash
from strop.registry.objects import manifest_of
from strop.registry.records import Entry
from strop.registry.store import Registry
from strop.registry.transfer.archive import export
from tests.support.registries import invoke, model, passed, promote


def everything(folder: Path) -> dict[str, bytes]:
    """All files under a folder but SQLite's passing ones."""
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }  # fmt: skip


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

    def test_a_registry_of_attempts_alone_says_that_nothing_was_promoted(
        self, registry: Registry
    ) -> None:
        here = ("--registry", registry.path)
        registry.record_attempt(
            evidence="5d", suite="s", sealed=False, base="a", candidate="b", verdict="regressed"
        )
        assert invoke("list", *here) == "no entries yet: strop registry promote makes one\n"
        assert json.loads(invoke("list", *here, "--json"))["current"] == {}

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
        assert len(verbs) == 14
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
