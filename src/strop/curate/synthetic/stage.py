"""Generating as a stage of a pipeline: the engine and the reward are options like any others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from strop.curate.synthetic.best_of import best_of, reject
from strop.curate.synthetic.critique import critique
from strop.curate.synthetic.engines import engine_for
from strop.curate.synthetic.generation import Generated, Target
from strop.curate.synthetic.reason import reason
from strop.curate.synthetic.self_instruct import self_instruct
from strop.errors import UsageError
from strop.recipe.base import Strict
from strop.recipe.synthetic import (
    BestOfRecipe,
    BestOfStage,
    CritiqueRecipe,
    CritiqueStage,
    GenerateRecipe,
    ReasonRecipe,
    ReasonStage,
    RejectRecipe,
    RejectStage,
    Rewarded,
    SelfInstructRecipe,
    SelfInstructStage,
)
from strop.recipe.train.data import DataSource
from strop.rewards.compose import Reward

Made = Callable[..., Generated]


class Run(Protocol):
    """Generates from these inputs into `output`."""

    def __call__(
        self,
        inputs: Sequence[DataSource],
        output: Path | None,
        settings: Any,
        *,
        overwrite: bool = False,
    ) -> Generated: ...


def _stage(made: Made, kind: type[GenerateRecipe], *, thoughts: bool = False) -> Run:
    """One kind of generation as a verb of `strop.curate.verbs`; a reward is given on where the
    options have one."""

    def run(
        inputs: Sequence[DataSource],
        output: Path | None,
        settings: Any,
        *,
        overwrite: bool = False,
    ) -> Generated:
        if output is None:
            raise UsageError("generating needs an output", fix="name a file or a folder")
        who = settings.engine
        cache = None if who.cache is None else Path(who.cache)
        target = Target(output, cache, overwrite)
        engine = engine_for(
            settings,
            target,
            model=who.model,
            engine=who.engine,
            url=who.url,
            model_name=who.model_name,
            recorded=who.recorded,
            thoughts=thoughts,
        )
        recipe = kind.model_validate(settings.model_dump(include=set(kind.model_fields)))
        if isinstance(settings, Rewarded):
            return made(inputs, engine, Reward(settings.reward), recipe, target)
        return made(inputs, engine, recipe, target)

    return run


STAGES: Mapping[str, tuple[type[Strict], Run]] = {
    "generate self-instruct": (SelfInstructStage, _stage(self_instruct, SelfInstructRecipe)),
    "generate best-of": (BestOfStage, _stage(best_of, BestOfRecipe)),
    "generate reject": (RejectStage, _stage(reject, RejectRecipe)),
    "generate reason": (ReasonStage, _stage(reason, ReasonRecipe, thoughts=True)),
    "generate critique": (CritiqueStage, _stage(critique, CritiqueRecipe)),
}
"""By the verb's name: its options, and what does it."""
