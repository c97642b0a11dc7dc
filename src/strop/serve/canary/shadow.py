"""Answers of a version that nobody sees, beside those that are shown."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from strop.engines.server.lanes import Answered
from strop.files import digest64
from strop.recipe.serve import ShadowRecipe
from strop.rewards.compose import Reward, as_said
from strop.serve.answering import drawn
from strop.serve.exchange import Exchange
from strop.serve.models.version import Version
from strop.text.script import before_answer

MOST_WAITING = 32
"""Requests that wait for their shadow; further ones go without, so that nobody waits for it."""


@dataclass(slots=True, eq=False)
class Shadow:
    """Asks `version` what others were asked, and keeps both answers by `keep`."""

    recipe: ShadowRecipe
    version: Version
    reward: Reward | None
    keep: Callable[[dict[str, Any]], None]
    counts: dict[str, int] = field(
        default_factory=lambda: {"better": 0, "equal": 0, "worse": 0, "unscored": 0, "skipped": 0}
    )
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def follow(self, asked: Exchange, shown: str) -> None:
        """Answer this request as well, later, if its conversation is drawn."""
        if digest64(f"shadow/{asked.session}") / 2**64 >= self.recipe.share:
            return
        if len(self._tasks) >= MOST_WAITING:
            self.counts["skipped"] += 1
            return
        task = asyncio.get_running_loop().create_task(self._answer(asked, shown))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.counts["skipped"] += 1
            logging.getLogger("strop.serve").error("the shadow failed: %s", task.exception())

    async def _answer(self, asked: Exchange, shown: str) -> None:
        version = self.version
        prompted = await asyncio.to_thread(
            version.renderer.prompted, asked.prompt, asked.tools, asked.caller.name
        )
        own = replace(asked, version=version, prompted=prompted, n=1)
        said = ""
        async with aclosing(drawn(version, own.requests())) as stream:
            async for _, what in stream:
                if isinstance(what, Answered):
                    said = what.what.said
        scores = await asyncio.to_thread(self._scores, asked, shown, said)
        self.counts[_sign(scores)] += 1
        self.keep({"event": "shadow", "answer_id": asked.id, "version": version.label,
                   "weights": version.place.weights, "shadow_answer": said,
                   "scores": scores})  # fmt: skip

    def _scores(self, asked: Exchange, shown: str, said: str) -> Mapping[str, float | None] | None:
        if self.reward is None:
            return None
        prompts = [before_answer(asked.prompt)] * 2
        columns = {name: [value] * 2 for name, value in asked.metadata.items()}
        answers = [as_said(asked.prompt, shown), as_said(asked.prompt, said)]
        one, other = self.reward.judge(prompts, answers, columns, 2).scores
        return {"shown": one.total, "shadow": other.total}


def _sign(scores: Mapping[str, float | None] | None) -> str:
    if scores is None or scores["shown"] is None or scores["shadow"] is None:
        return "unscored"
    gain = scores["shadow"] - scores["shown"]
    return "equal" if gain == 0 else "better" if gain > 0 else "worse"
