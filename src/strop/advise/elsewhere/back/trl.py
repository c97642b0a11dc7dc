"""TRL's config as a recipe."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from strop.advise.elsewhere.back.foreign import Foreign, Values, without_none
from strop.advise.elsewhere.back.trainer import (
    batch_size,
    checkpoints,
    evaluation,
    length,
    optimizer,
    output_and_seed,
    pair_method,
)
from strop.advise.elsewhere.carried import Import
from strop.errors import RecipeError, UsageError
from strop.files import read_text

RATES = {"sft": 2e-5, "gkd": 2e-5, "reward": 1e-4, "rloo": 1e-6}
"""Learning rates that TRL's trainers take by themselves; 1e-6 elsewhere."""

DIVERGENCES = {"forward_kl": "forward_kl", "js_divergence": "js", "alpha_divergence": "alpha"}

SIGNS: Mapping[str, tuple[str, ...]] = {
    "gkd": ("lmbda", "teacher_model_name_or_path", "seq_kd"),
    "rloo": ("normalize_advantages", "reward_clip_range"),
    "grpo": ("num_generations", "max_completion_length", "num_iterations", "scale_rewards"),
    "cpo": ("cpo_alpha", "simpo_gamma"),
    "kto": ("desirable_weight", "undesirable_weight"),
    "reward": ("center_rewards_coefficient",),
    "sft": ("completion_only_loss", "assistant_only_loss", "packing", "dataset_text_field"),
    "dpo": ("loss_weights", "precompute_ref_log_probs", "f_divergence_type", "ld_alpha"),
}
"""Keys that only one trainer has."""


def recipe_of(values: Mapping[str, Any], folder: Path) -> Import:
    """A recipe that means what the config means with TRL's defaults."""
    foreign = Foreign(values, "TRL", folder)
    trainer = _trainer(foreign)
    made: Values = {"method": "", **output_and_seed(foreign), "model": _model(foreign),
                    "data": _data(foreign)}  # fmt: skip
    if trainer in ("sft", "dpo", "cpo", "orpo", "kto", "reward", "gkd"):
        held_out = foreign.beside("eval.jsonl")
        made |= evaluation(foreign, held_out)
        made["text"] = {"max_length": int(foreign.take("max_length", 1024)), "overlong": "cut"}
    made["optim"] = optimizer(foreign, RATES.get(trainer, 1e-6))
    size = batch_size(foreign, "per_device_train_batch_size", 8)
    method, parts, updates, share = PARTS[trainer](foreign, size)
    made |= {"method": method, **parts}
    made["run"] = {
        **length(foreign, "num_train_epochs", 3.0, updates),
        "batch_size": max(1, round(size * share)),
        **checkpoints(foreign, updates),
    }
    if foreign.beside("chat_template.jinja") is not None:
        made["chat_template"] = foreign.beside("chat_template.jinja")
    return Import(made, foreign.lost())


def _trainer(foreign: Foreign) -> str:
    """The trainer, from the script beside the config or from keys that only one has."""
    script = foreign.folder / "train.py"
    if script.is_file():
        found = re.search(r"import (\w+)Config, \w+Trainer", read_text(script, UsageError))
        if found and found[1].lower() in PARTS:
            return found[1].lower()
    for trainer, signs in SIGNS.items():
        if foreign.has(*signs):
            return trainer
    loss = foreign.at("loss_type")
    if loss in ("nll", "dft"):
        return "sft"
    if loss is not None:
        return "kto" if loss in ("kto", "apo_zero_unpaired") else "dpo"
    raise RecipeError(
        "nothing in the config says which trainer runs it",
        fix="name its loss with `loss_type`, or put the script that runs it beside it as train.py",
    )


