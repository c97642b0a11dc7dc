"""Who is told of a run: what `notify` holds in a recipe, a pipeline or a policy."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator

from strop.recipe.base import Strict

Event = Literal["alarm", "verdict", "end"]

SECRET_HOSTS = ("hooks.slack.com", "discord.com", "discordapp.com")
"""Servers where whoever knows a webhook's address may write: there the address is the secret."""

_NAMED = re.compile(r"\$\{[A-Za-z_]\w*\}", re.ASCII)
_CREDENTIAL = re.compile(r"auth|token|key|secret|cookie", re.IGNORECASE)


class AtMost(Strict):
    """At most `count` messages of each kind of event within `seconds`; those beyond are counted,
    and the next message says how many there were."""

    count: int = Field(5, ge=1)
    seconds: float = Field(600.0, gt=0)


class NotifyRecipe(Strict):
    """Somebody who is told: a `webhook` that is posted JSON, or a `command` that reads it.

    `format` is the body that the server wants: `json` (all that is known), `slack` or `discord`.
    `headers` go with every request. `webhook` and `headers` name environment variables for their
    secrets, `${SLACK_WEBHOOK}`, and an address or header that holds one itself is refused.
    `command` is a program with its arguments; it runs without a shell and gets the message as JSON
    on its standard input. An attempt, or the program, gets `seconds`.
    """

    webhook: str | None = Field(None, min_length=1)
    headers: dict[str, str] = Field(default_factory=dict)
    format: Literal["json", "slack", "discord"] = "json"
    command: list[str] | None = Field(None, min_length=1)
    seconds: float = Field(5.0, gt=0, le=60)

    @property
    def wanted(self) -> tuple[Event, ...]:
        """The kinds of events that are told."""
        return ("verdict",)

    @property
    def limit(self) -> AtMost | None:
        """How often that may be; `None` for as often as they happen."""
        return None

    @property
    def name(self) -> str:
        """Who is told, without secrets: `webhook ${SLACK_WEBHOOK}`, `command notify-send`."""
        if self.command is not None:
            return f"command {self.command[0]}"
        return f"webhook {self.webhook}"

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.webhook is None) == (self.command is None):
            raise ValueError("give `webhook` or `command`, one of them: who is told?")
        unread = {"headers", "format"} & self.model_fields_set
        if self.command is not None and unread:
            raise ValueError(f"`{min(unread)}` is for a webhook: a command gets JSON")
        return self

    @model_validator(mode="after")
    def _holds_no_secret(self) -> Self:
        address = urlsplit(_NAMED.sub("", self.webhook or ""))
        why = {
            "its address is the secret": address.hostname in SECRET_HOSTS
            and _NAMED.search(self.webhook or "") is None,
            "it holds a password": "@" in address.netloc,
            "it has a query, which usually holds a key": bool(
                address.query and _NAMED.search(self.webhook or "") is None
            ),
        }
        for reason, is_so in why.items():
            if is_so:
                raise ValueError(
                    f"`webhook`: {reason}. Put the address into an environment variable, and write "
                    "its name here: webhook: ${NOTIFY_WEBHOOK}"
                )
        for header, value in self.headers.items():
            if _CREDENTIAL.search(header) and _NAMED.search(value) is None:
                raise ValueError(
                    f"`headers.{header}` holds a secret: put it into an environment variable, and "
                    'write its name here: "Bearer ${NOTIFY_TOKEN}"'
                )
        return self


class RunNotify(NotifyRecipe):
    """Of a training run: its alarms, and its end, whether it finished, failed or was stopped."""

    events: list[Literal["alarm", "end"]] = Field(["alarm", "end"], min_length=1)
    at_most: AtMost = AtMost()

    @property
    def wanted(self) -> tuple[Event, ...]:
        return tuple(self.events)

    @property
    def limit(self) -> AtMost | None:
        return self.at_most

    @model_validator(mode="before")
    @classmethod
    def _verdicts_fall_elsewhere(cls, given: Any) -> Any:
        if isinstance(given, dict) and "verdict" in _listed(given.get("events")):
            raise ValueError(
                "a training run gives no verdict: write `notify` into the pipeline, or into the "
                "gate's policy"
            )
        return given


class PipelineNotify(NotifyRecipe):
    """Of a pipeline: the verdicts of its gates, and its end."""

    events: list[Literal["verdict", "end"]] = Field(["verdict", "end"], min_length=1)
    at_most: AtMost = AtMost()

    @property
    def wanted(self) -> tuple[Event, ...]:
        return tuple(self.events)

    @property
    def limit(self) -> AtMost | None:
        return self.at_most

    @model_validator(mode="before")
    @classmethod
    def _alarms_ring_elsewhere(cls, given: Any) -> Any:
        if isinstance(given, dict) and "alarm" in _listed(given.get("events")):
            raise ValueError(
                "alarms are told by the run they ring in: write `run.notify` into the training "
                "recipe"
            )
        return given


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


GateNotices = Annotated[list[NotifyRecipe], BeforeValidator(_listed)]
RunNotices = Annotated[list[RunNotify], BeforeValidator(_listed)]
PipelineNotices = Annotated[list[PipelineNotify], BeforeValidator(_listed)]
"""A list, or one alone."""
