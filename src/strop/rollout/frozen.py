"""A model that is not trained and is asked while others play: a simulated user, an opponent."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from dataclasses import replace

from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, Request, Sampling
from strop.engines.feed import Feed
from strop.engines.local.engine import LocalEngine
from strop.errors import ModelError
from strop.hub import NAME, fetched
from strop.model.load import expect_weights
from strop.rollout.environment import FaultError
from strop.types import Answer, Completion, Origin, Task, Text

BESIDE = Origin("beside", 0)
"""Where prompts come from that no file holds."""


ONE_AT_A_TIME = threading.Lock()
"""A tokenizer stands one thread at a time, and transformers loads one model at a time: of two that
are loaded together one gets no weights."""


def expect_model(path: str) -> None:
    """Raise `ModelError` or `HubError` where neither a folder nor the hub has this model; no
    weights are fetched."""
    expect_weights(path)
    if os.path.isdir(path):
        return
    if not NAME.fullmatch(path):
        raise ModelError(
            "no such model folder, and no name of the hub (org/name)",
            where=path,
            fix="check the path: a relative one is relative to the file that names it",
        )
    fetched(path, None, weights=False)


class FrozenModel:
    """A model folder, loaded when it is first asked, which answers in a thread of its own.

    Answers are drawn by the key that they are asked with, whoever asks meanwhile.
    """

    def __init__(self, path: str) -> None:
        self.engine = LocalEngine(path)
        self._feed = Feed()
        self._numbers = itertools.count()
        self._waiting: dict[int, tuple[asyncio.AbstractEventLoop, asyncio.Future[Answer]]] = {}
        self._thread: threading.Thread | None = None
        self._fault: str | None = None

    async def say(self, said: Text, sampling: Sampling, key: DrawKey) -> Completion:
        """Its next turn in a conversation (messages, or plain text)."""
        prompt = await asyncio.to_thread(self._prompt, Task(said, {}, BESIDE), sampling)
        ids = ",".join(map(str, prompt.prompt_ids))
        named = replace(key, prompt=f"{key.prompt}/beside {ids}")
        number = next(self._numbers)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting[number] = (loop, future)
        if self._fault is not None:  # looked at last: who came before it stood is told by `_work`
            raise FaultError(self._fault)
        self._feed.put([(number, Request(prompt, sampling, named))])
        answer = await future
        assert isinstance(answer, Completion)
        return answer

    def close(self) -> None:
        self._feed.close()
        if self._thread is not None:
            self._thread.join()

    def _prompt(self, task: Task, sampling: Sampling) -> PromptedTask:
        """Its prompt, once the model is loaded."""
        with ONE_AT_A_TIME:
            (prompt,) = self.engine.prompted([task], sampling)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()
        return prompt

    def _work(self) -> None:
        try:
            for number, answer in self.engine.answering(self._feed):
                loop, future = self._waiting.pop(number)
                loop.call_soon_threadsafe(_settle, future, answer)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait have to be told
            self._fault = f"{self.engine.path}: {error}"
            for loop, future in list(self._waiting.values()):
                loop.call_soon_threadsafe(_fail, future, FaultError(self._fault))


def _settle(future: asyncio.Future[Answer], answer: Answer) -> None:
    if not future.done():
        future.set_result(answer)


def _fail(future: asyncio.Future[Answer], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
