"""Models whose head is their embeddings, and adapters that would change one of the two alone."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import torch


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
    """Whether an adapter with these targets changes the embeddings or the head, and the two are
    one: merged into the shared weights, what one of them learnt would change the other too."""
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
