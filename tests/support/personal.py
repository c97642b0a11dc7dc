"""Personal values in sentences, valid and nearly valid, drawn from a seed.

Valid values are built here by the rules of each kind, not by the code under test or its libraries:
check digits are computed anew. A nearly valid one breaks one rule.
"""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable
from dataclasses import dataclass

from strop.curate.clean.personal.find import find

DIGITS, CAPITALS = string.digits, string.ascii_uppercase
LETTERS = string.ascii_letters + DIGITS
HEX = "0123456789abcdef"


@dataclass(frozen=True)
class Case:
    """A value inside of a sentence: `text[start:end]`; `valid` says whether it is to be found."""

    text: str
    start: int
    end: int
    valid: bool


Draw = Callable[[random.Random], str]


def signs(draw: random.Random, alphabet: str, count: int) -> str:
    return "".join(draw.choice(alphabet) for _ in range(count))


def drawn(*choices: Draw) -> Draw:
    return lambda draw: draw.choice(choices)(draw)


# --- bank accounts


ACCOUNTS = {
    "DE": "n" * 18,
    "GB": "a" * 4 + "n" * 14,
    "FR": "n" * 10 + "c" * 11 + "n" * 2,
    "NL": "a" * 4 + "n" * 10,
    "ES": "n" * 20,
    "IT": "a" + "n" * 10 + "c" * 12,
    "CH": "n" * 5 + "c" * 12,
    "SE": "n" * 20,
    "PL": "n" * 24,
    "NO": "n" * 11,
    "BE": "n" * 12,
    "AT": "n" * 16,
}
CLASSES = {"n": DIGITS, "a": CAPITALS, "c": CAPITALS + DIGITS}


def check_digits(country: str, account: str) -> str:
    """ISO 13616: the number modulo 97 that leaves 1, letters counted from A = 10."""
    number = "".join(str(int(sign, 36)) for sign in account + country + "00")
    return f"{98 - int(number) % 97:02d}"


def plain_iban(draw: random.Random) -> str:
    country = draw.choice(sorted(ACCOUNTS))
    account = "".join(draw.choice(CLASSES[sign]) for sign in ACCOUNTS[country])
    return country + check_digits(country, account) + account


def iban(draw: random.Random) -> str:
    number = plain_iban(draw)
    return draw.choice([number, number, grouped(number), number.lower()])


def grouped(number: str) -> str:
    return " ".join(number[i : i + 4] for i in range(0, len(number), 4))


def wrong_iban(draw: random.Random) -> str:
    number = plain_iban(draw)
    place = draw.choice([i for i, sign in enumerate(number) if i > 3 and sign.isdigit()])
    other = str((int(number[place]) + 1) % 10)
    unknown = signs(draw, DIGITS, 18)
    wrong = [
        number[:place] + other + number[place + 1 :],
        number[:-1],
        number + draw.choice(DIGITS),
        number[:2] + f"{(int(number[2:4]) + 1) % 100:02d}" + number[4:],
        "XX" + check_digits("XX", unknown) + unknown,
    ]
    return draw.choice([draw.choice(wrong), grouped(draw.choice(wrong))])


# --- addresses on the net


def v4(draw: random.Random) -> str:
    return ".".join(str(draw.randrange(1, 255)) for _ in range(4))


def v6(draw: random.Random) -> str:
    groups = [f"{draw.randrange(1, 65536):x}" for _ in range(8)]
    short = ":".join(groups[:3]) + "::" + ":".join(groups[6:])
    return draw.choice([":".join(groups), short, f"2001:db8::{groups[0]}:{groups[1]}"])


def wrong_ip(draw: random.Random) -> str:
    octets = v4(draw).split(".")
    high = [*octets[:3], str(draw.randrange(256, 999))]
    draw.shuffle(high)
    groups = [f"{draw.randrange(4096, 65536):x}" for _ in range(9)]
    return draw.choice(
        [
            ".".join(high),
            ".".join(octets[:3]),
            ".".join([*octets, "7"]),
            "v" + ".".join(octets),
            ":".join(groups),
            ":".join([*groups[:7], "g" + groups[7][1:]]),
            f"{groups[0]}::{groups[1]}::{groups[2]}",
            ":".join(f"{draw.randrange(60):02d}" for _ in range(3)),
            ":".join(signs(draw, HEX, 2) for _ in range(6)),
        ]
    )


HOSTS = ("shop.example.com", "www.mail.org", "api.münchen.de", "sub.domain.co.uk", "x-y.io")
PATHS = ("", "/", "/users/42", "/a/b.html?q=1&r=two#top", "/wiki/Python_(language)", ":8080/x")


def url(draw: random.Random) -> str:
    scheme = draw.choice(["http://", "https://", "https://", "ftp://", "wss://"])
    local = draw.choice(["http://localhost:3000/app", f"http://{v4(draw)}/admin", "www.shop.de/a"])
    return draw.choice([scheme + draw.choice(HOSTS) + draw.choice(PATHS)] * 4 + [local])


