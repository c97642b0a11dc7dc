"""`strop serve` as a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml


@contextmanager
def server(folder: Path, **more: Any) -> Iterator[str]:
    """Its address while it runs; it is ended as an operator would, by SIGTERM."""
    settings = {
        "models": [{"name": "algebra", "entry": "algebra", "follow": True}],
        "registry": "registry.db",
        "follow_seconds": 0.5,
        "port": 0,
        "traffic": {"folder": "traffic"},
        **more,
    }
    (folder / "serve.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    command = [sys.executable, "-m", "strop", "serve", "--config", str(folder / "serve.yaml"),
               "--json"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"loop: the server ended with {process.wait()}")
        yield str(json.loads(line)["url"])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()
