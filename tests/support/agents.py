"""Agents that are played with an engine that follows a script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from strop.engines.engine import Request
from strop.episodes import Episode
from strop.recipe.train.environment import AgentRecipe
from strop.rollout.environments import way_of
from strop.rollout.play import Player
from strop.text.parse import decode
from strop.types import Task
from tests.support.episodes import Say, ScriptedEngine, asked
from tests.support.templates import speaking

PROMPT = [{"role": "user", "content": "What is 2 + 3?"}]


def speaker(tokenizer: Any, template: str) -> Any:
    told = speaking(tokenizer, template)
    told.init_kwargs["end_of_turn"] = ["<|im_end|>"]
    return told


def played(
    file: Path, tokenizer: Any, say: Say, function: str,
    columns: Sequence[dict[str, Any]] = ({},), **limits: Any,
) -> list[Episode]:  # fmt: skip
    """An episode for each task with these columns."""
    recipe = AgentRecipe.model_validate(
        {"agent": {"file": str(file), "function": function}, **limits}
    )
    requests = asked(tokenizer, [PROMPT] * len(columns))
    given = [
        Request(with_columns(request.prompt, more), request.sampling, request.key)
        for request, more in zip(requests, columns, strict=True)
    ]
    engine = ScriptedEngine(tokenizer, say)
    player = Player(engine, way_of(recipe).play(tokenizer, 2048), recipe)
    try:
        found = dict(player.generate(given))
    finally:
        player.close()
    return [found[number] for number in range(len(given))]


def with_columns(prompt: Any, columns: dict[str, Any]) -> Any:
    task: Task = replace(prompt.task, columns=columns)
    return replace(prompt, task=task)


def texts(tokenizer: Any, episode: Episode) -> list[tuple[str, bool]]:
    """The runs of what was read and what was written."""
    runs: list[tuple[list[int], bool]] = []
    for token, written in zip(episode.ids, episode.sampled, strict=True):
        if not runs or runs[-1][1] != written:
            runs.append(([], written))
        runs[-1][0].append(token)
    return [(decode(tokenizer, ids, special=True), written) for ids, written in runs]
