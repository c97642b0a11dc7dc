"""Adapters, quantised bases, recomputed activations: the same method, other memory."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from conftest import metrics
from strop.demo.model import raw_model
from strop.errors import ModelError, RecipeError
from strop.model.load import load_policy
from strop.recipe.load import load_recipe
from strop.recipe.model import LoraRecipe, ModelRecipe
from strop.train.checkpoint import latest_checkpoint
from strop.train.run import train
from strop.types import Branch, Tree


class TestAdapters:
    def test_lora_trains_the_adapter_alone_and_loads_with_peft(
        self, recipes: dict[str, Path], model_folder: Path
    ) -> None:
        recipe = load_recipe(recipes["sft"], ["model.lora={rank: 4}", "optim.learning_rate=1e-2"])
        final = train(recipe)
        model = AutoPeftModelForCausalLM.from_pretrained(final)
        start = AutoModelForCausalLM.from_pretrained(model_folder)
        base = {n: p for n, p in model.named_parameters() if "lora" not in n}
        moved = [p for n, p in model.named_parameters() if "lora_B" in n]
        assert all(p.abs().max() > 0 for p in moved)
        # all linear layers of three decoder layers: q, k, v, o, gate, up, down
        assert len(moved) == 3 * 7
        assert sum(p.numel() for p in base.values()) == sum(p.numel() for p in start.parameters())

    def test_an_adapter_on_an_adapter_starts_from_the_merged_model(
        self, recipes: dict[str, Path]
    ) -> None:
        """DPO on an SFT adapter: the reference is the SFT model, not the raw base."""
        overrides = ["model.lora={rank: 4}", "optim.learning_rate=1e-2"]
        first = train(load_recipe(recipes["sft"], overrides))
        second = train(load_recipe(recipes["dpo"], [*overrides, f"model.path={first}"]))
        assert metrics(second.parent)[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
        merged = AutoPeftModelForCausalLM.from_pretrained(first).merge_and_unload()
        base = AutoModelForCausalLM.from_pretrained(second.parent / "base")
        for p, q in zip(merged.parameters(), base.parameters(), strict=True):
            assert torch.allclose(p, q, atol=1e-6)
        assert AutoPeftModelForCausalLM.from_pretrained(second) is not None

    def test_the_reference_of_an_adapter_is_the_model_without_it(
        self, recipes: dict[str, Path]
    ) -> None:
        overrides = ["model.lora={rank: 4}", "optim.learning_rate=1e-2", "run.steps=4"]
        rows = metrics(train(load_recipe(recipes["grpo"], overrides)).parent)
        assert rows[0]["kl"] == pytest.approx(0, abs=1e-6)
        assert rows[-1]["kl"] > 1e-4

    @pytest.mark.parametrize("lora", [False, True])
    def test_bfloat16(self, lora: bool, recipes: dict[str, Path]) -> None:
        adapter = ["model.lora={rank: 4}"] if lora else []
        final = train(load_recipe(recipes["dpo"], ["model.dtype=bfloat16", *adapter]))
        name = "adapter_model.safetensors" if lora else "model.safetensors"
        kinds = {tensor.dtype for tensor in load_file(final / name).values()}
        assert kinds == ({torch.float32} if lora else {torch.bfloat16})
        checkpoint = latest_checkpoint(final.parent)
        assert checkpoint is not None
        assert {t.dtype for t in load_file(checkpoint / name).values()} == {torch.float32}

    def test_lora_reaches_every_linear_layer_with_its_scale(self, model_folder: Path) -> None:
        scales = {}
        for rslora in (False, True):
            recipe = LoraRecipe(rank=4, alpha=8.0, rslora=rslora)
            policy = load_policy(ModelRecipe(path=str(model_folder), lora=recipe))
            layers = [m for m in policy.model.modules() if hasattr(m, "lora_A")]
            assert len(layers) == 3 * 7
            scales[rslora] = {m.scaling["default"] for m in layers}
        assert scales == {False: {2.0}, True: {4.0}}

    def test_dora_learns_magnitudes(self, recipes: dict[str, Path]) -> None:
        options = ["model.lora={rank: 4, dora: true}", "optim.learning_rate=1e-2", "run.steps=3"]
        final = train(load_recipe(recipes["dpo"], options))
        held = load_file(final / "adapter_model.safetensors")
        assert sum("magnitude" in name for name in held) == 3 * 7
        assert metrics(final.parent)[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)

    def test_an_adapter_run_resumes_with_its_reference(self, recipes: dict[str, Path]) -> None:
        """The reference that was refreshed on the way is part of the checkpoint."""
        options = ["model.lora={rank: 4}", "optim.learning_rate=1e-2", "run.steps=4",
                   "objective={beta: 0.1, refresh_every: 2}"]  # fmt: skip
        rows = metrics(train(load_recipe(recipes["grpo"], options)).parent)
        assert rows[1]["kl"] > 0
        assert rows[2]["kl"] == pytest.approx(0, abs=1e-6)
        assert rows[3]["kl"] > 0


class TestQuantised:
    """QLoRA: 4-bit frozen weights below a float32 adapter (runs on a CPU as well)."""

    @pytest.fixture(scope="class")
    def model_folder(self, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A model whose rows are whole blocks of 64."""
        folder = tmp_path_factory.mktemp("wide")
        model = raw_model(tokenizer, seed=0, width=64)
        for parameter in model.parameters():  # as in conftest: sharper than at birth
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.12)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    def test_rows_that_are_no_whole_blocks_are_refused(
        self, tokenizer: Any, tmp_path: Path
    ) -> None:
        raw_model(tokenizer, seed=0, width=32).save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        recipe = ModelRecipe(path=str(tmp_path), lora=LoraRecipe(rank=4), quantize="nf4")
        with pytest.raises(ModelError, match=r"whole blocks of 64; \S+ has rows of 32"):
            load_policy(recipe)

    qlora = ("model.quantize=nf4", "model.lora={rank: 8}", "optim.learning_rate=1e-2")

    def test_trains_the_adapter_over_four_bit_weights(
        self, recipes: dict[str, Path], model_folder: Path
    ) -> None:
        recipe = load_recipe(recipes["dpo"], [*self.qlora, "run.steps=12"])
        final = train(recipe)
        rows = metrics(final.parent)
        assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
        assert rows[-1]["rewards/margins"] > 0.1
        policy = load_policy(recipe.model)
        kinds = {type(m).__name__ for m in policy.model.modules() if "4bit" in type(m).__name__}
        assert "Linear4bit" in {name.split(".")[-1] for name in kinds}
        config = json.loads((final / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == str(model_folder)
        assert AutoPeftModelForCausalLM.from_pretrained(final) is not None

    def test_reads_nearly_what_full_precision_reads(self, model_folder: Path) -> None:
        lora = LoraRecipe(rank=4)
        full = load_policy(ModelRecipe(path=str(model_folder), lora=lora))
        small = load_policy(ModelRecipe(path=str(model_folder), lora=lora, quantize="nf4"))
        trees = [Tree((1, 2, 3), (Branch(tuple(range(5, 45)), (True,) * 40),))]
        with torch.no_grad():
            apart = (full.score(trees).logprobs_N - small.score(trees).logprobs_N).abs()
        assert 0 < apart.mean() < 0.5
        stored = [p for n, p in small.model.named_parameters() if "q_proj.base_layer.weight" in n]
        assert {p.dtype for p in stored} == {torch.uint8}

    def test_online_methods_sample_from_it(self, recipes: dict[str, Path]) -> None:
        rows = metrics(train(load_recipe(recipes["rloo"], [*self.qlora, "run.steps=2"])).parent)
        assert rows[0]["mismatch/logprob_difference"] < 1e-3

    def test_no_layer_is_repacked_on_a_processor_that_could(
        self, model_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Planted: a processor with bfloat16 products, on which bitsandbytes repacks in eval."""
        monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
        recipe = ModelRecipe(path=str(model_folder), lora=LoraRecipe(rank=4), quantize="nf4")
        policy = load_policy(recipe)
        trees = [Tree((1, 2, 3), (Branch(tuple(range(5, 45)), (True,) * 40),))]
        with torch.no_grad():
            training = policy.score(trees).logprobs_N
            policy.model.eval()
            assert torch.equal(policy.score(trees).logprobs_N, training)

    def test_without_an_adapter_it_is_refused(self, recipes: dict[str, Path]) -> None:
        with pytest.raises(RecipeError, match=r"quantized weights cannot be trained"):
            load_recipe(recipes["dpo"], ["model.quantize=nf4"])


@pytest.mark.parametrize("lora", [False, True])
def test_gradient_checkpointing_changes_no_number(lora: bool, recipes: dict[str, Path]) -> None:
    adapter = ["model.lora={rank: 4}"] if lora else []
    runs: list[list[dict[str, Any]]] = []
    for on in (False, True):
        options = [f"model.gradient_checkpointing={on}", f"output=runs/{on}", "run.steps=3"]
        runs.append(metrics(train(load_recipe(recipes["dpo"], [*options, *adapter])).parent))
    for before, after in zip(*runs, strict=True):
        assert after["loss"] == pytest.approx(before["loss"], rel=1e-5)
        assert after["grad_norm"] == pytest.approx(before["grad_norm"], rel=1e-4)


def test_gradient_checkpointing_drops_activations(model_folder: Path) -> None:
    """Tensors kept for the backward of one forward, counted by their bytes."""
    trees = [Tree((1, 2), (Branch(tuple(range(4, 90)), (True,) * 86),))]
    kept = {}
    for on in (False, True):
        policy = load_policy(ModelRecipe(path=str(model_folder), gradient_checkpointing=on))
        total = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            policy.score(trees)
        kept[on] = total
    assert kept[True] < 0.5 * kept[False]
