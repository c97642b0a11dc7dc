"""Everything that can be read and checked before a run starts; nothing is written."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from strop.data.order import Mix, Part
from strop.data.records import PARSERS, fits, task
from strop.data.sources import read, rows
from strop.engines.engine import PromptedTask, prompted_tasks
from strop.errors import DataError, ModelError, RecipeError
from strop.model.arithmetic import Precision, emulates_bfloat16
from strop.model.load import (
    expect_weights,
    load_config,
    load_tokenizer,
    pick_device,
    positions_of,
    tokenizer_of,
)
from strop.model.logprobs import PROBE
from strop.recipe.train.data import DataSource, TextRecipe
from strop.recipe.train.methods import Offline, Online, Recipe, record_kind
from strop.recipe.train.offline import RewardModelRecipe, UnpairedRecipe
from strop.recipe.train.online import OnlineRecipe, PpoRecipe
from strop.recipe.train.run import TrainRecipe
from strop.rewards.audit.check import defend
from strop.rewards.compose import Reward
from strop.rewards.find import runs_code
from strop.sandbox.tiers import strongest
from strop.text.chat.clock import written_on
from strop.text.ends import ends_of
from strop.text.trees import Rendered, render
from strop.tracking.sinks import expect_sinks
from strop.train.loop.online import HeldOut
from strop.train.monitor.dev import DevSet, load_dev, refuse_trained_on
from strop.train.preflight.refuse import refuse, refuse_small_steps
from strop.train.preflight.selfcheck import check_rendered
from strop.train.preflight.start import expect_lora_targets
from strop.train.rundir.directory import claim, has_begun, self_check
from strop.types import Branch, Feedback, Preference, Record, Tree

MUON = "muon"
"""Name of Muon's precision among the checks, in `lineage.json` as well."""

PROBED, PROBED_TOKENS = 4, 64
"""Sequences, and tokens of each, by which an adapter is compared with what it is merged."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run with everything read and checked and nothing written: what `--dry-run` stops at.

    `recipe` is the given one within the bounds of its model. `rendered` are an offline method's own
    records, `tasks` an online one's; `replay` are demonstrations mixed in; `dev` is what is
    measured meanwhile, `muon` the precision in which Muon orthogonalises.
    """

    recipe: Recipe
    folder: Path
    checks: dict[str, Any]
    mix: Mix
    total_steps: int
    rendered: Rendered | None
    eval_rendered: Rendered | None
    replay: Rendered | None
    tasks: tuple[PromptedTask, ...]
    reward: Reward | None
    held_out: HeldOut | None
    dev: DevSet | None = None
    muon: Precision = "bfloat16"

    def probes(self) -> list[Tree]:
        """The start of a few sequences as the run reads them, every token of them looked at."""
        if self.rendered is not None:
            rows = [(*t.trunk, *t.branches[0].ids) for t in self.rendered.trees[:PROBED]]
        else:
            rows = [prompt.prompt_ids for prompt in self.tasks[:PROBED]]
        cut = [row[: PROBED_TOKENS + 1] for row in rows if len(row) > 1]
        return [Tree(row[:1], (Branch(row[1:], (True,) * (len(row) - 1)),)) for row in cut] or list(
            PROBE
        )

    def records(self) -> Iterator[Record]:
        """Everything that is learnt from."""
        for rendered in (self.rendered, self.replay):
            yield from rendered.records if rendered else ()
        for prompt in self.tasks:
            yield prompt.task


@dataclass(frozen=True, slots=True)
class Sorted:
    """A recipe's sources by role: the method's own, and those that are replayed (with the kind of
    their records)."""

    own: tuple[DataSource, ...]
    replay: tuple[tuple[DataSource, str], ...]


