"""A recipe as LLaMA-Factory's config (version 0.9.6), with its `dataset_info.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from strop.advise.elsewhere.carried import Export, Keys, Row
from strop.advise.elsewhere.parts.batch import (
    most_at_once,
    split,
    split_coupled,
    step_size,
)
from strop.advise.elsewhere.parts.hf import Arguments, evaluation, trainer_arguments
from strop.advise.elsewhere.parts.pairs import whole_batch_note
from strop.advise.elsewhere.parts.script import template_text
from strop.advise.elsewhere.rows import Records, expect_one_answer, records_of
from strop.errors import DataError

SYSTEM = "llamafactory"
NAME = "LLaMA-Factory"

STAGE: Mapping[str, str] = {
    "cpt": "pt", "sft": "sft", "dft": "sft", "reward_model": "rm", "kto": "kto",
    **dict.fromkeys(("dpo", "hinge", "ipo", "orpo", "simpo", "mpo"), "dpo"),
}  # fmt: skip
"""The stage of each method that LLaMA-Factory has."""

LOSS = {"dpo": "sigmoid", "hinge": "hinge", "ipo": "ipo", "orpo": "orpo", "simpo": "simpo",
        "mpo": "sigmoid"}  # fmt: skip

TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "system_tag": "system",
}
"""Chat messages as strop has them, in `dataset_info.json`."""


def unfit(keys: Keys) -> str:
    """Why a recipe cannot be run although its method is known; empty where it can."""
    if keys.recipe.method != "mpo":
        return ""
    losses = keys.at("objective.losses")
    if set(losses) == {"dpo", "bco_pair"} and abs(sum(losses.values()) - 1) < 1e-9:
        return ""
    return "LLaMA-Factory mixes only dpo and bco_pair, with weights that add up to 1"


def export(keys: Keys) -> Export:
    """The files of a run with LLaMA-Factory."""
    method = keys.take("method")
    records = records_of(keys)
    stage = STAGE[method]
    branches = 1 if stage in ("pt", "sft") else 2
    size, most = step_size(keys, len(records)), most_at_once(keys, branches)
    batch = split_coupled(keys, size, most) if stage == "kto" else split(size, most)
    arguments: Arguments = {
        "stage": stage,
        "do_train": True,
        **_model(keys),
        "dataset_dir": ".",
        "dataset": "train",
        "template": _template(keys, records),
        "cutoff_len": keys.take("text.max_length"),
        "packing": False,
        **trainer_arguments(keys, batch),
        "warmup_ratio": keys.at("optim.warmup_ratio"),
        **OPTIONS[stage](keys),
        **evaluation(keys, bool(records.held_out), batch),
    }
    if records.held_out:
        arguments["eval_dataset"] = "eval"
    if keys.take("optim.optimizer") == "muon":
        keys.say("Muon has momentum and rate of its own there")
        arguments["use_muon"] = True
    whole_batch_note(keys, batch.accumulation)
    shape = _shape(records)
    names = ["train", *(["eval"] if records.held_out else [])]
    info = {name: {"file_name": f"{name}.jsonl", **shape} for name in names}
    rows = {"train.jsonl": [_row(row, records) for row in records.own]}
    if records.held_out:
        rows["eval.jsonl"] = [_row(row, records) for row in records.held_out]
    _differences(keys, records)
    files = {
        "config.yaml": yaml.safe_dump(arguments, sort_keys=False, allow_unicode=True),
        "dataset_info.json": json.dumps(info, indent=1) + "\n",
    }
    return Export(files, rows, {}, keys.lost(), "llamafactory-cli train config.yaml")


def _model(keys: Keys) -> Arguments:
    lora = keys.take("model.lora")
    checkpointing = keys.take("model.gradient_checkpointing")
    keys.lose("model.tokenizer", "the tokenizer is the model's own there")
    chosen: Arguments = {
        "model_name_or_path": keys.take("model.path"),
        **keys.taken("model.revision", "model_revision"),
        "trust_remote_code": keys.take("model.trust_remote_code"),
        "disable_gradient_checkpointing": not checkpointing,
        "finetuning_type": "full" if lora is None else "lora",
    }
    if lora is not None:
        targets = lora["targets"]
        joined = targets if isinstance(targets, str) else ",".join(targets)
        chosen |= {
            "lora_rank": lora["rank"],
            "lora_alpha": int(lora["alpha"]) if lora["alpha"].is_integer() else lora["alpha"],
            "lora_dropout": lora["dropout"],
            "lora_target": "all" if targets == "all-linear" else joined,
            "use_rslora": lora["rslora"],
            "use_dora": lora["dora"],
        }
    if keys.take("model.quantize"):
        chosen |= {"quantization_bit": 4, "quantization_type": "nf4", "double_quantization": True}
    return chosen


def _template(keys: Keys, records: Records) -> str | None:
    """`None` reads the tokenizer's own template; plain texts have none."""
    keys.lose("template_options", "a template gets no variables but `enable_thinking`")
    if template_text(keys) is not None:
        keys.lose("chat_template", "templates are LLaMA-Factory's own: write this one into the "
                  "tokenizer's files, from which it is read")  # fmt: skip
    return None if records.chat else "empty"


