"""`strop notify test`, and a gate and a pipeline that tell what they decided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from strop.cli.app import app
from strop.errors import UsageError
from strop.evals.gate.verdict import read_verdict
from strop.evals.records import write_records
from strop.pipeline.run import GateRefused
from tests.support.gates import records, scores
from tests.support.hooks import hook_server
from tests.support.pipelines import run, write_twice


def notify(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["notify", "test", *map(str, arguments)])


def written(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


POLICY = {"guardrails": [{"score": "a", "margin": 0.1}]}


class TestTheTest:
    def test_says_of_each_what_came_back(self, recipes: dict[str, Path]) -> None:
        with hook_server([404]) as hook:
            told = json.dumps([{"webhook": hook.url}, {"command": ["true"]}])
            result = notify(recipes["sft"], "--set", f"run.notify={told}")
        first, second = result.stdout.splitlines()
        assert first.startswith(f"webhook {hook.url}: not told after 0.")
        assert first.endswith(" s: status 404: ok")
        assert second.startswith("command true: told after 0.")
        assert result.exit_code == 1
        assert hook.outcomes == [("test", "test")]

    @pytest.mark.parametrize("kind", ["policy", "pipeline"])
    def test_reads_whatever_can_tell(self, kind: str, tmp_path: Path) -> None:
        stage = {"kind": "train", "name": "sft", "recipe": "sft.yaml"}
        content = POLICY if kind == "policy" else {"name": "p", "stages": [stage]}
        told = {"notify": {"command": ["true"]}}
        result = notify(written(tmp_path / "given.yaml", content | told), "--json")
        (reply,) = json.loads(result.stdout)
        assert (reply["sent"], reply["said"], result.exit_code) == (True, "exit status 0", 0)

    def test_nobody_to_tell_is_a_mistake(self, recipes: dict[str, Path]) -> None:
        result = notify(recipes["sft"])
        assert isinstance(result.exception, UsageError)
        assert "`run.notify` names nobody" in str(result.exception)


def test_a_gate_tells_its_verdict(tmp_path: Path) -> None:
    for name, right in (("before", 50), ("after", 20)):
        write_records(tmp_path / f"{name}.jsonl", records("a", scores(right, 50 - right)))
    with hook_server() as hook:
        policy = written(tmp_path / "policy.yaml", POLICY | {"notify": {"webhook": hook.url}})
        given = ["--base", tmp_path / "before.jsonl", "--candidate", tmp_path / "after.jsonl",
                 "--policy", policy, "--registry", tmp_path / "registry.db"]  # fmt: skip
        result = CliRunner().invoke(app, ["gate", *map(str, given)])
    assert result.exit_code == 10
    assert hook.outcomes == [("verdict", "regressed")]
    assert hook.texts[0].startswith("after: ")
    assert hook.bodies[0]["facts"]["candidate"] == str(tmp_path / "after.jsonl")


def test_a_pipeline_tells_each_verdict_once_and_how_it_ended(
    tmp_path: Path, model_folder: Path
) -> None:
    pipeline = write_twice(tmp_path, model_folder)
    text = pipeline.read_text().split("  - {kind: promote, name: promote-sft")[0]
    with hook_server() as hook:
        pipeline.write_text(f"{text}notify: {{webhook: {hook.url}}}\n")
        run(pipeline)
        assert hook.outcomes == [("verdict", "pass"), ("end", "finished")]
        said = read_verdict(tmp_path / "gates/sft.json")["sentence"]
        assert hook.texts == [f"twice, gate-sft: {said}", "twice finished."]
        assert (tmp_path / "registry.twice.notify.jsonl").exists()
        run(pipeline)  # all is up to date: no verdict fell
        assert hook.outcomes[2:] == [("end", "finished")]

        pipeline.write_text(f"{text}notify: {{webhook: {hook.url}, events: [verdict]}}\n")
        policy = {"targets": [{"score": "pairs", "min_gain": 0.99}]}
        written(tmp_path / "policy.yaml", policy)
        with pytest.raises(GateRefused):
            run(pipeline)
        assert len(hook.bodies) == 4
        pipeline.write_text(f"{text}notify: {{webhook: {hook.url}}}\n")
        written(tmp_path / "policy.yaml", policy | {"notify": {"command": ["true"]}})
        with pytest.raises(GateRefused):
            run(pipeline)  # who is told changed, which has nothing judged anew
        assert hook.outcomes[3][0] == "verdict"
        assert hook.outcomes[4:] == [("end", "stopped")]
        assert hook.texts[4] == f"twice stopped: {hook.texts[3].removeprefix('twice, gate-sft: ')}"
