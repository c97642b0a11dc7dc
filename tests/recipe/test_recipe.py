"""Recipes: every mistake is one message with file, line and the nearest right name."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest
import yaml

from strop.errors import RecipeError
from strop.recipe.gate import GateRules
from strop.recipe.loading.load import digest, load, load_recipe
from strop.recipe.pipeline import Pipeline
from strop.recipe.suite import Suite
from strop.recipe.train.offline import PairRecipe
from strop.recipe.train.online import PolicyRecipe

GOOD = """\
method: dpo
output: runs/dpo
model:
  path: ./base
data: pairs.jsonl
objective: {beta: 0.2}
optim:
  learning_rate: 1e-5
run: {steps: 3}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def test_a_good_recipe(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD))
    assert isinstance(recipe, PairRecipe)
    assert recipe.objective.beta == 0.2
    assert recipe.optim.learning_rate == 1e-5
    assert recipe.model.path == str(tmp_path / "base")
    assert recipe.data[0].path == str(tmp_path / "pairs.jsonl")
    assert recipe.output == str(tmp_path / "runs/dpo")


def test_hub_names_stay_names(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD), ["model.path=Qwen/Qwen3-0.6B"])
    assert recipe.model.path == "Qwen/Qwen3-0.6B"


def test_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    recipe = load_recipe(path, ["model.lora.rank=4", "data=[a.jsonl, {path: b.jsonl}]", "seed=7"])
    assert recipe.model.lora is not None
    assert recipe.model.lora.rank == 4
    assert [Path(source.path).name for source in recipe.data] == ["a.jsonl", "b.jsonl"]
    assert digest(recipe) != digest(load_recipe(path))
    for wrong in ("seed", "=3", "method.x=1", "data.x.y=1"):
        with pytest.raises(RecipeError, match="--set"):
            load_recipe(path, [wrong])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optim.learning_rate=high", "--set optim.learning_rate: `optim.learning_rate`: "),
        ("optim={learning_rate: high}", "--set optim: `optim.learning_rate`: "),
        ("run.stepz=3", "--set run.stepz: unknown key `run.stepz`"),
        ("model={lora: {rank: 0}}", "--set model: "),
        ("method=dpoo", "--set method: unknown method 'dpoo'"),
        ("rollout.group_size=2", "--set rollout.group_size: unknown key `rollout`"),
        ("seed=1", f"recipe.yaml:{1 + GOOD[: GOOD.index('beta')].count(chr(10))}: "),
    ],
)
def test_a_mistake_of_an_override_is_not_blamed_on_a_line(
    override: str, said: str, tmp_path: Path
) -> None:
    """Nor one of the file on an override beside it."""
    good = GOOD if override != "seed=1" else GOOD.replace("beta: 0.2", "beta: no")
    with pytest.raises(RecipeError) as refused:
        load_recipe(write(tmp_path, good), [override])
    assert said in str(refused.value)
    with pytest.raises(RecipeError) as refused:
        load_recipe({**yaml.safe_load(good)}, [override])
    assert (said if said.startswith("--set") else "the recipe: ") in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("beta: 0.2", "betta: 0.2", r":6: unknown key `objective.betta`[\s\S]*mean `beta`"),
        ("optim:", "optimm:", r":7: unknown key `optimm`[\s\S]*mean `optim`"),
        (
            "beta: 0.2",
            "steps: 2",
            r":6: unknown key `objective.steps`[\s\S]*belongs at `run.steps`",
        ),
        (
            "beta: 0.2",
            "epsilon_low: 0.2",
            r":6: unknown key [\s\S]*known keys here: alpha, beta, divergence, label",
        ),
        ("output: runs/dpo\n", "", "missing key `output`"),
        ("  learning_rate: 1e-5", "  schedule: linear", r":7: missing key `optim.learning_rate`"),
        ("beta: 0.2", "beta: -1", r":6: `objective.beta`: Input should be greater than 0"),
        ("beta: 0.2", "beta: high", r":6: `objective.beta`: [\s\S]*got 'high'"),
        ("steps: 3", "steps: 3, epochs: 1", r":9: `run`: give exactly one of steps and epochs"),
        (
            "method: dpo",
            "method: simppo",
            r":1: unknown method 'simppo'[\s\S]*did you mean 'simpo'",
        ),
        ("method: dpo\n", "", "the recipe has no `method`"),
        ("method: dpo", "method: dpo\nmethod: sft", r":2: the key `method` appears twice"),
        ("data: pairs.jsonl", "data: [", "not valid YAML"),
        (GOOD, "- a\n- b\n", "expected `key: value` lines"),
        (GOOD, "!!python/object/apply:os.system [id]", "not valid YAML"),
    ],
)
def test_mistakes(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(write(tmp_path, GOOD.replace(old, new)))
    assert str(caught.value).startswith(str(tmp_path / "recipe.yaml"))


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    bad = GOOD.replace("beta", "betta").replace("steps: 3", "stepps: 3")
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, bad))
    assert all(name in str(caught.value) for name in ("betta", "stepps", ":6: ", ":9"))


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot read the file"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="not UTF-8"):
        load_recipe(tmp_path / "b.yaml")


