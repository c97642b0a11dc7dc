"""Best-of-n and rejection sampling: planned answers, known rewards, known choices."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from strop.curate.synthetic.best_of import best_of, reject
from strop.data.records import any_record
from strop.errors import DataError, OutputError, RecipeError, UnscoredError
from strop.recipe.loading.load import load
from strop.recipe.synthetic import BestOfRecipe, RejectRecipe
from strop.types import Answer, Demonstration, Feedback, Origin, Preference
from tests.support.generated import (
    known_reward,
    left_out,
    lines,
    prompts_file,
    target,
    written,
)
from tests.support.scripted import Say, Scripted

SCORES = [0.0, 4.0, 5.0, 5.0, 6.0]
"""Of the five answers to every prompt; the pair is (4, 0): tests/curate/test_pairs.py."""


def number_of(text: str) -> float:
    return float(text.rsplit(" ", 1)[1])


def planned(prompt: str, index: int) -> str:
    return f"says {index} {SCORES[index % 5]}"


def run_best(
    folder: Path,
    rows: list[dict[str, Any]],
    say: Say = planned,
    judge: Any = number_of,
    **recipe: Any,
) -> Any:
    given = {"samples": 5, **recipe}
    inputs = prompts_file(folder, rows)
    return best_of(inputs, Scripted(say), known_reward(judge), load(BestOfRecipe, given),
                   target(folder))  # fmt: skip


class TestBestOf:
    def test_the_best_answer_is_shown(self, tmp_path: Path) -> None:
        made = run_best(tmp_path, [{"prompt": "a", "topic": "x"}, {"prompt": "b"}])
        assert [row["completion"] for row in written(tmp_path)] == ["says 4 6.0"] * 2
        assert written(tmp_path)[0]["topic"] == "x"
        assert (made.prompts, made.records, dict(made.dropped)) == (2, 2, {})
        assert made.figures == {"scored": 10, "unscored": 0, "mean_score": 4.0,
                                "score_deviation": pytest.approx(2.097618)}  # fmt: skip

    def test_how_it_was_made(self, tmp_path: Path) -> None:
        was = {"source": "langfuse", "trace_id": "t1"}
        run_best(tmp_path, [{"prompt": "a", "meta": was}], seed=7)
        meta = written(tmp_path)[0]["meta"]
        assert meta["source"] == "synthetic"
        assert meta["kind"] == "best-of"
        assert meta["engine"] == {"scripted": "yes"}
        assert meta["seed"] == 7
        assert meta["reward"]["components"] == ["known"]
        assert (meta["score"], meta["scores"]) == (6.0, {"known": 6.0})
        draw = meta["draw"]
        assert (draw["seed"], draw["stream"], draw["index"]) == (7, "synthetic", 4)
        assert meta["prompt"] == {"file": str(tmp_path / "prompts.jsonl"), "line": 1, "meta": was}

    def test_the_manifest_says_what_was_asked_and_what_it_cost(self, tmp_path: Path) -> None:
        run_best(tmp_path, [{"prompt": "a"}], prices={"prompt": 1, "completion": 2})
        manifest = json.loads((tmp_path / "out.manifest.json").read_text())
        assert manifest["made_by"] == "strop data generate best-of"
        settings = manifest["settings"]
        assert (settings["samples"], settings["seed"], settings["keep"]) == (5, 0, "best")
        assert settings["engine"] == {"scripted": "yes"}
        assert settings["cost"] == {"answers": 5, "prompt_tokens": 0, "completion_tokens": 0,
                                    "uncounted": 5, "money": 0.0}  # fmt: skip

    def test_a_pair_is_the_best_and_the_one_near_mean_minus_two_deviations(
        self, tmp_path: Path
    ) -> None:
        run_best(tmp_path, [{"prompt": "a"}], keep="pair")
        (row,) = written(tmp_path)
        assert (row["chosen"], row["rejected"]) == ("says 4 6.0", "says 0 0.0")
        assert row["margin"] == 6.0
        assert row["meta"]["rejected"] == {"index": 0, "score": 0.0, "scores": {"known": 0.0}}
        assert isinstance(any_record(row, Origin("out.jsonl", 1)), Preference)

    def test_equal_scores_make_no_pair_but_a_best(self, tmp_path: Path) -> None:
        run_best(tmp_path, [{"prompt": "a"}], judge=lambda text: 1.0, keep="pair")
        assert written(tmp_path) == []
        assert left_out(tmp_path) == [("no_contrast", "all scores are 1")]

    def test_unscored_answers_are_in_no_figure_and_never_chosen(self, tmp_path: Path) -> None:
        """Taken for 0, they would pull the mean down and be the rejected ones."""

        def judge(text: str) -> float | None:
            return None if text.startswith("says 0") else number_of(text)

        made = run_best(tmp_path, [{"prompt": "a"}], judge=judge, keep="pair")
        assert written(tmp_path)[0]["rejected"] == "says 1 4.0"
        assert made.figures["unscored"] == 1
        assert made.figures["mean_score"] == 5.0
        assert left_out(tmp_path) == [("unscored", "known gave no score")]

    def test_a_reward_that_scores_nothing_ends_the_run(self, tmp_path: Path) -> None:
        def broken(text: str) -> float:
            raise KeyError("gold")

        with pytest.raises(UnscoredError, match=r"none of 5 answers .*known: KeyError"):
            run_best(tmp_path, [{"prompt": "a"}], judge=broken)
        assert not (tmp_path / "out.jsonl").exists()
        assert (tmp_path / ".out.jsonl.partial" / "answers.jsonl").exists()

    def test_failed_cut_and_empty_answers_are_counted_and_never_judged(
        self, tmp_path: Path
    ) -> None:
        says = [Answer("", "error"), Answer("half 9", "length"), Answer("", "stop"),
                Answer("whole 1", "stop"), Answer("", "aborted")]  # fmt: skip
        seen = []

        def judge(text: str) -> float:
            seen.append(text)
            return number_of(text)

        made = run_best(tmp_path, [{"prompt": "a"}], lambda _, n: says[n], judge)
        assert seen == ["whole 1"]
        assert dict(made.dropped) == {"failed": 2, "cut": 1, "empty": 1}
        assert [row["completion"] for row in written(tmp_path)] == ["whole 1"]

    def test_cut_answers_count_where_they_are_wanted(self, tmp_path: Path) -> None:
        says = [Answer("half 9", "length"), Answer("whole 1", "stop")]
        run_best(tmp_path, [{"prompt": "a"}], lambda _, n: says[n], samples=2, keep_cut=True)
        assert written(tmp_path)[0]["completion"] == "half 9"


class TestPrompts:
    def test_repeated_prompts_documents_and_what_cannot_be_asked(self, tmp_path: Path) -> None:
        rows = [{"prompt": "a"}, {"prompt": "a", "topic": "y"}, {"text": "a document"},
                {"prompt": "unaskable"}, {"prompt": "b"}]  # fmt: skip
        made = run_best(tmp_path, rows)
        assert [row["prompt"] for row in written(tmp_path)] == ["a", "b"]
        assert Counter(kind for kind, _ in left_out(tmp_path)) == {
            "repeated_prompt": 1, "no_prompt": 1, "unaskable": 1,
        }  # fmt: skip
        assert made.prompts == 3
        repeated = lines(tmp_path / "out.dropped.jsonl")[0]
        assert repeated["reason"] == f"the prompt of {tmp_path}/prompts.jsonl:1"

    def test_records_of_any_kind_give_their_prompts(self, tmp_path: Path) -> None:
        rows = [{"prompt": "a", "chosen": "x", "rejected": "y"},
                {"prompt": "b", "completion": "x", "label": True},
                {"messages": [{"role": "user", "content": "c"},
                              {"role": "assistant", "content": "x"}]}]  # fmt: skip
        run_best(tmp_path, rows)
        user = [{"role": "user", "content": "c"}]
        said = [{"role": "assistant", "content": "says 4 6.0"}]
        assert [(r["prompt"], r["completion"]) for r in written(tmp_path)] == [
            ("a", "says 4 6.0"), ("b", "says 4 6.0"), (user, said),
        ]  # fmt: skip

    def test_a_column_called_label_makes_no_thumb_of_a_demonstration(self, tmp_path: Path) -> None:
        run_best(tmp_path, [{"prompt": "good film", "label": "positive"}])
        (row,) = written(tmp_path)
        assert row["meta"]["prompt"]["columns"] == {"label": "positive"}
        record = any_record(row, Origin("out.jsonl", 1))
        assert isinstance(record, Demonstration)
        assert not isinstance(record, Feedback)

    def test_chat_asks_a_plain_prompt_as_a_turn(self, tmp_path: Path) -> None:
        run_best(tmp_path, [{"prompt": "a"}], chat=True)
        (row,) = written(tmp_path)
        assert row["prompt"] == [{"role": "user", "content": "a"}]
        assert row["completion"] == [{"role": "assistant", "content": "says 4 6.0"}]

    def test_what_the_prompt_has_begun_of_the_answer_is_part_of_it(self, tmp_path: Path) -> None:
        begun = {"role": "assistant", "content": "It is"}
        rows = [{"prompt": [{"role": "user", "content": "a"}, begun]}]
        run_best(tmp_path, rows, lambda _, n: Answer(f" {n} {n}.0", "stop", opened="It is"))
        (row,) = written(tmp_path)
        assert row["prompt"] == rows[0]["prompt"][:1]
        assert row["completion"] == [{"role": "assistant", "content": "It is 4 4.0"}]

    def test_a_template_words_the_prompt_and_is_not_in_the_record(self, tmp_path: Path) -> None:
        own = tmp_path / "own.txt"
        own.write_text("Please: {{ prompt }}")
        engine = Scripted(planned)
        recipe = load(BestOfRecipe, {"samples": 2, "template": str(own)})
        inputs = prompts_file(tmp_path, [{"prompt": "a"}])
        best_of(inputs, engine, known_reward(number_of), recipe, target(tmp_path))
        assert {prompt for prompt, _ in engine.asked} == {"Please: a"}
        (row,) = written(tmp_path)
        assert row["prompt"] == "a"
        assert list(row["meta"]["templates"]) == ["think"]

    def test_too_many_bad_rows_write_nothing(self, tmp_path: Path) -> None:
        inputs = prompts_file(tmp_path, [{"prompt": "a"}])
        with Path(inputs[0].path or "").open("a") as file:
            file.write('{"prompt": \n')
        recipe = load(BestOfRecipe, {})
        with pytest.raises(DataError, match=r"prompts\.jsonl:2: broken JSON"):
            best_of(inputs, Scripted(planned), known_reward(number_of), recipe, target(tmp_path))
        assert not (tmp_path / "out.jsonl").exists()
        best_of(inputs, Scripted(planned), known_reward(number_of), recipe,
                target(tmp_path, max_bad=0.5))  # fmt: skip
        assert len(written(tmp_path)) == 1
        assert left_out(tmp_path)[0][0] == "broken_json"

    def test_an_earlier_output_stays(self, tmp_path: Path) -> None:
        run_best(tmp_path, [{"prompt": "a"}])
        before = (tmp_path / "out.jsonl").read_bytes()
        with pytest.raises(OutputError, match="something stands there"):
            run_best(tmp_path, [{"prompt": "b"}])
        assert (tmp_path / "out.jsonl").read_bytes() == before
        assert not list(tmp_path.glob(".*"))

    def test_a_reward_that_misses_its_column_names_the_row(self, tmp_path: Path) -> None:
        from strop.recipe.train.reward import RewardComponent
        from strop.rewards.compose import Reward

        reward = Reward([RewardComponent(function="exact_answer")])
        inputs = prompts_file(tmp_path, [{"prompt": "a"}])
        with pytest.raises(DataError, match=r"prompts\.jsonl:1: reward exact_answer reads"):
            best_of(inputs, Scripted(planned), reward, load(BestOfRecipe, {}), target(tmp_path))


class TestReject:
    SAYS = ("x 1", "x  1", "y 1", "z 0", "w 0.5", "v 1")

    def run(self, folder: Path, **recipe: Any) -> Any:
        inputs = prompts_file(folder, [{"prompt": "a"}])
        return reject(
            inputs, Scripted(lambda _, n: self.SAYS[n]), known_reward(number_of),
            load(RejectRecipe, {"samples": 6, **recipe}), target(folder),
        )  # fmt: skip

    def test_all_different_answers_above_the_threshold(self, tmp_path: Path) -> None:
        made = self.run(tmp_path, threshold=1)
        assert [row["completion"] for row in written(tmp_path)] == ["x 1", "y 1", "v 1"]
        assert dict(made.dropped) == {"below_threshold": 2, "repeated_answer": 1}
        assert made.figures["mean_score"] == 0.75

    def test_the_threshold_itself_is_enough_and_the_best_come_first(self, tmp_path: Path) -> None:
        made = self.run(tmp_path, threshold=0.5, most=3)
        assert [row["completion"] for row in written(tmp_path)] == ["x 1", "y 1", "v 1"]
        assert made.dropped["beyond_most"] == 1

    def test_a_threshold_is_needed(self) -> None:
        with pytest.raises(RecipeError, match="threshold"):
            load(RejectRecipe, {})


def test_settings_that_cannot_work(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="the best of one answer"):
        load(BestOfRecipe, {"samples": 1})
    with pytest.raises(RecipeError, match="all samples are the same answer"):
        run_best(tmp_path, [{"prompt": "a"}], sampling={"temperature": 0})
    with pytest.raises(RecipeError, match="did you mean `samples`"):
        load(BestOfRecipe, {"sample": 4})
