"""What looks like a secret or a personal value is hidden from whatever a report shows of texts."""

from __future__ import annotations

import re

HIDDEN = "[hidden]"

_HIDDEN = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|[\w.+-]+@[\w-]+(?:\.[\w-]+)+"  # an address
    r"|\b(?:password|passwd|pwd|secret|token|api[_-]?key|authorization|bearer)\b\s*[:=]?\s*\S+"
    r"|\b(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{16,}"  # a key: letters and digits without a break
    r"|\+?\d(?:[ ().-]{0,2}\d){6,}",  # a phone, a card, an account
    re.IGNORECASE | re.DOTALL,
)


def masked(text: str) -> str:
    """A text without addresses, long numbers and keys: `masked("call 0151 2345678")` is
    `"call [hidden]"`.

    It hides too much rather than too little: a report is read by people who may not see the data.
    """
    return _HIDDEN.sub(HIDDEN, text)
