"""The command line: one file per verb; nothing heavy is imported until a verb runs."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Entry point of the `strop` command."""
    gc.disable()  # a sixth of the time of heavy imports goes into looking for garbage; see `setup`
    from strop.cli.app import app
    from strop.errors import StropError

    try:
        app()
    except StropError as error:
        print(f"strop: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
