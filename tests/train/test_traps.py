"""Silent traps: a run that would look normal and be something else, or lose what was there."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Qwen3Config

from strop.errors import DataError, ModelError, OutputError
from strop.model.load import load_policy, load_scalar
from strop.model.network import switch_off_dropout
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.model import LoraRecipe, ModelRecipe
from strop.recipe.train.run import OptimRecipe
from strop.rewards.reward_model import reward_model
from strop.train.loop.optim import build_optimizer
from strop.train.preflight.prepare import prepare
from strop.train.run import train
from strop.types import Branch, Tree
from tests.support.runs import Finished, WriteRows, break_off, metrics


class TestDropout:
    @pytest.fixture
    def leaky(self, model_folder: Path, tmp_path: Path) -> Path:
        """The tiny model with dropout in its attention."""
        folder = tmp_path / "leaky"
        shutil.copytree(model_folder, folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.3}))
        return folder

    @pytest.mark.parametrize("method", ["dpo", "kto", "grpo", "ppo"])
    def test_is_off_where_log_probs_are_compared(
        self, method: str, leaky: Path, recipes: dict[str, Path]
    ) -> None:
        """At step 1 policy and reference are one model: any difference is dropout's."""
        options = [f"model.path={leaky}", "run.steps=1"]
        if method == "grpo":
            options += ["objective={beta: 0.05, mini_batches: 2}", "optim.learning_rate=1e-12"]
        if method == "ppo":
            options += [f"value.path={leaky}"]
        (row,) = metrics(train(load_recipe(recipes[method], options)).parent)
        if method == "dpo":
            assert row["rewards/margins"] == pytest.approx(0, abs=1e-4)
        elif method == "kto":
            assert row["kl"] == pytest.approx(0, abs=1e-4)
        else:
            assert row["mismatch/logprob_difference"] < 1e-4
            assert row["clip_ratio/low_mean"] == row["clip_ratio/high_mean"] == 0

    def test_is_live_in_supervised_training(self, leaky: Path) -> None:
        policy = load_policy(ModelRecipe(path=str(leaky)))
        trees = [Tree((1, 2), (Branch((5, 6, 7), (True,) * 3),))]
        first, second = (policy.score(trees).logprobs_N.detach() for _ in range(2))
        assert not torch.equal(first, second)
        switch_off_dropout(policy.model)
        first, second = (policy.score(trees).logprobs_N.detach() for _ in range(2))
        assert torch.equal(first, second)


class TestResume:
    def test_with_other_data_is_refused(
        self, recipes: dict[str, Path], write_rows: WriteRows
    ) -> None:
        recipe = load_recipe(recipes["sft"])
        break_off(recipe, 3)
        lineage = (Path(recipe.output) / "lineage.json").read_text()
        write_rows("sft.jsonl", [{"prompt": "p", "completion": "c"}])
        with pytest.raises(OutputError, match="began with other data"):
            train(recipe, resume=True)
        assert (Path(recipe.output) / "lineage.json").read_text() == lineage

    def test_with_another_reward_file_is_refused(self, recipes: dict[str, Path]) -> None:
        recipe = load_recipe(recipes["grpo"])
        break_off(recipe, 3)
        file = recipes["grpo"].parent / "rewards.py"
        file.write_text(file.read_text().replace("-float", "float"))
        with pytest.raises(OutputError, match="began with other rewards"):
            train(recipe, resume=True)

    def test_with_another_parent_is_refused(
        self, recipes: dict[str, Path], model_folder: Path, tmp_path: Path
    ) -> None:
        parent = tmp_path / "parent"
        shutil.copytree(model_folder, parent)
        recipe = load_recipe(recipes["dpo"], [f"model.path={parent}"])
        break_off(recipe, 3)
        content = bytearray((parent / "model.safetensors").read_bytes())
        content[-1] ^= 1
        (parent / "model.safetensors").write_bytes(content)
        with pytest.raises(OutputError, match="began with other parent"):
            train(recipe, resume=True)

    def test_with_an_alarm_silenced_goes_on(self, recipes: dict[str, Path]) -> None:
        break_off(load_recipe(recipes["dpo"]), 3)
        recipe = load_recipe(recipes["dpo"], ["alarms={displacement: off, spike: warn}"])
        assert train(recipe, resume=True).exists()


class TestFolders:
    def test_a_dry_run_with_overwrite_deletes_nothing(self, recipes: dict[str, Path]) -> None:
        final = train(load_recipe(recipes["sft"]))
        broken = load_recipe(recipes["sft"], ["data=nowhere.jsonl"])
        with pytest.raises(DataError):
            prepare(broken, resume=False, overwrite=True, force=False)
        prepare(load_recipe(recipes["sft"]), resume=False, overwrite=True, force=False)
        assert (final / "model.safetensors").exists()

    def test_a_start_that_failed_does_not_block_the_mended_recipe(
        self, recipes: dict[str, Path]
    ) -> None:
        with pytest.raises(ModelError, match=r"model\.lora\.targets"):
            train(load_recipe(recipes["sft"], ["model.lora={targets: [nope]}"]))
        assert train(load_recipe(recipes["sft"], ["model.lora={rank: 2}"])).exists()

    def test_resume_and_overwrite_contradict_each_other(self, recipes: dict[str, Path]) -> None:
        final = train(load_recipe(recipes["sft"]))
        other = load_recipe(recipes["sft"], ["seed=9"])
        with pytest.raises(OutputError, match="pass one of the two"):
            train(other, resume=True, overwrite=True)
        assert (final / "model.safetensors").exists()

    def test_a_file_on_the_way_is_named(self, recipes: dict[str, Path]) -> None:
        with pytest.raises(OutputError, match=r"sft\.jsonl: is a file"):
            train(load_recipe(recipes["sft"], ["output=sft.jsonl/run"]))

    def test_weights_are_readable_as_other_files_are(self, finished: Finished) -> None:
        final = finished("sft") / "final"
        assert stat.S_IMODE(os.stat(final / "model.safetensors").st_mode) == 0o644


