"""Runs side by side: the same axes, the same items, and what their recipes differ in."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from strop.studio.site import Site
from strop.tracking.story.bands import Band, bands
from strop.tracking.story.panels import TITLES, TOGETHER, TOGETHER_ON_RECORDS
from strop.tracking.story.samples import Sample
from strop.tracking.story.story import Story

MOST_KEYS, DEEPEST = 2000, 8
"""Of a recipe's keys that are compared, and of the levels that they stand in."""
MOST_RUNS = 12
APART = frozenset({"output", "seed"})
"""Keys in which runs of one recipe over several seeds differ."""


@dataclass(frozen=True, slots=True)
class Group:
    """Runs of one recipe, that differ in their seed alone: one line, with a band."""

    name: str
    stories: tuple[Story, ...]


def compare_routes(site: Site) -> APIRouter:
    router = APIRouter()

    @router.get("/compare")
    def compare(run: Annotated[list[str] | None, Query()] = None) -> HTMLResponse:
        chosen = list(dict.fromkeys(run or ()))[:MOST_RUNS]
        stories = {path: site.root.story(path) for path in chosen}
        groups = grouped(stories)
        return site.page(
            "compare.html", "Compare", "/compare", runs=site.root.found().runs, chosen=chosen,
            groups=groups, panels=list(drawn(groups)), differences=differences(stories),
            answers=same_items(stories), stories=stories,
        )  # fmt: skip

    return router


def grouped(stories: Mapping[str, Story]) -> list[Group]:
    """Runs whose recipes are equal but for seed and output stand together."""
    found: dict[str, list[tuple[str, Story]]] = {}
    for path, story in stories.items():
        kept = {name: said for name, said in flat(story.recipe).items() if name not in APART}
        found.setdefault(repr(sorted(kept.items())) if kept else path, []).append((path, story))
    return [
        Group(
            members[0][0] if len(members) == 1 else f"{members[0][0]} and {len(members) - 1} more",
            tuple(story for _, story in members),
        )
        for members in found.values()
    ]


def drawn(groups: Sequence[Group]) -> Iterable[dict[str, Any]]:
    """A chart for each metric that the runs have in common with another, or alone."""
    names: dict[str, None] = {}
    for group in groups:
        for story in group.stories:
            names |= {panel.name: None for panel in story.panels if panel.place != "folded"}
    first = [name for name in (*TOGETHER, *TOGETHER_ON_RECORDS) if name in names]
    for name in dict.fromkeys([*first, *names]):
        shown = [band for n, group in enumerate(groups) if (band := _band(n, group, name))]
        if shown:
            yield {"name": name, "title": TITLES.get(name, name), "svg": Markup(bands(name, shown))}


def _band(number: int, group: Group, name: str) -> Band | None:
    series = [
        one
        for story in group.stories
        for panel in story.panels
        if panel.name == name
        for one in panel.series
        if one.role == "training"
    ]
    if not series:
        return None
    return Band.of(group.name, number, [(one.steps_N, one.values_N) for one in series])


def differences(stories: Mapping[str, Story]) -> list[tuple[str, list[str]]]:
    """Keys of the recipes with different values, and the values of every run."""
    recipes = [flat(story.recipe) for story in stories.values()]
    names = dict.fromkeys(name for recipe in recipes for name in recipe)
    rows = [(name, [recipe.get(name, "") for recipe in recipes]) for name in names]
    return [row for row in rows if len(set(row[1])) > 1]


Answers = list[tuple[str, list[Sample | None]]]
"""Prompts, with the answer of every run."""


def same_items(stories: Mapping[str, Story], most: int = 20) -> Answers:
    """Prompts that several runs answered, with the last answer of each."""
    last: dict[str, dict[str, Sample]] = {}
    for path, story in stories.items():
        for sample in story.samples:
            if sample.texts:
                last.setdefault(sample.prompt, {})[path] = sample
    common = [(prompt, by) for prompt, by in last.items() if len(by) > 1]
    return [(prompt, [by.get(path) for path in stories]) for prompt, by in common[:most]]


def flat(recipe: Mapping[str, Any]) -> dict[str, str]:
    """`{"optim.learning_rate": "1e-05"}`; what is a list stays one value, and what says nothing
    (older recipes do not have it) is left out. At most `MOST_KEYS`: aliases in YAML can make a
    short file endless."""
    found: dict[str, str] = {}
    left: list[tuple[str, Any]] = [("", recipe)]
    while left and len(found) < MOST_KEYS:
        above, value = left.pop()
        if isinstance(value, Mapping) and above.count(".") < DEEPEST:
            inside = [(f"{above}.{name}" if above else str(name), one)
                      for name, one in islice(value.items(), MOST_KEYS)]  # fmt: skip
            left += reversed(inside)
        elif value not in (None, []):
            found[above] = reprlib.repr(value)
    return found
