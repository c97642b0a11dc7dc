"""`strop serve` in a thread of the test, and clients of it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import uvicorn

from strop.recipe.loading.load import load
from strop.recipe.serve import ServeRecipe
from strop.rewards.compose import Reward
from strop.serve.access import Doors
from strop.serve.app import serve_app
from strop.serve.limits import Turnstile
from strop.serve.models.holder import holding
from strop.serve.models.lineup import Lineup
from strop.serve.models.places import Places
from strop.serve.service import Service
from strop.serve.traffic.log import TrafficLog

USER = {"role": "user", "content": "Solve 2x = 6"}


@dataclass(slots=True)
class Serving:
    """A server that answers: its address, what it holds, and the loop it runs on."""

    url: str
    service: Service
    loop: asyncio.AbstractEventLoop
    server: uvicorn.Server
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)

    def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=60, headers=self.headers, **more)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=60, headers=self.headers, **more)

    def chat(self, **more: Any) -> dict[str, Any]:
        answer = self.post("/v1/chat/completions", {"messages": [USER], "max_tokens": 6, **more})
        assert answer.status_code == 200, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def do(self, work: Any) -> Any:
        """Run a coroutine on the server's own loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)


def recipe_of(*models: Path, **values: Any) -> ServeRecipe:
    named = [{"name": folder.name, "path": str(folder)} for folder in models]
    return load(ServeRecipe, {**({"models": named} if named else {}), **values})


@contextmanager
def serving(recipe: ServeRecipe) -> Iterator[Serving]:
    ready: list[Serving] = []
    failed: list[BaseException] = []
    is_up = threading.Event()

    async def run() -> None:
        traffic = None if recipe.traffic is None else TrafficLog(recipe.traffic)
        rewards = {name: Reward(parts) for name, parts in recipe.rewards.items()}
        service = Service(recipe, Doors(recipe.tokens), Turnstile(recipe.limits),
                          Places(recipe.registry), Lineup(holding(recipe.engine)), traffic,
                          rewards)  # fmt: skip
        try:
            await service.open()
            following = asyncio.create_task(service.follow())
            listens = socket.create_server(("127.0.0.1", 0))
            config = uvicorn.Config(serve_app(service), log_level="critical", lifespan="off",
                                    timeout_graceful_shutdown=5)  # fmt: skip
            server = uvicorn.Server(config)
            url = f"http://127.0.0.1:{listens.getsockname()[1]}"
            ready.append(Serving(url, service, asyncio.get_running_loop(), server))
            up = asyncio.create_task(server.serve(sockets=[listens]))
            while not server.started:
                await asyncio.sleep(0.01)
            is_up.set()
            await up
            following.cancel()
        finally:
            await service.close()

    def work() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:  # noqa: BLE001 - the test has to see it
            failed.append(error)
            is_up.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    is_up.wait()
    try:
        if failed:
            raise failed[0]
        yield ready[0]
    finally:
        if ready:
            ready[0].server.should_exit = True
        thread.join(30)
    if failed:
        raise failed[0]


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a traffic folder, which are all whole."""
    return [
        json.loads(line)
        for file in sorted(folder.glob("traffic-*.jsonl"))
        for line in file.read_text().splitlines()
    ]
