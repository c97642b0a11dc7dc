"""strop -> another system -> strop keeps the method and its numbers; no foreign key is dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from strop.advise.elsewhere.table import EXPORTERS, IMPORTERS, export, import_recipe
from strop.advise.elsewhere.write import write
from strop.errors import RecipeError, UsageError
from strop.recipe.base import Strict
from strop.recipe.loading.load import flat, load_recipe
from tests.support.elsewhere import TEXT_ONLY, recipe_of, text_rows
from tests.support.runs import write_jsonl

THERE_AND_BACK = [
    (method, system) for system in IMPORTERS for method in sorted(EXPORTERS[system].methods)
]

OPTIM = {"learning_rate": 3e-6, "schedule": "cosine", "warmup_ratio": 0.1, "final_ratio": 0.2,
         "weight_decay": 0.01, "betas": [0.9, 0.95], "max_grad_norm": 0.5}  # fmt: skip
LORA = {"rank": 8, "alpha": 24.0, "dropout": 0.05, "targets": ["q_proj", "v_proj"]}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "dpo": {"beta": 0.3, "label_smoothing": 0.1}, "robust_dpo": {"label_smoothing": 0.2},
    "simpo": {"beta": 2.5, "gamma": 0.8, "nll_weight": 0.25}, "kto": {"desirable_weight": 1.5},
    "grpo": {"beta": 0.04, "epsilon_low": 0.1, "epsilon_high": 0.3, "mini_batches": 2},
    "mpo": {"losses": {"dpo": 0.8, "bco_pair": 0.2}}, "discopop": {"beta": 0.2},
    "distil": {"divergence": "generalized_js", "beta": 0.3}, "gkd": {"own_samples": 0.25},
    "cispo": {"epsilon_high": 3.0}, "reward_model": {"centering": 0.01},
}  # fmt: skip


WITHOUT = {("reward_model", "llamafactory")}
"""LLaMA-Factory's reward model has no options of its own."""


def there_and_back(method: str, system: str, folder: Path, **more: Any) -> tuple[Any, Any]:
    if (method, system) in TEXT_ONLY:
        write_jsonl(folder / "feedback.jsonl", text_rows("feedback"))
    objective = {"objective": OBJECTIVES[method]} if method in OBJECTIVES else {}
    first = recipe_of(
        method, folder, optim=OPTIM,
        model={"path": "org/model", "revision": "v2", "lora": LORA, **more},
        run={"epochs": 3, "batch_size": 4, "save_every": 5, "keep_checkpoints": 3},
        **objective,
    )  # fmt: skip
    made = export(first, system)
    write(made, folder / "there", system=system, method=method)
    back = import_recipe(folder / "there" / "config.yaml", system)
    path = folder / "back.yaml"
    path.write_text(yaml.safe_dump(dict(back.recipe)))
    return first, load_recipe(path)


def near(found: Strict, expected: Strict) -> bool:
    """Whether every value that one of them sets is about that of the other."""
    ours, theirs = (flat(section.plain()) for section in (expected, found))
    wanted = {name: value for name, value in ours.items() if value is not None}
    assert {name: theirs.get(name) for name in wanted} == pytest.approx(wanted)
    return True


@pytest.mark.parametrize(("method", "system"), THERE_AND_BACK)
def test_a_recipe_comes_back(method: str, system: str, tmp_path: Path) -> None:
    first, second = there_and_back(method, system, tmp_path)
    assert second.method == method
    if (method, system) != ("simpo", "axolotl"):  # its warm-up is a number of steps
        assert near(second.optim, first.optim)
    assert second.model.lora == first.model.lora
    assert (second.model.path, second.model.revision) == ("org/model", "v2")
    assert second.run.batch_size == first.run.batch_size
    assert (second.run.epochs, second.run.save_every) == (3, 5)
    assert second.seed == first.seed
    if "objective" in type(first).model_fields and (method, system) not in WITHOUT:
        assert near(second.objective, first.objective)
    if "rollout" in type(first).model_fields:
        kept = {"group_size", "temperature", "max_tokens", "mask_truncated"}
        for name in kept & type(first.rollout).model_fields.keys():
            assert getattr(second.rollout, name) == getattr(first.rollout, name)
    if "teacher" in type(first).model_fields:
        assert second.teacher == first.teacher


def test_four_bits_and_bfloat16_come_back(tmp_path: Path) -> None:
    for system in IMPORTERS:
        folder = tmp_path / system
        folder.mkdir()
        first, second = there_and_back("dpo", system, folder, quantize="nf4", dtype="bfloat16")
        assert second.model.quantize == first.model.quantize
        assert second.model.dtype == "bfloat16"


LLAMAFACTORY = """
model_name_or_path: org/model
trust_remote_code: true
stage: dpo
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all
pref_beta: 0.2
pref_loss: sigmoid
dataset: pairs_of_ours
template: qwen3_nothink
cutoff_len: 1024
max_samples: 1000
preprocessing_num_workers: 16
output_dir: saves/dpo
plot_loss: true
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 5.0e-6
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
neftune_noise_alpha: 5
"""


def imported(text: str, system: str, folder: Path) -> tuple[dict[str, Any], str]:
    path = folder / "config.yaml"
    path.write_text(text)
    made = import_recipe(path, system)
    return dict(made.recipe), "\n".join(made.lost)


