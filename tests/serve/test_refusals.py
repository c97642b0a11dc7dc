"""What cannot be answered has a clear status and OpenAI's error object, and nothing leaks."""

from __future__ import annotations

import socket
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


def test_who_goes_away_frees_the_place(model_folder: Path) -> None:
    with serving(recipe_of(model_folder, limits={"tokens": 1500})) as server:
        address = server.url.removeprefix("http://").split(":")
        body = b'{"messages": [{"role": "user", "content": "1"}], "max_tokens": 1500, "n": 8}'
        with socket.create_connection((address[0], int(address[1]))) as one:
            one.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: "
                b"application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            for _ in range(200):
                if server.service.turnstile.inside:
                    break
                threading.Event().wait(0.01)
            assert server.service.turnstile.inside == 1
        for _ in range(500):
            if not server.service.turnstile.inside:
                break
            threading.Event().wait(0.01)
        assert server.service.turnstile.inside == 0
        version = server.service.lineup.version(server.service.recipe.models[0].name)
        assert version not in server.service.lineup._using
