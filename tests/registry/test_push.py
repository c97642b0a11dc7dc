"""`strop registry push`, against a stand-in of the hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from strop.errors import HubError, RegistryError
from strop.registry.card import card
from strop.registry.records import Entry
from strop.registry.store import Registry
from tests.support.hub import TOKEN, Hub, environment, serving, standing_in
from tests.support.registries import damage, invoke, model, promote

SENT = {"README.md", "config.json", "model.safetensors", "tokenizer.json", "generation_config.json"}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with standing_in(tmp_path / "cache") as hub:
        yield hub


@pytest.fixture
def whole(registry: Registry, tmp_path: Path) -> Entry:
    """An entry with a generation config, and with the state of a trainer that is not uploaded."""
    more = {"generation_config.json": b"{}", "optimizer.pt": b"state"}
    return promote(registry, model(tmp_path / "one", "first", **more))


def push(registry: Registry, *args: object) -> str:
    return invoke("push", *args, "--registry", registry.path)


def test_a_push_uploads_the_model_and_its_card(hub: Hub, registry: Registry, whole: Entry) -> None:
    said = push(registry, "algebra", "ada/algebra")
    files = hub.files("ada/algebra")
    assert files.keys() == SENT | {".gitattributes"}
    assert files["README.md"].decode() == card(whole)
    assert files["model.safetensors"] == b"first"
    assert list(hub.large.values()) == [b"first"]  # weights go over git-lfs
    repo = hub.repo("ada/algebra")
    assert repo.private
    assert hub.last["summary"] == f"strop registry push: entry {whole.id}"
    end = f"{whole.id} is in {hub.url}/ada/algebra (private), at commit {repo.refs['main']}\n"
    assert said.endswith(end)


def test_public_only_where_it_is_said(hub: Hub, registry: Registry, whole: Entry) -> None:
    push(registry, whole.id, "ada/open", "--public")
    assert not hub.repo("ada/open").private


def test_a_dry_run_shows_files_and_sizes_and_writes_nothing(
    hub: Hub, registry: Registry, whole: Entry
) -> None:
    said = push(registry, "algebra", "ada/algebra", "--dry-run")
    assert hub.repos == {}
    assert hub.written() == []
    assert "             5  model.safetensors\n" in said
    assert "      left out  extra/notes.txt\n      left out  optimizer.pt\n" in said
    assert said.endswith(f"{whole.id} would be in {hub.url}/ada/algebra (private)\n")
    told = json.loads(push(registry, "algebra", "ada/algebra", "--dry-run", "--json"))
    assert told["files"].keys() == SENT
    assert told["files"]["README.md"] == len(card(whole).encode())
    assert (told["commit"], told["private"], told["exists"]) == (None, True, False)
    made = json.loads(push(registry, "algebra", "ada/algebra", "--json"))
    assert made["commit"] == hub.repo("ada/algebra").refs["main"]
    assert made["files"] == told["files"]


BEFORE = {"model-00001-of-00002.safetensors": b"old", "NOTES.md": b"mine", "config.json": b"[]"}


class TestARepositoryThatExists:
    def test_is_left_alone_without_yes(self, hub: Hub, registry: Registry, whole: Entry) -> None:
        commit = hub.add("ada/algebra", BEFORE, private=True).refs["main"]
        for option in ([], ["--dry-run"]):
            with pytest.raises(RegistryError, match=f"exists already, at commit {commit[:12]}"):
                push(registry, "algebra", "ada/algebra", *option)
        assert hub.files("ada/algebra") == BEFORE
        assert hub.written() == []

    def test_has_its_model_replaced_by_one_commit_with_yes(
        self, hub: Hub, registry: Registry, whole: Entry
    ) -> None:
        repo = hub.add("ada/algebra", BEFORE, private=True)
        first = repo.refs["main"]
        said = push(registry, "algebra", "ada/algebra", "--yes")
        assert "       removed  model-00001-of-00002.safetensors\n" in said
        assert hub.files("ada/algebra").keys() == SENT | {"NOTES.md"}
        assert hub.files("ada/algebra")["config.json"] == b"{}"
        assert len(repo.commits) == 2
        assert repo.commits[first] == BEFORE
        assert hub.last["parentCommit"] == first

    def test_keeps_its_visibility(self, hub: Hub, registry: Registry, whole: Entry) -> None:
        hub.add("ada/open", BEFORE)
        hub.add("ada/closed", BEFORE, private=True)
        with pytest.raises(RegistryError, match="is public; a push leaves it so") as caught:
            push(registry, "algebra", "ada/open", "--yes")
        assert "pass --public" in str(caught.value.fix)
        with pytest.raises(RegistryError, match="is private; a push leaves it so") as caught:
            push(registry, "algebra", "ada/closed", "--yes", "--public")
        assert "drop --public" in str(caught.value.fix)
        assert hub.written() == []


class TestRefusals:
    @pytest.mark.parametrize("name", ["algebra", "ada/", "/algebra", "a/b/c", "ada/al gebra", ""])
    def test_a_name_without_org(
        self, name: str, hub: Hub, registry: Registry, whole: Entry
    ) -> None:
        with pytest.raises(RegistryError, match="no name of a hub repository") as caught:
            push(registry, "algebra", name)
        assert "org/name" in str(caught.value.fix)
        assert hub.asked == []

    def test_an_unknown_entry(self, hub: Hub, registry: Registry, whole: Entry) -> None:
        with pytest.raises(RegistryError, match="no entry or name begins with 'geometry'"):
            push(registry, "geometry", "ada/algebra")
        assert hub.asked == []

    def test_no_token(self, tmp_path: Path, registry: Registry, whole: Entry) -> None:
        with (
            standing_in(tmp_path / "cache", token=None) as hub,
            pytest.raises(HubError, match="no token") as caught,
        ):
            push(registry, "algebra", "ada/algebra")
        assert "HF_TOKEN" in str(caught.value.fix)
        assert hub.asked == []

    def test_somebody_elses_name(self, hub: Hub, registry: Registry, whole: Entry) -> None:
        with pytest.raises(HubError, match="you may not create a repository there") as caught:
            push(registry, "algebra", "others/algebra")
        assert "a name of your own" in str(caught.value.fix)

    def test_a_damaged_store(self, hub: Hub, registry: Registry, whole: Entry) -> None:
        damage(registry.objects.path(whole.manifest["model.safetensors"]["sha256"]))
        with pytest.raises(RegistryError, match=r"model\.safetensors is damaged"):
            push(registry, "algebra", "ada/algebra")
        assert hub.asked == []


def test_what_a_reader_will_miss_is_noted(hub: Hub, registry: Registry, tmp_path: Path) -> None:
    config = json.dumps({"base_model_name_or_path": "/home/ada/base"}).encode()
    made = model(tmp_path / "adapter", "first", **{"adapter_config.json": config})
    promote(registry, made, name="small")
    said = push(registry, "small", "ada/small", "--dry-run")
    assert "note: the entry holds no generation_config.json" in said
    assert "note: the adapter's base is /home/ada/base, a folder of this machine" in said
    assert "no tokenizer" not in said


def test_the_address_and_the_token_come_from_the_environment(
    registry: Registry, whole: Entry, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "strop", "registry", "push", "algebra", "ada/algebra",
               "--registry", str(registry.path), "--json"]  # fmt: skip
    with serving() as hub:
        told = {**os.environ, **environment(hub, tmp_path / "home")}
        done = subprocess.run(command, env=told, capture_output=True, text=True, check=True)
        assert TOKEN not in done.stdout + done.stderr
        assert json.loads(done.stdout)["url"] == f"{hub.url}/ada/algebra"
        assert hub.files("ada/algebra")["model.safetensors"] == b"first"
        again = subprocess.run(command, env=told, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "pass --yes" in again.stderr
    assert "Traceback" not in again.stderr
