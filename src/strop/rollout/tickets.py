"""Accounts for every prompt that was drawn: learnt from, dropped, or still outstanding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from strop.errors import UsageError


@dataclass(frozen=True, slots=True)
class Ticket:
    """One prompt that was drawn: `Ticket(number=17, position=2, place=1)` is the 18th of the run,
    the second prompt at position 2 of the data order."""

    number: int
    position: int
    place: int


@dataclass(slots=True)
class Tickets:
    """`drawn` = `learnt` + `dropped` + the number of outstanding ones, always.

    Batch n of `batch` tickets has the prompts at position n of the data order, `shift` further
    where the run left records out, and those of the first after the last of `total` positions.
    """

    batch: int
    total: int
    learnt: int = 0
    dropped: int = 0
    drawn: int = 0
    outstanding: dict[int, Ticket] = field(default_factory=dict)

    def draw(self, up_to: int, shift: int) -> list[Ticket]:
        """Draw the next prompts, until `up_to` are outstanding."""
        new = []
        while len(self.outstanding) < up_to:
            number = self.drawn
            position = (number // self.batch + shift) % self.total
            new.append(Ticket(number, position, number % self.batch))
            self.outstanding[number] = new[-1]
            self.drawn += 1
        return new

    def learn(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            del self.outstanding[ticket.number]
        self.learnt += len(tickets)

    def drop(self, ticket: Ticket) -> None:
        del self.outstanding[ticket.number]
        self.dropped += 1

    def next_of(self, taken: list[Ticket], fits: Callable[[Ticket], bool]) -> Ticket | None:
        """The first outstanding ticket that is not taken and fits."""
        numbers = {ticket.number for ticket in taken}
        left = (self.outstanding[n] for n in sorted(self.outstanding) if n not in numbers)
        return next((ticket for ticket in left if fits(ticket)), None)

    def state(self) -> dict[str, Any]:
        return {
            "drawn": self.drawn, "learnt": self.learnt, "dropped": self.dropped,
            "outstanding": [[t.number, t.position, t.place] for t in self.outstanding.values()],
        }  # fmt: skip

    def load(self, saved: Mapping[str, Any]) -> None:
        """Continue from what `state` returned; raises `UsageError` if it does not add up."""
        tickets = [Ticket(*one) for one in saved["outstanding"]]
        drawn, settled = saved["drawn"], saved["learnt"] + saved["dropped"]
        if drawn != settled + len(tickets):
            raise UsageError(
                f"the checkpoint's rollouts do not add up: {drawn} prompts drawn, {settled} learnt "
                f"from or dropped, {len(tickets)} outstanding",
                fix="resume from the checkpoint before",
            )
        self.drawn, self.learnt, self.dropped = drawn, saved["learnt"], saved["dropped"]
        self.outstanding = {ticket.number: ticket for ticket in tickets}
