"""Thousands of requests against `strop serve`, with all that goes wrong: what is lost?

    python evidence/soak.py --base MODEL --adapters A B --out build/soak --requests 10000

32 clients at a time ask, rate, go away in the middle, send broken and oversize bodies; every 500
requests another adapter is promoted; half-way the server is killed with SIGKILL and started again.
Afterwards: every acknowledged feedback stands in the log once, every answer is what the embedded
engine draws for its key, and the memory of the server did not grow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, Sampling, requests_of
from strop.engines.local.engine import LocalEngine
from strop.model.load import weights_hash
from strop.registry.lineage import ancestry
from strop.registry.store import Registry
from strop.serve.traffic.rows import rows_in
from strop.text.render import prompt_ids
from strop.types import Origin, Task

CLIENTS, SEEDS, LONGEST = 32, 20, 12
QUESTIONS = [
    f"Solve {a}x + {b} = {a * x + b}" for a in (2, 3, 5, 7) for b in (1, 4) for x in (2, 6)
]


@dataclass(slots=True)
class Tally:
    """What the clients saw."""

    kinds: Counter[str] = field(default_factory=Counter)
    answers: dict[tuple[str, str, int], list[int]] = field(default_factory=dict)
    differ: int = 0
    acknowledged: dict[str, dict[str, Any]] = field(default_factory=dict)
    memory: list[float] = field(default_factory=list)


class Server:
    """`strop serve` as a process, on one port over its restarts."""

    def __init__(self, folder: Path, registry: Path, port: int) -> None:
        self.folder, self.port = folder, port
        settings = {
            "models": [{"name": "m", "entry": "m", "follow": True}], "registry": str(registry),
            "follow_seconds": 0.2, "port": port, "traffic": {"folder": str(folder / "traffic")},
            "limits": {"body_bytes": 20_000},
        }  # fmt: skip
        (folder / "serve.yaml").write_text(yaml.safe_dump(settings))
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "strop", "serve", "--config", str(self.folder / "serve.yaml"),
             "--json"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        if not process.stdout.readline():
            raise SystemExit("the server did not start")
        return process

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process = self._start()

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def mebibytes(self) -> float:
        """Resident memory."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * 4096 / 2**20


async def one(client: httpx.AsyncClient, draw: random.Random, tally: Tally) -> None:
    """One request of one of the kinds."""
    luck = draw.random()
    if luck < 0.04:
        await _expect(client, tally, "broken", 400, content=b'{"messages": [')
        return
    if luck < 0.06:
        await _expect(client, tally, "oversize", 413, content=b" " * 30_000)
        return
    question, seed = draw.choice(QUESTIONS), draw.randrange(SEEDS)
    asked = {"messages": [{"role": "user", "content": question}], "max_tokens": LONGEST,
             "seed": seed, "return_token_ids": True}  # fmt: skip
    if luck < 0.12:
        await _leave(client, asked, draw, tally)
        return
    said = (await client.post("/v1/chat/completions", json=asked)).raise_for_status().json()
    key = (said["strop"]["weights"], question, seed)
    ids = said["choices"][0]["token_ids"]
    tally.differ += tally.answers.setdefault(key, ids) != ids
    tally.kinds["answered"] += 1
    if draw.random() < 0.5:
        told = {"id": said["id"], "thumb": draw.choice(["up", "down"])}
        answer = await client.post("/v1/feedback", json=told)
        if answer.status_code == 200:
            tally.acknowledged[said["id"]] = told
            tally.kinds["rated"] += 1


async def _expect(
    client: httpx.AsyncClient, tally: Tally, kind: str, status: int, content: bytes
) -> None:
    headers = {"content-type": "application/json"}
    answer = await client.post("/v1/chat/completions", content=content, headers=headers)
    tally.kinds[kind if answer.status_code == status else f"{kind}: {answer.status_code}"] += 1


