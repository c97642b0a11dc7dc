"""Adapters, quantised bases, recomputed activations: the same method, other memory."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from strop.demo.model import raw_model
from strop.errors import ModelError, RecipeError, TrainingError
from strop.model import offload
from strop.model.adapters import is_tied
from strop.model.load import load_for_inference, load_policy
from strop.model.logprobs import bare, decoder_layers
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.model import LoraRecipe, ModelRecipe
from strop.train.preflight import starting_model
from strop.train.preflight.prepare import prepare
from strop.train.run import train
from strop.types import Branch, Tree
from tests.support.models import sharp_model
from tests.support.runs import break_off, latest_checkpoint, metrics, same, weights


class TestAdapters:
    def test_lora_trains_the_adapter_alone_and_loads_with_peft(
        self, recipes: dict[str, Path], model_folder: Path
    ) -> None:
        recipe = load_recipe(recipes["sft"], ["model.lora={rank: 4}", "optim.learning_rate=1e-2"])
        final = train(recipe)
        model = AutoPeftModelForCausalLM.from_pretrained(final)
        raw = AutoModelForCausalLM.from_pretrained(model_folder)
        base = {n: p for n, p in model.named_parameters() if "lora" not in n}
        moved = [p for n, p in model.named_parameters() if "lora_B" in n]
        assert all(p.abs().max() > 0 for p in moved)
        # all linear layers of three decoder layers: q, k, v, o, gate, up, down
        assert len(moved) == 3 * 7
        assert sum(p.numel() for p in base.values()) == sum(p.numel() for p in raw.parameters())

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
        recipe = load_recipe(recipes["dpo"], ["model.dtype=bfloat16", *adapter])
        final = train(recipe, force=True)  # also where a processor emulates it
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


def logits(model: Any, ids: Sequence[int] = tuple(range(5, 45))) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(torch.tensor([list(ids)])).logits
    return found


TIED = (
    ["lm_head"],
    ["embed_tokens"],
    ["lm_head", "embed_tokens", "q_proj"],
    "(.*\\.v_proj|lm_head)",
)


class TestTiedWeights:
    """The demo's model reads and writes with the same weights, an adapter changes one of the two
    alone: what is merged has to be what was trained."""

    @pytest.mark.parametrize("targets", TIED, ids=str)
    def test_the_merged_model_is_the_trained_one(
        self, targets: Any, recipes: dict[str, Path], model_folder: Path, tmp_path: Path
    ) -> None:
        lora = json.dumps({"rank": 4, "targets": targets})
        options = [f"model.lora={lora}", "optim.learning_rate=3e-2", "eval=null", "run.steps=12"]
        final = train(load_recipe(recipes["sft"], options))
        rows = metrics(final.parent)
        adapter = AutoPeftModelForCausalLM.from_pretrained(final)
        trained = logits(adapter)
        moved = logits(AutoModelForCausalLM.from_pretrained(model_folder)) - trained
        assert moved.abs().max() > 1, "it learnt something"
        merged = adapter.merge_and_unload()
        assert torch.allclose(logits(merged), trained, atol=1e-4)
        merged.save_pretrained(tmp_path / "merged")
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
        assert torch.allclose(logits(again), trained, atol=1e-4)
        # and as every later stage of strop reads it
        ours = load_for_inference(str(final))
        assert torch.allclose(logits(ours.model), trained, atol=1e-4)
        assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
        lineage = json.loads((final.parent / "lineage.json").read_text())
        assert 0 <= lineage["final"]["merged_difference"] < 1e-5

    def test_the_untied_base_is_the_model_it_was_made_of(
        self, recipes: dict[str, Path], model_folder: Path
    ) -> None:
        run = train(load_recipe(recipes["sft"], [*self.head, "run.steps=1"])).parent
        base = AutoModelForCausalLM.from_pretrained(run / "base")
        tied = AutoModelForCausalLM.from_pretrained(model_folder)
        assert is_tied(tied)
        assert not is_tied(base)
        assert torch.equal(logits(base), logits(tied))
        assert json.loads((run / "lineage.json").read_text())["parent"]["path"] == str(model_folder)

    head = ("model.lora={rank: 4, targets: [lm_head, embed_tokens]}", "optim.learning_rate=3e-2",
            "eval=null")  # fmt: skip

    def test_other_targets_leave_the_base_alone(self, recipes: dict[str, Path]) -> None:
        options = ["model.lora={rank: 4, targets: [q_proj, v_proj]}", "run.steps=1"]
        assert not (train(load_recipe(recipes["sft"], options)).parent / "base").exists()

    def test_sampler_and_trainer_agree_on_them(self, recipes: dict[str, Path]) -> None:
        options = [self.head[0], "optim.learning_rate=1e-2", "run.steps=5"]
        rows = metrics(train(load_recipe(recipes["rloo"], options)).parent)
        assert max(row["mismatch/logprob_difference"] for row in rows) < 1e-4

    def test_an_adapter_on_such_an_adapter(self, recipes: dict[str, Path]) -> None:
        """Merged once more, also where the second one leaves the embeddings alone."""
        first = train(load_recipe(recipes["sft"], self.head))
        options = ["model.lora={rank: 4}", "optim.learning_rate=1e-2", f"model.path={first}"]
        second = train(load_recipe(recipes["dpo"], options))
        assert metrics(second.parent)[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
        before = logits(AutoPeftModelForCausalLM.from_pretrained(first))
        base = AutoModelForCausalLM.from_pretrained(second.parent / "base")
        assert torch.allclose(logits(base), before, atol=1e-4)

    def test_killed_and_resumed_it_ends_the_same(self, recipes: dict[str, Path]) -> None:
        whole = train(load_recipe(recipes["sft"], [*self.head, "output=runs/whole"]))
        recipe = load_recipe(recipes["sft"], [*self.head, "output=runs/parts"])
        break_off(recipe, 3)
        parts = train(recipe, resume=True)
        assert same(weights(whole), weights(parts))

    def test_an_adapter_that_others_trained_on_tied_weights_is_read_as_it_was_trained(
        self, model_folder: Path, tokenizer: Any, tmp_path: Path
    ) -> None:
        base = AutoModelForCausalLM.from_pretrained(model_folder)
        config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["lm_head"])
        theirs = get_peft_model(base, config)
        torch.manual_seed(0)
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        theirs.peft_config["default"].base_model_name_or_path = str(model_folder)
        theirs.save_pretrained(tmp_path / "theirs")
        tokenizer.save_pretrained(tmp_path / "theirs")
        wanted = logits(theirs)
        found = logits(load_for_inference(str(tmp_path / "theirs")).model)
        assert torch.allclose(found, wanted, atol=1e-4)

    def test_planted_a_merge_that_changes_the_other_end_too_is_refused(
        self, recipes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The run as it would go without untying: the self-check ends it, and there is no final."""
        monkeypatch.setattr(starting_model, "reaches_tied", lambda *_: False)
        recipe = load_recipe(recipes["sft"], self.head)
        with pytest.raises(TrainingError, match="the merged model is not the one that was trained"):
            train(recipe)
        assert not (Path(recipe.output) / "final").exists()

    @pytest.mark.parametrize("method", ["dpo", "reward_model", "grpo"])
    def test_the_check_reports_what_merging_costs(
        self, method: str, recipes: dict[str, Path]
    ) -> None:
        options = ["model.lora={rank: 4}", "optim.learning_rate=1e-2", "run.steps=2"]
        run = train(load_recipe(recipes[method], options)).parent
        lineage = json.loads((run / "lineage.json").read_text())
        assert 0 <= lineage["final"]["merged_difference"] < 1e-5


