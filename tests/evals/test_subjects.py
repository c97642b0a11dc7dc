"""Who else can be asked: recorded answers and an endpoint."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from strop.engines.openai import OpenAIEngine
from strop.engines.recorded import RecordedEngine
from strop.errors import DataError, MissingEvidenceError, StropError, UnscoredError, UsageError
from strop.evals.ask import ask
from strop.evals.run import SuiteResult, run_suite
from strop.recipe.template import TemplateRecipe
from strop.recipe.train.rollout import SamplingRecipe
from strop.types import Message, Origin, Task
from tests.support.runs import WriteRows
from tests.support.suites import GENERATE, PAIRS, SAMPLED, TASKS, MakeSuite


def scores_of(result: SuiteResult, name: str) -> list[float | None]:
    return [record.score for record in result.records if record.task == name]


class TestRecorded:
    def test_answers_by_item_by_prompt_and_by_sample(
        self, make_suite: MakeSuite, write_rows: WriteRows, tmp_path: Path
    ) -> None:
        right = [f"<answer>{t['answer']}</answer>" for t in TASKS]
        rows: list[dict[str, Any]] = []
        for n, (task, said) in enumerate(zip(TASKS, right, strict=True)):
            key = {"item": task["id"]} if n % 2 else {"prompt": task["prompt"]}
            rows += [{**key, "completion": text} for text in (said, "<answer>no</answer>", said)]
        said_file = write_rows("said.jsonl", rows)
        result = run_suite(make_suite(SAMPLED), RecordedEngine(str(said_file)), tmp_path / "out")
        assert scores_of(result, "sampled/right") == [1.0, 0.0, 1.0] * 12
        assert result.scores["sampled/right"] == pytest.approx(2 / 3)
        assert "entropy" not in result.figures["sampled"]  # nobody can know it

    @pytest.mark.parametrize(
        ("row", "error", "message"),
        [
            ({"item": "q1"}, DataError, "said.jsonl:13: the row holds no answer"),
            ({"completion": "5"}, DataError, "said.jsonl:13: the row holds no answer"),
            ({"item": "q1", "completion": "5", "sample": 0}, DataError, "is no new number"),
            ({"item": "q1", "completion": "5", "sample": "x"}, DataError, "is no new number"),
        ],
    )
    def test_bad_rows(
        self, make_suite: MakeSuite, write_rows: WriteRows, tmp_path: Path,
        row: dict[str, Any], error: type[StropError], message: str,
    ) -> None:  # fmt: skip
        good = [{"item": t["id"], "completion": "5"} for t in TASKS]
        said = write_rows("said.jsonl", [*good, row])
        with pytest.raises(error, match=message):
            run_suite(make_suite(GENERATE), RecordedEngine(str(said)), tmp_path / "out")

    def test_what_they_cannot_tell(
        self, make_suite: MakeSuite, write_rows: WriteRows, tmp_path: Path
    ) -> None:
        said = write_rows("said.jsonl", [{"item": t["id"], "completion": "5"} for t in TASKS[1:]])
        with pytest.raises(MissingEvidenceError, match=r"no answer to item 'q0' .*tasks.jsonl:1"):
            run_suite(make_suite(GENERATE), RecordedEngine(str(said)), tmp_path / "out")
        with pytest.raises(UsageError, match="no likelihoods"):
            run_suite(make_suite(PAIRS), RecordedEngine(str(said)), tmp_path / "out2")


class Server(BaseHTTPRequestHandler):
    """Says the last number of the question and the seed; its first answers fail as told."""

    failures: ClassVar[list[int]] = []
    seen: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.failures:
            self.send_response(self.failures.pop())
            self.end_headers()
            return
        self.seen.append(body)
        text = f"<answer>{body['messages'][-1]['content'].split()[-1]}</answer> {body['seed']}"
        choice = {"message": {"content": text}, "finish_reason": "length"}
        if "stop" in body:  # as vLLM says which stop string it cut off
            choice = {"message": {"content": text}, "stop_reason": body["stop"][0]}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"choices": [choice]}).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Server.failures, Server.seen = [], []
    running = HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}/v1"
    running.shutdown()
    thread.join()


class TestEndpoint:
    def test_a_server_is_asked_once_a_sample_with_its_own_seed(
        self, make_suite: MakeSuite, write_rows: WriteRows, server: str, tmp_path: Path
    ) -> None:
        suite = make_suite(SAMPLED, seed=7)
        write_rows("tasks.jsonl", [
            {"prompt": f"say {n}", "answer": str(n), "topic": "a"} for n in range(4)
        ])  # fmt: skip
        Server.failures = [503, 429]
        result = run_suite(suite, OpenAIEngine(server, "mine"), tmp_path / "out")
        assert result.scores == {"sampled/right": 1.0}
        assert sorted(body["seed"] for body in Server.seen) == sorted([7, 8, 9] * 4)
        assert {body["model"] for body in Server.seen} == {"mine"}
        assert result.figures["sampled"]["finished"] == 0.0
        assert len({r.output for r in result.records if r.item == result.records[0].item}) == 3

    def test_tools_and_options_go_along_and_the_stop_string_comes_back(self, server: str) -> None:
        tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
        prompt: list[Message] = [{"role": "user", "content": "say 5"}]
        here = Origin("tasks.jsonl", 1)
        options = TemplateRecipe(template_options={"enable_thinking": False})
        engine = OpenAIEngine(server, "mine").with_template(options)
        stopping = SamplingRecipe(stop=["</s>"], skip_special_tokens=False)
        (one,) = ask(engine, [Task(prompt, {"tools": [tool]}, here)], stopping, 1, 0)
        assert one.completions[0].text == "<answer>5</answer> 0</s>"
        body = Server.seen[-1]
        assert body["tools"] == [tool]
        assert body["chat_template_kwargs"] == {"enable_thinking": False}
        assert body["skip_special_tokens"] is False
        cut = SamplingRecipe(stop=["</s>"], include_stop_str_in_output=False)
        (two,) = ask(OpenAIEngine(server, "mine"), [Task(prompt, {}, here)], cut, 1, 0)
        assert two.completions[0].text == "<answer>5</answer> 0"
        assert not {"tools", "chat_template_kwargs", "skip_special_tokens"} & Server.seen[-1].keys()

    def test_an_assistant_message_at_the_end_is_gone_on_with(self, server: str) -> None:
        prompt: list[Message] = [{"role": "user", "content": "2x = 10"},
                                 {"role": "assistant", "content": "x ="}]  # fmt: skip
        task = Task(prompt, {}, Origin("tasks.jsonl", 1))
        (rollout,) = ask(OpenAIEngine(server, "mine"), [task], SamplingRecipe(), 1, 0)
        assert rollout.completions[0].said == "x =<answer>=</answer> 0"
        assert Server.seen[-1]["continue_final_message"] is True
        assert Server.seen[-1]["add_generation_prompt"] is False

    def test_a_server_writes_conversations_itself(self, server: str) -> None:
        with pytest.raises(UsageError, match="a server writes conversations by itself"):
            OpenAIEngine(server, "mine").with_template(TemplateRecipe(chat_template="chatml"))

    def test_a_request_that_fails_is_no_empty_answer(
        self, make_suite: MakeSuite, server: str, tmp_path: Path
    ) -> None:
        Server.failures = [404] * 50
        with pytest.raises(UnscoredError, match=r"did not answer \(status 404"):
            run_suite(make_suite(GENERATE), OpenAIEngine(server, "mine"), tmp_path / "out")
        greedy = make_suite({**GENERATE, "sampling": {"top_k": 3}})
        with pytest.raises(UsageError, match="top_k and min_p"):
            run_suite(greedy, OpenAIEngine(server, "mine"), tmp_path / "out")
