"""Attack a reward before a policy does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

from strop.errors import RewardError
from strop.recipe.reward import RewardComponent
from strop.rewards.attacks import ANSWER, TEXT, Pair, Probe, Trial
from strop.rewards.code_attacks import CODE, JSON, TOOLS
from strop.rewards.compose import Reward, as_said, columns_of
from strop.rewards.find import own_names

ENOUGH = 0.95
"""Lower bound (Wilson, 95 %) of the share of trials in which a probe has to hold."""

NEAR = 1e-6
"""Rewards closer than this are equal."""

CATALOGUE: dict[str, tuple[Probe, ...]] = {
    "exact_answer": (*TEXT, *ANSWER),
    "math_answer": (*TEXT, *ANSWER),
    "code_tests": (*TEXT, *CODE),
    "tool_call": (*TEXT, *TOOLS),
    "json_schema": (*TEXT, *JSON),
}
"""What each kind of verifier is attacked with; other rewards get `TEXT` and `ANSWER`."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A probe's result. `example` is the first trial that it did not hold in: the text, and what
    it earned against what it may earn."""

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
    """The probes for a reward, and those of the user's file."""
    known = CATALOGUE.get(components[0].function, (*TEXT, *ANSWER))
    return (*known, *(read_probes(own) if own else ()))


def probe(
    reward: Reward,
    pairs: Sequence[Pair],
    probes: Sequence[Probe],
    encode: Callable[[str], list[int]] | None = None,
) -> list[Finding]:
    """Run every probe on every pair; pairs that the reward itself ranks wrongly are found by
    `half_of_it`. `encode` gives the token ids that length rewards read."""
    findings = [_unscored(reward, pairs[0], encode)]
    known = _known(reward, pairs, encode)
    for one in probes:
        trials = [(pair, trial) for pair in pairs for trial in one.attack(pair)]
        if not trials:
            continue
        got = _totals(reward, [(pair, trial.text) for pair, trial in trials], encode)
        bounds = [_bound(pair, trial, known) for pair, trial in trials]
        failed = [
            _shown(trial, total, bound)
            for (_, trial), total, bound in zip(trials, got, bounds, strict=True)
            if not _held(trial, total, bound)
        ]
        held = len(trials) - len(failed)
        low = wilson_low(held, len(trials))
        example = failed[0] if failed else ""
        findings.append(Finding(one.name, one.critical, held, len(trials), low, example))
    return findings


Known = dict[tuple[int, str], float | None]
"""Totals of the pairs' own completions, by the pair's identity and the text."""


def _known(
    reward: Reward, pairs: Sequence[Pair], encode: Callable[[str], list[int]] | None
) -> Known:
    texts = [(pair, text) for pair in pairs for text in (pair.right, pair.wrong)]
    totals = _totals(reward, texts, encode)
    if all(total is None for total in totals):
        raise RewardError(
            "the reward judges neither the right nor the wrong completions, so no probe says "
            "anything",
            fix="try `strop reward check` on completions of yours; lengths in tokens need a model, "
            "so measure words there",
        )
    return {(id(p), text): total for (p, text), total in zip(texts, totals, strict=True)}


def _bound(pair: Pair, trial: Trial, known: Known) -> float | None:
    """What a trial is held against: the total of its base, or of the right completion."""
    return known[id(pair), trial.base if trial.rule == "no_gain" else pair.right]


def _held(trial: Trial, total: float | None, bound: float | None) -> bool:
    """A text that cannot be judged earns nothing, so it cannot gain; a right one has to be."""
    if total is None:
        return trial.rule != "as_right"
    if bound is None:
        return False
    if trial.rule == "below_right":
        return total < bound - NEAR
    if trial.rule == "no_gain":
        return total <= bound + NEAR
    return abs(total - bound) <= NEAR


def _shown(trial: Trial, total: float | None, bound: float | None) -> str:
    text = trial.text if len(trial.text) <= 70 else f"{trial.text[:34]} ... {trial.text[-30:]}"
    return f"{text!r} earned {total}, {RULES[trial.rule]} {bound}"


RULES = {"below_right": "not below", "no_gain": "more than", "as_right": "and not"}


def _totals(
    reward: Reward,
    texts: Sequence[tuple[Pair, str]],
    encode: Callable[[str], list[int]] | None,
) -> list[float | None]:
    tasks = [pair.task for pair, _ in texts]
    columns = columns_of(tasks)
    if encode is not None:
        columns["completion_ids"] = [encode(text) for _, text in texts]
    said = [as_said(pair.task.prompt, text) for pair, text in texts]
    judged = reward.judge([task.prompt for task in tasks], said, columns)
    return [score.total for score in judged.scores]


def _unscored(reward: Reward, pair: Pair, encode: Callable[[str], list[int]] | None) -> Finding:
    """A component that fails leaves its completion unscored; it must not become a zero."""
    held, example = 0, ""
    needed = [c for c in reward.recipe if not c.optional]
    for component in needed:
        functions = [_failing if c is component else f for c, f in reward.components]
        broken = Reward(reward.recipe, functions=functions)
        total = _totals(broken, [(pair, pair.right)], encode)[0]
        held += total is None
        example = example or ("" if total is None else f"{component.label} failed, total {total}")
    low = wilson_low(held, len(needed))
    return Finding("infrastructure_fault", True, held, len(needed), low, example)


def _failing(**_: object) -> list[float | None]:
    raise ConnectionError("planted: the judge cannot be reached")


def wilson_low(held: int, trials: int, confidence: float = 0.95) -> float:
    """Lower end of Wilson's two-sided score interval of a share (Wilson 1927); 0 for no trials.

    `wilson_low(95, 100) == 0.8882...`
    """
    if not trials:
        return 0.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = held / trials
    middle = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return (middle - spread) / (1 + z * z / trials)


def read_probes(path: Path) -> tuple[Probe, ...]:
    """A user's probes: a Python file with `probes(task, right, wrong)` that yields
    `{"completion"[, "rule"][, "base"]}`; `rule` as in `strop.rewards.attacks`, `base` "right" or
    "wrong". All of them are critical."""
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
