"""Folders (or hub names) -> networks ready to train or to sample from."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
)

from strop.data.json_text import parsed
from strop.errors import ModelError
from strop.files import SHORT, read_text, sha256_hex, sha256_of, sha256_of_hashes
from strop.model.adapters import (
    TaskType,
    adapter_base,
    adapter_task,
    add_lora,
    exact_on_cpu,
    is_adapter_folder,
    merge_adapter,
    nf4,
    without_its_file,
)
from strop.model.attention import recomputed_alike
from strop.model.kernels import use_kernels
from strop.model.logprobs import TreeScorer, bare
from strop.model.mapped import narrow_type, widened_late
from strop.model.network import Policy, ScalarNetwork
from strop.model.offload import checkpointed_on_host
from strop.model.scalar import ScalarScorer
from strop.model.sharding import Cut, Late, shard
from strop.recipe.template import AS_IT_IS, TemplateRecipe
from strop.recipe.train.model import LoraRecipe, ModelRecipe
from strop.text.chat.named import NAMED, with_template
from strop.text.ends import ends_of, set_stops

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")

TOKENIZERS = ("tokenizer*", "vocab*", "*.model", "spiece*")
"""Files of which a folder with a tokenizer has at least one."""

SAVED = "give a folder saved with save_pretrained"

LOADERS: dict[TaskType, tuple[Any, dict[str, Any]]] = {
    "CAUSAL_LM": (AutoModelForCausalLM, {}),
    "SEQ_CLS": (AutoModelForSequenceClassification, {"num_labels": 1}),
}
"""transformers' class for each kind of head, and its arguments."""


def load_policy(
    recipe: ModelRecipe,
    template: TemplateRecipe = AS_IT_IS,
    *,
    seed: int = 0,
    cut: Cut | None = None,
) -> Policy:
    """The causal LM of a recipe in training mode, with a fresh adapter if it asks for one; of one
    that is `cut`, this process's part.

    Its generation config stops at every token with which the tokenizer ends an answer.
    """
    model, tokenizer, late = _trained(recipe, template, "CAUSAL_LM", seed, cut is not None)
    if stop_at(bare(model), ends_of(tokenizer)) and recipe.lora is not None:
        warnings.warn(
            "the base model's generation_config.json does not stop where this adapter is taught to "
            "end an answer: merge it, or give `generate` the generation config beside the adapter",
            stacklevel=2,
        )
    half = recipe.dtype == "bfloat16"
    scorer = TreeScorer(model, bfloat16=half, loaded=cut is None)
    policy = Policy(model, tokenizer, half, scorer)
    if cut is not None:
        shard(policy, cut.mesh, cpu_offload=cut.cpu_offload, late=late)
    return policy


def load_scalar(
    recipe: ModelRecipe,
    template: TemplateRecipe = AS_IT_IS,
    *,
    seed: int = 0,
    cut: Cut | None = None,
) -> ScalarNetwork:
    """The recipe's model with a scalar head (a fresh one if the folder has none), in training mode;
    of one that is `cut`, this process's part. Its padding token is set so that transformers pools
    at the same token as strop."""
    model, tokenizer, late = _trained(recipe, template, "SEQ_CLS", seed, cut is not None)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    bare(model).config.get_text_config().pad_token_id = pad
    half = recipe.dtype == "bfloat16"
    scorer = ScalarScorer(model, bfloat16=half, loaded=cut is None)
    network = ScalarNetwork(model, tokenizer, half, scorer)
    if cut is not None:
        shard(network, cut.mesh, cpu_offload=cut.cpu_offload, late=late)
    return network


def load_for_inference(path: str, template: TemplateRecipe = AS_IT_IS) -> Policy:
    """A saved causal LM (or an adapter with its base) in its own precision, frozen."""
    model, tokenizer = _frozen(path, "CAUSAL_LM", template)
    return Policy(model, tokenizer, False, TreeScorer(model))


def load_reward_model(path: str) -> ScalarNetwork:
    """A saved sequence classifier with one label, in its own precision, frozen.

    Raises `ModelError` for a folder without a scalar head, because a fresh head's scores would be
    noise.
    """
    if not has_scalar_head(path):
        raise ModelError(
            "the folder holds no reward model (a sequence classifier with one label)",
            where=path,
            fix="train one with method: reward_model",
        )
    model, tokenizer = _frozen(path, "SEQ_CLS")
    return ScalarNetwork(model, tokenizer, False, ScalarScorer(model))


