from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.curate.clean.damage import damaged, mended
from strop.curate.clean.faults import Fault, Mended

WHOLE = [
    "café \u2013 “don\u2019t” … naïve",
    "łódź i żółw",
    "日本語のテキスト",
    "Ελληνικά",
    "Привет, мир",
    "😀👍🏽",
]


@pytest.mark.parametrize(
    ("text", "codec"),
    [("café \u2013 don\u2019t \u2026 naïve", "cp1252"), *((text, "latin-1") for text in WHOLE[:3])],
)
def test_utf8_that_was_read_as_another_code_page_is_undone(text: str, codec: str) -> None:
    broken = text.encode().decode(codec)
    assert mended(f"First line.\n{broken}\nLast.") == Mended(
        f"First line.\n{text}\nLast.", ("mojibake",)
    )


def test_named_examples() -> None:
    assert mended("itâ€™s a cafÃ©") == Mended("it\u2019s a café", ("mojibake",))
    assert mended("\ud83d\ude00 ok") == Mended("😀 ok", ("surrogates",))
    assert mended("a\x00b\x07c\td\r\n") == Mended("abc\td\r\n", ("control characters",))
    assert mended("\x1b[31mred\x1b[0m") == Mended("red", ("terminal codes",))


@pytest.mark.parametrize(
    "text", [*WHOLE, "plain", "", "&amp; &lt;b&gt;", "ﬁne “quotes” \uff21\uff22\uff23 e\u0301"]
)
def test_a_whole_text_is_not_touched_and_no_fault(text: str) -> None:
    assert mended(text) == Mended(text, ())
    assert damaged(text) is None


@given(st.text(max_size=60))
def test_mending_once_is_enough(text: str) -> None:
    once = mended(text).text
    again = mended(once)
    assert damaged(once) == damaged(again.text)
    assert not any("\ud800" <= sign <= "\udfff" for sign in once)


def test_what_is_lost_is_a_fault_that_counts_it() -> None:
    assert damaged("a \ufffd b \ufffd") == Fault("damaged", "2 lost characters")
    assert damaged("half \ud83d") == Fault("damaged", "1 halves of surrogate pairs")
    assert damaged(mended("half \ud83d").text) == Fault("damaged", "1 lost characters")
    assert damaged("fine\nButtons ג€“ go figure\nfine") == Fault("damaged", "1 lines of mojibake")
