"""Tasks of every kind, one's own, their figures, and what a user may do wrong."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from strop.cli.app import app
from strop.demo.world import solution, user
from strop.errors import MissingEvidenceError, RecipeError, StropError, UsageError
from strop.evals import jobs
from strop.evals.drift import distinct, self_bleu
from strop.evals.gate.verdict import run_gate
from strop.evals.run import run_suite
from strop.recipe.gate import GateRules, Guardrail
from strop.recipe.loading.load import load_recipe
from strop.train.run import train
from strop.types import EvalRecord
from tests.support.runs import EQUATIONS, Finished, WriteRows
from tests.support.suites import GENERATE, PAIRS, SAMPLED, TASKS, MakeSuite

OWN = """
def evaluate(generate, seed):
    said = generate(["Solve x = 3", "Solve x = 4"], max_tokens=4)
    for n, text in enumerate(said):
        yield {"item": n, "score": float(len(text) > 0), "output": text, "cluster": "all"}
        yield {"item": n, "score": seed, "task": "seed"}

def broken(generate, seed):
    raise KeyError("answer")

def leaves(generate, seed):
    raise SystemExit(4)

def empty(generate, seed):
    return []

def odd(generate, seed):
    return [{"item": 1, "score": "high"}]
"""


QUIZ = {"kind": "choice", "name": "quiz", "data": "quiz.jsonl"}


PROSE = {"kind": "perplexity", "name": "prose", "data": "prose.jsonl"}


SAFETY = {"kind": "safety", "name": "safe", "data": "safety.jsonl",
          "sampling": {"temperature": 0.0, "max_tokens": 4}}  # fmt: skip


class TestOtherKinds:
    def test_each_gives_its_scores_and_figures(
        self,
        make_suite: MakeSuite,
        write_rows: WriteRows,
        model_folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """In parts of one item, so that a part never holds harmful and harmless prompts."""
        monkeypatch.setattr(jobs, "ANSWERS", 1)
        monkeypatch.setattr(jobs, "FORWARD", 1)
        write_rows("quiz.jsonl", [
            {"prompt": user(EQUATIONS[0]), "choices": ["3", "4"], "answer": n % 2, "id": n}
            for n in range(4)
        ])  # fmt: skip
        write_rows("prose.jsonl", [{"text": solution(e)} for e in EQUATIONS[:3]])
        write_rows("safety.jsonl", [
            {"prompt": user(e), "harmful": n < 2} for n, e in enumerate(EQUATIONS[:5])
        ])  # fmt: skip
        suite = make_suite(QUIZ, PROSE, SAFETY)
        result = run_suite(suite, str(model_folder), tmp_path / "out")
        assert list(result.scores) == [
            "quiz/acc", "quiz/acc_norm", "quiz/acc_bytes", "prose/logprob",
            "safe/refused_harmful", "safe/answered_harmless",
        ]  # fmt: skip
        assert result.scores["quiz/acc"] == 0.5  # the same answer to each, right in two of four
        assert result.scores["safe/refused_harmful"] == 0.0  # such a model knows no refusal
        nats = -result.scores["prose/logprob"]
        assert result.figures["prose"]["token"] == pytest.approx(math.exp(nats), rel=0.05)
        assert result.figures["safe"]["answered"] == 1.0
        monkeypatch.undo()
        whole = run_suite(suite, str(model_folder), tmp_path / "whole")
        assert whole.scores == pytest.approx(result.scores, rel=1e-5)

    def test_a_golden_set_that_changed_is_no_evidence(
        self, make_suite: MakeSuite, model_folder: Path, tmp_path: Path
    ) -> None:
        suite = make_suite(GENERATE)
        digest = hashlib.sha256((tmp_path / "tasks.jsonl").read_bytes()).hexdigest()
        files = {"tasks.jsonl": {"sha256": digest, "items": 12}}
        (tmp_path / "golden.json").write_text(json.dumps({"version": 1, "files": files}))
        run_suite(suite, str(model_folder), tmp_path / "out")
        with (tmp_path / "tasks.jsonl").open("a") as stream:
            stream.write(json.dumps(TASKS[0]) + "\n")
        with pytest.raises(MissingEvidenceError, match="the golden set changed"):
            run_suite(suite, str(model_folder), tmp_path / "again")


class TestOwnTasks:
    def test_a_users_function(
        self, make_suite: MakeSuite, model_folder: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "own.py").write_text(OWN)
        suite = make_suite({"kind": "python", "name": "own", "file": "own.py"}, seed=5)
        result = run_suite(suite, str(model_folder), tmp_path / "out")
        assert result.scores["own/seed"] == 5.0
        assert [r.cluster for r in result.records if r.task == "own"] == ["all", "all"]

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            ("broken", "broken raised KeyError: 'answer'"),
            ("leaves", "leaves raised SystemExit: 4"),
            ("empty", "empty yielded no items"),
            ("odd", r"item 1 of odd: score 'high' is not a finite number"),
            ("other", "the file has no function 'other'"),
        ],
    )
    def test_mistakes(
        self, make_suite: MakeSuite, model_folder: Path, tmp_path: Path, function: str, message: str
    ) -> None:
        (tmp_path / "own.py").write_text(OWN)
        task = {"kind": "python", "name": "own", "file": "own.py", "function": function}
        with pytest.raises(StropError, match=message):
            run_suite(make_suite(task), str(model_folder), tmp_path / "out")


class TestFigures:
    def test_by_hand(self) -> None:
        assert distinct(["a b a b"], 2) == 2 / 3
        assert distinct(["a b", "a b"], 2) == 1 / 2
        assert distinct(["word"], 2) == 1.0
        assert self_bleu(["a b c d e"] * 3) == pytest.approx(1.0)
        assert self_bleu(["a b c d", "e f g h"]) < 0.2
        assert self_bleu(["alone"]) == 0.0

    def test_displacement_by_hand(self) -> None:
        from strop.evals.drift import corpus_figures

        held = [
            EvalRecord("drift/edits/held", str(i), float(not (g < 0 < m)), str(i),
                       details={"gain": g, "margin": m})
            for i, (g, m) in enumerate([(-0.2, 0.5), (-0.1, -0.3), (0.1, 0.2), (0.3, -0.1)])
        ]  # fmt: skip
        assert corpus_figures(held)["edits"] == {
            "chosen_gain_median": pytest.approx(0.0),
            "chosen_gain_p10": pytest.approx(-0.17),
            "chosen_fell": 0.5,
            "displaced": 0.25,
        }


class TestTrainedOn:
    def test_items_in_the_training_data_are_named_and_close_the_gate(
        self, finished: Finished, make_suite: MakeSuite, tmp_path: Path
    ) -> None:
        """The suite's twelve items are equations of the SFT data; others are not."""
        final = finished("sft") / "final"
        result = run_suite(make_suite(GENERATE), str(final), tmp_path / "out")
        summary = json.loads((tmp_path / "out/summary.json").read_text())
        (seen,) = summary["overlap"]
        assert [one["item"] for one in seen["items"]] == [task["id"] for task in TASKS]
        assert seen["items"][3]["where"].endswith("sft.jsonl:4")
        policy = GateRules(guardrails=[Guardrail(score="greedy/right")])
        with pytest.raises(MissingEvidenceError, match="12 of 12 items are in the training data"):
            run_gate(policy, tmp_path / "out", tmp_path / "out")
        assert result.scores.keys() == {"greedy/right"}

    def test_data_that_is_gone_is_remarked(
        self, recipes: dict[str, Path], make_suite: MakeSuite, tmp_path: Path
    ) -> None:
        final = train(load_recipe(recipes["sft"], ["run={steps: 1, batch_size: 4}"]))
        (tmp_path / "sft.jsonl").unlink()
        run_suite(make_suite(GENERATE), str(final), tmp_path / "out")
        policy = GateRules(guardrails=[Guardrail(score="greedy/right", margin=0.5)])
        remarks = run_gate(policy, tmp_path / "out", tmp_path / "out").remarks
        assert len(remarks) == 1
        assert "sft.jsonl: not compared with the eval's items: it is gone" in remarks[0]


