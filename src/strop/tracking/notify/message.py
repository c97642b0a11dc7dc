"""A message, and what a webhook of each kind is posted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from strop.recipe.notify import Event

DISCORD_MOST = 2000
"""Characters of a message that Discord takes (Discord's reference, "Execute Webhook", content)."""
MOST = 3000
"""Characters of any message: what is longer is nothing that a phone shows."""


@dataclass(frozen=True, slots=True)
class Message:
    """What is told: `Message("alarm", "stop", "dpo", "dpo: displacement at step 9: ...", {"step":
    9, "alarm": "displacement"}, 1767225600.0)`.

    `outcome` is an alarm's action (`warn`, `stop`, ...), a verdict (`pass`, `regressed`,
    `inconclusive`), or how a run ended (`finished`, `failed`, `stopped`); `about` the run, pipeline
    or candidate; `held_back` how many messages the limit swallowed before it: of this kind, and at
    the end of all kinds.
    """

    event: Event | Literal["test"]
    outcome: str
    about: str
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    time: float = field(default_factory=time.time)
    held_back: int = 0

    @property
    def said(self) -> str:
        """The text, with what was swallowed before it."""
        text = self.text if len(self.text) <= MOST else f"{self.text[: MOST - 4]} ..."
        if not self.held_back:
            return text
        more = "message was" if self.held_back == 1 else "messages were"
        return f"{text} ({self.held_back} earlier {more} held back)"

    def plain(self) -> dict[str, Any]:
        """All of it: the body of a webhook with `format: json`, and what a command reads."""
        return {**asdict(self), "facts": dict(self.facts), "text": self.said}


def _slack(message: Message) -> dict[str, Any]:
    """Slack's incoming webhook. What would be a mention or a link is escaped (Slack's reference,
    "Formatting text for app surfaces")."""
    text = message.said.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {"text": text}


def _discord(message: Message) -> dict[str, Any]:
    """Discord's webhook; nobody is mentioned, whatever the text says."""
    text = message.said
    if len(text) > DISCORD_MOST:
        text = f"{text[: DISCORD_MOST - 4]} ..."
    return {"content": text, "allowed_mentions": {"parse": []}}


BODIES: Mapping[str, Callable[[Message], dict[str, Any]]] = {
    "json": Message.plain,
    "slack": _slack,
    "discord": _discord,
}
"""What is posted, by `format`."""
