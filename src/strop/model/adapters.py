"""Adapters over frozen weights, and frozen weights in 4 bits: everything that needs peft.

Importing peft takes longer than training a small run, so runs without an adapter never import it.
"""

from __future__ import annotations

import difflib
import json
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from strop.errors import ModelError
from strop.files import write_json
from strop.hub import fetched, in_cache
from strop.recipe.train.model import LoraRecipe

TaskType = Literal["CAUSAL_LM", "SEQ_CLS"]

ALL_LINEAR = "all-linear"
"""peft's name for all linear layers but the head."""

EXPERTS = "experts"
"""transformers' name for the module that holds all experts of a layer."""

OF_EXPERTS = ("gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3")
"""Modules that peft 0.21 takes for the router and the experts of a mixture, wherever they stand:
it adapts those instead, gate_up_proj with twice the rank."""

BLOCK = 64
"""Weights that share a scale in NF4 as bitsandbytes stores it."""


def add_lora(
    model: Any, recipe: LoraRecipe, task: TaskType = "CAUSAL_LM", *, new_tokens: bool = False
) -> Any:
    """A peft model around `model` with float32 adapter weights. A scalar head (`SEQ_CLS`) is
    trained whole, and so are embeddings and head if there are `new_tokens` to learn."""
    expect_targets(model, recipe)
    peft = _peft()
    config = peft.LoraConfig(
        task_type=task,
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=_modules_of(model, recipe),
        target_parameters=expert_parameters(model) if recipe.experts else None,
        use_rslora=recipe.rslora,
        use_dora=recipe.dora,
        modules_to_save=ends_of_network(model) if new_tokens else None,
    )
    try:
        return computed_in_place(peft.get_peft_model(model, config, autocast_adapter_dtype=True))
    except ValueError as error:
        raise ModelError(
            f"peft cannot place the adapter: {str(error).splitlines()[0]}",
            fix="set model.lora.targets to module names of this model, or to all-linear",
        ) from None


def computed_in_place(model: Any) -> Any:
    """Let the linear LoRA layers of a peft model add to a layer's output in place; returns it.

    peft adds `B(A(x)) * scale` out of place: three buffers as large as a layer's output (with
    4-bit weights a fourth, because it copies the output), of which one is kept. On a CPU the freed
    ones lie between those that are kept, where little else fits.
    """
    from peft.tuners.lora import LoraLayer  # slow to import

    for module in model.modules():
        if isinstance(module, LoraLayer) and isinstance(module.get_base_layer(), torch.nn.Linear):
            module.forward = InPlaceLora(module, module.forward)
    return model


class InPlaceLora:
    """The forward of one LoRA layer. What is not one plain adapter in the precision of its input is
    left to peft's own forward; the rest is the same sum, bit for bit."""

    def __init__(self, layer: Any, general: Callable[..., torch.Tensor]) -> None:
        self.layer, self.general = layer, general

    def __call__(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        layer = self.layer
        names = [name for name in layer.active_adapters if name in layer.lora_A]
        off = layer.disable_adapters or layer.merged or len(names) != 1 or args or kwargs
        if off or names[0] in layer.lora_variant or torch.is_autocast_enabled(x.device.type):
            return self.general(x, *args, **kwargs)
        name = names[0]
        down, up = layer.lora_A[name], layer.lora_B[name]
        if x.dtype != down.weight.dtype:
            return self.general(x)
        output = layer.base_layer(x)
        # into what is added, because the output of a 4-bit layer is a view that must stay
        added: torch.Tensor = up(down(layer.lora_dropout[name](x)))
        return added.mul_(layer.scaling[name]).add_(output)


def expert_parameters(model: Any) -> list[str]:
    """Names of the weights of a mixture's experts, as peft's `target_parameters`; none in a dense
    model. transformers holds all experts of a layer as parameters [experts, ...] of one module:
    `["experts.down_proj", "experts.gate_up_proj"]`."""
    places = (name.split(".")[-2:] for name, p in model.named_parameters() if p.dim() == 3)
    return sorted({".".join(place) for place in places if place[0] == EXPERTS})


def adapted_linear(model: Any) -> dict[str, torch.nn.Linear]:
    """The layers that `all-linear` adapts, by name: all but the head, and in a mixture without
    those that peft takes for experts."""
    left_out = OF_EXPERTS if expert_parameters(model) else ()
    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and module is not head
        and name.rpartition(".")[2] not in ("score", *left_out)
    }


