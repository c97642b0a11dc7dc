"""Environments in recipes: episodes of several turns in place of single answers."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, Tag, model_validator

from strop.recipe.base import LocalPath, Strict
from strop.recipe.train.game import GameName, LeagueMatchRecipe, OpponentRecipe
from strop.recipe.train.telling import tag, told_by
from strop.recipe.train.tools import ToolRecipe
from strop.recipe.train.user import UserRecipe


class EpisodeLimits(Strict):
    """What bounds an episode, and how its rewards are dealt to its turns.

    An episode ends after `max_turns` turns of the policy, once it has `max_episode_tokens` tokens
    (the prompt not counted; default: what the model reads), or after `episode_seconds`;
    `rollout.max_tokens` bounds one turn. `turns: together` asks for everybody's next turn at once,
    which repeats to the bit, and waits for the slowest environment; `as_they_come` does not wait.
    `credit: turn` compares what each turn and those after it earned with the same turn of the
    group's other episodes; `episode` gives all turns the episode's advantage. At most `at_once`
    environments run at a time.
    """

    max_turns: int = Field(8, ge=1)
    max_episode_tokens: int | None = Field(None, ge=1)
    episode_seconds: float = Field(600.0, gt=0)
    turns: Literal["as_they_come", "together"] = "as_they_come"
    credit: Literal["episode", "turn"] = "episode"
    at_once: int = Field(256, ge=1)


class OwnEnvironmentRecipe(EpisodeLimits):
    """A class of the user's own in TRL's `environment_factory` form: made without arguments, its
    public methods are tools, `reset` begins an episode, `get_reward` ends it.

    Each episode has a process of its own. A call that takes longer than `call_seconds`, or ends the
    process, is tried `retries` times more in a new one, after the episode's earlier calls.
    """

    file: LocalPath
    class_: str = Field(alias="class")
    call_seconds: float = Field(10.0, gt=0)
    retries: int = Field(3, ge=0)


class UserEnvironmentRecipe(EpisodeLimits):
    """A dialogue with a simulated `user`, who reads the policy's answers and goes on until content
    or out of patience."""

    user: UserRecipe


class ToolsEnvironmentRecipe(EpisodeLimits):
    """Tools alone: the policy calls them until it answers without a call. What its answer is worth
    is for the rewards to say."""

    tools: list[ToolRecipe] = Field(min_length=1)


class OpenEnvRecipe(EpisodeLimits):
    """An OpenEnv server at `url` (`http://127.0.0.1:8000`), of which each episode has a session.

    The policy acts by calls: of the server's tools, or of one named `step`, whose arguments are the
    action. With `answer_field` what it says is that field of the action, without any call.
    `observation_field` is what it reads of an observation; default: its only field, a tool's
    result, or all of it as JSON. An answer may take `call_seconds`.
    """

    url: str = Field(pattern="^https?://")
    answer_field: str | None = None
    observation_field: str | None = None
    call_seconds: float = Field(60.0, gt=0)


class GameRecipe(EpisodeLimits):
    """A game of two players. The policy's side is drawn for every task, as is its opponent: one of
    `opponents`, each as likely as the others, or one of a `league`.

    A move is the last word of an answer. One that is not legal loses; with `illegal: told` the
    first one of a game is answered with the legal moves instead. Up to `random_opening` moves are
    made at random before the game begins. A game that the limits cut short is lost.
    """

    game: GameName
    opponents: list[OpponentRecipe] = Field(default_factory=list)
    league: LeagueMatchRecipe | None = None
    illegal: Literal["loses", "told"] = "loses"
    random_opening: int = Field(0, ge=0)
    max_turns: int = Field(64, ge=1)

    @model_validator(mode="after")
    def _somebody_plays(self) -> Self:
        if bool(self.opponents) == (self.league is not None):
            raise ValueError("give either `opponents` or a `league`: [random, self], for example")
        return self


class AgentFunction(Strict):
    """`function(base_url, api_key, task)` of a Python file: an episode of an agent."""

    file: LocalPath
    function: str = "run"


class AgentRecipe(EpisodeLimits):
    """An agent that asks an OpenAI-compatible server, which strop is for it: it runs once for every
    episode, in a process of its own, and what it asks is sampled by the model in training.

    `max_turns` bounds its requests, and `episode_seconds` the time that it does not wait for them.
    """

    agent: AgentFunction


TELLING: dict[str, type[EpisodeLimits]] = {
    "class": OwnEnvironmentRecipe,
    "user": UserEnvironmentRecipe,
    "tools": ToolsEnvironmentRecipe,
    "url": OpenEnvRecipe,
    "game": GameRecipe,
    "agent": AgentRecipe,
}
"""The key that tells which environment a recipe means."""

EnvironmentRecipe = Annotated[
    Annotated[OwnEnvironmentRecipe, Tag(tag("class"))]
    | Annotated[UserEnvironmentRecipe, Tag(tag("user"))]
    | Annotated[ToolsEnvironmentRecipe, Tag(tag("tools"))]
    | Annotated[OpenEnvRecipe, Tag(tag("url"))]
    | Annotated[GameRecipe, Tag(tag("game"))]
    | Annotated[AgentRecipe, Tag(tag("agent"))],
    told_by(TELLING, f"give one of {', '.join(TELLING)}, which says what environment it is"),
]
