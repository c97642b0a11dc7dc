"""A recipe as a script for Unsloth (2026.8, which calls TRL up to 0.24), with its config."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import yaml

from strop.advise.elsewhere.carried import Export, Keys
from strop.advise.elsewhere.parts.batch import (
    Batch,
    most_at_once,
    split,
    split_coupled,
    step_size,
)
from strop.advise.elsewhere.parts.hf import Arguments, evaluation, trainer_arguments
from strop.advise.elsewhere.parts.pairs import whole_batch_note
from strop.advise.elsewhere.parts.policy import lose_kl, lose_rollout, policy_numbers
from strop.advise.elsewhere.parts.reward_file import trl_reward
from strop.advise.elsewhere.parts.script import TEMPLATE, template_file
from strop.advise.elsewhere.rows import Records, lose_tools, records_of

SYSTEM = "unsloth"
NAME = "Unsloth"

LOSS: Mapping[str, str] = {
    "dpo": "sigmoid", "robust_dpo": "robust", "ipo": "ipo", "hinge": "hinge",
}  # fmt: skip

FAMILY: Mapping[str, str] = {
    "cpt": "SFT", "sft": "SFT", **dict.fromkeys(LOSS, "DPO"), "orpo": "ORPO", "kto": "KTO",
    "simpo": "CPO", "cpo": "CPO", **dict.fromkeys(("grpo", "dr_grpo", "dapo", "gspo"), "GRPO"),
}  # fmt: skip
"""The trainer of TRL that runs each method under Unsloth: `SFT` for SFTConfig and SFTTrainer."""

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""Unsloth's own list of linear layers, for `all-linear`."""

SCRIPT = '''"""Runs this folder's config.yaml with Unsloth: python train.py"""

from pathlib import Path

from unsloth import FastLanguageModel{patch}

import torch
import yaml
from datasets import load_dataset
from trl import {family}Config, {family}Trainer

HERE = Path(__file__).resolve().parent
{reward}

def main():
    settings = yaml.safe_load((HERE / "config.yaml").read_text(encoding="utf-8"))
    dtype = getattr(torch, settings["model"].pop("dtype"))
    model, tokenizer = FastLanguageModel.from_pretrained(dtype=dtype, **settings["model"])
    if settings["lora"]:
        model = FastLanguageModel.get_peft_model(model, **settings["lora"])
{template}    data = load_dataset("json", data_files={{{files}}})
    trainer = {family}Trainer(
        model=model,
        args={family}Config(**settings["training"]),
        train_dataset=data["train"],{held_out}{rewards}
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model(str(Path(trainer.args.output_dir) / "final"))


if __name__ == "__main__":
    main()
'''


def export(keys: Keys) -> Export:
    """The files of a run with Unsloth."""
    family = FAMILY[keys.take("method")]
    records = records_of(keys)
    options, batch, updates = OPTIONS[family](keys, records)
    training: Arguments = {
        **trainer_arguments(keys, batch, updates),
        "warmup_ratio": keys.at("optim.warmup_ratio"),
        **evaluation(keys, bool(records.held_out), batch),
        **options,
    }
    # Unsloth chooses the checkpointing itself, in the model's settings
    training.pop("gradient_checkpointing")
    settings = {"model": _model(keys), "lora": _lora(keys), "training": training}
    files, copies = {}, {}
    if family == "GRPO":
        reward = trl_reward(keys)
        files["reward.py"], copies = reward.text, dict(reward.copies)
    template = template_file(keys)
    files |= {
        "config.yaml": yaml.safe_dump(settings, sort_keys=False, allow_unicode=True),
        "train.py": _script(family, bool(template), bool(records.held_out)),
        **template,
    }
    rows = {"train.jsonl": list(records.own)}
    if records.held_out:
        rows["eval.jsonl"] = list(records.held_out)
    if family in ("GRPO", "CPO", "ORPO"):
        lose_tools(keys, records)
    _differences(keys, family)
    return Export(files, rows, copies, keys.lost(), "python train.py")


