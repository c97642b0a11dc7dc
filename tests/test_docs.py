"""What the docs say can be typed, parses; what they show as YAML, loads."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from strop.cli.app import app
from strop.recipe.gate import Policy
from strop.recipe.loading.load import load, load_recipe
from strop.recipe.pipeline import Pipeline
from strop.recipe.suite import Suite

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")),
         *sorted((ROOT / "examples").rglob("*.md"))]  # fmt: skip


def commands(page: Path) -> list[list[str]]:
    """Every `strop ...` of an indented line, also those joined by &&."""
    lines = re.findall(r"^    (strop .*)$", page.read_text(), flags=re.M)
    typed = [part for line in lines for part in line.split("  #")[0].split("&&")]
    return [shlex.split(part)[1:] for part in typed]


def parse(args: list[str]) -> None:
    """Parse as the command line would, without running anything."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        if args[0] in command.commands:
            command, args = command.commands[args[0]], args[1:]
        else:  # `strop eval suite.yaml`
            command = command.commands["suite"]
    command.make_context("strop", args)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_parse(page: Path) -> None:
    for args in commands(page):
        parse(args)


def test_the_docs_show_commands_and_parse_can_fail() -> None:
    assert sum(len(commands(page)) for page in PAGES) >= 15
    with pytest.raises(Exception, match="No such option"):
        parse(["train", "a.yaml", "--frobnicate"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_yaml_loads(page: Path, tmp_path: Path) -> None:
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), flags=re.S)):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block)
        keys = yaml.safe_load(block).keys()
        if "method" in keys:
            load_recipe(path)
        else:
            load(Pipeline if "stages" in keys else Suite if "tasks" in keys else Policy, path)


@pytest.mark.parametrize(
    "recipe", sorted((ROOT / "examples").rglob("*.yaml")), ids=lambda p: p.name
)
def test_examples_load(recipe: Path) -> None:
    keys = yaml.safe_load(recipe.read_text()).keys()
    if "method" in keys:
        load_recipe(recipe)
    else:
        load(Suite if "tasks" in keys else Policy, recipe)


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_recipe_key_is_documented() -> None:
    from strop.recipe.loading.load import _fields
    from strop.recipe.train.methods import METHODS

    text = (ROOT / "docs/recipes.md").read_text()
    for cls in {row.recipe: row for row in METHODS.values()}:
        for path in _fields(cls, ()):
            assert re.search(rf"\b{path[-1]}\b", text), ".".join(path)
