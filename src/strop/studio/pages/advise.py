"""Which method fits: a form, a verdict, a recipe, and its start."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

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
        path = site.root.folder / f"{body.name}.yaml"
        if path.exists():
            raise UsageError("a recipe of that name is there already", where=path.name,
                             fix="give another name")  # fmt: skip
        answered.save(path)
        return {"said": _started(path, body.name, site.root.folder)}

    return router


def _answer(site: Site, asked: Asked) -> Answered:
    def place(name: str) -> Path | None:
        return site.root.inside(name) if name else None

    data = place(asked.data)
    return answer(Question(
        data=() if data is None else (data,), model=place(asked.model), eval=place(asked.eval),
        target=read_target(asked.target) if asked.target else None, goal=asked.goal,
    ))  # fmt: skip


def _started(recipe: Path, name: str, folder: Path) -> str:
    """Start `strop train` on a recipe; it outlives the studio, and prints into a file beside it."""
    log = recipe.with_suffix(".log")
    words: list[Any] = [sys.executable, "-m", "strop", "train", str(recipe),
                        "--set", f"output={folder / 'runs' / name}"]  # fmt: skip
    with log.open("ab") as stream:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True,
            env=os.environ | {"COLUMNS": "100"},
        )  # fmt: skip
    return f"started as process {process.pid}; what it prints is in {log.name}"