def _model(foreign: Foreign) -> Values:
    path = foreign.take("model_name_or_path")
    if path is None:
        raise RecipeError("the config names no model", fix="add `model_name_or_path`")
    bfloat16 = foreign.take("bf16")
    foreign.take("dtype")
    made: Values = {
        "path": path,
        **foreign.taken("model_revision", "revision"),
        "dtype": "float32" if bfloat16 is False else "bfloat16",
        "gradient_checkpointing": bool(foreign.take("gradient_checkpointing", True)),
        "trust_remote_code": bool(foreign.take("trust_remote_code", False)),
    }
    if foreign.take("use_cpu"):
        made["device"] = "cpu"
    if foreign.take("use_peft", False):
        targets = foreign.take("lora_target_modules")
        several = isinstance(targets, list) and len(targets) == 1
        made["lora"] = without_none({
            "rank": foreign.take("lora_r", 16), "alpha": foreign.take("lora_alpha", 32),
            "dropout": foreign.take("lora_dropout", 0.05),
            "targets": targets[0] if several else targets,
            "rslora": foreign.take("use_rslora"), "dora": foreign.take("use_dora"),
        })  # fmt: skip
        foreign.take("lora_task_type")
    if foreign.take("load_in_4bit", False):
        if foreign.take("bnb_4bit_quant_type", "nf4") == "nf4":
            made["quantize"] = "nf4"
            foreign.take("use_bnb_nested_quant")
        else:
            foreign.say("`bnb_4bit_quant_type`: of four bits strop has nf4 alone")
    return made


def _data(foreign: Foreign) -> Any:
    if foreign.has("dataset_name"):
        return [without_none({
            "hub": foreign.take("dataset_name"), "config": foreign.take("dataset_config"),
            "split": foreign.take("dataset_train_split", "train"),
        })]  # fmt: skip
    listed = foreign.take("datasets")
    if listed:
        return [without_none({"hub": one.get("path"), "config": one.get("name"),
                              "split": one.get("split")}) for one in listed]  # fmt: skip
    if foreign.beside("train.jsonl") is None:
        foreign.say("the config names no data set: put the records into train.jsonl beside it, or "
                    "change `data`")  # fmt: skip
    return str(foreign.folder / "train.jsonl")


Parts = tuple[str, Values, int, float]
"""Method, parts of the recipe, optimizer steps of a step, and the share of the batch that counts as
records."""


def _sft(foreign: Foreign, size: int) -> Parts:
    foreign.take("completion_only_loss")
    foreign.take("assistant_only_loss")
    if foreign.take("packing", False):
        foreign.say("`packing` joins records; strop packs them side by side instead")
    if foreign.take("dataset_text_field") is not None:
        foreign.take("loss_type")
        return "cpt", {}, 1, 1.0
    return "dft" if foreign.take("loss_type", "nll") == "dft" else "sft", {}, 1, 1.0


def _gkd(foreign: Foreign, size: int) -> Parts:
    """Given answers alone are `distil`."""
    if foreign.take("seq_kd", False):
        foreign.say("`seq_kd`: let the teacher write answers first (strop data sample)")
    foreign.take("disable_dropout")
    beta, own = foreign.number("beta", 0.5), foreign.number("lmbda", 0.5)
    temperature = foreign.number("temperature", 0.9)
    tokens = int(foreign.take("max_new_tokens", 128))
    parts: Values = {"teacher": _teacher(foreign)}
    if not own:
        name = {0.0: "forward_kl", 1.0: "reverse_kl"}.get(beta, "generalized_js")
        js = {"beta": beta} if name == "generalized_js" else {}
        return "distil", {**parts, "objective": {"divergence": name, **js}}, 1, 1.0
    parts["objective"] = {"beta": beta, "own_samples": own}
    parts["rollout"] = {"temperature": temperature, "max_tokens": tokens}
    return "gkd", parts, 1, 1.0


def _teacher(foreign: Foreign) -> Values:
    """`auto` is the teacher's own precision, which strop takes by itself."""
    path = foreign.take("teacher_model_name_or_path")
    if path is None:
        raise RecipeError("the config names no teacher", fix="add `teacher_model_name_or_path`")
    how = "teacher_model_init_kwargs"
    dtype = foreign.take(f"{how}.dtype", "auto")
    return without_none({
        "path": path,
        "dtype": None if dtype == "auto" else dtype,
        "revision": foreign.take(f"{how}.revision"),
        "trust_remote_code": foreign.take(f"{how}.trust_remote_code") or None,
    })  # fmt: skip


