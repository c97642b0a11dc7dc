"""A server of the tiny model, once for all tests that leave it as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.model.load import load_policy
from strop.model.save import save_network
from strop.recipe.train.model import ModelRecipe
from tests.support.serving import Serving, recipe_of, serving


@pytest.fixture(scope="session")
def plain_server(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    traffic = {"folder": str(tmp_path_factory.mktemp("traffic"))}
    limits = {"tokens": 512, "choices": 16, "body_bytes": 20_000}
    rewards = {"short": [{"function": "short_answer", "file": str(REWARDS)}]}
    recipe = recipe_of(model_folder, traffic=traffic, limits=limits, rewards=rewards)
    with serving(recipe) as server:
        yield server


REWARDS = Path(__file__).parent / "rewards_of_tests.py"


@pytest.fixture(scope="session")
def adapters(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters of the tiny model that say different things."""
    made = []
    for number in (1, 2):
        lora: Any = {"rank": 4}
        policy = load_policy(ModelRecipe(path=str(model_folder), lora=lora), seed=number)
        draw = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for weight in policy.trainable():
                weight += 0.2 * torch.randn(weight.shape, generator=draw)
        folder = tmp_path_factory.mktemp(f"adapter{number}") / "final"
        save_network(policy, folder)
        made.append(folder)
    return made
