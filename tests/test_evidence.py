"""What the pages of evidence stand on: the CHES score by hand, and recipes that load."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from strop.curate.displacement import ches_scores
from strop.model.load import load_policy
from strop.recipe.train.methods import METHODS
from strop.recipe.train.model import ModelRecipe
from strop.types import Branch, Tree

ROOT = Path(__file__).parents[1]


def runs() -> Any:
    """`evidence/runs.py` as a module."""
    spec = importlib.util.spec_from_file_location("evidence_runs", ROOT / "evidence/runs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ches_by_hand(model_folder: Path) -> None:
    """From the library's own hidden states, one row an answer."""
    chosen, rejected = (5, 6, 2), (7, 8, 9, 2)
    tree = Tree((1, 4), (Branch(chosen, (True,) * 3), Branch(rejected, (True,) * 4)))
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    means = []
    for answer in (chosen, rejected):
        with torch.no_grad():
            hidden = model.model(torch.tensor([(1, 4, *answer)])).last_hidden_state[0]
        means.append(hidden[1 : 1 + len(answer)].mean(0))  # states that predict the answer
    expected = float(means[0] @ means[1] - means[0] @ means[0])
    policy = load_policy(ModelRecipe(path=str(model_folder)))
    assert ches_scores(policy, [tree]).tolist() == pytest.approx([expected], rel=1e-4)
    same = Tree((1, 4), (Branch(chosen, (True,) * 3), Branch(chosen, (True,) * 3)))
    assert ches_scores(policy, [same, tree, same]).tolist() == pytest.approx(
        [0.0, expected, 0.0], rel=1e-4, abs=1e-4
    )


def test_every_recipe_of_the_evidence_loads() -> None:
    module = runs()
    recipes = {**module.displacement(), **module.preference(), **module.policy()}
    assert len(recipes) >= 20
    for name, recipe in recipes.items():
        whole = {"model": "m", "output": f"runs/{name}", "seed": 0, **recipe}
        loaded = METHODS[recipe["method"]].recipe.model_validate(json.loads(json.dumps(whole)))
        assert loaded.run.steps is not None
