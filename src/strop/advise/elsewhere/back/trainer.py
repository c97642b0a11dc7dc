"""The arguments of transformers' Trainer as parts of a recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from strop.advise.elsewhere.back.foreign import Foreign, Values
from strop.advise.elsewhere.parts.pairs import TRL_LOSS
from strop.errors import RecipeError

EIGHT_BIT = ("adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit")
"""transformers' names of AdamW with moments of 8 bits by bitsandbytes."""

SINKS = ("mlflow", "wandb", "trackio")


def output_and_seed(foreign: Foreign) -> Values:
    return {"output": str(foreign.take("output_dir", "run")),
            "seed": int(foreign.take("seed", 42))}  # fmt: skip


def optimizer(foreign: Foreign, rate: float) -> Values:
    """`optim` of a recipe; `rate` is the learning rate that the system takes by itself."""
    learning_rate = foreign.number("learning_rate", rate)
    betas = [foreign.number("adam_beta1", 0.9), foreign.number("adam_beta2", 0.999)]
    return {
        "optimizer": adamw(foreign, "optim"),
        "learning_rate": learning_rate,
        **schedule(foreign, "lr_scheduler_type", "linear", learning_rate),
        "warmup_ratio": warmup(foreign),
        "weight_decay": foreign.number("weight_decay", 0.0),
        "betas": betas,
        "max_grad_norm": foreign.number("max_grad_norm", 1.0),
    }


def adamw(foreign: Foreign, key: str) -> str:
    """Which AdamW of strop stands for an optimizer of transformers."""
    name = str(foreign.take(key, "adamw_torch"))
    chosen = "adamw_8bit" if name in EIGHT_BIT else "adamw"
    if not name.startswith("adamw"):
        foreign.say(f"`{key}`: {name} becomes {chosen}")
    return chosen


def schedule(foreign: Foreign, key: str, usual: str, rate: float) -> Values:
    """The schedule and the share of the rate at its end."""
    name = str(foreign.take(key, usual))
    options = foreign.take("lr_scheduler_kwargs", {})
    if name in ("cosine", "linear"):
        return {"schedule": name, "final_ratio": 0.0}
    if name in ("constant", "constant_with_warmup"):
        return {"schedule": "constant"}
    if name == "cosine_with_min_lr":
        ratio = options.get("min_lr_rate", float(options.get("min_lr", 0.0)) / rate)
        return {"schedule": "cosine", "final_ratio": float(ratio)}
    if name == "polynomial" and float(options.get("power", 1.0)) == 1.0:
        return {"schedule": "linear", "final_ratio": float(options.get("lr_end", 1e-7)) / rate}
    foreign.say(f"`{key}`: strop has no schedule {name}; the recipe says cosine")
    return {"schedule": "cosine", "final_ratio": 0.0}


def warmup(foreign: Foreign) -> float:
    """The warm-up as a share of the run."""
    ratio = foreign.number("warmup_ratio", 0.0)
    steps, total = foreign.number("warmup_steps", 0.0), foreign.number("max_steps", -1)
    if 0 < steps < 1:
        return steps
    if steps and total > 0:
        return steps / total
    if steps:
        foreign.say(f"`warmup_steps`: a recipe counts the warm-up as a share of the run, which is "
                    f"not known here: set `optim.warmup_ratio` for {steps:g} steps")  # fmt: skip
    return ratio


def length(foreign: Foreign, epochs: str, usual: float, updates: int = 1) -> Values:
    """`run.steps` or `run.epochs`; `updates` are the optimizer steps of a step of strop."""
    steps = int(foreign.take("max_steps", -1))
    passes = foreign.number(epochs, usual)
    return {"steps": max(1, steps // updates)} if steps > 0 else {"epochs": passes}


def checkpoints(foreign: Foreign, updates: int = 1) -> Values:
    strategy, every = foreign.take("save_strategy", "steps"), foreign.number("save_steps", 500)
    kept = foreign.take("save_total_limit")
    found: Values = {}
    if strategy == "steps" and every >= 1:
        found["save_every"] = max(1, math.ceil(every / updates))
    elif strategy not in ("no", False):
        foreign.say(
            f"`save_strategy`: {strategy} has no counterpart: the model is saved at the end"
        )
    if kept:
        found["keep_checkpoints"] = int(kept)
    told = foreign.take("report_to", [])
    sinks = [told] if isinstance(told, str) else list(told)
    found["sinks"] = [sink for sink in sinks if sink in SINKS]
    return found


def batch_size(foreign: Foreign, micro: str, usual: int) -> int:
    """Records of a step with one process."""
    return int(foreign.take(micro, usual)) * int(foreign.take("gradient_accumulation_steps", 1))


def evaluation(foreign: Foreign, data: Any) -> Values:
    """`eval` of a recipe, where the config measures held-out records every so many steps."""
    strategy = foreign.take("eval_strategy", "no")
    every = foreign.number("eval_steps", 500)
    foreign.take("per_device_eval_batch_size")
    if strategy in ("no", False) or data is None:
        return {}
    return {"eval": {"data": data, "every": max(1, int(every))}}


def pair_method(
    foreign: Foreign, losses: Sequence[str], weights: Sequence[float] | None, smoothing: float
) -> tuple[str, Values]:
    """The method and objective whose loss is this sum of TRL's losses."""
    named = dict(zip(losses, weights or [1.0] * len(losses), strict=False))
    objective: Values = {}
    nll = named.pop("sft", 0.0)
    if nll:
        objective["nll_weight"] = float(nll)
    if set(named) == {"sigmoid", "robust"} and math.isclose(
        named["robust"], 2 * smoothing - 1, abs_tol=1e-9
    ):
        return "dpo", {**objective, "label_smoothing": smoothing}
    if len(named) == 1:
        return _single(foreign, *named.popitem(), smoothing, objective)
    methods = {loss: method for method, loss in TRL_LOSS.items()}
    unknown = [name for name in named if name not in methods]
    if unknown:
        raise RecipeError(f"strop has no loss {', '.join(unknown)}", fix="choose another loss")
    mixed = {methods[name]: float(weight) for name, weight in named.items()}
    return "mpo", {"nll_weight": float(nll), "losses": mixed}


def _single(
    foreign: Foreign, loss: str, weight: float, smoothing: float, objective: Values
) -> tuple[str, Values]:
    methods: Mapping[str, str] = {name: method for method, name in TRL_LOSS.items()}
    if loss == "sigmoid_norm":
        return "dpo", {**objective, "length_normalized": True}
    if loss not in methods:
        raise RecipeError(f"strop has no loss {loss}", fix=f"known: {', '.join(methods)}")
    if weight != 1.0:
        foreign.say(f"`loss_weights`: the weight {weight:g} of the only loss is left out")
    method = methods[loss]
    if method in ("robust_dpo", "exo_pair", "aot", "aot_unpaired"):
        if smoothing or method.startswith("aot"):
            objective["label_smoothing"] = smoothing
        elif method == "robust_dpo":
            method = "dpo"
    return method, objective
