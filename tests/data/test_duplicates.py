"""Repeated texts: the fast way finds what comparing all with all finds, and nothing else."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from strop.data.duplicates import Words, first_alike, numbers, words
from strop.data.near import find, minhash, pieces, ragged
from strop.data.near.alike import ALIKE, LONG, LOOSE, OWN, SAME_WORDS
from strop.data.near.find import find_repeats
from strop.data.near.pieces import FREQUENT
from strop.errors import OutputError

VOCABULARY = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "prstz"]


def prose(draw: random.Random, count: int, vocabulary: Sequence[str] = VOCABULARY) -> str:
    return " ".join(draw.choices(vocabulary, k=count))


class BruteForce:
    """`find_repeats` by comparing everything with everything, in sets of words."""

    def __init__(self, texts: Sequence[Words]) -> None:
        self.texts = texts
        self.triples = [set(zip(t, t[1:], t[2:], strict=False)) for t in texts]
        firsts = {text: n for n, text in reversed(list(enumerate(texts)))}
        self.long = [n for n in sorted(firsts.values()) if len(texts[n]) >= LONG]
        self.numbers = [numbers(text) for text in texts]
        self.counts = Counter(t for n in self.long for t in self.triples[n])
        self.first = [firsts[text] for text in texts]

    def found(self) -> list[int]:
        kept: list[int] = []
        repeated: dict[int, int] = {}
        for n in self.long:
            alike = [m for m in kept if self.alike(n, m)]
            if alike:
                repeated[n] = alike[0]
            else:
                kept.append(n)
        return [repeated.get(first, first) for first in self.first]

    def alike(self, n: int, m: int) -> bool:
        if self.numbers[n] != self.numbers[m]:
            return False
        one, two = self.triples[n], self.triples[m]
        if not one & two:
            return False
        own = [{t for t in of if self.counts[t] <= FREQUENT} for of in (one, two)]
        similar = [jaccard(one, two)] if self.edited(one, two) else []
        similar += [jaccard(*own)] if min(map(len, own)) >= OWN else []
        same_words = jaccard(set(self.texts[n]), set(self.texts[m])) >= SAME_WORDS
        return any(s >= ALIKE or (s >= LOOSE and same_words) for s in similar)

    def edited(self, one: set[Words], two: set[Words]) -> bool:
        shared = sorted(self.counts[t] for t in one & two)
        frame = shared[3 * (len(shared) - 1) // 4] if shared else 0
        usual = [3 * self.counts[t] >= 2 * frame for t in one ^ two]
        return frame <= FREQUENT or 5 * sum(usual) >= len(usual)


def jaccard(one: set[Words] | set[str], two: set[Words] | set[str]) -> float:
    return len(one & two) / max(len(one | two), 1)


def edited(draw: random.Random, text: str, edits: int) -> str:
    changed = text.split()
    for _ in range(edits):
        place = draw.randrange(len(changed))
        kind = draw.choice(("replace", "insert", "delete"))
        new = [] if kind == "delete" else [draw.choice([*VOCABULARY, "7"])]
        changed[place : place + (kind != "insert")] = new
    return " ".join(changed)


def mixture(draw: random.Random) -> list[str]:
    """Short and long texts, edited copies, a text with twenty edited copies, three templates."""
    texts = [prose(draw, draw.randint(3, 45)) for _ in range(40)]
    frame = prose(draw, 20)
    texts += [f"{frame} {prose(draw, draw.randint(1, 30))}" for _ in range(20)]
    slots = prose(draw, 9), prose(draw, 9)
    texts += [f"{slots[0]} {prose(draw, 1)} {slots[1]}" for _ in range(20)]
    texts += [f"{slots[1]} {draw.randint(1, 9)} {slots[0]} {draw.randint(1, 9)}" for _ in range(30)]
    spam = prose(draw, 30)
    texts += [edited(draw, spam, draw.randint(1, 2)) for _ in range(20)]
    texts += [edited(draw, text, draw.randint(0, 4)) for text in draw.sample(texts, 40)]
    draw.shuffle(texts)
    return texts


@pytest.mark.parametrize("seed", range(5))
def test_repeats_are_those_that_comparing_all_with_all_finds(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly so where no text has more candidates than are compared."""
    for bound in ("EARLIEST", "PAIRS"):
        monkeypatch.setattr(minhash, bound, 1000)
    monkeypatch.setattr(find, "LIKELIEST", 1000)
    compared = [words(text) for text in mixture(random.Random(seed))]
    assert first_alike(compared) == BruteForce(compared).found()


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_on_candidates_costs_little_and_never_merges_what_is_not_alike(seed: int) -> None:
    compared = [words(text) for text in mixture(random.Random(seed))]
    every = BruteForce(compared)
    found, expected = find_repeats(compared), every.found()
    for place, first in enumerate(found.first.tolist()):
        assert found.exact[place] == (place != first and compared[place] == compared[first])
        if found.near[place]:
            assert every.alike(every.first[place], first)
    repeated = [n for n, first in enumerate(expected) if first != n]
    assert sum(found.first[n] != n for n in repeated) >= 0.9 * len(repeated)


