"""The decoding study on planted answers, and the command as a user meets it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from strop.demo.world import user
from strop.errors import UnscoredError
from strop.evals.decode.frontier import FrontierRow
from strop.evals.decode.grading import votes_of
from strop.evals.decode.study import check_study, run_study
from strop.recipe.study import Study
from strop.rewards.exact import exact_answer
from tests.support.runs import EQUATIONS, WriteRows
from tests.support.studies import STUDY, Planted


def test_votes_are_equal_where_the_grader_says_equal() -> None:
    texts = ["<answer>1,000.0</answer>", "so 1e3", "x is big", "\\boxed{Paris}", "#### paris.",
             "<think>7</think>", "</answer>", "<answer></answer>", "$1,000"]  # fmt: skip
    said = ["1,000.0", "1,000.0", None, "Paris", "Paris", "7", None, None, "1,000.0"]
    assert votes_of(texts, "answer", "answer") == said
    for gold in ("1000", "Paris"):
        scores = exact_answer([""] * 9, texts, answer=[gold] * 9)
        voted = {vote for vote, score in zip(said, scores, strict=True) if score}
        assert len(voted) == 1
    assert votes_of(["Yes.", " yes ", "no", ""], "text", "answer") == ["Yes.", "Yes.", "no", None]


class TestPlanted:
    """Two right answers that agree, two wrong ones that do not, for every item."""

    def run(self, study: Study, model: Path, base: Path, output: Path) -> dict[Any, FrontierRow]:
        checked = check_study(study, model=str(model), base=str(base))
        self.result = run_study(checked, output)
        return {(r.model, r.temperature, r.method, r.k): r for r in self.result.rows}

    def test_table(
        self, study: Callable[..., Study], planted: type[Planted], model_folder: Path,
        base_folder: Path, tmp_path: Path,
    ) -> None:  # fmt: skip
        opens = {"function": "opens", "file": str(tmp_path / "rewards.py")}
        recipe = study(
            best_of={"reward": [opens]}, refine={"instruction": "Check it.", "answers": 2}
        )
        rows = self.run(recipe, model_folder, base_folder, tmp_path / "out")
        accuracy = {key[1:]: row.accuracy for key, row in rows.items() if key[0] == "base"}
        assert accuracy == pytest.approx({
            (0.0, "greedy", 1): 0.0, (0.0, "refine", 1): 1.0, (0.7, "sample", 1): 0.5,
            (0.7, "pass", 2): 5 / 6, (0.7, "pass", 4): 1.0,
            (0.7, "maj", 2): (1 + 4 / 2) / 6, (0.7, "maj", 4): 1.0,
            (0.7, "best", 2): 4 / 6, (0.7, "best", 4): 2 / 3,
            (0.7, "refine", 1): 1.0,
        })  # fmt: skip
        tokens = {key[1:]: row.tokens for key, row in rows.items() if key[0] == "base"}
        assert tokens[0.7, "maj", 4] == tokens[0.7, "pass", 4] == 8
        assert tokens[0.0, "refine", 1] == tokens[0.7, "refine", 1] == 2 + 3
        assert rows["model", 0.0, "greedy", 1].tokens == 4

    def test_the_base_catches_up_by_sampling(
        self, study: Callable[..., Study], planted: type[Planted], model_folder: Path,
        base_folder: Path, tmp_path: Path,
    ) -> None:  # fmt: skip
        rows = self.run(study(), model_folder, base_folder, tmp_path / "out")
        said = self.result.sentences
        assert said[1].startswith(
            "To match the trained model's greedy accuracy the base needs maj@4 at temperature 0.7, "
            "i.e. k = 4 and 8.0 tokens a question, 2 times as many (its accuracy is 1.000, +0.000"
        )
        assert said[2] == (
            "A picker that knows the right answer would do it with pass@4 at temperature 0.7, "
            "i.e. k = 4 and 8.0 tokens a question."
        )
        # 4 tokens are two samples of the base: maj@2
        assert said[3].endswith("greedy answer the base reaches 0.500: training more wins there.")
        assert rows["model", 0.0, "greedy", 1].base_at_tokens == pytest.approx(0.5)
        assert rows["model", 0.7, "maj", 4].base_at_tokens == pytest.approx(1.0)
        assert rows["model", 0.7, "pass", 2].base_at_tokens == pytest.approx(5 / 6)
        assert rows["base", 0.7, "maj", 4].base_at_tokens is None

    def test_no_k_is_enough(
        self, study: Callable[..., Study], planted: type[Planted], model_folder: Path,
        base_folder: Path, tmp_path: Path,
    ) -> None:  # fmt: skip
        planted.says["base"] = (["no 0"], ["so X", "so 99", "so 99", "so 99"], [])
        self.run(study(), model_folder, base_folder, tmp_path / "out")
        assert self.result.sentences[1] == (
            "No k <= 4 of the base reaches the trained model's greedy accuracy; its best is 0.250, "
            "by one sample at temperature 0.7 for 2.0 tokens a question: here training more beats "
            "sampling more."
        )
        planted.says["base"] = (["no 0 but very very long"] * 2, ["so long and 99"] * 4, [])
        self.run(study(), model_folder, base_folder, tmp_path / "other")
        assert "gets it there" in self.result.sentences[2]

    def test_one_sample_an_item_is_a_sweep_of_temperatures(
        self, study: Callable[..., Study], planted: type[Planted], model_folder: Path,
        base_folder: Path, tmp_path: Path,
    ) -> None:  # fmt: skip
        recipe = study(samples=1, temperatures=[0.7, 1.0])
        rows = self.run(recipe, model_folder, base_folder, tmp_path / "out")
        swept = [(0.0, "greedy", 1), (0.7, "sample", 1), (1.0, "sample", 1)]
        assert list(rows) == [(side, *way) for way in swept for side in ("base", "model")]
        assert "needs one sample at temperature 0.7, i.e. k = 1" in self.result.sentences[1]
        assert not any("picker" in sentence for sentence in self.result.sentences)

    def test_dear_answers_are_not_affordable(
        self, study: Callable[..., Study], planted: type[Planted], model_folder: Path,
        base_folder: Path, tmp_path: Path,
    ) -> None:  # fmt: skip
        planted.says["model"] = (["it is surely X"], ["so X", "X"] * 2, [])
        rows = self.run(study(), model_folder, base_folder, tmp_path / "between")
        # two answers of 1.5 tokens: between one sample of the base (2 tokens) and pass@2 (4)
        between = 0.5 + (5 / 6 - 0.5) * math.log2(3 / 2)
        assert rows["model", 0.7, "pass", 2].base_at_tokens == pytest.approx(between)
        planted.says["base"] = (["a b c d e f X"], ["a b c d e X"] * 4, [])
        rows = self.run(study(), model_folder, base_folder, tmp_path / "out")
        assert rows["model", 0.0, "greedy", 1].base_at_tokens is None
        assert "cannot answer at all" in self.result.sentences[3]

    def test_a_picker_that_knows_counts_as_pass_at_k(
        self, study: Callable[..., Study], planted: type[Planted], model_folder: Path,
        base_folder: Path, tmp_path: Path,
    ) -> None:  # fmt: skip
        planted.says["base"] = (["no 0"], ["so X", "so 99", "so 99", "so 99"], [])
        best_of = {"reward": STUDY["scores"], "oracle": True}
        rows = self.run(study(best_of=best_of), model_folder, base_folder, tmp_path / "out")
        for k in (2, 4):
            best, passed = rows["base", 0.7, "best", k], rows["base", 0.7, "pass", k]
            assert best.accuracy == pytest.approx(passed.accuracy)
        assert self.result.sentences[1].startswith("No k <= 4 of the base reaches")
        assert rows["model", 0.7, "maj", 4].base_at_tokens == pytest.approx(0.25)
        assert rows["model", 0.7, "best", 4].base_at_tokens == pytest.approx(1.0)

    def test_items_of_one_cluster_widen_the_interval(
        self, study: Callable[..., Study], planted: type[Planted], model_folder: Path,
        base_folder: Path, tmp_path: Path, write_rows: WriteRows,
    ) -> None:  # fmt: skip
        recipe = study()
        tasks = [{"prompt": user(e), "answer": str(e.x), "cluster": str(i % 5)}
                 for i, e in enumerate(EQUATIONS[:6])]  # fmt: skip
        write_rows("tasks.jsonl", tasks)
        rows = self.run(recipe, model_folder, base_folder, tmp_path / "out")
        wilson = stats.binomtest(0, 5).proportion_ci(method="wilson")
        assert rows["base", 0.0, "greedy", 1].high == pytest.approx(wilson.high)

    def test_refinement_is_graded_by_its_last_answer(
        self, study: Callable[..., Study], planted: type[Planted], model_folder: Path,
        base_folder: Path, tmp_path: Path,
    ) -> None:  # fmt: skip
        rows = self.run(
            study(refine={"instruction": "Check it.", "rounds": 2}),
            model_folder,
            base_folder,
            tmp_path / "out",
        )
        assert rows["model", 0.0, "greedy", 1].accuracy == 1.0
        assert rows["model", 0.0, "refine", 1].accuracy == 0.0
        assert [rows["model", 0.0, "refine", r].tokens for r in (1, 2)] == [4 + 2, 4 + 2 + 2]
        lines = (tmp_path / "out/samples.jsonl").read_text().splitlines()
        kept = [json.loads(line) for line in lines]
        assert len(kept) == 2 * 6 * (1 + 4 + 2 * 2)
        revised = [r for r in kept if r["model"] == "base" and r["round"] == 1]
        assert {r["right"] for r in revised} == {True}
        assert {r["tokens"] for r in revised} == {3}

    def test_items_that_cannot_be_judged_are_left_out_on_both_sides(
        self, study: Callable[..., Study], planted: type[Planted], model_folder: Path,
        base_folder: Path, tmp_path: Path,
    ) -> None:  # fmt: skip
        scores = [{"function": "no_sevens", "file": str(tmp_path / "rewards.py")}]
        sevens = sum("7" in str(e.x) for e in EQUATIONS[:6])
        planted.says = {"base": (["a 0"], ["a X"] * 4, []), "model": (["a 1"], ["a 1"] * 4, [])}
        self.run(study(scores=scores), model_folder, base_folder, tmp_path / "out")
        assert 0 < sevens < 5
        assert self.result.items == 6 - sevens
        assert self.result.notes[0].startswith(f"{sevens} of 6 items are left out")
        assert "No maj@k" in self.result.notes[1]
        planted.says["model"] = (["a 7"], ["a 7"] * 4, [])
        with pytest.raises(UnscoredError, match="no_sevens: no answer could be scored"):
            self.run(study(scores=scores), model_folder, base_folder, tmp_path / "out")
