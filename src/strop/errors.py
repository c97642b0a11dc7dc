"""Every exception strop raises on purpose.

    StropError                     the root: `except StropError` catches all of them
    |-- UsageError                 the user can mend it: exit code 2
    |   |-- RecipeError            a YAML file: unknown key, wrong value, contradictory options
    |   |-- DataError              a data file: broken line, wrong columns, empty or inert record
    |   |-- TextError              a tokenizer or chat template that cannot render a record
    |   |-- ModelError             a model folder that cannot be loaded
    |   |-- RewardError            a reward file that cannot be loaded or used
    |   |-- SandboxError           no wall around untrusted code holds on this machine
    |   |-- OutputError            an output folder that belongs to something else
    |   |-- RegistryError          an entry that does not exist, a promotion without proof
    |   `-- HubError               a model hub: a name or revision it does not have, no token
    |-- TrainingError              a run that cannot go on: exit code 1
    |   |-- UnscoredError          too few completions could be scored
    |   |-- NotFiniteError         loss or gradient is NaN or infinite
    |   |-- HttpError              a server did not answer, whatever was tried
    |   |-- BudgetError            as many requests or tokens as allowed were used
    |   |-- StoppedByAlarm         an alarm ended the run, the state was saved
    |   `-- OtherProcessError      another process of the run stopped, with its exit code
    |-- MissingEvidenceError       scores that cannot be compared: exit code 12
    `-- StoppedBySignal            a signal came, the state was saved: exit code 128 + number

`EndedBySignal` is a `SystemExit`: outside of a training run there is nothing to save.

Each message names the place (file and line where there is one) and ends with what to do next.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence


class StropError(Exception):
    """Root of the tree. `exit_code` is what the command line returns for it."""

    exit_code = 1

    def __init__(self, problem: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.problem = problem
        self.where = where
        self.fix = fix
        super().__init__(self._message())

    def _message(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f"\n  fix: {self.fix}" if self.fix else ""
        return f"{place}{self.problem}{advice}"


class UsageError(StropError):
    """The user asked for something that cannot be done as asked. `key` is the recipe's key that
    asked for it, where one did: `rollout.environment.url`."""

    exit_code = 2

    def __init__(
        self,
        problem: str,
        *,
        where: str | None = None,
        fix: str | None = None,
        key: str | None = None,
    ) -> None:
        self.key = key
        super().__init__(problem, where=where, fix=fix)


class RecipeError(UsageError):
    """A recipe, suite, policy or pipeline file is wrong."""


class DataError(UsageError):
    """A data file is broken or does not fit the method.

    `kind` is the word by which bad rows are counted: `DataError("`text` is empty",
    where="corpus.jsonl:3", kind="empty")`.
    """

    def __init__(
        self,
        problem: str,
        *,
        where: str | None = None,
        fix: str | None = None,
        kind: str = "unusable",
    ) -> None:
        self.kind = kind
        super().__init__(problem, where=where, fix=fix)


class TextError(UsageError):
    """A tokenizer or chat template cannot render a record exactly."""


class ModelError(UsageError):
    """A model folder cannot be loaded."""


class RewardError(UsageError):
    """A reward cannot be loaded or called."""


class SandboxError(UsageError):
    """Untrusted code cannot be shut in here, so it is not run."""


class WorldError(UsageError):
    """An environment or its tools do not keep to what they promise."""


class OutputError(UsageError):
    """An output folder cannot be used."""


class RegistryError(UsageError):
    """The registry refuses: unknown entry, or a promotion without a passing verdict."""


class HubError(UsageError):
    """The model hub does not have it, or does not give or take it."""


class TrainingError(StropError):
    """A run cannot go on."""


class UnscoredError(TrainingError):
    """No completion of a step (or no item of an eval) could be scored, or too few for too long."""


class NotFiniteError(TrainingError):
    """Loss or gradient is NaN or infinite; that update was not made. `tensors` says where:
    `("loss of forward 2 of 3: nan",)`."""

    def __init__(self, where: str, tensors: Sequence[str], *, fix: str) -> None:
        self.tensors = tuple(tensors)
        super().__init__(f"not finite: {'; '.join(tensors)}", where=where, fix=fix)


class HttpError(TrainingError):
    """A server did not answer, whatever was tried; `problem` is what the last attempt met, `status`
    what the server said where it said something."""

    def __init__(self, problem: str, *, where: str, status: int | None = None) -> None:
        self.status = status
        super().__init__(problem, where=where)


class BudgetError(TrainingError):
    """As many requests were sent, or tokens used, as the limits allow."""

    def __init__(self, problem: str, *, where: str) -> None:
        super().__init__(problem, where=where, fix="raise the budget; what was answered is kept")


class StoppedByAlarm(TrainingError):  # noqa: N818 - it is an event, not an error
    """An alarm whose action is `pause` or `stop` rang; the state was saved first."""

    def __init__(self, said: str, *, resumable: bool) -> None:
        go_on = "or go on as it is with --resume" if resumable else "and start again"
        super().__init__(
            f"the run was ended by an alarm: {said}",
            fix=f"change the recipe into another output, {go_on}",
        )


class OtherProcessError(TrainingError):
    """Another process of this run stopped; `rank` is None where it is only seen to be gone."""

    def __init__(self, rank: int | None, said: str, exit_code: int) -> None:
        self.rank = rank
        if rank is None:
            super().__init__(
                f"another process of this run is gone, or does not answer: {said}",
                fix="its own message, where it left one, says why; then go on with --resume",
            )
        else:
            super().__init__(f"process {rank} of this run stopped: {said}")
        self.exit_code = exit_code


class MissingEvidenceError(StropError):
    """Base and candidate were not measured on the same items."""

    exit_code = 12


class StoppedBySignal(StropError):  # noqa: N818 - it is an event, not an error
    """SIGTERM or SIGINT arrived; the state was saved first."""

    def __init__(self, number: int, step: int | None) -> None:
        name = signal.Signals(number).name
        when = (
            "before its first step; what was saved earlier is whole"
            if step is None
            else f"after step {step}; the state was saved"
        )
        super().__init__(
            f"stopped by {name} {when}",
            fix="run the same command again to go on; `strop train` needs --resume for it",
        )
        self.exit_code = 128 + number


class EndedBySignal(SystemExit):
    """SIGTERM arrived outside of a training run: the program ends with this code. A `SystemExit`
    that is none of these comes from a user's code."""
