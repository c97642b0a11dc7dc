"""Rewards from elsewhere: verl's signature, OpenAI's grader JSON, an HTTP endpoint."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from strop.errors import HttpError, RewardError
from strop.recipe.train.reward import RewardComponent
from strop.rewards.compose import Reward
from strop.rewards.endpoint import endpoint
from strop.rewards.grader import read_grader
from strop.sandbox.confine import landlock


class TestVerl:
    def reward(self, folder: Path, body: str) -> Reward:
        (folder / "verl.py").write_text(
            "def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n"
            f"    {body}\n"
        )
        component = RewardComponent(function="compute_score", file=str(folder / "verl.py"))
        return Reward([component])

    @pytest.mark.parametrize(
        "columns",
        [
            {"ground_truth": ["5", "6"]},
            {"reward_model": [{"ground_truth": "5"}, {"ground_truth": "6"}]},
            {"answer": ["5", "6"]},
        ],
    )
    def test_where_the_truth_stands(self, columns: dict[str, Any], tmp_path: Path) -> None:
        reward = self.reward(tmp_path, "return float(solution_str == ground_truth)")
        chat = [{"role": "assistant", "content": "5"}]
        judged = reward.judge(["p", "p"], [chat, "5"], columns)
        assert [score.total for score in judged.scores] == [1.0, 0.0]

    def test_a_dictionary_and_nothing(self, tmp_path: Path) -> None:
        body = "return {'score': 0.5, 'acc': 1} if extra_info['index'] else None"
        judged = self.reward(tmp_path, body).judge(
            ["p", "p"], ["a", "b"], {"extra_info": [{"index": 1}, {"index": 0}]}
        )
        assert [score.total for score in judged.scores] == [0.5, None]


def grade(folder: Path, spec: dict[str, Any], said: str, **item: Any) -> float | None:
    path = folder / "grader.json"
    path.write_text(json.dumps(spec))
    columns = {name: [value] for name, value in item.items()}
    return read_grader(path)(["p"], [said], **columns)[0]


def check(operation: str, reference: str = "{{ item.answer }}") -> dict[str, Any]:
    return {"type": "string_check", "name": "c", "operation": operation, "reference": reference,
            "input": "{{ sample.output_text }}"}  # fmt: skip


class TestGraders:
    @pytest.mark.parametrize(
        ("operation", "said", "score"),
        [("eq", "Bern", 1.0), ("eq", "bern", 0.0), ("ne", "Rome", 1.0), ("ne", "Bern", 0.0),
         ("like", "It is Bern.", 1.0), ("like", "It is bern.", 0.0), ("ilike", "it is bern", 1.0),
         ("ilike", "it is rome", 0.0)],
    )  # fmt: skip
    def test_string_check(self, operation: str, said: str, score: float, tmp_path: Path) -> None:
        assert grade(tmp_path, check(operation), said, answer="Bern") == score

    def test_a_place_inside_a_column(self, tmp_path: Path) -> None:
        spec = check("eq", "{{item.reference.answers}}")
        assert grade(tmp_path, spec, "[1, 2]", reference={"answers": [1, 2]}) == 1.0

    def test_text_similarity(self, tmp_path: Path) -> None:
        spec = {**check("eq"), "type": "text_similarity", "evaluation_metric": "fuzzy_match"}
        assert grade(tmp_path, spec, "Bern", answer="Bern") == 1.0
        assert (grade(tmp_path, spec, "zzzz", answer="Bern") or 0.0) < 0.2

    def test_multi_computes_its_formula(self, tmp_path: Path) -> None:
        """0.7 * 1 + max(0, -2 ** 2) * 0.3 / abs(-3) with the second grader at 0."""
        spec = {
            "type": "multi",
            "graders": {"a": check("ilike"), "b": check("eq")},
            "calculate_output": "0.7 * a + max(b, -(2 ** 2)) * 0.3 / abs(-3) - floor(0.5)",
        }
        assert grade(tmp_path, spec, "it is bern", answer="Bern") == pytest.approx(0.7)
        assert grade(tmp_path, spec, "Bern", answer="Bern") == pytest.approx(0.8)

    @pytest.mark.parametrize(
        ("spec", "problem"),
        [
            ({"type": "score_model", "model": "m"}, "score_model"),
            ({**check("eq"), "type": "text_similarity", "evaluation_metric": "bleu"}, "bleu"),
            ({"type": "multi", "graders": {"a": check("eq")}, "calculate_output": "a + c"}, "'c'"),
            ({"type": "multi", "graders": {"a": check("eq")},
              "calculate_output": "__import__('os').system('true')"}, "calculate_output"),
            ({"type": "string_check"}, "not a grader: KeyError"),
            ([], "not a grader"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_run_is_refused(self, spec: Any, problem: str, tmp_path: Path) -> None:
        with pytest.raises(RewardError, match=problem):
            grade(tmp_path, spec, "x")

    @pytest.mark.skipif(not landlock.version(), reason="the kernel has no Landlock")
    def test_a_python_grader_runs_in_the_sandbox(self, tmp_path: Path) -> None:
        source = (
            "def grade(sample, item):\n"
            "    if item['answer'] == 'file':\n"
            f"        open({str(tmp_path / 'grader.json')!r})\n"
            "    return 0.5 if sample['output_text'] == item['answer'] else 0.0\n"
        )
        spec = {"type": "python", "source": source}
        assert grade(tmp_path, spec, "Bern", answer="Bern") == 0.5
        assert grade(tmp_path, spec, "Rome", answer="Bern") == 0.0
        assert grade(tmp_path, spec, "file", answer="file") is None

    def test_as_a_component(self, tmp_path: Path) -> None:
        (tmp_path / "g.json").write_text(json.dumps(check("eq")))
        component = RewardComponent(function="grader", file=str(tmp_path / "g.json"), weight=2.0)
        judged = Reward([component]).judge(["p"], ["Bern"], {"answer": ["Bern"]})
        assert judged.scores[0].total == 2.0


class Judge(BaseHTTPRequestHandler):
    """Scores by length; fails as often as `failures` says."""

    failures = 0
    wrapped = False

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if type(self).failures:
            type(self).failures -= 1
            self.send_response(503)
            self.end_headers()
            return
        pairs = zip(body["completions"], body["answer"], strict=True)
        scores = [None if a is None else len(c) + a for c, a in pairs]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"scores": scores} if self.wrapped else scores).encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Judge.failures, Judge.wrapped = 0, False
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class TestEndpoint:
    @pytest.mark.parametrize("wrapped", [False, True])
    def test_scores_come_back_in_order(self, url: str, wrapped: bool) -> None:
        Judge.wrapped = wrapped
        component = RewardComponent(function="judge", url=url)
        judged = Reward([component]).judge(["p"] * 3, ["a", "bb", "c"], {"answer": [0, 1, None]})
        assert [score.total for score in judged.scores] == [1.0, 3.0, None]

    def test_a_server_that_stumbles_is_asked_again_and_one_that_stays_down_is_no_zero(
        self, url: str
    ) -> None:
        Judge.failures = 2
        assert endpoint(["p"], ["abc"], url=url, answer=[0]) == [3.0]
        Judge.failures = 3
        with pytest.raises(HttpError, match="503"):
            endpoint(["p"], ["abc"], url=url, answer=[0])
        Judge.failures = 99
        judged = Reward([RewardComponent(function="judge", url=url)]).judge(
            ["p"], ["abc"], {"answer": [0]}
        )
        assert judged.scores[0].total is None
        assert "503" in judged.failures[0].error