POLICY = GOOD.replace("dpo", "grpo").replace("{beta: 0.2}", "{beta: 0.0}")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("", "missing key `reward`"),
        (
            "reward: [{function: exact_answer}]\nrollout: {group_size: 0}",
            "greater than or equal to 1",
        ),
        ("reward: [{function: f}, {function: f}]", "share a name"),
        ("reward: [{function: f}]\nrollout: {temperature: 0}", "greater than 0"),
    ],
)
def test_policy_mistakes(tmp_path: Path, extra: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(write(tmp_path, POLICY + extra))


def test_inert_kl_is_refused(tmp_path: Path) -> None:
    text = POLICY.replace("beta: 0.0", "kl: k3") + "reward: [{function: f}]"
    with pytest.raises(RecipeError, match="kl is set but beta is 0"):
        load_recipe(write(tmp_path, text))
    recipe = load_recipe(write(tmp_path, text), ["objective.beta=0.1"])
    assert isinstance(recipe, PolicyRecipe)
    assert (recipe.objective.beta, recipe.objective.kl) == (0.1, "k3")


def test_pipeline_and_suite_mistakes(tmp_path: Path) -> None:
    stage = "{kind: train, name: a, recipe: a.yaml}"
    path = write(tmp_path, f"name: p\nstages:\n  - {stage}\n  - {stage}\n")
    with pytest.raises(RecipeError, match="stage names have to differ; used twice: a"):
        load(Pipeline, path)
    path = write(tmp_path, "name: p\nstages:\n  - {kind: trian, name: a}\n")
    with pytest.raises(RecipeError, match=r"recipe.yaml:3: .*\n  fix: did you mean `train`"):
        load(Pipeline, path)
    path = write(tmp_path, "name: p\nstages:\n  - {kind: train, name: a, recipee: a.yaml}\n")
    with pytest.raises(RecipeError, match=r"unknown key `stages.recipee`[\s\S]*mean `recipe`"):
        load(Pipeline, path)
    path = write(tmp_path, "name: s\ntasks: []\n")
    with pytest.raises(RecipeError, match="at least 1 item"):
        load(Suite, path)
    path = write(tmp_path, "guardrails: [{score: a, margin: 0}]\n")
    with pytest.raises(RecipeError, match=r"recipe.yaml:1: `guardrails.0.margin`"):
        load(GateRules, path)


def test_no_section_has_more_than_20_keys() -> None:
    from strop import recipe

    for module in pkgutil.walk_packages(recipe.__path__, "strop.recipe."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and hasattr(value, "model_fields"):
                assert len(value.model_fields) <= 20, value
