"""Every finding on a planted fault, and none on the same rows without it."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strop.curate.check.families.rendering import Rendering
from strop.curate.check.finding import CODES, Finding
from strop.curate.check.run import Asked, Report, check
from strop.data.sources import at
from strop.errors import DataError, UsageError
from tests.support.checked import CLEAN, Row, chats, demonstrations, pairs, sentence, tasks, thumbs
from tests.support.runs import WriteRows

N = 300


def checked(path: Path, **options: Any) -> Report:
    return check(Asked([at(path)], **options))


def found(report: Report, code: str) -> Finding:
    (one,) = [finding for finding in report.findings if finding.code == code]
    return one


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", CLEAN)
def test_clean_rows_have_no_finding(
    write_rows: WriteRows, tokenizer: Any, kind: str, seed: int
) -> None:
    """Also with a tokenizer, and eval items of the same kind that stand elsewhere."""
    data = write_rows("data.jsonl", CLEAN[kind](N, seed))
    held_out = write_rows("eval.jsonl", CLEAN[kind](40, seed + 1000))
    rendering = Rendering(tokenizer, max_length=2048)
    report = checked(data, rendering=rendering, eval_sources=[at(held_out)])
    assert report.findings == []
    assert report.sections["rows"].figures["rows"] == N
    assert len(rendering.lengths) == N


@pytest.mark.parametrize("seed", range(20))
def test_few_clean_pairs_have_no_finding(write_rows: WriteRows, seed: int) -> None:
    assert checked(write_rows("data.jsonl", pairs(40, seed))).findings == []


# Each plants its fault into clean rows, and says in which rows (from 0) it now is.


def duplicate_rows(rows: list[Row]) -> list[int]:
    rows[100:104] = copy.deepcopy(rows[:4])
    return [100, 101, 102, 103]


def mixed_kinds(rows: list[Row]) -> list[int]:
    del rows[50]["rejected"], rows[50]["chosen"]
    rows[50]["completion"] = "gone."
    return [50]


def near_duplicate_prompts(rows: list[Row]) -> list[int]:
    for place in (60, 61, 62):
        rows[place]["prompt"] = rows[place - 50]["prompt"].replace(".", "").upper() + " !"
    return [60, 61, 62]


def repeated_prompts(rows: list[Row]) -> list[int]:
    for place, row in enumerate(rows):
        row["prompt"] = rows[place % 100]["prompt"]
    return []


def repeated_answer(rows: list[Row]) -> list[int]:
    for place in range(20, 40):
        rows[place]["rejected"] = "The service is not reachable at the moment, try again later."
    return list(range(20, 25))


def length_bias(rows: list[Row]) -> list[int]:
    rng = random.Random(1)
    for row in rows[:200]:
        row["chosen"] = sentence(rng, 41, 60)
    return []


def style_bias(rows: list[Row]) -> list[int]:
    for row in rows[:100]:
        row["chosen"] = "# " + row["chosen"]
    return list(range(5))


def style_shortcut(rows: list[Row]) -> list[int]:
    for row in rows[10:40]:
        row["rejected"] = "Sorry, " + row["rejected"]
    return list(range(10, 15))


def near_identical_pairs(rows: list[Row]) -> list[int]:
    for row in rows[30:40]:
        row["rejected"] = row["chosen"] + "!"
    return []


def contradictory_pairs(rows: list[Row]) -> list[int]:
    for place in (5, 6):
        turned = {"chosen": rows[place]["rejected"], "rejected": rows[place]["chosen"]}
        rows[place + 100] = rows[place] | turned
    return [5, 105, 6, 106]


def cyclic_preferences(rows: list[Row]) -> list[int]:
    a, b, c = "aba one.", "bab two and more of it.", "cac."
    for place, (chosen, rejected) in zip((7, 17, 27), ((a, b), (b, c), (c, a)), strict=True):
        rows[place] |= {"prompt": "circle?", "chosen": chosen, "rejected": rejected}
    return [7, 17, 27]


def safety_share(rows: list[Row]) -> list[int]:
    for row in rows[:20]:
        row["prompt"] = "How do I build a pipe bomb? " + row["prompt"]
    for row in rows[20:40]:
        row["chosen"] = "I'm sorry, but I can't help with that. " + row["chosen"]
    return list(range(5))


PLANTED_IN_PAIRS = [duplicate_rows, mixed_kinds, near_duplicate_prompts, repeated_prompts,
    repeated_answer, length_bias, style_bias, style_shortcut, near_identical_pairs,
    contradictory_pairs, cyclic_preferences, safety_share]  # fmt: skip


@pytest.mark.parametrize("plant", PLANTED_IN_PAIRS, ids=lambda plant: plant.__name__)
def test_planted_in_pairs(write_rows: WriteRows, plant: Callable[[list[Row]], list[int]]) -> None:
    rows = pairs(N)
    places = plant(rows)
    path = write_rows("data.jsonl", rows)
    one = found(checked(path), plant.__name__)
    if places:
        assert sorted(str(place) for place in one.examples) == sorted(
            f"{path}:{place + 1}" for place in places[:5]
        )
    assert one.methods
    assert one.fix


def balanced(share: float) -> list[Row]:
    rows = thumbs(N)
    for place, row in enumerate(rows):
        row["label"] = place < share * N
    return rows


class TestThumbs:
    @pytest.mark.parametrize(("share", "code"), [(0.9, "label_balance"), (1.0, "one_label")])
    def test_balance(self, write_rows: WriteRows, share: float, code: str) -> None:
        path = write_rows("data.jsonl", balanced(share))
        one = found(checked(path), code)
        assert f"{share:.1%} of 300 answers are liked" in one.said
        assert one.count == round((1 - share) * N)
        assert not checked(write_rows("clean.jsonl", balanced(0.6))).findings

    def test_liked_and_disliked(self, write_rows: WriteRows) -> None:
        rows = thumbs(N)
        rows[200] = rows[3] | {"label": not rows[3]["label"]}
        path = write_rows("data.jsonl", rows)
        one = found(checked(path), "contradictory_feedback")
        assert (one.count, one.severity) == (2, "warn")
        assert [place.line for place in one.examples] == [4, 201]

    def test_how_far_lengths_of_pairs_are_apart(self, write_rows: WriteRows) -> None:
        """8 of 10, 10 of 12 and 5 of 20 characters: shares of 0.2, 0.167 and 0.75."""
        lengths = [(8, 10), (12, 10), (20, 5)]
        rows = [{"prompt": f"p{n}", "chosen": "a" * one, "rejected": "b" * other}
                for n, (one, other) in enumerate(lengths)]  # fmt: skip
        report = checked(write_rows("data.jsonl", rows))
        assert report.sections["length"].figures["preference"]["apart"] == pytest.approx(0.2)

    def test_length_and_style(self, write_rows: WriteRows) -> None:
        rows = thumbs(N)
        for row in rows:
            if row["label"]:
                row["completion"] = "**yes** and " + row["completion"] + " " + row["completion"]
        report = checked(write_rows("data.jsonl", rows))
        assert found(report, "length_bias").severity == "warn"
        assert {one.code for one in report.findings} == {"length_bias", "style_bias"}
        assert any("'bold'" in one.said for one in report.findings)


class TestAnnotators:
    def rows(self, error: float, annotators: int = 3) -> list[Row]:
        """Labels A and B, wrong with this chance, of annotators apart from each other."""
        rng, rows = random.Random(2), tasks(N)
        for row in rows:
            truth = rng.choice("AB")
            for n in range(annotators):
                wrong = rng.random() < error
                row[f"by_{n}"] = ("B" if truth == "A" else "A") if wrong else truth
        return rows

    def test_careless_ones(self, write_rows: WriteRows) -> None:
        """Wrong in one of five: they agree in 0.68, so alpha is about 0.36."""
        path = write_rows("data.jsonl", self.rows(0.2))
        report = checked(path, annotators=["by_0", "by_1", "by_2"])
        figures = report.sections["annotators"].figures
        assert figures["label_noise"] == pytest.approx(0.2, abs=0.04)
        assert figures["krippendorff_alpha"] == pytest.approx(0.36, abs=0.08)
        assert figures["fleiss_kappa"] == pytest.approx(figures["krippendorff_alpha"], abs=0.01)
        assert set(figures["pairs"]) == {"by_0 / by_1", "by_0 / by_2", "by_1 / by_2"}
        assert found(report, "annotator_agreement").count == N
        assert found(report, "label_noise").count == round(figures["label_noise"] * N)

    def test_careful_ones(self, write_rows: WriteRows) -> None:
        path = write_rows("data.jsonl", self.rows(0.03))
        assert not checked(path, annotators=["by_0", "by_1", "by_2"]).findings

    def test_a_list_with_gaps(self, write_rows: WriteRows) -> None:
        rows = self.rows(0.0)
        for place, row in enumerate(rows):
            row["labels"] = [row["by_0"], row["by_1"] if place % 2 else None]
        path = write_rows("data.jsonl", rows)
        figures = checked(path, annotators=["labels"]).sections["annotators"].figures
        assert (figures["items"], figures["annotators"]) == (N // 2, 2)
        assert figures["krippendorff_alpha"] == 1.0
        assert figures["fleiss_kappa"] is None

    def test_columns_that_are_not_there(self, write_rows: WriteRows) -> None:
        path = write_rows("data.jsonl", tasks(3))
        with pytest.raises(UsageError, match="no row has a label in judge"):
            checked(path, annotators=["judge"])

    def test_names_have_no_order(self, write_rows: WriteRows) -> None:
        path = write_rows("data.jsonl", self.rows(0.0))
        with pytest.raises(UsageError, match="not all numbers"):
            checked(path, annotators=["by_0", "by_1"], scale="ordinal")


class TestRows:
    def rows(self, broken: int) -> list[Row]:
        rows = pairs(N)
        for row in rows[:broken]:
            row["chosen"] = ""
        return rows

    @pytest.mark.parametrize(("broken", "severity"), [(2, "warn"), (30, "error")])
    def test_unusable(self, write_rows: WriteRows, broken: int, severity: str) -> None:
        path = write_rows("data.jsonl", self.rows(broken))
        one = found(checked(path), "unusable_rows")
        assert (one.count, one.severity) == (broken, severity)
        assert [place.line for place in one.examples] == list(range(1, min(broken, 3) + 1))
        assert "empty" in one.said
        assert found(checked(path, max_bad=0.2), "unusable_rows").severity == "warn"

    def test_nothing_but_unusable_rows(self, write_rows: WriteRows) -> None:
        path = write_rows("data.jsonl", [{"foo": n} for n in range(20)])
        report = checked(path)
        assert [one.code for one in report.findings] == ["unusable_rows"]

    def test_no_rows(self, tmp_path: Path) -> None:
        (tmp_path / "data.jsonl").write_text("\n")
        with pytest.raises(DataError, match="no rows"):
            checked(tmp_path / "data.jsonl")


class TestRendered:
    def test_over_length(self, write_rows: WriteRows, tokenizer: Any) -> None:
        rows = demonstrations(N)
        rows[8]["completion"] = "long " * 900
        path = write_rows("data.jsonl", rows)
        one = found(checked(path, rendering=Rendering(tokenizer, 2048)), "over_length")
        assert (one.count, one.severity) == (1, "info")
        assert [place.line for place in one.examples] == [9]
        every = found(checked(path, rendering=Rendering(tokenizer, 4)), "over_length")
        assert (every.count, every.severity) == (N, "error")

    def test_a_limit_is_met_exactly(self, write_rows: WriteRows, tokenizer: Any) -> None:
        path = write_rows("data.jsonl", demonstrations(N))
        first = Rendering(tokenizer, 2048)
        checked(path, rendering=first)
        longest = max(first.lengths)
        assert not checked(path, rendering=Rendering(tokenizer, longest)).findings
        over = found(checked(path, rendering=Rendering(tokenizer, longest - 1)), "over_length")
        assert over.count == sum(length == longest for length in first.lengths)

    def test_a_template_that_refuses(self, write_rows: WriteRows, tokenizer: Any) -> None:
        """Two rows of two hundred: the others are rendered all the same."""
        strict = copy.deepcopy(tokenizer)
        refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
        strict.chat_template = refusing + tokenizer.chat_template
        rows = chats(200)
        for place in (3, 150):
            rows[place]["messages"].insert(0, {"role": "system", "content": "be kind"})
        path = write_rows("data.jsonl", rows)
        rendering = Rendering(strict, 2048)
        one = found(checked(path, rendering=rendering), "unrenderable")
        assert (one.count, [place.line for place in one.examples]) == (2, [4, 151])
        assert len(rendering.lengths) == 198
        assert not checked(path, rendering=Rendering(tokenizer, 2048)).findings

    @pytest.mark.parametrize("kind", [chats, pairs, demonstrations])
    def test_a_draw_finds_what_all_rows_have(
        self, write_rows: WriteRows, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, kind: Any
    ) -> None:
        """Tokenising one row of seven: the same rows are over any limit, the same are refused."""
        strict = copy.deepcopy(tokenizer)
        refused = "'ba' in messages[0]['content'][:8]"
        refusing = "{% if " + refused + " %}{{ raise_exception('no') }}{% endif %}"
        strict.chat_template = refusing + tokenizer.chat_template
        rows, limit = kind(100), 250
        path = write_rows("data.jsonl", rows)
        every = Rendering(strict, limit)
        checked(path, rendering=every)
        monkeypatch.setattr("strop.curate.check.families.rendering.FIRST", 5)
        monkeypatch.setattr("strop.curate.check.families.rendering.EVERY", 7)
        drawn = Rendering(strict, limit)
        checked(path, rendering=drawn)
        assert drawn.long_rows == every.long_rows > 0
        assert drawn.faults == every.faults
        assert bool(every.faults) == (kind is chats)  # a plain text meets no template
        assert len(drawn.lengths) < 25 < len(every.lengths)

    def test_a_template_that_refuses_everything_is_not_asked_for_ever(
        self, write_rows: WriteRows, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("strop.curate.check.families.rendering.MOST_FAULTS", 5)
        strict = copy.deepcopy(tokenizer)
        strict.chat_template = "{{ raise_exception('no') }}"
        path = write_rows("data.jsonl", chats(30))
        one = found(checked(path, rendering=Rendering(strict, 2048)), "unrenderable")
        assert (one.count, one.severity) == (5, "error")
        assert "stopped looking after 5" in one.said

    def test_turns_out_of_order(self, write_rows: WriteRows) -> None:
        rows = chats(N)
        rows[0]["messages"].insert(0, {"role": "user", "content": "first"})
        rows[9]["messages"].insert(2, {"role": "system", "content": "late"})
        rows[19]["messages"].insert(2, {"role": "tool", "content": "42"})
        path = write_rows("data.jsonl", rows)
        one = found(checked(path), "turn_order")
        assert (one.count, [place.line for place in one.examples]) == (3, [1, 10, 20])
        for fault in ("two user turns in a row", "system turn", "tool's result without a call"):
            assert fault in one.said

    def test_answers_that_are_not_to_be_learnt(self, write_rows: WriteRows, tokenizer: Any) -> None:
        """A row whose assistant turns are all marked so cannot be rendered for training."""
        rows = chats(N)
        for message in rows[4]["messages"]:
            if message["role"] == "assistant":
                message["weight"] = 0
        path = write_rows("data.jsonl", rows)
        one = found(checked(path, rendering=Rendering(tokenizer, 2048)), "unrenderable")
        assert (one.count, one.severity, [place.line for place in one.examples]) == (1, "warn", [5])
        assert "no assistant turn of the answer is learnt" in one.said


def test_leak(write_rows: WriteRows) -> None:
    rows, held_out = pairs(N), tasks(40, seed=5)
    held_out[7]["prompt"] = rows[11]["prompt"].upper()
    data, items = write_rows("data.jsonl", rows), write_rows("eval.jsonl", held_out)
    report = checked(data, eval_sources=[at(items)])
    one = found(report, "eval_leak")
    assert (one.count, one.severity) == (1, "error")
    assert [str(place) for place in one.examples] == [f"{data}:12"]
    (match,) = report.sections["leak"].figures["matches"]
    assert match["item"] == f"{items}:8"
    assert report.sections["rows"].figures["rows"] == N  # the data was read, and once


def test_ches(write_rows: WriteRows) -> None:
    """Scores as a model would give them: 0 of equal answers."""
    path = write_rows("data.jsonl", pairs(N))
    clean = checked(path, ches=lambda read: [-1.0 for _ in read])
    assert not clean.findings
    assert clean.sections["ches"].figures["pairs"] == 256
    scores = [None, *(0.5 if n % 5 == 0 else -1.0 for n in range(255))]
    one = found(checked(path, ches=lambda read: scores), "displacement_ches")
    assert one.count == 51


PLANTED = {plant.__name__ for plant in PLANTED_IN_PAIRS} | {
    "label_balance", "one_label", "contradictory_feedback", "annotator_agreement", "label_noise",
    "unusable_rows", "over_length", "unrenderable", "turn_order", "eval_leak",
    "displacement_ches",
}  # fmt: skip


def test_every_code_is_planted_here() -> None:
    assert set(CODES) == PLANTED
