"""A trial: sticky sides, one rating a user, taken back when worse is shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from strop.files import SHORT, digest64, sha256_hex
from strop.recipe.serve import CanaryRecipe
from strop.serve.canary.ratings import Ratings, Side, ratings_until
from strop.serve.exchange import Arm

State = Literal["on trial", "taken back", "ended"]
BEGIN, END = "trial_begun", "trial_ended"
"""The names of the events in the log."""


@dataclass(frozen=True, slots=True)
class Rated:
    """A rating of an answer: `Rated("9c1e...", "canary", 1.0)`."""

    session: str
    side: Side
    value: float


class Trial:
    """One canary against one stable version. Its state is what the log says: `replay` makes it
    again after a restart."""

    def __init__(self, recipe: CanaryRecipe, canary: str, stable: str) -> None:
        """`canary` and `stable` are the hashes of their weights."""
        self.recipe = recipe
        identity = (
            f"{canary}/{stable}/{recipe.share}/{recipe.signal}/{recipe.alpha}/{recipe.margin}"
        )
        self.id = f"trial-{sha256_hex(identity, SHORT)}"
        self.ratings = Ratings(recipe.share, recipe.alpha)
        self.state: State = "on trial"
        self._rated: set[str] = set()

    def arm(self, session: str) -> Arm | None:
        """The side of a user or conversation, always the same one; `None` once the trial ended."""
        if self.state != "on trial":
            return None
        drawn = digest64(f"{self.id}/{session}") / 2**64
        return Arm(self.id, "canary" if drawn < self.recipe.share else "stable")

    def add(self, rated: Rated) -> bool:
        """Count a rating, unless this user's was counted before; whether the canary is to be taken
        back now."""
        if self.state != "on trial" or rated.session in self._rated:
            return False
        self._rated.add(rated.session)
        self.ratings.add(rated.side, rated.value)
        return self.ratings.bound.high < -self.recipe.margin

    def end(self, state: State, why: str) -> dict[str, Any]:
        """The event for the log."""
        self.state = state
        return {"event": END, "trial": self.id, "state": state, "why": why,
                "standing": asdict(self.ratings.standing)}  # fmt: skip

    def begin(self) -> dict[str, Any]:
        """The event for the log: what is needed to count the trial again from the log alone."""
        recipe = self.recipe
        return {"event": BEGIN, "trial": self.id, "share": recipe.share, "alpha": recipe.alpha,
                "signal": recipe.signal, "scale": list(recipe.scale)}  # fmt: skip

    def value(self, said: Mapping[str, Any]) -> float | None:
        """The rating in a row of feedback, in [0, 1]; `None` where it says nothing of the trial's
        signal."""
        return rating_in(said, self.recipe.signal, self.recipe.scale)

    def replay(self, rows: Iterable[Mapping[str, Any]]) -> bool:
        """Count what a log says of this trial, in its order; whether the canary has to be taken
        back and was not yet."""
        sides: dict[str, tuple[str, Side]] = {}
        worse = False
        for row in rows:
            if row.get("event") == END and row.get("trial") == self.id:
                self.state = row["state"]
                return False
            if "messages" in row and row.get("trial") == self.id:
                sides[row["id"]] = (row["session"], row["arm"])
            elif "digest" in row and row["id"] in sides:
                value = self.value(row)
                if value is not None:
                    worse = self.add(Rated(*sides[row["id"]], value)) or worse
        return worse

    def told(self) -> dict[str, Any]:
        """The state of the trial, for people and machines."""
        recipe = self.recipe
        return {
            "trial": self.id, "state": self.state, "entry": recipe.entry, "share": recipe.share,
            "signal": recipe.signal, "alpha": recipe.alpha, "margin": recipe.margin,
            **asdict(self.ratings.standing),
            "ratings_until_10_points_worse_are_shown":
                ratings_until(0.1, recipe.share, recipe.alpha),
        }  # fmt: skip


def rating_in(said: Mapping[str, Any], signal: str, scale: tuple[float, float]) -> float | None:
    """What a row of feedback says of a signal, in [0, 1]; `None` where it says nothing of it. An
    edited answer was not good enough: 0."""
    if signal in ("thumb", "edit"):
        if "edit" in said and signal == "edit":
            return 0.0
        return None if said.get("label") is None else float(said["label"])
    if said.get("name") != signal or isinstance(said.get("score"), str | None):
        return None
    low, high = scale
    return min(max((float(said["score"]) - low) / (high - low), 0.0), 1.0)
