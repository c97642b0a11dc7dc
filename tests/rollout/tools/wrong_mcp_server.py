"""An MCP server that breaks its protocol in the way that is named: `python wrong_mcp_server.py
WAY`."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

FINE: dict[str, Any] = {"name": "act", "inputSchema": {"type": "object"}}
VALUE = {"type": "object", "properties": {"v": {"type": "integer"}}, "required": ["v"]}

LISTS: dict[str, Any] = {
    "schema": {"tools": [FINE, {"name": "fly", "inputSchema": {"type": "string"}}]},
    "nameless": {"tools": [{"nme": "act"}]},
    "endless": {"tools": [FINE], "nextCursor": "x"},
    "unstructured": {"tools": [{**FINE, "outputSchema": VALUE}]},
    "misstructured": {"tools": [{**FINE, "outputSchema": VALUE}]},
}
RESULTS: dict[str, Any] = {
    "text": {"content": "text"},
    "nothing": {},
    "misstructured": {"content": [], "structuredContent": {"v": "five"}},
}
SAID = {"content": [{"type": "text", "text": "5"}]}


def answer(way: str, method: str, version: Any) -> dict[str, Any]:
    """The `result` or the `error` of a request."""
    if method == "initialize":
        about = {"name": "wrong", "version": "1"}
        return {"result": {"protocolVersion": version, "capabilities": {"tools": {}},
                           "serverInfo": about}}  # fmt: skip
    if method == "tools/list" and way == "late":
        time.sleep(600)
    if method == "tools/list" and way != "refuses":
        return {"result": LISTS.get(way, {"tools": [FINE]})}
    if method == "tools/call":
        return {"result": RESULTS.get(way, SAID)}
    return {"error": {"code": -32601, "message": "there is no such method"}}


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        if "id" in asked:
            version = asked.get("params", {}).get("protocolVersion")
            said = answer(sys.argv[1], asked["method"], version)
            print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **said}), flush=True)


if __name__ == "__main__":
    main()
