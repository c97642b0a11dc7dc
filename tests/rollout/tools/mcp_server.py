"""A real MCP server for tests: `python mcp_server.py [PORT [stateless]]`, over HTTP where a port
is given."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from pathlib import Path

from mcp.server import MCPServer
from mcp.server.mcpserver import Context

server = MCPServer("sums")


@server.tool()
def add(a: int, b: int) -> str:
    """Adds two numbers."""
    return str(a + b)


@server.tool()
def divide(a: int, b: int) -> str:
    """Divides two numbers."""
    return str(a // b)


counts: Counter[str] = Counter()
"""How often each session has counted; over standard input there is one."""


@server.tool()
def count(ctx: Context) -> str:
    """Counts the calls of the session, and tells the process."""
    name = (ctx.headers or {}).get("mcp-session-id", "")
    counts[name] += 1
    return f"{counts[name]} {os.getpid()}"


@server.tool()
def key() -> str:
    """Tells a secret."""
    return f"the key is {os.environ.get('SUMS_KEY', 'missing')}"


@server.tool()
def end() -> str:
    """Ends the server."""
    os._exit(3)


@server.tool()
def end_once(marker: str) -> str:
    """Ends the server the first time."""
    if not Path(marker).exists():
        Path(marker).touch()
        os._exit(3)
    return "alive"


@server.tool()
def sleep(seconds: float) -> str:
    """Waits."""
    time.sleep(seconds)
    return "awake"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        bare = sys.argv[2:] == ["stateless"]
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]), stateless_http=bare)
    else:
        server.run("stdio")
