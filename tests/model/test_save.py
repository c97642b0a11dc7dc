"""Weights that are saved come back into the same network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from strop.errors import ModelError
from strop.model.load import load_policy
from strop.model.save import load_weights, save_network
from strop.recipe.train.model import ModelRecipe
from tests.support.experts import save_mixture
from tests.support.runs import same


def moved(folder: Path) -> Any:
    """The folder's model with other weights than it has there."""
    policy = load_policy(ModelRecipe(path=str(folder)))
    draw = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for weight in policy.trainable():
            weight += torch.randn(weight.shape, generator=draw)
    return policy


@pytest.mark.parametrize("kind", ["dense", "mixture"])
def test_weights_come_back_to_the_bit(
    kind: str, model_folder: Path, tokenizer: Any, tmp_path: Path
) -> None:
    """transformers writes the experts of a mixture one by one."""
    start = model_folder if kind == "dense" else save_mixture(tmp_path / "start", tokenizer)
    trained, other = moved(start), load_policy(ModelRecipe(path=str(start)))
    save_network(trained, tmp_path / "saved")
    names = load_file(tmp_path / "saved/model.safetensors").keys()
    assert any(".experts.0." in name for name in names) == (kind == "mixture")
    assert not same(trained.model.state_dict(), other.model.state_dict())
    load_weights(other, tmp_path / "saved")
    assert same(trained.model.state_dict(), other.model.state_dict())


def test_weights_of_another_model_are_refused(model_folder: Path, tmp_path: Path) -> None:
    policy = moved(model_folder)
    before = {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}
    save_network(policy, tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({**load_file(file), "model.layers.0.other": torch.ones(2)}, file, {"format": "pt"})
    with pytest.raises(ModelError, match=r"unknown weights \['model.layers.0.other'\]"):
        load_weights(policy, tmp_path)
    assert same(before, policy.model.state_dict())
