"""A recipe whose hub names stand for what cannot move: each revision becomes a commit."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, TypeVar

from strop.errors import HubError
from strop.hub import commit_of, fetched
from strop.recipe.train.data import DataSource
from strop.recipe.train.methods import Recipe
from strop.recipe.train.model import NamedModel
from strop.recipe.train.teacher import ModelTeacher
from strop.train.preflight.refuse import refuse

Model = TypeVar("Model", bound=NamedModel)
Source = TypeVar("Source", bound=DataSource)


def pinned(recipe: Recipe, *, force: bool, weights: bool = True) -> Recipe:
    """The recipe with the commit of every hub model and data set that it names.

    Models are fetched into the hub's cache, without `weights` as far as they describe the model;
    the run reads them from there. Its written recipe names them as `org/name` at that commit. A
    recipe that names nothing of the hub is returned as it is; one that would be refused (which
    `force` accepts in part) is refused before anything is fetched.
    """
    teacher = recipe.taught_by if isinstance(recipe.taught_by, ModelTeacher) else None
    models = [model for model in (recipe.model, recipe.critic, teacher) if model is not None]
    held_out = [] if recipe.eval is None else recipe.eval.data
    if not any(named.on_hub for named in (*models, *recipe.data, *held_out)):
        return recipe
    refuse(recipe, force=force)
    code = recipe.model.trust_remote_code
    model = _model(recipe.model, weights=weights, code=code)
    if model.tokenizer == recipe.model.path:
        model = model.model_copy(update={"tokenizer": None})  # the one beside the model, pinned
    changed: dict[str, Any] = {"model": model, "data": _sources(recipe.data)}
    if recipe.critic is not None:
        changed["value"] = _model(recipe.critic, weights=weights, code=code)
    if teacher is not None:
        held = teacher.engine is None  # servers that hold it need no weights from here
        changed["teacher"] = _model(
            teacher, weights=weights and held, code=teacher.trust_remote_code
        )
    if recipe.eval is not None:
        changed["eval"] = recipe.eval.model_copy(update={"data": _sources(held_out)})
    return recipe.model_copy(update=changed)


def _model(model: Model, *, weights: bool, code: bool) -> Model:
    if not model.on_hub:
        return model
    folder = fetched(model.path, model.revision, weights=weights, code=code)
    return model.at(str(folder), folder.name)


def _sources(sources: Sequence[Source]) -> list[Source]:
    return [_source(source) if source.on_hub else source for source in sources]


def _source(source: Source) -> Source:
    """Without the hub, a data set that the cache holds can still be read, but not pinned."""
    assert source.hub is not None
    try:
        commit = commit_of(source.hub, source.revision, "dataset")
    except HubError as error:
        warnings.warn(f"{source.name} is not pinned to a commit: {error.problem}", stacklevel=4)
        return source
    return source.model_copy(update={"revision": commit})
