"""A preset is what its paper does, in the rollout too; a dry run says what is set, and by whom."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from strop.cli.app import app
from strop.errors import RecipeError
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.online import OnlineRecipe
from strop.train.run import train
from tests.support.runs import ONLINE, metrics

PRESETS: dict[str, dict[str, Any]] = {
    "dapo": {"resample": 9, "overlong_buffer": 4, "mask_truncated": True, "group_size": 8},
    "cispo": {"resample": 9, "overlong_buffer": 4, "mask_truncated": False, "group_size": 8},
    "ppo": {"resample": 0, "overlong_buffer": 0, "mask_truncated": False, "group_size": 1},
    "reinforce_pp": {"resample": 0, "overlong_buffer": 0, "mask_truncated": False, "group_size": 1},
}
PRESETS["minillm"] = PRESETS["reinforce_pp"]
PLAIN = {"resample": 0, "overlong_buffer": 0, "mask_truncated": False, "group_size": 8}


def rollout(path: Path, *overrides: str) -> dict[str, Any]:
    recipe = load_recipe(path, overrides)
    assert isinstance(recipe, OnlineRecipe)
    return dict(recipe.rollout)


@pytest.mark.parametrize("method", ONLINE)
def test_a_preset_sets_what_its_paper_does(method: str, recipes: dict[str, Path]) -> None:
    """Of 20 tokens the last 4 are shaped, as of the paper's 20,480 the last 4,096."""
    wanted = PRESETS.get(method, PLAIN)
    found = rollout(recipes[method], "rollout={max_tokens: 20}")
    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize("method", ["dapo", "cispo"])
def test_what_the_user_says_wins(method: str, recipes: dict[str, Path]) -> None:
    said = {"max_tokens": 20, "resample": 0, "overlong_buffer": 7, "mask_truncated": False}
    found = rollout(recipes[method], f"rollout={json.dumps(said)}")
    assert {name: found[name] for name in said} == said


def test_a_wrong_length_is_one_mistake(recipes: dict[str, Path]) -> None:
    """What would be made of it is none of its own."""
    with pytest.raises(RecipeError, match=r"rollout\.max_tokens`: .*greater") as met:
        load_recipe(recipes["dapo"], ["rollout={max_tokens: 0}"])
    assert "overlong_buffer" not in str(met.value)


AGREES = """def shorter(prompts, completions, **columns):
    return [float(len(c[-1]['content'])) if int(a) % 2 else 0.0
            for c, a in zip(completions, columns['answer'])]
"""


def test_dapo_samples_again_where_grpo_learns_nothing(recipes: dict[str, Path]) -> None:
    """Half of the prompts give groups whose answers all earn the same."""
    (recipes["dapo"].parent / "rewards.py").write_text(AGREES)
    skipped = {}
    for method in ("grpo", "dapo"):
        options = ["rollout={group_size: 4, max_tokens: 12, overlong_buffer: 0, "
                   "mask_truncated: false}", "run.steps=4", "objective={}"]  # fmt: skip
        rows = metrics(train(load_recipe(recipes[method], options), force=True).parent)
        skipped[method] = [row["skipped/groups"] for row in rows]
        assert (max(row["sampled/rounds"] for row in rows) > 1) == (method == "dapo")
    assert sum(skipped["dapo"]) == 0
    assert sum(skipped["grpo"]) > 0


class TestDryRun:
    def settings(self, path: Path, *overrides: str) -> dict[str, tuple[Any, str]]:
        sets = [part for one in overrides for part in ("--set", one)]
        done = CliRunner().invoke(app, ["train", str(path), "--dry-run", "--json", *sets])
        assert done.exit_code == 0, done.output
        found = json.loads(done.output.splitlines()[-1])["settings"]
        return {key: (one["value"], one["from"]) for key, one in found.items()}

    def test_says_each_value_and_where_it_comes_from(self, recipes: dict[str, Path]) -> None:
        path = recipes["dapo"]
        recipe = yaml.safe_load(path.read_text())
        recipe["model"] = recipe["model"]["path"]  # short for {path: ...}
        recipe["alarms"] = {"spike": "stop"}
        path.write_text(yaml.safe_dump(recipe))
        lines = path.read_text().splitlines()

        def at(text: str) -> str:
            (number,) = (n for n, line in enumerate(lines, 1) if line.strip().startswith(text))
            return f"{path}:{number}"

        found = self.settings(path, "rollout.group_size=3", "optim.betas=[0.8, 0.9]")
        assert found["rollout.resample"] == (9, "the preset dapo")
        assert found["rollout.overlong_buffer"] == (2, "the preset dapo")
        assert found["rollout.mask_truncated"] == (True, "the preset dapo")
        assert found["objective.epsilon_high"] == (0.28, "the preset dapo")
        assert found["rollout.group_size"] == (3, "--set")
        assert found["optim.betas"] == ([0.8, 0.9], "--set")
        assert found["rollout.max_tokens"] == (12, at("max_tokens:"))
        assert found["optim.learning_rate"] == (1e-4, at("learning_rate:"))
        assert found["model.path"] == (recipe["model"], at("model:"))
        assert found["model.dtype"] == ("float32", "default")
        assert found["data.0.path"] == (str(path.parent / "tasks.jsonl"), at("data:"))
        assert found["alarms.spike"][1] == at("spike:")
        assert found["alarms.spike"][0]["action"] == "stop"
        assert found["alarms.capability_regression"][1] == "default"
        assert found["text.max_length"] == (128, "the model's positions")
        assert "dev" not in found

    def test_says_what_the_records_bound(self, recipes: dict[str, Path]) -> None:
        found = self.settings(recipes["sft"], "run={epochs: 3, batch_size: 10000}")
        count = len((recipes["sft"].parent / "sft.jsonl").read_text().splitlines())
        assert found["run.batch_size"] == (count, "the number of records")

    def test_of_rloo_its_kl_is_the_presets(self, recipes: dict[str, Path]) -> None:
        found = self.settings(recipes["rloo"])
        assert found["objective.beta"] == (0.05, "the preset rloo")
        assert found["rollout.resample"] == (0, "default")

    def test_prints_a_line_each(self, recipes: dict[str, Path]) -> None:
        done = CliRunner().invoke(app, ["train", str(recipes["dapo"]), "--dry-run"])
        printed = [line.split(maxsplit=2) for line in done.output.splitlines()]
        assert ["rollout.resample", "9", "the preset dapo"] in printed
