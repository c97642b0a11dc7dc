"""A recipe as axolotl's config (version 0.18, which calls TRL 1.8)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from strop.advise.elsewhere.carried import Export, Keys, Row
from strop.advise.elsewhere.parts.batch import (
    Batch,
    most_at_once,
    split,
    split_coupled,
    step_size,
)
from strop.advise.elsewhere.parts.hf import ADAM_EPSILON, Arguments, schedule
from strop.advise.elsewhere.parts.pairs import SMOOTHED, TRL_LOSS, mixture_of, whole_batch_note
from strop.advise.elsewhere.parts.policy import lose_kl, lose_rollout, policy_numbers
from strop.advise.elsewhere.parts.reward_file import trl_reward
from strop.advise.elsewhere.parts.script import template_text
from strop.advise.elsewhere.rows import (
    Records,
    expect_chat,
    expect_one_answer,
    in_messages,
    lose_tools,
    records_of,
    said,
)
from strop.errors import DataError

SYSTEM = "axolotl"
NAME = "axolotl"

FAMILY: Mapping[str, str] = {
    "cpt": "cpt", "sft": "sft", **dict.fromkeys((*TRL_LOSS, "mpo"), "dpo"),
    "simpo": "simpo", "orpo": "orpo", "kto": "kto", "reward_model": "reward_model",
    **dict.fromkeys(("grpo", "dr_grpo", "dapo", "gspo", "cispo"), "grpo"),
}  # fmt: skip
"""The kind of run of each method that axolotl has."""


def export(keys: Keys) -> Export:
    """The files of a run with axolotl."""
    family = FAMILY[keys.take("method")]
    records = records_of(keys)
    options, batch, updates = OPTIONS[family](keys, records)
    config: Arguments = {
        **_model(keys, family),
        **options,
        "datasets": [{"path": "train.jsonl", "ds_type": "json", **_form(family, records)}],
        "val_set_size": 0,
        **_template(keys, records),
        "sequence_len": keys.take("text.max_length"),
        "excess_length_strategy": OVERLONG[keys.take("text.overlong")],
        "sample_packing": False,
        **_training(keys, batch, updates),
        **_warmup(keys, batch, len(records)),
    }
    rows = {"train.jsonl": _rows(family, records, records.own)}
    if records.held_out:
        held_out = {"path": "eval.jsonl", "ds_type": "json", **_form(family, records)}
        config |= {"test_datasets": [held_out], "eval_strategy": "steps",
                   "eval_steps": keys.take("eval.every")}  # fmt: skip
        rows["eval.jsonl"] = _rows(family, records, records.held_out)
    files, copies = {}, {}
    if family == "grpo":
        reward = trl_reward(keys)
        files["reward.py"], copies = reward.text, dict(reward.copies)
    files["config.yaml"] = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    if family != "sft":
        lose_tools(keys, records)
    _differences(keys, family)
    return Export(files, rows, copies, keys.lost(), "PYTHONPATH=. axolotl train config.yaml")


OVERLONG = {"drop": "drop", "cut": "truncate"}


def _model(keys: Keys, family: str) -> Arguments:
    lora = keys.take("model.lora")
    quantized = keys.take("model.quantize") is not None
    chosen: Arguments = {
        "base_model": keys.take("model.path"),
        **keys.taken("model.revision", "revision_of_model"),
        "trust_remote_code": keys.take("model.trust_remote_code"),
    }
    if keys.take("model.tokenizer") is not None:
        chosen["tokenizer_config"] = keys.at("model.tokenizer")
    if family == "reward_model":
        chosen |= {"model_type": "AutoModelForSequenceClassification", "num_labels": 1}
    if lora is None:
        return chosen
    targets = lora["targets"]
    named = {"lora_target_linear": True} if targets == "all-linear" else {
        "lora_target_modules": targets
    }  # fmt: skip
    return chosen | {
        "adapter": "qlora" if quantized else "lora",
        "load_in_4bit": quantized,
        "lora_r": lora["rank"],
        "lora_alpha": int(lora["alpha"]) if lora["alpha"].is_integer() else lora["alpha"],
        "lora_dropout": lora["dropout"],
        **named,
        "peft_use_rslora": lora["rslora"],
        "peft_use_dora": lora["dora"],
    }


def _template(keys: Keys, records: Records) -> Arguments:
    chosen: Arguments = {}
    text = template_text(keys)
    if text is not None:
        chosen = {"chat_template": "jinja", "chat_template_jinja": text}
    elif records.chat:
        chosen = {"chat_template": "tokenizer_default"}
    variables, ends = keys.take("template_options"), keys.take("text.end_of_turn")
    if variables:
        chosen["chat_template_kwargs"] = variables
    return chosen | ({"eot_tokens": list(ends)} if ends else {})


def _training(keys: Keys, batch: Batch, updates: int) -> Arguments:
    steps, epochs = keys.take("run.steps"), keys.take("run.epochs")
    length = {"num_epochs": epochs} if steps is None else {"max_steps": steps * updates}
    first, second = keys.take("optim.betas")
    planned = schedule(keys)
    bfloat16 = keys.take("model.dtype") == "bfloat16"
    optimizer = keys.take("optim.optimizer")
    chosen: Arguments = {
        "output_dir": keys.take("output"),
        "seed": keys.take("seed"),
        **length,
        "micro_batch_size": batch.micro,
        "gradient_accumulation_steps": batch.accumulation,
        "optimizer": "adamw_torch" if optimizer == "adamw" else optimizer,
        "learning_rate": keys.take("optim.learning_rate"),
        "lr_scheduler": planned["lr_scheduler_type"],
        "lr_scheduler_kwargs": planned.get("lr_scheduler_kwargs"),
        "weight_decay": keys.take("optim.weight_decay"),
        "adam_beta1": first,
        "adam_beta2": second,
        "adam_epsilon": ADAM_EPSILON,
        "max_grad_norm": keys.take("optim.max_grad_norm"),
        "bf16": bfloat16,
        "fp16": False,
        "tf32": False,
        "gradient_checkpointing": keys.take("model.gradient_checkpointing"),
        "logging_steps": 1,
        **_checkpoints(keys, updates),
        **{f"use_{sink}": True for sink in keys.take("run.sinks")},
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _warmup(keys: Keys, batch: Batch, records: int) -> Arguments:
    """A share of the run; axolotl wants a number of steps for simpo."""
    ratio: float = keys.at("optim.warmup_ratio")
    if keys.recipe.method != "simpo":
        return {"warmup_ratio": ratio}
    steps, epochs = keys.at("run.steps"), keys.at("run.epochs")
    total = steps if steps is not None else max(1, round(epochs * records / batch.size))
    return {"warmup_steps": round(ratio * total)}


def _checkpoints(keys: Keys, updates: int) -> Arguments:
    every = keys.take("run.save_every")
    kept = keys.take("run.keep_checkpoints")
    if not every:
        keys.lose("run.keep_checkpoints", "the model is saved once, at the end")
        return {"save_strategy": "no"}
    return {"save_steps": every * updates, "save_total_limit": kept}


Chosen = tuple[Arguments, Batch, int]


def _supervised(keys: Keys, records: Records) -> Chosen:
    batch = split(step_size(keys, len(records)), most_at_once(keys))
    return {"train_on_inputs": False}, batch, 1


def _pairs(keys: Keys, records: Records) -> tuple[Arguments, Batch]:
    batch = split(step_size(keys, len(records)), most_at_once(keys, 2))
    return {"rl_beta": keys.take("objective.beta")}, batch


def _dpo(keys: Keys, records: Records) -> Chosen:
    chosen, batch = _pairs(keys, records)
    keys.lose("objective.length_normalized", "axolotl has no such option: this changes the loss")
    for name in ("divergence", "alpha", "ld_alpha", "temperature"):
        keys.lose(f"objective.{name}", "axolotl does not pass this on: this changes the loss")
    mixture = mixture_of(keys)
    losses = ["sigmoid" if name == "sigmoid_norm" else name for name in mixture.losses]
    chosen |= {"rl": "dpo", "dpo_loss_type": losses, "dpo_loss_weights": list(mixture.weights)}
    if keys.recipe.method in SMOOTHED or mixture.smoothing:
        chosen["dpo_label_smoothing"] = mixture.smoothing
    if keys.take("objective.wpo"):
        chosen["dpo_use_weighting"] = True
        keys.say("the weights of WPO may exceed 1 there; here they are cut at 1, as in the paper")
    whole_batch_note(keys, batch.accumulation)
    return chosen, batch, 1


def _simpo(keys: Keys, records: Records) -> Chosen:
    chosen, batch = _pairs(keys, records)
    gamma, nll = keys.take("objective.gamma"), keys.take("objective.nll_weight")
    return {"rl": "simpo", **chosen, "simpo_gamma": gamma, "cpo_alpha": nll}, batch, 1


def _orpo(keys: Keys, records: Records) -> Chosen:
    chosen, batch = _pairs(keys, records)
    keys.say("the NLL of orpo counts the prompt's tokens too there; here the chosen answer's alone")
    return {"rl": "orpo", **chosen}, batch, 1


def _kto(keys: Keys, records: Records) -> Chosen:
    chosen, _ = _pairs(keys, records)
    batch = split_coupled(keys, step_size(keys, len(records)), most_at_once(keys, 2))
    keys.say("the KL of kto is taken over other pairings of prompts and answers there")
    whole_batch_note(keys, batch.accumulation)
    weights = {
        f"kto_{name}_weight": keys.take(f"objective.{name}_weight")
        for name in ("desirable", "undesirable")
    }
    return {"rl": "kto", **chosen, **weights, "remove_unused_columns": False}, batch, 1


def _reward_model(keys: Keys, records: Records) -> Chosen:
    batch = split(step_size(keys, len(records)), most_at_once(keys, 2))
    keys.lose("objective.margin", "axolotl hands its reward trainer no margins")
    centering = keys.take("objective.centering")
    chosen: Arguments = {"reward_model": True, "remove_unused_columns": False}
    return chosen | ({"center_rewards_coefficient": centering} if centering else {}), batch, 1


def _grpo(keys: Keys, records: Records) -> Chosen:
    numbers = policy_numbers(keys)
    group = keys.take("rollout.group_size")
    size = step_size(keys, len(records)) * group
    batch = split(size // numbers.cuts, most_at_once(keys))
    lose_rollout(keys, NAME, "rollout.mismatch.min_ess", "rollout.mismatch.floor")
    lose_kl(keys, "k3", "loss")
    keys.take("objective.kl_weighted")
    for name in ("entropy_weight", "dual_clip"):
        keys.lose(f"objective.{name}", "axolotl does not pass this on: this changes the loss")
    method = keys.recipe.method
    trl: Arguments = {
        "beta": numbers.loss.beta,
        "num_generations": group,
        "generation_batch_size": size,
        "num_iterations": numbers.passes,
        "max_completion_length": keys.take("rollout.max_tokens"),
        "temperature": keys.take("rollout.temperature"),
        "top_p": 1.0,
        "top_k": 0,
        "loss_type": "grpo" if method == "gspo" else method,
        "scale_rewards": method != "dr_grpo",
        "importance_sampling_level": "sequence" if method == "gspo" else "token",
        "epsilon": numbers.low,
        "epsilon_high": 1.0 + (numbers.high or 0) if method == "cispo" else numbers.high,
        "mask_truncated_completions": keys.take("rollout.mask_truncated"),
        "use_bias_correction_kl": numbers.loss.kl_weighted,
        "use_vllm": False,
        "reward_funcs": ["reward.reward"],
        **_mismatch(keys),
        **_refresh(keys, numbers.updates),
    }
    if numbers.updates > 1:
        keys.say("steps, schedule and checkpoints count optimizer steps there: "
                 f"{numbers.updates} for each step here")  # fmt: skip
    kept = {name: value for name, value in trl.items() if value is not None}
    return {"rl": "grpo", "trl": kept}, batch, numbers.updates


def _mismatch(keys: Keys) -> Arguments:
    level = keys.take("rollout.mismatch.level")
    bound, cap = keys.take("rollout.mismatch.bound"), keys.take("rollout.mismatch.cap")
    if level == "none":
        return {"vllm_importance_sampling_correction": False}
    return {
        "vllm_importance_sampling_correction": True,
        "vllm_importance_sampling_mode": f"{level}_{bound}",
        "vllm_importance_sampling_cap": cap,
    }


def _refresh(keys: Keys, updates: int) -> Arguments:
    every = keys.at("objective.refresh_every")
    if not every or keys.at("model.lora") is not None:
        keys.lose("objective.refresh_every", "the reference stays below an adapter there")
        return {}
    keys.take("objective.refresh_every")
    return {"sync_ref_model": True, "ref_model_mixup_alpha": 1.0,
            "ref_model_sync_steps": every * updates}  # fmt: skip


OPTIONS: Mapping[str, Callable[[Keys, Records], Chosen]] = {
    "cpt": _supervised, "sft": _supervised, "dpo": _dpo, "simpo": _simpo, "orpo": _orpo,
    "kto": _kto, "reward_model": _reward_model, "grpo": _grpo,
}  # fmt: skip


def _form(family: str, records: Records) -> Arguments:
    """How axolotl reads the written rows."""
    if family == "cpt":
        return {"type": "completion", "field": "text"}
    if family == "grpo":
        return {}
    if family == "sft" and records.chat:
        tools = {"field_tools": "tools"} if records.tools else {}
        return {"type": "chat_template", "field_messages": "messages", **tools,
                "roles_to_train": ["assistant"], "train_on_eos": "turn"}  # fmt: skip
    if family in ("dpo", "simpo") and records.chat:
        return {"type": "chat_template.default", "field_messages": "messages"}
    plain: Mapping[str, Any] = {
        "sft": {"field_instruction": "prompt", "field_output": "completion",
                "format": "{instruction}", "no_input_format": "{instruction}"},
        "dpo": {"field_prompt": "prompt", "field_chosen": "chosen", "field_rejected": "rejected"},
        "kto": {"field_prompt": "prompt", "field_completion": "completion",
                "field_label": "label"},
        "orpo": "chat_template.argilla",
        "reward_model": "bradley_terry.chat_template",
    }  # fmt: skip
    return {"type": plain["dpo" if family == "simpo" else family]}


def _rows(family: str, records: Records, rows: Sequence[Row]) -> list[Row]:
    if family in ("orpo", "reward_model"):
        expect_chat(records, NAME)
    if records.kind in ("preference", "feedback"):
        expect_one_answer(records, NAME)
    if family == "kto" and records.chat:
        raise DataError(
            "axolotl writes the messages of thumbs in templates of its own, not in the model's",
            fix="export to trl or llamafactory, or write prompts and answers as texts",
        )
    if not records.chat or family == "grpo":
        return list(rows)
    if family == "sft":
        return list(in_messages(rows))
    return [CHAT_ROW[family](row) for row in rows]


def _pair(row: Row) -> Row:
    answers = {name: row[name][-1] for name in ("chosen", "rejected")}
    return {"messages": row["prompt"], **answers}


def _whole_pair(row: Row) -> Row:
    """Both conversations in full; the system turn stands in a column."""
    turns = list(row["prompt"])
    system = [turn["content"] for turn in turns if turn["role"] == "system"]
    spoken = [turn for turn in turns if turn["role"] != "system"]
    answers = {name: [*spoken, *row[name]] for name in ("chosen", "rejected")}
    if any(turn["role"] != ("user", "assistant")[n % 2] for n, turn in enumerate(spoken)):
        raise _one_turn("alternating turns of user and assistant", spoken)
    return {"system": system[0] if system else "", **answers}


def _single_pair(row: Row) -> Row:
    turns = list(row["prompt"])
    system = [turn["content"] for turn in turns if turn["role"] == "system"]
    asked = [turn["content"] for turn in turns if turn["role"] == "user"]
    if len(asked) != 1 or len(turns) != len(system) + 1:
        raise _one_turn("one question", turns)
    answers = {name: said(row[name]) for name in ("chosen", "rejected")}
    return {"system": system[0] if system else "", "input": asked[0], **answers}


def _one_turn(wanted: str, turns: Sequence[Mapping[str, Any]]) -> DataError:
    roles = ", ".join(str(turn["role"]) for turn in turns)
    return DataError(
        f"axolotl reads {wanted} for this method, and a prompt has the turns {roles}",
        fix="export to trl, which reads whole conversations",
    )


CHAT_ROW: Mapping[str, Callable[[Row], Row]] = {
    "dpo": _pair, "simpo": _pair, "orpo": _whole_pair, "reward_model": _single_pair,
}  # fmt: skip


def _differences(keys: Keys, family: str) -> None:
    if family in ("dpo", "kto"):
        keys.say("the reference is a second model in memory there (below an adapter, the model "
                 "without it); here its log-probs are computed once and kept")  # fmt: skip
    keys.say_what_stays()
