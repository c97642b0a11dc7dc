"""Hides what looks like a secret or a personal value in reports, messages and logs."""

from __future__ import annotations

import re

HIDDEN = "[hidden]"

_HIDDEN = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+"  # an address
    r"|\b(?:password|passwd|pwd|secret|token|api[_-]?key|authorization)\b\s{0,4}[:=]\s{0,4}\S+"
    r"|\bbearer\s{1,4}\S+"
    r"|(?<![\w-])(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{16,}"  # letters and digits without a break
    r"|\+?\d(?:[ ().-]{0,2}\d){6,}",  # a phone, a card, an account
    re.IGNORECASE | re.DOTALL,
)


def masked(text: str) -> str:
    """A text without addresses, long numbers and keys: `masked("call 0151 2345678")` is
    `"call [hidden]"`.

    It hides too much rather than too little, because a report may have readers who must not see the
    data. Runs in linear time.
    """
    return _HIDDEN.sub(HIDDEN, text)
