"""`strop data generate`: a verb for every kind of data."""

from __future__ import annotations

from typing import Annotated

import typer

from strop.cli.data.generate.options import (
    Asked,
    Cache,
    Model,
    ModelName,
    Recorded,
    RewardRecipe,
    Samples,
    Settings,
    Url,
    generate,
)
from strop.cli.data.options import Inputs, MaxBad, OutputPath, Overwrite
from strop.cli.options import AsJson, DryRun, Overrides, Servers

app = typer.Typer(
    help="Let a model write data: instructions, answers a reward picks, reasoning, revisions.\n\n"
    "Example: strop data generate best-of tasks.jsonl --model M --reward grpo.yaml "
    "--output best.jsonl",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("self-instruct")
def self_instruct(
    inputs: Inputs,
    output: OutputPath,
    count: Annotated[int | None, typer.Option(min=1, help="Instructions to write.")] = None,
    model: Model = None,
    engine: Servers = [],  # noqa: B006
    url: Url = None,
    model_name: ModelName = None,
    recorded: Recorded = None,
    settings: Settings = None,
    overrides: Overrides = [],  # noqa: B006 - typer reads it, nobody writes it
    cache: Cache = None,
    max_bad: MaxBad = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Write new instructions from seeds, each unlike all others, and answer them.

    Example: strop data generate self-instruct seeds.jsonl --url http://127.0.0.1:8000/v1
    --model-name teacher --count 500 --output instructions.jsonl
    """
    from strop.curate.synthetic.self_instruct import self_instruct as made
    from strop.recipe.synthetic import SelfInstructRecipe

    asked = Asked(inputs, output, model, engine, url, model_name, recorded, settings, overrides,
                  cache, max_bad, overwrite, dry_run, as_json)  # fmt: skip
    recipe = asked.recipe(SelfInstructRecipe, count=count)
    generate(asked, recipe, lambda read, engine, target: made(read, engine, recipe, target))


@app.command("best-of")
def best_of(
    inputs: Inputs,
    output: OutputPath,
    reward: RewardRecipe,
    keep: Annotated[
        str | None, typer.Option(help="best: a demonstration; pair: with a rejected answer.")
    ] = None,
    samples: Samples = None,
    model: Model = None,
    engine: Servers = [],  # noqa: B006
    url: Url = None,
    model_name: ModelName = None,
    recorded: Recorded = None,
    settings: Settings = None,
    overrides: Overrides = [],  # noqa: B006 - typer reads it, nobody writes it
    cache: Cache = None,
    max_bad: MaxBad = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Answer every prompt several times and keep the best, or the best with a worse one.

    Example: strop data generate best-of tasks.jsonl --model runs/sft/final --reward grpo.yaml
    --samples 16 --keep pair --output pairs.jsonl
    """
    from strop.cli.reward import reward_in
    from strop.curate.synthetic.best_of import best_of as made
    from strop.recipe.synthetic import BestOfRecipe
    from strop.rewards.compose import Reward

    asked = Asked(inputs, output, model, engine, url, model_name, recorded, settings, overrides,
                  cache, max_bad, overwrite, dry_run, as_json)  # fmt: skip
    recipe = asked.recipe(BestOfRecipe, keep=keep, samples=samples)
    judge = Reward(reward_in(reward).reward)
    generate(asked, recipe, lambda read, engine, target: made(read, engine, judge, recipe, target))


@app.command("reject")
def reject(
    inputs: Inputs,
    output: OutputPath,
    reward: RewardRecipe,
    threshold: Annotated[
        float | None, typer.Option(help="The least reward of an answer that is kept.")
    ] = None,
    samples: Samples = None,
    model: Model = None,
    engine: Servers = [],  # noqa: B006
    url: Url = None,
    model_name: ModelName = None,
    recorded: Recorded = None,
    settings: Settings = None,
    overrides: Overrides = [],  # noqa: B006 - typer reads it, nobody writes it
    cache: Cache = None,
    max_bad: MaxBad = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Answer every prompt several times and keep all different answers of a high reward.

    Example: strop data generate reject tasks.jsonl --model runs/sft/final --reward grpo.yaml
    --threshold 1.0 --output good.jsonl
    """
    from strop.cli.reward import reward_in
    from strop.curate.synthetic.best_of import reject as made
    from strop.recipe.synthetic import RejectRecipe
    from strop.rewards.compose import Reward

    asked = Asked(inputs, output, model, engine, url, model_name, recorded, settings, overrides,
                  cache, max_bad, overwrite, dry_run, as_json)  # fmt: skip
    recipe = asked.recipe(RejectRecipe, threshold=threshold, samples=samples)
    judge = Reward(reward_in(reward).reward)
    generate(asked, recipe, lambda read, engine, target: made(read, engine, judge, recipe, target))


@app.command("reason")
def reason(
    inputs: Inputs,
    output: OutputPath,
    reward: RewardRecipe,
    samples: Samples = None,
    model: Model = None,
    engine: Servers = [],  # noqa: B006
    url: Url = None,
    model_name: ModelName = None,
    recorded: Recorded = None,
    settings: Settings = None,
    overrides: Overrides = [],  # noqa: B006 - typer reads it, nobody writes it
    cache: Cache = None,
    max_bad: MaxBad = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Keep reasoning traces whose answers a verifier finds right.

    Example: strop data generate reason tasks.jsonl --url http://127.0.0.1:8000/v1
    --model-name teacher --reward grpo.yaml --set most=2 --output traces.jsonl
    """
    from strop.cli.reward import reward_in
    from strop.curate.synthetic.reason import reason as made
    from strop.recipe.synthetic import ReasonRecipe
    from strop.rewards.compose import Reward

    asked = Asked(inputs, output, model, engine, url, model_name, recorded, settings, overrides,
                  cache, max_bad, overwrite, dry_run, as_json)  # fmt: skip
    recipe = asked.recipe(ReasonRecipe, samples=samples)
    judge = Reward(reward_in(reward).reward)
    generate(
        asked,
        recipe,
        lambda read, engine, target: made(read, engine, judge, recipe, target),
        thoughts=True,
    )


@app.command("critique")
def critique(
    inputs: Inputs,
    output: OutputPath,
    model: Model = None,
    engine: Servers = [],  # noqa: B006
    url: Url = None,
    model_name: ModelName = None,
    recorded: Recorded = None,
    settings: Settings = None,
    overrides: Overrides = [],  # noqa: B006 - typer reads it, nobody writes it
    cache: Cache = None,
    max_bad: MaxBad = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Answer, criticise by a principle, revise: the revision is chosen, the answer rejected.

    Example: strop data generate critique prompts.jsonl --model runs/sft/final
    --set principles=mine.yaml --output pairs.jsonl
    """
    from strop.curate.synthetic.critique import critique as made
    from strop.recipe.synthetic import CritiqueRecipe

    asked = Asked(inputs, output, model, engine, url, model_name, recorded, settings, overrides,
                  cache, max_bad, overwrite, dry_run, as_json)  # fmt: skip
    recipe = asked.recipe(CritiqueRecipe)
    generate(asked, recipe, lambda read, engine, target: made(read, engine, recipe, target))
