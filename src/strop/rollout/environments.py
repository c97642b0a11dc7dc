"""From a recipe's environment to what plays its episodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from strop.errors import DataError, WorldError
from strop.recipe.train.environment import (
    AgentRecipe,
    EnvironmentRecipe,
    EpisodeLimits,
    GameRecipe,
    OpenEnvRecipe,
    OwnEnvironmentRecipe,
    ToolsEnvironmentRecipe,
    UserEnvironmentRecipe,
)
from strop.recipe.train.user import ModelUserRecipe, OwnUserRecipe, ScriptRecipe
from strop.rollout.agents.play import AgentPlay, AgentProcesses
from strop.rollout.environment import EnvironmentFactory, Play, Results
from strop.rollout.games.environment import SIDE, GameEnvironments, Rehearsals, Rules
from strop.rollout.openenv.environment import OpenEnvironments
from strop.rollout.own.toolbox import OwnToolboxes
from strop.rollout.rehearsal import rehearsed
from strop.rollout.tools.combined import CombinedToolboxes
from strop.rollout.tools.toolbox import ToolEnvironments
from strop.rollout.turn_by_turn import TurnByTurn
from strop.rollout.users.model import ModelUsers
from strop.rollout.users.scripted import OwnUsers, ScriptedUsers
from strop.rollout.users.user import UserEnvironments, Users
from strop.text.chat.template import ChatTemplate, Tools
from strop.text.encode import Tokenizer
from strop.types import Message, Task


@dataclass(frozen=True, slots=True)
class Way:
    """How a run plays its episodes: the `tools` that its prompts show, whether there are `rewards`
    of environments, and `play(tokenizer, context)`, which is given how many tokens the model
    reads. `expect(task)` raises `DataError` for a task that lacks what an episode of it needs.
    `results` hears of the games of training. `reads` are the columns that environments are given
    beside the prompt; `None` where they are given all. `begin(task)` begins an episode and ends it:
    what is said to the task before the policy's first turn, or `WorldError`; agents have none. The
    sum of an episode's rewards is within `bounds`, where they are known."""

    tools: Tools
    rewards: bool
    play: Callable[[Tokenizer, int], Play]
    expect: Callable[[Task], None] = lambda task: None
    results: Results | None = None
    reads: Sequence[str] | None = None
    begin: Callable[[Task], tuple[Message, ...]] | None = None
    bounds: tuple[float, float] | None = None


def turn_by_turn(factory: EnvironmentFactory, limits: EpisodeLimits) -> Way:
    """Episodes with environments of this factory."""
    return Way(
        factory.tools,
        factory.rewards,
        lambda tokenizer, context: TurnByTurn(factory, tokenizer, limits, context),
        begin=partial(rehearsed, factory, limits),
        bounds=factory.bounds,
    )


def _own(recipe: OwnEnvironmentRecipe) -> Way:
    toolboxes = OwnToolboxes(recipe)
    way = turn_by_turn(ToolEnvironments(toolboxes), recipe)
    return replace(way, expect=toolboxes.expect, reads=toolboxes.reads)


USERS: Mapping[type, Callable[[Any], Users]] = {
    ScriptRecipe: ScriptedUsers,
    OwnUserRecipe: OwnUsers,
    ModelUserRecipe: ModelUsers,
}


def _user(recipe: UserEnvironmentRecipe) -> Way:
    users = USERS[type(recipe.user)](recipe.user)
    way = turn_by_turn(UserEnvironments(users), recipe)
    return replace(way, expect=users.expect, reads=users.reads)


def _tools(recipe: ToolsEnvironmentRecipe) -> Way:
    return replace(turn_by_turn(ToolEnvironments(CombinedToolboxes(recipe)), recipe), reads=())


def _openenv(recipe: OpenEnvRecipe) -> Way:
    return turn_by_turn(OpenEnvironments(recipe), recipe)


def _game(recipe: GameRecipe) -> Way:
    rules = Rules(recipe)

    def play(tokenizer: Tokenizer, context: int) -> Play:
        return TurnByTurn(GameEnvironments(rules, tokenizer, context), tokenizer, recipe, context)

    begin = partial(rehearsed, Rehearsals(rules), recipe)
    return Way(
        None, True, play, results=rules.standings, reads=(SIDE,), begin=begin,
        bounds=Rehearsals.bounds,
    )  # fmt: skip


def _agent(recipe: AgentRecipe) -> Way:
    processes = AgentProcesses(recipe)

    def play(tokenizer: Tokenizer, context: int) -> Play:
        return AgentPlay(processes, recipe, tokenizer, context)

    return Way(None, True, play)


WAYS: Mapping[type[EpisodeLimits], Callable[[Any], Way]] = {
    OwnEnvironmentRecipe: _own,
    UserEnvironmentRecipe: _user,
    ToolsEnvironmentRecipe: _tools,
    OpenEnvRecipe: _openenv,
    GameRecipe: _game,
    AgentRecipe: _agent,
}
"""How each environment that a recipe can name is played."""


def way_of(recipe: EnvironmentRecipe) -> Way:
    """What the recipe names, looked at and ready."""
    return WAYS[type(recipe)](recipe)


def with_tools(task: Task, tools: Tools) -> Task:
    """The task, whose prompt shows these tools. Raises `DataError` for a prompt of plain text, and
    for a column `tools` that names others."""
    if not tools:
        return task
    if isinstance(task.prompt, str):
        raise DataError(
            "the prompt is plain text, and tools are shown by a chat template",
            where=str(task.origin),
            fix='write prompts as messages: [{"role": "user", "content": "..."}]',
        )
    if task.columns.get("tools", tools) != tools:
        raise DataError(
            "the column `tools` names other tools than those of the environment",
            where=str(task.origin),
            fix="drop the column: the environment's tools are shown",
        )
    return replace(task, columns={**task.columns, "tools": tools})


def expect_shown(tools: Tools, tokenizer: Tokenizer) -> None:
    """Raise `WorldError` where the model would not be told of the tools."""
    if not tools:
        return
    if tokenizer.chat_template is None:
        said = "the tokenizer has no chat template"
    elif not ChatTemplate(tokenizer).shows_tools:
        said = "the tokenizer's chat template does not write tools"
    else:
        return
    raise WorldError(
        f"the environment has tools, and {said}, so that the model would not know of them",
        fix="set chat_template in the recipe to one that does: those of Qwen 2.5, 3 and 3.5,"
        " Hermes, Llama 3.1 and later, Mistral (v3 and later), GLM 4, gpt-oss, SmolLM 3",
        key="rollout.environment",
    )
