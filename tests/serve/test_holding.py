"""Turns, versions and models are let go however a request or a load ends."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from strop.engines.server import streams
from strop.engines.server.held import Held
from strop.errors import UsageError
from strop.model.load import weights_hash
from strop.serve.models import lineup as lineups
from strop.serve.models.lineup import Lineup
from strop.serve.models.places import Place
from strop.serve.routes.callers import all_or_none
from tests.support.serving import USER, Serving, recipe_of, serving

SCOPE = {"type": "http", "asgi": {"spec_version": "2.3"}}


@pytest.mark.parametrize("how", ["gone before the first word", "gone later", "not read", "read"])
def test_a_stream_lets_go_what_it_holds(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "GRACE", 0.0)
    events: list[str] = []

    async def words() -> AsyncGenerator[str]:
        try:
            yield "a"
            if how == "gone later":
                await asyncio.sleep(60)
            yield "b"
        finally:
            events.append("ended")

    async def receive() -> dict[str, Any]:
        if how == "gone later":
            await asyncio.sleep(0.01)
        elif how != "gone before the first word":
            await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if how == "not read" and message.get("body"):
            await asyncio.sleep(60)

    async def one() -> None:
        holds = AsyncExitStack()
        holds.callback(events.append, "let go")
        answer = streams.Streamed(words(), holds, 0.05 if how == "not read" else 30.0, {})
        await asyncio.wait_for(answer(dict(SCOPE), receive, cast(Any, send)), 20)

    asyncio.run(one())
    assert events[-1] == "let go"
    if how != "gone before the first word":
        assert events == ["ended", "let go"]


def test_where_one_fails_the_others_are_called_off() -> None:
    ended: list[str] = []

    async def long() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("long")

    async def failing() -> None:
        await asyncio.sleep(0)
        raise ValueError("no such token")

    async def both() -> None:
        with pytest.raises(ValueError, match="no such token"):
            await all_or_none([long(), failing()])
        assert ended == ["long"]

    asyncio.run(both())


def ask_and_wait(server: Serving) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    body = b'{"messages": [{"role": "user", "content": "1"}], "max_tokens": 4}'
    one = socket.create_connection((host, int(port)))
    one.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: "
                b"application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
                )  # fmt: skip
    return one


def until(holds: Any) -> None:
    for _ in range(500):
        if holds():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come to it")


def test_who_goes_away_frees_the_place(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Future[Any]] = []

    def sample(*_: Any) -> Future[Any]:
        asked.append(Future())
        return asked[-1]

    monkeypatch.setattr(Held, "sample", sample)
    with serving(recipe_of(model_folder, limits={"concurrency": 1, "queue": 1})) as server:
        turnstile = server.service.turnstile
        with ask_and_wait(server):
            until(lambda: turnstile.inside == 1)
            with ask_and_wait(server):
                until(lambda: turnstile.waiting == 1)
            until(lambda: turnstile.waiting == 0)  # nobody's place in the queue is kept
            assert turnstile.inside == 1
        until(lambda: turnstile.inside == 0)
        until(lambda: asked[0].cancelled())
        assert len(asked) == 1
        assert not server.service.lineup._using


class Model:
    """A model that only notes its adapters."""

    def __init__(self, folder: str) -> None:
        self.folder, self.adapters, self.closed = folder, set[str](), threading.Event()

    def load_adapter(self, name: str, _: str) -> Future[None]:
        assert name not in self.adapters
        self.adapters.add(name)
        return done()

    def unload_adapter(self, name: str) -> Future[None]:
        self.adapters.discard(name)
        return done()

    def close(self) -> None:
        self.closed.set()


def done() -> Future[None]:
    future: Future[None] = Future()
    future.set_result(None)
    return future


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[Model]:
    made: list[Model] = []

    def version(place: Place, name: str, held: Any, adapter: str | None) -> Any:
        if place.weights == "broken":
            raise ValueError("no tokenizer is here")
        return version_type(lineups.label_of(name, place), place, held, adapter)

    class version_type(SimpleNamespace):  # noqa: N801
        def __init__(self, label: str, place: Place, held: Any, adapter: str | None) -> None:
            super().__init__(label=label, place=place, held=held, adapter=adapter)

        __hash__ = object.__hash__
        __eq__ = object.__eq__

    monkeypatch.setattr(lineups, "opened", version)
    monkeypatch.setattr(lineups, "base_of", lambda place: place.folder.partition(":")[2] or None)
    return made


def line(made: list[Model]) -> Lineup:
    def hold(folder: str) -> Any:
        made.append(Model(folder))
        return made[-1]

    return Lineup(hold)


@pytest.mark.parametrize("folder", ["whole", "adapter:base"])
def test_weights_that_cannot_be_served_are_not_held(models: list[Model], folder: str) -> None:
    async def twice() -> None:
        lineup = line(models)
        for _ in range(2):  # who follows tries again and again
            with pytest.raises(ValueError, match="tokenizer"), lineup.changing():
                await asyncio.to_thread(lineup.load, "m", Place(folder, "broken"))
        assert len(models) == 2
        for model in models:
            assert await asyncio.to_thread(model.closed.wait, 5)
            assert not model.adapters

    asyncio.run(twice())


def test_nothing_is_let_go_while_something_is_loaded(models: list[Model]) -> None:
    async def swap() -> None:
        lineup = line(models)
        first, second = Place("a:base", "11"), Place("b:base", "22")
        with lineup.changing():
            version = lineup.load("m", first)
            lineup.assign("m", version)
        with lineup.changing():  # the last adapter of the base is taken back meanwhile
            lineup.withdraw("m")
            assert lineup.load("m", first) is version
            lineup.assign("m", lineup.load("m", second))
        assert len(models) == 1
        assert len(models[0].adapters) == 1
        assert not models[0].closed.is_set()
        lineup.withdraw("m")
        assert await asyncio.to_thread(models[0].closed.wait, 5)

    asyncio.run(swap())


def test_equal_weights_of_another_entry_are_another_version(models: list[Model]) -> None:
    async def promoted() -> None:
        lineup = line(models)
        with lineup.changing():
            lineup.assign("m", lineup.load("m", Place("a:base", "11", "one")))
            lineup.assign("m", lineup.load("m", Place("b:base", "11", "two")))
        assert lineup.version("m").place.entry == "two"

    asyncio.run(promoted())


def test_whatever_is_wrong_with_an_entry_the_old_one_goes_on(
    model_folder: Path, adapters: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(models=[{"name": "m", "path": str(adapters[0])}])
    with serving(recipe) as server:
        model = recipe.models[0].model_copy(update={"entry": "support", "path": None})
        places = server.service.places
        monkeypatch.setattr(places, "current", lambda _: "another")
        broken = model_folder.parent / "broken"
        broken.mkdir(exist_ok=True)
        (broken / "adapter_config.json").write_text("{")
        monkeypatch.setattr(places, "of_entry", lambda _: Place(str(broken), "3f2a9c1b"))
        assert server.do(server.service.look(model)) is False
        assert server.chat()["strop"]["weights"] == weights_hash(adapters[0])


def test_a_broken_entry_is_tried_less_and_less_often(
    adapters: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looks are 5 seconds apart. It is tried 5, 10, 20 ... seconds after the time before, another
    one at once, and so is it if an operator asks."""
    recipe = recipe_of(models=[{"name": "m", "path": str(adapters[0])}])
    with serving(recipe) as server:
        model = recipe.models[0].model_copy(update={"entry": "support", "path": None})
        service, clock = server.service, [0]
        tried: list[int] = []

        def of_entry(_: str) -> Place:
            tried.append(clock[0])
            raise UsageError("it has no weights")

        current = ["broken"]
        monkeypatch.setattr(service.places, "current", lambda _: current[0])
        monkeypatch.setattr(service.places, "of_entry", of_entry)
        monkeypatch.setattr("strop.serve.service.monotonic", lambda: clock[0])

        async def look(patient: bool = True) -> None:
            assert await service.look(model, patient=patient) is False

        for seconds in range(0, 100, 5):
            clock[0] = seconds
            server.do(look())
        assert tried == [0, 5, 15, 35, 75]
        server.do(look(patient=False))
        assert tried[5:] == [95]
        current[0] = "another"
        server.do(look())
        assert tried[6:] == [95]


def test_the_canary_has_no_name_and_can_be_ended(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPERATOR", "a secret of the operator")
    tokens = [{"name": "operator", "env": "OPERATOR", "scopes": ["serve", "admin"]}]
    recipe = recipe_of(model_folder, tokens=tokens, traffic={"folder": str(tmp_path)},
                       canary={"entry": str(model_folder), "share": 0.5})  # fmt: skip
    with serving(recipe) as server:
        server.headers["authorization"] = "bearer a secret of the operator"  # schemes have no case
        held = server.service.lineup.version("(canary)").held
        for body in ({"messages": [USER]}, {"token_ids": [1], "sampling_params": {}}):
            path = "/v1/chat/completions" if "messages" in body else "/inference/v1/generate"
            assert server.post(path, {**body, "model": "(canary)"}).status_code == 404
        ended = server.post("/admin/canary/end", {"why": "enough"})
        assert (ended.status_code, ended.json()["state"]) == (200, "ended")
        assert "arm" not in server.chat()["strop"]
        until(lambda: not held._thread.is_alive())  # its weights are let go
