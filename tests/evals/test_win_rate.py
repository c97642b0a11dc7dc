"""`kind: win_rate`: a judge's verdicts of answers against others, as an eval and at the gate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from strop.engines.recorded import RecordedEngine
from strop.errors import DataError, MissingEvidenceError
from strop.evals.gate.verdict import rules_of, run_gate
from strop.evals.records import read_records
from strop.evals.run import run_suite
from strop.judge.build import build_judge
from strop.recipe.judge import JudgeRecipe
from strop.recipe.loading.load import load
from strop.recipe.suite import Suite
from strop.train.monitor.dev import score_names
from tests.support.cards import card_of, write_card
from tests.support.servers import chat_server


def liking(word: str) -> Any:
    """A judge that prefers the answer with this word; a tie where both or none have it."""

    def reply(body: dict[str, Any]) -> str:
        text = body["messages"][0]["content"]
        first, second = (word in text.split(f"answer {name}\n")[1].split("\n")[0] for name in "AB")
        return f"Verdict: {'tie' if first == second else 'A' if first else 'B'}"

    return reply


class World:
    def __init__(self, folder: Path, url: str, prompts: int = 60) -> None:
        self.folder, self.prompts = folder, prompts
        self.rows("data", [{"id": str(n), "cluster": str(n // 2), "prompt": f"p{n}"}
                           for n in range(prompts)])  # fmt: skip
        self.said("old", lambda n: "plain")
        text = f"url: {url}\nmodel_name: m\nuncalibrated: a planted judge\n"
        (folder / "judge.yaml").write_text(text)

    def rows(self, name: str, rows: list[dict[str, Any]]) -> Path:
        path = self.folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def said(self, name: str, answer: Any) -> Path:
        return self.rows(name, [{"item": str(n), "completion": answer(n)}
                                for n in range(self.prompts)])  # fmt: skip

    def suite(self, **changes: Any) -> Suite:
        asked = {"kind": "win_rate", "name": "help", "data": str(self.folder / "data.jsonl"),
                 "judge": str(self.folder / "judge.yaml"),
                 "against": str(self.folder / "old.jsonl"), **changes}  # fmt: skip
        return load(Suite, {"name": "s", "tasks": [asked]})

    def measured(self, name: str, answer: Any) -> float:
        engine = RecordedEngine(str(self.said(name, answer)))
        result = run_suite(self.suite(), engine, self.folder / f"evals/{name}")
        return result.scores["help/win_rate"]


def test_wins_ties_and_losses_against_recorded_answers(tmp_path: Path) -> None:
    with chat_server(liking("kind")) as server:
        world = World(tmp_path, server.url)
        (tmp_path / "evals").mkdir()
        assert world.measured("half", lambda n: "kind" if n % 2 else "other") == 0.75
        assert world.measured("same", lambda n: "plain") == 0.5
        records = [r for r in read_records(tmp_path / "evals/half") if r.task == "help/win_rate"]
    assert [record.score for record in records[:4]] == [0.5, 1.0, 0.5, 1.0]
    assert [record.cluster for record in records[:4]] == ["0", "0", "1", "1"]
    assert records[0].scale == (0.0, 1.0)
    assert score_names(world.suite()) == ["help/win_rate"]


def test_the_gate_reads_it_by_clusters(tmp_path: Path) -> None:
    with chat_server(liking("kind")) as server:
        world = World(tmp_path, server.url)
        (tmp_path / "evals").mkdir()
        world.measured("base", lambda n: "kind" if n % 10 == 0 else "other")
        world.measured("better", lambda n: "kind" if n % 2 else "other")
    sides = (tmp_path / "evals/base", tmp_path / "evals/better")
    target = {"targets": [{"score": "help/win_rate", "min_gain": 0.0}]}
    with pytest.raises(MissingEvidenceError, match="nobody knows how far it agrees"):
        run_gate(rules_of(target, None, sides[0]), *sides)
    found = run_gate(rules_of({**target, "uncalibrated": "planted"}, None, sides[0]), *sides)
    assert found.name == "pass"
    assert "help/win_rate is of a judge without a card (planted)" in found.remarks
    assert found.checks[0].estimate == pytest.approx(0.75 - 0.55)


def test_the_gate_says_what_the_card_says(tmp_path: Path) -> None:
    """And a demand on another score asks for no card."""
    with chat_server(liking("kind")) as server:
        world = World(tmp_path, server.url)
        (tmp_path / "evals").mkdir()
        judge = tmp_path / "judge.yaml"
        asked = build_judge(load(JudgeRecipe, judge))
        sentence = "The judge is right on 72 % of 300 pairs."
        write_card(tmp_path / "card.json", card_of(asked, sentence=sentence))
        told = f"url: {server.url}\nmodel_name: m\ncard: card.json\n"
        judge.write_text(told)
        world.measured("base", lambda n: "kind" if n % 10 == 0 else "other")
        world.measured("better", lambda n: "kind" if n % 2 else "other")
    sides = (tmp_path / "evals/base", tmp_path / "evals/better")
    found = run_gate(rules_of({"targets": [{"score": "help/win_rate"}]}, None, sides[0]), *sides)
    assert "help/win_rate is a judge's: The judge is right on 72 % of 300 pairs." in found.remarks


def test_mistakes(tmp_path: Path) -> None:
    with chat_server(liking("kind")) as server:
        world = World(tmp_path, server.url, prompts=4)
        engine = RecordedEngine(str(world.said("new", lambda n: "kind")))
        with pytest.raises(DataError, match="reads the column `baseline`"):
            run_suite(world.suite(against=None), engine, tmp_path / "one")
        world.rows("old", [{"item": "0", "completion": "plain"}])
        with pytest.raises(MissingEvidenceError, match="no answer to item '1'"):
            run_suite(world.suite(), engine, tmp_path / "two")
        world.rows("data", [{"prompt": "p", "baseline": "b"}])
        with pytest.raises(DataError, match="drop one of them"):
            run_suite(world.suite(), engine, tmp_path / "three")
        assert server.asked == []
