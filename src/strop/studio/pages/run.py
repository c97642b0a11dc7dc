"""One run: its story, its samples, and what may be done with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict

from strop.errors import UsageError
from strop.recipe.loading.load import load_recipe
from strop.studio.begun import printed
from strop.studio.difference import MOST_LETTERS, compared, words
from strop.studio.root import PROFILE
from strop.studio.site import Site
from strop.tracking.control import want
from strop.tracking.notify.receivers import send_test
from strop.tracking.reading import FAULTS, read_json
from strop.tracking.story.facts import RECIPE, SAMPLES, RunFacts, facts_of, recipe_of
from strop.tracking.story.page import shown
from strop.tracking.story.panels import HELD_OUT
from strop.tracking.story.samples import Sample, Wanted, matching, same_prompt

LAST = 2**53
"""A step beyond every run's last."""
MOST_PAIRS = 20
"""Prompts whose first and last answer are compared."""
MOST_HITS = 200
LOG = "studio.log"
"""What a run that the studio started prints."""


class Act(BaseModel):
    """`{"path": "runs/dpo", "act": "pause"}`."""

    model_config = ConfigDict(extra="forbid")

    path: str
    act: Literal["pause", "go", "stop", "resume"]


class Tell(BaseModel):
    """`{"path": "runs/dpo"}`: send a test message to everyone whom the run tells."""

    model_config = ConfigDict(extra="forbid")

    path: str


class Search(BaseModel):
    """The fields of the form as they were typed; what is empty says nothing."""

    model_config = ConfigDict(extra="forbid")

    text: str = ""
    first: str = ""
    last: str = ""
    habit: str = ""
    low: str = ""
    high: str = ""

    def wanted(self) -> Wanted:
        """Raises `UsageError` for what should be a number and is none."""
        last = _number(self.last)
        steps = (int(_number(self.first) or 0), LAST if last is None else int(last))
        return Wanted(self.text, steps, self.habit, _number(self.low), _number(self.high))


def run_routes(site: Site) -> APIRouter:
    router = APIRouter()

    @router.get("/run/{path:path}")
    def run(path: str) -> HTMLResponse:
        story = site.root.story(path)
        near = beside(site, path, story.facts)
        return site.page("run.html", f"Run {path}", "/runs", path=path, beside=near,
                         **shown(story, 20))  # fmt: skip

    @router.get("/part/run/{path:path}")
    def part(path: str) -> HTMLResponse:
        return site.part("story.html", **shown(site.root.story(path), 20))

    @router.get("/series/{path:path}")
    def series(path: str, metric: str) -> dict[str, Any]:
        """One metric in full, for plotly."""
        log = site.root.log(path)
        found = {}
        for role, name in (("training", metric), ("held out", f"{HELD_OUT}{metric}")):
            steps, values = log.series(name)
            if len(values):
                found[role] = {"x": steps.tolist(), "y": values.tolist()}
        return found

    @router.get("/samples/{path:path}")
    def samples(path: str, search: Annotated[Search, Query()]) -> HTMLResponse:
        folder, wanted = site.root.run(path), search.wanted()
        held = [one for one in site.root.story(path).samples if wanted.takes(one)]
        found, count, habits = matching(folder / SAMPLES, wanted, MOST_HITS)
        return site.page(
            "samples.html", f"Samples of {path}", "/runs", path=path, samples=found, count=count,
            habits=habits, wanted=wanted, pairs=early_and_late(held),
        )  # fmt: skip

    @router.post("/act/notify")
    def notify(body: Tell) -> dict[str, str]:
        folder = site.root.run(body.path)
        told = load_recipe(folder / RECIPE).run.notify
        if not told:
            raise UsageError("`run.notify` of this recipe names nobody", where=body.path,
                             fix="give it a webhook or a command (docs/notify.md)")  # fmt: skip
        replies = send_test(told, folder.name, "run.notify")
        said = [f"{one.name}: {'told' if one.sent else 'not told'}, {one.said}" for one in replies]
        return {"said": "\n".join(said)}

    @router.post("/act/run")
    def act(body: Act) -> dict[str, str]:
        folder = site.root.run(body.path)
        facts = facts_of(folder)
        if body.act == "resume":
            return {"said": resume(site, folder, facts)}
        if facts.owner is None:
            raise UsageError(f"nothing works in {body.path}: the run is {facts.state}",
                             fix="resume it, or look at another one")  # fmt: skip
        want(folder, body.act)
        said = {"pause": "it pauses after this step", "go": "it goes on",
                "stop": "it saves this step and ends"}  # fmt: skip
        return {"said": said[body.act]}

    return router


def _number(given: str) -> float | None:
    """A field of a form; one that is empty says nothing. Raises `UsageError` for what is none."""
    if not given.strip():
        return None
    try:
        number = float(given)
        if not math.isfinite(number):
            raise ValueError
        return number
    except ValueError:
        raise UsageError(f"{given!r} is no number", fix="give one, or leave it empty") from None


def early_and_late(samples: Sequence[Sample]) -> list[tuple[Sample, Sample, Any]]:
    """The first and the last answer to the same prompt, and what differs between them."""
    return [
        (first, last, compared(words(_said(first)), words(_said(last))))
        for first, last in islice(same_prompt(samples), MOST_PAIRS)
    ]


def _said(sample: Sample) -> str:
    return "\n".join(text for _, text in sample.texts)[:MOST_LETTERS]


def resume(site: Site, folder: Path, facts: RunFacts) -> str:
    """Start `strop train --resume` on a run that stands still, with as many processes as it had.
    Raises `UsageError` for a run that is at work or finished, and for one that was copied here: its
    recipe would go on elsewhere."""
    if facts.state != "stopped":
        raise UsageError(f"the run is {facts.state}", fix="only a stopped run can be resumed")
    recipe, wrong = recipe_of(folder)
    if wrong or Path(str(recipe.get("output"))).resolve() != folder:
        raise UsageError(
            wrong or f"its recipe writes to {recipe.get('output')}, which is another folder",
            where=str(folder), fix="resume it where it was begun, with `strop train --resume`",
        )  # fmt: skip
    options = ["--resume"]
    processes = _processes(folder)
    if processes > 1:
        options += ["--nproc", str(processes)]
    return site.begun.train(folder / RECIPE, folder, options, folder / LOG)


def _processes(folder: Path) -> int:
    """How many processes the run was begun with."""
    try:
        return int(read_json(folder / "env.json").get("processes", 1))
    except FAULTS:
        return 1


@dataclass(frozen=True, slots=True)
class Beside:
    """What belongs to a run, as paths below the root: evals and gates of its name, the files of its
    data that are there; and what its profile and its last start in the studio say."""

    evals: tuple[str, ...]
    gates: tuple[str, ...]
    data: Mapping[str, str]
    profile: str
    printed: str


def beside(site: Site, path: str, facts: RunFacts) -> Beside:
    above = str(Path(path).parent.parent)
    near = "" if above == "." else f"{above}/"
    found = site.root.found()
    name = Path(path).name
    data = {str(site.root.folder / one): one for one in found.records}
    return Beside(
        tuple(one for one in found.evals if one.startswith(near) and Path(one).name == name),
        tuple(one for one in found.gates if one.startswith(near) and Path(one).stem == name),
        {file: data[str(Path(file).resolve())] for file in facts.data
         if str(Path(file).resolve()) in data},
        printed(facts.folder / PROFILE), printed(facts.folder / LOG),
    )  # fmt: skip
