"""Plays an episode by running a user's agent, which asks the endpoint of its run."""

from __future__ import annotations

import asyncio
import secrets
import warnings
from pathlib import Path
from typing import Any

from strop.engines.engine import Request
from strop.episodes import Episode
from strop.recipe.train.environment import AgentRecipe
from strop.rollout.agents.capture import Capture
from strop.rollout.agents.endpoint import Endpoint
from strop.rollout.environment import Ask, FaultError
from strop.rollout.own.processes import EpisodeProcess, ForkServer, row_of
from strop.rollout.tools.tries import FailedError
from strop.text.encode import Encoder, Tokenizer
from strop.types import Finish


class AgentProcesses:
    """Where agents of a recipe run; raises `WorldError` for a file without such a function."""

    def __init__(self, recipe: AgentRecipe) -> None:
        self.server = ForkServer(Path(recipe.agent.file), recipe.agent.function)
        self.server.describe(agent=True)


class AgentPlay:
    """Every episode is one run of the agent, in a process of its own.

    An agent that raises, or ends its process, or gets no request answered, ends its episode as
    `error`; one whose own time is over ends it as `aborted`. Both are unscored, for strop cannot
    tell whose fault it was. Once a limit was met, the episode ends as `length` whatever the agent
    did then; one that failed then has no reward of its own, which is told and counted.
    """

    def __init__(
        self, processes: AgentProcesses, recipe: AgentRecipe, tokenizer: Tokenizer, context: int
    ) -> None:
        self._server, self._recipe = processes.server, recipe
        self._tokenizer, self._context = tokenizer, context
        self._vocabulary = max(tokenizer.get_vocab().values()) + 1
        self._endpoint = Endpoint()

    async def play(self, request: Request, ask: Ask) -> Episode:
        encoder = Encoder(self._tokenizer)
        capture = Capture(
            request, ask, encoder, self._recipe, context=self._context, vocabulary=self._vocabulary
        )
        key = self._endpoint.begin(capture)
        finish: Finish = "stop"
        reward: float | None = None
        failure = ""
        try:
            process = await self._server.fork()
            order = {"do": "run", "seed": secrets.token_hex(16), "base_url": self._endpoint.url,
                     "api_key": key, "row": row_of(request.prompt.task)}  # fmt: skip
            reward = await self._timed(process, order, capture)
        except (FailedError, FaultError) as error:
            finish, failure = "error", str(error)
        except TimeoutError:
            finish = "aborted"
            failure = f"its own time of {self._recipe.episode_seconds:g} s is over"
        finally:
            self._endpoint.end(key)
        return self._ended(capture, finish, reward, failure)

    def _ended(
        self, capture: Capture, finish: Finish, reward: float | None, failure: str
    ) -> Episode:
        """The episode of an agent that returned a reward, or failed."""
        agent = f"the agent {self._recipe.agent.function} of {self._recipe.agent.file}"
        if not capture.asked:
            why = failure or capture.limit or "it made none, or wrong ones"
            warnings.warn(f"no request of {agent} was answered: {why}", stacklevel=1)
            return capture.episode("error", None)
        cut = capture.asked[-1].completion.finish == "length"
        if limit := capture.limit or ("max_tokens of an answer" if cut else ""):
            if failure:
                warnings.warn(
                    f"{agent} failed once it had met a limit ({limit}), so that its episode has no "
                    f"reward of its own, and is unscored where the only reward is `environment`: "
                    f"{failure}",
                    stacklevel=1,
                )
            return capture.episode("length", reward, cut_short=bool(failure))
        if finish == "error":
            warnings.warn(f"{agent} failed: {failure}", stacklevel=1)
        return capture.episode(finish, reward)

    async def close(self) -> None:
        await self._endpoint.close()
        await asyncio.to_thread(self._server.close)

    async def _timed(
        self, process: EpisodeProcess, order: dict[str, Any], capture: Capture
    ) -> float | None:
        """The agent's reward. Raises `TimeoutError` once it has used its time, in which waiting for
        answers does not count."""
        running = asyncio.create_task(process.ask(order, None))
        try:
            while not running.done():
                left = self._recipe.episode_seconds - capture.clock.own
                if left <= 0:
                    raise TimeoutError
                await asyncio.wait([running], timeout=left)
            reward: float | None = running.result()["reward"]
            return reward
        finally:
            running.cancel()
            process.close()