@pytest.mark.parametrize("seed", range(3))
def test_in_a_tiny_vocabulary_too_where_every_triple_is_frequent(seed: int) -> None:
    draw = random.Random(seed)
    tiny = VOCABULARY[:5]
    compared = [words(prose(draw, 30, tiny)) for _ in range(120)]
    for text in compared[:30]:
        place = draw.randrange(30)
        compared.append((*text[:place], draw.choice(tiny), *text[place + 1 :]))
    every = BruteForce(compared)
    assert min(every.counts.values()) > FREQUENT
    found = first_alike(compared)
    assert found == every.found()
    assert sum(first == n for n, first in enumerate(found[120:])) >= 27


def test_near_duplicates_merge_and_short_prompts_only_when_equal() -> None:
    long = "Write a short and friendly mail to a customer whose parcel is late by three days and offer a voucher for the next order"  # noqa: E501
    near = long.replace("friendly", "kind")
    other = long.replace("three days", "3 days")
    texts = ["Solve 3x + 7 = 22", "Solve 3x + 7 = 25", "solve 3x+7 = 22!", "Capital of France?",
             "Capital of Spain?", long, near, other, "Please, " + long.upper()]  # fmt: skip
    assert first_alike([words(t) for t in texts]) == [0, 1, 0, 3, 4, 5, 5, 7, 5]


def test_kinds_by_hand() -> None:
    long = prose(random.Random(0), 20)
    edit = "zzz " + long.split(" ", 1)[1]  # 17 of 18 + 1 triples
    found = find_repeats(words(t) for t in (long, edit, long.upper() + "!", edit, "a", "A", ""))
    assert found.first.tolist() == [0, 0, 0, 0, 4, 4, 6]
    assert found.exact.tolist() == [False, False, True, False, False, True, False]
    assert found.near.tolist() == [False, True, False, True, False, False, False]


@pytest.mark.parametrize(("changed", "repeats"), [(4, True), (7, False)])
def test_words_replaced_here_and_there_count_by_words(changed: int, repeats: bool) -> None:
    """Of 40 different words 4 replaced: 36 / 44 of the words, about half of the triples."""
    text = random.Random(1).sample(VOCABULARY, 40)
    other = list(text)
    for nth in range(changed):
        other[2 + 5 * nth] = "zz" + "abcdefg"[nth]
    triples = [set(zip(t, t[1:], t[2:], strict=False)) for t in (text, other)]
    assert jaccard(*triples) < ALIKE
    assert (first_alike([tuple(text), tuple(other)]) == [0, 0]) == repeats


