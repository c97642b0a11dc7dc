"""A run in a notebook: its story as a page, as text, and its metrics as a table for pandas."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from strop.errors import UsageError
from strop.tracking.story.facts import METRICS
from strop.tracking.story.log import MetricsLog
from strop.tracking.story.page import report_html
from strop.tracking.story.story import Story, read_story
from strop.tracking.terminal.lines import story_lines, written

if TYPE_CHECKING:
    import pandas as pd

HEIGHT = "42rem"


class InFolder(Protocol):
    """What knows the folder of a run: a `TrainResult`."""

    @property
    def folder(self) -> Path:
        """The recipe's `output`."""


def show(run: InFolder | str | Path) -> RunStory:
    """The story of a run, to look at: `strop show`. `run` is its folder, or what `strop.train`
    returned. Raises `UsageError` for a folder that holds no run."""
    return RunStory(run if isinstance(run, str | Path) else run.folder)


class RunStory:
    """A run by its folder, finished or not: `RunStory("runs/dpo")`. In a notebook it displays as
    the run's page, elsewhere as the text of `strop show`; every display reads the folder again.

    Raises `UsageError` for a folder that holds no run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._log = MetricsLog(self.folder / METRICS)
        read_story(self.folder, self._log)

    @property
    def story(self) -> Story:
        """All that is shown, as it is now: `sentence`, `panels`, `alarms`, `samples`,
        `problems`."""
        return read_story(self.folder, self._log)

    @property
    def sentence(self) -> str:
        """What rose, what fell, what rang."""
        return self.story.sentence

    def frame(self) -> pd.DataFrame:
        """The metrics as a `pandas.DataFrame`: see `frame_of`."""
        return frame_of(self.folder)

    def __repr__(self) -> str:
        return written(story_lines(self.story))

    def _repr_html_(self) -> str:
        """The page in a frame of its own, whose style does not reach the notebook; nothing in it
        can run a script."""
        story = self.story
        title = escape(f"The story of {story.facts.name}", quote=True)
        return (
            f'<iframe title="{title}" sandbox="" srcdoc="{escape(report_html(story), quote=True)}" '
            f'style="width:100%;height:{HEIGHT};border:0"></iframe>'
        )


def frame_of(folder: Path) -> pd.DataFrame:
    """The metrics of a run: a row for each step, a column for each metric, NaN where it was not
    logged; of a step that was logged twice the later row counts.

    Raises `UsageError` where pandas is not installed.
    """
    try:
        import pandas as pd  # here alone: it takes half a second
    except ImportError:
        raise UsageError("a frame needs pandas", fix="pip install pandas") from None
    log = MetricsLog(folder / METRICS)
    log.refresh()
    columns = {}
    for name in log.names:
        steps, values = log.series(name)
        columns[name] = pd.Series(dict(zip(steps.tolist(), values.tolist(), strict=True)))
    frame = pd.DataFrame(columns, dtype="float64").sort_index()
    return frame.rename_axis(index="step", columns="metric")