class TestMistakes:
    @pytest.mark.parametrize(
        ("task", "message"),
        [
            ({**SAMPLED, "sampling": {"temperature": 0.0}}, "all 3 samples are one"),
            ({**GENERATE, "scores": [{"function": "exactanswer"}]}, "unknown reward"),
            ({**GENERATE, "slices": ["colour"]}, r"tasks.jsonl:1: the slice 'colour' is no column"),
            ({**GENERATE, "data": "gone.jsonl"}, "no such file"),
            ({**GENERATE, "kind": "generated"}, "generated"),
        ],
    )
    def test_suites(
        self,
        make_suite: MakeSuite,
        model_folder: Path,
        tmp_path: Path,
        task: dict[str, Any],
        message: str,
    ) -> None:
        with pytest.raises(StropError, match=message):
            run_suite(make_suite(task), str(model_folder), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_two_tasks_of_one_name(self, make_suite: MakeSuite) -> None:
        with pytest.raises(RecipeError, match="used twice: greedy"):
            make_suite(GENERATE, GENERATE)

    def test_a_foreign_folder_is_left_alone(
        self, make_suite: MakeSuite, model_folder: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine/thesis.txt").write_text("years of work")
        with pytest.raises(UsageError, match="holds no eval"):
            run_suite(make_suite(GENERATE), str(model_folder), tmp_path / "mine")
        assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"


class TestCommand:
    def test_suite_is_the_default_verb(
        self, make_suite: MakeSuite, model_folder: Path, tmp_path: Path
    ) -> None:
        make_suite(GENERATE, PAIRS)
        given = ["eval", str(tmp_path / "suite.yaml"), "--model", str(model_folder),
                 "--output", str(tmp_path / "out")]  # fmt: skip
        dry = CliRunner().invoke(app, [*given, "--dry-run"], catch_exceptions=False)
        assert "would measure greedy: 12 items" in dry.output
        assert not (tmp_path / "out").exists()
        said = CliRunner().invoke(app, given, catch_exceptions=False).output
        assert "greedy: 12 items" in said
        assert "  greedy\n    length" in said
        assert max(map(len, said.replace(str(tmp_path), "").splitlines())) <= 100

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ([], "no engine to measure"),
            (["--outputs", "x.jsonl", "--model", "m"], "drop --model"),
            (["--endpoint", "localhost:80", "--model", "m"], "--endpoint is"),
        ],
    )
    def test_whom(
        self, make_suite: MakeSuite, tmp_path: Path, options: list[str], message: str
    ) -> None:
        make_suite(GENERATE)
        given = ["eval", str(tmp_path / "suite.yaml"), "--output", str(tmp_path / "o"), *options]
        with pytest.raises(UsageError, match=message):
            CliRunner().invoke(app, given, catch_exceptions=False)
