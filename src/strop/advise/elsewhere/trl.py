"""A recipe as TRL's config (version 1.16), with a script that runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from strop.advise.elsewhere.parts.hf import Arguments, evaluation, trainer_arguments
from strop.advise.elsewhere.parts.pairs import SMOOTHED, TRL_LOSS, mixture_of, whole_batch_note
from strop.advise.elsewhere.parts.policy import (
    PolicyNumbers,
    gates,
    lose_kl,
    lose_rollout,
    policy_numbers,
)
from strop.advise.elsewhere.parts.reward_file import trl_reward
from strop.advise.elsewhere.parts.script import CLASSES, template_file, trl_script
from strop.advise.elsewhere.parts.taught import expect_messages, gkd_arguments
from strop.advise.elsewhere.rows import Records, conversation, lose_tools, records_of

SYSTEM = "trl"
NAME = "TRL"
DIVERGENCES = {"forward_kl": "forward_kl", "js": "js_divergence", "alpha": "alpha_divergence"}


@dataclass(frozen=True, slots=True)
class Options:
    """A method's own arguments, and how a step is cut: `Options({"beta": 0.1}, Batch(4, 8))`."""

    arguments: Arguments
    batch: Batch
    updates: int = 1


def export(keys: Keys) -> Export:
    """The files of a run with TRL."""
    records = records_of(keys)
    method = keys.take("method")
    chosen = OPTIONS[FAMILY[method]](keys, records)
    arguments = {
        **trainer_arguments(keys, chosen.batch, chosen.updates),
        "warmup_steps": keys.at("optim.warmup_ratio"),
        **evaluation(keys, bool(records.held_out), chosen.batch),
        **chosen.arguments,
    }
    files, copies = {}, {}
    if CLASSES[FAMILY[method]].rewarded:
        reward = trl_reward(keys)
        files["reward.py"], copies = reward.text, dict(reward.copies)
    template = template_file(keys)
    config = {**arguments, **_model(keys, scalar=FAMILY[method] == "reward")}
    config["trust_remote_code"] = keys.take("model.trust_remote_code")
    files |= {
        "config.yaml": yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
        "train.py": trl_script(CLASSES[FAMILY[method]], tokenizer=_tokenizer(keys),
                               template=bool(template), held_out=bool(records.held_out)),
        **template,
    }  # fmt: skip
    rows = {"train.jsonl": [_row(keys, row, records) for row in records.own]}
    if records.held_out:
        rows["eval.jsonl"] = [_row(keys, row, records) for row in records.held_out]
    if CLASSES[FAMILY[method]].rewarded or FAMILY[method] in ("cpo", "orpo"):
        lose_tools(keys, records)
    _differences(keys, FAMILY[method])
    return Export(files, rows, copies, keys.lost(), "python train.py")


FAMILY: Mapping[str, str] = {
    "cpt": "sft", "sft": "sft", "dft": "sft",
    **dict.fromkeys((*TRL_LOSS, "mpo"), "dpo"),
    "simpo": "cpo", "cpo": "cpo", "orpo": "orpo",
    "kto": "kto", "apo_zero_unpaired": "kto", "reward_model": "reward",
    **dict.fromkeys(("grpo", "dr_grpo", "dapo", "gspo", "cispo", "sapo"), "grpo"),
    "gmpo": "gmpo", "rloo": "rloo", "distil": "gkd", "gkd": "gkd",
}  # fmt: skip
"""The trainer of each method that TRL has."""


def _tokenizer(keys: Keys) -> str | None:
    chosen: str | None = keys.take("model.tokenizer")
    return chosen