class TestModels:
    def test_a_reward_model_is_no_language_model(
        self, recipes: dict[str, Path], finished: Finished
    ) -> None:
        final = finished("reward_model") / "final"
        for method in ("sft", "dpo", "grpo"):
            with pytest.raises(ModelError, match="holds a reward model"):
                train(load_recipe(recipes[method], [f"model.path={final}"]))

    def test_an_adapter_without_lora_is_merged_and_trained_whole(
        self, recipes: dict[str, Path]
    ) -> None:
        first = train(load_recipe(recipes["sft"], ["model.lora={rank: 2}", "run.steps=2"]))
        options = [f"model.path={first}", "run.steps=1"]
        for method in ("dpo", "grpo"):
            final = train(load_recipe(recipes[method], options))
            assert AutoModelForCausalLM.from_pretrained(final) is not None
            assert metrics(final.parent)[0]["grad_norm"] > 0

    def test_a_critic_of_other_tokens_is_refused(
        self, recipes: dict[str, Path], model_folder: Path, tmp_path: Path
    ) -> None:
        other = tmp_path / "other"
        shutil.copytree(model_folder, other)
        words = json.loads((other / "tokenizer.json").read_text())
        vocabulary = words["model"]["vocab"]
        a, b = sorted(vocabulary, key=vocabulary.get)[100:102]
        vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]
        (other / "tokenizer.json").write_text(json.dumps(words))
        recipe = load_recipe(recipes["ppo"], [f"value.path={other}"])
        with pytest.raises(ModelError, match="other tokens than the policy's"):
            prepare(recipe, resume=False, overwrite=False, force=False)

    def test_a_scalar_head_is_trained_in_full_precision(self, model_folder: Path) -> None:
        lora = LoraRecipe(rank=2)
        recipe = ModelRecipe(path=str(model_folder), dtype="bfloat16", lora=lora)
        network = load_scalar(recipe)
        assert {p.dtype for p in network.trainable()} == {torch.float32}
        trees = [Tree((1, 2), (Branch((5, 6, 7), (True,) * 3),))]
        with network.arithmetic():
            value = network.score.values(trees)
        assert value.dtype == torch.float32
        assert not torch.equal(value, value.bfloat16().float())

    def test_muon_leaves_the_scalar_head_to_adamw(self, model_folder: Path) -> None:
        network = load_scalar(ModelRecipe(path=str(model_folder)))
        optimizer = build_optimizer(network, OptimRecipe(learning_rate=1e-3, optimizer="muon"))
        adamw, muon = ([p for g in m.param_groups for p in g["params"]] for m in optimizer.members)
        assert len(muon) == 3 * 7
        assert any(p is network.model.score.weight for p in adamw)

    def test_a_retrained_reward_model_is_read_anew(self, recipes: dict[str, Path]) -> None:
        recipe = load_recipe(recipes["reward_model"], ["run.steps=2", "optim.learning_rate=1e-2"])
        seen = []
        for seed in (3, 4):
            final = train(recipe.model_copy(update={"seed": seed}), overwrite=True)
            seen += reward_model(["p"], ["an answer"], model=str(final))
        assert seen[0] != seen[1]

    def test_broken_weights_are_one_message(
        self, recipes: dict[str, Path], model_folder: Path, tmp_path: Path
    ) -> None:
        broken = tmp_path / "broken"
        shutil.copytree(model_folder, broken)
        (broken / "model.safetensors").write_bytes(b"short")
        with pytest.raises(ModelError, match="cannot load the model"):
            train(load_recipe(recipes["sft"], [f"model.path={broken}"]))

    def test_a_folder_without_tokenizer_is_named(
        self, recipes: dict[str, Path], tmp_path: Path
    ) -> None:
        bare = tmp_path / "bare"
        config = Qwen3Config(vocab_size=50, hidden_size=16, intermediate_size=16,
                             num_hidden_layers=1, num_attention_heads=2,
                             num_key_value_heads=1, head_dim=8)  # fmt: skip
        AutoModelForCausalLM.from_config(config).save_pretrained(bare)
        with pytest.raises(ModelError, match="the folder holds no tokenizer"):
            train(load_recipe(recipes["sft"], [f"model.path={bare}"]))

    def test_a_run_in_place_of_its_model_is_explained(
        self, recipes: dict[str, Path], finished: Finished
    ) -> None:
        run = finished("sft")
        with pytest.raises(ModelError, match=r"a run's model is in .*final"):
            train(load_recipe(recipes["dpo"], [f"model={run}"]))


def test_kto_never_reads_beyond_max_length(recipes: dict[str, Path]) -> None:
    """A long answer lent to a long prompt is cut to the limit."""
    from strop.train.methods.unpaired import other_answers

    trees = [Tree((1,) * 9, (Branch((5, 2), (True, True)),)),
             Tree((1,), (Branch((6,) * 9, (True,) * 9),))]  # fmt: skip
    assert max(len(tree) for tree in other_answers(trees, 0, 12)) == 12


def test_bco_alone_keeps_a_running_mean(finished: Finished) -> None:
    for method, kept in (("bco_pair", True), ("mpo", True), ("dpo", False)):
        run = finished(method, "run.steps=2")
        parts = json.loads((run / "checkpoint-2/trainer.json").read_text())["parts"]
        assert parts["reward_mean"]["steps"] == (2 if kept else 0)
    assert load_file(run / "checkpoint-2/model.safetensors")