class TestTargets:
    @pytest.mark.parametrize(
        ("targets", "told"),
        [
            (["q_proj", "w_gate", "v_porj"], r"is called w_gate, v_porj\n.*did you mean v_proj\?"),
            (["q_proj", "lm_heads"], r"is called lm_heads\n.*did you mean lm_head\?"),
            (
                "q_proj",
                r"is called q_proj\n.*a pattern for whole names: write \[q_proj\]",
            ),
            ([], "model.lora.targets is empty"),
            (".*w_gate", r"is called \.\*w_gate\n.*q_proj, k_proj, v_proj, o_proj, gate_proj"),
        ],
    )
    @pytest.mark.parametrize("method", ["sft", "reward_model"])
    def test_one_that_matches_nothing_is_refused_before_anything_is_loaded(
        self, method: str, targets: Any, told: str, recipes: dict[str, Path]
    ) -> None:
        if method == "reward_model" and "lm_head" in told:
            told = "is called lm_heads"  # a reward model has no such layer
        recipe = load_recipe(recipes[method], [f"model.lora={json.dumps({'targets': targets})}"])
        with pytest.raises(ModelError, match=told):
            prepare(recipe, resume=False, overwrite=False, force=False)

    def test_of_a_critic_too(self, recipes: dict[str, Path]) -> None:
        recipe = load_recipe(recipes["ppo"], ["value.lora={targets: [v_porj]}"])
        with pytest.raises(ModelError, match="is called v_porj"):
            prepare(recipe, resume=False, overwrite=False, force=False)

    def test_all_that_match_are_trained(self, recipes: dict[str, Path]) -> None:
        options = ["model.lora={rank: 2, targets: [q_proj, layers.0.mlp.up_proj]}", "run.steps=1"]
        final = train(load_recipe(recipes["sft"], options))
        held = load_file(final / "adapter_model.safetensors")
        assert sum("lora_A" in name for name in held) == 3 + 1

    def test_a_module_that_cannot_be_adapted_is_refused(self, recipes: dict[str, Path]) -> None:
        recipe = load_recipe(recipes["sft"], ["model.lora={targets: [self_attn]}"])
        with pytest.raises(ModelError, match="peft cannot place the adapter"):
            train(recipe)


