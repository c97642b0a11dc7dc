"""`check`: one pass over the data, then every family of findings."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strop.curate.check.families.annotators import agreement
from strop.curate.check.families.biases import length, style
from strop.curate.check.families.conflicts import conflicts
from strop.curate.check.families.counts import duplicates, labels, prompts, usable
from strop.curate.check.families.leak import leak
from strop.curate.check.families.likeness import Ches, alike_to_the_model, near_identical
from strop.curate.check.families.rendering import Preview, Rendering, rendered
from strop.curate.check.families.safety import safety
from strop.curate.check.families.sizes import sizes
from strop.curate.check.families.turns import Turns, turn_order
from strop.curate.check.finding import SEVERITIES, Finding, Section, Severity
from strop.curate.check.survey import Annotations, Survey
from strop.data.bad_rows import MAX_BAD
from strop.data.overlap import Overlap, eval_item, overlap
from strop.data.records import any_record
from strop.data.sources import read
from strop.errors import DataError
from strop.recipe.train.data import DataSource
from strop.stats.agreement import Scale
from strop.types import Preference, Record, Task


@dataclass(frozen=True, slots=True)
class Asked:
    """What a check is asked to look at: `Asked([at("pairs.jsonl")], annotators=("a", "b"))`.

    `rendering` and `ches` need a tokenizer and a model; without them nothing is said of tokens and
    hidden states. `watch` sees every record, for whoever shows progress.
    """

    sources: Sequence[DataSource]
    eval_sources: Sequence[DataSource] = ()
    annotators: Sequence[str] = ()
    scale: Scale = "nominal"
    max_bad: float = MAX_BAD
    rendering: Rendering | None = None
    ches: Ches | None = None
    watch: Callable[[Record], None] | None = None


@dataclass(frozen=True, slots=True)
class Gathered:
    """What the pass over the data left behind, for the families to look at."""

    asked: Asked
    survey: Survey
    turns: Turns
    items: Sequence[Task | Preference]
    overlap: Overlap | None


CHECKS: Mapping[str, Callable[[Gathered], Section]] = {
    "rows": lambda all_: usable(all_.survey, all_.asked.max_bad),
    "prompts": lambda all_: prompts(all_.survey),
    "sizes": lambda all_: sizes(all_.survey),
    "duplicates": lambda all_: duplicates(all_.survey),
    "labels": lambda all_: labels(all_.survey),
    "length": lambda all_: length(all_.survey),
    "style": lambda all_: style(all_.survey),
    "likeness": lambda all_: near_identical(all_.survey),
    "ches": lambda all_: alike_to_the_model(all_.survey, all_.asked.ches),
    "conflicts": lambda all_: conflicts(all_.survey),
    "annotators": lambda all_: agreement(all_.survey.annotations, all_.asked.scale),
    "safety": lambda all_: safety(all_.survey),
    "turns": lambda all_: turn_order(all_.turns),
    "tokens": lambda all_: rendered(all_.asked.rendering),
    "leak": lambda all_: leak(all_.items, all_.overlap),
}
"""Every family of findings, in the order of the report."""

SIZES = ("rows", "prompts", "sizes", "turns", "tokens")
"""What `strop data stats` shows of them."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured and found: `report.sections["length"]`, `report.findings` (the worst
    first), `report.previews`."""

    files: tuple[str, ...]
    sections: Mapping[str, Section]
    previews: tuple[Preview, ...]

    @property
    def findings(self) -> list[Finding]:
        found = [one for section in self.sections.values() for one in section.findings]
        return sorted(found, key=lambda one: -SEVERITIES.index(one.severity))

    def fails(self, at: Severity) -> bool:
        """Whether a finding is at least so severe."""
        least = SEVERITIES.index(at)
        return any(SEVERITIES.index(one.severity) >= least for one in self.findings)

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "files": list(self.files),
            "findings": [one.plain() for one in self.findings],
            **{name: dict(one.figures) for name, one in self.sections.items() if one.figures},
        }


def check(asked: Asked, only: Sequence[str] = tuple(CHECKS)) -> Report:
    """Read the data once and look for what makes training on it fail.

    Raises `DataError` where there are no rows at all, or an eval file holds an unusable one.
    """
    turns = Turns()
    rendering, watch = asked.rendering, asked.watch
    watchers: list[Callable[[Record], None]] = [turns.watch]
    watchers += [] if rendering is None else [rendering.watch]
    watchers += [] if watch is None else [watch]
    survey = Survey(Annotations(asked.annotators), watchers)
    items: list[Task | Preference] = []
    if asked.eval_sources:
        items = [eval_item(one) for one in read(asked.eval_sources, any_record, held_out=True)]
    records = survey.passing(asked.sources)
    found = overlap(items, records) if items else None
    deque(records, maxlen=0)
    if rendering is not None:
        rendering.finish()
    files = tuple(source.name for source in asked.sources)
    if not survey.rows:
        raise DataError("the data holds no rows", where=", ".join(files), fix="check the path")
    gathered = Gathered(asked, survey, turns, items, found)
    sections = {name: CHECKS[name](gathered) for name in only}
    previews = () if rendering is None else tuple(rendering.previews)
    return Report(files, sections, previews)
