"""E-mail addresses, URLs and IP addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from strop.curate.clean.personal.spans import LETTERS, Span, said_before

_LOCAL = re.compile(rf"[{LETTERS}_.%+'&~!#$-]*")
_LONGEST_LOCAL, _LONGEST_DOMAIN = 64, 253
_LABEL = rf"[{LETTERS}](?:[{LETTERS}_-]{{0,61}}[{LETTERS}])?"
_TOP = r"(?:xn--[a-z0-9-]{2,59}|(?:(?![0-9])[" + LETTERS + r"]){2,63})"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+{_TOP}(?![{LETTERS}_-]|\.[{LETTERS}])", re.IGNORECASE)
_PICTURE = re.compile(r"\d(?:\.\d)?x\.[a-z]{3,4}", re.IGNORECASE)
"""`icon@2x.png` is a file."""


def emails(text: str) -> Iterator[Span]:
    """Addresses with a dotted domain that ends in letters (RFC 5321's lengths); quoted local parts
    and addresses at an IP number are not looked for, and `git@host:path` is a place for code."""
    at = text.find("@")
    while at >= 0:
        written = _LOCAL.match(text[max(0, at - _LONGEST_LOCAL - 1) : at][::-1])
        local = written.group()[::-1] if written else ""
        local = local.rsplit("..", 1)[-1].lstrip(".'&~!#$%+-")
        domain = _DOMAIN.match(text, at + 1, at + 2 + _LONGEST_DOMAIN)
        if domain and _is_local(local) and not _is_place(text, local, domain):
            yield Span("email", at - len(local), domain.end())
        at = text.find("@", at + 1)


def _is_local(local: str) -> bool:
    return 0 < len(local) <= _LONGEST_LOCAL and local[-1] not in ".'"


def _is_place(text: str, local: str, domain: re.Match[str]) -> bool:
    clone = local == "git" and text[domain.end() : domain.end() + 1] == ":"
    return clone or _PICTURE.fullmatch(domain.group()) is not None


_ADDRESS = r"(?-i:[^\s<>\"'`{}|\\^\u0530-\U0010ffff])"
"""Case is heeded, else the Kelvin sign of the excluded range would shut out the letter k."""
_URLS = {
    "://": re.compile(
        rf"(?<![A-Za-z0-9])(?:https?|ftps?|sftp|wss?|ssh|git|s3|gs|jdbc:\w{{1,20}}|postgres(?:ql)?"
        rf"|mysql|mongodb(?:\+srv)?|rediss?|amqps?)://{_ADDRESS}+",
        re.IGNORECASE,
    ),
    "www.": re.compile(rf"(?<![\w.@/-])www\.{_ADDRESS}+", re.IGNORECASE),
} | {
    f".{top}/": re.compile(
        rf"(?<![\w.@/:-])(?:[a-z0-9](?:[a-z0-9-]{{0,61}}[a-z0-9])?\.){{1,8}}{top}/{_ADDRESS}+",
        re.IGNORECASE,
    )
    for top in ("com", "org", "net", "edu", "gov", "info", "biz")
}
"""Each with what a text must hold before it is worth searching."""
_HOST = re.compile(rf"(?:{_LABEL}\.)+{_TOP}\.?", re.IGNORECASE)
_OPENED = {")": "(", "]": "["}


def urls(text: str) -> Iterator[Span]:
    """Addresses with a scheme, those that begin with `www.`, and bare ones of a well-known top
    domain that go on with a path. A host is a dotted name, an IP address, `localhost`, or any name
    with a port."""
    small = text.lower()
    for match in (m for sign, form in _URLS.items() if sign in small for m in form.finditer(text)):
        address = _without_end(match.group().split("](", 1)[0])  # Markdown's [link](address)
        if _is_url(address):
            yield Span("url", match.start(), match.start() + len(address))


def _without_end(address: str) -> str:
    """Without the punctuation of the sentence around it; a bracket stays that was opened inside."""
    end = len(address)
    surplus = {close: address.count(close) - address.count(open) for close, open in _OPENED.items()}
    while end and (address[end - 1] in ".,;:!?*_" or surplus.get(address[end - 1], 0) > 0):
        if address[end - 1] in surplus:
            surplus[address[end - 1]] -= 1
        end -= 1
    return address[:end]


def _is_url(address: str) -> bool:
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        host, port = parts.hostname or "", parts.port
    except ValueError:  # a port above 65535, a broken IPv6 address
        return False
    if len(host) > _LONGEST_DOMAIN:
        return False
    if address.lower().startswith("www.") and host.count(".") < 2:
        return False
    named = _HOST.fullmatch(host) is not None or host == "localhost" or _ip(host) is not None
    return named or (port is not None and re.fullmatch(_LABEL, host) is not None)


_V4 = re.compile(r"(?<![\w.])(?<![A-Za-z][-/])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\w|-[A-Za-z])")
_V6 = re.compile(
    r"(?<![\w:.])[0-9A-Fa-f:]{2,40}(?:(?<=:)(?:\d{1,3}\.){3}\d{1,3})?(?:%\w{1,16})?(?![\w:]|\.\w)"
)
_VERSION = re.compile(
    r"(?:\b(?:v|ver|versions?|releases?|builds?|firmware|driver|upgraded? (?:from|to)|sections?"
    r"|chapters?|clauses?|figures?|tables?)\b|§|==|[~^<>]=?)[ .:=\"'(]{0,3}$",
    re.IGNORECASE,
)
_BYTES = re.compile(r"(?:[0-9A-Fa-f]{2}:){7}[0-9A-Fa-f]{2}")
"""The hardware address of a device, which looks like IPv6."""


def ips(text: str) -> Iterator[Span]:
    """IPv4 and IPv6 addresses, but not a version or a section number, a network mask, or one that
    means every machine itself (127.0.0.1, 0.0.0.0, ::1)."""
    for pattern in (_V4, _V6):
        for match in pattern.finditer(text):
            if _is_address(match.group()) and not said_before(text, match.start(), _VERSION):
                yield Span("ip", match.start(), match.end())


def _is_address(written: str) -> bool:
    address = _ip(written)
    if address is None or address.is_unspecified or written.startswith("255."):
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return written != "127.0.0.1"
    return not (address.is_loopback or _BYTES.fullmatch(written) or _is_slice(written))


def _is_slice(written: str) -> bool:
    """`1::2` of a programming language, or `Bed::add`: few groups, of digits alone or letters."""
    groups = [group for group in written.split(":") if group]
    signs = "".join(groups)
    return len(groups) < 3 and (signs.isdigit() or signs.isalpha() or len(signs) < 4)


def _ip(written: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(written)
    except ValueError:
        return None
