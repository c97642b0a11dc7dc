"""Rewards in recipes: components, probes, reward files."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from strop.recipe.base import LocalPath, ModelPath, Strict

JUDGED = ("judge_win", "judge_score", "judge_rank", "rubric")
"""Rewards that a judge gives."""

ENVIRONMENT = "environment"
"""The reward that an episode's environment gives."""

SECONDS = 60.0
"""Default time limit for a call of a user's own function."""

UNSCORED = 0.5
"""Default share of a step's completions that a component may leave unscored."""


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port or a host
        return False


class RewardComponent(Strict):
    """One reward function: a built-in by name, `function` in the user's own `file` (Python; or
    OpenAI's grader as JSON with `function: grader`), or an HTTP endpoint (`url`).

    `options` are passed on as keyword arguments; `model` is the folder of a `reward_model`, `judge`
    the file of the judge that the `judge_` rewards and `rubric` ask, `rubric` its criteria; `name`
    labels it in logs (default: `function`). The total of a completion is the product of the `gate`s
    times the weighted sum of the others. `clip` bounds a component's values first; `normalize` then
    centres and scales them within each group of a training step (normalise-then-sum). A component
    without a score (`None`) leaves the completion unscored, unless it is `optional`: then it adds
    0, or multiplies by 1 as a gate. A run stops when it leaves more than `max_unscored` of a step's
    completions unscored three steps in a row.

    A Python function of your own runs in a worker process, `seconds` (60) a call at most;
    `in_process` runs it in strop's process, where nothing can end it. A function that is given from
    Python (`strop.train(recipe, rewards=[mine])`) is `given`, and no part of the recipe's values.
    """

    function: str
    file: LocalPath | None = None
    url: str | None = None
    model: ModelPath | None = None
    judge: LocalPath | None = None
    rubric: LocalPath | None = None
    weight: float = 1.0
    gate: bool = False
    optional: bool = False
    clip: tuple[float, float] | None = None
    normalize: bool = False
    name: str | None = None
    max_unscored: float | None = Field(None, ge=0, le=1)
    seconds: float | None = Field(None, gt=0)
    in_process: bool = False
    options: dict[str, Any] = Field(default_factory=dict)
    _given: Callable[..., Any] | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _model_is_read(self) -> Self:
        own = self.file is not None or self.url is not None
        if (self.function == "reward_model" and not own) != (self.model is not None):
            raise ValueError("`model` goes with function: reward_model, and that needs it")
        if self.file is not None and self.url is not None:
            raise ValueError("give `file` or `url`, not both")
        if self.url is not None and not _is_address(self.url):
            raise ValueError(f"url is {self.url!r}: write one like http://127.0.0.1:8000/score")
        return self

    @model_validator(mode="after")
    def _judge_is_read(self) -> Self:
        own = self.file is not None or self.url is not None
        judged = self.function in JUDGED and not own
        if judged != (self.judge is not None):
            raise ValueError(f"`judge` goes with function: {', '.join(JUDGED)}, and they need it")
        if (self.function == "rubric" and judged) != (self.rubric is not None):
            raise ValueError("`rubric` goes with function: rubric, and that needs it")
        return self

    @model_validator(mode="after")
    def _counts(self) -> Self:
        if self.weight == 0.0 or not math.isfinite(self.weight):
            raise ValueError(
                f"weight {self.weight:g} never counts: drop the component, or give it a weight"
            )
        if self.gate and self.weight != 1.0:
            raise ValueError("a gate multiplies the sum, so its weight is never read: drop it")
        if self.gate and self.normalize:
            raise ValueError("a gate is a factor, which centring would make negative: drop one")
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise ValueError(f"clip [{self.clip[0]:g}, {self.clip[1]:g}] leaves one value")
        return self

    @model_validator(mode="after")
    def _guards_are_read(self) -> Self:
        own = self.file is not None and self.function != "grader"
        if not own and (self.seconds is not None or self.in_process):
            raise ValueError(
                "`seconds` and `in_process` are for a Python function in a `file`; a built-in or "
                "an endpoint has its own time limit under `options`"
            )
        if self.in_process and self.seconds is not None:
            raise ValueError("what runs in strop's own process cannot be stopped: drop `seconds`")
        return self

    @property
    def is_environment(self) -> bool:
        """Whether it is what an episode's environment gives."""
        own = self.file is not None or self.url is not None or self._given is not None
        return self.function == ENVIRONMENT and not own

    @property
    def given(self) -> Callable[..., Any] | None:
        """The function itself, where it was given from Python."""
        return self._given

    def give(self, function: Callable[..., Any]) -> None:
        """Make this function the component's reward."""
        self._given = function

    @property
    def label(self) -> str:
        return self.name or self.function

    @property
    def time_limit(self) -> float:
        """Seconds that a call of an own function may take."""
        return SECONDS if self.seconds is None else self.seconds

    @property
    def unscored_limit(self) -> float:
        """Share of a step's completions that may be unscored; 1 for an optional component."""
        if self.max_unscored is not None:
            return self.max_unscored
        return 1.0 if self.optional else UNSCORED


def _labels_differ(components: list[RewardComponent]) -> list[RewardComponent]:
    labels = [component.label for component in components]
    if len(set(labels)) < len(labels):
        raise ValueError(f"two reward components share a name ({labels}): give one a `name`")
    return components


Rewards = Annotated[list[RewardComponent], AfterValidator(_labels_differ), Field(min_length=1)]
"""Components, the primary one (the task's verifier) first; each is logged under its own name."""

OptionalRewards = Annotated[list[RewardComponent], AfterValidator(_labels_differ)]
"""The same, or none where a method has another signal."""


class ProbesRecipe(Strict):
    """Attacks on the reward before step 1: if a critical one succeeds the run is refused, unless
    `accept` gives a reason to allow it (`{name: reason}`).

    They are built from `tasks` tasks of the data, or from `completions` (labelled real ones);
    `file` adds the user's own.
    """

    tasks: int = Field(default=80, ge=1)
    completions: LocalPath | None = None
    file: LocalPath | None = None
    accept: dict[str, Annotated[str, Field(min_length=1)]] = Field(default_factory=dict)


class RewardFile(Strict):
    """A file with a reward alone, which `strop reward` reads as well."""

    reward: Rewards
    probes: ProbesRecipe = ProbesRecipe()
