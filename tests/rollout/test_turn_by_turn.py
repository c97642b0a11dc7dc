"""The time of an environment: its own work counts, waiting for the policy does not."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from typing import Any

import pytest
from pydantic import TypeAdapter

from strop.engines.engine import Request
from strop.recipe.train.environment import EnvironmentRecipe, GameRecipe
from strop.rollout.environments import way_of
from strop.rollout.turn_by_turn import Account
from strop.types import Completion
from tests.support.episodes import ScriptedEngine, asked


class Leaping(asyncio.SelectorEventLoop):
    """A loop whose clock stands still while something can be done, and leaps where nothing can."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        waiting = [handle for handle in self._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
        if not self._ready and waiting:  # type: ignore[attr-defined]
            self.now = max(self.now, min(handle.when() for handle in waiting))
        super()._run_once()  # type: ignore[misc]


def leapt(work: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=Leaping) as runner:
        return runner.run(work)


def test_time_stands_still_while_an_environment_waits_for_the_policy() -> None:
    """Ten seconds: 4 of work, 100 of waiting, 3 of work; then 2 and not 4 more."""
    account = Account(10.0)

    async def work(before: float, waited: float, after: float) -> str:
        await asyncio.sleep(before)
        if waited:
            await account.untimed(asyncio.sleep(waited))
        await asyncio.sleep(after)
        return "done"

    async def episode() -> None:
        assert await account.timed(work(4, 100, 3)) == "done"
        assert account.left == pytest.approx(3.0)
        assert await account.timed(work(1, 0, 1)) == "done"
        assert account.left == pytest.approx(1.0)
        with pytest.raises(TimeoutError):
            await account.timed(work(0, 100, 2))

    leapt(episode())


def test_answers_that_are_waited_for_at_once_count_nothing() -> None:
    """From 1 to 9 some answer is awaited; then 1 second of work."""
    account = Account(2.5)

    async def work() -> None:
        await asyncio.sleep(1)
        first, second = account.untimed(asyncio.sleep(5)), account.untimed(asyncio.sleep(8))
        await asyncio.gather(first, second)
        await asyncio.sleep(1)

    async def episode() -> None:
        await account.timed(work())
        assert account.left == pytest.approx(0.5)

    leapt(episode())


def test_an_answer_that_comes_after_the_environments_work_changes_nothing() -> None:
    account = Account(4.0)

    async def episode() -> None:
        async def work() -> asyncio.Task[None]:
            late = asyncio.ensure_future(account.untimed(asyncio.sleep(50)))
            await asyncio.sleep(1)
            return late

        late = await account.timed(work())
        await late
        with pytest.raises(TimeoutError):
            await account.timed(asyncio.sleep(6))

    leapt(episode())


def test_a_game_against_oneself_takes_as_long_as_the_policy_thinks(tokenizer: Any) -> None:
    """Each answer takes 100 seconds, and the environment may take 10 in all."""
    given = {"game": "tic_tac_toe", "opponents": ["self"], "episode_seconds": 10.0}
    recipe = TypeAdapter(EnvironmentRecipe).validate_python(given)
    assert isinstance(recipe, GameRecipe)

    def first_free(prompt: str, request: Request) -> str:
        board = "".join(re.findall(r"[XO1-9]{3}(?=\n)", prompt)[-3:])
        return next(sign for sign in board if sign.isdigit())

    engine = ScriptedEngine(tokenizer, first_free, end="<|end|>")
    (told,) = asked(tokenizer, [[{"role": "user", "content": "?\n"}]])

    class Slow:
        request = told

        async def __call__(
            self, prompt_ids: tuple[int, ...], *, opened: str = "", max_tokens: int | None = None
        ) -> Completion:
            await asyncio.sleep(100)
            prompt = type(told.prompt)(told.prompt.task, prompt_ids, opened, told.prompt.salt)
            return engine.answer(Request(prompt, told.sampling, told.key))

    episode = leapt(way_of(recipe).play(tokenizer, 4096).play(told, Slow()))
    assert episode.finish == "stop"
    assert len(engine.asked) == 7
