"""axolotl's config as a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from strop.advise.elsewhere.back.foreign import Foreign, Values, without_none
from strop.advise.elsewhere.back.trainer import (
    SINKS,
    adamw,
    batch_size,
    checkpoints,
    length,
    pair_method,
    schedule,
    warmup,
)
from strop.advise.elsewhere.back.trl import rewards
from strop.advise.elsewhere.carried import Import
from strop.errors import RecipeError

Parts = tuple[str, Values, int, float]
"""Method, parts of the recipe, optimizer steps of a step, and the share of the batch that counts as
records."""


def recipe_of(values: Mapping[str, Any], folder: Path) -> Import:
    """A recipe that means what the config means with axolotl's defaults."""
    foreign = Foreign(values, "axolotl", folder)
    kind = _kind(foreign)
    if kind not in PARTS:
        raise RecipeError(f"strop has no counterpart of `rl: {kind}`",
                          fix=f"known: {', '.join(PARTS)}")  # fmt: skip
    size = batch_size(foreign, "micro_batch_size", 1)
    made: Values = {
        "method": "",
        "output": str(foreign.take("output_dir", "model-out")),
        "seed": int(foreign.take("seed", 42)),
        "model": _model(foreign),
        "data": _sources(foreign, "datasets", kind),
        "optim": _optimizer(foreign),
    }
    held_out = _sources(foreign, "test_datasets", kind) if foreign.has("test_datasets") else None
    method, parts, updates, share = PARTS[kind](foreign)
    made |= {"method": method, **parts}
    if kind != "grpo":
        strategy = foreign.take("excess_length_strategy", "drop")
        made["text"] = {"max_length": int(foreign.take("sequence_len", 512)),
                        "overlong": "cut" if strategy == "truncate" else "drop"}  # fmt: skip
        made |= _evaluation(foreign, held_out)
    ends = foreign.take("eot_tokens")
    if ends:
        made.setdefault("text", {})["end_of_turn"] = list(ends)
    made |= _template(foreign)
    run = length(foreign, "num_epochs", 1.0, updates) | {"batch_size": max(1, round(size * share))}
    saved = checkpoints(foreign, updates)
    saved["sinks"] = [sink for sink in SINKS if foreign.take(f"use_{sink}", False)]
    made["run"] = run | saved
    return Import(made, foreign.lost())


def _kind(foreign: Foreign) -> str:
    if foreign.take("reward_model", False):
        for name in ("model_type", "num_labels", "remove_unused_columns"):
            foreign.take(name)
        return "reward_model"
    kind = foreign.take("rl")
    if kind is not None:
        foreign.take("remove_unused_columns")
        return str(kind)
    listed = foreign.at("datasets") or []
    text = bool(listed) and listed[0].get("type") == "completion"
    return "cpt" if text or foreign.has("pretraining_dataset") else "sft"


def _model(foreign: Foreign) -> Values:
    if not foreign.has("base_model"):
        raise RecipeError("the config names no model", fix="add `base_model`")
    bfloat16 = foreign.take("bf16", foreign.take("bfloat16", False))
    for name in ("fp16", "tf32"):
        if foreign.take(name, False):
            foreign.say(f"`{name}`: strop computes in float32 or bfloat16")
    made: Values = without_none({
        "path": foreign.take("base_model"),
        "revision": foreign.take("revision_of_model"),
        "tokenizer": foreign.take("tokenizer_config"),
        "dtype": "bfloat16" if bfloat16 else "float32",
        "gradient_checkpointing": bool(foreign.take("gradient_checkpointing", False)),
        "trust_remote_code": bool(foreign.take("trust_remote_code", False)),
    })  # fmt: skip
    if foreign.take("adapter") in ("lora", "qlora"):
        every = foreign.take("lora_target_linear", False)
        made["lora"] = without_none({
            "rank": foreign.take("lora_r", 8), "alpha": foreign.take("lora_alpha", 16),
            "dropout": foreign.take("lora_dropout", 0.0),
            "targets": "all-linear" if every else foreign.take("lora_target_modules"),
            "rslora": foreign.take("peft_use_rslora"), "dora": foreign.take("peft_use_dora"),
        })  # fmt: skip
    if foreign.take("load_in_4bit", False):
        made["quantize"] = "nf4"
    return made