def _frozen(path: str, task: TaskType, template: TemplateRecipe = AS_IT_IS) -> tuple[Any, Any]:
    """A saved model in its own precision, and its tokenizer; raises if they do not fit."""
    model = load_transformer(path, "auto", task=task)
    tokenizer = load_tokenizer(path, template=template)
    make_room(model, tokenizer, template)
    _fits(model, tokenizer, path)
    return model.to(pick_device("auto")).eval().requires_grad_(False), tokenizer


def has_scalar_head(path: str) -> bool:
    """Whether a local folder holds a sequence classifier or an adapter for one."""
    if is_adapter_folder(path):
        return adapter_task(path) == "SEQ_CLS"
    config = Path(path) / "config.json"
    if not config.exists():
        return False
    described = parsed(read_text(config, ModelError), str(config), fix=SAVED)
    if not isinstance(described, dict):
        return False
    classifies = "SequenceClassification" in str(described.get("architectures"))
    labels = described.get("id2label", {"0": "LABEL_0"})
    return classifies and isinstance(labels, dict) and len(labels) == 1


def _trained(
    recipe: ModelRecipe, template: TemplateRecipe, task: TaskType, seed: int, is_cut: bool
) -> tuple[Any, Any, list[Late]]:
    """Model and tokenizer; of a model that will be cut, its files are mapped, and some weights come
    late."""
    tokenizer = tokenizer_of(recipe, template)
    torch.manual_seed(seed)  # a fresh head or adapter is drawn from the run's seed
    stored = torch.bfloat16 if recipe.dtype == "bfloat16" and recipe.lora else torch.float32
    narrow = narrow_type(recipe, template) if is_cut and stored == torch.float32 else None
    # a layer goes to its device when it is cut
    device = "cpu" if is_cut else pick_device(recipe.device)
    model = load_transformer(
        recipe.path,
        narrow or stored,
        task=task,
        trust_remote_code=recipe.trust_remote_code,
        quantized=None if recipe.quantize is None else nf4(stored, stored if is_cut else None),
        device=device,
    )
    late = widened_late(model, narrow, seed=seed) if narrow else []
    if recipe.quantize and not is_cut:
        without_its_file(model)
    make_room(model, tokenizer, template)
    if recipe.lora is None:
        model.requires_grad_(True)  # peft leaves a merged adapter's base frozen
    else:
        model.requires_grad_(False)
        named = template.chat_template in NAMED
        model = add_lora(model, recipe.lora, task, new_tokens=named)
    if recipe.kernels is not None:
        use_kernels(bare(model))
    if recipe.gradient_checkpointing:
        again: dict[str, Any] = {
            "use_reentrant": False,
            "context_fn": recomputed_alike(bare(model)),
        }
        bare(model).gradient_checkpointing_enable(again)
        if recipe.offload_activations:
            offloaded = checkpointed_on_host(again["context_fn"])
            bare(model)._set_gradient_checkpointing(gradient_checkpointing_func=offloaded)
    if task == "SEQ_CLS" and "score" not in dict(bare(model).named_children()):
        raise ModelError(
            f"{type(bare(model)).__name__} is no decoder with a `score` head",
            where=recipe.path,
            fix="start from a causal language model, or a reward model trained from one",
        )
    for parameter in model.parameters():
        if parameter.requires_grad:  # a head that peft trains whole comes in the stored precision
            parameter.data = parameter.data.float()
    _fits(model, tokenizer, recipe.path)
    model.train()
    return model, tokenizer, late


def load_transformer(
    path: str,
    dtype: torch.dtype | Literal["auto"],
    *,
    task: TaskType = "CAUSAL_LM",
    trust_remote_code: bool = False,
    quantized: Any = None,
    device: str = "cpu",
) -> Any:
    """A model from safetensors, `quantized` as this config says; an adapter folder is merged into
    its base.

    Raises `ModelError` for a folder without a config or without weights.
    """
    expect_weights(path)
    if is_adapter_folder(path):
        return _merged_adapter(path, dtype, task).to(device)
    if task == "CAUSAL_LM" and has_scalar_head(path):
        raise ModelError(
            "the folder holds a reward model: it has no language-model head to train or sample",
            where=path,
            fix="start from the model that the reward model was trained from",
        )
    loader, options = LOADERS[task]
    if quantized is not None:
        options = {**options, "quantization_config": quantized, "device_map": device}
    try:
        model = loader.from_pretrained(
            path,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            **options,
        )
    except Exception as error:  # noqa: BLE001 - a config of a folder's own can break any line of it
        raise ModelError(
            f"transformers cannot load the model: {_first_line(error)}",
            where=path,
            fix="give a folder saved with save_pretrained, or a hub name that can be reached",
        ) from None
    return model.to(device) if quantized is None else exact_on_cpu(model)


