"""Adapters on the experts of a mixture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoConfig

from strop.errors import ModelError, RecipeError
from strop.model.adapters import add_lora, attach_adapter, drop_adapter, expert_parameters
from strop.model.load import load_for_inference, load_transformer
from strop.model.logprobs import TreeScorer
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.model import LoraRecipe
from strop.train.preflight.cost.shape import shape_of
from strop.train.run import train
from strop.types import Branch, Tree
from tests.support.experts import MIXTURES, mixture, save_mixture
from tests.support.runs import break_off, final_weights, same, write_recipes

EXPERTS = ["model.lora={rank: 2, experts: true}", "optim.learning_rate=1e-2"]


@pytest.fixture(scope="module")
def folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_mixture(tmp_path_factory.mktemp("mixture"), tokenizer)


@pytest.fixture
def mixtures(folder: Path, tmp_path: Path) -> dict[str, Path]:
    return write_recipes(tmp_path, folder)


TREES = [Tree((5, 6, 7, 8), (Branch((9, 10, 11), (True,) * 3), Branch((12, 13), (True, True))))]


@pytest.mark.parametrize("name", MIXTURES)
def test_every_expert_has_an_adapter_of_the_rank(name: str) -> None:
    model = mixture(name)
    recipe = LoraRecipe(rank=2, experts=True)
    shape = shape_of(model.config)
    before = TreeScorer(model)(TREES).logprobs_N
    layers = sum(key.endswith("down_proj") and p.dim() == 3 for key, p in model.named_parameters())
    adapted = add_lora(model, recipe)
    trained = {key: p for key, p in adapted.named_parameters() if p.requires_grad}
    on_experts = [p for key, p in trained.items() if ".experts." in key]
    # gate_up_proj and down_proj, A and B of each
    assert len(on_experts) == layers * 2 * 2
    assert all(2 * 6 in p.shape for p in on_experts)  # rank 2 of 6 experts
    assert sum(p.numel() for p in trained.values()) == shape.adapter(recipe)
    # B is 0 at first
    assert torch.equal(TreeScorer(adapted)(TREES).logprobs_N, before)


def test_the_adapter_is_a_product_added_to_each_experts_weights() -> None:
    model = mixture()
    adapted = add_lora(model, LoraRecipe(rank=2, alpha=6.0, targets=[], experts=True))
    torch.manual_seed(1)
    for p in adapted.parameters():
        if p.requires_grad:
            torch.nn.init.normal_(p, std=0.1)
    found = TreeScorer(adapted)(TREES).logprobs_N
    plain = mixture()
    for number in (0, 2):  # the layer in the middle is dense
        outer = adapted.get_submodule(f"base_model.model.model.layers.{number}.mlp.experts")
        inner = outer.base_layer
        for wrapper in (outer, inner):
            weights = getattr(plain.model.layers[number].mlp.experts, wrapper.parameter_name)
            down, up = wrapper.lora_A["default"].weight, wrapper.lora_B["default"].weight
            for expert in range(6):
                # A has the rows of expert 0, then those of expert 1; B's columns take turns
                a_RI, b_OR = down[2 * expert : 2 * expert + 2], up[:, expert::6]
                weights.data[expert] += 6.0 / 2 * b_OR @ a_RI
    wanted = TreeScorer(plain)(TREES).logprobs_N
    assert not torch.allclose(wanted, TreeScorer(mixture())(TREES).logprobs_N, atol=1e-2)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_a_run_ends_with_an_adapter_that_peft_loads(mixtures: dict[str, Path]) -> None:
    final = train(load_recipe(mixtures["sft"], EXPERTS))
    config = json.loads((final / "adapter_config.json").read_text())
    assert sorted(config["target_parameters"]) == ["experts.down_proj", "experts.gate_up_proj"]
    loaded = AutoPeftModelForCausalLM.from_pretrained(final).eval()
    moved = [p for n, p in loaded.named_parameters() if "lora_B" in n and ".experts." in n]
    assert len(moved) == 3 * 2
    assert all(p.abs().max() > 0 for p in moved)
    merged = load_for_inference(str(final)).score(TREES).logprobs_N
    with torch.no_grad():
        assert torch.allclose(TreeScorer(loaded)(TREES).logprobs_N, merged, atol=1e-5)
    lineage = json.loads((final.parent / "lineage.json").read_text())
    assert 0 <= lineage["final"]["merged_difference"] < 1e-5


def test_a_run_that_was_broken_off_ends_as_one_in_one_piece(mixtures: dict[str, Path]) -> None:
    more = [*EXPERTS, "run.save_every=2", "run.steps=4", "model.gradient_checkpointing=true"]
    whole = train(load_recipe(mixtures["sft"], [*more, "output=whole"])).parent
    broken = break_off(load_recipe(mixtures["sft"], [*more, "output=broken"]), 3)
    train(load_recipe(mixtures["sft"], [*more, "output=broken"]), resume=True)
    assert same(final_weights(whole), final_weights(broken))


def test_an_adapter_is_attached_and_dropped(mixtures: dict[str, Path], folder: Path) -> None:
    final = train(load_recipe(mixtures["sft"], [*EXPERTS, "run.steps=2"]))
    model = load_transformer(str(folder), torch.float32).eval()
    before = TreeScorer(model)(TREES).logprobs_N
    names = [name for name, _ in model.named_modules()]
    attached = attach_adapter(model, "tuned", str(final))
    assert not torch.allclose(TreeScorer(attached)(TREES).logprobs_N, before, atol=1e-4)
    base = drop_adapter(attached, "tuned")
    assert [name for name, _ in base.named_modules()] == names
    assert torch.equal(TreeScorer(base)(TREES).logprobs_N, before)


def test_only_asked_for_experts_are_adapted() -> None:
    """Left to itself, peft 0.21 takes all-linear of a mixture for its experts and its router."""
    adapted = add_lora(mixture("qwen2_moe"), LoraRecipe(rank=2))
    trained = {n.split(".lora_")[0] for n, p in adapted.named_parameters() if p.requires_grad}
    assert {name.rpartition(".")[2] for name in trained} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "shared_expert_gate",
    }  # fmt: skip
    with pytest.raises(ModelError, match="in a mixture peft takes down_proj for experts"):
        add_lora(mixture("qwen2_moe"), LoraRecipe(targets=["q_proj", "down_proj"]))


def test_what_has_no_experts_is_refused(recipes: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match=r"model\.lora\.experts is set, but \w+ has no experts"):
        train(load_recipe(recipes["sft"], ["model.lora={experts: true}"]))
    with pytest.raises(RecipeError, match="neither dropout nor dora"):
        load_recipe(recipes["sft"], ["model.lora={experts: true, dropout: 0.1}"])
    with pytest.raises(RecipeError, match="neither dropout nor dora"):
        load_recipe(recipes["sft"], ["model.lora={experts: true, dora: true}"])


def test_a_dense_model_has_no_expert_parameters(model_folder: Path) -> None:
    model = load_transformer(str(model_folder), torch.float32)
    assert expert_parameters(model) == []
    assert shape_of(AutoConfig.from_pretrained(model_folder)).experts_width == 0
