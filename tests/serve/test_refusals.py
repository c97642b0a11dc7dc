"""What cannot be answered has a clear status and OpenAI's error object, and nothing leaks."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from strop.errors import RecipeError, UsageError
from strop.files import write_whole
from strop.recipe.serve import TokenRecipe
from strop.serve.access import Doors
from tests.support.serving import USER, Serving, recipe_of, serving

CHAT = "/v1/chat/completions"


def said(**more: Any) -> dict[str, Any]:
    return {"messages": [USER], "max_tokens": 2, **more}


@pytest.mark.parametrize(("body", "status", "names"), [
    (said(model="other"), 404, "other"),
    (said(max_tokens=10_000), 400, "at most 512"),
    (said(n=17), 400, "at most 16"),
    (said(strop={"maj_at": 17}), 400, "at most 16"),
    (said(logit_bias={"07": 1}), 422, "logit_bias"),
    (said(tools=[{"type": "function", "function": {"name": "f"}}], parallel_tool_calls=False), 422,
     "parallel_tool_calls"),
    (said(messages=[{"role": "assistant", "content": None, "tool_calls": "x"}]), 422, "tool_calls"),
    (said(messages=[{"role": "assistant", "content": "a", "tool_calls": [1]}, USER]), 422,
     "tool_calls"),
    (said(messages=[{"role": "user", "content": [{"type": "text", "text": {"a": 1}}]}]), 422,
     "text"),
    (said(temperature=-1), 422, "temperature"),
    (said(temperature="hot"), 422, "temperature"),
    (said(colour="red"), 422, "colour"),
    (said(stream_options={"include_usage": True}), 422, "stream"),
    (said(top_logprobs=2), 422, "logprobs"),
    (said(tool_choice="required"), 422, "tools"),
    (said(tools=[{"type": "retrieval"}]), 422, "tools.0"),
    (said(response_format={"type": "xml"}), 422, "response_format"),
    (said(response_format={"type": "json_schema", "json_schema": {"schema": {"type": 7}}}), 400,
     "schema"),
    (said(strop={"best_of": 4, "reward": "other"}), 400, "short"),
    (said(strop={"best_of": 4}), 422, "reward"),
    (said(strop={"maj_at": 4}, temperature=0), 422, "temperature"),
    ({"messages": []}, 422, "messages"),
    ({"messages": [{"role": "user"}]}, 422, "content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 422, "image_url"),
    (said(messages=[{"role": "user", "content": "9" * 3000}]), 400, "reads"),
])  # fmt: skip
def test_a_request_that_cannot_be_met_says_why(
    plain_server: Serving, body: dict[str, Any], status: int, names: str
) -> None:
    answer = plain_server.post(CHAT, body)
    error = answer.json()["error"]
    assert answer.status_code == status, answer.text
    assert names in error["message"] or names in str(error["param"])
    assert error["type"] in ("invalid_request_error", "not_found_error")
    assert "Traceback" not in answer.text


def test_bodies_that_are_no_json_or_too_long(plain_server: Serving) -> None:
    json = {"content-type": "application/json"}
    broken = httpx.post(plain_server.url + CHAT, content=b'{"messages": [', headers=json)
    assert (broken.status_code, broken.json()["error"]["type"]) == (400, "invalid_request_error")
    long = httpx.post(plain_server.url + CHAT, content=b" " * 30_000, headers=json)
    assert long.status_code == 413
    parts = (b" " * 1000 for _ in range(30))  # no length is said before
    assert httpx.post(plain_server.url + CHAT, content=parts, headers=json).status_code == 413
    assert plain_server.get("/v1/nothing").json()["error"]["type"] == "not_found_error"
    assert plain_server.get(CHAT).status_code == 405


@pytest.mark.parametrize(("content", "sent_as", "status", "message"), [
    (b'{"messages": []}', None, 400, "without a content type: send it as application/json"),
    (b'{"messages": []}', "text/plain", 400, "came as text/plain: send it as application/json"),
    (b'{"messages": []}', "application/x-www-form-urlencoded", 400, "send it as application/json"),
    (b"", "application/json", 400, "the request has no body: send JSON"),
    (b"[]", "application/json", 422, "the body is no JSON object"),
    (b'"text"', "application/json; charset=utf-8", 422, "the body is no JSON object"),
    (b'{"messages": []}', "application/json; charset=utf-8", 422, "at least 1 item"),
])  # fmt: skip
def test_bodies_that_came_as_something_else(
    plain_server: Serving, content: bytes, sent_as: str | None, status: int, message: str
) -> None:
    headers = {} if sent_as is None else {"content-type": sent_as}
    for path in (CHAT, "/v1/feedback") if b"messages" not in content or status == 400 else (CHAT,):
        answer = httpx.post(plain_server.url + path, content=content, headers=headers)
        assert answer.status_code == status
        assert message in answer.json()["error"]["message"]


def test_addresses_where_nothing_is(plain_server: Serving) -> None:
    missed = plain_server.post("/chat/completions", said())
    assert missed.status_code == 404
    assert "nothing is at /chat/completions" in missed.json()["error"]["message"]
    assert "base URL ends in /v1" in missed.json()["error"]["message"]
    other = plain_server.get(CHAT)
    assert other.headers["allow"] == "POST"
    assert other.json()["error"]["message"] == f"{CHAT} takes POST, not GET"


def test_only_this_machines_own_name_is_answered_without_tokens(plain_server: Serving) -> None:
    led_here = httpx.get(plain_server.url + "/v1/models", headers={"host": "evil.example"})
    assert led_here.status_code == 400
    answer = plain_server.get("/v1/models")
    assert "access-control-allow-origin" not in answer.headers


def test_tokens_open_what_their_scopes_say(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_SECRET", "a" * 24)
    write_whole(tmp_path / "secret", "b" * 24 + "\n")
    tokens = [
        {"name": "app", "env": "APP_SECRET", "scopes": ["serve", "feedback"]},
        {"name": "other", "file": str(tmp_path / "secret"), "scopes": ["serve", "feedback"]},
    ]
    recipe = recipe_of(model_folder, tokens=tokens, traffic={"folder": str(tmp_path / "t")})
    with serving(recipe) as server:
        assert server.post(CHAT, said()).status_code == 401
        server.headers["authorization"] = "Bearer " + "c" * 24
        refused = server.post(CHAT, said())
        assert refused.status_code == 401
        assert "c" * 24 not in refused.text
        server.headers["authorization"] = "Bearer " + "a" * 24
        mine = server.chat()
        assert server.post("/admin/follow").status_code == 403
        server.headers["authorization"] = "Bearer " + "b" * 24
        # another caller can neither rate nor learn of the answer
        assert server.post("/v1/feedback", {"id": mine["id"], "thumb": "up"}).status_code == 404
        server.headers["authorization"] = "Bearer " + "a" * 24
        assert server.post("/v1/feedback", {"id": mine["id"], "thumb": "up"}).status_code == 200
    kept = "".join(file.read_text() for file in (tmp_path / "t").glob("*.jsonl"))
    assert "a" * 24 not in kept


def test_other_machines_may_not_ask_without_tokens(model_folder: Path) -> None:
    with pytest.raises(RecipeError, match="token"):
        recipe_of(model_folder, host="0.0.0.0")


def test_a_secret_that_can_be_guessed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORT", "abc")
    with pytest.raises(UsageError, match="3 characters"):
        Doors([TokenRecipe(name="a", env="SHORT")])


def test_a_secret_that_is_not_set_is_no_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOBODY_SET_IT", raising=False)
    with pytest.raises(UsageError, match="no secret of the token 'app' is set") as told:
        Doors([TokenRecipe(name="app", env="NOBODY_SET_IT")])
    assert "export NOBODY_SET_IT=" in str(told.value.fix)


def test_who_finds_the_queue_full_is_told_when_to_come_back(model_folder: Path) -> None:
    limits = {"concurrency": 1, "queue": 1}
    with serving(recipe_of(model_folder, limits=limits)) as server:
        codes: list[tuple[int, str | None]] = []

        def ask() -> None:
            answer = server.post(CHAT, said(max_tokens=100, n=16))
            codes.append((answer.status_code, answer.headers.get("retry-after")))

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refused = [code for code in codes if code[0] == 429]
        assert len(refused) + sum(code[0] == 200 for code in codes) == 6
        assert refused
        assert all(after == "1" for _, after in refused)
        assert server.chat()["choices"]  # and room comes back


def test_half_a_pair_in_a_name_is_told_as_it_is_written(plain_server: Serving) -> None:
    body = b'{"messages": [{"role": "user", "content": "a", "\\ud800": "b"}], "max_tokens": 2}'
    answer = httpx.post(plain_server.url + CHAT, content=body,
                        headers={"content-type": "application/json"})  # fmt: skip
    assert answer.status_code == 400
    assert "ud800" in answer.json()["error"]["message"]


def test_prompts_count_as_answers(plain_server: Serving) -> None:
    body = {"prompt": ["a", "b", "c"], "n": 6, "max_tokens": 2}
    answer = plain_server.post("/v1/completions", body)
    assert answer.status_code == 400
    assert "at most 16" in answer.json()["error"]["message"]


def test_an_unknown_caller_is_turned_away_before_the_body_is_read(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP", "a secret of the app!")
    recipe = recipe_of(model_folder, tokens=[{"name": "app", "env": "APP"}])
    with serving(recipe) as server:
        for given in ("", "Bearer", "Bearer wrong", "Basic a secret of the app!",
                      "a secret of the app!"):  # fmt: skip
            server.headers["authorization"] = given
            for path in (CHAT, "/v1/feedback", "/v1/models", "/nothing"):
                assert server.post(path, [1]).status_code == 401
            assert server.get("/health").status_code == 200
        server.headers["authorization"] = "bearer   a secret of the app!"
        assert server.post(CHAT, [1]).status_code == 422
        counted = server.get("/metrics").text
        assert 'strop_requests_total{route="other",status="401"} 20.0' in counted


def test_two_tokens_of_one_secret_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP", "a secret of the app!")
    with pytest.raises(UsageError, match="one secret"):
        Doors([TokenRecipe(name=name, env="APP") for name in ("one", "two")])


@pytest.mark.parametrize(("host", "status"), [
    ("localhost", 200), ("LOCALHOST:80", 200), ("[::1]:80", 200), ("127.0.0.1:1", 200),
    ("evil.com", 400), ("127.0.0.1.evil.com", 400), ("127.0.0.1@evil.com", 400), ("", 400),
])  # fmt: skip
def test_who_names_another_host_is_refused(plain_server: Serving, host: str, status: int) -> None:
    answer = httpx.get(plain_server.url + "/health", headers={"host": host})
    assert answer.status_code == status
    assert status == 200 or answer.json()["error"]["code"] == "unknown_host"