def wrong_url(draw: random.Random) -> str:
    host, path = draw.choice(["shop.example.com", "mail.org"]), draw.choice(PATHS[:4])
    return draw.choice(
        [
            f"http//{host}{path}",
            f"https:/{host}{path}",
            "https://",
            f"http://shop{path}",
            f"http://shop..com{path}",
            f"https://{host}:99999{path}",
            f"http://-{host}{path}",
            f"http://256.300.1.1{path}",
            f"ht tp:{host}",
            "http:///etc/hosts",
        ]
    )


# --- numbers of persons


def ssn(draw: random.Random) -> str:
    area = draw.choice([a for a in range(1, 900) if a != 666])
    return f"{area:03d}-{draw.randrange(1, 100):02d}-{draw.randrange(1, 10000):04d}"


def wrong_ssn(draw: random.Random) -> str:
    area, group, serial = ssn(draw).split("-")
    return draw.choice(
        [
            f"000-{group}-{serial}",
            f"666-{group}-{serial}",
            f"{draw.randrange(900, 1000)}-{group}-{serial}",
            f"{area}-00-{serial}",
            f"{area}-{group}-0000",
            f"{area}-{group}-{serial[:3]}",
            f"{area}-{group}-{serial}1",
            f"{area[:2]}-{group}-{serial}",
            f"{area}-{group}1-{serial}",
            "078-05-1120",
        ]
    )


def american(draw: random.Random) -> tuple[str, str, str]:
    return (
        draw.choice("23456789") + signs(draw, DIGITS, 2),
        draw.choice("23456789") + signs(draw, DIGITS, 2),
        signs(draw, DIGITS, 4),
    )


def american_phone(draw: random.Random) -> str:
    area, exchange, line = american(draw)
    return draw.choice(
        [
            f"({area}) {exchange}-{line}",
            f"{area}-{exchange}-{line}",
            f"{area}.{exchange}.{line}",
            f"+1 {area} {exchange} {line}",
            f"+1-{area}-{exchange}-{line}",
            f"+1{area}{exchange}{line}",
            f"{area}-{exchange}-{line} ext. {draw.randrange(10, 9999)}",
        ]
    )


def foreign_phone(draw: random.Random) -> str:
    """Mobile and city numbers as the numbering plans of ten countries give them out."""
    shape = draw.choice(
        [
            "+44 7700 900###",
            "+44 20 7946 0###",
            "+49 151 ########",
            "+49 30 9#######",
            "+33 6 1# ## ## ##",
            "+33 1 42 ## ## ##",
            "+34 612 ### ###",
            "+39 347 ### ####",
            "+61 412 ### ###",
            "+91 98### #####",
            "+81 90-####-####",
            "+46 70 ### ## ##",
            "+55 11 9####-####",
            "0044 20 7946 0###",
            "020 7946 0###",
            "06 1# ## ## ##",
        ]
    )
    return "".join(draw.choice(DIGITS) if sign == "#" else sign for sign in shape)


def wrong_phone(draw: random.Random) -> str:
    area, exchange, line = american(draw)
    low = draw.choice("01") + area[1:]
    return draw.choice(
        [
            f"({low}) {exchange}-{line}",
            f"{low}-{exchange}-{line}",
            f"+1 {low} {exchange} {line}",
            f"{area}-1{exchange[1:]}-{line}",
            f"{area}-{exchange}-{line[:3]}",
            f"({area}) {exchange}-{line}5",
            f"+999 {area} {exchange} {line}",
            f"+33 6 {line[:2]} {line[2:]} {exchange[:2]}",
            f"+81 90-{line}-{line}1",
            f"20{line[:2]}-0{draw.randrange(1, 10)}-1{draw.randrange(10)}",
        ]
    )


# --- secrets


def jwt(draw: random.Random, header: bytes = b'{"alg":"HS256","typ":"JWT"}') -> str:
    claims = json.dumps({"sub": signs(draw, DIGITS, 10), "iat": draw.randrange(10**9)}).encode()
    parts = [base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (header, claims)]
    return ".".join([*parts, signs(draw, LETTERS + "-_", 43)])


def key_block(draw: random.Random, name: str = "RSA PRIVATE KEY") -> str:
    lines = [signs(draw, LETTERS + "+/", 64) for _ in range(draw.randrange(3, 9))]
    return "\n".join([f"-----BEGIN {name}-----", *lines, f"-----END {name}-----"])


def prefixed(prefix: str, alphabet: str, count: int) -> Draw:
    return lambda draw: prefix + signs(draw, alphabet, count)


