"""LLaMA-Factory's config as a recipe."""

from __future__ import annotations

import json
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
)
from strop.advise.elsewhere.carried import Import
from strop.errors import RecipeError
from strop.files import read_text

METHOD = {"sigmoid": "dpo", "hinge": "hinge", "ipo": "ipo", "orpo": "orpo", "simpo": "simpo"}


def recipe_of(values: Mapping[str, Any], folder: Path) -> Import:
    """A recipe that means what the config means with LLaMA-Factory's defaults."""
    foreign = Foreign(values, "LLaMA-Factory", folder)
    stage = str(foreign.take("stage", "sft"))
    if stage not in PARTS:
        raise RecipeError(f"strop has no counterpart of `stage: {stage}`",
                          fix=f"known: {', '.join(PARTS)}")  # fmt: skip
    described = _described(foreign)
    method, parts = PARTS[stage](foreign)
    made: Values = {
        "method": method,
        **output_and_seed(foreign),
        "model": _model(foreign),
        "data": _sources(foreign, "dataset", described),
        **parts,
        "text": {"max_length": int(foreign.take("cutoff_len", 2048)), "overlong": "cut"},
        "optim": optimizer(foreign, 5e-5),
    }
    if foreign.take("use_muon", False):
        made["optim"]["optimizer"] = "muon"
    named = foreign.has("eval_dataset")
    made |= evaluation(foreign, _sources(foreign, "eval_dataset", described) if named else None)
    _template(foreign)
    made["run"] = {
        **length(foreign, "num_train_epochs", 3.0),
        "batch_size": batch_size(foreign, "per_device_train_batch_size", 8),
        **checkpoints(foreign),
    }
    return Import(made, foreign.lost())


def _described(foreign: Foreign) -> Mapping[str, Any]:
    """What `dataset_info.json` says of each data set."""
    folder = foreign.folder / str(foreign.take("dataset_dir", "data"))
    path = folder / "dataset_info.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(read_text(path, RecipeError))
    except ValueError as error:
        raise RecipeError(f"not JSON: {error}", where=str(path), fix="mend the file") from None
    return {name: {**one, "folder": str(folder)} for name, one in found.items()}


def _model(foreign: Foreign) -> Values:
    if not foreign.has("model_name_or_path"):
        raise RecipeError("the config names no model", fix="add `model_name_or_path`")
    bfloat16 = foreign.take("bf16", False)
    pure = foreign.take("pure_bf16", False)
    if pure:
        foreign.say("`pure_bf16`: strop keeps trained weights in float32")
    made: Values = {
        "path": foreign.take("model_name_or_path"),
        **foreign.taken("model_revision", "revision"),
        "dtype": "bfloat16" if bfloat16 or pure else "float32",
        "gradient_checkpointing": not foreign.take("disable_gradient_checkpointing", False),
        "trust_remote_code": bool(foreign.take("trust_remote_code", False)),
    }
    if foreign.take("use_cpu", False):
        made["device"] = "cpu"
    foreign.take("gradient_checkpointing")
    if foreign.take("finetuning_type", "lora") == "lora":
        made["lora"] = _lora(foreign)
    elif foreign.at("finetuning_type") != "full":
        foreign.say(f"`finetuning_type`: {foreign.at('finetuning_type')} becomes a full fine-tune")
    if foreign.take("quantization_bit") == 4 and foreign.take("quantization_type", "nf4") == "nf4":
        made["quantize"] = "nf4"
        foreign.take("double_quantization")
    elif foreign.has("quantization_bit"):
        foreign.say("`quantization_bit`: of quantized weights strop has nf4 alone")
    return made


def _lora(foreign: Foreign) -> Values:
    rank = int(foreign.take("lora_rank", 8))
    targets = str(foreign.take("lora_target", "all"))
    listed = [name.strip() for name in targets.split(",")]
    return without_none({
        "rank": rank,
        "alpha": foreign.take("lora_alpha", rank * 2),
        "dropout": foreign.take("lora_dropout", 0.0),
        "targets": "all-linear" if targets == "all" else listed,
        "rslora": foreign.take("use_rslora"),
        "dora": foreign.take("use_dora"),
    })  # fmt: skip


