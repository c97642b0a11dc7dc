"""Samples of several adapters, decoded in turns."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from strop.engines.engine import Request
from strop.engines.local.continuous import Continuous
from strop.engines.local.engine import LocalEngine
from strop.model.adapters import only_adapter
from strop.types import Completion

TURN = 4
"""Tokens of one lane until the next one's turn: to switch adapters costs part of a small model's
step."""


class Lanes:
    """A lane for each adapter, because a step runs with one adapter; all lanes get equal turns. A
    request joins its lane while others decode."""

    def __init__(self) -> None:
        self._lanes: dict[str | None, Continuous[Future[Completion]]] = {}

    @property
    def busy(self) -> bool:
        return bool(self._lanes)

    def add(
        self,
        engine: LocalEngine,
        adapter: str | None,
        request: Request,
        result: Future[Completion],
    ) -> None:
        if adapter not in self._lanes:
            self._lanes[adapter] = engine.open(adapter or "")
        self._lanes[adapter].add([(result, request)])

    def step(self, model: Any) -> None:
        """A turn for every lane; an answer that ends is told at once, one that nobody waits for any
        more is given up. Errors go to all who wait in their lane."""
        for adapter, lane in list(self._lanes.items()):
            try:
                with only_adapter(model, adapter):
                    finished = lane.step(TURN)
            except Exception as error:  # noqa: BLE001 - whatever it is, those who wait have to be told
                del self._lanes[adapter]
                for result in (*lane.decoding, *lane.waiting):
                    if result.set_running_or_notify_cancel():
                        result.set_exception(error)
                continue
            for result, completion in finished:
                if result.set_running_or_notify_cancel():
                    result.set_result(completion)
            for result in (*lane.decoding, *lane.waiting):
                if result.cancelled():
                    lane.abort(result)
            if not lane.busy:
                del self._lanes[adapter]