KEYS: tuple[Draw, ...] = (
    prefixed("AKIA", CAPITALS + "234567", 16),
    prefixed("ghp_", LETTERS, 36),
    prefixed("glpat-", LETTERS, 20),
    lambda draw: (
        f"xoxb-{signs(draw, DIGITS, 12)}-{signs(draw, DIGITS, 13)}-{signs(draw, LETTERS, 24)}"
    ),
    prefixed("sk_live_", LETTERS, 24),
    prefixed("AIza", LETTERS + "-_", 35),
    lambda draw: "sk-" + signs(draw, LETTERS, 47) + draw.choice(DIGITS),
    lambda draw: "sk-proj-" + signs(draw, LETTERS + "-_", 63) + "7",
    prefixed("hf_", LETTERS, 34),
    prefixed("npm_", LETTERS, 36),
    lambda draw: f"SG.{signs(draw, LETTERS, 22)}.{signs(draw, LETTERS, 43)}",
    jwt,
    key_block,
)
WRONG_KEYS: tuple[Draw, ...] = (
    prefixed("AKIA", CAPITALS, 15),
    prefixed("AKIB", CAPITALS, 16),
    prefixed("ghp_", LETTERS, 35),
    prefixed("ghx_", LETTERS, 36),
    prefixed("xoxb-", DIGITS, 6),
    prefixed("sk_live_", LETTERS, 9),
    prefixed("AIza", LETTERS, 34),
    prefixed("sk-", LETTERS, 12),
    prefixed("hf_", LETTERS, 20),
    lambda draw: f"SG.{signs(draw, LETTERS, 12)}.{signs(draw, LETTERS, 43)}",
    lambda draw: jwt(draw, b'{"typ":"JWT"}'),
    lambda draw: key_block(draw, "PUBLIC KEY"),
    lambda draw: key_block(draw, "CERTIFICATE"),
)
NAMES = (
    "api_key = ",
    "API_KEY=",
    '"client_secret": ',
    "password: ",
    "token => ",
    "aws_secret_access_key=",
)
HARMLESS = ("commit ", "sha256: ", "request id ", "etag = ", "build=", "trace_id: ")
STAND_INS = (
    "YOUR_API_KEY_HERE",
    "changeme",
    "os.environ['TOKEN']",
    "${SECRET_TOKEN}",
    "<redacted>",
    "************",
    "get_secret('db')",
    "aaaaaaaaaaaaaaaa",
    "required",
    "process.env.API_KEY",
)


def random_value(draw: random.Random) -> str:
    return signs(draw, draw.choice([LETTERS, HEX]), draw.randrange(20, 41))


def sentences(kind: str, seed: int, count: int) -> list[Case]:
    """`count` valid values and as many nearly valid ones of a kind, each in a sentence."""
    draw = random.Random(f"{kind} {seed}")
    return [one(kind, draw, valid) for valid in (True, False) for _ in range(count)]


def one(kind: str, draw: random.Random, valid: bool) -> Case:
    before, after = draw.choice(FRAMES[kind])
    if kind == "assigned":
        return assigned(draw, valid)
    value = (VALID if valid else WRONG)[kind](draw)
    return Case(before + value + after, len(before), len(before) + len(value), valid)


def assigned(draw: random.Random, valid: bool) -> Case:
    """A name, a sign and a value; nearly valid: no secret's name, or no random value."""
    stand_in = not valid and draw.random() < 0.5
    name = draw.choice(NAMES if valid or stand_in else HARMLESS)
    value = draw.choice(STAND_INS) if stand_in else random_value(draw)
    quote = draw.choice(["", '"', "'"]) if "'" not in value else ""
    before = draw.choice(["Use ", "In .env: ", "\n", ""]) + name + quote
    return Case(before + value + quote + draw.choice(["", "\n", " and go on"]),
                len(before), len(before) + len(value), valid)  # fmt: skip


VALID: dict[str, Draw] = {
    "iban": iban,
    "ip": drawn(v4, v4, v6),
    "url": url,
    "ssn": ssn,
    "phone": drawn(american_phone, foreign_phone),
    "secret": drawn(*KEYS),
}
WRONG: dict[str, Draw] = {
    "iban": wrong_iban,
    "ip": wrong_ip,
    "url": wrong_url,
    "ssn": wrong_ssn,
    "phone": wrong_phone,
    "secret": drawn(*WRONG_KEYS),
}
PLAIN = (("It reads ", "."), ("", " was noted on Tuesday"), ("We have (", "), as agreed."))
FRAMES: dict[str, tuple[tuple[str, str], ...]] = {
    "iban": (*PLAIN, ("Please send it to IBAN ", ", thanks")),
    "ip": (*PLAIN, ("Blocked request from ", " at noon"), ("host=", ";")),
    "url": (*PLAIN, ("See ", " for more."), ("[link](", ")")),
    "ssn": (*PLAIN, ("My SSN is ", ".")),
    "phone": (*PLAIN, ("Call me at ", " after six"), ("Phone: ", "\nBest")),
    "secret": (*PLAIN, ("Here you go: ", "\n"), ("x = '", "'")),
    "assigned": (("", ""),),
}


def values(text: str, kind: str) -> list[str]:
    """What `find` reads as values of a kind."""
    return [text[span.start : span.end] for span in find(text) if span.kind == kind]
