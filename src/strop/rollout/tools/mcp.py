"""Tools of a server of the Model Context Protocol."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

import anyio
from pydantic import ValidationError

from strop.errors import WorldError
from strop.recipe.train.tools import McpToolRecipe
from strop.rollout.environment import FaultError
from strop.rollout.tools.kit import Seat, Stateless, described
from strop.rollout.tools.said import cut, readable
from strop.rollout.tools.toolbox import OVER, ToolResult, told
from strop.rollout.tools.tries import FailedError, Tries
from strop.secrets import Secrets
from strop.text.tools import Call

if TYPE_CHECKING:
    from mcp import Client
    from mcp.types import CallToolResult

OPENS_WITHIN = 60.0
"""Seconds until a server has to be ready to be called."""
Try = Callable[[], Awaitable[ToolResult]]

CLOSED = "the connection to the server is closed"
SHOWN = 500
"""Characters that are told of what breaks the protocol."""
TOOLS = "rollout.environment.tools"
"""The recipe's key that names servers."""

FIRST_WAIT = 0.5
"""Seconds before a connection is tried again; twice as long each time."""


class BrokenError(Exception):
    """A server's list of tools cannot be read: `BrokenError("does not list its tools: ...")`."""


class McpTools:
    """The tools of one server. Raises `WorldError` for a server that cannot be reached, or lacks a
    tool that the recipe names, and for a secret that is not set.

    A call whose connection ends, or that takes too long, is tried again over a connection of its
    own. It is the policy's doing if each of them takes too long, or if each ends the process of a
    `command`; that a running server drops connections is the server's fault, and so is an answer
    that breaks the protocol. In an episode's own session its earlier calls are made again first.
    """

    def __init__(self, recipe: McpToolRecipe) -> None:
        self.options = options = recipe.mcp
        self._name = options.url or " ".join(options.command or ())
        self._secrets = Secrets(f"the MCP server {self._name}", WorldError)
        self._env = self._secrets.filled(options.env)
        self._headers = self._secrets.headers(options.headers)
        self._silence = open(os.devnull, "w")  # noqa: SIM115 - it is open as long as the servers
        self._shared: Connection | None = None
        self._connections: set[Connection] = set()
        self._gives_sessions = self.options.command is not None
        self._opening = asyncio.Lock()
        self.tools: list[dict[str, Any]] = asyncio.run(self._offered())

    async def _offered(self) -> list[dict[str, Any]]:
        try:
            async with self._private() as client:
                found = await self._listed(client)
        except FaultError as error:
            raise WorldError(
                str(error),
                where=TOOLS,
                key=TOOLS,
                fix="start it by hand: its command or url has to answer from this machine",
            ) from None
        except BrokenError as broken:
            raise WorldError(
                self._secrets.hidden(f"the MCP server {self._name} {broken}"),
                where=TOOLS,
                key=TOOLS,
                fix="mend the server: its answers have to be those of the Model Context Protocol",
            ) from None
        if self.options.session == "episode" and not self._gives_sessions:
            raise WorldError(
                f"the MCP server {self._name} gives no sessions, so that episodes would meet in it",
                where=TOOLS,
                key=TOOLS,
                fix="start it with sessions (stateful streamable HTTP), or say session: shared",
            )
        wanted = self.options.tools or list(found)
        if missing := [name for name in wanted if name not in found]:
            raise WorldError(
                f"the MCP server {self._name} has no tool {missing[0]!r}",
                where=TOOLS,
                key=TOOLS,
                fix=f"it has {', '.join(found) or 'none'}",
            )
        return [found[name] for name in wanted]

    async def _listed(self, client: Client) -> dict[str, dict[str, Any]]:
        from mcp import MCPError

        try:
            async with asyncio.timeout(OPENS_WITHIN):
                return await _all_tools(client)
        except TimeoutError:
            raise BrokenError(f"did not list its tools within {OPENS_WITHIN:g} s") from None
        except ValidationError as error:
            raise BrokenError(f"lists tools that cannot be used: {_broken(error)}") from None
        except (MCPError, anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
            raise BrokenError(f"does not list its tools: {error}") from None

    def seat(self) -> Seat:
        return OwnSession(self) if self.options.session == "episode" else Stateless(self.call)

    async def call(self, call: Call) -> ToolResult:
        """A call over the connection of all episodes."""

        async def again() -> ToolResult:
            async with self._private() as client:
                return await self.called(client, call)

        return await self.tried(call, lambda: self._called_together(call), again)

    async def tried(self, call: Call, first: Try, again: Try) -> ToolResult:
        """What a call comes to by a first try, and by others as long as it fails."""
        tries = Tries(self.options.retries)
        while True:
            try:
                return await (again() if tries.failures else first())
            except FailedError as failure:
                if tries.note(failure):
                    continue
                ended = failure.kind == "crashed" and self.options.command
                if tries.alike and (failure.kind == "hung" or ended):
                    return told(failure.kind, f"{call.name}: {failure.said}")
                raise tries.fault(call.name) from None

    async def _called_together(self, call: Call) -> ToolResult:
        connection = await self._together()
        try:
            return await self.called(connection.client, call)
        except FailedError as failure:
            if failure.kind != "garbled":
                # others' calls on their way fail too, and are tried again
                if self._shared is connection:
                    self._shared = None
                await connection.close()
            raise

    async def called(self, client: Client, call: Call) -> ToolResult:
        from mcp import MCPError
        from mcp.types import CONNECTION_CLOSED

        if not _is_open(client):
            raise FailedError("crashed", CLOSED)
        try:
            async with asyncio.timeout(self.options.seconds):
                said = await client.call_tool(call.name, dict(call.arguments))
        except TimeoutError:
            late = f"no answer within {self.options.seconds:g} s"
            raise FailedError("hung", late) from None
        except MCPError as error:
            if error.code == CONNECTION_CLOSED:
                raise FailedError("crashed", "the server ended the connection") from None
            return told("raised", self._secrets.hidden(f"{call.name}: {error}"))
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            raise FailedError("crashed", CLOSED) from None
        except (ValidationError, RuntimeError) as error:
            broken = _broken(error) if isinstance(error, ValidationError) else str(error)
            raise FailedError(
                "garbled",
                self._secrets.hidden(
                    f"the MCP server {self._name} breaks the protocol: {broken[:SHOWN]}"
                ),
            ) from None
        text = cut(readable(self._secrets.hidden(_text_of(said))), self.options.longest)
        return told("raised", text) if said.is_error else ToolResult(text)

    async def _together(self) -> Connection:
        """The connection of all episodes, opened where there is none."""
        async with self._opening:
            if self._shared is None:
                self._shared = await self.opened()
            return self._shared

    @asynccontextmanager
    async def _private(self) -> AsyncIterator[Client]:
        connection = await self.opened()
        try:
            yield connection.client
        finally:
            await connection.close()

    async def opened(self) -> Connection:
        """Raises `FaultError` where no connection can be made, whatever is tried."""
        wait = FIRST_WAIT
        for left in range(self.options.retries, -1, -1):
            connection = Connection(self._transport(), self._mode, self._connections)
            try:
                await connection.open()
            except ConnectionError as error:
                said = self._secrets.hidden(str(error))
                if not left:
                    raise FaultError(
                        f"the MCP server {self._name} cannot be reached: {said}"
                    ) from None
                await asyncio.sleep(wait)
                wait *= 2
            else:
                return connection
        raise AssertionError("the last try ends in one of the above")

    def _transport(self) -> Any:
        _expect_extra()
        from mcp import StdioServerParameters, stdio_client
        from mcp.client.streamable_http import create_mcp_http_client, streamable_http_client

        if self.options.command is not None:
            program, *words = self.options.command
            server = StdioServerParameters(command=program, args=words, env=self._env)
            return stdio_client(server, errlog=self._silence)
        http = create_mcp_http_client(headers=self._headers)
        http.event_hooks["response"].append(self._note_session)
        return streamable_http_client(self.options.url or "", http_client=http)

    async def _note_session(self, response: Any) -> None:
        self._gives_sessions |= "mcp-session-id" in response.headers

    @property
    def _mode(self) -> Literal["auto", "legacy"]:
        """Which form of the protocol: since that of 2026-07-28 no sessions are given over HTTP."""
        return "legacy" if self.options.url and self.options.session == "episode" else "auto"

    async def close(self) -> None:
        await asyncio.gather(*(connection.close() for connection in list(self._connections)))
        self._silence.close()


class OwnSession:
    """The session of one episode, from its first call on. Calls are made one after the other; where
    one ends the session, a new one begins with the calls that came before."""

    def __init__(self, server: McpTools) -> None:
        self._server = server
        self._turn = asyncio.Lock()
        self._made: list[Call] = []
        self._connection: Connection | None = None
        self._over = False

    async def call(self, call: Call) -> ToolResult:
        async with self._turn:

            async def once() -> ToolResult:
                return await self._once(call)

            result = await self._server.tried(call, once, once)
            if self._connection is not None:
                self._made.append(call)
            return result

    async def _once(self, call: Call) -> ToolResult:
        try:
            if self._connection is None:
                self._connection = await self._begun()
                for earlier in self._made:
                    await self._server.called(self._connection.client, earlier)
            return await self._server.called(self._connection.client, call)
        except FailedError:
            await self._end()
            raise

    async def _begun(self) -> Connection:
        """A call may still wait for its turn, or for its session, when the episode ends: it begins
        none that nobody would end."""
        if self._over:
            raise FaultError(OVER)
        connection = await self._server.opened()
        if self._over:
            await connection.close()
            raise FaultError(OVER)
        return connection

    async def close(self) -> None:
        self._over = True
        await self._end()

    async def _end(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


class Connection:
    """A session with a server, held by a task of its own: a session has to end in the task in which
    it began. It is one of `among` as long as it lasts."""

    def __init__(
        self, transport: Any, mode: Literal["auto", "legacy"], among: set[Connection]
    ) -> None:
        self._transport, self._mode, self._among = transport, mode, among
        among.add(self)
        self._over = asyncio.Event()
        self._ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._hold())

    @property
    def client(self) -> Client:
        return self._ready.result()

    async def open(self) -> None:
        """Raises `ConnectionError` where there is no server."""
        try:
            async with asyncio.timeout(OPENS_WITHIN):
                await asyncio.shield(self._ready)
        except TimeoutError:
            await self.close()
            raise ConnectionError(f"it was not ready within {OPENS_WITHIN:g} s") from None

    async def close(self) -> None:
        self._over.set()
        if not self._ready.done():
            self._task.cancel()
        await asyncio.wait([self._task])

    async def _hold(self) -> None:
        from mcp import Client

        try:
            async with Client(self._transport, mode=self._mode) as client:
                self._ready.set_result(client)
                await self._over.wait()
        except Exception as error:  # noqa: BLE001 - the library lets through whatever goes wrong
            if not self._ready.done():
                self._ready.set_exception(ConnectionError(_first(error)))
        finally:
            self._among.discard(self)


async def _all_tools(client: Client) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    cursor: str | None = None
    before: set[str] = set()
    while True:
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            about = tool.description or tool.title or tool.name
            found[tool.name] = described(tool.name, about, tool.input_schema)
        cursor = page.next_cursor
        if cursor is None:
            return found
        if cursor in before:
            raise BrokenError("sends one page again and again: its list of tools has no end")
        before.add(cursor)


def _text_of(said: CallToolResult) -> str:
    """The texts of a result; of other parts only what they are."""
    parts = [part.text if part.type == "text" else f"[{part.type}]" for part in said.content]
    if not parts and said.structured_content is not None:
        return json.dumps(said.structured_content, ensure_ascii=False)
    return "\n".join(parts)


def _is_open(client: Client) -> bool:
    """Whether the session has not ended; the library raises the same error for other reasons."""
    try:
        return client.session is not None
    except RuntimeError:
        return False


def _broken(error: ValidationError) -> str:
    """`tool 1 of its list, inputSchema.type: Input should be 'object'`."""
    said = []
    for one in error.errors():
        match one["loc"]:
            case ("tools", int(number), *path):
                about = f"tool {number + 1} of its list, "
            case path:
                about = ""
        said.append(f"{about}{'.'.join(map(str, path))}: {one['msg']}")
    return "; ".join(said)


def _first(error: BaseException) -> str:
    """What went wrong, of a group of errors the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}".rstrip(": ")


def _expect_extra() -> None:
    try:
        import mcp  # noqa: F401
    except ImportError:
        raise WorldError(
            "tools of an MCP server need the package mcp",
            where=TOOLS,
            key=TOOLS,
            fix="pip install 'strop[mcp]'",
        ) from None