def _model(keys: Keys, *, scalar: bool) -> Arguments:
    """The arguments of TRL's `ModelConfig`."""
    lora = keys.take("model.lora")
    frozen = lora is not None and keys.at("model.dtype") == "bfloat16"
    chosen: Arguments = {
        "model_name_or_path": keys.take("model.path"),
        **keys.taken("model.revision", "model_revision"),
        "dtype": "bfloat16" if frozen else "float32",
        "use_peft": lora is not None,
    }
    if lora is not None:
        targets = lora["targets"]
        chosen |= {
            "lora_r": lora["rank"],
            "lora_alpha": whole(lora["alpha"]),
            "lora_dropout": lora["dropout"],
            "lora_target_modules": [targets] if isinstance(targets, str) else targets,
            "use_rslora": lora["rslora"],
            "use_dora": lora["dora"],
        }
        if scalar:
            chosen["lora_task_type"] = "SEQ_CLS"
    if keys.take("model.quantize"):
        chosen |= {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "use_bnb_nested_quant": True,
        }
    return chosen


def whole(alpha: float) -> int | float:
    """LoRA's alpha as the whole number that other systems want, where it is one."""
    return int(alpha) if alpha.is_integer() else alpha


def _sequence(keys: Keys) -> Arguments:
    """The longest sequence; what is longer is cut there in any case."""
    if keys.at("text.overlong") == "cut":
        keys.take("text.overlong")
    else:
        keys.say("`text.overlong`: records that are too long are cut at their end there, not left "
                 "out")  # fmt: skip
    return {"max_length": keys.take("text.max_length")}


def _sft(keys: Keys, records: Records) -> Options:
    batch = split(step_size(keys, len(records)), most_at_once(keys))
    arguments = _sequence(keys) | {
        "packing": False,
        "loss_type": "dft" if keys.recipe.method == "dft" else "nll",
        "completion_only_loss": records.kind == "demonstration",
        "assistant_only_loss": records.several_turns,
    }
    if records.kind == "document":
        arguments["dataset_text_field"] = "text"
    if records.several_turns:
        keys.say("several turns are learnt through `assistant_only_loss`, which needs a chat "
                 "template with generation marks; TRL knows those of common models")  # fmt: skip
    return Options(arguments, batch)


def _dpo(keys: Keys, records: Records) -> Options:
    batch = split(step_size(keys, len(records)), most_at_once(keys, 2))
    mixture = mixture_of(keys)
    arguments = _sequence(keys) | {
        "beta": keys.take("objective.beta"),
        "loss_type": list(mixture.losses),
        "loss_weights": list(mixture.weights),
        "disable_dropout": True,
        **_pair_options(keys, mixture.smoothing),
    }
    if keys.recipe.method in SMOOTHED or mixture.smoothing:
        arguments["label_smoothing"] = mixture.smoothing
    whole_batch_note(keys, batch.accumulation)
    return Options(arguments, batch)


def _pair_options(keys: Keys, smoothing: float) -> Arguments:
    chosen: Arguments = {}
    method = keys.recipe.method
    if method != "ipo" and (method != "dpo" or smoothing):
        keys.lose("objective.length_normalized", "only plain dpo has a mean over tokens there: "
                  "this changes the loss")  # fmt: skip
    divergence = keys.take("objective.divergence")
    alpha = keys.take("objective.alpha")
    if divergence in DIVERGENCES:
        chosen["f_divergence_type"] = DIVERGENCES[divergence]
        if divergence == "alpha":
            chosen["f_alpha_divergence_coef"] = round(1 - alpha, 12)
    if (keys.take("objective.ld_alpha") or 1.0) != 1.0 or keys.at("objective.ld_alpha") == 0.0:
        chosen["ld_alpha"] = keys.at("objective.ld_alpha")
    if keys.at("objective.wpo") and method == "hinge":
        keys.lose("objective.wpo", "TRL cannot weigh its hinge loss: this changes the loss")
    elif keys.take("objective.wpo"):
        chosen["use_weighting"] = True
        keys.say("the weights of WPO may exceed 1 there; here they are cut at 1, as in the paper")
    if keys.take("objective.temperature") is not None:
        chosen["discopop_tau"] = keys.at("objective.temperature")
    return chosen


