"""A server that answers in capitals."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.servers import chat_server


def slow(body: dict[str, Any]) -> Any:
    """Answers "a" late and everything else at once; "b" was called off."""
    said = body["messages"][-1]["content"]
    time.sleep(0.5 if said == "a" else 0)
    finish = "abort" if said == "b" else "stop"
    return {"message": {"content": said.upper()}, "finish_reason": finish}


@pytest.fixture
def url() -> Iterator[str]:
    with chat_server(slow) as server:
        yield server.url
