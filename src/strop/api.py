"""What the command line does, as functions: the public face of `strop` (docs/python.md).

A recipe of any kind (of a training run, a suite, a policy, a pipeline) is a YAML file, a dictionary
of the same keys, or what was made of one before; in a dictionary relative paths are relative to the
working directory. `overrides` are put over it: `{"optim.learning_rate": 1e-5}`.
A user's mistake raises a subclass of `StropError`, whose text names the place and the fix.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers

from strop.engines.engine import Engine
from strop.errors import RecipeError, UsageError
from strop.evals.ask import find_engine
from strop.evals.gate import promote as promotion
from strop.evals.gate.verdict import rules_of, run_gate
from strop.evals.run import OnPart, run_suite
from strop.pipeline import Observer, Outcome, run_pipeline
from strop.recipe.engine import FolderEngineRecipe
from strop.recipe.loading.load import (
    Given,
    Overrides,
    load,
    load_recipe,
    read_source,
    recipe_from,
)
from strop.recipe.pipeline import Pipeline, Stage
from strop.recipe.suite import Suite
from strop.recipe.train.methods import METHODS, Recipe
from strop.recipe.train.offline import PairRecipe
from strop.recipe.train.online import OnlineRecipe
from strop.recipe.train.preference import DpoObjective
from strop.results import (
    EvalResult,
    GateResult,
    PromoteResult,
    RunResult,
    StageResult,
    TrainResult,
)
from strop.rewards.find import RewardFunction, function_name, reward_names
from strop.train.run import train as run_training
from strop.types import StepRecord

__all__ = ["evaluate", "gate", "load_recipe", "promote", "run", "train"]

HERE = "registry.db"

PairLoss = Callable[..., torch.Tensor]

OnStep = Callable[[StepRecord], None]
"""Called after every optimizer step, with its number, the number of all, and its metrics."""


def train(
    recipe: Given,
    *,
    overrides: Overrides = (),
    rewards: Sequence[RewardFunction] = (),
    loss: PairLoss | None = None,
    engine: Engine | None = None,
    resume: bool = False,
    resume_from: str | Path | None = None,
    force_resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
    on_step: OnStep = lambda record: None,
) -> TrainResult:
    """Run a training recipe to its end: `strop train`.

    `rewards` are functions `f(prompts, completions, **columns) -> list[float | None]` of your own.
    Each becomes a reward component of its name with weight 1, or the component with `function` of
    that name where the recipe has one. They are called in this process, without a time limit.
    `loss` takes the place of DPO's (`method: dpo`). It gets what the functions of
    `strop.losses.preference` get, the summed log-probs of shape [B]
    `(policy_chosen, policy_rejected, ref_chosen, ref_rejected)` and those of the objective's
    options (`beta`, `label_smoothing`) that it has parameters for, and returns one loss a pair,
    shape [B]. The run's lineage keeps the names of all functions and the hashes of their sources.
    `engine` samples for a method that learns from rewards, in place of the embedded sampler: any
    object with the methods of `strop.engines.engine.Engine`; its `identity()` is kept among the
    run's checks.

    `resume` goes on from the last checkpoint, `resume_from` from this one, `force_resume` although
    recipe, data or model changed; `overwrite` deletes an earlier run in `output`; `force` accepts a
    recipe that is merely reckless.

    Raises `StoppedBySignal` after saving when Ctrl-C or SIGTERM arrives, `StoppedByAlarm` after
    saving when an alarm says so.
    """
    _expect_main_thread()
    made = _with_rewards(recipe, overrides, rewards) if rewards else load_recipe(recipe, overrides)
    if loss is not None:
        made = _with_loss(made, loss)
    if engine is not None:
        _expect_use_for_engine(made)
    with _without_bars():
        run_training(
            made,
            resume=resume,
            resume_from=None if resume_from is None else Path(resume_from),
            force_resume=force_resume,
            overwrite=overwrite,
            force=force,
            engine=engine,
            on_step=on_step,
        )
    return TrainResult(made.output)


def evaluate(
    suite: Given,
    model: TrainResult | Engine | str | Path | None = None,
    *,
    output: str | Path,
    overrides: Overrides = (),
    endpoint: str | None = None,
    outputs: str | Path | None = None,
    reference: TrainResult | str | Path | None = None,
    on_part: OnPart = lambda name, done, total: None,
) -> EvalResult:
    """Measure a model on a suite and keep every item's score in the folder `output`: `strop eval`.

    `model` is a run, a model folder, a hub name or an engine of your own; with `endpoint` it is the
    name of the model behind an OpenAI-compatible server. A model folder answers as the suite's
    `engine` says. `outputs` are recorded answers instead.
    Against `reference`, KL and displacement are measured too. `on_part` is called with a task's
    name, how many of its items are measured, and of how many.
    """
    measured = load(Suite, suite, overrides)
    engine = _engine(model, endpoint, outputs, measured.engine)
    against = _model(reference)
    with _without_bars():
        run_suite(measured, engine, output, reference=against, on_part=on_part)
    return EvalResult(output)


def gate(
    base: EvalResult | str | Path,
    candidate: EvalResult | str | Path,
    *,
    policy: Given | None = None,
    margin: float | None = None,
    noise: Sequence[EvalResult | str | Path] = (),
    output: str | Path | None = None,
    registry: str | Path | None = HERE,
) -> GateResult:
    """Decide whether a candidate may replace its base: `strop gate`.

    `base`, `candidate` and `noise` are evals, their folders, or files of scores. Without a `policy`
    no score may fall by more than `margin`. `output` is where the verdict is written (JSON, a page
    beside it), which a promotion needs. Every attempt is recorded in `registry`, unless it is
    `None`. Raises `MissingEvidenceError` for evals that cannot be compared.
    """
    before = _folder(base)
    rules = rules_of(policy, margin, before)
    decision = run_gate(
        rules, before, _folder(candidate), output,
        noise=[_folder(one) for one in noise], registry=registry,
    )  # fmt: skip
    return GateResult(decision, rules.name, None if output is None else Path(output))


def promote(
    model: TrainResult | str | Path,
    entry: str,
    *,
    verdict: GateResult | str | Path | None = None,
    override: str | None = None,
    registry: str | Path = HERE,
) -> PromoteResult:
    """Make a model the current one of the name `entry`: `strop registry promote`.

    Refused (`RegistryError`) without the gate's pass for exactly its weights; `override` is a
    reason to do it all the same, and is recorded.
    """
    if isinstance(verdict, GateResult):
        if verdict.output is None:
            raise UsageError("the verdict was written nowhere", fix="give the gate an `output`")
        verdict = verdict.output
    found = promotion.promote(
        _model(model) or "", entry, verdict=verdict, registry=registry, override=override
    )
    return PromoteResult(entry, found)


def run(
    pipeline: Given,
    *,
    overrides: Overrides = (),
    on_step: OnStep = lambda record: None,
    on_stage: Callable[[StageResult], None] = lambda stage: None,
) -> RunResult:
    """Run the stages of a pipeline that are not up to date, in order: `strop run`.

    `on_stage` is called after every stage. Raises `GateRefused` at a gate that does not pass and
    may not go back; called again after any kind of stop it goes on.
    """
    _expect_main_thread()
    loaded = load(Pipeline, pipeline, overrides)
    found: list[StageResult] = []

    def on_outcome(stage: Stage, outcome: Outcome, said: str) -> None:
        found.append(StageResult(stage.name, stage.kind, outcome, said))
        on_stage(found[-1])

    with _without_bars():
        run_pipeline(loaded, Observer(on_step=on_step, on_outcome=on_outcome))
    return RunResult(loaded.name, tuple(found))


def _with_rewards(
    given: Given, overrides: Overrides, functions: Sequence[RewardFunction]
) -> Recipe:
    """The recipe with these functions among its reward components."""
    named = reward_names(functions)
    source = read_source(given, overrides)
    method = METHODS.get(str(source.values.get("method")))
    if method is not None and method.records != "task":
        raise RecipeError(f"method {source.values['method']} learns from no reward",
                          where=source.place(("method",)), fix="drop `rewards`")  # fmt: skip
    listed = source.values.setdefault("reward", [])
    if isinstance(listed, list):
        known = [item.get("function") for item in listed if isinstance(item, dict)]
        listed += [{"function": name} for name in named if name not in known]
    recipe = recipe_from(source)
    for component in recipe.all_rewards:
        if component.function in named and component.file is None and component.url is None:
            component.give(named[component.function])
    return recipe


def _with_loss(recipe: Recipe, loss: PairLoss) -> Recipe:
    """The recipe with this loss in place of DPO's; every option that it sets has to be read."""
    name = function_name(loss)
    objective = recipe.objective if isinstance(recipe, PairRecipe) else None
    if not isinstance(objective, DpoObjective):
        raise RecipeError(f"method {recipe.method} takes no loss of your own",
                          fix="`loss` takes the place of DPO's: use method dpo")  # fmt: skip
    said = objective.model_fields_set & {"label_smoothing", "divergence", "alpha"}
    unread = sorted(said - inspect.signature(loss).parameters.keys())
    if unread:
        raise RecipeError(f"{name} does not read objective.{unread[0]}",
                          fix=f"drop it, or add the parameter `{unread[0]}`")  # fmt: skip
    return recipe.model_copy(update={"objective": objective.with_loss(loss)})


