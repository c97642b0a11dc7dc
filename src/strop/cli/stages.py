"""Shows a pipeline while it runs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from strop.cli.show import Progress, setup

if TYPE_CHECKING:
    from strop.pipeline import Observer, Outcome
    from strop.recipe.pipeline import Stage


@contextmanager
def watching(as_json: bool) -> Iterator[Observer]:
    """An observer that prints one line when a stage starts and one when it ends."""
    from strop.pipeline import Observer

    setup()
    started = time.monotonic()
    with Progress(as_json) as progress:

        def on_stage(stage: Stage) -> None:
            nonlocal started
            started = time.monotonic()
            if not as_json:
                progress.console.print(f"[bold]{stage.name}[/bold] ({stage.kind})")

        def on_outcome(stage: Stage, outcome: Outcome, said: str) -> None:
            progress.stop()
            seconds = time.monotonic() - started
            if as_json:
                row = {"stage": stage.name, "outcome": outcome, "said": said, "seconds": seconds}
                print(json.dumps(row), flush=True)
            else:
                line = f"  {outcome} in {seconds:.1f} s: {said}"
                progress.console.print(line, markup=False, soft_wrap=True)

        yield Observer(
            on_stage=on_stage,
            on_start=progress.start,
            on_step=progress.step,
            on_outcome=on_outcome,
        )
