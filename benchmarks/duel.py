"""All sides of a run, a step each in turn, on one machine.

    round 1   strop  defaults  plain  4 forwards
    round 2   plain  4 forwards  strop  defaults       (the order rotates)

A round's ratio compares steps on the same records within seconds of each other, so a machine whose
speed drifts cancels out of it.
"""

from __future__ import annotations

import multiprocessing
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.cases import Entrant, Run
from benchmarks.sides import Place, Step
from benchmarks.worker import Order, Told, serve

WARM_UP, TRIALS = 2, 2
"""Steps that are not counted, and steps after which only TRL's fastest setting goes on."""

HOPELESS = 2.0
"""A setting that takes so many times as long as TRL's fastest is dropped at once."""

STUCK, LEAST_PATIENCE = 10.0, 60.0
"""A setting of TRL whose step takes so many times as long as the fastest of its round, and so many
seconds, is not waited for."""

NEEDED = ("strop", "defaults")
"""Without these there is nothing to compare."""

FIRST_LOSS, LATER_LOSS, GRADIENT, LOGPROB = 1e-4, 2e-2, 2e-3, 1e-3
"""How far apart the sides may be: first loss, later losses, gradient norm (relative), log-probs.

Later losses drift apart by rounding, which AdamW's first steps enlarge."""


class Unfair(Exception):  # noqa: N818 - a verdict, not a fault
    """The sides do not do the same work; says why."""


class Absent(Exception):  # noqa: N818
    """An entrant cannot run here; says why."""


@dataclass(slots=True)
class Fighter:
    """One side's process and what it told."""

    entrant: Entrant
    link: Connection
    process: Any
    log: Path
    loaded: int = 0
    told: list[Told] = field(default_factory=list)

    def ask(self, order: Order, seconds: float | None = None) -> Any:
        """Send an order and wait for its answer (at most so long); raises `Absent` with the end of
        its log."""
        try:
            self.link.send(order)
            if seconds is not None and not self.link.poll(seconds):
                raise Absent(f"no step within {seconds:.0f} s")
            return self._answer()
        except (EOFError, ConnectionError):
            raise Absent(self.last_words()) from None

    def _answer(self) -> Any:
        _, answer = self.link.recv()
        return answer

    def ready(self, seconds: float | None = None) -> None:
        """Wait until its model is loaded (at most so long)."""
        try:
            if seconds is not None and not self.link.poll(seconds):
                raise Absent(f"not loaded within {seconds:.0f} s")
            self.loaded = self._answer()
        except (EOFError, ConnectionError):
            raise Absent(self.last_words()) from None

    def last_words(self) -> str:
        lines = (
            self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        )
        return lines[-1] if lines else "it ended without a word"

    def end(self, *, busy: bool = False) -> None:
        """End the process: at once where it is `busy`, else at its own next chance."""
        if self.process.is_alive():
            if not busy:
                self.link.send(Order("stop"))
                self.process.join(30)
            self.process.kill()
            self.process.join(30)  # a device gives its memory back when the process is gone
        self.link.close()


@dataclass(frozen=True, slots=True)
class Result:
    """A run's figures; `seconds` and `peaks` by entrant, counted rounds only."""

    run: Run
    best: str
    seconds: dict[str, list[float]]
    tokens: dict[str, list[int]]
    peaks: dict[str, int]
    loaded: dict[str, int]
    absent: dict[str, str]
    utilisation: dict[str, float]
    rate: float
    checked: str

    @property
    def memory(self) -> float:
        """strop's peak memory as a share of the peak of TRL's best setting, whole processes."""
        return self.peaks["strop"] / self.peaks[self.best]

    def ratios(self, rival: str) -> list[float]:
        """How many times as long the rival took, round by round."""
        pairs = zip(self.seconds[rival], self.seconds["strop"], strict=True)
        return [theirs / ours for theirs, ours in pairs]

    def ratio(self, rival: str) -> float:
        return statistics.median(self.ratios(rival))


def fight(run: Run, folder: Path, entrants: Sequence[Entrant]) -> Result:
    """Run all sides, strop first among `entrants`; raises `Unfair` where they do not compute the
    same."""
    fighters, absent = _enter(run, folder, entrants)
    rates = []
    try:
        checked = _round_one(run, fighters, absent)
        for number in range(1, run.steps):
            if number < WARM_UP + TRIALS:
                _keep(fighters, HOPELESS)
            elif number == WARM_UP + TRIALS:
                _keep(fighters, 1.0)
            _round(number, fighters, absent)
            rates.append(fighters[0].ask(Order("rate")))
        _same_losses(run, fighters)
    finally:
        for fighter in fighters:
            fighter.end()
    return _result(run, fighters, absent, statistics.median(rates), checked)