def _supervised(keys: Keys) -> Arguments:
    dft = {"use_dft_loss": True} if keys.recipe.method == "dft" else {}
    return {"train_on_prompt": False, "mask_history": False, **dft}


def _pretrain(keys: Keys) -> Arguments:
    return {}


def _pairs(keys: Keys) -> Arguments:
    method = keys.recipe.method
    chosen: Arguments = {"pref_loss": LOSS[method], "pref_beta": keys.take("objective.beta")}
    if method == "simpo":
        chosen["simpo_gamma"] = keys.take("objective.gamma")
    if method == "dpo":
        chosen["dpo_label_smoothing"] = keys.take("objective.label_smoothing")
    if method == "mpo":
        losses = keys.take("objective.losses")
        chosen["pref_bco_weight"] = losses["bco_pair"] / losses["dpo"]
    if method != "orpo":
        chosen["pref_ftx"] = keys.take("objective.nll_weight")
    if method == "ipo":
        keys.take("objective.length_normalized")
    if keys.at("objective.ld_alpha") not in (None, 1.0):
        chosen["ld_alpha"] = keys.take("objective.ld_alpha")
        keys.say("`objective.ld_alpha` weighs the policy's tokens alone there, and the reference's "
                 "as well here")  # fmt: skip
    for name in ("length_normalized", "divergence", "alpha", "wpo"):
        keys.lose(f"objective.{name}", "LLaMA-Factory has no such option: this changes the loss")
    return chosen


def _kto(keys: Keys) -> Arguments:
    keys.say("the KL of kto is taken over other pairings of prompts and answers there")
    return {
        "pref_beta": keys.take("objective.beta"),
        "kto_chosen_weight": keys.take("objective.desirable_weight"),
        "kto_rejected_weight": keys.take("objective.undesirable_weight"),
    }


def _reward_model(keys: Keys) -> Arguments:
    for name in ("margin", "centering"):
        keys.lose(f"objective.{name}", "LLaMA-Factory's loss has no such term")
    keys.say("the reward model is saved with a value head of its own, not as a sequence classifier")
    return {}


OPTIONS: Mapping[str, Callable[[Keys], Arguments]] = {
    "pt": _pretrain, "sft": _supervised, "dpo": _pairs, "kto": _kto, "rm": _reward_model,
}  # fmt: skip


def _shape(records: Records) -> Mapping[str, Any]:
    """What `dataset_info.json` says of both files."""
    if records.kind == "document":
        return {"columns": {"prompt": "text"}}
    ranking = {"ranking": True} if records.kind == "preference" else {}
    answers = {
        "preference": {"chosen": "chosen", "rejected": "rejected"},
        "feedback": {"kto_tag": "label"},
    }.get(records.kind, {})
    if not records.chat:
        response = {} if records.kind == "preference" else {"response": "completion"}
        return {**ranking, "columns": {"prompt": "prompt", **response, **answers}}
    tools = {"tools": "tools"} if records.tools else {}
    return {
        "formatting": "openai",
        **ranking,
        "columns": {"messages": "messages", **answers, **tools},
        "tags": TAGS,
    }


def _row(row: Row, records: Records) -> Row:
    if not records.chat:
        return row
    expect_one_answer(records, NAME) if records.kind == "preference" else None
    turns = list(row["prompt"]) + list(row.get("completion", ()))
    _expect_alternation(turns)
    made: Row = {"messages": turns}
    if records.kind == "preference":
        made |= {name: row[name][-1] for name in ("chosen", "rejected")}
    if records.kind == "feedback":
        made["label"] = row["label"]
    if records.tools:
        made["tools"] = json.dumps(row.get("tools", []), ensure_ascii=False)
    return made


def _expect_alternation(turns: list[Any]) -> None:
    """LLaMA-Factory skips a conversation whose turns do not alternate, with no more than a
    warning."""
    spoken = [turn["role"] for turn in turns if turn["role"] != "system"]
    answers = [role == "assistant" for role in spoken]
    joined = [a for n, a in enumerate(answers) if n == 0 or a or answers[n - 1]]
    if any(joined[n] == joined[n - 1] for n in range(1, len(joined))) or "developer" in spoken:
        raise DataError(
            f"a conversation has the turns {', '.join(spoken)}, and LLaMA-Factory leaves out those "
            "whose turns do not alternate",
            fix="join neighbouring turns of one speaker, or export to trl",
        )


def _differences(keys: Keys, records: Records) -> None:
    if keys.at("text.overlong") == "cut":
        keys.take("text.overlong")
    else:
        keys.say("`text.overlong`: records that are too long are cut there, prompt and answer in "
                 "proportion, not left out")  # fmt: skip
    if not records.chat and records.kind != "document":
        keys.say("plain texts go through the template `empty`, which writes no end of an answer: "
                 "end the answers with the tokenizer's own")  # fmt: skip
    if keys.recipe.method in ("dpo", "hinge", "ipo", "kto", "mpo"):
        keys.say("the reference is a second model in memory there (below an adapter, the model "
                 "without it); here its log-probs are computed once and kept")  # fmt: skip
    keys.say_what_stays()
