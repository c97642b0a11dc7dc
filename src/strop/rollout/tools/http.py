"""A request to a server as a tool: answered from a record, or live where the recipe says so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from strop.errors import WorldError
from strop.http import BUSY, retry_after
from strop.recipe.train.tools import PLACE, HttpToolRecipe
from strop.rollout.environment import FaultError
from strop.rollout.tools.kit import Stateless, described
from strop.rollout.tools.record import Exchange, Record, named
from strop.rollout.tools.said import cut, readable
from strop.rollout.tools.toolbox import ToolResult, told
from strop.secrets import Secrets
from strop.text.tools import Call

REFUSED = (401, 403, 407)
"""Statuses that say that the recipe's key is wrong, which is no doing of the policy."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0
"""Seconds before a further attempt: the first, and the most."""
FAILED = 500
HTTPX = logging.getLogger("httpx")
BYTES = 4
"""Of a character, at most."""


class HttpTool:
    """One tool. Raises `WorldError` for a record that is not there and not to be made, or a secret
    that is not set."""

    def __init__(self, recipe: HttpToolRecipe) -> None:
        self.options = options = recipe.http
        where = f"the tool {options.name}"
        self.tools: list[dict[str, Any]] = [
            described(options.name, options.description, options.parameters)
        ]
        self._record = Record(Path(options.record) if options.record else None, live=options.live)
        if not options.live and not len(self._record):
            raise WorldError(
                "there is no record of answers, and the recipe does not say live: true",
                where=str(options.record),
                fix="record it once with live: true, then train without",
            )
        self._secrets = Secrets(where, WorldError)
        self._headers = self._secrets.headers(options.headers) if options.live else {}
        self._query = self._secrets.filled(options.query) if options.live else {}
        _expect_address(options.url, where)
        self._client: httpx.AsyncClient | None = None
        self._asked: dict[str, asyncio.Task[Exchange]] = {}

    def seat(self) -> Stateless:
        return Stateless(self.call)

    async def call(self, call: Call) -> ToolResult:
        try:
            return await self._called(call)
        except httpx.InvalidURL as error:
            return told("arguments", f"{call.name}: its arguments make no address: {error}")

    async def _called(self, call: Call) -> ToolResult:
        filled = _filled(self.options.url, call.arguments)
        if filled is None:
            return told("arguments", f"{call.name}: `.` and `..` are no part of an address")
        left = {k: v for k, v in call.arguments.items() if k not in PLACE.findall(self.options.url)}
        url, body = filled, None
        if self.options.method == "POST":
            body = left
        elif left:
            url = str(httpx.URL(filled, params=_query_of(left)))
        known = self._record.find(self.options.method, url, body)
        if known is not None:
            return self._result(known)
        if not self.options.live:
            if self.options.unrecorded == "fault":
                raise FaultError(f"{call.name}: {url} is not in the record")
            return told("unrecorded", f"{call.name}: the answer to this is not available here")
        return self._result(await self._answer(url, body))

    def _result(self, one: Exchange) -> ToolResult:
        said = cut(one.text, self.options.longest)
        if one.status < httpx.codes.BAD_REQUEST:
            return ToolResult(said)
        return told("raised", f"status {one.status}: {said}")

    async def _answer(self, url: str, body: object) -> Exchange:
        """From the server, for all who ask the same meanwhile."""
        name = named(self.options.method, url, body)
        if name not in self._asked:
            self._asked[name] = asyncio.create_task(self._sent(url, body))
            self._asked[name].add_done_callback(lambda _: self._asked.pop(name))
        return await asyncio.shield(self._asked[name])

    async def _sent(self, url: str, body: object) -> Exchange:
        """After as many attempts as it takes. Raises `FaultError` where the last one fails too."""
        wait = FIRST_WAIT
        for left in range(self.options.retries, -1, -1):
            asked_for = 0.0
            try:
                async with asyncio.timeout(self.options.seconds):
                    status, text, asked_for = await self._attempt(url, body)
            except TimeoutError:
                problem = f"no whole answer within {self.options.seconds:g} s"
            except httpx.HTTPError as error:
                problem = f"{type(error).__name__}: {error}".rstrip(": ")
            else:
                if status < FAILED and status not in (*BUSY, *REFUSED):
                    exchange = Exchange(self.options.method, url, body, status, text)
                    return self._record.add(exchange)
                problem = f"status {status}: {text[:200]}"
                if status in REFUSED:
                    break
            if left:
                await asyncio.sleep(min(LONGEST_WAIT, max(wait, asked_for)))
                wait *= 2
        raise FaultError(self._secrets.hidden(f"{self.options.name}: {url}: {problem}"))

    async def _attempt(self, url: str, body: object) -> tuple[int, str, float]:
        """Status, text (as much of it as is told) and the seconds that the server asks to wait."""
        if self._client is None:
            HTTPX.addFilter(self._secrets)  # it logs whole addresses, and a query may hold a key
            self._client = httpx.AsyncClient(timeout=None, headers=self._headers)
        request = self._client.build_request(
            self.options.method,
            httpx.URL(url).copy_merge_params(self._query) if self._query else url,
            json=body,
        )
        response = await self._client.send(request, stream=True)
        try:
            content, most = bytearray(), BYTES * self.options.longest
            async for part in response.aiter_bytes():
                content += part
                if len(content) > most:
                    break
        finally:
            await response.aclose()
        text = content.decode(response.encoding or "utf-8", "replace")
        hidden = readable(self._secrets.hidden(text))
        return response.status_code, hidden, retry_after(response.headers.get("retry-after", ""))

    async def close(self) -> None:
        for task in list(self._asked.values()):
            task.cancel()
        if self._client is not None:
            await self._client.aclose()
            HTTPX.removeFilter(self._secrets)


def _filled(url: str, arguments: Mapping[str, Any]) -> str | None:
    """The address with its places filled; `None` for what would lead to another place."""
    values = {name: _word(arguments.get(name, "")) for name in PLACE.findall(url)}
    if any(value in ("", ".", "..") for value in values.values()):
        return None
    return PLACE.sub(lambda found: quote(values[found[1]], safe=""), url)


def _query_of(arguments: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """Arguments as a query: a list is its name given several times."""
    return {
        name: [_word(one) for one in value] if isinstance(value, list) else _word(value)
        for name, value in sorted(arguments.items())
    }


def _word(value: Any) -> str:
    """A value as it stands in an address."""
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value).lower()
    return str(value)


def _expect_address(url: str, where: str) -> None:
    address = PLACE.sub("x", url)
    try:
        parsed = httpx.URL(address)
        fine = parsed.scheme in ("http", "https") and bool(parsed.host)
    except httpx.InvalidURL:
        fine = False
    if not fine:
        raise WorldError(
            f"{url!r} is no HTTP address",
            where=where,
            fix="write one like https://example.org/cities/{city}",
        )
