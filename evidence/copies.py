"""Planted copies among generated rows: how many are found, how long it takes, how much it holds.

python evidence/copies.py                                # the table of docs/duplicates.md
python evidence/copies.py --rows 100000 --seed 3
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from strop.data.duplicates import words
from strop.data.near.find import Repeats, find_repeats

SIZES = (100_000, 300_000, 1_000_000)
ORIGINALS = 100_000
"""Originals that copies are made of."""

Kind = Literal["new", "equal", "triples", "words", "numbers", "names"]
"""New text; a copy that is equal but for case and punctuation; a copy whose last two of 20 words
are others (word triples: 16 of 20 shared); one with two of 18 words replaced anywhere (words: 16 of
20 shared); and two that are no copies: a question of a template with other numbers or names."""

QUESTIONS = (
    "How many apples has Tom if he had {} and gets {}?",
    "A train leaves the station with {} people and at the next stop {} more get on, so how many "
    "people are there on the train now?",
    "How many apples has Tom in his basket if he had {} of them yesterday and gets {} more from "
    "his aunt today?",
)
LETTER = (
    "Write a short and friendly mail to {} {} whose parcel is late by several days and offer a "
    "voucher for the next order in our shop"
)


@dataclass(frozen=True, slots=True)
class Row:
    """`Row("Zab kel ...", "triples", original=17)`; `original` is the row it copies."""

    text: str
    kind: Kind
    original: int | None = None


def rows(count: int, seed: int) -> Iterator[Row]:
    """Generated rows: 60 % new, 10 % each of three kinds of copies, 7 and 3 % of two templates."""
    draw = random.Random(seed)
    vocabulary = [_word(n) for n in range(20_000)]
    originals: dict[Kind, list[tuple[int, list[str]]]] = {"triples": [], "words": []}
    for n in range(count):
        chance = draw.random()
        if chance < 0.6 or not all(originals.values()):
            kind: Kind = draw.choice(("triples", "words"))
            text = draw.sample(vocabulary, 20 if kind == "triples" else 18)
            if draw.random() < 0.3:
                text[5] = str(draw.randrange(1000))
            if len(originals[kind]) < ORIGINALS:
                originals[kind].append((n, text))
            yield Row(" ".join(text).capitalize() + ".", "new")
        elif chance < 0.9:
            kind = draw.choice(("equal", "triples", "words"))
            source: Kind = draw.choice(("triples", "words")) if kind == "equal" else kind
            original, text = draw.choice(originals[source])
            yield Row(" ".join(_COPIES[kind](draw, text)), kind, original)
        elif chance < 0.97:
            yield Row(QUESTIONS[n % 3].format(1 + n // 1000, 1 + n % 1000), "numbers")
        else:
            yield Row(LETTER.format(vocabulary[n % 20_000], vocabulary[n // 20_000]), "names")


def _word(number: int) -> str:
    """A word of four syllables' worth of letters, another one for each number."""
    consonants, vowels = "bdfgklmnprstvz", "aeiou"
    letters = ""
    for _ in range(3):
        number, consonant = divmod(number, len(consonants))
        number, vowel = divmod(number, len(vowels))
        letters += consonants[consonant] + vowels[vowel]
    return letters


def _new(draw: random.Random) -> str:
    """A word that no original has."""
    return _word(draw.randrange(20_000, 300_000))


def _equal(draw: random.Random, text: list[str]) -> list[str]:
    return [text[0].upper(), *text[1:], "!"]


def _last_two(draw: random.Random, text: list[str]) -> list[str]:
    return [*text[:-2], _new(draw), _new(draw)]


def _any_two(draw: random.Random, text: list[str]) -> list[str]:
    changed = list(text)
    for place in draw.sample([n for n, word in enumerate(text) if not word.isdigit()], 2):
        changed[place] = _new(draw)
    return changed


Copy = Callable[[random.Random, list[str]], list[str]]
_COPIES: dict[Kind, Copy] = {"equal": _equal, "triples": _last_two, "words": _any_two}


def quality(found: Repeats, planted: Iterator[Row]) -> dict[str, float]:
    """Recall of each kind of copy (the right original was named), and the precision of all that was
    found: `{"recall_equal": 1.0, ..., "precision": 0.9999}`."""
    counts: Counter[str] = Counter()
    for place, (row, first) in enumerate(zip(planted, found.first.tolist(), strict=True)):
        counts[row.kind] += 1
        counts["found"] += first != place
        counts["right"] += first != place and row.original is not None
        counts[f"named {row.kind}"] += first == row.original
    recalls = {f"recall_{kind}": counts[f"named {kind}"] / counts[kind] for kind in _COPIES}
    return {**recalls, "precision": counts["right"] / counts["found"]}


def measured(path: Path, count: int, seed: int) -> dict[str, Any]:
    """Time and memory of this process for the rows of a file, and of hashing them alone."""
    plain = _timed(lambda: [hashlib.sha256(text.encode()).digest() for text in _texts(path)][:0])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found: list[Repeats] = []
    seconds = _timed(lambda: found.append(find_repeats(words(text) for text in _texts(path))))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "rows": count,
        "wall_s": seconds[0],
        "cpu_s": seconds[1],
        "sha256_wall_s": plain[0],
        "sha256_cpu_s": plain[1],
        "peak_MiB": peak / 1024,
        "before_MiB": before / 1024,
        **quality(found[0], rows(count, seed)),
    }


def _texts(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """(wall, CPU) seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def written(path: Path, count: int, seed: int) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for row in rows(count, seed):
            stream.write(json.dumps({"text": row.text}) + "\n")


def apart(count: int, seed: int) -> dict[str, Any]:
    """`measured` in a process of its own, whose memory is that of the work alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        written(path, count, seed)
        command = [sys.executable, __file__, "--rows", str(count), "--seed", str(seed)]
        done = subprocess.run(
            [*command, "--file", str(path)], capture_output=True, text=True, check=True
        )
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def table(measurements: list[dict[str, Any]]) -> str:
    columns = list(measurements[0])
    lines = [columns, ["---:"] * len(columns)]
    lines += [[_shown(name, one[name]) for name in columns] for one in measurements]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _shown(name: str, value: float) -> str:
    share = name.startswith(("recall", "precision"))
    return f"{value:.5f}" if share else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=SIZES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--file", type=Path, help="measure this file in this process")
    options = parser.parse_args()
    if options.file:
        print(json.dumps(measured(options.file, options.rows[0], options.seed)))
    else:
        print(table([apart(count, options.seed) for count in options.rows]))


if __name__ == "__main__":
    main()
