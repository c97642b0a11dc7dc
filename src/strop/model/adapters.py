"""Adapters over frozen weights, and frozen weights in 4 bits: all that needs peft.

peft takes longer to import than a small run takes to train, so a run without an adapter never does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import BitsAndBytesConfig

from strop.errors import ModelError
from strop.recipe.model import LoraRecipe

TaskType = Literal["CAUSAL_LM", "SEQ_CLS"]


def add_lora(model: Any, recipe: LoraRecipe, task: TaskType = "CAUSAL_LM") -> Any:
    """A peft model around `model` whose adapter weights are float32; a scalar head is trained
    whole (`SEQ_CLS`)."""
    peft = _peft()
    config = peft.LoraConfig(
        task_type=task,
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=recipe.targets,
        use_rslora=recipe.rslora,
        use_dora=recipe.dora,
    )
    try:
        return peft.get_peft_model(model, config, autocast_adapter_dtype=True)
    except ValueError as error:
        raise ModelError(
            f"peft cannot place the adapter: {str(error).splitlines()[0]}",
            fix="set model.lora.targets to module names of this model, or to all-linear",
        ) from None


def is_adapter_folder(path: str) -> bool:
    """Whether a folder holds a peft adapter rather than a whole model."""
    return (Path(path) / "adapter_config.json").exists()


def adapter_task(folder: str) -> TaskType:
    """What an adapter was trained for."""
    task = _peft().LoraConfig.from_pretrained(folder).task_type
    return "SEQ_CLS" if str(task) == "SEQ_CLS" else "CAUSAL_LM"


def adapter_base(folder: str) -> str:
    """The model that an adapter belongs to: a folder or a hub name."""
    return str(_peft().LoraConfig.from_pretrained(folder).base_model_name_or_path)


def merge_adapter(base: Any, folder: str) -> Any:
    """The base's weights with the adapter's added for good."""
    return _peft().PeftModel.from_pretrained(base, folder).merge_and_unload()


def put_adapter(model: Any, weights: Mapping[str, torch.Tensor]) -> None:
    """Put a saved adapter's weights into the peft model that wrote them."""
    _peft().set_peft_model_state_dict(model, weights)


def nf4(compute: torch.dtype) -> BitsAndBytesConfig:
    """Normal-float weights of 4 bits with quantised scales (QLoRA, arXiv 2305.14314, section 3)."""
    try:
        import bitsandbytes  # noqa: F401 - an extra: asked for here, used by transformers
    except ImportError:
        raise ModelError(
            "model.quantize needs bitsandbytes", fix="pip install 'strop[quantize]'"
        ) from None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def _peft() -> Any:
    import peft  # here alone, for the sake of start-up

    return peft
