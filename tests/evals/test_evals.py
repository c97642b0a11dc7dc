"""Suites: what is kept, and what an interrupted eval goes on from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.engines.local.engine import LocalEngine
from strop.engines.recorded import RecordedEngine
from strop.errors import UnscoredError, UsageError
from strop.evals import jobs
from strop.evals.ask import ask
from strop.evals.inputs import inputs_of, suite_hash
from strop.evals.measure import measure
from strop.evals.records import read_records
from strop.evals.run import run_suite
from strop.model.load import load_for_inference
from tests.support.runs import WriteRows
from tests.support.suites import GENERATE, PAIRS, SAMPLED, TASKS, MakeSuite


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
            engine, jobs.jobs_of(suite, jobs.EvalSetup(engine, None, 0))[0].rows,
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
        # without a reference the sampler says it, and no forward over the answers is made
        alone = run_suite(suite, str(model_folder), tmp_path / "alone")
        assert alone.figures["sampled"]["entropy"] == pytest.approx(entropy / tokens, rel=1e-4)
        assert "kl" not in alone.figures["sampled"]

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