def _optimizer(foreign: Foreign) -> Values:
    rate = foreign.number("learning_rate", 2e-4)
    muon = foreign.at("optimizer") == "muon"
    planned = schedule(foreign, "lr_scheduler", "cosine", rate)
    if foreign.has("cosine_min_lr_ratio"):
        planned["final_ratio"] = foreign.number("cosine_min_lr_ratio", 0.0)
    return {
        "optimizer": foreign.take("optimizer") if muon else adamw(foreign, "optimizer"),
        "learning_rate": rate,
        **planned,
        "warmup_ratio": warmup(foreign),
        "weight_decay": foreign.number("weight_decay", 0.0),
        "betas": [foreign.number("adam_beta1", 0.9), foreign.number("adam_beta2", 0.999)],
        "max_grad_norm": foreign.number("max_grad_norm", 1.0),
    }


def _sources(foreign: Foreign, key: str, kind: str) -> list[Values]:
    """The data sets of a config as sources; `columns` undoes axolotl's own names."""
    listed = foreign.at(key)
    if not listed:
        raise RecipeError("the config names no data set", fix=f"add `{key}`")
    sources = []
    for number, given in enumerate(listed):
        for name in ("path", "ds_type", "type", "split", "name", "field", "field_messages",
                     "roles_to_train", "train_on_eos", "field_tools", "revision"):  # fmt: skip
            foreign.take(f"{key}.{number}.{name}")
        sources.append(_source(foreign, given, kind))
    return sources


def _source(foreign: Foreign, given: Mapping[str, Any], kind: str) -> Values:
    path = foreign.beside(str(given.get("path")))
    if path is None and given.get("type") is not None:
        foreign.say(f"`datasets`, `type` {given['type']}: strop tells the form of a row by its "
                    "columns; name them with `columns` where it does not")  # fmt: skip
    columns: dict[str, str] = {}
    if kind in ("dpo", "ipo", "simpo") and given.get("field_messages"):
        columns = {"prompt": str(given["field_messages"])}
    if kind == "reward_model" and str(given.get("type")).startswith("bradley_terry"):
        columns = {"prompt": "input"}
    place = {"path": path} if path is not None else {
        "hub": given.get("path"), "split": given.get("split"), "config": given.get("name"),
        "revision": given.get("revision"),
    }  # fmt: skip
    return without_none({**place, "columns": columns or None})


def _evaluation(foreign: Foreign, held_out: Any) -> Values:
    strategy, every = foreign.take("eval_strategy"), foreign.take("eval_steps")
    if foreign.take("val_set_size", 0):
        foreign.say("`val_set_size`: split the records with strop data split, and name them in "
                    "`eval.data`")  # fmt: skip
    if held_out is None or strategy == "no":
        return {}
    return {"eval": {"data": held_out, "every": int(every or 100)}}


def _template(foreign: Foreign) -> Values:
    chosen, text = foreign.take("chat_template"), foreign.take("chat_template_jinja")
    made: Values = {}
    if chosen == "chatml":
        made["chat_template"] = "chatml"
    elif chosen == "jinja":
        found = foreign.beside(str(text)[:200]) if text and "{" not in str(text) else None
        if found is None:
            foreign.say("`chat_template_jinja`: write the template into a file and name that with "
                        "`chat_template`")  # fmt: skip
        else:
            made["chat_template"] = found
    elif chosen not in (None, "tokenizer_default"):
        foreign.say(f"`chat_template`: the tokenizer's own is used, not axolotl's {chosen}")
    variables = foreign.take("chat_template_kwargs")
    return made | ({"template_options": dict(variables)} if variables else {})


def _supervised(foreign: Foreign) -> Parts:
    if foreign.take("train_on_inputs", False):
        foreign.say("`train_on_inputs`: strop learns answers alone; use method cpt for whole texts")
    return _kind(foreign), {}, 1, 1.0


def _beta(foreign: Foreign) -> float:
    nested = foreign.take("trl.beta")
    return float(nested) if nested is not None else foreign.number("rl_beta", 0.1)