def _sources(foreign: Foreign, key: str, described: Mapping[str, Any]) -> list[Values]:
    named = foreign.take(key)
    if named is None:
        raise RecipeError("the config names no data set", fix=f"add `{key}`")
    names = named if isinstance(named, list) else str(named).split(",")
    return [_source(foreign, name.strip(), described.get(name.strip())) for name in names]


def _source(foreign: Foreign, name: str, said: Mapping[str, Any] | None) -> Values:
    limit = foreign.take("max_samples")
    if said is None:
        foreign.say(f"`dataset`: {name} is in no dataset_info.json here: a hub data set is meant")
        return without_none({"hub": name, "limit": limit})
    columns = said.get("columns", {})
    renamed = {ours: columns[its] for ours, its in OURS.items() if columns.get(its) not in
               (None, ours)}  # fmt: skip
    if "messages" in columns and said.get("ranking"):
        renamed["prompt"] = columns["messages"]
        renamed.pop("messages", None)
    place: Values = {"path": str(Path(said["folder"]) / said["file_name"])} if (
        "file_name" in said
    ) else {"hub": said.get("hf_hub_url"), "split": said.get("split")}  # fmt: skip
    return without_none({**place, "columns": renamed or None, "limit": limit})


OURS = {"prompt": "prompt", "completion": "response", "messages": "messages", "chosen": "chosen",
        "rejected": "rejected", "label": "kto_tag", "system": "system",
        "tools": "tools"}  # fmt: skip
"""strop's columns and what `dataset_info.json` calls them."""


def _template(foreign: Foreign) -> None:
    name = foreign.take("template")
    if name not in (None, "empty"):
        foreign.say(f"`template`: the tokenizer's own template is used, not LLaMA-Factory's {name}")


def _pretrain(foreign: Foreign) -> tuple[str, Values]:
    return "cpt", {}


def _supervised(foreign: Foreign) -> tuple[str, Values]:
    for name in ("train_on_prompt", "mask_history"):
        if foreign.take(name, False):
            foreign.say(f"`{name}`: strop learns every answer and nothing else")
    return "dft" if foreign.take("use_dft_loss", False) else "sft", {}


def _pairs(foreign: Foreign) -> tuple[str, Values]:
    loss = str(foreign.take("pref_loss", "sigmoid"))
    if loss not in METHOD:
        raise RecipeError(f"strop has no loss {loss}", fix=f"known: {', '.join(METHOD)}")
    method = METHOD[loss]
    objective: Values = {"beta": foreign.number("pref_beta", 0.1)}
    nll = foreign.number("pref_ftx", 0.0)
    bco = foreign.number("pref_bco_weight", 0.0)
    if method == "simpo":
        objective["gamma"] = foreign.number("simpo_gamma", 0.5)
    if method == "orpo":
        if nll:
            foreign.say("`pref_ftx`: orpo has its NLL term already")
    elif nll:
        objective["nll_weight"] = nll
    if foreign.has("ld_alpha"):
        objective["ld_alpha"] = foreign.take("ld_alpha")
    smoothing = foreign.number("dpo_label_smoothing", 0.0)
    if bco and method == "dpo":
        share = 1 / (1 + bco)
        losses = {"dpo": share, "bco_pair": 1 - share}
        return "mpo", {"objective": {**objective, "nll_weight": nll, "losses": losses}}
    if smoothing and method == "dpo":
        objective["label_smoothing"] = smoothing
    return method, {"objective": objective}


def _kto(foreign: Foreign) -> tuple[str, Values]:
    return "kto", {"objective": {
        "beta": foreign.number("pref_beta", 0.1),
        "desirable_weight": foreign.number("kto_chosen_weight", 1.0),
        "undesirable_weight": foreign.number("kto_rejected_weight", 1.0),
    }}  # fmt: skip


def _reward_model(foreign: Foreign) -> tuple[str, Values]:
    return "reward_model", {}


PARTS: Mapping[str, Callable[[Foreign], tuple[str, Values]]] = {
    "pt": _pretrain, "sft": _supervised, "dpo": _pairs, "kto": _kto, "rm": _reward_model,
}  # fmt: skip
