"""Programs that are started in place of a Python with vLLM."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support import ROOT

SERVES = """
import argparse, subprocess, sys
sys.path[:0] = [{src!r}]
here = {here!r}
said = argparse.ArgumentParser()
said.add_argument("-m"), said.add_argument("--model"), said.add_argument("--port", type=int)
how, rest = said.parse_known_args()
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(here + "/asked.txt", "w") as file:
    print(*sys.argv[1:], file=file)
with open(here + "/pids.txt", "w") as file:
    import os
    print(os.getpid(), helper.pid, file=file)
from strop.engines.server.serve import serve_engine
serve_engine(how.model, "127.0.0.1", how.port, print)
"""

DIES = """
import sys
print("loading the model"), print("no kernel image is available", file=sys.stderr)
sys.exit(3)
"""

SLEEPS = """
import os, time
open({here!r} + "/pids.txt", "w").write(str(os.getpid()))
print("loading the model", flush=True)
time.sleep(600)
"""

DEAF = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open({here!r} + "/pids.txt", "w").write(str(os.getpid()))
time.sleep(600)
"""


def program(folder: Path, source: str) -> Path:
    """An executable file that takes the arguments of a Python and does what `source` says."""
    path = folder / "python"
    text = source.format(src=str(ROOT / "src"), here=str(folder))
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return path
