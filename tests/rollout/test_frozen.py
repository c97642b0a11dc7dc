"""Models beside the policy: several that are first asked at the same time."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from strop.engines.draws import DrawKey
from strop.engines.engine import Sampling
from strop.engines.local import engine as local
from strop.model.load import load_for_inference
from strop.rollout.environment import FaultError
from strop.rollout.frozen import FrozenModel


def test_they_are_loaded_one_after_the_other(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two models that transformers loads together one gets no weights."""
    at_work, most, counted = 0, 0, threading.Lock()

    def load(*args: Any) -> Any:
        nonlocal at_work, most
        with counted:
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.1)  # the others come meanwhile, if they may
        with counted:
            at_work -= 1
        return load_for_inference(*args)

    monkeypatch.setattr(local, "load_for_inference", load)
    models = [FrozenModel(str(model_folder)) for _ in range(4)]

    async def asked() -> list[Any]:
        sampling, key = Sampling(temperature=0, max_tokens=3), DrawKey(0, "training")
        said = [{"role": "user", "content": "3x + 4 = 10"}]
        return await asyncio.gather(*(model.say(said, sampling, key) for model in models))

    try:
        answers = asyncio.run(asked())
    finally:
        for model in models:
            model.close()
    assert most == 1
    assert len({answer.ids for answer in answers}) == 1


def test_a_model_that_failed_is_a_fault_for_who_asks_later_too(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FrozenModel(str(model_folder))

    def fails(feed: Any) -> Any:
        feed.take(wait=True)
        raise MemoryError("no room")

    monkeypatch.setattr(model.engine, "answering", fails)

    async def twice() -> None:
        sampling, key = Sampling(temperature=0, max_tokens=3), DrawKey(0, "training")
        for _ in range(2):
            with pytest.raises(FaultError, match="no room"):
                await asyncio.wait_for(
                    model.say([{"role": "user", "content": "3x"}], sampling, key), 60
                )

    asyncio.run(twice())
    model.close()