class TestQuantised:
    """QLoRA: 4-bit frozen weights below a float32 adapter (runs on a CPU as well)."""

    @pytest.fixture(scope="class")
    def model_folder(self, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A model whose rows are whole blocks of 64."""
        folder = tmp_path_factory.mktemp("wide")
        sharp_model(tokenizer, width=64, std=0.12).save_pretrained(folder)
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

    @pytest.mark.parametrize("left", [False, True])
    def test_the_file_of_the_whole_weights_is_let_go(
        self, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: bool
    ) -> None:
        """Planted: embeddings that stay places in the mapped file."""
        own = shutil.copytree(model_folder, tmp_path / "own")  # a file that nothing else maps
        if left:
            monkeypatch.setattr("strop.model.load.without_its_file", lambda model: model)
        recipe = ModelRecipe(path=str(own), lora=LoraRecipe(rank=4), quantize="nf4")
        policy = load_policy(recipe)
        mapped = str(own / "model.safetensors") in Path("/proc/self/maps").read_text()
        assert mapped == left
        stored = load_file(own / "model.safetensors")["model.embed_tokens.weight"]
        assert torch.equal(policy.model.get_input_embeddings().weight, stored)

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


@pytest.mark.parametrize("lora", [False, True])
def test_offloaded_checkpointing_changes_no_bit(
    lora: bool, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient is the same, and what waits on the host is one hidden state for each layer."""
    trees = [Tree((1, 2), (Branch(tuple(range(4, 90)), (True,) * 86),))]
    waiting: list[torch.Size] = []
    away = offload._away

    def noted(tensor: torch.Tensor) -> tuple[torch.device, torch.Tensor]:
        device, host = away(tensor)
        if tensor.is_floating_point():
            assert host.data_ptr() != tensor.data_ptr()
            waiting.append(tensor.shape)
        return device, host

    monkeypatch.setattr(offload, "_away", noted)
    gradients = []
    for on in (False, True):
        policy = load_policy(
            ModelRecipe(
                path=str(model_folder),
                gradient_checkpointing=True,
                offload_activations=on,
                lora=LoraRecipe(rank=4) if lora else None,
            )
        )
        (-policy.score(trees).logprobs_N.sum()).backward()
        gradients.append([p.grad for p in policy.trainable() if p.grad is not None])
        hidden = bare(policy.model).config.hidden_size
    assert len(gradients[0]) == len(gradients[1]) > 0
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    # beside a layer's input there are the rotations of positions, narrow and one for all
    assert waiting.count(torch.Size((1, 88, hidden))) == decoder_layers(bare(policy.model))


def test_offloading_is_refused_where_it_changes_nothing(recipes: dict[str, Path]) -> None:
    with pytest.raises(RecipeError, match="gradient_checkpointing: true, too"):
        load_recipe(recipes["dpo"], ["model.offload_activations=true"])
    options = ["model.offload_activations=true", "model.gradient_checkpointing=true",
               "model.device=cpu"]  # fmt: skip
    with pytest.raises(RecipeError, match="host's memory, where"):
        train(load_recipe(recipes["dpo"], options))


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
