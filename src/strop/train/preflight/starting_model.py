"""The model that a run starts from: the recipe's, or a changed copy saved beside the run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import torch

from strop.files import publish
from strop.model.adapters import (
    ALL_LINEAR,
    TaskType,
    expect_targets,
    is_adapter_folder,
    is_tied,
    reaches_tied,
    untie,
)
from strop.model.load import (
    has_scalar_head,
    load_tokenizer,
    load_transformer,
    make_room,
    skeleton,
    stop_at,
)
from strop.model.routing import expect_routers
from strop.model.tensor_parallel import expect_plan
from strop.recipe.train.methods import Recipe, method_of
from strop.recipe.train.model import LoraRecipe, ModelRecipe
from strop.recipe.train.online import OnlineRecipe
from strop.text.chat.named import NAMED, with_template
from strop.text.ends import ends_of


def task_of(recipe: Recipe) -> TaskType:
    """The head of the trained network."""
    return "SEQ_CLS" if method_of(recipe).scalar_head else "CAUSAL_LM"


def expect_lora_targets(recipe: Recipe) -> None:
    """Raise `ModelError` for a LoRA target that no module matches, or experts in a dense model;
    loads no weights."""
    wanted: list[tuple[str, LoraRecipe | None, TaskType]] = [
        (recipe.model.path, recipe.model.lora, task_of(recipe))
    ]
    if recipe.critic is not None:
        wanted.append((recipe.critic.path, recipe.critic.lora, "SEQ_CLS"))
    for path, lora, head in wanted:
        if lora is not None and (lora.experts or lora.targets != ALL_LINEAR):
            expect_targets(skeleton(path, head, recipe.model.trust_remote_code), lora)


def expect_routing(recipe: Recipe) -> None:
    """Raise `UsageError` where routes are to be replayed, or routers to be balanced, in a model
    that has none; loads no weights."""
    asked = None
    if isinstance(recipe, OnlineRecipe) and recipe.rollout.routing_replay:
        asked = "rollout.routing_replay"
    elif recipe.model.router_aux_loss_coef is not None:
        asked = "model.router_aux_loss_coef"
    if asked is not None:
        path = recipe.model.path
        modules = skeleton(path, task_of(recipe), recipe.model.trust_remote_code)
        expect_routers(modules, asked, path)


def expect_tensor_plans(recipe: Recipe) -> None:
    """Raise `ModelError` for a model that `run.distributed.tensor` processes cannot compute in
    parts; loads no weights."""
    tensor = recipe.run.distributed.tensor
    if tensor == 1:
        return
    wanted = [(recipe.model.path, task_of(recipe))]
    if recipe.critic is not None:
        wanted.append((recipe.critic.path, "SEQ_CLS"))
    for path, head in wanted:
        expect_plan(skeleton(path, head, recipe.model.trust_remote_code), tensor, path)


def starting_model(recipe: Recipe, folder: Path) -> ModelRecipe:
    """The recipe's model, or a changed copy of it, saved as `base` in the run folder. The copy is
    merged if a new adapter or head goes on an adapter; untied if an adapter targets tied embeddings
    or the tied head, because merging would otherwise change both; and has room for more tokens if
    the adapter learns the tokens of a named template."""
    model = recipe.model
    merges, unties, grows = _merges(recipe), _unties(recipe), _grows(recipe)
    if not (merges or unties or grows):
        return model
    base = folder / "base"
    if not base.exists():
        temporary = folder / ".base.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        task: TaskType = "SEQ_CLS" if has_scalar_head(model.path) else "CAUSAL_LM"
        stored: torch.dtype | Literal["auto"] = torch.float32 if merges else "auto"
        trust = model.trust_remote_code
        start = load_transformer(model.path, stored, task=task, trust_remote_code=trust)
        tokenizer = load_tokenizer(model.tokenizer or model.path, trust)
        if grows:
            tokenizer = with_template(tokenizer, recipe.template)
            make_room(start, tokenizer, recipe.template)
            if task == "CAUSAL_LM":
                stop_at(start, ends_of(tokenizer))
        if (unties or grows) and is_tied(start):
            untie(start)
        start.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        publish(temporary, base)
    return model.moved(str(base))


def _merges(recipe: Recipe) -> bool:
    new_head = task_of(recipe) == "SEQ_CLS" and not has_scalar_head(recipe.model.path)
    return is_adapter_folder(recipe.model.path) and bool(recipe.model.lora or new_head)


def _grows(recipe: Recipe) -> bool:
    """Whether the adapter has to learn a named template's tokens, which the model never saw.
    Embeddings and head are then trained whole beside it."""
    return recipe.model.lora is not None and recipe.chat_template in NAMED


def _unties(recipe: Recipe) -> bool:
    model, lora = recipe.model, recipe.model.lora
    if lora is None or lora.targets == ALL_LINEAR:
        return False
    modules = skeleton(model.path, task_of(recipe), model.trust_remote_code)
    return reaches_tied(modules, lora.targets)
