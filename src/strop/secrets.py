"""Secrets that a recipe names and never holds: `Bearer ${KEY}`."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from urllib.parse import quote, quote_plus

from strop.errors import UsageError

_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}", re.ASCII)
HIDDEN = "***"
SHORTEST = 6
"""Characters of a secret; what is shorter is no secret, and stands in texts by chance."""


class Secrets:
    """Values of environment variables, put in where they are used and taken out of what is told.

    `where` and the class of the error, `refusal`, are those of its messages.
    """

    def __init__(self, where: str, refusal: type[UsageError]) -> None:
        self._where, self._refusal = where, refusal
        self._values: set[str] = set()

    def filled(self, given: Mapping[str, str]) -> dict[str, str]:
        """The same texts with the variables' values; raises where one is not set."""
        return {name: _VARIABLE.sub(self._value, text) for name, text in given.items()}

    def headers(self, given: Mapping[str, str]) -> dict[str, str]:
        """As `filled`, of headers; raises for one that HTTP cannot carry."""
        made = self.filled(given)
        for name, value in made.items():
            if not value.isascii() or not value.isprintable():
                raise self._refusal(
                    f"the value of the header {name} has characters that HTTP headers cannot have",
                    where=self._where,
                    fix="look at the environment variable that it names: a key is plain ASCII",
                )
        return made

    def _value(self, found: re.Match[str]) -> str:
        value = os.environ.get(found[1])
        if not value:
            raise self._refusal(
                f"the environment variable {found[1]} is not set",
                where=self._where,
                fix=f"export {found[1]}=... before the run",
            )
        self.hide(value)
        return value

    def hide(self, value: str) -> None:
        """Take this out of what is told from now on, too."""
        if len(value) >= SHORTEST:
            written = (value, quote(value, safe=""), quote_plus(value), json.dumps(value)[1:-1])
            self._values.update(written)

    def hidden(self, text: str) -> str:
        """A text of others without the secrets that it may repeat, as they are, as parts of an
        address or in JSON."""
        for value in sorted(self._values, key=len, reverse=True):
            text = text.replace(value, HIDDEN)
        return text

    def filter(self, record: logging.LogRecord) -> bool:
        """Takes them out of a line of somebody else's log (`logging.Filter`)."""
        record.msg, record.args = self.hidden(record.getMessage()), ()
        return True
