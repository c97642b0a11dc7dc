"""A model whose weights stay in their files until each process reads its part of them.

transformers leaves a weight that it does not cast where it is: in the mapped file, of which only
what is looked at comes into memory. A weight that training needs in a wider type would be read
whole to be cast, so it is left as it is, and memory that nothing is written to stands in its place
until the model is cut (`strop.model.sharding`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from strop.model.adapters import is_adapter_folder
from strop.model.sharding import Late
from strop.recipe.template import TemplateRecipe
from strop.recipe.train.model import ModelRecipe
from strop.text.chat.named import NAMED

NARROW = {"BF16": torch.bfloat16, "F16": torch.float16}
"""Types of safetensors that float32 holds without rounding."""

SMALL = 2**16
"""Weights of so few elements (norms, a scalar head) are read at once."""


def narrow_type(recipe: ModelRecipe, template: TemplateRecipe) -> torch.dtype | None:
    """The type of all weights of a recipe's model, if they can be left as they are until it is cut:
    float32 holds them without rounding, and nothing looks at them before. Else `None`."""
    looked_at = recipe.quantize or template.chat_template in NAMED
    if looked_at or is_adapter_folder(recipe.path):
        return None
    found = set()
    for file in sorted(Path(recipe.path).glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            names = list(tensors.keys())
            found |= {tensors.get_slice(name).get_dtype() for name in names}
    return NARROW.get(found.pop()) if len(found) == 1 else None


def widened_late(model: Any, narrow: torch.dtype, *, seed: int) -> list[Late]:
    """Make a model that was read in the type `narrow` what it would be if it had been read in
    float32, except that large weights of its files come late. Buffers, and a head that the files
    do not have, are made anew: the head from `seed`."""
    late = []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dtype != narrow:
                continue  # it is tied to one that was seen, or float32 in any case
            if not _from_file(parameter):
                parameter.data = torch.empty(parameter.shape)
            elif parameter.numel() < SMALL:
                parameter.data = parameter.data.float()
            else:
                late.append(Late(module, name, parameter.data))
                parameter.data = torch.empty(parameter.shape)
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.dtype == narrow:
                kept = name not in module._non_persistent_buffers_set
                module._buffers[name] = buffer.float() if kept else torch.empty(buffer.shape)
    _make_anew(model, seed)
    for config in (model.config, model.config.get_text_config()):
        config.dtype = torch.float32
    return late


def _from_file(parameter: torch.Tensor) -> bool:
    """Whether transformers has read a weight; else it was drawn."""
    return getattr(parameter, "_is_hf_initialized", False)


def _make_anew(model: Any, seed: int) -> None:
    """Let transformers compute what is in no file once more."""
    for module in model.modules():
        drawn = not all(map(_from_file, module.parameters(recurse=False)))
        if drawn or module._non_persistent_buffers_set:
            module._is_hf_initialized = False
    torch.manual_seed(seed)
    model.initialize_weights()