def _expect_use_for_engine(recipe: Recipe) -> None:
    if not isinstance(recipe, OnlineRecipe):
        raise RecipeError(f"method {recipe.method} samples nothing", fix="drop `engine`")
    named = recipe.rollout.engine.kind
    if named != "local":
        raise RecipeError(
            f"an engine was given, and rollout.engine names {named}", fix="drop one of the two"
        )


def _engine(
    model: TrainResult | Engine | str | Path | None,
    endpoint: str | None,
    outputs: str | Path | None,
    recipe: FolderEngineRecipe,
) -> Engine:
    """Whom to measure; an engine is taken as it is."""
    if model is None or isinstance(model, TrainResult | str | Path):
        recorded = None if outputs is None else str(outputs)
        return find_engine(_model(model), endpoint, recorded, recipe)
    if endpoint is not None or outputs is not None:
        raise UsageError("an engine answers by itself", fix="drop `endpoint` and `outputs`")
    return model


def _model(given: TrainResult | str | Path | None) -> str | None:
    """A run stands for its final model."""
    found = given.final if isinstance(given, TrainResult) else given
    return None if found is None else str(found)


def _folder(given: EvalResult | str | Path) -> Path:
    return given.folder if isinstance(given, EvalResult) else Path(given)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Without transformers' bars for every file of weights that is read or written."""
    shown = transformers.logging.is_progress_bar_enabled()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers.logging.enable_progress_bar()


def _expect_main_thread() -> None:
    """A run listens for SIGTERM and Ctrl-C, which only the main thread of Python may do."""
    if threading.current_thread() is not threading.main_thread():
        raise UsageError("a run can only be started in the main thread",
                         fix="start it in a process of its own: strop train RECIPE")  # fmt: skip
