"""OpenAI's own client against the server; answers are the embedded engine's for their key."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, Sampling, requests_of
from strop.engines.local.engine import LocalEngine
from strop.text.render import prompt_ids
from strop.types import Completion, Origin, Task
from tests.support.serving import USER, Serving


def embedded(folder: Path, prompt: Any, sampling: Sampling, seed: int, n: int) -> list[Completion]:
    """What the embedded engine draws for the same key."""
    engine = LocalEngine(str(folder))
    ids = prompt_ids(engine.tokenizer(), prompt)
    asked = PromptedTask(Task("", {}, Origin("t", 0)), ids)
    requests = requests_of([asked], sampling, DrawKey(seed, "served"), n)
    made = dict(engine.generate(requests))
    return [made[index] for index in range(n)]


def test_choices_are_the_embedded_engines_for_their_key(
    plain_server: Serving, model_folder: Path
) -> None:
    said = plain_server.chat(n=4, seed=11, return_token_ids=True, temperature=0.8, top_p=0.9)
    wanted = embedded(model_folder, [USER], Sampling(temperature=0.8, top_p=0.9, max_tokens=6), 11,
                      4)  # fmt: skip
    assert [choice["token_ids"] for choice in said["choices"]] == [list(w.ids) for w in wanted]
    assert len({tuple(choice["token_ids"]) for choice in said["choices"]}) == 4


def test_log_probs_are_those_of_what_was_drawn_from(
    plain_server: Serving, model_folder: Path
) -> None:
    answer = plain_server.chat(seed=3, logprobs=True, top_logprobs=4, temperature=0.7)
    listed = answer["choices"][0]["logprobs"]["content"]
    (wanted,) = embedded(model_folder, [USER], Sampling(temperature=0.7, max_tokens=6), 3, 1)
    assert [one["logprob"] for one in listed] == pytest.approx(wanted.logprobs, abs=2e-5)
    for one in listed:
        tops = [top["logprob"] for top in one["top_logprobs"]]
        assert len(tops) == 4
        assert tops == sorted(tops, reverse=True)
        assert tops[0] >= one["logprob"] - 1e-6


@pytest.mark.parametrize("stop", [None, ["e"]])
def test_a_stream_says_what_the_whole_answer_says(plain_server: Serving, stop: Any) -> None:
    client, name = plain_server.client, plain_server.service.recipe.models[0].name
    how: dict[str, Any] = {"model": name, "messages": [USER], "max_tokens": 40, "seed": 5, "n": 3}
    how |= {} if stop is None else {"stop": stop}
    whole = client.chat.completions.create(**how)
    usage = {"include_usage": True}
    chunks = list(client.chat.completions.create(**how, stream=True, stream_options=usage))
    for choice in whole.choices:
        mine = [c.choices[0] for c in chunks if c.choices and c.choices[0].index == choice.index]
        assert "".join(c.delta.content or "" for c in mine) == choice.message.content
        assert [c.finish_reason for c in mine if c.finish_reason] == [choice.finish_reason]
        assert stop is None or "e" not in (choice.message.content or "")
    used = chunks[-1].usage
    assert used is not None
    assert used == whole.usage
    assert used.completion_tokens > 3


def test_plain_completions_take_several_prompts_as_text_or_ids(
    plain_server: Serving, model_folder: Path, tokenizer: Any
) -> None:
    client, name = plain_server.client, plain_server.service.recipe.models[0].name
    texts = ["1 + 1", "2x = 6"]
    ids = [list(prompt_ids(tokenizer, text)) for text in texts]
    how: dict[str, Any] = {"model": name, "max_tokens": 5, "n": 2, "seed": 2, "logprobs": 1}
    said = client.completions.create(prompt=texts, **how)
    again = client.completions.create(prompt=ids, **how)
    assert [c.index for c in said.choices] == [0, 1, 2, 3]
    assert [c.text for c in said.choices] == [c.text for c in again.choices]
    wanted = [w.text for t in texts
              for w in embedded(model_folder, t, Sampling(max_tokens=5), 2, 2)]  # fmt: skip
    assert [c.text for c in said.choices] == wanted
    assert said.usage is not None
    assert said.usage.prompt_tokens == sum(map(len, ids))


def test_a_schema_is_kept_to(plain_server: Serving) -> None:
    schema = {"type": "object", "additionalProperties": False, "required": ["x", "sure"],
              "properties": {"x": {"enum": [1, 2, 3]}, "sure": {"type": "boolean"}}}  # fmt: skip
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    said = plain_server.chat(n=16, seed=1, max_tokens=120, response_format=wanted)
    done = [c for c in said["choices"] if c["finish_reason"] == "stop"]
    assert len(done) >= 8  # the others were cut in white space
    for choice in done:
        assert jsonschema_rs.is_valid(schema, json.loads(choice["message"]["content"]))


def test_the_best_of_several_and_what_it_took(plain_server: Serving, model_folder: Path) -> None:
    asked = {"seed": 4, "strop": {"best_of": 6, "reward": "short"}}
    said = plain_server.chat(**asked)
    drawn = embedded(model_folder, [USER], Sampling(max_tokens=6), 4, 6)
    assert said["choices"][0]["message"]["content"] == min((d.text for d in drawn), key=len)
    assert said["usage"]["strop"]["sampled_tokens"] == sum(len(d.ids) for d in drawn)
    streamed = list(plain_server.client.chat.completions.create(
        model=said["model"], messages=[USER], max_tokens=6, seed=4, stream=True,
        extra_body={"strop": asked["strop"]},
    ))  # fmt: skip
    text = "".join(c.choices[0].delta.content or "" for c in streamed if c.choices)
    assert text == said["choices"][0]["message"]["content"]


def test_refining_asks_again_with_the_answer(plain_server: Serving) -> None:
    once, twice = plain_server.chat(seed=4), plain_server.chat(seed=4, strop={"refine": 1})
    spent = twice["usage"]["strop"]["sampled_tokens"]
    assert spent > once["usage"]["completion_tokens"]
    assert twice["choices"] != once["choices"]


def test_every_answer_says_which_weights_made_it(plain_server: Serving) -> None:
    answer = plain_server.post("/v1/chat/completions", {"messages": [USER], "max_tokens": 2})
    weights = plain_server.service.lineup.version(
        plain_server.service.recipe.models[0].name
    ).place.weights
    assert answer.headers["x-strop-weights"] == weights
    assert answer.json()["system_fingerprint"] == weights
    assert answer.json()["strop"]["weights"] == weights


def test_a_seed_that_was_drawn_is_told_and_draws_the_same(plain_server: Serving) -> None:
    first = plain_server.chat(return_token_ids=True)
    again = plain_server.chat(return_token_ids=True, seed=first["strop"]["seed"])
    assert again["choices"] == first["choices"]


def test_prompts_of_one_request_share_the_seed_that_is_told(plain_server: Serving) -> None:
    body = {"prompt": ["Solve 2x = 6", "Solve 3x = 6"], "max_tokens": 6, "temperature": 2}
    first = plain_server.post("/v1/completions", body).json()
    again = plain_server.post("/v1/completions", body | {"seed": first["strop"]["seed"]}).json()
    assert [c["text"] for c in first["choices"]] == [c["text"] for c in again["choices"]]


def test_a_prompt_of_ids_is_logged_as_the_text_that_it_spells(plain_server: Serving) -> None:
    service = plain_server.service
    tokenizer = service.lineup.version(service.recipe.models[0].name).tokenizer
    ids = list(tokenizer("Solve 2x = 8").input_ids)
    body = {"prompt": ids, "max_tokens": 2}
    made = plain_server.post("/v1/completions", body).json()
    assert service.traffic is not None
    for _ in range(200):
        kept = [row for row in service.traffic.rows() if row.get("id") == made["id"]]
        if kept:
            break
        threading.Event().wait(0.02)
    assert kept[0]["messages"] == [{"role": "user", "content": "Solve 2x = 8"}]
    assert kept[0]["prompt_token_ids"] == ids
