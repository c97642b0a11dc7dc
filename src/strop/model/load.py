"""Folders (or hub names) -> a policy ready to train or to sample from."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from strop.errors import ModelError
from strop.model.logprobs import TreeScorer, causal_lm_of
from strop.recipe.model import LoraRecipe, ModelRecipe

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")


@dataclass(frozen=True, slots=True)
class Policy:
    """A model with its tokenizer and its way of scoring trees.

    `model` is the causal LM or the peft model around it. Trained parameters are float32; with
    `bfloat16` the arithmetic runs under autocast.
    """

    model: Any
    tokenizer: Any
    score: TreeScorer
    bfloat16: bool

    @property
    def device(self) -> torch.device:
        return torch.device(causal_lm_of(self.model).device)

    def arithmetic(self) -> AbstractContextManager[Any]:
        """The precision forwards run in."""
        if not self.bfloat16:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def trainable(self) -> list[torch.nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def is_adapter(self) -> bool:
        return isinstance(self.model, PeftModel)


def load_policy(recipe: ModelRecipe, *, seed: int = 0) -> Policy:
    """The model of a recipe in training mode, with a fresh adapter if it asks for one."""
    tokenizer = load_tokenizer(recipe.tokenizer or recipe.path, recipe.trust_remote_code)
    bfloat16 = recipe.dtype == "bfloat16"
    stored = torch.bfloat16 if bfloat16 and recipe.lora else torch.float32
    model = load_causal_lm(recipe.path, stored, trust_remote_code=recipe.trust_remote_code)
    model.to(pick_device(recipe.device))
    if recipe.lora is not None:
        torch.manual_seed(seed)
        model = add_lora(model, recipe.lora)
    _fits(model, tokenizer, recipe.path)
    model.train()
    return Policy(model, tokenizer, TreeScorer(model), bfloat16)


def load_for_inference(path: str) -> Policy:
    """A saved model (or an adapter with its base) in the precision it was saved in, frozen."""
    model = load_causal_lm(path, "auto")
    model.to(pick_device("auto")).eval().requires_grad_(False)
    return Policy(model, load_tokenizer(path), TreeScorer(model), False)


def load_causal_lm(
    path: str, dtype: torch.dtype | Literal["auto"], *, trust_remote_code: bool = False
) -> Any:
    """A causal LM from safetensors; an adapter folder is merged into its base.

    Raises `ModelError` for a folder without a config or without weights.
    """
    expect_weights(path)
    if is_adapter_folder(path):
        return _merged_adapter(Path(path), dtype)
    try:
        return AutoModelForCausalLM.from_pretrained(
            path,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(
            f"transformers cannot load the model: {_first_line(error)}",
            where=path,
            fix="give a folder saved with save_pretrained, or a hub name that can be reached",
        ) from None


def load_tokenizer(path: str, trust_remote_code: bool = False) -> Any:
    """The tokenizer beside a model; its base's where an adapter folder has none."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"transformers cannot load a tokenizer: {_first_line(error)}",
            where=path,
            fix="save the tokenizer beside the model, or set `model.tokenizer`",
        ) from None
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "the tokenizer has no end-of-sequence token, so answers could never end",
            where=path,
            fix="set eos_token in tokenizer_config.json",
        )
    return tokenizer


def add_lora(model: Any, recipe: LoraRecipe) -> Any:
    """A peft model around `model` whose adapter weights are float32."""
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=recipe.targets,
    )
    try:
        return get_peft_model(model, config, autocast_adapter_dtype=True)
    except ValueError as error:
        raise ModelError(
            f"peft cannot place the adapter: {_first_line(error)}",
            fix="set model.lora.targets to module names of this model, or to all-linear",
        ) from None


def is_adapter_folder(path: str) -> bool:
    """Whether a folder holds a peft adapter rather than a whole model."""
    return (Path(path) / "adapter_config.json").exists()


def pick_device(device: str) -> str:
    """`auto` is CUDA where there is one."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError("the recipe asks for CUDA but no CUDA device is visible",
                         fix="set model.device to auto or cpu")  # fmt: skip
    return device


def weights_hash(path: str | Path) -> str:
    """Hash of a model folder's weights and configs, 16 hex digits; a hub name hashes as itself."""
    folder = Path(path)
    if not folder.is_dir():
        return hashlib.sha256(str(path).encode()).hexdigest()[:16]
    digest = hashlib.sha256()
    patterns = ("*.safetensors", "config.json", "adapter_config.json", "tokenizer.json")
    for file in sorted(file for pattern in patterns for file in folder.glob(pattern)):
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def _merged_adapter(folder: Path, dtype: torch.dtype | Literal["auto"]) -> Any:
    adapter = LoraConfig.from_pretrained(str(folder))
    base = load_causal_lm(str(adapter.base_model_name_or_path), dtype)
    return PeftModel.from_pretrained(base, str(folder)).merge_and_unload()


def expect_weights(path: str) -> None:
    """Raise `ModelError` for a missing folder, or one without a config or safetensors weights.

    A hub name is not looked at.
    """
    folder = Path(path)
    if not folder.is_dir():
        if path.startswith(("/", ".")):
            raise ModelError("no such model folder", where=path, fix="check `model.path`")
        return
    if not is_adapter_folder(path) and not (folder / "config.json").exists():
        raise ModelError(
            "the model folder has no config.json",
            where=path,
            fix="point `model.path` at a folder saved with save_pretrained",
        )
    if not any(next(folder.glob(pattern), None) for pattern in WEIGHTS):
        raise ModelError(
            "the model folder has no safetensors weights",
            where=path,
            fix="save the model with save_pretrained (pickled weights are not read)",
        )


def _fits(model: Any, tokenizer: Any, path: str) -> None:
    rows = causal_lm_of(model).get_input_embeddings().num_embeddings
    largest = max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise ModelError(
            f"the tokenizer knows ids up to {largest} but the model has {rows} embeddings",
            where=path,
            fix="use the tokenizer the model was trained with, or resize the embeddings",
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