def test_a_config_of_llamafactory_becomes_a_recipe(tmp_path: Path) -> None:
    recipe, lost = imported(LLAMAFACTORY, "llamafactory", tmp_path)
    assert recipe["method"] == "dpo"
    assert recipe["objective"] == {"beta": 0.2}
    assert recipe["run"]["batch_size"] == 8
    assert recipe["model"]["lora"]["alpha"] == 16
    assert recipe["data"] == [{"hub": "pairs_of_ours", "limit": 1000}]
    for key in ("neftune_noise_alpha", "plot_loss", "preprocessing_num_workers", "template"):
        assert f"`{key}`" in lost


AXOLOTL = """
base_model: org/model
rl: dpo
datasets:
  - path: org/pairs
    split: train
    type: chatml.intel
sequence_len: 2048
sample_packing: false
adapter: qlora
load_in_4bit: true
lora_r: 64
lora_alpha: 32
lora_target_linear: true
micro_batch_size: 2
gradient_accumulation_steps: 4
num_epochs: 1
optimizer: paged_adamw_8bit
lr_scheduler: cosine
learning_rate: 0.000005
bf16: auto
gradient_checkpointing: true
special_tokens:
  pad_token: <pad>
"""


def test_a_config_of_axolotl_becomes_a_recipe(tmp_path: Path) -> None:
    recipe, lost = imported(AXOLOTL, "axolotl", tmp_path)
    assert recipe["method"] == "dpo"
    assert recipe["model"]["quantize"] == "nf4"
    assert recipe["model"]["dtype"] == "bfloat16"
    assert recipe["model"]["lora"]["targets"] == "all-linear"
    assert recipe["run"]["batch_size"] == 8
    assert recipe["optim"]["learning_rate"] == 5e-6
    assert recipe["optim"]["optimizer"] == "adamw_8bit"
    for key in ("special_tokens.pad_token", "sample_packing", "optimizer"):
        assert f"`{key}`" in lost


@pytest.mark.parametrize("system", IMPORTERS)
def test_moments_of_eight_bits_come_back(system: str, tmp_path: Path) -> None:
    optim = {**OPTIM, "optimizer": "adamw_8bit"}
    first = recipe_of("sft", tmp_path, optim=optim, model={"path": "org/model"})
    made = export(first, system)
    assert not any("optim.optimizer" in line for line in made.lost)
    write(made, tmp_path / "there", system=system, method="sft")
    back = import_recipe(tmp_path / "there" / "config.yaml", system)
    assert back.recipe["optim"]["optimizer"] == "adamw_8bit"


TRL = """
model_name_or_path: org/model
dataset_name: org/pairs
loss_type: [sigmoid, sft]
loss_weights: [1.0, 0.5]
learning_rate: 5e-7
per_device_train_batch_size: 4
gradient_accumulation_steps: 2
push_to_hub: true
"""


def test_a_config_of_trl_becomes_a_recipe_with_trls_defaults(tmp_path: Path) -> None:
    recipe, lost = imported(TRL, "trl", tmp_path)
    assert recipe["method"] == "dpo"
    assert recipe["objective"] == {"nll_weight": 0.5, "beta": 0.1}
    assert recipe["optim"]["learning_rate"] == 5e-7
    assert recipe["optim"]["schedule"] == "linear"
    assert recipe["optim"]["warmup_ratio"] == 0.0
    assert recipe["model"]["gradient_checkpointing"] is True
    assert recipe["model"]["dtype"] == "bfloat16"
    assert "`push_to_hub`" in lost


@pytest.mark.parametrize(
    ("system", "text"), [("trl", TRL), ("axolotl", AXOLOTL), ("llamafactory", LLAMAFACTORY)]
)
def test_every_foreign_key_is_mapped_or_named(system: str, text: str, tmp_path: Path) -> None:
    """A key that nobody knows is named, and one that is mapped changes the recipe."""
    before, _ = imported(text, system, tmp_path)
    _, lost = imported(text + "\nfrobnication: 3\n", system, tmp_path)
    assert "`frobnication`" in lost
    for name, value in (("learning_rate", 1e-4), ("max_grad_norm", 0.3), ("seed", 9)):
        values = yaml.safe_load(text) | {name: value}
        after, _ = imported(yaml.safe_dump(values), system, tmp_path)
        assert after != before


def test_what_strop_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="stage: ppo"):
        imported(LLAMAFACTORY.replace("stage: dpo", "stage: ppo"), "llamafactory", tmp_path)
    with pytest.raises(RecipeError, match="no counterpart of `rl: ebft`"):
        imported(AXOLOTL.replace("rl: dpo", "rl: ebft"), "axolotl", tmp_path)
    with pytest.raises(RecipeError, match="no loss luspo"):
        imported(TRL.replace("[sigmoid, sft]", "[luspo]"), "trl", tmp_path)
    with pytest.raises(RecipeError, match="which trainer"):
        imported("model_name_or_path: org/model\nlearning_rate: 1e-6\n", "trl", tmp_path)
    with pytest.raises(UsageError, match="cannot be read from 'verl'"):
        imported(TRL, "verl", tmp_path)
