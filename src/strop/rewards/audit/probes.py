"""Attacks a reward before a policy does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from strop.errors import RewardError
from strop.recipe.train.reward import RewardComponent
from strop.rewards.audit.attacks import ANSWER, TEXT, Pair, Probe, Trial
from strop.rewards.audit.code_attacks import CODE, JSON, TOOLS
from strop.rewards.audit.judge_attacks import judge_probes
from strop.rewards.audit.tool_attacks import tool_probes, transcript
from strop.rewards.compose import Reward, columns_of
from strop.rewards.own.functions import own_names
from strop.stats.share import wilson
from strop.text.chat.template import Tools
from strop.text.parse import plain as words
from strop.types import Score, Text

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


def catalogue(
    components: Sequence[RewardComponent], own: Path | None, tools: Tools = None
) -> tuple[Probe, ...]:
    """The probes for a reward, for the judges in it, for episodes that use `tools`, and those of
    the user's file."""
    known = CATALOGUE.get(components[0].function, (*TEXT, *ANSWER))
    reads_calls = components[0].function == "tool_call"  # no other call is honest there
    of_tools = tool_probes(tools) if tools and not reads_calls else ()
    return (*known, *judge_probes(components), *of_tools, *(read_probes(own) if own else ()))


def probe(
    reward: Reward,
    pairs: Sequence[Pair],
    probes: Sequence[Probe],
    encode: Callable[[str], list[int]] | None = None,
) -> list[ProbeFinding]:
    """Run every probe on every pair; `half_of_it` finds pairs that the reward itself ranks wrongly.
    `encode` returns the token ids that length rewards read."""
    findings = [_unscored(reward, pairs[0], encode)]
    known = _known(reward, pairs, encode)
    for one in probes:
        trials = [(pair, trial) for pair in pairs for trial in one.attack(pair)]
        if not trials:
            continue
        scores = _scores(reward, [(pair, _said(pair, trial)) for pair, trial in trials], encode)
        got = [
            _compared(reward, trial, score)
            for (_, trial), score in zip(trials, scores, strict=True)
        ]
        bases = _bases(reward, trials, known, encode)
        bounds = [
            _compared(reward, trial, base) for (_, trial), base in zip(trials, bases, strict=True)
        ]
        failed = [
            _shown(trial, earned, bound)
            for (_, trial), earned, bound in zip(trials, got, bounds, strict=True)
            if not _held(trial, earned, bound)
        ]
        held = len(trials) - len(failed)
        low = wilson(held, len(trials)).low
        example = failed[0] if failed else ""
        findings.append(ProbeFinding(one.name, one.critical, held, len(trials), low, example))
    return findings


Known = dict[tuple[int, str], Score]
"""Scores of the pairs' own completions, by the pair's identity and the text."""


def _known(
    reward: Reward, pairs: Sequence[Pair], encode: Callable[[str], list[int]] | None
) -> Known:
    texts = [(pair, text) for pair in pairs for text in (pair.right, pair.wrong)]
    said = [(pair, pair.form(text)) for pair, text in texts]
    scores = _scores(reward, said, encode)
    if all(score.total is None for score in scores):
        raise RewardError(
            "the reward judges neither the right nor the wrong completions, so no probe says "
            "anything",
            fix="try `strop reward check` on completions of yours; lengths in tokens need a model, "
            "so measure words there",
        )
    return {(id(p), text): score for (p, text), score in zip(texts, scores, strict=True)}


def _said(pair: Pair, trial: Trial) -> Text:
    """What a trial says: a transcript, or its text in the form of its prompt."""
    return list(trial.said) if trial.said else pair.form(trial.text)


def _bases(
    reward: Reward,
    trials: Sequence[tuple[Pair, Trial]],
    known: Known,
    encode: Callable[[str], list[int]] | None,
) -> list[Score]:
    """The scores that trials are compared with: their bases', or the right completions'."""
    if trials[0][1].said:
        return _scores(reward, [(pair, list(trial.base_said)) for pair, trial in trials], encode)
    return [
        known[id(pair), trial.base if trial.rule == "no_gain" else pair.right]
        for pair, trial in trials
    ]


def _compared(reward: Reward, trial: Trial, score: Score) -> float | None:
    """The reward that a rule compares: the total; for another form of the right answer only the
    first component and the gates, because shaping components may differ between two texts."""
    if trial.rule != "as_right":
        return score.total
    deciding = [c for i, c in enumerate(reward.recipe) if i == 0 or c.gate]
    values = [score.components[component.label] for component in deciding]
    known = [value for value in values if value is not None]
    return math.prod(known) if len(known) == len(values) else None


def _held(trial: Trial, earned: float | None, bound: float | None) -> bool:
    """Whether the rule holds. A text that cannot be scored earns nothing, so it cannot gain; but
    another form of the right answer has to be scored."""
    if earned is None:
        return trial.rule != "as_right"
    if bound is None:
        return False
    if trial.rule == "below_right":
        return earned < bound - NEAR
    if trial.rule == "no_gain":
        return earned <= bound + NEAR
    return abs(earned - bound) <= NEAR


def _shown(trial: Trial, earned: float | None, bound: float | None) -> str:
    whole = transcript(trial.said) if trial.said else trial.text
    text = whole if len(whole) <= 70 else f"{whole[:34]} ... {whole[-30:]}"
    return f"{text!r} earned {earned}, {RULES[trial.rule]} {bound}"


RULES = {"below_right": "not below", "no_gain": "more than", "as_right": "and not"}


def _scores(
    reward: Reward,
    texts: Sequence[tuple[Pair, Text]],
    encode: Callable[[str], list[int]] | None,
) -> list[Score]:
    tasks = [pair.task for pair, _ in texts]
    columns = columns_of(tasks)
    if encode is not None:
        columns["completion_ids"] = [encode(words(text)) for _, text in texts]
    said = [text for _, text in texts]
    return list(reward.judge([task.prompt for task in tasks], said, columns).scores)


def _unscored(
    reward: Reward, pair: Pair, encode: Callable[[str], list[int]] | None
) -> ProbeFinding:
    """A failing component has to leave its completions unscored, not score them 0."""
    held, example = 0, ""
    needed = [c for c in reward.recipe if not c.optional]
    for component in needed:
        functions = [_failing if c is component else f for c, f in reward.components]
        broken = Reward(reward.recipe, functions=functions)
        right = pair.form(pair.right)
        total = _scores(broken, [(pair, right)], encode)[0].total
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
