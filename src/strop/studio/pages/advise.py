"""Which method fits: a form, a verdict, a recipe, and its start."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import yaml
from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict

from strop.advise.known.evals import read_target
from strop.advise.page import lines
from strop.advise.run import Answered, Question, answer
from strop.errors import StropError, UsageError
from strop.studio.site import Site

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")


class Asked(BaseModel):
    """What the form holds; all paths are below the root, and what is empty is not known."""

    model_config = ConfigDict(extra="forbid")

    data: str = ""
    model: str = ""
    eval: str = ""
    target: str = ""
    goal: str = ""


class Start(Asked):
    """`name` is that of the recipe's file and of the run's folder."""

    name: str


def advise_routes(site: Site) -> APIRouter:
    router = APIRouter()

    @router.get("/advise")
    def advise(
        data: str = "", model: str = "", eval: str = "", target: str = "", goal: str = ""
    ) -> HTMLResponse:
        asked = Asked(data=data, model=model, eval=eval, target=target, goal=goal)
        found = site.root.found()
        told: list[str] = []
        recipe, problem = "", ""
        if any(asked.model_dump().values()):
            try:
                answered = _answer(site, asked)
                told = [str(line) for line in lines(answered, False)]
                if answered.recipe is not None:
                    recipe = yaml.safe_dump(answered.recipe, sort_keys=False, width=90)
            except StropError as error:
                problem = str(error)
        models = site.root.finals()
        return site.page(
            "advise.html", "Advise", "/advise", asked=asked, told=told, recipe=recipe,
            problem=problem, files=found.records, models=models, evals=found.evals,
        )  # fmt: skip

    @router.post("/act/start")
    def start(body: Start) -> dict[str, str]:
        if not NAME.fullmatch(body.name):
            raise UsageError("the name is none", fix="use letters, digits, and . _ -")
        answered = _answer(site, body)
        if answered.recipe is None:
            raise UsageError(f"the verdict is {answered.advice.verdict}: there is nothing to start",
                             fix="do what the advice says first")  # fmt: skip
        path = site.root.folder / f"{body.name}.yaml"
        if path.exists():
            raise UsageError("a recipe of that name is there already", where=path.name,
                             fix="give another name")  # fmt: skip
        run = site.root.folder / "runs" / body.name
        recipe = {**answered.recipe, "output": str(run)}
        replace(answered, recipe=recipe).save(path)
        return {"said": site.begun.train(path, run, (), path.with_suffix(".log"))}

    return router


def _answer(site: Site, asked: Asked) -> Answered:
    def place(name: str) -> Path | None:
        return site.root.inside(name) if name else None

    data = place(asked.data)
    return answer(Question(
        data=() if data is None else (data,), model=place(asked.model), eval=place(asked.eval),
        target=read_target(asked.target) if asked.target else None, goal=asked.goal,
    ))  # fmt: skip