def entered(run: Run, folder: Path, entrant: Entrant) -> Fighter:
    """A side's process, which begins to load."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    place = Place(folder, folder / entrant.name.replace(" ", "-"))
    shutil.rmtree(place.scratch, ignore_errors=True)
    process = spawn.Process(target=serve, args=(theirs, run, entrant, place), daemon=True)
    process.start()
    theirs.close()
    return Fighter(entrant, ours, process, place.scratch / "log.txt")


def _enter(
    run: Run, folder: Path, entrants: Sequence[Entrant]
) -> tuple[list[Fighter], dict[str, str]]:
    fighters, absent = [], {}
    for entrant in entrants:
        fighter = entered(run, folder, entrant)
        try:
            fighter.ready()
        except Absent as reason:
            if entrant.name in NEEDED:
                raise Unfair(f"{entrant.name} did not start: {reason}") from None
            absent[entrant.name] = str(reason)
            continue
        fighters.append(fighter)
    return fighters, absent


def _round_one(run: Run, fighters: list[Fighter], absent: dict[str, str]) -> str:
    """The first step of every side, and the check that it was the same step."""
    strop = fighters[0]
    if run.case.kind != "grpo":
        _round(0, fighters, absent)
        return _same_samples(fighters) if run.case.kind == "sampler" else _same_first(fighters)
    others = fighters[1:]
    _round(0, others, absent)
    fighters[1:] = others  # without those that fell
    said = []
    for rival in others:
        theirs = rival.told[0].step
        ours: Step = strop.ask(Order("check", theirs.batch))
        said.append(_agree(rival.entrant.name, ours, theirs))
    _round(0, fighters[:1], absent)
    return said[0]


def _same_first(fighters: list[Fighter]) -> str:
    ours = fighters[0].told[0].step
    said = [_agree(f.entrant.name, ours, f.told[0].step) for f in fighters[1:]]
    return said[0]


def _agree(name: str, ours: Step, theirs: Step) -> str:
    """Raises `Unfair` unless loss and gradient norm are the same."""
    text = (
        f"first loss {ours.loss:.6f} and {theirs.loss:.6f}, "
        f"gradient norm {ours.grad_norm:.5f} and {theirs.grad_norm:.5f}"
    )
    apart = abs(ours.loss - theirs.loss) / max(1.0, abs(theirs.loss))
    turned = abs(ours.grad_norm - theirs.grad_norm) / theirs.grad_norm
    if not (apart <= FIRST_LOSS and turned <= GRADIENT):
        raise Unfair(f"strop and TRL ({name}) do not compute the same step: {text}")
    return text


def _same_samples(fighters: list[Fighter]) -> str:
    """strop's sampling log-probs are those of the rival's forward."""
    shown = fighters[0].told[0].step.batch
    apart = fighters[1].ask(Order("check", shown)).loss
    text = f"log-probs of sampled tokens {apart:.1e} nats apart"
    if not apart <= LOGPROB:
        raise Unfair(f"strop does not sample from the model's own distribution: {text}")
    return text


def _same_losses(run: Run, fighters: list[Fighter]) -> None:
    """Losses of every later step, for methods without a random part of their own."""
    if run.case.kind not in ("dpo", "sft"):
        return
    ours = [told.step.loss for told in fighters[0].told]
    for rival in fighters[1:]:
        theirs = [told.step.loss for told in rival.told]
        apart = max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))
        if not apart <= LATER_LOSS:
            raise Unfair(
                f"the losses of strop and TRL ({rival.entrant.name}) part: {apart:.3f} relative"
            )


def _round(number: int, fighters: list[Fighter], absent: dict[str, str]) -> None:
    """A step of every fighter; who goes first rotates. One that falls is taken out."""
    order = fighters[number % len(fighters) :] + fighters[: number % len(fighters)]
    spent: list[float] = []
    for fighter in order:
        needed = fighter.entrant.name in NEEDED
        patience = None if needed or not spent else max(LEAST_PATIENCE, STUCK * min(spent))
        try:
            fighter.told.append(fighter.ask(Order("step"), patience))
            spent.append(fighter.told[-1].seconds)
        except Absent as reason:
            if needed:
                raise Unfair(f"{fighter.entrant.name} fell: {reason}") from None
            absent[fighter.entrant.name] = str(reason)
            fighter.end(busy=True)
            fighters.remove(fighter)


def _fastest(fighters: list[Fighter]) -> str:
    """TRL's fastest setting by its steps after the warm-up."""
    return min((f for f in fighters if f.entrant.name != "strop"), key=_spent).entrant.name


def _keep(fighters: list[Fighter], times: float) -> None:
    """strop, TRL's defaults and its settings within so many times of the fastest go on."""
    spent = {f.entrant.name: _spent(f) for f in fighters if f.entrant.name != "strop"}
    for fighter in list(fighters):
        name = fighter.entrant.name
        if name not in NEEDED and spent[name] > times * min(spent.values()):
            fighter.end()
            fighters.remove(fighter)


def _spent(fighter: Fighter) -> float:
    """Seconds of a side's counted steps, or of its last one before any counts."""
    counted = fighter.told[WARM_UP:] or fighter.told[-1:]
    return sum(told.seconds for told in counted)


def _result(
    run: Run,
    fighters: list[Fighter],
    absent: dict[str, str],
    rate: float,
    checked: str,
) -> Result:
    counted = {f.entrant.name: f.told[WARM_UP:] for f in fighters}
    seconds = {name: [t.seconds for t in told] for name, told in counted.items()}
    needed = [t.step.flops for t in counted["strop"]]
    return Result(
        run=run,
        best=_fastest(fighters),
        seconds=seconds,
        tokens={name: [t.step.tokens for t in told] for name, told in counted.items()},
        peaks={f.entrant.name: max(t.peak for t in f.told) for f in fighters},
        loaded={f.entrant.name: f.loaded for f in fighters},
        absent=absent,
        utilisation={
            name: statistics.median(n / s for n, s in zip(needed, spent, strict=True)) / rate
            for name, spent in seconds.items()
        },
        rate=rate,
        checked=checked,
    )