def _modules_of(model: Any, recipe: LoraRecipe) -> str | list[str]:
    """The recipe's targets for peft, in whose hands `all-linear` would reach a mixture's experts
    and router unasked."""
    if recipe.targets != ALL_LINEAR or not expert_parameters(model):
        return recipe.targets
    return sorted({name.rpartition(".")[2] for name in adapted_linear(model)})


def expect_targets(model: Any, recipe: LoraRecipe) -> None:
    """Raise `ModelError` unless every target matches a module of the model, and unless the model
    has the experts that the recipe asks for."""
    targets = recipe.targets
    if recipe.experts and not expert_parameters(model):
        raise ModelError(
            f"model.lora.experts is set, but {type(model).__name__} has no experts",
            fix="drop model.lora.experts: a dense model's layers are in model.lora.targets",
        )
    if recipe.experts and not targets:
        return
    if targets == ALL_LINEAR:
        return
    taken = {name.rpartition(".")[2] for name in reached(model, targets)} & set(OF_EXPERTS)
    if taken and expert_parameters(model):
        raise ModelError(
            f"model.lora.targets: in a mixture peft takes {', '.join(sorted(taken))} for experts",
            fix="drop those targets, and set model.lora.experts: true to adapt the experts",
        )
    listed = [targets] if isinstance(targets, str) else targets
    missing = [t for t in listed if not reached(model, t if isinstance(targets, str) else [t])]
    if listed and not missing:
        return
    linear = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear | Conv1D)]
    known = list(dict.fromkeys(name.rpartition(".")[2] for name in linear))
    near = [m for name in missing for m in difflib.get_close_matches(name, known, 1)]
    hint = f"did you mean {', '.join(near)}? " if near else ""
    if isinstance(targets, str) and reached(model, [targets]):
        hint = f"a text is a pattern for whole names: write [{targets}]. "
    raise ModelError(
        f"model.lora.targets: no module of the model is called {', '.join(missing)}"
        if listed
        else "model.lora.targets is empty, so nothing would be trained",
        fix=f"{hint}its linear layers are {', '.join(known)}; {ALL_LINEAR} takes all but the head",
    )


def is_adapter_folder(path: str) -> bool:
    """Whether a folder holds a peft adapter rather than a whole model."""
    return (Path(path) / "adapter_config.json").exists()


def adapter_task(folder: str) -> TaskType:
    """The task type of a saved adapter."""
    return "SEQ_CLS" if str(_config(folder).task_type) == "SEQ_CLS" else "CAUSAL_LM"


def adapter_base(folder: str) -> str:
    """The model that an adapter belongs to: a folder or a hub name.

    A hub model of which the adapter names the commit is fetched, if it is not in the cache.
    """
    config = _config(folder)
    base = str(config.base_model_name_or_path)
    if config.revision is None or Path(base).is_dir():
        return base
    return str(fetched(base, config.revision))


def own_adapter(model: Any) -> str:
    """The name of a peft model's own adapter; others were loaded beside it later."""
    return str(next(iter(model.peft_config)))


def adapted_base(model: Any) -> str:
    """The model that a peft model's adapter goes over, as it was loaded."""
    return str(model.peft_config[own_adapter(model)].base_model_name_or_path)


