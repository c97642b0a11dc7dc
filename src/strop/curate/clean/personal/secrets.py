"""Secrets: keys with a known prefix, tokens, private keys, values of what is named a secret."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections import Counter
from collections.abc import Iterator

from strop.curate.clean.personal.spans import Span

_SHAPES: dict[str, str] = {
    "AWS access key": r"(?:AKIA|ASIA|ABIA|ACCA|AGPA|AIDA|AIPA|ANPA|ANVA|AROA)[A-Z0-9]{16}",
    "GitHub token": r"gh[opsur]_[A-Za-z0-9]{36}",
    "GitHub fine-grained token": r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}",
    "GitLab token": r"gl(?:pat|ptt|dt|rt|oas|soat|cbt|ft|imt|agent)-[A-Za-z0-9_-]{20,64}",
    "Slack token": r"xox[abeoprs]-(?:\d{1,3}-)?(?:[A-Za-z0-9]{8,}-){1,4}[A-Za-z0-9]{10,64}",
    "Slack app token": r"xapp-\d-[A-Z0-9]{9,14}-\d{9,14}-[a-f0-9]{64}",
    "Stripe key": r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{20,247}",
    "Stripe webhook secret": r"whsec_[A-Za-z0-9+/]{32,64}={0,2}",
    "Google API key": r"AIza[A-Za-z0-9_-]{35}",
    "Google OAuth secret": r"GOCSPX-[A-Za-z0-9_-]{28}",
    "Google OAuth token": r"ya29\.[A-Za-z0-9_-]{30,512}",
    "OpenAI-like key": r"sk-(?=[A-Za-z_-]{0,200}\d)(?:[A-Za-z0-9]{20,128}"
    r"|(?:proj|svcacct|admin|None|or-v1|lf|ant-[a-z]+\d\d)-[A-Za-z0-9_-]{32,256})",
    "Hugging Face token": r"(?:hf_|api_org_)[A-Za-z0-9]{34}",
    "npm token": r"npm_[A-Za-z0-9]{36}",
    "PyPI token": r"pypi-AgE[A-Za-z0-9_-]{50,512}",
    "SendGrid key": r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}",
    "Twilio key": r"(?:SK|AC)[0-9a-f]{32}",
    "Mailgun key": r"key-[0-9a-f]{32}",
    "DigitalOcean token": r"do[opr]_v1_[a-f0-9]{64}",
    "Shopify token": r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",
    "Telegram bot token": r"\d{8,10}:AA[A-Za-z0-9_-]{33}",
    "Databricks token": r"dapi[a-f0-9]{32}(?:-\d)?",
    "Groq, xAI, Replicate key": r"(?:gsk_[A-Za-z0-9]{52}|xai-[A-Za-z0-9]{80}|r8_[A-Za-z0-9]{37})",
    "Linear, Notion, Postman key": r"(?:lin_api_[A-Za-z0-9]{40}|ntn_[A-Za-z0-9]{46}"
    r"|PMAK-[a-f0-9]{24}-[a-f0-9]{34})",
    "age key": r"AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}",
    "Slack webhook": r"https://hooks\.slack\.com/services/T[A-Z0-9]{8,12}/B[A-Z0-9]{8,12}"
    r"/[A-Za-z0-9]{20,28}",
}
_PREFIXED = re.compile(rf"(?<![A-Za-z0-9_])(?:{'|'.join(_SHAPES.values())})(?![A-Za-z0-9])")
_JWT = re.compile(
    r"(?<![A-Za-z0-9_-])(eyJ[A-Za-z0-9_-]{8,2048})\.(eyJ[A-Za-z0-9_-]{2,8192})"
    r"\.[A-Za-z0-9_-]{16,2048}(?![A-Za-z0-9_-])"
)
_BLOCK = re.compile(r"-----BEGIN ((?:[A-Z0-9]{2,12} ){0,2}PRIVATE KEY(?: BLOCK)?)-----")
_BODY = re.compile(r"(?:(?:\s|\\n|\\r){1,4}[A-Za-z0-9+/=:, -]{1,128})*")
_BEARER = re.compile(r"\b(?:bearer|basic)\s{1,3}([A-Za-z0-9._~+/-]{16,4096}={0,2})", re.IGNORECASE)
_LOGIN = re.compile(r"://[^\s:/@]{0,64}:([^\s:/@]{3,256})@")
_ASSIGNED = re.compile(
    r"(?:(?P<password>passw(?:or)?d|passwort|passphrase|contrase\u00f1a|pwd|passcode)"
    r"|secrets?|tokens?|api[_ -]?keys?|(?:access|private|account|encryption|signing|auth|master"
    r"|shared|session|service|client|consumer|deploy|license)[_ -]?keys?"
    r"|credentials?|authorization|auth)(?!iz)(?-i:(?![a-z]))"
    r"[A-Za-z0-9_-]{0,24}[\"'`\]*]{0,3}"
    r"\s{0,4}(?::=|=>|==?|:|\bis\b|\bwas\b)\s{0,4}(?:\*{1,2} ?)?(?:[urbf]?(?P<quote>[\"'`]))?",
    re.IGNORECASE,
)
_NAMES = ("pass", "pwd", "contrase", "secret", "token", "key", "credential", "auth")
"""One of them is in every name above; most texts hold none, and need no closer look."""
_VALUES = {quote: re.compile(rf"[^{quote}\s]{{6,512}}") for quote in ('"', "'", "`")} | {
    None: re.compile(r"[^\s\"'`,;<>(){}\[\]|]{6,512}(?![(\[{<])")
}
JUDGED = 512
"""Signs by which a value is judged; a longer one goes on to its end."""
_RUN = {quote: re.compile(rf"[^{quote}\s]*") for quote in ('"', "'", "`")} | {
    None: re.compile(r"[^\s\"'`,;<>(){}\[\]|]*")
}
_STAND_IN = re.compile(
    r"[$%{<\[(&]|(?:https?|file)://|\*{3}|[x*.#_-]+$|(?:os|env|process|self|this|config|settings"
    r"|args|secrets|vault|ctx|request|params|data|credentials|import\.meta)[.\[]|[A-Za-z_]\w*[\[(]"
    r"|[A-Za-z_]+(?:\.[A-Za-z_]+)+$|(?:my|your|the|an?|some|insert|enter|replace|change|put|add)"
    r"[_ -]|placeholder|redacted|example|dummy|demo|sample|undefined|null|none|true|false"
    r"|(?:pass|password|passwort|passwd|secret|changeme|changeit|admin|root|user|test|guest|welcome"
    r"|letmein|qwerty|abc|default|token|hello)[\d!@#._-]*$",
    re.IGNORECASE,
)
"""What stands where a value would: code that fetches it, an invitation to write one, and passwords
so common that they are nobody's."""
_DIGIT, _NO_DIGIT, _LETTER = re.compile(r"\d"), re.compile(r"\D"), re.compile(r"[^\W\d_]")
LEAST_ENTROPY = 3.0
"""Bits a sign of a value that counts as random: a word has about 2.5, random hexadecimal digits 3.4
or more at 20 signs, random letters and digits more."""
SHORTEST = 12
"""Signs of a random value; a password is taken from 6 on, where it mixes kinds of signs."""


