"""Attacks a reward before a policy does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from strop.errors import RewardError
from strop.recipe.train.reward import RewardComponent
from strop.rewards.audit.attacks import ANSWER, TEXT, Pair, Probe, Rule, Trial
from strop.rewards.audit.code_attacks import CODE, JSON, TOOLS
from strop.rewards.audit.judge_attacks import judge_probes
from strop.rewards.compose import Reward, as_said, columns_of
from strop.rewards.own.functions import own_names
from strop.stats.share import wilson
from strop.text.parse import written
from strop.text.script import as_messages
from strop.types import Message, Score, Task, Text

ENOUGH = 0.95
"""A probe that is not critical holds if the lower bound (Wilson, 95 %) of its share of passed
trials is at least this."""

NEAR = 1e-6
"""Rewards closer than this are equal."""

CATALOGUE: dict[str, tuple[Probe, ...]] = {
    "exact_answer": (*TEXT, *ANSWER),
    "math_answer": (*TEXT, *ANSWER),
    "code_tests": (*TEXT, *CODE),
    "tool_call": (*TEXT, *TOOLS),
    "json_schema": (*TEXT, *JSON),
}
"""The probes for each kind of verifier; other rewards get `TEXT` and `ANSWER`."""


@dataclass(frozen=True, slots=True)
class ProbeFinding:
    """A probe's result. `example` is the first failed trial: its text, its reward and the allowed
    reward."""

    probe: str
    critical: bool
    held: int
    trials: int
    low: float
    example: str = ""

    @property
    def verdict(self) -> str:
        """`holds`, `fails`, or `undecided`: no failure, but too few trials to be sure."""
        if self.held == self.trials:
            return "holds" if self.critical or self.low >= ENOUGH else "undecided"
        return "fails" if self.critical or self.low < ENOUGH else "holds"


def catalogue(components: Sequence[RewardComponent], own: Path | None) -> tuple[Probe, ...]:
    """The probes for a reward, for the judges in it, and those of the user's file."""
    known = CATALOGUE.get(components[0].function, (*TEXT, *ANSWER))
    return (*known, *judge_probes(components), *(read_probes(own) if own else ()))


@dataclass(frozen=True, slots=True)
class Scorer:
    """Asks a reward about what might be said. `encode` returns the token ids that length rewards
    read; tools' results are not among them. In `episodes` a text is a message whatever form the
    prompt has."""

    reward: Reward
    encode: Callable[[str], list[int]] | None = None
    episodes: bool = False

    def scores(
        self, said: Sequence[tuple[Pair, str]] | Sequence[tuple[Pair, list[Message]]]
    ) -> list[Score]:
        tasks = [pair.task for pair, _ in said]
        columns = columns_of(tasks)
        if self.encode is not None:
            columns["completion_ids"] = [self.encode(written(text)) for _, text in said]
        forms = [self._form(pair.task, text) for pair, text in said]
        return list(self.reward.judge([task.prompt for task in tasks], forms, columns).scores)

    def _form(self, task: Task, text: Text) -> Text:
        if not isinstance(text, str):
            return text
        return as_messages(text, role="assistant") if self.episodes else as_said(task.prompt, text)


def probe(scorer: Scorer, pairs: Sequence[Pair], probes: Sequence[Probe]) -> list[ProbeFinding]:
    """Run every probe on every pair; `half_of_it` finds pairs that the reward itself ranks
    wrongly."""
    reward = scorer.reward
    findings = [_unscored(scorer, pairs[0])]
    known = _known(scorer, pairs)
    for one in probes:
        trials = [(pair, trial) for pair in pairs for trial in one.attack(pair)]
        if not trials:
            continue
        scores = scorer.scores([(pair, trial.text) for pair, trial in trials])
        got = [
            _compared(reward, trial, score)
            for (_, trial), score in zip(trials, scores, strict=True)
        ]
        bounds = [_compared(reward, trial, _base(pair, trial, known)) for pair, trial in trials]
        failed = [
            shown(trial.text, trial.rule, earned, bound)
            for (_, trial), earned, bound in zip(trials, got, bounds, strict=True)
            if not held(trial.rule, earned, bound)
        ]
        findings.append(finding(one.name, critical=one.critical, trials=len(trials), failed=failed))
    return findings


def finding(name: str, *, critical: bool, trials: int, failed: Sequence[str]) -> ProbeFinding:
    """A probe's result from its failures, as `shown` words them."""
    passed = trials - len(failed)
    low = wilson(passed, trials).low
    return ProbeFinding(name, critical, passed, trials, low, failed[0] if failed else "")


