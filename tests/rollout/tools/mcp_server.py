"""A real MCP server for tests: `python mcp_server.py [PORT]`, over HTTP where a port is given."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from mcp.server import MCPServer

server = MCPServer("sums")


@server.tool()
def add(a: int, b: int) -> str:
    """Adds two numbers."""
    return str(a + b)


@server.tool()
def divide(a: int, b: int) -> str:
    """Divides two numbers."""
    return str(a // b)


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
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run("stdio")
