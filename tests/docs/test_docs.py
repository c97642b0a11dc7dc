"""What the docs say can be typed, parses; what they show as YAML, loads."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from strop.cli.app import app
from strop.errors import RecipeError
from strop.recipe.base import Strict
from strop.recipe.gate import GateRules
from strop.recipe.loading.load import load, load_recipe
from strop.recipe.pipeline import Pipeline
from strop.recipe.serve import ServeRecipe
from strop.recipe.study import Study
from strop.recipe.suite import Suite
from strop.recipe.sweep import SweepRecipe
from tests.support import ROOT
from tests.support.recipe_keys import explained, recipe_keys, unexplained

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")),
         *sorted((ROOT / "examples").rglob("*.md"))]  # fmt: skip


def commands(page: Path) -> list[list[str]]:
    """Every `strop ...` of an indented line, also those joined by &&."""
    lines = re.findall(r"^    (strop .*)$", page.read_text(), flags=re.M)
    typed = [part for line in lines for part in line.split("  #")[0].split("&&")]
    return [shlex.split(part)[1:] for part in typed]


def parse(args: list[str]) -> tuple[str, dict[str, Any]]:
    """Parse as the command line would, without running anything: the verb, and what it is given."""
    command: Any = typer.main.get_command(app)
    verb = []
    while hasattr(command, "commands"):
        if args[0] in command.commands:
            verb.append(args[0])
            command, args = command.commands[args[0]], args[1:]
        else:  # `strop eval suite.yaml`
            command = command.commands["suite"]
    return " ".join(verb), command.make_context("strop", args).params


def shown(paths: Sequence[Path]) -> list[Any]:
    """Pages as parameters of a test, named by their path."""
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]


@pytest.mark.parametrize("page", shown([page for page in PAGES if commands(page)]))
def test_commands_parse(page: Path) -> None:
    """Each names a verb, and every word that it types arrives as a value."""
    for args in commands(page):
        verb, given = parse(args)
        assert verb == " ".join(args[: len(verb.split())]) != ""
        typed = {word for word in args[len(verb.split()) :] if not word.startswith("-")}
        arrived = {text for value in given.values() for text in texts_of(value)}
        assert typed <= arrived, f"strop {' '.join(args)}: {typed - arrived}"


def texts_of(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list | tuple) else [str(value)]


def test_the_docs_show_commands_and_parse_can_fail() -> None:
    assert sum(len(commands(page)) for page in PAGES) >= 15
    for page in PAGES:
        lines = re.findall(r"^(?: {4,}|\$ )(strop [a-z]+ .*)$", page.read_text(), flags=re.M)
        assert len(lines) <= len(commands(page)), f"{page.name} shows commands that are not parsed"
    with pytest.raises(Exception, match="No such option"):
        parse(["train", "a.yaml", "--frobnicate"])
    with pytest.raises(KeyError, match="suite"):
        parse(["trian", "a.yaml"])


def yaml_blocks(page: Path) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", page.read_text(), flags=re.S)


def load_block(block: str, folder: Path) -> Strict:
    """What a block of YAML is, read as the command that takes it would."""
    path = folder / "block.yaml"
    path.write_text(block)
    keys = yaml.safe_load(block).keys()
    if "method" in keys:
        return load_recipe(path)
    told_by = {"stages": Pipeline, "tasks": Suite, "serving_temperature": Study,
               "vary": SweepRecipe, "models": ServeRecipe}  # fmt: skip
    return load(next((kind for key, kind in told_by.items() if key in keys), GateRules), path)


def expect_read(block: str, folder: Path) -> None:
    """Every key of a block is one that was set, and plain values are as they were written."""
    written, read = yaml.safe_load(block), load_block(block, folder)
    assert written
    assert read.model_fields_set == written.keys()
    plain = {k: v for k, v in written.items() if isinstance(v, int | float)}
    assert {k: getattr(read, k) for k in plain} == plain


@pytest.mark.parametrize("page", shown([page for page in PAGES if yaml_blocks(page)]))
def test_yaml_loads(page: Path, tmp_path: Path) -> None:
    for block in yaml_blocks(page):
        expect_read(block, tmp_path)


def test_a_broken_block_would_be_found(tmp_path: Path) -> None:
    """And a page without blocks would pass by saying nothing: there are many."""
    blocks = [len(yaml_blocks(page)) for page in PAGES]
    assert sum(blocks) >= 8
    block = yaml_blocks(ROOT / "docs/recipes.md")[0]
    with pytest.raises(RecipeError, match="did you mean `learning_rate`"):
        load_block(block.replace("learning_", "lerning_"), tmp_path)


@pytest.mark.parametrize(
    "recipe",
    [path for path in sorted((ROOT / "examples").rglob("*.yaml")) if path.parent.name != "launch"],
    ids=lambda p: p.name,
)
def test_examples_load(recipe: Path, tmp_path: Path) -> None:
    text = recipe.read_text().replace("$seed", "0").replace("$steps", "1")
    expect_read(text, tmp_path)


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


RECIPES = "".join((ROOT / f"docs/{name}.md").read_text() for name in ("recipes", "environments"))


def test_every_recipe_key_is_documented() -> None:
    assert not unexplained(RECIPES)


@pytest.mark.parametrize(
    ("planted", "missing"),
    [
        ("`rollout.temperature`, `max_tokens`, `stop`", {"rollout.temperature"}),
        ("`optim.weight_decay`, `betas`, ", {"optim.betas", "optim.weight_decay"}),
        ("| `value` | required by `ppo` | `{path, revision, learning_rate, lora}`",
         {f"value{key}" for key in ("", ".path", ".revision", ".learning_rate", ".lora")}),
        ("rslora: false, ", {"model.lora.rslora", "value.lora.rslora"}),
        ("| `spike` |", {f"alarms.spike.{of}" for of in ("action", "patience", "threshold")}
         | {"alarms.spike"}),
        ("  tolerance: 0.02 ", {"dev.tolerance"}),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)  # fmt: skip
def test_a_key_left_out_of_the_page_is_missed(planted: str, missing: set[str]) -> None:
    """Also where another section has a key of that name."""
    kept = {"`rollout.temperature`, `max_tokens`, `stop`": "`rollout.max_tokens`, `stop`",
            "`optim.weight_decay`, `betas`, ": "`optim.learning_rate`, ",
            "  tolerance: 0.02 ": "  # "}  # fmt: skip
    assert planted in RECIPES
    page = RECIPES.replace(planted, kept.get(planted, ""))
    assert unexplained(page) == missing


def test_the_page_explains_no_key_that_is_not_there() -> None:
    """But for trackers, losses of a mixture, variables of a template, and `<name>`."""
    free = re.compile(r"alarms\.<name>|mlflow|wandb|trackio|objective\.losses\.|template_options\.")
    assert not {key for key in explained(RECIPES) - recipe_keys() if not free.match(key)}
    more = explained(RECIPES + "\n| `optim.warmup` | 0 | |\n")
    assert more - explained(RECIPES) == {"optim.warmup"}
