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
    """Every prompt that was drawn is learnt from, dropped, or outstanding.

    Batch n of `batch` tickets has the prompts at position n of the data order, `shift` further
    where the run left records out, and those of the first after the last of `total` positions.
    """

    batch: int
    total: int
    learnt: int = 0
    dropped: int = 0
    outstanding: dict[int, Ticket] = field(default_factory=dict)

    @property
    def drawn(self) -> int:
        return self.learnt + self.dropped + len(self.outstanding)

    def draw(self, up_to: int, shift: int) -> list[Ticket]:
        """Draw the next prompts, until `up_to` are outstanding."""
        new = []
        while len(self.outstanding) < up_to:
            new.append(self._numbered(self.drawn, shift))
            self.outstanding[new[-1].number] = new[-1]
        return new

    def moved(self, shift: int) -> list[Ticket]:
        """Outstanding tickets that were drawn before the run left records out, for the prompts that
        are theirs now."""
        now = [self._numbered(number, shift) for number in self.outstanding]
        changed = [ticket for ticket in now if ticket != self.outstanding[ticket.number]]
        self.outstanding |= {ticket.number: ticket for ticket in changed}
        return changed

    def _numbered(self, number: int, shift: int) -> Ticket:
        position = (number // self.batch + shift) % self.total
        return Ticket(number, position, number % self.batch)

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
        self.learnt, self.dropped = saved["learnt"], saved["dropped"]
        self.outstanding = {ticket.number: ticket for ticket in tickets}
