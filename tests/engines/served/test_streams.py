"""Answers of served engines as they are drawn: all of them, exactly, and no longer than somebody
reads them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, Request, Sampling
from strop.engines.served.server import Part, Server
from strop.engines.served.sglang import SglangServer
from strop.engines.served.vllm import VllmServer
from strop.engines.server.app import engine_app
from strop.errors import HttpError
from strop.types import Origin, Task
from tests.support.engine_servers import App, Running, engine_server
from tests.support.rounds import Futures, Rounds, endless, wait_for
from tests.support.servers import saying, talking_server
from tests.support.sglang_app import Sglang

IDS = (2, 40, 41, 42, 43, 3)
PROMPT = PromptedTask(Task("", {}, Origin("t", 0)), IDS)
PROTOCOLS: dict[str, tuple[App, Any]] = {
    "vllm": (engine_app, VllmServer),
    "sglang": (Sglang().app, SglangServer),
    "sglang, incremental": (Sglang(incremental=True).app, SglangServer),
}


def asked(seed: int = 0, **how: Any) -> Request:
    return Request(PROMPT, Sampling(**{"max_tokens": 40, **how}), DrawKey(seed, "t"))


@pytest.fixture(scope="module", params=PROTOCOLS)
def pair(request: pytest.FixtureRequest, model_folder: Path) -> Iterator[tuple[Running, Server]]:
    """A server of the tiny model, and who asks it in its protocol."""
    app, connect = PROTOCOLS[request.param]
    with engine_server(model_folder, app=app) as running:
        yield running, connect(running.url, seconds=60.0)


@pytest.mark.parametrize("how", [
    {}, {"temperature": 0.0}, {"temperature": 0.7}, {"max_tokens": 1},
    {"stop": ("e", "o")}, {"stop": ("e",), "include_stop_str_in_output": False},
])  # fmt: skip
def test_what_was_told_is_the_answer_and_the_one_that_comes_whole(
    pair: tuple[Running, Server], how: dict[str, Any]
) -> None:
    _, server = pair
    for seed in range(3):
        parts: list[Part] = []
        said = server.sample(asked(seed, **how), None, [], tell=parts.append)
        assert tuple(i for part in parts for i in part.ids) == said.ids
        assert tuple(x for part in parts for x in part.logprobs or ()) == said.logprobs
        assert all(part.ids for part in parts)
        whole = server.sample(asked(seed, **how), None, [])
        assert replace(said, logprobs=None) == replace(whole, logprobs=None)
        assert said.logprobs == pytest.approx(whole.logprobs, abs=2e-5)


def test_tokens_are_told_before_the_answer_is_drawn(
    pair: tuple[Running, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawing waits for the client to have heard the first token, and then the second part."""
    running, server = pair
    endless(running.held)
    rounds = Rounds(monkeypatch, free=2)
    parts: list[Part] = []

    def tell(part: Part) -> None:
        parts.append(part)
        rounds.go_on.set()

    said = server.sample(asked(max_tokens=20), None, [], tell=tell)
    assert len(said.ids) == 20
    assert len(parts[0].ids) == 1
    assert len(parts) > 3


