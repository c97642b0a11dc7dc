"""Runs math-verify in a process that can be killed, because its own time limits need the main
thread's alarm."""

from __future__ import annotations

import json
import logging
import resource
import sys

from strop.rewards.answer.equal import equal

MEMORY = 2 * 2**30
"""Bytes a comparison may use: `10^{10^{10}}` would take them all."""


def main() -> None:
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps({"equal": equal(asked["said"], asked["gold"])}), flush=True)


if __name__ == "__main__":
    main()