def prepare(
    recipe: Recipe, *, resume: bool, overwrite: bool, force: bool, force_resume: bool = False
) -> Prepared:
    """Refuse what cannot end well, read the data, check it. Writes nothing, loads no weights."""
    refuse(recipe, force=force)
    expect_sinks(recipe.run.sinks)
    dev = load_dev(recipe)
    expect_weights(recipe.model.path)
    if isinstance(recipe, PpoRecipe) and recipe.value is not None:
        _expect_critic(recipe.value.path, recipe)
    folder = claim(recipe, resume=resume, overwrite=overwrite, force_resume=force_resume)
    expect_lora_targets(recipe)
    given, recipe = recipe, within_positions(recipe)
    tokenizer = tokenizer_of(recipe.model, recipe.template)
    with written_on(recipe.text.date):
        if isinstance(recipe, OnlineRecipe):
            prepared = _online(recipe, folder, tokenizer)
        else:
            prepared = _offline(recipe, folder, tokenizer)
    if dev is not None and not force:
        refuse_trained_on(dev, prepared.records())
    if recipe is not given:
        _say_positions(given, prepared)
    if recipe.optim.optimizer == "muon":
        muon = _muon_precision(recipe, folder, resume=resume)
        prepared = replace(prepared, muon=muon, checks={**prepared.checks, MUON: muon})
    return replace(prepared, dev=dev)


def _muon_precision(recipe: Recipe, folder: Path, *, resume: bool) -> Precision:
    """Where a run began it is written down (those of before it was measured used bfloat16), so that
    it goes on with the same arithmetic anywhere; else what this processor does fast."""
    if resume and has_begun(folder):
        return "float32" if self_check(folder).get(MUON) == "float32" else "bfloat16"
    return "float32" if emulates_bfloat16(pick_device(recipe.model.device)) else "bfloat16"


def _expect_critic(path: str, recipe: PpoRecipe) -> None:
    """Raise `ModelError` unless the critic's folder holds weights for the policy's tokens, with or
    without those that the recipe's template adds."""
    expect_weights(path)
    policy = recipe.model
    mine = [tokenizer_of(policy).get_vocab(), tokenizer_of(policy, recipe.template).get_vocab()]
    if load_tokenizer(path, policy.trust_remote_code).get_vocab() not in mine:
        raise ModelError(
            "the critic was trained on other tokens than the policy's",
            where=path,
            fix="point `value.path` at a model of the same tokenizer",
        )


def within_positions(recipe: Recipe) -> Recipe:
    """The recipe with `text.max_length` no longer than what the model (and PPO's critic) can read.

    Raises `RecipeError` where that leaves a rollout no room for a prompt.
    """
    paths = [recipe.model.path]
    if isinstance(recipe, PpoRecipe) and recipe.value is not None:
        paths.append(recipe.value.path)
    configs = (load_config(path, recipe.model.trust_remote_code) for path in paths)
    bounds = [bound for config in configs if (bound := positions_of(config)) is not None]
    asked, most = recipe.text.max_length, min(bounds, default=recipe.text.max_length)
    if asked <= most:
        return recipe
    if isinstance(recipe, OnlineRecipe) and recipe.rollout.max_tokens >= most:
        raise RecipeError(
            f"rollout.max_tokens {recipe.rollout.max_tokens} leaves no room for a prompt in the "
            f"{most} positions of the model",
            fix="lower rollout.max_tokens",
        )
    text = recipe.text.model_copy(update={"max_length": most})
    return recipe.model_copy(update={"text": text})


def _say_positions(given: Recipe, prepared: Prepared) -> None:
    """A line among the checks; a warning where the bound was asked otherwise or cost records."""
    most, checks = prepared.recipe.text.max_length, prepared.checks
    checks["max_length"] = most
    lost = sum(count for name, count in checks.items() if name.endswith(("dropped", "cut")))
    if lost or "max_length" in given.text.model_fields_set:
        warnings.warn(
            f"the model has {most} positions, so text.max_length is {most}, not "
            f"{given.text.max_length}: {lost} records are dropped or cut",
            stacklevel=3,
        )


def _offline(recipe: Offline, folder: Path, tokenizer: Any) -> Prepared:
    kind = record_kind(type(recipe))
    sources = by_role(recipe, kind)
    rendered = [_rendered(recipe.text, tokenizer, source, kind) for source in sources.own]
    replay = _replay(recipe, tokenizer, sources)
    own = joined(rendered)
    checks = check_rendered(own, ends_of(tokenizer)).plain()
    if isinstance(recipe, UnpairedRecipe):
        checks["liked"] = _share_of_liked(own)
    if isinstance(recipe, RewardModelRecipe) and recipe.objective.margin is not None:
        expect_margins(own, recipe.objective.margin)
    sizes = [len(part.trees) for part in rendered]
    mix = _mix(recipe, sources, sizes, [len(r.trees) for r in replay])
    if replay:
        checks |= _replay_checks(replay)
    held_out = None
    if recipe.eval is not None:
        parts = [_rendered(recipe.text, tokenizer, s, kind, True) for s in recipe.eval.data]
        held_out = joined(parts)
        checks |= {"held_out": len(held_out.trees), "held_out_dropped": held_out.dropped}
        if isinstance(recipe, RewardModelRecipe) and recipe.objective.margin is not None:
            expect_margins(held_out, recipe.objective.margin)
    return Prepared(
        recipe, folder, checks, mix, _total_steps(recipe, mix), own, held_out,
        joined(replay) if replay else None, (), None, None,
    )  # fmt: skip