def tokenizer_of(recipe: ModelRecipe, template: TemplateRecipe = AS_IT_IS) -> Any:
    """The tokenizer that a recipe names, with the recipe's chat template."""
    path = recipe.tokenizer or recipe.path
    tokenizer = load_tokenizer(path, recipe.trust_remote_code, template)
    if recipe.tokenizer is not None:
        set_stops(tokenizer, stops_of(recipe.path))
    return tokenizer


def stops_of(path: str) -> list[int]:
    """Ids at which the generation config of a model folder (or hub model) stops."""
    try:
        config = GenerationConfig.from_pretrained(path)
    except (OSError, ValueError, TypeError):  # none, or none that can be read: it is no must
        return []
    return _listed(config.eos_token_id)


def stop_at(causal_lm: Any, ends: Sequence[int]) -> bool:
    """Set the generation config so that `generate` stops at the trained ends of answers; returns
    whether it did not before."""
    known = _listed(causal_lm.generation_config.eos_token_id)
    ids = list(dict.fromkeys([*known, *ends]))
    if not ids:
        return False
    for config in (causal_lm.generation_config, causal_lm.config.get_text_config()):
        if set(_listed(config.eos_token_id)) != set(ids):
            config.eos_token_id = ids if len(ids) > 1 else ids[0]
    return set(ids) != set(known)


def _listed(ids: int | list[int] | None) -> list[int]:
    """A config's ids (none, one or a list) as a list."""
    return ids if isinstance(ids, list) else [] if ids is None else [ids]