@pytest.mark.parametrize(("slot", "repeats"), [("name", False), ("edit", True)])
def test_a_filled_template_is_new_and_an_edited_copy_is_not(slot: str, repeats: bool) -> None:
    """Thirty texts that differ in one word each: at one place, or each at its own."""
    frame = prose(random.Random(2), 40).split()
    texts = []
    for nth in range(30):
        changed = list(frame)
        changed[20 if slot == "name" else nth + 5] = f"zz{VOCABULARY[nth]}"
        texts.append(tuple(changed))
    assert first_alike(texts) == ([0] * 30 if repeats else list(range(30)))


def test_questions_of_one_template_with_other_numbers_are_all_new() -> None:
    asked = "How many apples has Tom in the end if he had {} of them and gets {} from his aunt?"
    texts = [words(asked.format(a, b)) for a in range(60) for b in range(60)]
    assert first_alike(texts) == list(range(3600))
    assert first_alike([*texts, texts[77]])[-1] == 77


def test_one_order_of_numbers_is_not_another() -> None:
    text = "The first of the two trains carries {} people while the second one of them carries {} as they leave"  # noqa: E501
    assert first_alike([words(text.format(3, 4)), words(text.format(4, 3))]) == [0, 1]


def test_a_text_that_no_encoding_can_write_is_compared_too() -> None:
    broken = "\ud800 " + prose(random.Random(3), 20)
    assert first_alike([words(broken), words(broken + "!")]) == [0, 0]


def test_the_short_way_for_ascii_gives_the_same_words() -> None:
    draw = random.Random(0)
    texts = ["".join(chr(code) for code in range(128)), "4.\n5", "1,\n000", "3, 000 or 3,000."]
    texts += ["".join(draw.choices("abB13 .,'-+*/_(\n$", k=12)) for _ in range(3000)]
    texts += ["".join(draw.choices("abB1  .,", k=12)) for _ in range(3000)]
    for text in texts:
        assert words(text) == words(text + "\u2009"), text  # a thin space is no ASCII


def test_hashes_of_words_depend_on_nothing_around_them() -> None:
    draw = random.Random(0)
    texts = [prose(draw, 20) + " 3x 12 \u0663" for _ in range(50)]
    codes = pieces.word_codes(" ".join(texts).encode())
    alone = {word: pieces.word_codes(word.encode())[0] for text in texts for word in text.split()}
    assert codes.tolist() == [alone[word] for text in texts for word in text.split()]
    assert len(set(alone.values())) == len(alone)
    assert {word for word, code in alone.items() if code & 1} == {"3x", "12"}


def test_numbers_in_digits_of_other_scripts_are_numbers() -> None:
    text = prose(random.Random(3), 20)
    assert first_alike([words(f"{text} {digit}") for digit in ("\u0663", "\u0664")]) == [0, 1]
    assert first_alike([words(f"{text} {word}") for word in ("\u00e9a", "\u00e9b")]) == [0, 0]


def test_words_of_languages_without_spaces_and_of_nothing() -> None:
    assert words("请写3页") == ("请", "写", "3", "页")
    assert words("???") == ("???",)
    assert first_alike([]) == []
    assert words("well-known and/or **bold** 2.50") == (
        "well", "known", "and", "or", "bold", "2.50",
    )  # fmt: skip


def test_the_answer_is_the_same_however_the_texts_are_buffered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = [words(text) for text in mixture(random.Random(5))]
    whole = first_alike(compared)
    monkeypatch.setattr(find, "_TEXTS_AT_ONCE", 7)
    monkeypatch.setattr(minhash, "_AT_ONCE", 11)
    monkeypatch.setattr(pieces, "_SORTED_AT_ONCE", 100)
    assert first_alike(compared) == whole


def test_a_full_disk_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, content: bytes) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(ragged.tempfile, "TemporaryFile", Full)
    with pytest.raises(OutputError, match="No space left on device"):
        first_alike([words(prose(random.Random(0), 20))])