def _script(family: str, template: bool, held_out: bool) -> str:
    named = ['"train": str(HERE / "train.jsonl")']
    if held_out:
        named.append('"eval": str(HERE / "eval.jsonl")')
    read = f'    tokenizer.chat_template = (HERE / "{TEMPLATE}").read_text(encoding="utf-8")\n'
    rewarded = family == "GRPO"
    preference = family in ("DPO", "KTO", "ORPO", "CPO")
    return SCRIPT.format(
        patch=", PatchDPOTrainer\n\nPatchDPOTrainer()" if preference else "",
        family=family,
        reward="\nimport sys\n\nsys.path.insert(0, str(HERE))\nfrom reward import reward\n"
        if rewarded
        else "",
        template=read if template else "",
        files=", ".join(named),
        held_out='\n        eval_dataset=data["eval"],' if held_out else "",
        rewards="\n        reward_funcs=[reward]," if rewarded else "",
    )


def _model(keys: Keys) -> Arguments:
    keys.lose("model.tokenizer", "the tokenizer is the model's own there")
    checkpointing = keys.take("model.gradient_checkpointing")
    keys.lose("model.device", "Unsloth runs on a GPU")
    return {
        "model_name": keys.take("model.path"),
        **keys.taken("model.revision", "revision"),
        "max_seq_length": keys.take("text.max_length"),
        "dtype": keys.take("model.dtype"),
        "load_in_4bit": keys.take("model.quantize") is not None,
        "full_finetuning": keys.at("model.lora") is None,
        "use_gradient_checkpointing": "unsloth" if checkpointing else False,
        "trust_remote_code": keys.take("model.trust_remote_code"),
    }


def _lora(keys: Keys) -> Arguments | None:
    lora = keys.take("model.lora")
    if lora is None:
        return None
    keys.lose("model.lora.dora", "Unsloth has no DoRA")
    targets = lora["targets"]
    if targets == "all-linear":
        keys.say("`all-linear` is the list of projections of common models there")
    return {
        "r": lora["rank"],
        "lora_alpha": int(lora["alpha"]) if lora["alpha"].is_integer() else lora["alpha"],
        "lora_dropout": lora["dropout"],
        "target_modules": TARGETS if targets == "all-linear" else targets,
        "use_rslora": lora["rslora"],
        "use_gradient_checkpointing": "unsloth"
        if keys.at("model.gradient_checkpointing")
        else False,
        "random_state": keys.at("seed"),
    }


Chosen = tuple[Arguments, Batch, int]


def _supervised(keys: Keys, records: Records) -> Chosen:
    batch = split(step_size(keys, len(records)), most_at_once(keys))
    supervised = records.kind == "demonstration"
    return {
        "max_length": keys.at("text.max_length"),
        "packing": False,
        "completion_only_loss": supervised,
        "assistant_only_loss": records.several_turns,
    }, batch, 1  # fmt: skip


def _pairs(keys: Keys, records: Records) -> tuple[Arguments, Batch]:
    batch = split(step_size(keys, len(records)), most_at_once(keys, 2))
    whole_batch_note(keys, batch.accumulation)
    beta, most = keys.take("objective.beta"), keys.at("text.max_length")
    return {"beta": beta, "max_length": most, "max_prompt_length": None}, batch


def _dpo(keys: Keys, records: Records) -> Chosen:
    chosen, batch = _pairs(keys, records)
    method = keys.recipe.method
    nll, smoothing = keys.take("objective.nll_weight"), keys.take("objective.label_smoothing")
    chosen["loss_type"] = LOSS[method]
    chosen["rpo_alpha"] = nll or None
    if smoothing:
        chosen["label_smoothing"] = smoothing
    if nll:
        keys.say("the NLL of chosen answers is a mean over the tokens of a micro-batch there; here "
                 "every pair counts alike")  # fmt: skip
    if method == "ipo":
        keys.take("objective.length_normalized")
    if keys.take("objective.wpo"):
        chosen["use_weighting"] = True
    if keys.at("objective.ld_alpha") not in (None, 1.0):
        chosen["ld_alpha"] = keys.take("objective.ld_alpha")
    for name in ("length_normalized", "divergence", "alpha"):
        keys.lose(f"objective.{name}", "TRL 0.24 has no such option: this changes the loss")
    return chosen, batch, 1


