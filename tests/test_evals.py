"""Suites: who can be asked, what is kept, and what an interrupted eval goes on from."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from typer.testing import CliRunner

from conftest import EQUATIONS, WriteRows
from strop.cli.app import app
from strop.demo.world import solution, user
from strop.engines.local.engine import LocalEngine
from strop.engines.openai import OpenAIEngine
from strop.engines.recorded import RecordedEngine
from strop.errors import (
    DataError,
    MissingEvidenceError,
    RecipeError,
    StropError,
    UnscoredError,
    UsageError,
)
from strop.evals import jobs
from strop.evals.ask import ask
from strop.evals.drift import distinct, self_bleu
from strop.evals.gate.verdict import run_gate
from strop.evals.inputs import inputs_of, suite_hash
from strop.evals.records import read_records
from strop.evals.run import EvalResult, measure, run_suite
from strop.model.load import load_for_inference
from strop.recipe.gate import Guardrail, Policy
from strop.recipe.loading.load import load, load_recipe
from strop.recipe.suite import Suite
from strop.recipe.template import TemplateRecipe
from strop.recipe.train.rollout import SamplingRecipe
from strop.train.run import train
from strop.types import EvalRecord, Message, Origin, Task

TASKS = [{"id": f"q{n}", "prompt": user(e), "answer": str(e.x), "topic": "even" if e.x % 2 == 0
          else "odd"} for n, e in enumerate(EQUATIONS[:12])]  # fmt: skip
SCORES = [{"function": "exact_answer", "name": "right"}]
GENERATE = {"kind": "generate", "name": "greedy", "data": "tasks.jsonl", "scores": SCORES,
            "sampling": {"temperature": 0.0, "max_tokens": 6}, "slices": ["topic"]}  # fmt: skip
SAMPLED = {**GENERATE, "name": "sampled", "samples": 3,
           "sampling": {"temperature": 1.0, "max_tokens": 6}}  # fmt: skip
PAIRS = {"kind": "preference", "name": "edits", "data": "pairs.jsonl"}

MakeSuite = Callable[..., Suite]


@pytest.fixture
def make_suite(tmp_path: Path, write_rows: WriteRows) -> MakeSuite:
    write_rows("tasks.jsonl", TASKS)
    pairs = [
        {"prompt": user(e), "chosen": solution(e), "rejected": solution(e, filler=True)}
        for e in EQUATIONS[:9]
    ]
    write_rows("pairs.jsonl", pairs)

    def make(*tasks: dict[str, Any], **options: Any) -> Suite:
        path = tmp_path / "suite.yaml"
        path.write_text(yaml.safe_dump({"name": "small", "tasks": list(tasks), **options}))
        return load(Suite, path)

    return make


def scores_of(result: EvalResult, name: str) -> list[float | None]:
    return [record.score for record in result.records if record.task == name]


class TestLocalEngine:
    def test_every_item_and_sample_is_kept_with_its_groups(
        self, make_suite: MakeSuite, model_folder: Path, tmp_path: Path
    ) -> None:
        suite = make_suite(GENERATE, SAMPLED)
        result = run_suite(suite, str(model_folder), tmp_path / "out")
        written = read_records(tmp_path / "out")
        assert written == list(result.records)
        mine = [record for record in written if record.task == "sampled/right"]
        assert [(r.item, r.sample) for r in mine] == [
            (f"q{n}", s) for n in range(12) for s in range(3)
        ]
        assert {(r.item, r.slices["topic"]) for r in mine} == {
            (task["id"], task["topic"]) for task in TASKS
        }
        assert mine[0].prompt.endswith(str(TASKS[0]["prompt"][-1]["content"]))
        summary = json.loads((tmp_path / "out/summary.json").read_text())
        assert summary["items"] == {
            "greedy/right": {"items": 12, "unscored": 0},
            "sampled/right": {"items": 36, "unscored": 0},
        }
        assert "drift/greedy/length" not in summary["scores"]

    def test_kl_and_entropy_equal_plain_forwards(
        self, make_suite: MakeSuite, model_folder: Path, tmp_path: Path
    ) -> None:
        """The reference is the same model with its last norm doubled."""
        other = load_for_inference(str(model_folder))
        with torch.no_grad():
            other.model.model.norm.weight.mul_(2.0)
        other.model.save_pretrained(tmp_path / "other")
        other.tokenizer.save_pretrained(tmp_path / "other")
        suite = make_suite({**SAMPLED, "samples": 1})
        result = run_suite(
            suite, str(model_folder), tmp_path / "out", reference=str(tmp_path / "other")
        )
        policy = load_for_inference(str(model_folder))
        engine = LocalEngine("", policy)
        rollouts = ask(
            engine, jobs.jobs_of(suite, jobs.Asked(engine, None, 0))[0].rows,
            suite.tasks[0].sampling, 1, 0,  # type: ignore[union-attr]
        )  # fmt: skip
        kl, entropy, tokens = 0.0, 0.0, 0
        for rollout in rollouts:
            ids = rollout.completions[0].ids
            row = torch.tensor([[*rollout.prompt_ids, *ids]])
            with torch.no_grad():
                ours, theirs = (
                    torch.log_softmax(net.model(row).logits[0].double(), -1)[-len(ids) - 1 : -1]
                    for net in (policy, other)
                )
            kl += float((ours.exp() * (ours - theirs)).sum())
            entropy += float(-(ours.exp() * ours).sum())
            tokens += len(ids)
        assert result.kl == pytest.approx(kl / tokens, rel=1e-4)
        assert result.figures["sampled"]["kl"] == pytest.approx(kl / tokens, rel=1e-4)
        assert result.figures["sampled"]["entropy"] == pytest.approx(entropy / tokens, rel=1e-4)
        assert result.figures["sampled"]["length"] == pytest.approx(tokens / 12)

    def test_a_model_does_not_drift_from_itself(
        self, make_suite: MakeSuite, model_folder: Path, tmp_path: Path
    ) -> None:
        suite = make_suite(SAMPLED, PAIRS)
        same = run_suite(suite, str(model_folder), tmp_path / "o", reference=str(model_folder))
        assert same.kl == pytest.approx(0.0, abs=1e-9)
        assert same.figures["edits"]["displaced"] == 0.0
        assert same.figures["edits"]["chosen_gain_median"] == pytest.approx(0.0, abs=1e-6)

    def test_measure_is_the_suite_without_files(
        self, make_suite: MakeSuite, model_folder: Path, tmp_path: Path
    ) -> None:
        suite = make_suite(GENERATE, PAIRS)
        result = run_suite(suite, str(model_folder), tmp_path / "out")
        assert measure(suite, load_for_inference(str(model_folder))) == result.scores

    def test_prompts_that_do_not_fit_are_named(
        self, make_suite: MakeSuite, model_folder: Path, tmp_path: Path
    ) -> None:
        suite = make_suite({**GENERATE, "sampling": {"temperature": 0.0, "max_tokens": 5000}})
        with pytest.raises(UsageError, match=r"tasks.jsonl:\d+: the longest prompt"):
            run_suite(suite, str(model_folder), tmp_path / "out")


class TestResume:
    def test_an_interrupted_eval_goes_on_and_ends_the_same(
        self,
        make_suite: MakeSuite,
        model_folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(jobs, "ANSWERS", 3)
        monkeypatch.setattr(jobs, "FORWARD", 4)
        suite = make_suite(GENERATE, SAMPLED, PAIRS)
        whole = run_suite(suite, str(model_folder), tmp_path / "whole")
        asked: list[tuple[str, int, int]] = []

        def stop_at(count: int) -> Callable[[str, int, int], None]:
            def on_part(name: str, done: int, total: int) -> None:
                asked.append((name, done, total))
                if len(asked) == count:
                    raise KeyboardInterrupt

            return on_part

        for count in (3, 7, 100):
            asked.clear()
            out, on_part = tmp_path / "cut", stop_at(count)
            if count == 100:
                cut = run_suite(suite, str(model_folder), out, on_part=on_part)
                continue
            with pytest.raises(KeyboardInterrupt):
                run_suite(suite, str(model_folder), out, on_part=on_part)
            assert not out.exists()
            journal = tmp_path / ".cut.partial/parts.jsonl"
            with journal.open("a") as stream:  # killed in the middle of a line
                stream.write('{"job": "gree')
        assert cut == whole
        assert (tmp_path / "cut/records.jsonl").read_bytes() == (
            tmp_path / "whole/records.jsonl"
        ).read_bytes()
        assert not (tmp_path / ".cut.partial").exists()

    def test_nothing_is_asked_twice(
        self, make_suite: MakeSuite, write_rows: WriteRows, tmp_path: Path
    ) -> None:
        """A second start asks only for the parts that the first one did not get."""
        calls: list[int] = []

        class Counted(RecordedEngine):
            def generate(self, requests: Sequence[Any]) -> Iterator[Any]:
                calls.append(len(requests))
                if len(calls) == 2:
                    raise UnscoredError("gone")
                return super().generate(requests)

        said = write_rows("said.jsonl", [{"item": t["id"], "completion": "1"} for t in TASKS])
        suite = make_suite(GENERATE, {**GENERATE, "name": "again"})
        with pytest.raises(UnscoredError):
            run_suite(suite, Counted(str(said)), tmp_path / "out")
        run_suite(suite, Counted(str(said)), tmp_path / "out")
        assert calls == [12, 12, 12]  # first task; second task, failed; second task again

    def test_other_inputs_begin_anew(
        self, make_suite: MakeSuite, write_rows: WriteRows, tmp_path: Path
    ) -> None:
        said = write_rows("said.jsonl", [{"item": t["id"], "completion": "1"} for t in TASKS])
        suite = make_suite(GENERATE)
        before = inputs_of(suite, RecordedEngine(str(said)), None)
        write_rows("said.jsonl", [{"item": t["id"], "completion": "2"} for t in TASKS])
        assert inputs_of(suite, RecordedEngine(str(said)), None) != before
        hashed = suite_hash(suite)
        assert suite_hash(make_suite(GENERATE)) == hashed
        assert suite_hash(make_suite({**GENERATE, "samples": 1}, seed=3)) != hashed
        write_rows("tasks.jsonl", TASKS[:-1])
        assert suite_hash(suite) != hashed


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
        engine = OpenAIEngine(server, "mine").speaking(options)
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
            OpenAIEngine(server, "mine").speaking(TemplateRecipe(chat_template="chatml"))

    def test_a_request_that_fails_is_no_empty_answer(
        self, make_suite: MakeSuite, server: str, tmp_path: Path
    ) -> None:
        Server.failures = [404] * 50
        with pytest.raises(UnscoredError, match=r"did not answer \(status 404"):
            run_suite(make_suite(GENERATE), OpenAIEngine(server, "mine"), tmp_path / "out")
        greedy = make_suite({**GENERATE, "sampling": {"top_k": 3}})
        with pytest.raises(UsageError, match="top_k and min_p"):
            run_suite(greedy, OpenAIEngine(server, "mine"), tmp_path / "out")


OWN = """
def evaluate(generate, seed):
    said = generate(["Solve x = 3", "Solve x = 4"], max_tokens=4)
    for n, text in enumerate(said):
        yield {"item": n, "score": float(len(text) > 0), "output": text, "cluster": "all"}
        yield {"item": n, "score": seed, "task": "seed"}

