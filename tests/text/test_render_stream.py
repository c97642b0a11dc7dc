"""Records rendered as they come: what is bad or too long is said and left out, nothing is held."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from strop.errors import StropError, TextError
from strop.text.trees import RenderedRecord, render, render_stream
from strop.types import Demonstration, Document, Origin, Record

USER = {"role": "user", "content": "Solve 2x = 6"}


def demo(answer: str, line: int) -> Demonstration:
    said = {"role": "assistant", "content": answer}
    return Demonstration([USER], [said], {}, Origin("data.jsonl", line))


@pytest.fixture
def strict(tokenizer: Any) -> Any:
    """A template that forgets EOS after "open" and raises at "bad"."""
    changed = copy.deepcopy(tokenizer)
    end = "{% if message['content'] != 'open' %}<|end|>{% endif %}"
    changed.chat_template = (
        "{% if messages[-1]['content'] == 'bad' %}{{ raise_exception('bad turn') }}{% endif %}"
        + tokenizer.chat_template.replace("<|end|>", end)
    )
    return changed


class Told:
    """What a stream says of the records that it leaves out, by line."""

    def __init__(self) -> None:
        self.bad: list[tuple[int, str]] = []
        self.long: list[int] = []

    def on_bad(self, error: StropError, origin: Origin) -> None:
        self.bad.append((origin.line, error.problem))

    def on_long(self, record: Record) -> None:
        self.long.append(record.origin.line)

    def of(self, tokenizer: Any, records: Any, **options: Any) -> Iterator[RenderedRecord]:
        options = {"max_length": 99, "cut_overlong": False, **options}
        return render_stream(
            tokenizer, records, on_bad=self.on_bad, on_long=self.on_long, **options
        )


@pytest.mark.parametrize("at_once", [1, 2, 1024])
def test_bad_and_long_records_shift_nothing(
    strict: Any, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """The others get the trees they get alone; one that repeats a bad one is bad as well."""
    monkeypatch.setattr("strop.text.render.AT_ONCE", at_once)
    answers = ["1", "open", "2", "bad", "x = 12345678 + 87654321", "1", "open", "3"]
    records = [demo(answer, line) for line, answer in enumerate(answers, start=1)]
    told = Told()
    kept = list(told.of(strict, iter(records), max_length=12))
    good = [records[0], records[2], records[5], records[7]]
    alone = render(strict, good, max_length=12, cut_overlong=False)
    assert [one.record for one in kept] == good
    assert [one.tree for one in kept] == list(alone.trees)
    assert [line for line, _ in told.bad] == [2, 4, 7]
    assert "never learn to stop" in told.bad[0][1]
    assert "bad turn" in told.bad[1][1]
    assert told.bad[2][1] == told.bad[0][1]
    assert told.long == [5]


def test_what_is_cut_says_so(tokenizer: Any) -> None:
    told = Told()
    records = [demo("1", 1), demo("x = 12345678 + 87654321", 2)]
    short, cut = told.of(tokenizer, records, max_length=12, cut_overlong=True)
    assert (short.cut, cut.cut, told.long) == (False, True, [])
    (whole,) = told.of(tokenizer, records[1:])
    room = 12 - len(whole.tree.trunk)
    assert cut.tree.branches[0].ids == whole.tree.branches[0].ids[:room]


def test_every_piece_of_a_document_keeps_its_record(tokenizer: Any) -> None:
    document = Document("1 + 2 = 3 and 3 + 4 = 7", {}, Origin("corpus.jsonl", 1))
    pieces = list(Told().of(tokenizer, [document], max_length=6))
    assert len(pieces) > 2
    assert all(piece.record is document for piece in pieces)
    learnt = [token for piece in pieces for token in piece.tree.branches[0].ids]
    ids = tokenizer(document.text)["input_ids"]
    assert learnt == [*ids[1:], tokenizer.eos_token_id]


@pytest.mark.parametrize(("records", "characters"), [(4, 1 << 22), (1024, 500)])
def test_records_are_taken_as_they_are_needed(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, records: int, characters: int
) -> None:
    """By number, and by size where they are long: 500 characters are some of these."""
    monkeypatch.setattr("strop.text.render.AT_ONCE", records)
    monkeypatch.setattr("strop.text.render.AT_ONCE_SIZE", characters)
    taken = 0

    def many() -> Iterator[Record]:
        nonlocal taken
        for line in range(1000):
            taken += 1
            yield demo(f"x = {line}", line)

    stream = Told().of(tokenizer, many())
    for seen in range(100):
        next(stream)
        assert seen < taken <= seen + 6


def test_a_template_without_end_stops_the_stream_at_its_record(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would go on beside the run: so it is no bad row. What is bad before it is told first."""
    changed = copy.deepcopy(tokenizer)
    loops = "{% for i in range(9000) %}{% for j in range(2000) %}{% endfor %}{% endfor %}"
    changed.chat_template = (
        "{% if messages[-1]['content'] == 'bad' %}{{ raise_exception('bad turn') }}{% endif %}"
        f"{{% if messages[-1]['content'] == 'long' %}}{loops}{{% endif %}}"
    ) + tokenizer.chat_template
    monkeypatch.setattr("strop.text.render.TEMPLATE_SECONDS", 0.2)
    told = Told()
    lines = enumerate(["1", "bad", "long", "2"], start=1)
    stream = told.of(changed, [demo(answer, line) for line, answer in lines])
    assert next(stream).record.origin.line == 1
    with pytest.raises(TextError, match=r"data.jsonl:3: the chat template did not end within 0.2"):
        next(stream)
    assert [line for line, _ in told.bad] == [2]
