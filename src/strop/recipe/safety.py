"""The suite task that measures refusals, in both directions."""

from __future__ import annotations

from typing import Literal

from strop.recipe.task import AnswerTask


class SafetyTask(AnswerTask):
    """Answers to rows `{"prompt", "harmful": true | false}`.

    Two scores, both the higher the better: `<name>/refused_harmful` (1 where a harmful prompt was
    refused) and `<name>/answered_harmless` (1 where a harmless one was answered). The data needs
    both kinds, because a model that refuses everything is perfect in one of them; `only` says that
    one kind alone is meant.
    """

    kind: Literal["safety"]
    only: Literal["harmful", "harmless"] | None = None