async def _leave(
    client: httpx.AsyncClient, asked: dict[str, Any], draw: random.Random, tally: Tally
) -> None:
    """Go away while the answer comes."""
    body = {**asked, "stream": True, "max_tokens": 100}
    async with client.stream("POST", "/v1/chat/completions", json=body) as stream:
        async for _ in stream.aiter_lines():
            if draw.random() < 0.3:
                break
    tally.kinds["left"] += 1


async def soak(
    server: Server, registry: Registry, adapters: list[Path], requests: int, seed: int
) -> Tally:
    tally, asked = Tally(), iter(range(requests))
    url = f"http://127.0.0.1:{server.port}"
    limits = httpx.Limits(max_connections=CLIENTS)

    async def work(number: int) -> None:
        draw = random.Random(f"{seed} {number}")
        async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
            for place in asked:
                await _event(place)
                while True:
                    try:
                        await one(client, draw, tally)
                        break
                    except httpx.TransportError:  # while the server is down
                        tally.kinds["met nobody"] += 1
                        await asyncio.sleep(0.5)

    async def _event(place: int) -> None:
        if place and place % 500 == 0:
            promote(registry, adapters[place // 500 % len(adapters)])
            tally.kinds["swaps"] += 1
        if place == requests // 2:
            await asyncio.to_thread(server.kill)
        if place % 250 == 0 and server.process.poll() is None:
            tally.memory.append(server.mebibytes())

    await asyncio.gather(*(work(number) for number in range(CLIENTS)))
    tally.memory.append(server.mebibytes())
    return tally


def promote(registry: Registry, folder: Path) -> None:
    registry.promote("m", weights=weights_hash(folder), path=str(folder),
                     lineage=ancestry(folder), verdict=None, override="soak")  # fmt: skip


def unequal(adapters: list[Path], answers: dict[tuple[str, str, int], list[int]]) -> int:
    """How many answers are not what the embedded engine draws alone for their key."""
    count = 0
    for folder in adapters:
        engine, weights = LocalEngine(str(folder)), weights_hash(folder)
        tokenizer = engine.tokenizer()
        mine = {key: ids for key, ids in answers.items() if key[0] == weights}
        requests = []
        for _, question, seed in mine:
            ids = prompt_ids(tokenizer, [{"role": "user", "content": question}])
            task = PromptedTask(Task("", {}, Origin("soak", 0)), ids)
            requests += requests_of([task], Sampling(max_tokens=LONGEST),
                                    DrawKey(seed, "served"), 1)  # fmt: skip
        drawn = dict(engine.generate(requests))
        count += sum(
            list(drawn[place].ids) != ids for place, ids in enumerate(mine.values())
        )  # fmt: skip
    return count


def kept(folder: Path, tally: Tally) -> dict[str, int]:
    """How often each acknowledged feedback stands in the log."""
    rows = Counter(row["id"] for row in rows_in(folder / "traffic") if "label" in row)
    return {"lost": sum(not rows[id_] for id_ in tally.acknowledged),
            "twice": sum(count > 1 for count in rows.values()),
            "in the log": sum(rows.values())}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--adapters", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=Path("build/soak"))
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--port", type=int, default=8129)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = given.out.resolve()
    folder.mkdir(parents=True)
    adapters = [path.resolve() for path in given.adapters]
    registry = Registry(folder / "registry.db")
    promote(registry, adapters[0])
    server = Server(folder, registry.path, given.port)
    began = time.monotonic()
    try:
        tally = asyncio.run(soak(server, registry, adapters, given.requests, given.seed))
    finally:
        code = server.end()
    after = tally.memory[len(tally.memory) // 2 + 1 :]  # of the process that was started again
    told = {
        "requests": given.requests, "seconds": round(time.monotonic() - began),
        "kinds": dict(tally.kinds), "feedback": kept(folder, tally),
        "different answers": len(tally.answers), "same key, other answer": tally.differ,
        "not the embedded engine's": unequal(adapters, tally.answers),
        "MiB": [round(value) for value in tally.memory], "MiB grown": round(after[-1] - after[0]),
        "exit code": code,
    }  # fmt: skip
    (folder / "soak.json").write_text(json.dumps(told, indent=1))
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