def _dpo(foreign: Foreign, size: int) -> Parts:
    losses = foreign.take("loss_type", ["sigmoid"])
    listed = [losses] if isinstance(losses, str) else list(losses)
    smoothing = foreign.number("label_smoothing", 0.0)
    method, objective = pair_method(foreign, listed, foreign.take("loss_weights"), smoothing)
    foreign.take("disable_dropout")
    objective["beta"] = foreign.number("beta", 0.1)
    divergence = foreign.take("f_divergence_type", "reverse_kl")
    if divergence in DIVERGENCES:
        objective["divergence"] = DIVERGENCES[divergence]
        if divergence == "alpha_divergence":
            objective["alpha"] = 1 - foreign.number("f_alpha_divergence_coef", 0.5)
    if foreign.has("ld_alpha"):
        objective["ld_alpha"] = foreign.take("ld_alpha")
    if foreign.take("use_weighting", False):
        objective["wpo"] = True
    if method == "discopop":
        objective["temperature"] = foreign.number("discopop_tau", 0.05)
    return method, {"objective": objective}, 1, 1.0


def _cpo(foreign: Foreign, size: int) -> Parts:
    loss = foreign.take("loss_type", "sigmoid")
    objective = {"beta": foreign.number("beta", 0.1),
                 "nll_weight": foreign.number("cpo_alpha", 1.0)}  # fmt: skip
    if loss == "simpo":
        gamma = foreign.number("simpo_gamma", 0.5)
        return "simpo", {"objective": {**objective, "gamma": gamma}}, 1, 1.0
    if loss != "sigmoid":
        foreign.say(f"`loss_type`: of CPO's losses strop has sigmoid and simpo, not {loss}")
    smoothing = foreign.number("label_smoothing", 0.0)
    return "cpo", {"objective": {**objective, "label_smoothing": smoothing}}, 1, 1.0


def _orpo(foreign: Foreign, size: int) -> Parts:
    return "orpo", {"objective": {"beta": foreign.number("beta", 0.1)}}, 1, 1.0


def _kto(foreign: Foreign, size: int) -> Parts:
    names = {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0}
    foreign.take("disable_dropout")
    method = str(foreign.take("loss_type", "kto"))
    objective = {name: foreign.number(name, usual) for name, usual in names.items()}
    return method, {"objective": objective}, 1, 1.0


def _reward(foreign: Foreign, size: int) -> Parts:
    centering = foreign.take("center_rewards_coefficient")
    parts = {"objective": {"centering": float(centering)}} if centering else {}
    return "reward_model", parts, 1, 1.0


