"""A run from a hub model: its revision is a commit in all that is written down."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from strop.errors import HubError, OutputError, RecipeError
from strop.model.load import load_for_inference, weights_hash
from strop.recipe.loading.load import load_recipe
from strop.registry.lineage import ancestry
from strop.registry.tree import drawn
from strop.train.pin import pinned
from strop.train.run import train
from tests.support.hub import Hub, standing_in
from tests.support.runs import final_weights, same

BASE = ("model=org/base",)
OPTIONS = ["run.steps=1", "run.batch_size=4"]


@pytest.fixture
def hub(tmp_path: Path, model_folder: Path) -> Iterator[Hub]:
    with standing_in(tmp_path / "cache") as hub:
        hub.add("org/base", model_folder)
        yield hub


def move(hub: Hub) -> str:
    """Commit other files, of the same model, to the main branch; the hash of the commit."""
    files = hub.files("org/base")
    config = json.dumps(json.loads(files["config.json"]) | {"moved": True}).encode()
    hub.add("org/base", {**files, "config.json": config})
    return hub.repo("org/base").refs["main"]


def run(recipe: Path, *options: str, **given: bool) -> Path:
    return train(load_recipe(recipe, [*OPTIONS, *(options or BASE)]), **given).parent


def test_the_commit_is_in_recipe_and_lineage(
    hub: Hub, recipes: dict[str, Path], model_folder: Path, tmp_path: Path
) -> None:
    commit = hub.repo("org/base").refs["main"]
    folder = run(recipes["sft"], "model={path: org/base, revision: main}")
    resolved = yaml.safe_load((folder / "recipe.resolved.yaml").read_text())
    assert (resolved["model"]["path"], resolved["model"]["revision"]) == ("org/base", commit)
    parent = json.loads((folder / "lineage.json").read_text())["parent"]
    assert parent == {"path": "org/base", "revision": commit, "sha256": weights_hash(model_folder)}
    assert ancestry(folder / "final")["parent"] == {
        "model": "org/base", "revision": commit, "sha256": parent["sha256"]}  # fmt: skip
    drawing = "\n".join(drawn(ancestry(folder / "final")))
    assert f"org/base  at {commit[:8]}  {parent['sha256'][:8]}" in drawing
    written = [file.read_text() for kind in ("*.json", "*.yaml") for file in folder.rglob(kind)]
    assert not any(str(tmp_path / "cache") in text for text in written)


def test_the_written_recipe_is_the_same_run_after_the_branch_moved(
    hub: Hub, recipes: dict[str, Path], tmp_path: Path
) -> None:
    first = run(recipes["sft"])
    moved = move(hub)
    again = load_recipe(first / "recipe.resolved.yaml", [f"output={tmp_path / 'again'}"])
    second = train(again).parent
    assert same(final_weights(first), final_weights(second))
    assert json.loads((second / "lineage.json").read_text())["parent"]["revision"] != moved


def test_a_run_is_not_resumed_from_a_branch_that_moved(hub: Hub, recipes: dict[str, Path]) -> None:
    commit = hub.repo("org/base").refs["main"]
    run(recipes["sft"])
    assert run(recipes["sft"], resume=True).is_dir()  # it is finished, and the same
    moved = move(hub)
    with pytest.raises(OutputError, match=f"model.revision: '{commit}' -> '{moved}'"):
        run(recipes["sft"], resume=True)


def test_an_adapter_names_the_hub_model_and_loads_from_there(
    hub: Hub, recipes: dict[str, Path], tmp_path: Path
) -> None:
    commit = hub.repo("org/base").refs["main"]
    folder = run(recipes["sft"], "model={path: org/base, lora: {rank: 2}}")
    config = json.loads((folder / "final/adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/base", commit)
    move(hub)
    assert load_for_inference(str(folder / "final")).tokenizer.eos_token == "<|end|>"


def test_only_what_describes_the_model_is_fetched_for_an_estimate(
    hub: Hub, recipes: dict[str, Path]
) -> None:
    recipe = load_recipe(recipes["sft"], [*OPTIONS, "model=org/base"])
    found = pinned(recipe, force=False, weights=False)
    assert (Path(found.model.path) / "config.json").exists()
    assert not any("safetensors" in line for line in hub.asked)


def test_a_contradiction_is_said_before_anything_is_fetched(
    hub: Hub, recipes: dict[str, Path]
) -> None:
    with pytest.raises(RecipeError, match=r"lora\.dropout is set"):
        run(recipes["dpo"], "model={path: org/base, lora: {dropout: 0.1}}")
    assert hub.asked == []


def test_data_sets_and_critics_are_pinned_too(
    hub: Hub, recipes: dict[str, Path], model_folder: Path
) -> None:
    hub.add("org/tasks", {"train.jsonl": b"{}"}, kind="datasets")
    hub.add("org/critic", model_folder)
    options = ["model={path: org/base, tokenizer: org/base}", "value.path=org/critic",
               "data=[{hub: org/tasks, revision: main}]"]  # fmt: skip
    recipe = pinned(load_recipe(recipes["ppo"], options), force=True)
    assert recipe.data[0].revision == hub.repos["datasets", "org/tasks"].refs["main"]
    plain = recipe.plain()
    assert plain["value"]["path"] == "org/critic"
    assert plain["value"]["revision"] == hub.repo("org/critic").refs["main"]
    assert plain["model"]["tokenizer"] is None


def test_a_recipe_without_hub_names_asks_nobody(hub: Hub, recipes: dict[str, Path]) -> None:
    recipe = load_recipe(recipes["sft"])
    assert pinned(recipe, force=False) is recipe
    assert hub.asked == []


@pytest.mark.parametrize(
    ("key", "fix"),
    [
        ("model", "name the hub's model as org/name"),
        ("data", "name the hub's data set"),
    ],
)
def test_a_folder_has_no_revision(
    key: str, fix: str, recipes: dict[str, Path], model_folder: Path
) -> None:
    named = {"model": f"model={{path: {model_folder}, revision: main}}",
             "data": f"data=[{{hub: {model_folder}, revision: main}}]"}[key]  # fmt: skip
    with pytest.raises(RecipeError, match=f"is a folder: drop revision, or {fix}"):
        load_recipe(recipes["sft"], [named])


def test_a_revision_that_the_hub_does_not_have(hub: Hub, recipes: dict[str, Path]) -> None:
    with pytest.raises(HubError, match="org/base at v9: the hub has no such revision"):
        run(recipes["sft"], "model={path: org/base, revision: v9}")
