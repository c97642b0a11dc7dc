"""Liger's kernels: what is replaced and what is left alone, with a stand-in for the library."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import MethodType, ModuleType
from typing import Any

import pytest
import torch
from transformers.models.qwen3 import modeling_qwen3

from strop.errors import ModelError, RecipeError
from strop.model.kernels import expect_kernels, use_kernels
from strop.recipe.loading.load import load_recipe
from strop.train.run import train
from tests.support.families import model_of

ROTARY = modeling_qwen3.apply_rotary_pos_emb


class FusedNorm(torch.nn.Module):
    """Stands for Liger's module."""


def fused_rotary(query: Any, *given: Any) -> str:
    return "fused"


def fused_mlp(self: Any, x: torch.Tensor) -> torch.Tensor:
    return 2 * self.down_proj(x[..., :1].expand(*x.shape[:-1], self.down_proj.in_features))


class Asked:
    """The arguments of the last patch."""

    given: dict[str, Any]


def patch(
    rope: bool = True,
    cross_entropy: bool = False,
    fused_linear_cross_entropy: bool = True,
    rms_norm: bool = True,
    swiglu: bool = True,
    model: Any = None,
) -> None:
    """Changes the module and the model, as Liger's patch of a Qwen3 does."""
    Asked.given = {"cross_entropy": cross_entropy, "head": fused_linear_cross_entropy}
    modeling_qwen3.apply_rotary_pos_emb = fused_rotary
    modeling_qwen3.Qwen3RMSNorm = FusedNorm  # type: ignore[misc, assignment]
    for layer in model.model.layers:
        layer.mlp.forward = MethodType(fused_mlp, layer.mlp)


@pytest.fixture
def liger(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkey_patch = ModuleType("liger_kernel.transformers.monkey_patch")
    monkey_patch.MODEL_TYPE_TO_APPLY_LIGER_FN = {"qwen3": patch}  # type: ignore[attr-defined]
    transformers = ModuleType("liger_kernel.transformers")
    transformers.monkey_patch = monkey_patch  # type: ignore[attr-defined]
    for name, module in (("liger_kernel", ModuleType("liger_kernel")),
                         ("liger_kernel.transformers", transformers)):  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)
    yield
    modeling_qwen3.apply_rotary_pos_emb = ROTARY


@pytest.mark.usefixtures("liger")
def test_a_model_takes_the_kernels_and_others_of_its_kind_do_not() -> None:
    model, other = model_of("qwen3"), model_of("qwen3")
    norm = modeling_qwen3.Qwen3RMSNorm
    use_kernels(model)
    assert Asked.given == {"cross_entropy": False, "head": False}, "strop's head stays"
    x = torch.ones(1, 2, 64)
    assert model.model.layers[0].mlp(x).equal(fused_mlp(model.model.layers[0].mlp, x))
    assert not other.model.layers[0].mlp(x).equal(model.model.layers[0].mlp(x))
    assert modeling_qwen3.Qwen3RMSNorm is norm


@pytest.mark.usefixtures("liger")
def test_the_rotary_embedding_is_chosen_by_device() -> None:
    use_kernels(model_of("qwen3"))

    class OnCuda:
        is_cuda = True

    assert modeling_qwen3.apply_rotary_pos_emb(OnCuda(), None, None, None) == "fused"
    query, angle = torch.randn(1, 2, 3, 4), torch.randn(1, 3, 4)
    found = modeling_qwen3.apply_rotary_pos_emb(query, query, angle.cos(), angle.sin())
    assert found[0].equal(ROTARY(query, query, angle.cos(), angle.sin())[0])


@pytest.mark.usefixtures("liger")
def test_a_model_that_liger_does_not_know_is_refused() -> None:
    with pytest.raises(ModelError, match=r"no kernels for a model of type mistral.*for qwen3"):
        use_kernels(model_of("mistral"))


def test_a_processor_has_no_kernels(recipes: dict[str, Path]) -> None:
    recipe = load_recipe(recipes["sft"], ["model.kernels=liger", "model.device=cpu"])
    with pytest.raises(ModelError, match="runs on a GPU, and this run computes on cpu"):
        train(recipe)


def test_a_missing_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    with pytest.raises(ModelError, match=r"needs liger-kernel(.|\n)*strop\[kernels\]"):
        expect_kernels("cuda")


def test_layers_that_are_gathered_are_refused(recipes: dict[str, Path]) -> None:
    with pytest.raises(RecipeError, match=r"model\.kernels is not tried on layers"):
        load_recipe(recipes["sft"], ["model.kernels=liger", "run.distributed.shard=full"])
