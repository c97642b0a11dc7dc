"""One value, one placeholder, throughout a record; nothing that was found is left."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strop.curate.clean.personal.replace import Known, personal_values, replace
from strop.curate.clean.personal.spans import Span
from tests.support.personal import VALID

RECORD: dict[str, Any] = {
    "prompt": [{"role": "user", "content": "I am ann@mail.org, call me at 467 3395"}],
    "chosen": [
        {
            "role": "assistant",
            "content": "Noted: 467 3395.",
            "tool_calls": [
                {
                    "function": {
                        "name": "save",
                        "arguments": '{"to":  "ann@mail.org", "tel": "467 3395"}',
                    }
                }
            ],
        }
    ],
    "rejected": "Who is bob@mail.org?",
    "meta": {"trace": {"ann@mail.org": 3, "password": "tr0ub4dor"}, "note": "said tr0ub4dor"},
    "label": True,
    "score": 0.5,
}


def test_a_record_in_full() -> None:
    new, counts, _ = replace(RECORD)
    assert new == {
        "prompt": [{"role": "user", "content": "I am <EMAIL_1>, call me at <PHONE_1>"}],
        "chosen": [
            {
                "role": "assistant",
                "content": "Noted: <PHONE_1>.",
                "tool_calls": [
                    {
                        "function": {
                            "name": "save",
                            "arguments": '{"to":  "<EMAIL_1>", "tel": "<PHONE_1>"}',
                        }
                    }
                ],
            }
        ],
        "rejected": "Who is <EMAIL_2>?",
        "meta": {"trace": {"<EMAIL_1>": 3, "password": "<SECRET_1>"}, "note": "said <SECRET_1>"},
        "label": True,
        "score": 0.5,
    }
    assert counts == Counter(email=4, phone=3, secret=2)


def test_a_record_without_personal_values_stays_as_it_is() -> None:
    record = {
        "prompt": "What is 2 + 2?",
        "args": '{"a":   [1, 2.50]}',
        "n": [1, None, True, 12345678],
    }
    assert replace(record)[:2] == (record, Counter())


def test_the_record_that_was_given_is_not_changed() -> None:
    before = json.dumps(RECORD)
    replace(RECORD)
    assert json.dumps(RECORD) == before


def test_two_ways_of_writing_one_value_get_one_placeholder() -> None:
    new, _, _ = replace(["+1 415-555-0132", "(415) 555-0132", "Ann@Mail.org", "ann@mail.org"])
    assert new == ["<PHONE_1>", "<PHONE_1>", "<EMAIL_1>", "<EMAIL_1>"]
    cards, _, _ = replace(["4111 1111 1111 1111", "4111111111111111", "5555555555554444"])
    assert cards == ["<CARD_1>", "<CARD_1>", "<CARD_2>"]


def test_placeholders_that_are_there_already_are_not_given_again() -> None:
    new, _, _ = replace(
        {"a": "ann@mail.org", "b": "<EMAIL_1> and <EMAIL_3>", "c": "bob@mail.org eve@m.org"}
    )
    assert new == {"a": "<EMAIL_2>", "b": "<EMAIL_1> and <EMAIL_3>", "c": "<EMAIL_4> <EMAIL_5>"}
    assert replace(new)[:2] == (new, Counter())


def test_a_value_found_by_its_context_is_replaced_where_it_has_none() -> None:
    new, counts, _ = replace(["4673395 or 467 3395", "Phone: 467 3395", "1467 33951 stays"])
    assert new == ["<PHONE_1> or <PHONE_1>", "Phone: <PHONE_1>", "1467 33951 stays"]
    assert counts["phone"] == 3


def test_a_short_value_is_not_cut_out_of_a_word() -> None:
    def names(text: str) -> list[Span]:
        return [Span("person", 0, 3)] if text.startswith("Ann ") else []

    new, _, _ = replace(["Ann came", "Annual meeting of Ann, ann"], others=[names])
    assert new == ["<PERSON_1> came", "Annual meeting of <PERSON_1>, ann"]


def test_json_text_stays_json_and_keeps_its_spaces_where_it_can() -> None:
    spaced = '{ "mail" :  "ann@mail.org" }'
    assert replace(spaced)[0] == '{ "mail" :  "<EMAIL_1>" }'
    escaped = '{"mail": "ann\\u0040mail.org", "n": 1.50}'
    assert json.loads(replace(escaped)[0]) == {"mail": "<EMAIL_1>", "n": 1.5}
    number = '{"phone": 4155550132}'
    assert json.loads(replace(number)[0]) == {"phone": "<PHONE_1>"}
    lines = json.dumps({"text": "first\nann@mail.org\nlast"})
    new, counts, _ = replace([lines, "ann@mail.org"])
    assert json.loads(new[0]) == {"text": "first\n<EMAIL_1>\nlast"}
    assert (new[1], counts) == ("<EMAIL_1>", Counter(email=2))
    inside = json.dumps({"arguments": json.dumps({"to": "ann@mail.org"})})
    assert json.loads(json.loads(replace(inside)[0])["arguments"]) == {"to": "<EMAIL_1>"}


def test_broken_json_is_a_text() -> None:
    assert replace('{"mail": "ann@mail.org"')[0] == '{"mail": "<EMAIL_1>"'
    assert replace('{"a": "ann@mail.org", "a": 2}')[0] == '{"a": "<EMAIL_1>", "a": 2}'


def test_two_keys_that_become_one_are_both_kept() -> None:
    new, _, _ = replace({"ann@mail.org": 1, "ANN@mail.org": 2})
    assert sorted(new.values()) == [1, 2]
    assert "mail.org" not in json.dumps(new)


def test_numbers_without_quotes() -> None:
    new, _, _ = replace(
        {"card": 4111111111111111, "phone": 4155550132, "id": 4155550133, "t": 1700000000}
    )
    assert new == {"card": "<CARD_1>", "phone": "<PHONE_1>", "id": 4155550133, "t": 1700000000}


def test_a_placeholder_says_nothing_of_the_number_after_it() -> None:
    new, _, _ = replace({"ssn": "866-50-6891", "866-50-6891": 100010001})
    assert new == {"ssn": "<SSN_1>", "<SSN_1>": 100010001}
    assert replace(new)[0] == new
    assert replace({"user_ssn": 100010001})[0] == {"user_ssn": "<SSN_1>"}


def test_kinds_choose() -> None:
    text = "ann@mail.org http://a.org/x"
    assert replace(text, kinds=["email"])[0] == "<EMAIL_1> http://a.org/x"


def test_values_of_other_records_are_replaced_too() -> None:
    rows = [{"prompt": "Phone: 467 3395"}, {"prompt": "467 3395 and 5 more"}]
    assert replace(rows[1])[:2] == (rows[1], Counter())
    known = Known(personal_values(rows[0]))
    assert replace(rows[1], known=known)[0] == {"prompt": "<PHONE_1> and 5 more"}


def test_halves_of_surrogates_do_no_harm() -> None:
    assert replace("\ud800 ann@mail.org \udfff")[0] == "\ud800 <EMAIL_1> \udfff"


KINDS_DRAWN = st.sampled_from(sorted(VALID))
LEAVES = st.one_of(st.integers(), st.booleans(), st.none(), st.text(max_size=20))


@settings(max_examples=30, deadline=None)
@given(st.lists(KINDS_DRAWN, min_size=1, max_size=4), st.integers(0, 10**6), LEAVES, st.data())
def test_no_value_that_was_found_is_left_anywhere(
    kinds: list[str], seed: int, leaf: object, data: st.DataObject
) -> None:
    draw = random.Random(seed)
    drawn = [VALID[kind](draw) for kind in kinds]
    one = data.draw(st.sampled_from(drawn))
    record = {
        "prompt": "We have: " + " ; ".join(drawn),
        "meta": {
            "deep": [leaf, {"text": f"again ({one})"}],
            "json": json.dumps({"v": drawn}, indent=1),
        },
        one: leaf,
    }
    found = personal_values(record)
    new, counts, _ = replace(record)
    printed = json.dumps(new, ensure_ascii=False)
    for value in found:
        assert json.dumps(value, ensure_ascii=False)[1:-1] not in printed
    assert sum(counts.values()) >= len(found)
    assert json.loads(new["meta"]["json"]).keys() == {"v"}
    assert replace(new)[0] == new


@pytest.mark.parametrize("count", [2_000])
def test_many_values_in_one_record(count: int) -> None:
    mails = [f"user{number}@mail.org" for number in range(count)]
    new, counts, _ = replace({"prompt": " ".join(mails), "chosen": mails[-1]})
    assert counts["email"] == count + 1
    assert new["chosen"] == f"<EMAIL_{count}>"


@pytest.mark.parametrize(
    ("shown", "again"),
    [
        ("phone: 467 3395", "467-3395, 467.3395 and 4673395"),
        ("+86 138 1234 5678", "13812345678"),
        ("+1 415 555 0132", "415/555/0132 and (415) 555-0132"),
        ("my SSN is 536-22-1234", "536 22 1234"),
        ("4111 1111 1111 1111", "4111.1111.1111.1111"),
    ],
)
def test_a_number_that_was_found_is_found_however_it_is_written(shown: str, again: str) -> None:
    new, counts, _ = replace([shown, again, "room 12345678, 2026-03-01 12:30:15, 999-1234567"])
    assert sum(counts.values()) > 1
    assert len(set(re.findall(r"<\w+>", new[0] + new[1]))) == 1
    assert not re.search(r"\d{3}", new[0] + new[1].replace("_", ""))
    assert new[2] == "room 12345678, 2026-03-01 12:30:15, 999-1234567"


def test_a_password_inside_an_address_is_known_elsewhere() -> None:
    turns = ["ftp://bob:hunter2x@files.org/a", "bob's password is still hunter2x"]
    new, counts, values = replace(turns)
    assert new == ["<URL_1>", "bob's password is still <SECRET_1>"]
    assert counts == Counter(url=1, secret=1)
    assert personal_values(turns) == values == {turns[0]: "url", "hunter2x": "secret"}
    encoded = ["ftp://bob:hunt%40er2x@files.org/a", "try hunt@er2x", "try hunt%40er2x"]
    assert replace(encoded)[0] == ["<URL_1>", "try <SECRET_1>", "try <SECRET_1>"]
    assert replace(turns, kinds=["url"])[0] == ["<URL_1>", turns[1]]


def test_a_password_that_is_a_plain_word_is_not_looked_for_elsewhere() -> None:
    new, _, _ = replace(["ftp://bob:sunny@files.org/a", "a sunny day, and bob is here"])
    assert new == ["<URL_1>", "a sunny day, and bob is here"]


@pytest.mark.parametrize(
    "key", ["customerPhone", "customer_phone", "CustomerPhoneNumber", "homePhone", "userTel"]
)
def test_a_word_of_a_key_says_what_its_value_is(key: str) -> None:
    assert replace({key: "467 3395"})[0] == {key: "<PHONE_1>"}
    assert replace({key: 4673395})[0] == {key: "<PHONE_1>"}


@pytest.mark.parametrize("key", ["customerCode", "customer_code", "microphoneSerial", "hotelId"])
def test_another_key_says_nothing(key: str) -> None:
    assert replace({key: "467 3395"})[0] == {key: "467 3395"}


def test_keys_in_camel_case_name_secrets_and_cards_too() -> None:
    new, _, _ = replace({"dbPassword": "tr0ub4dor", "cardNumber": "411111111110"})
    snake, _, _ = replace({"db_password": "tr0ub4dor", "card_number": "411111111110"})
    assert list(new.values()) == list(snake.values())
    assert new["dbPassword"] == "<SECRET_1>"


def test_one_value_written_in_several_ways_gets_one_placeholder_and_leaves_no_letter() -> None:
    wide = "".join(chr(ord(sign) + 0xFEE0) for sign in "ann@mail.org")
    ways = ["a\u200bnn@mail.org", "ann@ma\u00adil.org", "ann%40mail.org", "ann&#64;mail.org",
            "ann&#x40;mail.org", "ann&commat;mail.org",
            wide, "ann@mail.org"]  # fmt: skip
    new, counts, _ = replace([f"To {way}, today" for way in ways])
    assert new == ["To <EMAIL_1>, today"] * len(ways)
    assert counts == Counter(email=len(ways))


def test_a_value_found_once_is_found_elsewhere_without_its_unseen_sign() -> None:
    new, _, _ = replace(["Phone: 46\u200b7 3395", "467 3395 or 4673395"])
    assert new == ["Phone: <PHONE_1>", "<PHONE_1> or <PHONE_1>"]


def test_unseen_signs_beside_a_value_and_in_other_words_stay() -> None:
    family = "\U0001f468\u200d\U0001f469"
    text = f"\u200b{family} 50%40 &#64; 价格\uff0b\uff12\uff10 \u200bann@mail.org\u200b."
    assert replace(text)[0] == text.replace("ann@mail.org", "<EMAIL_1>")
