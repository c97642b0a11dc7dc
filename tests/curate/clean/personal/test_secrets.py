"""Keys, tokens and passwords, and what only looks like one. No real secret stands here: all are
drawn or published as examples."""

from __future__ import annotations

import random

import pytest

from strop.curate.clean.personal.secrets import entropy, is_random
from tests.support.personal import HEX, KEYS, LETTERS, WRONG_KEYS, Draw, jwt, signs, values


@pytest.mark.parametrize("key", range(len(KEYS)))
def test_a_key_is_found_whole_and_one_with_a_broken_rule_is_not(key: int) -> None:
    draw = random.Random(key)
    for _ in range(20):
        value = KEYS[key](draw)
        assert values(f"Here: {value}\nThanks", "secret") == [value]
        assert values(f"Here: {WRONG_KEYS[key](draw)}\nThanks", "secret") == []


def test_a_private_key_that_was_cut_is_found_to_where_it_ends() -> None:
    draw = random.Random(5)
    lines = [signs(draw, LETTERS, 64) for _ in range(3)]
    cut = "\n".join(["-----BEGIN OPENSSH PRIVATE KEY-----", *lines])
    assert values(f"see\n{cut}\n\n(cut)", "secret") == [cut]
    escaped = cut.replace("\n", "\\n") + "\\n-----END OPENSSH PRIVATE KEY-----"
    assert values(f'{{"key": "{escaped}"}}', "secret") == [escaped]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('api_key = "Zk39dkE02kdPq1xZ"', "Zk39dkE02kdPq1xZ"),
        ("export DB_PASSWORD=tr0ub4dor&3;", "tr0ub4dor&3"),
        ("my password is Xk9vv2qLm.", "Xk9vv2qLm"),
        ("password: Summer24!", "Summer24!"),
        ("Authorization: Bearer 9f8e7d6c5b4a39281706f5e4", "9f8e7d6c5b4a39281706f5e4"),
        ("postgres://ann:s3cr3tpw@db.example.org/x", "postgres://ann:s3cr3tpw@db.example.org/x"),
        ("'client_secret': '8Q~x7kkP0-aa92.Zm1'", "8Q~x7kkP0-aa92.Zm1"),
        ("**Token:** 7fQ29dkwP0aL31mB", "7fQ29dkwP0aL31mB"),
    ],
)
def test_what_is_assigned_to_a_secrets_name(text: str, value: str) -> None:
    assert values(text, "secret") == [value] or values(text, "url") == [value]


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens=4096",
        "tokenizer: meta-llama/Llama-3.1-8B",
        "author: smith2010learning",
        "password: required",
        "password = get_password(user_id_7)",
        "password=password123",
        "token = os.environ['TOKEN_7']",
        "api_key: ${API_KEY_2024}",
        "secret=<your secret here 1>",
        "api_key=YOUR_API_KEY_123456",
        "passwords with 12 characters",
        "commit 3f786850e387550fdab836ed7e6dc881de23001b",
        "key: value1",
        "the secret is out: 1984",
        "sk-learn and sk-this-is-a-class-name-of-css",
        "Bearer of bad news",
    ],
)
def test_names_code_and_invitations_are_no_secrets(text: str) -> None:
    assert values(text, "secret") == []


def test_a_tokens_header_has_to_name_its_algorithm() -> None:
    draw = random.Random(1)
    assert values(jwt(draw), "secret")
    assert not values(jwt(draw, b'{"typ":"JWT"}'), "secret")
    assert not values(jwt(draw, b"\xff\xfe no json"), "secret")


def test_entropy_in_bits() -> None:
    assert entropy("aaaa") == 0.0
    assert entropy("aabb") == 1.0
    assert entropy("abcdefgh") == 3.0


@pytest.mark.parametrize(("alphabet", "length"), [(HEX, 24), (HEX, 32), (LETTERS, 16)])
def test_drawn_values_count_as_random_and_words_do_not(alphabet: str, length: int) -> None:
    draw = random.Random(7)
    values_drawn = [signs(draw, alphabet, length) for _ in range(500)]
    assert sum(map(is_random, values_drawn)) >= 470
    assert not any(
        map(is_random, ("configuration", "case-insensitive", "1234567890123456", "aaa1" * 5))
    )


def test_the_draws_differ() -> None:
    one: Draw = KEYS[1]
    assert one(random.Random(1)) != one(random.Random(2))