@pytest.mark.parametrize("streams", [True, False])
def test_who_stops_waiting_ends_the_work_on_the_server(
    pair: tuple[Running, Server], streams: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, server = pair
    endless(running.held)
    rounds, noted = Rounds(monkeypatch, free=3), Futures(running.held, monkeypatch)
    waiting: Future[Any] = Future()
    leaver = threading.Thread(target=lambda: rounds.reached.wait(30) and waiting.cancel())
    leaver.start()
    tell = (lambda part: None) if streams else None
    with pytest.raises(CancelledError):
        server.sample(asked(max_tokens=100), None, [], tell=tell, waiting=waiting)
    leaver.join()
    noted.wait_until_cancelled()
    rounds.go_on.set()
    wait_for(lambda: not running.held._lanes.busy)
    assert rounds.count < 40  # of 100


def test_truncated_draws_have_no_logprobs_where_the_server_gives_others(
    pair: tuple[Running, Server],
) -> None:
    _, server = pair
    parts: list[Part] = []
    said = server.sample(asked(top_k=3), None, [], tell=parts.append)
    unknown = isinstance(server, SglangServer)
    assert [part.logprobs is None for part in parts] == [unknown] * len(parts)
    assert (said.logprobs is None) == unknown


def vllm_part(*ids: int, finish: str | None = None, **other: Any) -> Any:
    listed = [{"token_id": i, "logprob": -i / 4} for i in ids]
    choice = {"index": 0, "token_ids": list(ids), "logprobs": {"content": listed},
              "finish_reason": finish, "weight_versions": None, **other}  # fmt: skip
    return {"choices": [choice]}


def sglang_part(*ids: int, length: int, finish: str | None = None) -> Any:
    return {"text": "", "output_ids": list(ids), "meta_info": {
        "weight_version": "default", "finish_reason": finish and {"type": finish},
        "output_token_logprobs": [[-i / 4, i, None] for i in ids],
        "output_token_logprobs_length": length,
    }}  # fmt: skip


def sampled(protocol: str, events: list[Any]) -> tuple[Any, list[Part]]:
    parts: list[Part] = []
    with talking_server(saying(*events, b"[DONE]")) as url:
        server: Server = PROTOCOLS[protocol][1](url, seconds=20.0)
        return server.sample(asked(), None, [], tell=parts.append), parts


SPAN = [{"version": "v2", "start": 0, "end": 3}]


@pytest.mark.parametrize(("protocol", "events"), [
    ("vllm", [vllm_part(5), vllm_part(6, 7), vllm_part(finish="stop", weight_versions=SPAN)]),
    ("vllm", [vllm_part(5), {"choices": []},
              vllm_part(6, 7, finish="stop", weight_versions=SPAN), {"choices": [], "usage": {}}]),
    ("sglang", [sglang_part(5, length=1), sglang_part(5, 6, 7, length=3, finish="stop")]),
    ("sglang", [sglang_part(5, length=1), sglang_part(6, length=2),
                sglang_part(7, length=3, finish="stop")]),
    ("sglang", [sglang_part(5, 6, length=2), sglang_part(5, 6, length=2),
                sglang_part(5, 6, 7, length=3), sglang_part(5, 6, 7, length=3, finish="stop")]),
])  # fmt: skip
def test_forms_of_streams(protocol: str, events: list[Any]) -> None:
    said, parts = sampled(protocol, events)
    assert said.ids == (5, 6, 7)
    assert said.logprobs == (-1.25, -1.5, -1.75)
    assert said.finish == "stop"
    assert [span.label for span in said.spans] == ["v2" if protocol == "vllm" else "default"]
    assert [i for part in parts for i in part.ids] == [5, 6, 7]


@pytest.mark.parametrize(("protocol", "events", "problem"), [
    ("vllm", [], "the stream ended, and the answer did not"),
    ("vllm", [vllm_part(5)], "the stream ended, and the answer did not"),
    ("vllm", [vllm_part(5, logprobs=None)], "no tokens with log-probs"),
    ("vllm", [vllm_part(5, token_ids=[5, 6])], "2 tokens came with 1 log-probs"),
    ("vllm", [{"text": "x"}], "has no choices"),
    ("vllm", [vllm_part(5), {"error": {"message": "the engine died"}}], "the engine died"),
    ("sglang", [], "the stream ended, and the answer did not"),
    ("sglang", [sglang_part(5, length=1)], "the stream ended, and the answer did not"),
    ("sglang", [sglang_part(5, length=1), sglang_part(9, 6, length=2)], "those that were told"),
    ("sglang", [sglang_part(5, length=1), sglang_part(6, length=3)], "those that were told"),
    ("sglang", [{"text": "x"}], "no tokens with log-probs"),
    ("sglang", [sglang_part(5, length=1), {"error": {"message": "aborted"}}], "aborted"),
])  # fmt: skip
def test_streams_of_another_form_are_errors(protocol: str, events: list[Any], problem: str) -> None:
    with pytest.raises(HttpError, match=problem):
        sampled(protocol, events)


BODY: Any = {"token_ids": list(IDS), "stream": True, "sampling_params": {"max_tokens": 9}}


class TestEngineServe:
    """`strop engine serve` streams in vLLM's form."""

    @pytest.fixture(scope="class")
    def url(self, model_folder: Path) -> Iterator[str]:
        with engine_server(model_folder, alter=endless) as running:
            yield f"{running.url}/inference/v1/generate"

    def test_says_events(self, url: str) -> None:
        with httpx.stream("POST", url, json=BODY) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = [line for line in answer.read().decode().split("\n") if line]
        assert lines.pop() == "data: [DONE]"
        choices = [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines]
        assert [one["finish_reason"] for one in choices] == [None] * (len(choices) - 1) + ["length"]
        assert choices[-1]["weight_versions"] == [{"version": "0", "start": 0, "end": 9}]
        whole = httpx.post(url, json={**BODY, "stream": False}).json()["choices"][0]
        assert [i for one in choices for i in one["token_ids"]] == whole["token_ids"]

    @pytest.mark.parametrize(("change", "problem"), [
        ({"token_ids": [10**6]}, "there is no token 1000000"),
        ({"sampling_params": {"max_tokens": 10**6}}, "tokens are asked for"),
        ({"model": "nobody"}, "no model 'nobody' is loaded"),
        ({"sampling_params": {"prompt_logprobs": 0}}, "not streamed"),
    ])  # fmt: skip
    def test_refuses_before_the_stream_begins(
        self, url: str, change: dict[str, Any], problem: str
    ) -> None:
        answer = httpx.post(url, json={**BODY, **change})
        assert answer.status_code == 400
        assert problem in answer.json()["error"]["message"]
