"""Answers of an engine: asked once, kept, counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from strop.curate.synthetic.answers import Answers, Cost
from strop.curate.synthetic.journal import ANSWERS, AnswerJournal
from strop.engines.engine import Sampling
from strop.engines.local.engine import LocalEngine
from strop.errors import ModelError, UnscoredError, UsageError
from strop.recipe.requests import PricesRecipe
from strop.types import Answer, Completion, Origin, Task, Usage
from tests.support.scripted import Say, Scripted

HOW = Sampling(max_tokens=8)


def tasks(*prompts: str) -> list[Task]:
    return [Task(prompt, {}, Origin("t.jsonl", n)) for n, prompt in enumerate(prompts, 1)]


def answers(folder: Path, engine: Scripted, *, seed: int = 0, how: Sampling = HOW) -> Answers:
    return Answers(engine, how, seed, AnswerJournal(folder, engine.identity()))


def echo(prompt: str, index: int) -> str:
    return f"{prompt}{index}"


def said(found: Answers, *prompts: str, count: int = 1, round: int = 0) -> list[list[str]]:
    asked = found.ask(tasks(*prompts), count, round=round)
    return [[drawn.answer.text for drawn in one.drawn] for one in asked]


class TestAskedOnce:
    def test_answers_come_in_the_order_of_the_prompts(self, tmp_path: Path) -> None:
        found = said(answers(tmp_path, Scripted(echo)), "a", "b", count=2)
        assert found == [["a0", "a1"], ["b0", "b1"]]

    def test_what_was_answered_is_not_asked_again(self, tmp_path: Path) -> None:
        said(answers(tmp_path, Scripted(echo)), "a", "b", count=2)
        again = Scripted(lambda prompt, index: "other")
        asker = answers(tmp_path, again)
        assert said(asker, "b", "c", count=3) == [["b0", "b1", "other"], ["other"] * 3]
        assert sorted(again.asked) == [("b", 2), ("c", 0), ("c", 1), ("c", 2)]
        assert (asker.cost.answers, asker.cost.asked) == (6, 4)

    def test_whatever_else_an_answer_depends_on_makes_another(self, tmp_path: Path) -> None:
        said(answers(tmp_path, Scripted(echo)), "a")
        for options in ({"seed": 1}, {"how": Sampling(max_tokens=9)}):
            other = Scripted(echo)
            said(answers(tmp_path, other, **options), "a")  # type: ignore[arg-type]
            assert len(other.asked) == 1
        other = Scripted(echo)
        said(answers(tmp_path, other), "a", round=1)
        assert len(other.asked) == 1
        named = Scripted(echo)
        asker = Answers(named, HOW, 0, AnswerJournal(tmp_path, {"scripted": "another"}))
        said(asker, "a")
        assert len(named.asked) == 1

    def test_a_prompt_that_comes_again_counts_on(self, tmp_path: Path) -> None:
        found = said(answers(tmp_path, Scripted(echo)), "a", "b", "a", count=2)
        assert found == [["a0", "a1"], ["b0", "b1"], ["a2", "a3"]]

    def test_a_line_that_was_cut_by_a_kill_is_asked_again(self, tmp_path: Path) -> None:
        said(answers(tmp_path, Scripted(echo)), "a", "b")
        path = tmp_path / ANSWERS
        whole = path.read_bytes()
        path.write_bytes(whole[:-7])
        engine = Scripted(echo)
        assert said(answers(tmp_path, engine), "a", "b") == [["a0"], ["b0"]]
        assert engine.asked == [("a", 0)]  # the last request is answered first
        assert path.read_bytes() == whole

    def test_the_tokens_of_a_model_are_kept(self, tmp_path: Path, model_folder: Path) -> None:
        """A reward may read them: a run that goes on has to find what an unbroken one finds."""
        engine = LocalEngine(str(model_folder))
        asked = [Task([{"role": "user", "content": "Solve x + 1 = 2"}], {}, Origin("t.jsonl", 1))]
        found = []
        for _ in range(2):
            journal = AnswerJournal(tmp_path, engine.identity())
            asker = Answers(engine, HOW, 0, journal)
            found.append(asker.ask(asked, 2)[0].drawn)
        assert found[0] == found[1]
        assert asker.cost.asked == 0
        answer = found[0][0].answer
        assert isinstance(answer, Completion)
        (prompt,) = engine.prompted(asked, HOW)
        assert answer.usage == Usage(len(prompt.prompt_ids), len(answer.ids))


class TestFailures:
    def failing(self, finish: str) -> Say:
        return lambda prompt, index: Answer("", finish) if prompt == "b" else "x"  # type: ignore[arg-type]

    @pytest.mark.parametrize("finish", ["aborted", "error"])
    def test_a_failed_answer_is_no_empty_one_and_is_asked_for_again(
        self, tmp_path: Path, finish: str
    ) -> None:
        found = answers(tmp_path, Scripted(self.failing(finish))).ask(tasks("a", "b"))
        assert found[0].drawn[0].fault(keep_cut=False) is None
        kind, reason = found[1].drawn[0].fault(keep_cut=True) or ("", "")
        assert kind == "failed"
        assert finish in reason
        better = Scripted(echo)
        assert said(answers(tmp_path, better), "a", "b") == [["x"], ["b0"]]
        assert better.asked == [("b", 0)]

    def test_cut_and_empty_answers(self, tmp_path: Path) -> None:
        says = {"a": Answer("half", "length"), "b": Answer(" \n", "stop"), "c": Answer("x", "stop")}
        found = answers(tmp_path, Scripted(lambda prompt, _: says[prompt])).ask(
            tasks("a", "b", "c")
        )
        faults = [one.drawn[0].fault(keep_cut=False) for one in found]
        assert [fault and fault[0] for fault in faults] == ["cut", "empty", None]
        assert found[0].drawn[0].fault(keep_cut=True) is None

    def test_a_prompt_that_cannot_be_asked_is_refused_by_itself(self, tmp_path: Path) -> None:
        asker = answers(tmp_path, Scripted(echo))
        found = asker.ask(tasks("a", "unaskable", "c"), 2)
        assert [one.refused for one in found] == ["", "the longest prompt is too long", ""]
        assert [len(one.drawn) for one in found] == [2, 0, 2]
        assert asker.cost.answers == 4

    def test_an_engine_that_gives_nothing_ends_the_run(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="none of the prompts can be asked: the longest"):
            answers(tmp_path, Scripted(echo)).ask(tasks("unaskable", "unaskable 2"))
        with pytest.raises(UnscoredError, match="no answer to any prompt"):
            answers(tmp_path, Scripted(self.failing("error"))).ask(tasks("b"))
        asker = answers(tmp_path, Scripted(self.failing("error")))
        asker.ask(tasks("a"))
        assert asker.ask(tasks("b"))[0].drawn[0].fault(keep_cut=False) is not None

    def test_a_model_that_cannot_be_loaded_is_no_matter_of_prompts(self, tmp_path: Path) -> None:
        (tmp_path / "model").mkdir()
        engine = LocalEngine(str(tmp_path / "model"))
        asker = Answers(engine, HOW, 0, AnswerJournal(tmp_path / "kept", {}))
        with pytest.raises(ModelError):
            asker.ask(tasks("a", "b"))

    def test_an_engine_that_loses_an_answer_is_seen(self, tmp_path: Path) -> None:
        class Losing(Scripted):
            def generate(self, requests):  # type: ignore[no-untyped-def]
                yield from list(super().generate(requests))[1:]

        with pytest.raises(UsageError, match="left 1 of 2 requests without an answer"):
            answers(tmp_path, Losing(echo)).ask(tasks("a", "b"))


def test_money() -> None:
    """3 million tokens read at 0.5 a million and 2 million written at 1.5."""
    cost = Cost()
    for _ in range(2):
        cost.add(Usage(1_500_000, 1_000_000))
    cost.add(None)
    assert cost.money(PricesRecipe(prompt=0.5, completion=1.5)) == 4.5
    assert cost.money(None) is None
    assert cost.plain(None) == {"answers": 3, "prompt_tokens": 3_000_000,
                                "completion_tokens": 2_000_000, "uncounted": 1,
                                "money": None}  # fmt: skip
