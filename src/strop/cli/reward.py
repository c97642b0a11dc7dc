"""`strop reward check | audit | probe`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strop.cli.options import AsJson, AsJsonArray, Overrides

if TYPE_CHECKING:
    from strop.recipe.train.reward import RewardFile

app = typer.Typer(help="Look at a reward before anything is trained on it.", no_args_is_help=True)
Completions = Annotated[
    Path, typer.Argument(help="Rows with prompt, completion(s), columns and, if known, label(s).")
]
RecipeFile = Annotated[Path, typer.Option("--recipe", help="A recipe with `reward` (YAML).")]


@app.command("check")
def check(
    file: Completions,
    recipe: RecipeFile,
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Score a file of completions: distribution, variance in groups, agreement with labels.

    Example: strop reward check completions.jsonl --recipe grpo.yaml
    """
    from strop.rewards.audit.report import check as checked
    from strop.rewards.audit.report import checked_lines, plain
    from strop.rewards.audit.sample import read_completions, score
    from strop.rewards.compose import Reward

    loaded = reward_in(recipe, overrides)
    reward = Reward(loaded.reward)
    scored = score(reward, read_completions(file))
    found = checked(loaded.reward, scored, reward.seconds)
    print(json.dumps(plain(found)) if as_json else "\n".join(checked_lines(found)))


@app.command("audit")
def audit(
    file: Completions,
    recipe: RecipeFile,
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Which component drives the advantage, and whether a wrong answer can outrank a right one.

    Exit code: 0 holds, 10 fails.

    Example: strop reward audit completions.jsonl --recipe grpo.yaml
    """
    from strop.rewards.audit.dominance import dominance, faults, static_margin
    from strop.rewards.audit.report import audit_lines, plain
    from strop.rewards.audit.sample import read_completions, score
    from strop.rewards.compose import Reward

    loaded = reward_in(recipe, overrides)
    scored = score(Reward(loaded.reward), read_completions(file))
    groups = [[scored.scores[i].components for i in group] for group in scored.groups]
    found, margin = dominance(loaded.reward, groups), static_margin(loaded.reward, groups)
    wrong = faults(loaded.reward, found, margin)
    if as_json:
        print(json.dumps({"dominance": plain(found), "margin": plain(margin),
                          "faults": [plain(fault) for fault in wrong]}))  # fmt: skip
    else:
        print("\n".join(audit_lines(found, margin, wrong)))
    raise typer.Exit(10 if wrong else 0)


@app.command("probe")
def probe(
    tasks: Annotated[
        Path, typer.Argument(help="Tasks with gold answers, or completions with labels.")
    ],
    recipe: RecipeFile,
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJsonArray = False,
) -> None:
    """Attack a reward with completions that policies are known to find.

    Exit code: 0 all hold, 10 one fails, 11 too few trials to be sure.

    Example: strop reward probe tasks.jsonl --recipe grpo.yaml
    """
    from strop.recipe.loading.load import read_yaml
    from strop.rewards.audit.check import attacked
    from strop.rewards.audit.report import plain, probe_lines
    from strop.rewards.audit.tool_attacks import EXAMPLE

    loaded = reward_in(recipe, overrides)
    rollout = read_yaml(recipe, overrides).values.get("rollout") or {}
    tools = EXAMPLE if rollout.get("environment") else None
    findings = attacked(loaded.reward, loaded.probes, tasks, tools)
    if as_json:
        print(json.dumps([plain(one) | {"verdict": one.verdict} for one in findings]))
    else:
        print("\n".join(probe_lines(findings)))
    verdicts = {one.verdict for one in findings}
    raise typer.Exit(10 if "fails" in verdicts else 11 if "undecided" in verdicts else 0)


def reward_in(path: Path, overrides: Sequence[str] = ()) -> RewardFile:
    """The reward of a training recipe, or of a file that holds nothing else."""
    from strop.errors import RecipeError
    from strop.recipe.loading.load import load, load_recipe, read_yaml
    from strop.recipe.train.online import OnlineRecipe
    from strop.recipe.train.reward import RewardFile

    if "method" not in read_yaml(path, overrides).values:
        return load(RewardFile, path, overrides)
    recipe = load_recipe(path, overrides)
    if not isinstance(recipe, OnlineRecipe):
        raise RecipeError(
            f"method {recipe.method} learns from no reward",
            where=str(path),
            fix="give a recipe with `reward`",
        )
    return RewardFile(reward=recipe.reward, probes=recipe.probes)