Known = dict[tuple[int, str], Score]
"""Scores of the pairs' own completions, by the pair's identity and the text."""


def _known(scorer: Scorer, pairs: Sequence[Pair]) -> Known:
    texts: list[tuple[Pair, str]] = [
        (pair, text) for pair in pairs for text in (pair.right, pair.wrong)
    ]
    scores = scorer.scores(texts)
    if all(score.total is None for score in scores):
        raise RewardError(
            "the reward judges neither the right nor the wrong completions, so no probe says "
            "anything",
            fix="try `strop reward check` on completions of yours; lengths in tokens need a model, "
            "so measure words there",
        )
    return {(id(p), text): score for (p, text), score in zip(texts, scores, strict=True)}


def _base(pair: Pair, trial: Trial, known: Known) -> Score:
    """The score that a trial is compared with: its base's, or the right completion's."""
    return known[id(pair), trial.base if trial.rule == "no_gain" else pair.right]


def _compared(reward: Reward, trial: Trial, score: Score) -> float | None:
    """The reward that a rule compares: the total; for another form of the right answer only the
    first component and the gates, because shaping components may differ between two texts."""
    if trial.rule != "as_right":
        return score.total
    deciding = [c for i, c in enumerate(reward.recipe) if i == 0 or c.gate]
    values = [score.components[component.label] for component in deciding]
    known = [value for value in values if value is not None]
    return math.prod(known) if len(known) == len(values) else None


def held(rule: Rule, earned: float | None, bound: float | None) -> bool:
    """Whether a rule holds for what was earned, against the reward that it compares with. A text
    that cannot be scored earns nothing, so it cannot gain; but another form of the right answer has
    to be scored."""
    if earned is None:
        return rule != "as_right"
    if bound is None:
        return False
    if rule == "below_right":
        return earned < bound - NEAR
    if rule == "no_gain":
        return earned <= bound + NEAR
    return abs(earned - bound) <= NEAR


def shown(text: str, rule: Rule, earned: float | None, bound: float | None) -> str:
    """A failure in words: `'x' earned 1.0, not below 1.0`."""
    text = text if len(text) <= 70 else f"{text[:34]} ... {text[-30:]}"
    return f"{text!r} earned {earned}, {RULES[rule]} {bound}"


RULES = {"below_right": "not below", "no_gain": "more than", "as_right": "and not"}


def _unscored(scorer: Scorer, pair: Pair) -> ProbeFinding:
    """A failing component has to leave its completions unscored, not score them 0."""
    reward, held, example = scorer.reward, 0, ""
    needed = [c for c in reward.recipe if not c.optional]
    for component in needed:
        functions = [_failing if c is component else f for c, f in reward.components]
        broken = Reward(reward.recipe, functions=functions)
        total = replace(scorer, reward=broken).scores([(pair, pair.right)])[0].total
        held += total is None
        example = example or ("" if total is None else f"{component.label} failed, total {total}")
    low = wilson(held, len(needed)).low
    return ProbeFinding("infrastructure_fault", True, held, len(needed), low, example)


def _failing(**_: object) -> list[float | None]:
    raise ConnectionError("planted: the judge cannot be reached")


def read_probes(path: Path) -> tuple[Probe, ...]:
    """A user's probes: a Python file with `probes(task, right, wrong)` that yields
    `{"completion"[, "rule"][, "base"]}`; `rule` as in `strop.rewards.audit.attacks`, `base`
    "right" or "wrong". All of them are critical."""
    build = own_names(path).get("probes")
    if not callable(build):
        raise RewardError(
            "the file gives no probes", where=str(path), fix="define probes(task, right, wrong)"
        )

    def attack(pair: Pair) -> Iterator[Trial]:
        for row in build({**pair.task.columns, "prompt": pair.task.prompt}, pair.right, pair.wrong):
            yield _own_trial(row, pair, path)

    return (Probe(f"own:{path.stem}", attack, critical=True),)


def _own_trial(row: Mapping[str, str], pair: Pair, path: Path) -> Trial:
    rule = row.get("rule", "below_right")
    if rule not in RULES or not isinstance(row.get("completion"), str):
        raise RewardError(
            f"a probe is {dict(row)!r}",
            where=str(path),
            fix=f"give `completion` (text) and `rule`: one of {', '.join(RULES)}",
        )
    base = pair.right if row.get("base") == "right" else pair.wrong
    return Trial(row["completion"], rule, base)  # type: ignore[arg-type]