def _online(recipe: Online, folder: Path, tokenizer: Any) -> Prepared:
    sources = by_role(recipe, "task")
    room = recipe.text.max_length - recipe.rollout.max_tokens
    by_source = [prompted([source], tokenizer, room) for source in sources.own]
    replay = _replay(recipe, tokenizer, sources)
    tasks = tuple(task for found in by_source for task in found.tasks)
    checks: dict[str, Any] = {
        "records": len(tasks),
        "dropped": sum(found.dropped for found in by_source),
    }
    if replay:
        checks |= _replay_checks(replay)
    reward = Reward(recipe.reward, in_groups=True)
    if any(map(runs_code, recipe.reward)):
        checks["sandbox"] = strongest()
    asked = [task.task for task in tasks]
    reward.expect_columns(asked)
    checks |= defend(recipe.reward, recipe.probes, asked, partial(_ids, tokenizer))
    held_out = None
    if recipe.eval is not None:
        judge = Reward(recipe.eval.reward or recipe.reward)
        found = prompted(recipe.eval.data, tokenizer, room, held_out=True)
        judge.expect_columns([task.task for task in found.tasks])
        held_out = HeldOut(recipe.eval, found.tasks, judge)
        checks |= {"held_out": len(found.tasks), "held_out_dropped": found.dropped}
    sizes = [len(found.tasks) for found in by_source]
    mix = _mix(recipe, sources, sizes, [len(r.trees) for r in replay])
    return Prepared(
        recipe, folder, checks, mix, _total_steps(recipe, mix), None, None,
        joined(replay) if replay else None, tasks, reward, held_out,
    )  # fmt: skip


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def by_role(recipe: TrainRecipe, kind: str) -> Sorted:
    """Which sources hold the method's own records and which are replayed beside them.

    Only a source with a weight can be a replayed one: its rows are demonstrations (or, beside
    demonstrations, documents) where the method learns from something else.
    """
    own: list[DataSource] = []
    replay: list[tuple[DataSource, str]] = []
    for source in recipe.data:
        other = None if source.weight is None else _replay_kind(source, kind)
        if other is None:
            own.append(source)
        else:
            replay.append((source, other))
    if replay and isinstance(recipe, RewardModelRecipe):
        raise DataError(
            "a reward model writes no text, so demonstrations cannot be replayed beside its pairs",
            where=replay[0][0].path,
            fix="drop this source from `data`",
        )
    if not own:
        raise DataError(
            f"every source holds demonstrations, so method {recipe.method} has nothing to learn "
            "from",
            where=recipe.data[0].path,
            fix=f"add a source with the method's own records ({kind})",
        )
    return Sorted(tuple(own), tuple(replay))


def _replay_kind(source: DataSource, kind: str) -> str | None:
    first = next(islice(rows(Path(source.path)), 1), None)
    if first is None or (kind != "task" and fits(kind, first[0])):
        return None
    others = [other for other in ("demonstration", "document") if other != kind]
    return next((other for other in others if fits(other, first[0])), None)


def _replay(recipe: TrainRecipe, tokenizer: Any, sources: Sorted) -> list[Rendered]:
    parts = [_rendered(recipe.text, tokenizer, source, kind) for source, kind in sources.replay]
    for part in parts:
        check_rendered(part, ends_of(tokenizer))
    return parts


def _replay_checks(replay: Sequence[Rendered]) -> dict[str, int]:
    whole = joined(replay)
    return {"replayed": len(whole.trees), "replayed_dropped": whole.dropped}


def _rendered(
    text: TextRecipe, tokenizer: Any, source: DataSource, kind: str, held_out: bool = False
) -> Rendered:
    records = read([source.path], PARSERS[kind], held_out=held_out)
    cut = text.overlong == "cut"
    return render(tokenizer, records, max_length=text.max_length, cut_overlong=cut)