def _cpo(keys: Keys, records: Records) -> Chosen:
    chosen, batch = _pairs(keys, records)
    chosen["cpo_alpha"] = keys.take("objective.nll_weight")
    if keys.recipe.method == "simpo":
        chosen |= {"loss_type": "simpo", "simpo_gamma": keys.take("objective.gamma")}
    else:
        smoothing = keys.take("objective.label_smoothing")
        chosen |= {"loss_type": "sigmoid", "label_smoothing": smoothing}
    return chosen, batch, 1


def _orpo(keys: Keys, records: Records) -> Chosen:
    keys.say("the NLL of orpo counts the prompt's tokens too there; here the chosen answer's alone")
    return *_pairs(keys, records), 1


def _kto(keys: Keys, records: Records) -> Chosen:
    chosen, _ = _pairs(keys, records)
    batch = split_coupled(keys, step_size(keys, len(records)), most_at_once(keys, 2))
    keys.say("the KL of kto is taken over other pairings of prompts and answers there")
    names = ("desirable_weight", "undesirable_weight")
    return chosen | {name: keys.take(f"objective.{name}") for name in names}, batch, 1


def _grpo(keys: Keys, records: Records) -> Chosen:
    numbers = policy_numbers(keys)
    group, method = keys.take("rollout.group_size"), keys.recipe.method
    size = step_size(keys, len(records)) * group
    batch = split(size // numbers.cuts, most_at_once(keys))
    lose_rollout(keys, NAME, "rollout.mismatch")
    lose_kl(keys, "k3", "loss")
    for name in ("kl_weighted", "entropy_weight", "refresh_every"):
        keys.lose(f"objective.{name}", "Unsloth has no such option: this changes the loss")
    chosen: Arguments = {
        "beta": numbers.loss.beta,
        "num_generations": group,
        "num_iterations": numbers.passes,
        "generation_batch_size": size,
        "max_prompt_length": max(1, keys.at("text.max_length") - keys.at("rollout.max_tokens")),
        "max_completion_length": keys.take("rollout.max_tokens"),
        "temperature": keys.take("rollout.temperature"),
        "loss_type": "grpo" if method == "gspo" else method,
        "scale_rewards": method != "dr_grpo",
        "importance_sampling_level": "sequence" if method == "gspo" else "token",
        "epsilon": numbers.low,
        "epsilon_high": numbers.high,
        "delta": numbers.dual,
        "mask_truncated_completions": keys.take("rollout.mask_truncated"),
    }
    if numbers.updates > 1:
        keys.say("steps, schedule and checkpoints count optimizer steps there: "
                 f"{numbers.updates} for each step here")  # fmt: skip
    return chosen, batch, numbers.updates


OPTIONS: Mapping[str, Callable[[Keys, Records], Chosen]] = {
    "SFT": _supervised, "DPO": _dpo, "CPO": _cpo, "ORPO": _orpo, "KTO": _kto, "GRPO": _grpo,
}  # fmt: skip


def _differences(keys: Keys, family: str) -> None:
    if keys.at("text.overlong") == "drop":
        keys.say("`text.overlong`: records that are too long are cut there, not left out")
    keys.take("text.overlong")
    keys.lose("template_options", "Unsloth hands a template no variables")
    if family in ("DPO", "KTO"):
        keys.say("the reference is the model without its adapter; in a full fine-tune it is a "
                 "second model in memory, and here its log-probs are computed once")  # fmt: skip
    keys.say("Unsloth replaces layers and losses by its own kernels, whose rounding differs")
    keys.say_what_stays()
