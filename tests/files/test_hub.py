"""Names and revisions of the hub become folders and commits, or one message with its fix."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest

from strop.errors import HubError
from strop.hub import commit_of, expect_token, fetched, in_cache, of_a_model, repository, upload
from tests.support.hub import READER, Hub, standing_in

FILES = {
    "config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b"weights",
    "modeling.py": b"raise SystemExit", "pytorch_model.bin": b"pickle", "README.md": b"# it",
    "original/more.safetensors": b"more",
}  # fmt: skip


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with standing_in(tmp_path / "cache") as hub:
        yield hub


def names(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


class TestFetched:
    def test_a_branch_becomes_the_folder_of_its_commit(self, hub: Hub) -> None:
        repo = hub.add("org/base", FILES)
        folder = fetched("org/base", None)
        assert folder.name == repo.refs["main"]
        assert in_cache(folder) == ("org/base", folder.name)
        assert in_cache(folder.parent / "main") is None
        assert in_cache(folder / "final") is None
        assert names(folder) == {"config.json", "tokenizer.json", "model.safetensors"}
        assert (folder / "model.safetensors").read_bytes() == b"weights"

    def test_a_branch_that_moves_leads_to_another_folder(self, hub: Hub) -> None:
        repo = hub.add("org/base", FILES)
        before = fetched("org/base", "main")
        repo.refs["v1"] = repo.refs["main"]
        hub.add("org/base", {**FILES, "model.safetensors": b"new"})
        after = fetched("org/base", "main")
        assert before != after
        assert (after / "model.safetensors").read_bytes() == b"new"
        assert fetched("org/base", "v1") == fetched("org/base", before.name) == before
        assert (before / "model.safetensors").read_bytes() == b"weights"

    def test_weights_and_code_come_only_where_they_are_asked_for(self, hub: Hub) -> None:
        hub.add("org/base", FILES)
        assert names(fetched("org/base", None, weights=False)) == {"config.json", "tokenizer.json"}
        assert "modeling.py" in names(fetched("org/base", None, code=True))

    def test_without_the_hub_the_cache_gives_what_it_has(
        self, hub: Hub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.add("org/base", FILES)
        before = fetched("org/base", None)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
        assert fetched("org/base", None) == before
        with pytest.raises(HubError, match="cannot be reached") as caught:
            fetched("org/other", None)
        assert "HF_ENDPOINT" in str(caught.value.fix)

    def test_what_the_hub_does_not_have_is_said(self, hub: Hub) -> None:
        hub.add("org/base", FILES)
        hub.add("org/secret", FILES).gated = True
        with pytest.raises(HubError, match=r"^org/base at v9: the hub has no such revision"):
            fetched("org/base", "v9")
        with pytest.raises(HubError, match=r"^org/none: the hub has no such repository"):
            fetched("org/none", None)
        with pytest.raises(HubError, match="conditions to be accepted") as caught:
            fetched("org/secret", None)
        assert f"{hub.url}/org/secret" in str(caught.value.fix)
        with pytest.raises(HubError, match="no name of the hub"):
            fetched("org/--", None)

    def test_a_private_model_needs_the_token(self, tmp_path: Path) -> None:
        with standing_in(tmp_path / "cache", token=None) as hub:
            hub.add("org/mine", FILES, private=True)
            with pytest.raises(HubError, match="may not see it") as caught:
                fetched("org/mine", None)
            assert "HF_TOKEN" in str(caught.value.fix)
            with pytest.raises(HubError, match="no token"):
                expect_token()


class TestCommits:
    def test_a_data_set_has_commits_of_its_own(self, hub: Hub) -> None:
        hub.add("org/x", {"a.jsonl": b"{}"}, kind="datasets")
        made = hub.repos["datasets", "org/x"].refs["main"]
        assert commit_of("org/x", None, "dataset") == made
        with pytest.raises(HubError, match="no such repository"):
            commit_of("org/x", None, "model")

    def test_a_commit_is_not_asked_for(self, hub: Hub) -> None:
        assert commit_of("org/x", "0" * 40, "dataset") == "0" * 40
        assert hub.asked == []

    def test_a_repository_is_none_where_the_hub_has_none(self, hub: Hub) -> None:
        assert repository("org/x") is None
        repo = hub.add("org/x", FILES, private=True)
        found = repository("org/x")
        assert found is not None
        assert (found.private, found.commit) == (True, repo.refs["main"])
        assert set(found.files) == FILES.keys()

    def test_a_token_that_is_no_token_is_said(self, tmp_path: Path) -> None:
        with (
            standing_in(tmp_path, token="hf_unknown"),
            pytest.raises(HubError, match="does not know the token"),
        ):
            repository("org/x")

    def test_a_commit_that_would_go_onto_another_one_is_refused(self, hub: Hub) -> None:
        first = hub.add("org/x", FILES).refs["main"]
        second = hub.add("org/x", {**FILES, "config.json": b"[]"}).refs["main"]
        with pytest.raises(HubError, match=r"refuses \(412\)") as caught:
            upload("org/x", {"a.json": b"1"}, remove=[], message="m", onto=first)
        assert "somebody else wrote" in str(caught.value.fix)
        assert hub.repo("org/x").refs["main"] == second

    def test_a_token_that_only_reads_is_said(self, tmp_path: Path) -> None:
        with standing_in(tmp_path, token=READER) as hub:
            onto = hub.add("org/x", FILES).refs["main"]
            with pytest.raises(HubError, match="may only read") as caught:
                upload("org/x", {"a.json": b"1"}, remove=[], message="m", onto=onto)
            assert "may write" in str(caught.value.fix)


def test_files_of_a_model() -> None:
    loaded = ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "config.json",
              "generation_config.json", "tokenizer.model", "chat_template.jinja",
              "merges.txt", "adapter_config.json"]  # fmt: skip
    assert all(map(of_a_model, loaded))
    assert not any(map(of_a_model, ["optimizer.pt", "README.md", "a/config.json", "modeling.py"]))


def test_the_stand_in_keeps_what_it_was_given(hub: Hub) -> None:
    repo = hub.add("org/x", {"config.json": b"{}"})
    made = upload("org/x", {"a.safetensors": b"w", "b.json": json.dumps([1]).encode()},
                  remove=["config.json"], message="say", onto=None)  # fmt: skip
    assert repo.refs["main"] == made
    assert hub.files("org/x") == {"a.safetensors": b"w", "b.json": b"[1]"}
    assert hub.last["summary"] == "say"
