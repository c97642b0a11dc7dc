"""New instructions from seeds: planned replies, known choices."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from strop.curate.synthetic.selection import rouge_l
from strop.curate.synthetic.self_instruct import instructions_in, self_instruct, unfit
from strop.data.duplicates import words
from strop.data.records import any_record
from strop.errors import DataError
from strop.recipe.loading.load import load
from strop.recipe.synthetic import SelfInstructRecipe
from strop.types import Answer, Origin, Task
from tests.support.generated import left_out, prompts_file, target, written
from tests.support.scripted import Say, Scripted

SEEDS = [f"Name a {thing} and say what people do with it." for thing in (
    "river", "hammer", "violin", "coat", "ship", "garden", "clock", "candle",
)]  # fmt: skip

TOPICS = ("bees", "rust", "glaciers", "chess", "bread", "comets", "knots", "tides", "ink",
          "salt", "owls", "bridges")  # fmt: skip
FORMS = (
    "Explain to a child how {} came to be and why they matter today",
    "Write four lines of verse in which {} speak for themselves",
    "List three common mistakes that beginners make with {} at home",
    "Compare {} with something unlike them and defend your choice",
)


def fresh(number: int) -> str:
    """Instructions that differ in topic, and every twelve of them in form."""
    form = FORMS[number // len(TOPICS) % len(FORMS)]
    return form.format(f"{TOPICS[number % len(TOPICS)]} {number}") + "."


class Writer:
    """Writes `each` new instructions a request, and answers everything else."""

    def __init__(self, each: int = 2) -> None:
        self.each, self.written = each, 0
        self.requests: list[str] = []

    def __call__(self, prompt: str, index: int) -> str:
        if "numbered from" not in prompt:
            return f"Answer: {prompt}"
        self.requests.append(prompt)
        # the same for a request whenever it comes
        first = len(self.requests) * self.each
        return "\n".join(f"{n + 7}. {fresh(first + n)}" for n in range(self.each))


def run(folder: Path, say: Say, seeds: Any = SEEDS, **recipe: Any) -> tuple[Any, Scripted]:
    inputs = prompts_file(folder, [{"prompt": seed} for seed in seeds])
    engine = Scripted(say)
    given = load(SelfInstructRecipe, {"count": 4, "at_once": 2, "similarity": 0.9, **recipe})
    return self_instruct(inputs, engine, given, target(folder)), engine


class TestReplies:
    def test_numbered_lists(self) -> None:
        reply = "Sure!\n9. Name a river.\n 10) Write a poem\n  of two lines.\nTask 11: Add 2 and 3."
        assert instructions_in(reply, cut=False) == [
            "Name a river.", "Write a poem\n  of two lines.", "Add 2 and 3.",
        ]  # fmt: skip
        assert instructions_in("9. Name a river.\n10. Why is", cut=True) == ["Name a river."]
        assert instructions_in("Name a river, 3.5 km long.", cut=False) == []

    @pytest.mark.parametrize(
        ("text", "kind"),
        [
            ("Name it.", "too_short"),
            ("word " * 151, "too_long"),
            ("- Name three rivers of Peru.", "malformed"),
            ("Describe what you see in this image.", "keyword"),
            ("Draw a house with two windows.", "keyword"),
        ],
    )
    def test_filters(self, text: str, kind: str) -> None:
        found = unfit(text, SelfInstructRecipe())
        assert found is not None
        assert found[0] == kind

    @pytest.mark.parametrize(
        "text",
        [
            "Name three rivers.  Now",
            "Imagine a drawer full of maps and imagery.",
            '"Go" is a game: why?',
            "word " * 150,
            "¿Por qué el cielo es azul?",
        ],
    )
    def test_clean_cases_beside_them(self, text: str) -> None:
        assert unfit(text, SelfInstructRecipe(avoid=("image", "draw"))) is None


class TestInstructions:
    def test_new_ones_are_kept_and_answered(self, tmp_path: Path) -> None:
        made, _ = run(tmp_path, Writer())
        rows = written(tmp_path)
        assert len(rows) == 4
        for row in rows:
            assert row["completion"] == f"Answer: {row['prompt']}"
            assert row["meta"]["kind"] == "self-instruct"
            assert row["meta"]["instruction"]["draw"]["stream"] == "synthetic"
            assert row["meta"]["prompt"]["file"] == "proposals"
        assert made.figures == {"proposed": 4, "rounds": 1, "instructions": 4}
        assert made.cost.answers == 2 + 4

    def test_without_answers_they_are_tasks(self, tmp_path: Path) -> None:
        made, _ = run(tmp_path, Writer(), answers=False)
        records = [any_record(row, Origin("out", 1)) for row in written(tmp_path)]
        assert all(isinstance(record, Task) for record in records)
        assert made.cost.answers == 2

    def test_requests_show_seeds_and_what_was_kept(self, tmp_path: Path) -> None:
        writer = Writer(each=1)
        run(tmp_path, writer, count=6, seeds_shown=3, generated_shown=2)
        kept = [row["prompt"] for row in written(tmp_path)]
        for number, request in enumerate(writer.requests):
            shown = re.findall(r"^\d+\. (.*)$", request, flags=re.M)
            seeds = [text for text in shown if text in SEEDS]
            before = 2 * (number // 2)  # what earlier rounds of two requests gave
            assert len(seeds) == 3
            assert len(shown) - len(seeds) == min(2, before)
            assert {text for text in shown if text not in SEEDS} <= set(kept)
        assert len({tuple(sorted(request.splitlines())) for request in writer.requests}) > 3

    def test_nothing_alike_is_kept(self, tmp_path: Path) -> None:
        """ROUGE-L 0.7 and above, with a seed and with an earlier one of the same reply."""
        like_a_seed = "Name a river and say what people do with them."
        bees = "Explain to a child why bees dance in the dark hive."
        wasps = "Explain to a child why wasps dance in the dark hive."
        other = "List four uses of salt that nobody thinks of."
        assert rouge_l(words(like_a_seed), words(SEEDS[0])) >= 0.7
        assert rouge_l(words(bees), words(wasps)) >= 0.7
        assert max(rouge_l(words(other), words(one)) for one in (*SEEDS, bees)) < 0.7

        def say(prompt: str, index: int) -> str:
            if "numbered from" not in prompt:
                return "x"
            return f"1. {like_a_seed}\n2. {bees}\n3. {wasps}\n4. {other}"

        made, _ = run(tmp_path, say, similarity=0.7, patience=1, at_once=1)
        assert [row["prompt"] for row in written(tmp_path)] == [bees, other]
        assert made.dropped == {"similar": 2 + 4}  # all of the next round are known by then
        assert made.figures["rounds"] == 2
        nearest = written(tmp_path)[1]["meta"]["instruction"]["nearest"]
        pool = (*SEEDS, bees)
        assert nearest == pytest.approx(
            max(rouge_l(words(other), words(one)) for one in pool), abs=1e-4
        )

    def test_a_cut_reply_gives_all_but_its_last(self, tmp_path: Path) -> None:
        def say(prompt: str, index: int) -> Any:
            if "numbered from" not in prompt:
                return "x"
            return Answer(f"1. {fresh(0)}\n2. Write a poem about", "length")

        made, _ = run(tmp_path, say, count=1, at_once=1)
        assert [row["prompt"] for row in written(tmp_path)] == [fresh(0)]
        assert made.figures["proposed"] == 1

    def test_failed_and_useless_replies_are_counted(self, tmp_path: Path) -> None:
        replies = iter([Answer("", "error"), "No.", f"1. {fresh(0)}"])

        def say(prompt: str, index: int) -> Any:
            return next(replies) if "numbered from" in prompt else Answer("", "aborted")

        made, _ = run(tmp_path, say, count=1, at_once=3)
        assert Counter(kind for kind, _ in left_out(tmp_path)) == {"failed": 2, "no_list": 1}
        assert written(tmp_path) == []  # its only instruction was not answered
        assert made.figures["instructions"] == 1

    def test_chat_seeds_and_chat_requests(self, tmp_path: Path) -> None:
        seeds = [
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": SEEDS[0]}]
        ]
        writer = Writer()
        run(tmp_path, writer, seeds, chat=True)
        assert f"1. {SEEDS[0]}\n" in writer.requests[0]
        assert "Be brief" not in writer.requests[0]
        assert written(tmp_path)[0]["prompt"][0]["role"] == "user"

    def test_no_seeds(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="holds no records"):
            run(tmp_path, Writer(), [])