def _grpo(foreign: Foreign, size: int) -> Parts:
    accumulation = int(foreign.at("gradient_accumulation_steps") or 1)
    cuts = max(1, int(foreign.take("steps_per_generation", accumulation)) // accumulation)
    passes = int(foreign.take("num_iterations", 1))
    group = int(foreign.take("num_generations", 8))
    method, objective = _policy(foreign)
    beta = foreign.number("beta", 0.0)
    objective |= {"beta": beta, "num_iterations": passes, "mini_batches": cuts}
    objective |= (
        {"kl_weighted": True} if beta and foreign.take("use_bias_correction_kl", True) else {}
    )
    foreign.take("use_bias_correction_kl")
    entropy = foreign.number("entropy_coef", 0.0)
    objective |= {"entropy_weight": entropy} if entropy else {}
    if foreign.has("delta"):
        objective["dual_clip"] = foreign.number("delta", 2.0)
    return method, _online(foreign, group, objective), passes * cuts, cuts / group


def _policy(foreign: Foreign) -> tuple[str, Values]:
    """The method by loss, level of the ratio and scaling of rewards."""
    loss = str(foreign.take("loss_type", "dapo"))
    low = foreign.number("epsilon", 0.2)
    high = foreign.number("epsilon_high", low)
    level = foreign.take("importance_sampling_level", "token")
    scaled = foreign.take("scale_rewards", "group")
    method = "gspo" if loss == "grpo" and level == "sequence" else loss
    if method not in ("grpo", "gspo", "dapo", "dr_grpo", "cispo", "sapo"):
        raise RecipeError(f"strop has no policy loss {loss}", fix="choose another `loss_type`")
    if (scaled in ("none", False)) != (method == "dr_grpo"):
        foreign.say(f"`scale_rewards`: {scaled} goes with another method in strop than {method}")
    if method == "sapo":
        names = {"temperature_positive": "sapo_temperature_pos",
                 "temperature_negative": "sapo_temperature_neg"}  # fmt: skip
        usual = {"sapo_temperature_pos": 1.0, "sapo_temperature_neg": 1.05}
        return method, {ours: foreign.number(its, usual[its]) for ours, its in names.items()}
    if method == "cispo":
        return method, {"epsilon_high": high - 1.0}
    return method, {"epsilon_low": low, "epsilon_high": high}


def _gmpo(foreign: Foreign, size: int) -> Parts:
    low = foreign.number("epsilon", 0.4)
    objective: Values = {"epsilon_low": low, "epsilon_high": foreign.number("epsilon_high", low),
                         "beta": foreign.number("beta", 0.0)}  # fmt: skip
    accumulation = int(foreign.at("gradient_accumulation_steps") or 1)
    cuts = max(1, int(foreign.take("steps_per_generation", accumulation)) // accumulation)
    passes = int(foreign.take("num_iterations", 1))
    group = int(foreign.take("num_generations", 8))
    objective |= {"num_iterations": passes, "mini_batches": cuts}
    return "gmpo", _online(foreign, group, objective), passes * cuts, cuts / group


def _rloo(foreign: Foreign, size: int) -> Parts:
    group = int(foreign.take("num_generations", 2))
    foreign.take("steps_per_generation")
    foreign.take("num_iterations")
    objective: Values = {"beta": foreign.number("beta", 0.05)}
    return "rloo", _online(foreign, group, objective), 1, 1 / group


def _online(foreign: Foreign, group: int, objective: Values) -> Values:
    foreign.take("disable_dropout")
    answer = int(foreign.take("max_completion_length", 256))
    rollout: Values = {
        "group_size": group,
        "temperature": foreign.number("temperature", 1.0),
        "max_tokens": answer,
        "mask_truncated": bool(foreign.take("mask_truncated_completions", False)),
        "resample": 0,
        "overlong_buffer": 0,
    }
    if (foreign.take("top_p", 1.0), max(0, foreign.take("top_k", 0))) != (1.0, 0):
        foreign.say("`top_p`, `top_k`: strop does not truncate what it samples for training")
    if foreign.take("vllm_importance_sampling_correction", False):
        level, _, bound = str(foreign.take("vllm_importance_sampling_mode", "sequence_mask")
                              ).partition("_")  # fmt: skip
        rollout["mismatch"] = without_none({
            "level": level, "bound": bound,
            "cap": foreign.take("vllm_importance_sampling_clip_max"),
            "floor": foreign.take("vllm_importance_sampling_clip_min"),
        })  # fmt: skip
    if foreign.take("sync_ref_model", False):
        objective["refresh_every"] = int(foreign.take("ref_model_sync_steps", 512))
    return {"rollout": rollout, "reward": rewards(foreign), "objective": objective}


def rewards(foreign: Foreign) -> list[Values]:
    """The reward of a script beside the config; else one that has to be replaced."""
    if foreign.beside("reward.py") is not None:
        return [{"function": "reward", "file": foreign.beside("reward.py")}]
    foreign.say("the rewards are functions of a script: `exact_answer` stands in their place until "
                "you name your own with `file` and `function`")  # fmt: skip
    return [{"function": "exact_answer"}]


PARTS: Mapping[str, Callable[[Foreign, int], Parts]] = {
    "sft": _sft, "dpo": _dpo, "cpo": _cpo, "orpo": _orpo, "kto": _kto, "reward": _reward,
    "grpo": _grpo, "gmpo": _gmpo, "rloo": _rloo, "gkd": _gkd,
}  # fmt: skip