def _cpo(keys: Keys, records: Records) -> Options:
    batch = split(step_size(keys, len(records)), most_at_once(keys, 2))
    simpo = keys.recipe.method == "simpo"
    weight = keys.take("objective.nll_weight")
    arguments = _sequence(keys) | {
        "loss_type": "simpo" if simpo else "sigmoid",
        "beta": keys.take("objective.beta"),
        "cpo_alpha": weight,
    }
    if simpo:
        arguments["simpo_gamma"] = keys.take("objective.gamma")
    else:
        arguments["label_smoothing"] = keys.take("objective.label_smoothing")
    if weight:
        keys.say("the NLL of chosen answers is a mean over all tokens of a micro-batch there; here "
                 "every pair counts alike")  # fmt: skip
    return Options(arguments, batch)


def _orpo(keys: Keys, records: Records) -> Options:
    batch = split(step_size(keys, len(records)), most_at_once(keys, 2))
    keys.say("the NLL of orpo counts the prompt's tokens too there; here the chosen answer's alone")
    return Options(_sequence(keys) | {"beta": keys.take("objective.beta")}, batch)


def _kto(keys: Keys, records: Records) -> Options:
    batch = split_coupled(keys, step_size(keys, len(records)), most_at_once(keys, 2))
    names = ("beta", "desirable_weight", "undesirable_weight")
    whole_batch_note(keys, batch.accumulation)
    keys.say("the KL of kto is taken over other pairings of prompts and answers there")
    arguments = {name: keys.take(f"objective.{name}") for name in names}
    loss = {"loss_type": keys.recipe.method, "disable_dropout": True}
    return Options(_sequence(keys) | arguments | loss, batch)


def _reward(keys: Keys, records: Records) -> Options:
    batch = split(step_size(keys, len(records)), most_at_once(keys, 2))
    keys.take("objective.margin")
    centering = keys.take("objective.centering")
    return Options(_sequence(keys) | {"center_rewards_coefficient": centering or None}, batch)


def _grpo(keys: Keys, records: Records) -> Options:
    numbers = policy_numbers(keys)
    group = keys.take("rollout.group_size")
    prompts = step_size(keys, len(records))
    batch = _completions(keys, prompts * group, numbers.cuts)
    arguments = _sampling(keys, group) | {
        "beta": numbers.loss.beta,
        "num_iterations": numbers.passes,
        "steps_per_generation": batch.accumulation * numbers.cuts,
        "disable_dropout": True,
    }
    if keys.recipe.method == "rloo":
        lose_kl(keys, "k1", "reward")
        keys.lose("objective.entropy_weight", "RLOOTrainer has no entropy bonus")
        keys.say("the loss that is logged is another number there; its gradient is the same")
    elif keys.recipe.method == "gmpo":
        lose_kl(keys, "k3", "loss")
        for name in ("objective.kl_weighted", "objective.entropy_weight", "rollout.mismatch"):
            keys.lose(name, "GMPOTrainer does not read such a setting")
        arguments |= {"epsilon": numbers.low, "epsilon_high": numbers.high}
    else:
        lose_kl(keys, "k3", "loss")
        keys.take("objective.kl_weighted")
        arguments |= {
            "use_bias_correction_kl": numbers.loss.kl_weighted,
            "entropy_coef": keys.take("objective.entropy_weight"),
            **_surrogate(keys, numbers),
            **_dual(keys, numbers.dual, numbers.high),
            **_mismatch(keys),
        }
    arguments |= _refresh(keys, numbers.updates)
    if numbers.updates > 1:
        keys.say("steps, schedule and checkpoints count optimizer steps there: "
                 f"{numbers.updates} for each step here")  # fmt: skip
    return Options(arguments, batch, numbers.updates)


def _gkd(keys: Keys, records: Records) -> Options:
    expect_messages(records)
    lose_tools(keys, records)
    return Options(gkd_arguments(keys), split(step_size(keys, len(records)), most_at_once(keys)))


def _completions(keys: Keys, size: int, cuts: int) -> Batch:
    """Micro-batches of an update, in completions."""
    updated = size // cuts
    return split(updated, most_at_once(keys))


