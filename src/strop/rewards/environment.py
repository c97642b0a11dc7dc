"""The reward that an episode's environment gave."""

from __future__ import annotations

from collections.abc import Sequence

from strop.errors import RewardError
from strop.types import Text


def environment(
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
    environment_reward: Sequence[float | None] | None = None,
    **columns: object,
) -> list[float | None]:
    """What the environment gave in all, its turns and its end; `None` where it gave nothing.

    Raises `RewardError` for answers that are no episodes.
    """
    if environment_reward is None:
        raise RewardError(
            "the reward `environment` is an episode's, and these answers are none",
            fix="set rollout.environment, or take another reward",
        )
    return list(environment_reward)
