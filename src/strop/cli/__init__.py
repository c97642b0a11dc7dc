"""The command line: one file per verb; nothing heavy is imported until a verb runs."""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from types import FrameType

    from _typeshed import ReadableBuffer


def main() -> None:
    """Entry point of the `strop` command."""
    signal.signal(signal.SIGTERM, stopped)
    # large buffers on huge pages: a model in 4 bits then trains in less than half the memory,
    # because less is lost between buffers; torch reads it once, when it is imported
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    outlive_the_reader()
    gc.disable()  # a sixth of the time of heavy imports goes into looking for garbage; see `setup`
    from strop.cli.app import app
    from strop.distributed.launch import speaks
    from strop.errors import OtherProcessError, StropError

    try:
        app()
    except OtherProcessError as error:
        if speaks():
            print(f"strop: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except StropError as error:
        print(f"strop: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def stopped(number: int, frame: FrameType | None) -> NoReturn:
    """End on SIGTERM as on Ctrl-C, with files and children tidied up; a training run saves first
    (strop.train.loop.signals)."""
    from strop.errors import EndedBySignal

    raise EndedBySignal(128 + number)


class Outliving(io.FileIO):
    """A file that goes on taking bytes when nobody reads them any more."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes


def outlive_the_reader() -> None:
    """Make `strop train recipe.yaml | head -1` a run that goes on to its end."""
    stdout = sys.stdout
    if isinstance(stdout, io.TextIOWrapper):
        raw = Outliving(stdout.fileno(), "w", closefd=False)
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=stdout.encoding,
            errors=stdout.errors,
            line_buffering=stdout.line_buffering,
        )
