"""`strop serve` beside `transformers serve` with continuous batching, on the same model.

    python evidence/serving.py --model FOLDER --out build/serving --clients 1 8 32

Each server is asked the same questions by so many clients at a time, streamed, greedily, and the
text that came is counted in the model's own tokens (an answer that was cut has as many as its
limit). The servers take turns, so that a machine that slows down slows both: what counts is the
ratio within a round. Where others work on the machine, too, throughput says little, and the
processor's seconds of the server for each token say more (Linux); `OMP_NUM_THREADS=1` then spares
both that their threads wait for each other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from strop.model.load import load_tokenizer

ANSWER = 48
"""Tokens of an answer at most."""
EACH = 4
"""Requests of every client, unless it is said."""
UP_WITHIN = 300.0


@dataclass(frozen=True, slots=True)
class Side:
    """A server: its name, its command with {model} and {port}, what answers say the model is."""

    name: str
    command: tuple[str, ...]
    model: str


SIDES = (
    Side("strop", ("-m", "strop", "serve", "m={model}", "--port", "{port}"), "m"),
    Side(
        "transformers",
        ("-m", "transformers.cli.transformers", "serve", "{model}", "--continuous-batching",
         "--port", "{port}", "--host", "127.0.0.1"),
        "{model}",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """What one round of one server came to: tokens a second, seconds until first tokens, the
    processor's seconds for each token."""

    speed: float
    p50: float
    p95: float
    tokens: int
    work: float


@contextmanager
def running(side: Side, model: str) -> Iterator[tuple[str, int]]:
    """A server's address, and its process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [part.format(model=model, port=port) for part in side.command]
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + UP_WITHIN
        while time.monotonic() < until and process.poll() is None:
            try:
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.5)
        else:
            raise SystemExit(f"{side.name} did not start")
        yield url, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def worked(process: int) -> float:
    """Seconds that the processor has worked for a process (proc(5): utime and stime)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Answer:
    """Seconds until its first word, its words, whether it met its limit of tokens."""

    first: float
    text: str
    cut: bool


async def streamed(client: httpx.AsyncClient, model: str, question: str) -> Answer:
    body: dict[str, Any] = {
        "model": model, "messages": [{"role": "user", "content": question}], "stream": True,
        "max_tokens": ANSWER, "temperature": 0.0,
    }  # fmt: skip
    began, first, text, cut = time.perf_counter(), 0.0, "", False
    async with client.stream("POST", "/v1/chat/completions", json=body) as stream:
        stream.raise_for_status()
        async for line in stream.aiter_lines():
            if not line.startswith("data: {"):
                continue
            choices = json.loads(line[6:]).get("choices") or [{}]
            came = choices[0].get("delta", {}).get("content") or ""
            cut = cut or choices[0].get("finish_reason") == "length"
            if came and not text:
                first = time.perf_counter() - began
            text += came
    return Answer(first, text, cut)


async def asked(
    at: tuple[str, int], model: str, clients: int, tokenizer: Any, each: int = EACH
) -> Run:
    """What so many clients with `each` requests came to, at an address of a process."""
    url, process = at
    said: list[Answer] = []

    async def one(number: int) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=600) as client:
            for turn in range(each):
                question = f"Tell me {number + 3} facts about the number {turn * clients + number}."
                said.append(await streamed(client, model, question))

    began, before = time.perf_counter(), worked(process)
    await asyncio.gather(*(one(number) for number in range(clients)))
    seconds, work = time.perf_counter() - began, worked(process) - before
    tokens = sum(
        ANSWER if one.cut else len(tokenizer(one.text, add_special_tokens=False)["input_ids"])
        for one in said
    )
    firsts = sorted(one.first for one in said)
    return Run(tokens / seconds, statistics.median(firsts),
               firsts[max(round(0.95 * len(firsts)) - 1, 0)], tokens, work / tokens)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("build/serving"))
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--each", type=int, default=EACH, help="requests of every client")
    given = parser.parse_args()
    model = str(given.model.resolve())
    tokenizer = load_tokenizer(model)
    found: dict[str, dict[int, list[Run]]] = {side.name: {} for side in SIDES}
    for number in range(given.rounds + 1):  # the first one warms up
        for side in SIDES:
            with running(side, model) as at:
                name = side.model.format(model=model)
                asyncio.run(asked(at, name, 1, tokenizer, 1))
                for clients in given.clients:
                    run = asyncio.run(asked(at, name, clients, tokenizer, given.each))
                    print(number, side.name, clients, run, flush=True)
                    if number:
                        found[side.name].setdefault(clients, []).append(run)
    given.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for clients in given.clients:
        pairs = list(zip(found["strop"][clients], found["transformers"][clients], strict=True))
        rows.append({
            "clients": clients,
            "speed": statistics.median(s.speed / t.speed for s, t in pairs),
            "p50": statistics.median(s.p50 / t.p50 for s, t in pairs),
            "p95": statistics.median(s.p95 / t.p95 for s, t in pairs),
            "work": statistics.median(t.work / s.work for s, t in pairs),
            "strop": statistics.median(s.speed for s, _ in pairs),
            "transformers": statistics.median(t.speed for _, t in pairs),
            "tokens": [(s.tokens, t.tokens) for s, t in pairs],
        })  # fmt: skip
    (given.out / "serving.json").write_text(json.dumps(rows, indent=1))
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
