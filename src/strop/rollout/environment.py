"""What an environment is: it begins with a task, answers every turn of the policy, and may say how
good it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from strop.engines.engine import Request
from strop.episodes import Episode
from strop.text.chat.template import Tools
from strop.text.tools import Call
from strop.types import Completion, Message, ScoredGroup, Task


@dataclass(frozen=True, slots=True)
class Said:
    """One turn of the policy, as its environment reads it: `Said({"role": "assistant", "content":
    "I add.", "tool_calls": [...]}, calls=(Call("add", {"a": 1, "b": 2}),))`.

    `text` is all that was sampled, without the token that ends a turn. `malformed` says why
    something that begins like a call is none.
    """

    message: Message
    text: str
    calls: tuple[Call, ...] = ()
    malformed: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """What an environment answers: `Observation(({"role": "tool", "content": "3"},), reward=0.5)`.

    `messages` are read by the policy before its next turn; there is none once it is `done`.
    `reward` is for the turn that was answered (`None`: none is given). `facts` are counted over the
    episode and logged as `episode/<name>`: `{"tool_errors": 1.0}`.
    """

    messages: tuple[Message, ...] = ()
    done: bool = False
    reward: float | None = None
    facts: Mapping[str, float] = field(default_factory=dict)


class FaultError(Exception):
    """The environment failed by its own fault (a server that does not answer, a process that
    ended): the episode ends unscored, whatever the policy did."""


class Ask(Protocol):
    """Draws one answer of the policy that is being trained. `request` is the episode's: its
    sampling and its draw key."""

    @property
    def request(self) -> Request: ...

    async def __call__(
        self, prompt_ids: tuple[int, ...], *, opened: str = "", max_tokens: int | None = None
    ) -> Completion:
        """With the run's sampling and the episode's draw keys, at most `max_tokens` tokens."""


class Environment(Protocol):
    """One episode's environment. Several run at a time, in one asyncio loop: nothing may block it.

    Raises `FaultError` where it fails by its own fault. A call by which the policy hangs or
    crashes a tool is the policy's doing: it is answered with a message, or ends the episode with
    `done`.
    """

    async def reset(self, task: Task) -> Observation:
        """Begin. Messages are added to the task's prompt; a `user` message that follows the
        prompt's last `user` message is appended to it."""

    async def step(self, said: Said) -> Observation:
        """The answer to a turn."""

    async def final_reward(self) -> float | None:
        """The reward of the whole episode beside those of its turns, asked once at its end; `None`
        where there is none."""

    async def close(self) -> None:
        """End, whatever state it is in. Never raises."""


class Offer(Protocol):
    """What all episodes share.

    `tools` are shown to the policy by its chat template. `rewards` says whether environments give
    any reward, and `bounds` what range their sum is in, where it is declared.
    """

    @property
    def tools(self) -> Tools: ...

    @property
    def rewards(self) -> bool: ...

    @property
    def bounds(self) -> tuple[float, float] | None: ...

    async def close(self) -> None:
        """End what all environments share (processes, connections)."""


class EnvironmentFactory(Offer, Protocol):
    """Makes the environments of a run."""

    def make(self, ask: Ask) -> Environment:
        """A new environment for one episode; it does no work before `reset`. `ask` draws answers of
        the policy that are no turns of the episode: an opponent's, a simulated user's."""


class Kept(Protocol):
    """What a run learns of its tasks or opponents while it samples, and saves with its state."""

    def metrics(self) -> dict[str, float]: ...

    def state(self) -> dict[str, Any]: ...

    def load(self, state: Mapping[str, Any]) -> None: ...


class Results(Kept, Protocol):
    """What an environment draws by the results of training."""

    def note(self, groups: Sequence[ScoredGroup]) -> None:
        """Groups of training, in their order, the same ones on every process."""


class Play(Protocol):
    """A way to play whole episodes: turn by turn with an environment, or an agent of the user's own
    that asks whenever it wants."""

    async def play(self, request: Request, ask: Ask) -> Episode:
        """One episode for a request, whose sampling and draw key `ask` uses. An episode that failed
        by nobody's doing has the finish `error` or `aborted`."""

    async def close(self) -> None:
        """End what all episodes share."""
