"""Whose doing it is that a call fails: it is tried again, and what fails alike each time is the
caller's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from strop.rollout.environment import FaultError

FLAKY = 3
"""Tries that fail in different ways are no doing of the policy: so many times as many are made."""

Failure = Literal["hung", "crashed", "garbled", "failed"]


class FailedError(Exception):
    """An order was not carried out: no answer in time, the process ended, the answer cannot be
    read, or the environment failed."""

    def __init__(self, kind: Failure, said: str) -> None:
        self.kind, self.said = kind, said
        super().__init__(said)


@dataclass(slots=True)
class Tries:
    """How what was tried has failed so far: `Tries(retries=3, failures=[FailedError("hung",
    "...")])`. One more than `retries` are made; where they failed in different ways, more."""

    retries: int
    failures: list[FailedError] = field(default_factory=list)

    @property
    def alike(self) -> bool:
        return len({failure.kind for failure in self.failures}) == 1

    def note(self, failure: FailedError) -> bool:
        """Whether there is another try."""
        self.failures.append(failure)
        return len(self.failures) <= self.retries * (1 if self.alike else FLAKY)

    def fault(self, what: str) -> FaultError:
        said = "; ".join(dict.fromkeys(str(failure) for failure in self.failures))
        return FaultError(f"{what} failed {len(self.failures)} times: {said}")