def _dpo(foreign: Foreign) -> Parts:
    losses = foreign.take("dpo_loss_type", ["sigmoid"])
    smoothing = foreign.number("dpo_label_smoothing", 0.0)
    weights = foreign.take("dpo_loss_weights")
    method, objective = pair_method(foreign, losses, weights, smoothing)
    objective["beta"] = _beta(foreign)
    if foreign.take("dpo_use_weighting", False):
        objective["wpo"] = True
    foreign.take("precompute_ref_log_probs")
    return method, {"objective": objective}, 1, 1.0


def _ipo(foreign: Foreign) -> Parts:
    return "ipo", {"objective": {"beta": _beta(foreign)}}, 1, 1.0


def _simpo(foreign: Foreign) -> Parts:
    objective = {"beta": _beta(foreign), "gamma": foreign.number("simpo_gamma", 0.5),
                 "nll_weight": foreign.number("cpo_alpha", 1.0)}  # fmt: skip
    return "simpo", {"objective": objective}, 1, 1.0


def _orpo(foreign: Foreign) -> Parts:
    alpha = foreign.take("orpo_alpha")
    beta = _beta(foreign) if alpha is None else float(alpha)
    return "orpo", {"objective": {"beta": beta}}, 1, 1.0


def _kto(foreign: Foreign) -> Parts:
    weights = {f"{name}_weight": foreign.number(f"kto_{name}_weight", 1.0)
               for name in ("desirable", "undesirable")}  # fmt: skip
    return "kto", {"objective": {"beta": _beta(foreign), **weights}}, 1, 1.0


def _reward_model(foreign: Foreign) -> Parts:
    centering = foreign.take("center_rewards_coefficient")
    parts = {"objective": {"centering": float(centering)}} if centering else {}
    return "reward_model", parts, 1, 1.0


def _grpo(foreign: Foreign) -> Parts:
    size = int(foreign.at("micro_batch_size") or 1) * int(
        foreign.at("gradient_accumulation_steps") or 1
    )
    group = int(foreign.take("trl.num_generations", 8))
    cuts = max(1, int(foreign.take("trl.generation_batch_size", size)) // size)
    passes = int(foreign.take("trl.num_iterations", 1))
    loss = str(foreign.take("trl.loss_type", "dapo"))
    sequence = foreign.take("trl.importance_sampling_level") == "sequence"
    method = "gspo" if sequence else loss
    low = foreign.number("trl.epsilon", 0.2)
    high = foreign.number("trl.epsilon_high", low)
    if method not in ("grpo", "gspo", "dapo", "dr_grpo", "cispo"):
        raise RecipeError(f"strop has no policy loss {loss}", fix="choose another `trl.loss_type`")
    bounds = {"epsilon_high": high - 1} if method == "cispo" else {
        "epsilon_low": low, "epsilon_high": high,
    }  # fmt: skip
    if foreign.take("trl.scale_rewards", True) != (method != "dr_grpo"):
        foreign.say(f"`trl.scale_rewards` goes with another method in strop than {method}")
    beta = foreign.number("trl.beta", 0.0)
    weighted = bool(foreign.take("trl.use_bias_correction_kl", True)) and beta > 0
    objective = {**bounds, "beta": beta, "num_iterations": passes, "mini_batches": cuts,
                 **({"kl_weighted": True} if weighted else {})}  # fmt: skip
    return method, {"objective": objective, **_rollout(foreign, group)}, passes * cuts, cuts / group


def _rollout(foreign: Foreign, group: int) -> Values:
    for name in ("use_vllm", "top_p", "top_k", "vllm_importance_sampling_correction"):
        foreign.take(f"trl.{name}")
    if foreign.beside("reward.py") is not None:
        foreign.take("trl.reward_funcs")
    rollout = {
        "group_size": group,
        "temperature": foreign.number("trl.temperature", 1.0),
        "max_tokens": int(foreign.take("trl.max_completion_length", 256)),
        "mask_truncated": bool(foreign.take("trl.mask_truncated_completions", False)),
        "resample": 0,
        "overlong_buffer": 0,
    }
    return {"rollout": rollout, "reward": rewards(foreign)}


PARTS: Mapping[str, Callable[[Foreign], Parts]] = {
    "sft": _supervised, "cpt": _supervised, "dpo": _dpo, "ipo": _ipo, "simpo": _simpo,
    "orpo": _orpo, "kto": _kto, "reward_model": _reward_model, "grpo": _grpo,
}  # fmt: skip
