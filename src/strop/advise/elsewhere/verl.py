"""A recipe as overrides of verl's config (version 0.8): a file for Hydra, and Parquet rows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import yaml

from strop.advise.elsewhere.carried import Export, Keys, Row
from strop.advise.elsewhere.parts.batch import Batch, most_at_once, split, step_size
from strop.advise.elsewhere.parts.hf import Arguments
from strop.advise.elsewhere.parts.policy import (
    PolicyNumbers,
    gates,
    lose_rollout,
    policy_numbers,
)
from strop.advise.elsewhere.parts.reward_file import verl_reward
from strop.advise.elsewhere.parts.script import template_text
from strop.advise.elsewhere.rows import Records, expect_chat, in_messages, lose_tools, records_of

SYSTEM = "verl"
NAME = "verl"

NO_BOUND = 1e9
"""A dual clip that never cuts, because verl always has one."""

MEANS = {
    "sequence_mean": "seq-mean-token-mean",
    "token_mean": "token-mean",
    "constant": "seq-mean-token-sum-norm",
    "sequence_sum": "seq-mean-token-sum",
}
"""What divides the sum of token losses, by strop's name and verl's."""

MODE = {"gspo": "gspo", "gmpo": "geo_mean", "cispo": "cispo", "sapo": "sapo"}
ADVANTAGE = {"rloo": "rloo", "reinforce_pp": "reinforce_plus_plus", "ppo": "gae"}
KL = {"k1": "kl", "k2": "mse", "k3": "low_var_kl"}
HAS = ("sft", "grpo", "dr_grpo", "dapo", "gspo", "gmpo", "cispo", "sapo", "rloo", "reinforce_pp",
       "ppo")  # fmt: skip


def export(keys: Keys) -> Export:
    """The files of a run with verl."""
    method = keys.take("method")
    records = records_of(keys)
    expect_chat(records, NAME)
    if method == "sft":
        return _sft(keys, records)
    return _rl(keys, records)


def _sft(keys: Keys, records: Records) -> Export:
    batch = split(step_size(keys, len(records)), most_at_once(keys))
    model = _model(keys)
    config: Arguments = {
        "defaults": ["sft_trainer_engine", "_self_"],
        "data": {
            "train_files": "train.parquet",
            "train_batch_size": batch.size,
            "micro_batch_size_per_gpu": batch.micro,
            "use_dynamic_bsz": False,
            "messages_key": "messages",
            "max_length": keys.take("text.max_length"),
            "truncation": "right",
            "apply_chat_template_kwargs": keys.take("template_options"),
        },
        "model": model,
        "engine": _precision(keys),
        "optim": _optimizer(keys),
        "trainer": _trainer(keys, records, batch.size) | {"seed": keys.take("seed")},
    }
    if records.held_out:
        keys.lose("eval.every", "verl measures held-out records when it saves")
        config["data"]["val_files"] = "eval.parquet"
    rows = {"train.parquet": list(in_messages(records.own))}
    if records.held_out:
        rows["eval.parquet"] = list(in_messages(records.held_out))
    _overlong(keys)
    keys.say("each turn goes through the chat template by itself there: verl stops where the whole "
             "conversation would be written otherwise")  # fmt: skip
    return _made(keys, config, rows, {}, {}, "torchrun --nproc_per_node=1 -m "
                 "verl.trainer.sft_trainer --config-dir . --config-name run")  # fmt: skip


def _rl(keys: Keys, records: Records) -> Export:
    numbers = policy_numbers(keys)
    prompts = step_size(keys, len(records))
    group = keys.take("rollout.group_size")
    constant = numbers.loss.denominator == "constant"
    size = prompts * group // numbers.cuts
    batch = split(size, 1 if constant else most_at_once(keys))
    answer = keys.take("rollout.max_tokens")
    config: Arguments = {
        "defaults": ["ppo_trainer", "_self_"],
        "data": _data(keys, prompts, answer),
        "actor_rollout_ref": {
            "model": _model(keys),
            "actor": _actor(keys, numbers, prompts // numbers.cuts, batch),
            "ref": {"log_prob_micro_batch_size_per_gpu": batch.micro},
            "rollout": {
                "name": "vllm",
                "n": group,
                "temperature": keys.take("rollout.temperature"),
                "top_p": 1.0,
                "top_k": -1,
                "tensor_model_parallel_size": 1,
                "log_prob_micro_batch_size_per_gpu": batch.micro,
            },
        },
        "algorithm": _algorithm(keys, numbers),
        "custom_reward_function": {"path": "reward.py", "name": "compute_score"},
        "trainer": _trainer(keys, records, prompts),
    }
    _correction(keys, config)
    if keys.take("rollout.overlong_buffer"):
        config["reward_model"] = _overlong_penalty(keys.at("rollout.overlong_buffer"), answer)
    if keys.recipe.method == "ppo":
        config["critic"] = _critic(keys, batch)
    lose_tools(keys, records)
    reward = verl_reward(keys)
    lose_rollout(keys, NAME)
    keys.lose_on("rollout.mask_truncated", "answers that were cut off are learnt there")
    for name in ("kl_weighted", "refresh_every"):
        keys.lose(f"objective.{name}", "verl has no such option: this changes the loss")
    _rl_differences(keys, numbers)
    rows = {"train.parquet": [_task(row) for row in records.own]}
    return _made(keys, config, rows, {"reward.py": reward.text}, dict(reward.copies),
                 "python -m verl.trainer.main_ppo --config-dir . --config-name run")  # fmt: skip


def _made(
    keys: Keys, config: Arguments, rows: Mapping[str, list[Row]], files: Mapping[str, str],
    copies: Mapping[str, str], command: str,
) -> Export:  # fmt: skip
    keys.say_what_stays()
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    return Export({"run.yaml": text, **files}, rows, copies, keys.lost(), command)


def _data(keys: Keys, prompts: int, answer: int) -> Arguments:
    _overlong(keys)
    return {
        "train_files": "train.parquet",
        "val_files": "train.parquet",
        "prompt_key": "prompt",
        "train_batch_size": prompts,
        "max_prompt_length": max(1, keys.take("text.max_length") - answer),
        "max_response_length": answer,
        "filter_overlong_prompts": True,
        "truncation": "error",
        "shuffle": True,
        "seed": keys.take("seed"),
        "apply_chat_template_kwargs": keys.take("template_options"),
    }


def _overlong(keys: Keys) -> None:
    if keys.recipe.method == "sft" and keys.at("text.overlong") == "cut":
        keys.take("text.overlong")
    elif keys.recipe.method == "sft":
        keys.say("`text.overlong`: records that are too long are cut at their end there, not left "
                 "out")  # fmt: skip
    else:
        keys.lose("text.overlong", "prompts that are too long are always left out there")


def _model(keys: Keys) -> Arguments:
    lora = keys.take("model.lora")
    chosen: Arguments = {
        "path": keys.take("model.path"),
        "tokenizer_path": keys.take("model.tokenizer"),
        "trust_remote_code": keys.take("model.trust_remote_code"),
        "enable_gradient_checkpointing": keys.take("model.gradient_checkpointing"),
        "custom_chat_template": template_text(keys),
    }
    if lora is not None:
        for name in ("dropout", "rslora", "dora"):
            keys.lose(f"model.lora.{name}", "verl has no such option of its adapters")
        chosen |= {
            "lora_rank": lora["rank"],
            "lora_alpha": int(lora["alpha"]) if lora["alpha"].is_integer() else lora["alpha"],
            "target_modules": lora["targets"],
        }
    keys.lose("model.quantize", "the frozen weights below an adapter stay in bfloat16 there")
    return chosen


def _precision(keys: Keys) -> Arguments:
    """Trained weights are kept in float32 by both."""
    return {"model_dtype": "fp32", "dtype": keys.take("model.dtype")}


def _optimizer(keys: Keys) -> Arguments:
    schedule = keys.take("optim.schedule")
    if schedule == "linear":
        keys.say("`optim.schedule`: verl has no linear schedule; the config says cosine")
    if keys.at("optim.warmup_ratio"):
        keys.say("the first step of a warm-up has a rate of 0 there, and above 0 here")
    return {
        "optimizer": "AdamW",
        "lr": keys.take("optim.learning_rate"),
        "lr_warmup_steps_ratio": keys.take("optim.warmup_ratio"),
        "lr_scheduler_type": "constant" if schedule == "constant" else "cosine",
        "min_lr_ratio": keys.take("optim.final_ratio"),
        "weight_decay": keys.take("optim.weight_decay"),
        "betas": list(keys.take("optim.betas")),
        "clip_grad": keys.take("optim.max_grad_norm"),
    }


def _trainer(keys: Keys, records: Records, size: int) -> Arguments:
    steps, epochs = keys.take("run.steps"), keys.take("run.epochs")
    an_epoch = max(1, len(records) // size)
    total = steps if steps is not None else max(1, round(epochs * len(records) / size))
    every = keys.take("run.save_every")
    keys.lose("run.keep_checkpoints", "every checkpoint is kept there")
    return {
        "total_epochs": math.ceil(total / an_epoch),
        "total_training_steps": total,
        "default_local_dir": keys.take("output"),
        "logger": ["console", *keys.take("run.sinks")],
        "project_name": "strop",
        "experiment_name": keys.recipe.method,
        "nnodes": 1,
        "n_gpus_per_node": 1,
        "save_freq": every or total,
        "test_freq": -1,
        "resume_mode": "auto",
    } | ({} if keys.recipe.method == "sft" else {"val_before_train": False})


def _actor(keys: Keys, numbers: PolicyNumbers, prompts: int, batch: Batch) -> Arguments:
    optimizer = _optimizer(keys)
    method, loss = keys.recipe.method, numbers.loss
    chosen: Arguments = {
        "optim": optimizer,
        "grad_clip": optimizer["clip_grad"],
        "fsdp_config": _precision(keys),
        "ppo_mini_batch_size": prompts,
        "ppo_micro_batch_size_per_gpu": batch.micro,
        "ppo_epochs": numbers.passes,
        "clip_ratio_low": 1.0 if method == "cispo" else numbers.low,
        "clip_ratio_high": numbers.high,
        "clip_ratio_c": numbers.dual or NO_BOUND,
        "loss_agg_mode": MEANS[loss.denominator],
        "entropy_coeff": keys.take("objective.entropy_weight"),
        "policy_loss": {"loss_mode": MODE.get(method, "vanilla")},
        "use_kl_loss": loss.beta > 0 and loss.kl_in == "loss",
        "kl_loss_coef": loss.beta,
        "kl_loss_type": KL[loss.kl],
    }
    if method == "sapo":
        chosen["tau_pos"], chosen["tau_neg"] = gates(keys)
    return {name: value for name, value in chosen.items() if value is not None}


def _algorithm(keys: Keys, numbers: PolicyNumbers) -> Arguments:
    method, loss = keys.recipe.method, numbers.loss
    keys.take("objective.kl")
    keys.take("objective.kl_in")
    chosen: Arguments = {
        "adv_estimator": ADVANTAGE.get(method, "grpo"),
        "norm_adv_by_std_in_grpo": method != "dr_grpo",
        "use_kl_in_reward": loss.beta > 0 and loss.kl_in == "reward",
        "kl_penalty": KL[loss.kl],
        "kl_ctrl": {"type": "fixed", "kl_coef": loss.beta},
    }
    if method == "ppo":
        chosen |= {"gamma": keys.take("objective.gamma"), "lam": keys.take("objective.gae_lambda")}
    return chosen


def _correction(keys: Keys, config: Arguments) -> None:
    """Truncated importance weights; verl's masks have other bounds."""
    level = keys.at("rollout.mismatch.level")
    if level == "none":
        return
    if keys.at("rollout.mismatch.bound") == "mask":
        keys.lose("rollout.mismatch", "verl's masks have bounds of another kind")
        return
    for name in ("level", "bound", "cap"):
        keys.take(f"rollout.mismatch.{name}")
    config["algorithm"]["rollout_correction"] = {
        "rollout_is": level,
        "rollout_is_threshold": keys.at("rollout.mismatch.cap"),
    }
    config["actor_rollout_ref"]["rollout"]["calculate_log_probs"] = True