def load_tokenizer(
    path: str, trust_remote_code: bool = False, template: TemplateRecipe = AS_IT_IS
) -> Any:
    """The tokenizer beside a model; the base's if an adapter folder has none.

    It knows every token at which the model's generation config stops.
    """
    folder = Path(path)
    if folder.is_dir() and not any(next(folder.glob(kind), None) for kind in TOKENIZERS):
        raise ModelError(
            "the folder holds no tokenizer",
            where=path,
            fix="save the tokenizer beside the model, or set `model.tokenizer`",
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except Exception as error:  # noqa: BLE001 - the Rust library raises bare exceptions
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
    set_stops(tokenizer, stops_of(path))
    return with_template(tokenizer, template)


def load_config(path: str, trust_remote_code: bool = False) -> Any:
    """A model's config without its weights; an adapter's is that of its base."""
    base = adapter_base(path) if is_adapter_folder(path) else path
    try:
        return AutoConfig.from_pretrained(base, trust_remote_code=trust_remote_code)
    except Exception as error:  # noqa: BLE001 - a config of a folder's own can break any line of it
        raise ModelError(
            f"transformers cannot load the config: {_first_line(error)}", where=base, fix=SAVED
        ) from None


def skeleton(path: str, task: TaskType, trust_remote_code: bool = False) -> Any:
    """A model's modules without weights (the base's for an adapter), to see which can be
    adapted."""
    loader, options = LOADERS[task]
    config = load_config(path, trust_remote_code)
    for name, value in options.items():
        setattr(config, name, value)
    try:
        with torch.device("meta"):
            return loader.from_config(config, trust_remote_code=trust_remote_code)
    except Exception as error:  # noqa: BLE001 - a model of a folder's own can break in any line
        raise ModelError(
            f"transformers cannot make the model of this config: {_first_line(error)}",
            where=path,
            fix=SAVED,
        ) from None


def positions_of(config: Any) -> int | None:
    """How many tokens in a row the model was made for; `None` if its config sets no bound.

    Rotary positions that are stretched (YaRN) reach `factor` times as far as they first did.
    """
    text = config.get_text_config()
    most = getattr(text, "max_position_embeddings", None)
    if not isinstance(most, int) or most < 1:
        return None
    rotary = getattr(text, "rope_parameters", None) or {}
    first, factor = rotary.get("original_max_position_embeddings"), rotary.get("factor")
    return max(most, round(factor * first)) if first and factor else most


def pick_device(device: str) -> str:
    """`auto` is CUDA if there is a CUDA device, else the CPU."""
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
        return sha256_hex(str(path), SHORT)
    patterns = ("*.safetensors", "config.json", "adapter_config.json", "tokenizer.json")
    files = sorted(file for pattern in patterns for file in folder.glob(pattern))
    return sha256_of_hashes((file.name, _hash_as_it_stands(file)) for file in files)


def _hash_as_it_stands(file: Path) -> str:
    """The sha256 of a file; one that was not written to since is not read again."""
    found = file.stat()
    return _hashed(str(file.resolve()), found.st_ino, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1024)
def _hashed(path: str, *written: int) -> str:
    return sha256_of(Path(path))


def _merged_adapter(folder: str, dtype: torch.dtype | Literal["auto"], task: TaskType) -> Any:
    held = adapter_task(folder)
    merged = merge_adapter(load_transformer(adapter_base(folder), dtype, task=held), folder)
    if held == task:
        if task == "CAUSAL_LM":
            stop_at(merged, stops_of(folder))
        return merged
    raise ModelError(
        f"the adapter was trained for {held}, not for {task}",
        where=folder,
        fix="merge it and save the whole model, or start from its base",
    )


def holds_weights(folder: Path) -> bool:
    """Whether a folder has safetensors weights."""
    return any(next(folder.glob(pattern), None) for pattern in WEIGHTS)


def expect_weights(path: str) -> None:
    """Raise `ModelError` for a missing folder, or one without a config or safetensors weights.

    A hub name is not checked.
    """
    folder = Path(path)
    if not folder.is_dir():
        if folder.exists():
            raise ModelError("a model is a folder, this is a file", where=path, fix=SAVED)
        if path.startswith(("/", ".")):
            raise ModelError("no such model folder", where=path, fix="check the path")
        return
    _expect_confined(folder)
    if not is_adapter_folder(path) and not (folder / "config.json").exists():
        final = folder / "final"
        run = f"a run's model is in {final}" if final.is_dir() else ""
        raise ModelError(
            "the model folder has no config.json",
            where=path,
            fix=run or "point it at a folder saved with save_pretrained",
        )
    if not holds_weights(folder):
        raise ModelError(
            "the model folder has no safetensors weights",
            where=path,
            fix="save the model with save_pretrained (pickled weights are not read)",
        )


def _expect_confined(folder: Path) -> None:
    """Raise `ModelError` for a link that leads out of the folder: it could otherwise bring any file
    of this machine into a registry or an export.

    The hub's cache is built of links from `snapshots/<revision>` to its `blobs`; those may stay.
    """
    real = folder.resolve()
    homes = (real, real.parent.parent / "blobs") if real.parent.name == "snapshots" else (real,)
    for file in (file for file in folder.iterdir() if file.is_symlink()):
        if not any(file.resolve().is_relative_to(home) for home in homes):
            raise ModelError(
                f"the link leads out of the model folder, to {file.resolve()}",
                where=str(file),
                fix="put a copy of the file there",
            )


def critic_recipe(path: str, lora: LoraRecipe | None, policy: ModelRecipe) -> ModelRecipe:
    """The recipe of PPO's critic: the policy's device, precision and tokenizer."""
    tokenizer = policy.tokenizer or policy.path
    return policy.moved(path).model_copy(
        update={"lora": lora, "quantize": None, "tokenizer": tokenizer}
    )


def make_room(model: Any, tokenizer: Any, template: TemplateRecipe) -> None:
    """Add rows to the embeddings (and the head, tied or not) for the tokens that a named template
    added. Each is the mean of all others, so that it is close to no token and as likely as an
    average one."""
    known = model.get_input_embeddings().weight.shape[0]
    if template.chat_template not in NAMED or len(tokenizer) <= known:
        return
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        if layer is not None:
            with torch.no_grad():
                layer.weight[known:] = layer.weight[:known].mean(0)


def _fits(model: Any, tokenizer: Any, path: str) -> None:
    rows = bare(model).get_input_embeddings().weight.shape[0]
    largest = max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise ModelError(
            f"the tokenizer knows ids up to {largest} but the model has {rows} embeddings",
            where=path,
            fix="use the tokenizer the model was trained with, or resize the embeddings",
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