def broken(generate, seed):
    raise KeyError("answer")

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
        self, recipes: dict[str, Path], make_suite: MakeSuite, tmp_path: Path
    ) -> None:
        """The suite's twelve items are equations of the SFT data; others are not."""
        final = train(load_recipe(recipes["sft"], ["run={steps: 1, batch_size: 4}"]))
        result = run_suite(make_suite(GENERATE), str(final), tmp_path / "out")
        summary = json.loads((tmp_path / "out/summary.json").read_text())
        (seen,) = summary["overlap"]
        assert [one["item"] for one in seen["items"]] == [task["id"] for task in TASKS]
        assert seen["items"][3]["where"].endswith("sft.jsonl:4")
        policy = Policy(guardrails=[Guardrail(score="greedy/right")])
        with pytest.raises(MissingEvidenceError, match="12 of 12 items are in the training data"):
            run_gate(policy, tmp_path / "out", tmp_path / "out")
        assert result.scores.keys() == {"greedy/right"}

    def test_data_that_is_gone_is_remarked(
        self, recipes: dict[str, Path], make_suite: MakeSuite, tmp_path: Path
    ) -> None:
        final = train(load_recipe(recipes["sft"], ["run={steps: 1, batch_size: 4}"]))
        (tmp_path / "sft.jsonl").unlink()
        run_suite(make_suite(GENERATE), str(final), tmp_path / "out")
        policy = Policy(guardrails=[Guardrail(score="greedy/right", margin=0.5)])
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
            ([], "whom to measure"),
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