def _overlong_penalty(buffer: int, answer: int) -> Arguments:
    penalty = {"enable": True, "len": buffer, "penalty_factor": 1.0, "log": False}
    return {
        "reward_manager": "dapo",
        "reward_kwargs": {"overlong_buffer_cfg": penalty, "max_resp_len": answer},
    }


def _critic(keys: Keys, batch: Batch) -> Arguments:
    keys.lose_on("value.revision", "the commit of a hub model is not named there")
    value: Mapping[str, Any] = keys.take("value") or {}
    lora = value.get("lora") or {}
    adapter = {} if not lora else {
        "lora_rank": lora["rank"], "lora_alpha": int(lora["alpha"]),
        "target_modules": lora["targets"],
    }  # fmt: skip
    path = value.get("path", keys.at("model.path"))
    return {
        "model": {"path": path, "tokenizer_path": keys.at("model.path"), **adapter},
        "optim": {**_optimizer(keys), "lr": value.get("learning_rate")},
        "ppo_micro_batch_size_per_gpu": batch.micro,
        "cliprange_value": keys.take("objective.value_clip"),
    }


def _rl_differences(keys: Keys, numbers: PolicyNumbers) -> None:
    if numbers.loss.denominator == "token_mean":
        keys.say("the token mean is taken over a micro-batch there, over the whole update here")
    if numbers.loss.denominator == "constant":
        keys.say("the constant that divides the loss is the longest answer; the micro-batch is one "
                 "answer, because verl's sum is not divided by its size")  # fmt: skip
    if numbers.loss.entropy_weight:
        keys.say("the entropy is averaged like the loss there, over tokens here")
    if keys.recipe.method == "rloo":
        keys.say("the loss that is logged is another number there; its gradient is the same")
    keys.say("vLLM samples the answers there; strop samples with the trainer's own weights")
    keys.lose("model.device", "verl runs on a GPU")


def _task(row: Row) -> Row:
    """A task as verl reads it; the reward finds all of it as JSON."""
    columns = {name: value for name, value in row.items() if name != "prompt"}
    task = json.dumps({"prompt": row["prompt"], "columns": columns}, ensure_ascii=False)
    return {
        "data_source": "strop",
        "prompt": row["prompt"],
        "reward_model": {"style": "rule", "ground_truth": str(row.get("answer", ""))},
        "extra_info": {"task": task},
    }
