"""Those who are told: a webhook that is posted, a command that is run without a shell."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from strop.errors import HttpError, UsageError
from strop.http import HttpClient, RequestLimits, expect_address
from strop.recipe.notify import NotifyRecipe
from strop.secrets import Secrets
from strop.tracking.notify.message import BODIES, Message

RETRIES, FIRST_WAIT, LONGEST_WAIT, PATIENCE = 2, 0.5, 2.0, 10.0
MOST_SAID = 200
"""Characters of what a receiver said that are kept."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: `Reply("webhook ${SLACK_WEBHOOK}", True, "status 200", 0.12)`."""

    name: str
    sent: bool
    said: str
    seconds: float


class Receiver(Protocol):
    """One who is told."""

    name: str

    def send(self, message: Message) -> Reply:
        """Tell, and wait for what comes back; never raises for what the other side does."""


class Webhook:
    """Posts with a few attempts. Raises `UsageError` for an address that is none, and for an
    environment variable that is not set."""

    def __init__(self, recipe: NotifyRecipe, where: str) -> None:
        assert recipe.webhook is not None
        self.name, self._body = recipe.name, BODIES[recipe.format]
        self._secrets = Secrets(where, UsageError)
        self._url = self._secrets.filled({"webhook": recipe.webhook})["webhook"].strip()
        if self._url != recipe.webhook:
            _expect_told_address(self._url, recipe.webhook, where)
            self._secrets.hide(urlsplit(self._url).path)
        else:
            expect_address(self._url)
        limits = RequestLimits(
            seconds=recipe.seconds, retries=RETRIES, slow_again=False, first_wait=FIRST_WAIT,
            longest_wait=LONGEST_WAIT, patience=PATIENCE, at_once=1,
        )  # fmt: skip
        self._client = HttpClient(limits, headers=self._secrets.headers(recipe.headers))
        logging.getLogger("httpx").addFilter(self._secrets)  # it writes whole addresses

    def send(self, message: Message) -> Reply:
        began = time.monotonic()
        try:
            said, sent = f"status {self._client.tell(self._url, self._body(message))}", True
        except HttpError as error:
            said, sent = self._secrets.hidden(error.problem)[:MOST_SAID], False
        return Reply(self.name, sent, said, time.monotonic() - began)


class Command:
    """Runs a program in a process group of its own, which is killed after `seconds`. Raises
    `UsageError` for a program that is not there."""

    def __init__(self, recipe: NotifyRecipe, where: str) -> None:
        assert recipe.command is not None
        self.name, self._command, self._seconds = recipe.name, recipe.command, recipe.seconds
        if shutil.which(self._command[0]) is None:
            raise UsageError(
                f"there is no program {self._command[0]!r} to run",
                where=where,
                fix="install it, or write its whole path; it is run without a shell",
            )

    def send(self, message: Message) -> Reply:
        began = time.monotonic()
        sent, said = self._run(json.dumps(message.plain()))
        return Reply(self.name, sent, said, time.monotonic() - began)

    def _run(self, given: str) -> tuple[bool, str]:
        try:
            process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, start_new_session=True, text=True, errors="replace",
            )  # fmt: skip
        except OSError as error:
            return False, f"it cannot be run: {error.strerror}"
        with process:
            try:
                _, said = process.communicate(given, timeout=self._seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return False, f"it did not end within {self._seconds:g} s, and was killed"
        if process.returncode == 0:
            return True, "exit status 0"
        last = said.strip().splitlines()[-1:] or ["it says nothing"]
        return False, f"exit status {process.returncode}: {last[0]}"[:MOST_SAID]


def receiver_of(recipe: NotifyRecipe, where: str) -> Receiver:
    """The receiver of one entry; raises `UsageError` for one that cannot be told anything."""
    return Webhook(recipe, where) if recipe.webhook is not None else Command(recipe, where)


def expect_receivers(recipes: Sequence[NotifyRecipe], where: str) -> None:
    """Raise `UsageError` for a program or environment variable that is missing."""
    for recipe in recipes:
        receiver_of(recipe, where)


def send_test(recipes: Sequence[NotifyRecipe], about: str, where: str) -> list[Reply]:
    """Tell everyone that this is a test, one after the other, and return what came back."""
    message = Message("test", "test", about, f"{about}: this is a test, and nothing happened.")
    return [receiver_of(recipe, where).send(message) for recipe in recipes]


def _expect_told_address(url: str, written: str, where: str) -> None:
    """As `expect_address`, without the address, which is a secret."""
    try:
        expect_address(url)
    except UsageError:
        raise UsageError(
            f"what the environment has for {written} is no HTTP address",
            where=where,
            fix="it begins with https:// and names a server; look for quotes that belong to it",
        ) from None
