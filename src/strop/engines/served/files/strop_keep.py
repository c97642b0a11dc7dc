"""Runs a command as long as somebody holds this process's standard input open.

    python strop_keep.py COMMAND ARGUMENT...

It leads a process group of its own. When its input ends, because whoever started it closed it or
died in whatever way, the group is told to end, and ended where it does not within `GRACE` seconds.
Its exit code is the command's.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading

GRACE = 20.0
"""Seconds that the command has to end in order."""


def main() -> int:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, preexec_fn=_as_usual)
    threading.Thread(target=_end_with_input, args=(command,), daemon=True).start()
    return command.wait()


def _as_usual() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end_with_input(command: "subprocess.Popen[bytes]") -> None:
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        command.wait(GRACE)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