def name_base(folder: Path) -> None:
    """In a saved adapter, write the base's name on the hub and its commit in the place of the
    folder of this machine's cache that it was read from. While it trains the folder stands there:
    peft looks at the base's config when it saves."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    found = in_cache(Path(config["base_model_name_or_path"] or ""))
    if found is not None:
        config["base_model_name_or_path"], config["revision"] = found
        write_json(path, config)


def adapter_rank(folder: str) -> int:
    """The rank of a saved adapter."""
    return int(_config(folder).r)


def _config(folder: str) -> Any:
    try:
        return _peft().LoraConfig.from_pretrained(folder)
    except Exception as error:  # noqa: BLE001 - a config of a folder's own can break any line of it
        raise ModelError(
            f"peft cannot read adapter_config.json: {str(error).splitlines()[:1]}",
            where=folder,
            fix="give a folder saved with save_pretrained",
        ) from None


def merge_adapter(base: Any, folder: str) -> Any:
    """The base with the adapter merged into its weights. Tied weights are untied first if the
    adapter changes only one of them."""
    return adapted(base, folder).merge_and_unload()


def adapted(base: Any, folder: str) -> Any:
    """The peft model of the base with a saved adapter, ready to be merged."""
    config = _config(folder)
    targets = config.target_modules or []
    changed = [targets] if targets != ALL_LINEAR else []
    changed += [config.modules_to_save] if config.modules_to_save else []
    if any(reaches_tied(base, names) for names in changed):
        untie(base)
    return _peft().PeftModel.from_pretrained(base, folder)


def without_adapter(model: Any) -> Any:
    """The base of a peft model as it was before."""
    return model.unload()


def dequantised(model: Any) -> Any:
    """A model in 4 bits with the numbers that its weights stand for as ordinary ones, in the
    precision that it computes with."""
    return model.dequantize()


def attach_adapter(model: Any, name: str, folder: str) -> Any:
    """The peft model around `model` (or `model` itself, if it is one) that also holds the adapter
    of this folder under this name; `only_adapter` says which one counts.

    Raises `ModelError` for an adapter that does not fit; the model is then as it was.
    """
    config = _config(folder)
    config.inference_mode = True
    wrapped = model if isinstance(model, _peft().PeftModel) else None
    try:
        if wrapped is None:
            wrapped = _peft().PeftModelForCausalLM(model, config, adapter_name=name)
        loaded = wrapped.load_adapter(folder, adapter_name=name)
        missing = [key for key in loaded.missing_keys if name in key.split(".")]  # of this one
        wrong = [*missing, *loaded.unexpected_keys]
        problem = f"its weights and its config differ in {wrong[0]}" if wrong else ""
    except Exception as error:  # noqa: BLE001 - files of a folder's own can break any line of it
        problem = str(error).strip().partition("\n")[0]
    if not problem:
        return wrapped
    if wrapped is model:
        wrapped.peft_config[name] = config  # peft forgets it where placing the adapter fails
        drop_adapter(wrapped, name)
    else:
        _strip(model)
    raise ModelError(f"the adapter does not fit the model: {problem}", where=folder,
                     fix="give one that was trained on this model")  # fmt: skip


def drop_adapter(model: Any, name: str) -> Any:
    """Free an adapter of a peft model. Returns the model itself, or the one below it where this
    was the last adapter."""
    if set(model.peft_config) == {name}:
        base = model.get_base_model()
        _strip(base)
        return base
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # which one counts is said before each use
        model.delete_adapter(name)
    return model


def _strip(model: Any) -> None:
    """Put a model's own modules back in the place of those that peft put around them, whatever
    state they are in."""
    from peft.tuners.tuners_utils import BaseTunerLayer  # slow to import
    from peft.utils.other import AuxiliaryTrainingWrapper

    stripped: set[str] = set()
    for name, module in list(model.named_modules()):
        if name.removesuffix(".base_layer") in stripped:
            stripped.add(name)  # experts have a layer for each parameter, one inside the other
        elif isinstance(module, BaseTunerLayer):
            module.enable_adapters(False)  # who decodes and holds the layer goes on as the base
            model.set_submodule(name, module.get_base_layer())
            stripped.add(name)
        elif isinstance(module, AuxiliaryTrainingWrapper):
            model.set_submodule(name, module.original_module)
    vars(model).pop("peft_config", None)  # else peft believes that there are adapters


@contextmanager
def only_adapter(model: Any, name: str | None) -> Iterator[None]:
    """Within it, a peft model runs with this adapter, or with none; any other model as it is."""
    if name is not None:
        model.set_adapter(name)
        yield
    elif isinstance(model, _peft().PeftModel):
        with model.disable_adapter():
            yield
    else:
        yield


@contextmanager
def instead(model: Any, name: str) -> Iterator[None]:
    """Within it, a peft model runs with this adapter, frozen, in place of the one that it trains;
    that one is trained again afterwards."""
    model.set_adapter(name, inference_mode=True)
    try:
        yield
    finally:
        model.set_adapter(own_adapter(model))


def merge_for_good(model: Any) -> None:
    """Merge a peft model's adapter into the weights below it, and tie weights as the config says,
    as saving and loading the merged model would. The peft model must not be used afterwards."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that 4-bit weights are rounded again
        model.merge_and_unload().tie_weights()


def put_adapter(model: Any, weights: Mapping[str, torch.Tensor]) -> None:
    """Put a saved adapter's weights into the peft model that wrote them."""
    _peft().set_peft_model_state_dict(model, weights)


def adapter_tensors(model: Any) -> dict[str, torch.Tensor]:
    """A peft model's adapter by the names under which it is saved."""
    tensors: dict[str, torch.Tensor] = _peft().get_peft_model_state_dict(model)
    return tensors


