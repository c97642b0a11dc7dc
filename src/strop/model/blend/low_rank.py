"""A LoRA adapter as what it adds to each weight, computed when it is asked for.

peft stores `lora_A` [rank, in] and `lora_B` [out, rank] of a module; the weight gains
`scale * B A`, with `scale = alpha / rank` (rsLoRA: `alpha / sqrt(rank)`). Hu et al. 2021
(arXiv 2106.09685), section 4.1; Kalajdzievski 2023 (arXiv 2312.03732).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from strop.data.json_text import parsed
from strop.errors import ModelError
from strop.files import read_text
from strop.model.blend.tensors import Tensors

CONFIG, FILE = "adapter_config.json", "adapter_model.safetensors"

BEFORE = "base_model.model."
"""What peft puts before the name of a module."""

PLAIN: Mapping[str, Any] = {
    "peft_type": "LORA", "bias": "none", "use_dora": False, "lora_bias": False,
    "modules_to_save": None, "target_parameters": None, "trainable_token_indices": None,
    "alpha_pattern": {},
}  # fmt: skip
"""What an adapter's config has to say for it to be a sum of two factors on every module."""


@dataclass(frozen=True, slots=True)
class LowRank:
    """`LowRank(folder, config, tensors, modules=("model.layers.0.self_attn.q_proj", ...))`."""

    folder: Path
    config: Mapping[str, Any]
    tensors: Tensors
    modules: tuple[str, ...]

    def scale(self, module: str) -> float:
        rank = self.rank(module)
        below = math.sqrt(rank) if self.config.get("use_rslora") else rank
        return float(self.config["lora_alpha"]) / below

    def rank(self, module: str) -> int:
        return self.tensors.places[_key(module, "A")].shape[0]

    def factors(self, module: str) -> tuple[torch.Tensor, torch.Tensor]:
        """A [rank, in] and B [out, rank] in float32."""
        return self.tensors.floating(_key(module, "A")), self.tensors.floating(_key(module, "B"))

    def added(self, weight: str, shape: Sequence[int]) -> torch.Tensor | None:
        """What the adapter adds to the weight of this name, or `None`; GPT-2's layers store it
        transposed."""
        module = weight.removesuffix(".weight")
        if module not in self.modules:
            return None
        down, up = self.factors(module)
        found = self.scale(module) * (up @ down)
        return found.T.contiguous() if self.config.get("fan_in_fan_out") else found.view(*shape)


def low_rank(folder: Path, base: Tensors) -> LowRank:
    """An adapter that is a plain LoRA over these weights.

    Raises `ModelError` for DoRA, weights trained whole beside it, and adapters of experts: they
    are no sum of two factors.
    """
    path = folder / CONFIG
    config = parsed(read_text(path, ModelError), str(path), fix="save the adapter again")
    other = [key for key, value in PLAIN.items() if config.get(key) not in (value, None, [], {})]
    if other:
        raise ModelError(
            f"the adapter is no plain LoRA ({other[0]} is {config[other[0]]!r})",
            where=str(folder),
            fix="merge it first (strop merge), and blend the merged model",
        )
    tensors = Tensors(folder)
    modules = tuple(
        key.removeprefix(BEFORE).removesuffix(".lora_A.weight")
        for key in tensors
        if key.endswith(".lora_A.weight")
    )
    strange = set(tensors) - {_key(m, side) for m in modules for side in "AB"}
    strange |= {module for module in modules if f"{module}.weight" not in base}
    if strange:
        raise ModelError(
            f"the adapter has {min(strange)}, and the base no weight that it is added to",
            where=str(folder),
            fix="merge it first (strop merge), and blend the merged model",
        )
    return LowRank(folder, config, tensors, modules)


def _key(module: str, side: str) -> str:
    return f"{BEFORE}{module}.lora_{side}.weight"


def write_sum(adapters: Sequence[LowRank], weights: Sequence[float], folder: Path) -> int:
    """Write `sum_i w_i s_i B_i A_i` as one adapter, exactly: the A of all below each other and the
    `w_i s_i B_i` of all beside each other, so the ranks add up. Returns the largest rank.

    Raises `ModelError` where the adapters stand on different modules: each module would have a rank
    of its own.
    """
    first = adapters[0]
    for other in adapters[1:]:
        only = sorted(set(first.modules) ^ set(other.modules))
        if only:
            raise ModelError(
                f"the adapters do not stand on the same modules ({only[0]} is in one of them)",
                where=str(other.folder),
                fix="blend them into a whole model: --as model",
            )
    ranks = {module: sum(one.rank(module) for one in adapters) for module in first.modules}
    made = {}
    for module in first.modules:
        factors = [one.factors(module) for one in adapters]
        scales = [w * one.scale(module) for w, one in zip(weights, adapters, strict=True)]
        made[_key(module, "A")] = torch.cat([down for down, _ in factors], 0)
        made[_key(module, "B")] = torch.cat(
            [scale * up for scale, (_, up) in zip(scales, factors, strict=True)], 1
        )
    kinds = {name: first.tensors.places[name].dtype for name in made}
    save_file({name: t.to(kinds[name]).contiguous() for name, t in made.items()}, folder / FILE,
              metadata={"format": "pt"})  # fmt: skip
    rank = max(ranks.values())
    uneven = {module: r for module, r in ranks.items() if r != rank}
    config = {**first.config, "r": rank, "lora_alpha": rank, "use_rslora": False,
              "rank_pattern": uneven, "alpha_pattern": uneven, "lora_dropout": 0.0}  # fmt: skip
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return rank
