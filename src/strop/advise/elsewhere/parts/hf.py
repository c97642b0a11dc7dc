"""The arguments of transformers' Trainer, which TRL, Unsloth and LLaMA-Factory extend."""

from __future__ import annotations

from typing import Any

from strop.advise.elsewhere.carried import Keys
from strop.advise.elsewhere.parts.batch import Batch

Arguments = dict[str, Any]

EIGHT_BIT = "adamw_8bit"
"""bitsandbytes' optimizer: the same name in all of them."""

ADAM_EPSILON = 1e-8
"""PyTorch's default, which strop keeps."""


def trainer_arguments(keys: Keys, batch: Batch, updates: int = 1) -> Arguments:
    """Optimizer, schedule, length, batch and checkpoints.

    `updates` are the optimizer steps of a step of strop. The warm-up is left to the caller: its key
    is another one in each version.
    """
    return {
        "output_dir": keys.take("output"),
        "seed": keys.take("seed"),
        **_optimizer(keys),
        **schedule(keys),
        **_length(keys, updates),
        "per_device_train_batch_size": batch.micro,
        "gradient_accumulation_steps": batch.accumulation,
        **_checkpoints(keys, updates),
        **_precision(keys),
        "report_to": keys.take("run.sinks") or "none",
        "logging_steps": 1,
    }


def _optimizer(keys: Keys) -> Arguments:
    first, second = keys.take("optim.betas")
    eight = keys.at("optim.optimizer") == EIGHT_BIT
    if eight:
        keys.take("optim.optimizer")
    return {
        "optim": EIGHT_BIT if eight else "adamw_torch",
        "learning_rate": keys.take("optim.learning_rate"),
        "weight_decay": keys.take("optim.weight_decay"),
        "adam_beta1": first,
        "adam_beta2": second,
        "adam_epsilon": ADAM_EPSILON,
        "max_grad_norm": keys.take("optim.max_grad_norm"),
    }


def schedule(keys: Keys) -> Arguments:
    """The name of the schedule and what it needs: a warm-up, and a rate that it ends at."""
    name, final = keys.take("optim.schedule"), keys.take("optim.final_ratio")
    if keys.take("optim.warmup_ratio"):
        keys.say("the first step of a warm-up has a rate of 0 there, and above 0 here")
    if name == "constant":
        warm = bool(keys.at("optim.warmup_ratio"))
        keys.lose("optim.final_ratio", "a constant schedule ends where it begins")
        return {"lr_scheduler_type": "constant_with_warmup" if warm else "constant"}
    if not final:
        return {"lr_scheduler_type": name}
    if name == "cosine":
        return {
            "lr_scheduler_type": "cosine_with_min_lr",
            "lr_scheduler_kwargs": {"min_lr_rate": final},
        }
    end = final * keys.at("optim.learning_rate")
    return {
        "lr_scheduler_type": "polynomial",
        "lr_scheduler_kwargs": {"lr_end": end, "power": 1.0},
    }


def _length(keys: Keys, updates: int) -> Arguments:
    steps, epochs = keys.take("run.steps"), keys.take("run.epochs")
    if steps is not None:
        return {"max_steps": steps * updates}
    keys.say(
        "an epoch ends with a smaller step there where `run.batch_size` does not divide the "
        "records; here the step goes on with the next epoch"
    )
    return {"num_train_epochs": epochs}


def _checkpoints(keys: Keys, updates: int) -> Arguments:
    every, kept = keys.take("run.save_every"), keys.take("run.keep_checkpoints")
    if not every:
        keys.lose("run.keep_checkpoints", "the model is saved once, at the end")
        return {"save_strategy": "no"}
    return {"save_strategy": "steps", "save_steps": every * updates, "save_total_limit": kept}


def _precision(keys: Keys) -> Arguments:
    bfloat16 = keys.take("model.dtype") == "bfloat16"
    chosen: Arguments = {
        "bf16": bfloat16,
        "gradient_checkpointing": keys.take("model.gradient_checkpointing"),
    }
    if keys.at("model.device") == "cpu":
        chosen["use_cpu"] = keys.take("model.device") == "cpu"
    return chosen


def evaluation(keys: Keys, held_out: bool, batch: Batch) -> Arguments:
    """Held-out records every so many steps."""
    if not held_out:
        return {}
    return {
        "eval_strategy": "steps",
        "eval_steps": keys.take("eval.every"),
        "per_device_eval_batch_size": batch.micro,
    }
