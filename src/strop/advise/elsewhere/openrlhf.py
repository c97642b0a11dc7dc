"""A recipe as arguments of OpenRLHF (version 0.11): a shell script that starts the run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from strop.advise.elsewhere.carried import Export, Keys, Row
from strop.advise.elsewhere.parts.batch import Batch, most_at_once, split, step_size
from strop.advise.elsewhere.parts.policy import PolicyNumbers, lose_rollout, policy_numbers
from strop.advise.elsewhere.parts.reward_file import openrlhf_reward
from strop.advise.elsewhere.parts.script import template_text
from strop.advise.elsewhere.rows import (
    Records,
    expect_chat,
    in_messages,
    lose_tools,
    records_of,
)

SYSTEM = "openrlhf"
NAME = "OpenRLHF"

Flags = dict[str, Any]
"""Arguments by name: `{"model.beta": 0.1, "data.apply_chat_template": True}`; `True` is a flag
without a value, `False` and `None` are left out."""

MODULE: Mapping[str, str] = {
    "cpt": "train_sft", "sft": "train_sft", "dpo": "train_dpo", "ipo": "train_dpo",
    "reward_model": "train_rm",
    **dict.fromkeys(("grpo", "dapo", "dr_grpo", "gspo", "rloo", "reinforce_pp", "ppo"),
                    "train_ppo_ray"),
}  # fmt: skip
"""The module that runs each method that OpenRLHF has."""

ADVANTAGE = {"dr_grpo": "dr_grpo", "rloo": "rloo", "reinforce_pp": "reinforce", "ppo": "gae"}
SCHEDULES = {"cosine": "cosine_with_min_lr", "linear": "linear",
             "constant": "constant_with_warmup"}  # fmt: skip


def export(keys: Keys) -> Export:
    """The files of a run with OpenRLHF."""
    method = keys.take("method")
    records = records_of(keys)
    module = MODULE[method]
    flags, files, copies = {}, {}, {}
    if module == "train_ppo_ray":
        expect_chat(records, NAME)
        flags = _rl(keys, records)
        reward = openrlhf_reward(keys)
        files["reward.py"], copies = reward.text, dict(reward.copies)
    else:
        flags = _offline(keys, records)
        flags |= OPTIONS[module](keys, records)
    rows = {"train.jsonl": [_row(row, records) for row in records.own]}
    if records.held_out:
        flags |= {"eval.dataset": "eval.jsonl", "eval.split": "train",
                  "eval.steps": keys.take("eval.every")}  # fmt: skip
        rows["eval.jsonl"] = [_row(row, records) for row in records.held_out]
    lose_tools(keys, records)
    _differences(keys, module)
    files["run.sh"] = _script(module, flags)
    return Export(files, rows, copies, keys.lost(), "sh run.sh")


def _script(module: str, flags: Flags) -> str:
    start = "python3 -m" if module == "train_ppo_ray" else "deepspeed --num_gpus 1 --module"
    lines = [f"{start} openrlhf.cli.{module}"]
    for name, value in flags.items():
        if value is True:
            lines.append(f"  --{name}")
        elif value is not None and value is not False:
            values = value if isinstance(value, list) else [value]
            lines.append(f"  --{name} {' '.join(shlex.quote(str(one)) for one in values)}")
    return '#!/bin/sh\nset -e\ncd "$(dirname "$0")"\n' + " \\\n".join(lines) + "\n"


def _model(keys: Keys, prefix: str) -> Flags:
    lora = keys.take("model.lora")
    if keys.at("model.dtype") == "bfloat16":
        keys.take("model.dtype")
    else:
        keys.say("`model.dtype`: OpenRLHF computes in bfloat16 in any case")
    for name, why in NO_MODEL.items():
        keys.lose(f"model.{name}", why)
    flags: Flags = {
        f"{prefix}.model_name_or_path": keys.take("model.path"),
        f"{prefix}.gradient_checkpointing_enable": keys.take("model.gradient_checkpointing"),
        "ds.param_dtype": "bf16",
        "ds.load_in_4bit": keys.take("model.quantize") is not None,
    }
    if lora is not None:
        if not lora["alpha"].is_integer():
            keys.say("`model.lora.alpha` is a whole number there")
        targets = lora["targets"]
        flags |= {
            "ds.lora.rank": lora["rank"],
            "ds.lora.alpha": int(lora["alpha"]),
            "ds.lora.dropout": lora["dropout"],
            "ds.lora.target_modules": [targets] if isinstance(targets, str) else targets,
        }
        for name in ("rslora", "dora"):
            keys.lose(f"model.lora.{name}", "OpenRLHF has no such option of its adapters")
    return flags


NO_MODEL = {
    "tokenizer": "the tokenizer is the model's own there",
    "trust_remote_code": "OpenRLHF trusts the code in a model's folder in any case",
    "device": "OpenRLHF runs on a GPU",
}


def _optimizer(keys: Keys, prefix: str = "") -> Flags:
    schedule = keys.take("optim.schedule")
    first, second = keys.take("optim.betas")
    if keys.at("optim.warmup_ratio"):
        keys.say("the first step of a warm-up has a rate of 0 there, and above 0 here")
    if schedule != "cosine":
        keys.lose("optim.final_ratio", "only a cosine ends at a share of its rate there")
    final = keys.take("optim.final_ratio") if schedule == "cosine" else None
    return {
        f"{prefix}optim": "adam",
        f"{prefix}adam.lr": keys.take("optim.learning_rate"),
        f"{prefix}adam.betas": [first, second],
        f"{prefix}adam.eps": 1e-8,
        f"{prefix}adam.weight_decay": keys.take("optim.weight_decay"),
        f"{prefix}lr_scheduler": SCHEDULES[schedule],
        f"{prefix}lr_warmup_ratio": keys.take("optim.warmup_ratio"),
        f"{prefix}min_lr_ratio": final,
        f"{prefix}max_norm": keys.take("optim.max_grad_norm"),
    }


def _run(keys: Keys, records: Records, size: int) -> Flags:
    """Length, checkpoints and seed; OpenRLHF counts epochs, whole ones."""
    steps, epochs = keys.take("run.steps"), keys.take("run.epochs")
    passes = epochs if epochs is not None else steps * size / len(records)
    whole = max(1, round(passes))
    if whole != passes:
        keys.say(f"`run.steps`, `run.epochs`: OpenRLHF counts whole epochs: {whole} in the place "
                 f"of {passes:g}")  # fmt: skip
    every = keys.take("run.save_every")
    sinks = keys.at("run.sinks") or []
    if "wandb" not in sinks or len(sinks) > 1:
        keys.lose("run.sinks", "OpenRLHF logs to wandb or TensorBoard alone")
    else:
        keys.take("run.sinks")
    length = "train.num_episodes" if MODULE[keys.recipe.method] == "train_ppo_ray" else (
        "train.max_epochs"
    )  # fmt: skip
    return {
        length: whole,
        "train.seed": keys.take("seed"),
        "ckpt.output_dir": keys.take("output"),
        "ckpt.save_steps": every or -1,
        "ckpt.max_num": keys.take("run.keep_checkpoints"),
        "logger.logging_steps": 1,
        "logger.wandb.key": "True" if sinks == ["wandb"] else None,
    }


def _template(keys: Keys, records: Records, *, tokenizer: bool = True) -> Flags:
    text = template_text(keys)
    if text is not None and not tokenizer:
        keys.lose("chat_template", "write the template into the tokenizer's files")
        text = None
    keys.lose("template_options", "OpenRLHF hands a template no variables")
    return {"data.apply_chat_template": records.chat, "data.tokenizer_chat_template": text}


def _offline(keys: Keys, records: Records) -> Flags:
    branches = 1 if MODULE[keys.recipe.method] == "train_sft" else 2
    batch = split(step_size(keys, len(records)), most_at_once(keys, branches))
    keys.say("`text.overlong`: records that are too long are cut at their end there") if (
        keys.at("text.overlong") == "drop"
    ) else keys.take("text.overlong")
    return {
        **_model(keys, "model"),
        "data.dataset": "train.jsonl",
        "data.max_len": keys.take("text.max_length"),
        **_template(keys, records),
        "train.batch_size": batch.size,
        "train.micro_batch_size": batch.micro,
        **_run(keys, records, batch.size),
        **_optimizer(keys),
    }


def _supervised(keys: Keys, records: Records) -> Flags:
    if records.kind == "document":
        return {"model.pretrain_mode_enable": True, "data.input_key": "text"}
    if records.several_turns:
        return {"data.input_key": "messages", "data.multiturn": True}
    template = None if records.chat else "{}"
    return {"data.input_key": "prompt", "data.output_key": "completion",
            "data.input_template": template}  # fmt: skip


def _pairs(keys: Keys, records: Records) -> Flags:
    ipo = keys.recipe.method == "ipo"
    if ipo:
        keys.take("objective.length_normalized")
        keys.say("ipo compares sums of log-probs there, and means over tokens here: its target is "
                 "another one, so `objective.beta` has to be chosen anew")  # fmt: skip
    for name in ("length_normalized", "divergence", "alpha", "ld_alpha", "wpo"):
        keys.lose(f"objective.{name}", "OpenRLHF has no such option: this changes the loss")
    return {
        "data.prompt_key": "prompt",
        "data.chosen_key": "chosen",
        "data.rejected_key": "rejected",
        "model.beta": keys.take("objective.beta"),
        "model.ipo_enable": ipo,
        "model.label_smoothing": keys.take("objective.label_smoothing"),
        "model.nll_loss_coef": keys.take("objective.nll_weight"),
    }


def _reward_model(keys: Keys, records: Records) -> Flags:
    keys.lose("objective.centering", "OpenRLHF's loss has no such term")
    return {
        "data.prompt_key": "prompt",
        "data.chosen_key": "chosen",
        "data.rejected_key": "rejected",
        "model.loss_type": "sigmoid",
        "model.margin_loss_enable": keys.take("objective.margin") is not None,
    }


OPTIONS: Mapping[str, Callable[[Keys, Records], Flags]] = {
    "train_sft": _supervised, "train_dpo": _pairs, "train_rm": _reward_model,
}  # fmt: skip


def _rl(keys: Keys, records: Records) -> Flags:
    numbers = policy_numbers(keys)
    prompts, group = step_size(keys, len(records)), keys.take("rollout.group_size")
    batch = split(prompts * group // numbers.cuts, most_at_once(keys))
    keys.lose("text.overlong", "prompts that are too long are left out there")
    return {
        **_model(keys, "actor"),
        **PLACES,
        "data.prompt_dataset": "train.jsonl",
        "data.input_key": "prompt",
        "data.label_key": "label",
        **_template(keys, records, tokenizer=False),
        "data.max_len": keys.take("text.max_length"),
        "rollout.max_new_tokens": keys.take("rollout.max_tokens"),
        "rollout.temperature": keys.take("rollout.temperature"),
        "rollout.top_p": 1.0,
        "rollout.batch_size": prompts,
        "rollout.n_samples_per_prompt": group,
        "rollout.micro_batch_size": batch.micro,
        "train.batch_size": batch.size,
        "train.micro_batch_size": batch.micro,
        "train.max_epochs": numbers.passes,
        "reward.remote_url": "reward.py",
        **_loss(keys, numbers, batch),
        **_shaping(keys),
        **_run(keys, records, prompts),
        **_optimizer(keys, "actor."),
    }


PLACES: Flags = {
    "actor.num_nodes": 1, "actor.num_gpus_per_node": 1,
    "ref.num_nodes": 1, "ref.num_gpus_per_node": 1,
    "critic.num_nodes": 1, "critic.num_gpus_per_node": 1,
    "vllm.num_engines": 1, "vllm.tensor_parallel_size": 1,
    "vllm.enable_sleep": True, "ds.enable_sleep": True, "train.colocate_all": True,
}  # fmt: skip
"""Everything on one GPU."""


def _loss(keys: Keys, numbers: PolicyNumbers, batch: Batch) -> Flags:
    method, loss = keys.recipe.method, numbers.loss
    keys.take("objective.kl")
    keys.take("objective.kl_in")
    for name in ("kl_weighted", "refresh_every"):
        keys.lose(f"objective.{name}", "OpenRLHF has no such option: this changes the loss")
    flags: Flags = {
        "algo.advantage.estimator": ADVANTAGE.get(method, "group_norm"),
        "actor.policy_loss_type": "gspo" if method == "gspo" else "ppo",
        "actor.eps_clip_low_high": None if numbers.low is None else [numbers.low, numbers.high],
        "actor.dual_clip": numbers.dual,
        "actor.entropy_coef": keys.take("objective.entropy_weight") or None,
        "algo.kl.init_coef": loss.beta,
        "algo.kl.use_loss": loss.kl_in == "loss",
        "algo.kl.estimator": loss.kl,
    }
    if method == "ppo":
        keys.lose_on("value.revision", "the commit of a hub model is not named there")
        value: Mapping[str, Any] = keys.take("value") or {}
        keys.lose("value.lora", "the critic's adapter is that of the actor there")
        flags |= {
            "critic.model_name_or_path": value.get("path"),
            "critic.adam.lr": value.get("learning_rate"),
            "critic.value_clip": keys.take("objective.value_clip"),
            "algo.advantage.gamma": keys.take("objective.gamma"),
            "algo.advantage.lambd": keys.take("objective.gae_lambda"),
        }
    if loss.denominator not in ("token_mean", "sequence_mean") or (
        loss.denominator == "sequence_mean" and method != "gspo"
    ):
        keys.say(f"the loss is a mean over the tokens of an update there; here {method} divides by "
                 f"another count ({loss.denominator})")  # fmt: skip
    return flags


def _shaping(keys: Keys) -> Flags:
    """The overlong penalty and the correction of the sampler's mismatch."""
    lose_rollout(keys, NAME)
    keys.lose_on("rollout.mask_truncated", "answers that were cut off are learnt there")
    level, bound = keys.at("rollout.mismatch.level"), keys.at("rollout.mismatch.bound")
    buffer = keys.take("rollout.overlong_buffer")
    flags: Flags = {"reward.overlong_buffer_len": buffer} if buffer else {}
    if level == "token":
        for name in ("level", "bound", "cap", "floor"):
            keys.take(f"rollout.mismatch.{name}")
        low = keys.at("rollout.mismatch.floor") or 0.0
        flags |= {
            "algo.advantage.is_correction_enable": True,
            "algo.advantage.is_correction_type": "tis" if bound == "truncate" else "icepop",
            "algo.advantage.is_correction_threshold": [low, keys.at("rollout.mismatch.cap")],
        }
    return flags


def _row(row: Row, records: Records) -> Row:
    if records.kind == "task":
        columns = {name: value for name, value in row.items() if name != "prompt"}
        task = json.dumps({"prompt": row["prompt"], "columns": columns}, ensure_ascii=False)
        return {"prompt": row["prompt"], "label": task}
    if records.several_turns:
        return next(in_messages([row]))
    return row


def _differences(keys: Keys, module: str) -> None:
    if module == "train_ppo_ray":
        keys.say("vLLM samples the answers there; strop samples with the trainer's own weights")
    if module == "train_dpo":
        keys.say("the reference is a second model in memory there; here its log-probs are computed "
                 "once and kept")  # fmt: skip
    keys.say_what_stays()