def _sampling(keys: Keys, group: int) -> Arguments:
    lose_rollout(keys, NAME, "rollout.mismatch.min_ess")
    keys.lose("text.max_length", "TRL bounds the answer, not prompt and answer together")
    keys.lose("text.overlong", "TRL bounds the answer, not prompt and answer together")
    return {
        "num_generations": group,
        "max_completion_length": keys.take("rollout.max_tokens"),
        "temperature": keys.take("rollout.temperature"),
        "top_p": 1.0,
        "top_k": 0,
        "mask_truncated_completions": keys.take("rollout.mask_truncated"),
        "chat_template_kwargs": keys.at("template_options") or None,
    }


def _surrogate(keys: Keys, numbers: PolicyNumbers) -> Arguments:
    """The loss by its name, and the bounds of its ratio."""
    method = keys.recipe.method
    bounds: Arguments = {"epsilon": numbers.low, "epsilon_high": numbers.high}
    if method == "sapo":
        good, bad = gates(keys)
        return {"loss_type": "sapo", "sapo_temperature_pos": good, "sapo_temperature_neg": bad}
    if method == "cispo":  # the cap itself there, what it exceeds 1 by here
        return {"loss_type": "cispo", "epsilon_high": 1.0 + (numbers.high or 0.0)}
    if method == "gspo":
        return {"loss_type": "grpo", "importance_sampling_level": "sequence", **bounds}
    scaled = {"scale_rewards": "none"} if method == "dr_grpo" else {}
    return {"loss_type": method, **scaled, **bounds}


def _dual(keys: Keys, dual: float | None, high: float | None) -> Arguments:
    if dual is None:
        return {}
    if dual <= 1 + (high or 0.0):
        keys.lose("objective.dual_clip", "TRL's delta is the dual clip only above 1 + epsilon_high")
        return {}
    return {"delta": dual}


def _mismatch(keys: Keys) -> Arguments:
    """The correction for vLLM's probabilities; without vLLM, TRL samples with the trainer."""
    level = keys.take("rollout.mismatch.level")
    names = ("bound", "cap", "floor")
    bound, cap, floor = (keys.take(f"rollout.mismatch.{name}") for name in names)
    if level == "none":
        return {"vllm_importance_sampling_correction": False}
    return {
        "vllm_importance_sampling_correction": True,
        "vllm_importance_sampling_mode": f"{level}_{bound}",
        "vllm_importance_sampling_clip_max": cap,
        "vllm_importance_sampling_clip_min": floor,
    }


def _refresh(keys: Keys, updates: int) -> Arguments:
    every = keys.at("objective.refresh_every")
    if not every:
        return {}
    if keys.at("model.lora") is not None:
        keys.lose("objective.refresh_every", "TRL keeps the reference below an adapter")
        return {}
    keys.take("objective.refresh_every")
    return {
        "sync_ref_model": True,
        "ref_model_mixup_alpha": 1.0,
        "ref_model_sync_steps": every * updates,
    }


OPTIONS: Mapping[str, Callable[[Keys, Records], Options]] = {
    "sft": _sft, "dpo": _dpo, "cpo": _cpo, "orpo": _orpo, "kto": _kto, "reward": _reward,
    "grpo": _grpo, "gmpo": _grpo, "rloo": _grpo, "gkd": _gkd,
}  # fmt: skip


def _row(keys: Keys, row: Row, records: Records) -> Row:
    """Rows are in strop's form, which is TRL's; template variables stand in a column."""
    if FAMILY[keys.recipe.method] in ("cpo", "orpo", "gkd"):
        keys.lose("template_options", "this trainer hands the template no variables")
        return {"messages": conversation(row)} if FAMILY[keys.recipe.method] == "gkd" else row
    if not records.chat:
        keys.lose("template_options", "plain texts go through no template")
        return row
    variables: dict[str, Any] = keys.take("template_options")
    reads = variables and records.kind != "task"
    return {**row, "chat_template_kwargs": variables} if reads else row


def _differences(keys: Keys, family: str) -> None:
    if family in ("dpo", "kto"):
        keys.say("the reference is a second model in memory there (below an adapter, the model "
                 "without it); here its log-probs are computed once and kept")  # fmt: skip
    keys.say_what_stays()
