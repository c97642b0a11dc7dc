"""A policy of each kind, and a server of its model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from strop.model.load import load_policy
from strop.model.network import Policy
from strop.recipe.train.model import ModelRecipe
from tests.support.engine_servers import Running, engine_server


@pytest.fixture(params=["full", "lora"])
def trains(request: pytest.FixtureRequest, model_folder: Path) -> Policy:
    more = {"lora": {"rank": 4}} if request.param == "lora" else {}
    return load_policy(ModelRecipe(path=str(model_folder), **more), seed=3)


@pytest.fixture
def server(model_folder: Path) -> Iterator[Running]:
    with engine_server(model_folder) as running:
        yield running