def joined(parts: Sequence[Rendered]) -> Rendered:
    """Several rendered sources end to end."""
    return Rendered(
        tuple(tree for part in parts for tree in part.trees),
        tuple(record for part in parts for record in part.records),
        sum(part.dropped for part in parts),
        sum(part.cut for part in parts),
    )


def _mix(recipe: Recipe, sources: Sorted, own: Sequence[int], replay: Sequence[int]) -> Mix:
    weights = {source.path: source.weight for source in recipe.data}
    if recipe.data[0].weight is None:
        parts = [Part(False, 0, sum(own), 1.0)]
    else:
        named = [(source.path, False, size) for source, size in zip(sources.own, own, strict=True)]
        named += [
            (source.path, True, size)
            for (source, _), size in zip(sources.replay, replay, strict=True)
        ]
        first = {False: 0, True: 0}
        parts = []
        for path, replayed, size in named:
            parts.append(Part(replayed, first[replayed], size, weights[path] or 0.0))
            first[replayed] += size
    mix = _within_an_epoch(recipe, Mix(parts, recipe.run.batch_size, recipe.seed), sum(own))
    refuse_small_steps(recipe, mix.own)
    return mix


def _within_an_epoch(recipe: Recipe, mix: Mix, own: int) -> Mix:
    """Where epochs are counted, a step for which there are too few records takes each of them once:
    a step of several epochs would be longer than asked for. Weights in `data` are taken as said."""
    if recipe.run.epochs is None or len(mix.parts) > 1 or mix.own <= own:
        return mix
    warnings.warn(
        f"run.batch_size is {mix.own}, but there are {own} records: a step takes each of them once",
        stacklevel=2,
    )
    return Mix(mix.parts, own, recipe.seed)


def _total_steps(recipe: TrainRecipe, mix: Mix) -> int:
    """Steps of the whole run; an epoch visits as many of the method's own records as there are."""
    if recipe.run.steps is not None:
        return recipe.run.steps
    assert recipe.run.epochs is not None
    total = max(1, round(recipe.run.epochs * mix.epoch_steps()))
    if total == 1:
        warnings.warn(
            f"the whole run is one step of {mix.own} records (run.epochs {recipe.run.epochs:g}), "
            "one update at the highest learning rate: give more data or epochs, or lower "
            "run.batch_size",
            stacklevel=2,
        )
    return total


def _share_of_liked(rendered: Rendered) -> float:
    """Share of thumbs up; raises `DataError` unless both kinds of thumb are there."""
    labels = [record.label for record in rendered.records if isinstance(record, Feedback)]
    if len(set(labels)) < 2:
        raise DataError(
            f"all {len(labels)} records have label {str(labels[0]).lower()}",
            where=str(rendered.records[0].origin),
            fix="add records of the other label, or use method sft for liked answers alone",
        )
    return sum(labels) / len(labels)


def expect_margins(rendered: Rendered, column: str) -> list[float]:
    """The margin of every pair; raises `DataError` naming a line without a number in `column`."""
    margins = []
    for record in rendered.records:
        assert isinstance(record, Preference)
        value = record.columns.get(column)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            problem = f"is {value!r}" if column in record.columns else "is missing"
            raise DataError(
                f"`{column}` {problem}, but objective.margin reads it as a number from 0 up",
                where=str(record.origin),
                fix="write how much better the chosen answer is, or drop objective.margin",
            )
        margins.append(float(value))
    return margins


@dataclass(frozen=True, slots=True)
class Prompted:
    """Rendered prompts that leave room for an answer, and how many did not."""

    tasks: tuple[PromptedTask, ...]
    dropped: int


def prompted(
    sources: Sequence[DataSource], tokenizer: Any, room: int, *, held_out: bool = False
) -> Prompted:
    """Tasks of these sources whose prompt has at most `room` tokens."""
    records = read([source.path for source in sources], task, held_out=held_out)
    kept = tuple(
        prompt
        for prompt in prompted_tasks(tokenizer, records)
        if 0 < len(prompt.prompt_ids) <= room
    )
    if not kept:
        raise DataError(
            f"all {len(records)} prompts are longer than {room} tokens",
            fix="raise text.max_length or lower rollout.max_tokens",
        )
    return Prompted(kept, len(records) - len(kept))