def secrets(text: str) -> Iterator[Span]:
    """Keys of known services, JSON web tokens, private key blocks, logins in addresses, and random
    values that stand after a secret's name (`api_key = "..."`, `password: ...`)."""
    for match in _PREFIXED.finditer(text):
        yield Span("secret", *match.span())
    for match in _JWT.finditer(text):
        if _is_jwt_header(match[1]):
            yield Span("secret", *match.span())
    yield from _private_keys(text)
    for match in _BEARER.finditer(text):
        if is_random(match[1]):
            yield Span("secret", *match.span(1))
    yield from logins(text)
    yield from _assigned(text)


def logins(text: str) -> Iterator[Span]:
    """The passwords of logins in addresses: `tr0ub4dor` in `ftp://ann:tr0ub4dor@files.org`."""
    for match in _LOGIN.finditer(text):
        if not _STAND_IN.match(match[1]):
            yield Span("secret", *match.span(1))


def _is_jwt_header(part: str) -> bool:
    """Whether it is base64 of a JSON object that names its algorithm (RFC 7519)."""
    try:
        header = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError):
        return False
    return isinstance(header, dict) and "alg" in header


def _private_keys(text: str) -> Iterator[Span]:
    """From a block's first line to its last, or over what is left of a block that was cut."""
    closed, end = True, 0
    for match in _BLOCK.finditer(text):
        if match.start() < end:
            continue
        last = f"-----END {match[1]}-----"
        found = text.find(last, match.end()) if closed else -1
        closed = found >= 0
        body = _BODY.match(text, match.end())
        end = found + len(last) if closed else body.end() if body else match.end()
        yield Span("secret", match.start(), end)


def _assigned(text: str) -> Iterator[Span]:
    small = text.lower()
    if not any(name in small for name in _NAMES):
        return
    done = 0
    for match in _ASSIGNED.finditer(text):
        quote = match["quote"]
        value = _VALUES[quote].match(text, match.end())
        if match.start() < done or value is None or _STAND_IN.match(value.group()):
            continue
        is_long = len(value.group()) == JUDGED
        if quote and not is_long and not text.startswith(quote, value.end()):
            continue
        written = value.group() if quote else value.group().rstrip(".:*")
        if is_random(written) or (match["password"] and is_mixed(written)):
            end = _end_of_run(text, value.end(), quote) if is_long else match.end() + len(written)
            yield Span("secret", match.end(), end)
            done = end


def _end_of_run(text: str, start: int, quote: str | None) -> int:
    run = _RUN[quote].match(text, start)
    return start if run is None else run.end()


def is_random(value: str) -> bool:
    """Whether a value looks drawn and not written: long, with a digit and another kind of sign,
    and with `LEAST_ENTROPY` bits a sign."""
    mixed = _DIGIT.search(value) and _NO_DIGIT.search(value)
    return bool(mixed) and len(value) >= SHORTEST and entropy(value) >= LEAST_ENTROPY


def is_mixed(value: str) -> bool:
    """Whether it looks like a password: `Summer24!`, `hunter2`, no word and no plain number."""
    mixed = _DIGIT.search(value) and _LETTER.search(value)
    return bool(mixed) and len(value) >= 6 and entropy(value) >= 2.5


def entropy(value: str) -> float:
    """Shannon's entropy of a value's signs, in bits a sign: `entropy("aabb") == 1.0`."""
    counts = Counter(value).values()
    return sum(count / len(value) * math.log2(len(value) / count) for count in counts)
