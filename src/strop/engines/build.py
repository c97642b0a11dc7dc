"""The engine by which a model folder answers where nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from strop.engines.local.engine import LocalEngine
from strop.engines.served.fixed import FixedEngine
from strop.recipe.engine import LOCAL, FolderEngineRecipe
from strop.recipe.template import AS_IT_IS, TemplateRecipe

FolderEngine = LocalEngine | FixedEngine
"""Engines that write prompts themselves, with the tokenizer of a model folder."""

BY_KIND: Mapping[str, Callable[[str, Any, TemplateRecipe], FolderEngine]] = {
    "local": lambda path, recipe, template: LocalEngine(path, template=template),
    "vllm": FixedEngine,
    "sglang": FixedEngine,
}
"""The builder of each kind of engine."""


def folder_engine(
    path: str, recipe: FolderEngineRecipe = LOCAL, template: TemplateRecipe = AS_IT_IS
) -> FolderEngine:
    """The engine of a model folder (or hub name): in this process, or servers that hold it. Nothing
    is loaded or asked yet."""
    return BY_KIND[recipe.kind](path, recipe, template)