def nf4(compute: torch.dtype, kept_as: torch.dtype | None = None) -> BitsAndBytesConfig:
    """Normal-float weights of 4 bits with quantised scales (QLoRA, arXiv 2305.14314, section 3).

    `kept_as` is the type of the tensors that the packed bits are kept in (bytes, unless it says
    otherwise). They are no numbers of that type, and must not be cast.
    """
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
        bnb_4bit_quant_storage=kept_as,
    )


def exact_on_cpu(model: Any) -> Any:
    """Make a CPU compute with a quantised model's exact stored weights, both in training and in
    sampling.

    bitsandbytes 0.50 has two traps there. With bfloat16 products it repacks a layer's weights at
    the first forward in eval mode, with scales in bfloat16: sampler and trainer disagree from then
    on. With AVX-512 it misreads layers whose rows are not whole blocks (errors of 25 to 40 %, where
    4 bits cost 9 %): those raise `ModelError`.
    """
    names = {module: name for name, module in model.named_modules()}
    for module in _packed_layers(model):
        name = names[module]
        if module.weight.device.type != "cpu":
            continue
        if module.in_features % BLOCK:
            raise ModelError(
                f"4-bit weights on a CPU need rows of whole blocks of {BLOCK}; {name} has rows of "
                f"{module.in_features}",
                fix="drop `quantize` (a model this narrow fits as it is)",
            )
        module.support_avx512bf16_for_cpu = False
    return model


def with_plain_weights(model: Any, device: str) -> None:
    """Let the packed weights of a quantised model be plain parameters, which can be cut, and put
    their scales on `device`. Every forward of such a layer finds the scales in the layer."""
    for module in _packed_layers(model):
        packed = module.weight.data.as_subclass(torch.Tensor)
        module.quant_state.to(device)
        module.weight = torch.nn.Parameter(packed, requires_grad=False)


def weight_count(model: Any) -> int:
    """How many weights a model has; packed ones are counted as the numbers that they stand for."""
    packed = {m.weight: m.quant_state.shape.numel() for m in _packed_layers(model)}
    return sum(packed.get(p, p.numel()) for p in model.parameters())


def _packed_layers(model: Any) -> list[Any]:
    """The layers of a quantised model whose weights have 4 bits; of another model none."""
    if not getattr(model, "is_loaded_in_4bit", False):
        return []
    from bitsandbytes.nn import Linear4bit  # an extra

    return [module for module in model.modules() if isinstance(module, Linear4bit)]


def without_its_file(model: Any) -> None:
    """Give the weights of a quantised model that are not quantised (embeddings, norms) memory of
    their own.

    As they are loaded, they are places in the mapped file, and as long as one is used the whole
    file, which is as large as the model before it was quantised, counts as the process's memory.
    """
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.device.type == "cpu":
            parameter.data = parameter.data.clone()


def _peft() -> Any:
    import peft  # here alone, for the sake of start-up

    return peft


def reached(model: Any, targets: str | Collection[str]) -> list[str]:
    """Names of the modules that an adapter with these `targets` is placed on, as peft finds them: a
    name matches whole or after a dot, a text is a pattern for the whole name."""
    names = [name for name, _ in model.named_modules() if name]
    if isinstance(targets, str):
        return [name for name in names if re.fullmatch(targets, name)]
    ends = tuple(f".{target}" for target in targets)
    return [name for name in names if f".{name}".endswith(ends)]


def ends_of_network(model: Any) -> list[str]:
    """Names of the embeddings and, where the model has one, of the head over the vocabulary."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    return [name.rpartition(".")[2] for name, module in model.named_modules() if module in ends]


def is_tied(model: Any) -> bool:
    """Whether the head's weights are the embeddings' own."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def reaches_tied(model: Any, targets: str | Collection[str]) -> bool:
    """Whether an adapter with these targets changes the embeddings or the head while the two share
    weights: merging would then change both."""
    if not is_tied(model):
        return False
    shared = (model.get_input_embeddings(), model.get_output_embeddings())
    return any(model.get_submodule(name) in shared for name in reached(model, targets))


def untie(model: Any) -> None:
    """Give the head a copy of the embeddings as its own weights, in its config as well."""
    embeddings = model.get_input_embeddings().weight
    model.get_output_embeddings().weight = torch.nn.Parameter(
        embeddings.detach().clone(), requires_grad=embeddings.requires_grad
    )
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = False
