"""All that a server holds: models, log, trial, limits, counters."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from strop.errors import StropError
from strop.recipe.serve import ServedModel, ServeRecipe
from strop.rewards.compose import Reward
from strop.serve.access import Doors
from strop.serve.canary.ratings import Side
from strop.serve.canary.shadow import Shadow
from strop.serve.canary.trial import Rated, Trial
from strop.serve.exchange import Arm
from strop.serve.limits import Turnstile
from strop.serve.metrics import Metrics
from strop.serve.models.lineup import Lineup, no_model
from strop.serve.models.places import Place, Places
from strop.serve.models.version import Version
from strop.serve.traffic.index import Known
from strop.serve.traffic.log import TrafficLog

CANARY, SHADOW = "(canary)", "(shadow)"
"""Names in the line-up that nobody can ask for."""

log = logging.getLogger("strop.serve")


LONGEST_WAIT = 600.0
"""Seconds after which an entry that cannot be used is tried again, at the latest."""


@dataclass(frozen=True, slots=True)
class Broken:
    """An entry that could not be used: `Broken("runs/a", "no weights", wait=10.0, until=73.5)`.

    It is tried again at `until`, by a clock that only goes forward, and then after twice as many
    seconds as the `wait` before that.
    """

    entry: str | None
    why: str
    wait: float
    until: float

    def waits(self, entry: str | None) -> bool:
        """Whether it is this one, and not yet its time."""
        return entry == self.entry and monotonic() < self.until


@dataclass(slots=True)
class Service:
    """Made, then `open`ed; used on one event loop."""

    recipe: ServeRecipe
    doors: Doors
    turnstile: Turnstile
    places: Places
    lineup: Lineup
    traffic: TrafficLog | None
    rewards: dict[str, Reward]
    metrics: Metrics = field(default_factory=Metrics)
    trial: Trial | None = None
    shadow: Shadow | None = None
    _loading: asyncio.Lock = field(default_factory=asyncio.Lock)
    _broken: dict[str, Broken] = field(default_factory=dict)

    async def open(self) -> None:
        """Load everything, and take up the trial where it stood. Raises `UsageError` for anything
        that cannot be served."""
        for model in self.recipe.models:
            await self.use(model.name, await asyncio.to_thread(self._place, model))
        if self.recipe.canary is not None:
            await self._open_trial()
        shadow = self.recipe.shadow
        if shadow is not None:
            place = await asyncio.to_thread(self.places.of_either, shadow.entry)
            version = await self.use(SHADOW, place)
            reward = None if shadow.rewards is None else self.rewards[shadow.rewards]
            self.shadow = Shadow(shadow, version, reward, self.keep)

    async def use(self, name: str, place: Place) -> Version:
        """Load weights and let a name stand for them; what is under way ends on the old ones."""
        async with self._loading:
            with self.lineup.changing():
                version = await asyncio.to_thread(self.lineup.load, name, place)
                self.lineup.assign(name, version)
        self.metrics.swaps.labels(name).inc()
        self.keep({"event": "version", "model": name, "version": version.label,
                   "weights": place.weights, "entry": place.entry})  # fmt: skip
        return version

    def _place(self, model: ServedModel) -> Place:
        if model.path is not None:
            return self.places.of_path(model.path)
        assert model.entry is not None
        return self.places.of_entry(model.entry)

    def served(self, name: str | None) -> tuple[str, Version]:
        """What a client calls so, the first model where it names none; raises `RefusedError` (404),
        also for the names of the canary and the shadow."""
        names = [model.name for model in self.recipe.models]
        asked = names[0] if name is None else name
        if asked not in names:
            raise no_model(asked, names)
        return asked, self.lineup.version(asked)

    def choose(self, name: str | None, session: str) -> tuple[str, Version, Arm | None]:
        """The name, version and side of the trial for a request."""
        asked, version = self.served(name)
        if self.trial is None or asked != self.tried:
            return asked, version, None
        arm = self.trial.arm(session)
        if arm is not None and arm.side == "canary":
            version = self.lineup.version(CANARY)
        return asked, version, arm

    @property
    def tried(self) -> str:
        """The model whose users the canary gets."""
        canary = self.recipe.canary
        assert canary is not None
        return canary.of or self.recipe.models[0].name

    @property
    def shadowed(self) -> str:
        """The model whose conversations the shadow answers, too."""
        shadow = self.recipe.shadow
        assert shadow is not None
        return shadow.of or self.recipe.models[0].name

    async def _open_trial(self) -> None:
        canary = self.recipe.canary
        assert canary is not None
        assert self.traffic is not None
        place = await asyncio.to_thread(self.places.of_either, canary.entry)
        stable = self.lineup.version(self.tried)
        self.trial = Trial(canary, place.weights, stable.place.weights)
        worse = await asyncio.to_thread(self.trial.replay, self.traffic.rows())
        if self.trial.state == "on trial":
            self.keep(self.trial.begin())
            await self.use(CANARY, place)
        if worse:
            self.take_back()

    def rated(self, known: Known, row: dict[str, Any]) -> None:
        """Count a feedback in the trial that its answer belongs to."""
        trial = self.trial
        if trial is None or known.trial != trial.id:
            return
        value = trial.value(row)
        side: Side = "canary" if known.arm == "canary" else "stable"
        if value is not None and trial.add(Rated(known.session, side, value)):
            self.take_back()

    def take_back(self) -> None:
        """Nobody gets the canary any more."""
        assert self.trial is not None
        standing = self.trial.ratings.standing
        why = (f"after {standing.canary} ratings of the canary and {standing.stable} of the other "
               f"the difference is below {standing.high:+.3f}")  # fmt: skip
        log.warning("the canary %s is taken back: %s", self.trial.recipe.entry, why)
        self.keep(self.trial.end("taken back", why))
        self.lineup.withdraw(CANARY)

    def end_trial(self, why: str) -> None:
        """End the trial because somebody said so."""
        assert self.trial is not None
        self.keep(self.trial.end("ended", why))
        self.lineup.withdraw(CANARY)

    def keep(self, row: dict[str, Any]) -> None:
        """Into the log, if there is one."""
        if self.traffic is not None:
            self.traffic.exchange({**row, "time": now()})

    async def follow(self) -> None:
        """Look again and again whether another entry was promoted, or one was rolled back."""
        followed = [model for model in self.recipe.models if model.follow]
        while followed:
            await asyncio.sleep(self.recipe.follow_seconds)
            for model in followed:
                await self.look(model, patient=True)

    async def look(self, model: ServedModel, *, patient: bool = False) -> bool:
        """Whether a followed name stands for another entry now, which is then served. A `patient`
        look leaves an entry that could not be used alone for a while: to try it reads its files."""
        assert model.entry is not None
        current = None
        try:
            current = await asyncio.to_thread(self.places.current, model.entry)
            if current in (None, self.lineup.version(model.name).place.entry):
                self._broken.pop(model.name, None)
                return False
            broken = self._broken.get(model.name)
            if patient and broken is not None and broken.waits(current):
                return False
            place = await asyncio.to_thread(self.places.of_entry, model.entry)
            await self.use(model.name, place)
        except Exception as error:  # whatever is wrong with a folder, what is served goes on
            if self._put_off(model.name, current, str(error)):  # said once, not at every look
                unknown = None if isinstance(error, StropError) else error
                log.error("%s stays as it is: %s", model.name, error, exc_info=unknown)
            return False
        self._broken.pop(model.name, None)
        log.info("%s is now %s", model.name, place.entry)
        self._restart_trial(model.name)
        return True

    def _put_off(self, name: str, entry: str | None, why: str) -> bool:
        """Leave an entry alone for a while; whether that was not the reason before."""
        before = self._broken.get(name)
        wait = self.recipe.follow_seconds
        if before is not None and before.entry == entry:
            wait = min(2 * before.wait, max(LONGEST_WAIT, wait))
        self._broken[name] = Broken(entry, why, wait, monotonic() + wait)
        return before is None or before.why != why

    def _restart_trial(self, name: str) -> None:
        """A trial compares with one version: where another takes its place, it is over."""
        if self.trial is not None and self.trial.state == "on trial" and name == self.tried:
            self.end_trial(f"{name} stands for other weights now")

    async def close(self) -> None:
        with suppress(StropError):
            await asyncio.to_thread(self.lineup.close)
        if self.traffic is not None:
            await asyncio.to_thread(self.traffic.close)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
