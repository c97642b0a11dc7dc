"""Stages that make data: planned, done once, gone on with, and done again for other inputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strop.curate import asking
from strop.curate.underway import folder_of
from strop.demo.world import all_equations, solution
from strop.engines.local.engine import LocalEngine
from strop.errors import DataError, OutputError, RecipeError
from strop.model.load import weights_hash
from strop.pipeline import GateRefused, plan
from strop.pipeline.curating import job_of
from strop.recipe.loading.load import load
from strop.recipe.pipeline import Pipeline
from strop.registry.lineage import ancestry
from tests.support.pipelines import edit, run, write_twice
from tests.support.planned import read_jsonl, strop
from tests.support.runs import Stop

STAGES = """
name: data
stages:
  - kind: data
    name: balance
    verb: balance
    inputs: pairs.jsonl
    output: balanced.jsonl
    options: {tolerance: 0.1}
  - kind: data
    name: split
    verb: split
    inputs: [{path: balanced.jsonl, max_bad: 0.5}]
    output: parts
    options: {fractions: {train: 0.8, test: 0.2}}
  - {kind: train, name: dpo, recipe: dpo.yaml}
  - kind: sample
    name: sample
    model: runs/dpo/final
    inputs: parts/test.jsonl
    output: answers.jsonl
    samples: 2
    sampling: {max_tokens: 4}
"""


@pytest.fixture
def pipeline(tmp_path: Path, model_folder: Path) -> Path:
    pairs = [
        {"prompt": e.question, "chosen": solution(e), "rejected": "7 7 7" if n % 3 else "7" * 99}
        for n, e in enumerate(all_equations()[::97])
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    (tmp_path / "dpo.yaml").write_text(
        f"method: dpo\noutput: runs/dpo\nmodel: {model_folder}\ndata: parts/train.jsonl\n"
        "optim: {learning_rate: 1.0e-5}\nrun: {steps: 2, batch_size: 4}\n"
    )
    (tmp_path / "pipeline.yaml").write_text(STAGES)
    return tmp_path / "pipeline.yaml"


def planned(file: Path) -> dict[str, tuple[str, str]]:
    return {row.stage.name: (row.action, row.why) for row in plan(load(Pipeline, file))}


SKIPPED = dict.fromkeys(("balance", "split", "dpo", "sample"), "skipped")


class TestStages:
    def test_run_skipped_and_run_for_what_changed(self, pipeline: Path) -> None:
        folder = pipeline.parent
        rows = plan(load(Pipeline, pipeline))
        assert [(row.stage.name, row.action, row.needs) for row in rows] == [
            ("balance", "run", ()), ("split", "run", ("balance",)), ("dpo", "run", ("split",)),
            ("sample", "run", ("dpo", "split")),
        ]  # fmt: skip
        assert not (folder / "balanced.jsonl").exists()
        assert set(run(pipeline).values()) == {"done"}
        test, answers = (read_jsonl(folder / n) for n in ("parts/test.jsonl", "answers.jsonl"))
        assert [row["prompt"] for row in answers[::2]] == [row["prompt"] for row in test]
        assert run(pipeline) == SKIPPED
        assert all(action == "skip" for action, _ in planned(pipeline).values())

        edit(pipeline, "samples: 2", "samples: 1")
        assert planned(pipeline)["sample"] == ("run", "its options or a model changed")
        assert run(pipeline) == SKIPPED | {"sample": "done"}
        assert len(read_jsonl(folder / "answers.jsonl")) == len(test)

        lines = (folder / "pairs.jsonl").read_text().splitlines(keepends=True)
        (folder / "pairs.jsonl").write_text("".join(lines[1:]))
        assert planned(pipeline) == {
            "balance": ("run", "data changed: pairs.jsonl"),
            "split": ("wait", "runs if balance comes out different"),
            "dpo": ("wait", "runs if split comes out different"),
            "sample": ("wait", "runs if dpo or split comes out different"),
        }
        assert set(run(pipeline).values()) == {"done"}

    def test_an_output_that_somebody_changed_is_made_again(self, pipeline: Path) -> None:
        run(pipeline)
        train = pipeline.parent / "parts" / "train.jsonl"
        before = train.read_text()
        train.write_text(before + before.splitlines()[0] + "\n")
        assert planned(pipeline)["split"] == ("run", "its output was changed")
        assert run(pipeline) == SKIPPED | {"split": "done"}, "what follows came out the same"
        assert train.read_text() == before

    def test_an_option_that_changes_nothing_below(self, pipeline: Path) -> None:
        run(pipeline)
        edit(pipeline, "tolerance: 0.1", "tolerance: 0.1001")
        assert planned(pipeline)["balance"][0] == "run"
        assert run(pipeline) == SKIPPED | {"balance": "done"}

    def test_an_interrupted_stage_goes_on(
        self, pipeline: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(asking, "AT_ONCE", 4)
        asked: list[int] = []
        generate = LocalEngine.generate

        def dying(self: LocalEngine, requests):  # type: ignore[no-untyped-def]
            asked.append(len(requests))
            if len(asked) == 2:
                raise Stop
            return generate(self, requests)

        monkeypatch.setattr(LocalEngine, "generate", dying)
        with pytest.raises(Stop):
            run(pipeline)
        answers = pipeline.parent / "answers.jsonl"
        assert folder_of(answers).is_dir()
        assert planned(pipeline)["sample"] == ("resume", "half done")
        assert run(pipeline) == SKIPPED | {"sample": "done"}
        test = read_jsonl(pipeline.parent / "parts/test.jsonl")
        assert sum(asked) - asked[1] == 2 * len(test), "nothing was asked twice but what was lost"
        assert not folder_of(answers).exists()

    def test_a_stage_that_fails_leaves_what_stood_there(self, pipeline: Path) -> None:
        run(pipeline)
        folder = pipeline.parent
        before = (folder / "balanced.jsonl").read_text()
        (folder / "pairs.jsonl").write_text("{broken\n" * 20)
        with pytest.raises(DataError, match="20 of 20 rows"):
            run(pipeline)
        assert (folder / "balanced.jsonl").read_text() == before

    def test_json_plan(self, pipeline: Path) -> None:
        rows = [
            json.loads(line) for line in strop("run", pipeline, "--dry-run", "--json").splitlines()
        ]
        assert [(row["stage"], row["kind"]) for row in rows] == [
            ("balance", "data"), ("split", "data"), ("dpo", "train"), ("sample", "sample"),
        ]  # fmt: skip


class TestRefusals:
    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("verb: balance", "verb: balanced", r"pipeline.yaml:6: unknown verb 'balanced'\n"
             r"  fix: did you mean 'balance'\?"),
            ("tolerance: 0.1", "tolernce: 0.1", r"pipeline.yaml:9: unknown key `tolernce`(.|\n)*"
             "did you mean `tolerance`"),
            ("tolerance: 0.1", "tolerance: 3", r"pipeline.yaml:9: `tolerance`: "),
            ("inputs: pairs.jsonl", "inputs: nothing.jsonl",
             r"pipeline.yaml:7: .*nothing.jsonl is not there, and no stage writes it"),
            ("output: parts", "output: balanced.jsonl", "both write to"),
            ("samples: 2", "samples: 0", "greater than or equal to 1"),
            ("path: balanced.jsonl", "path: answers.jsonl", "which stage sample writes only later"),
        ],
    )  # fmt: skip
    def test_with_file_and_line(self, pipeline: Path, old: str, new: str, message: str) -> None:
        edit(pipeline, old, new)
        with pytest.raises(RecipeError, match=message):
            plan(load(Pipeline, pipeline))

    def test_a_file_of_somebody_else_is_not_replaced(self, pipeline: Path) -> None:
        (pipeline.parent / "balanced.jsonl").write_text("mine\n")
        with pytest.raises(OutputError, match="something stands there"):
            plan(load(Pipeline, pipeline))

    def test_what_settings_name_is_read_too(self, pipeline: Path) -> None:
        edit(pipeline, "verb: balance", "verb: select")
        edit(pipeline, "{tolerance: 0.1}", "{diverse: true, keep: 9, embeddings: words}")
        with pytest.raises(RecipeError, match=r"pipeline.yaml:9: .*words is not there"):
            plan(load(Pipeline, pipeline))


def test_the_lineage_names_the_manifests(pipeline: Path) -> None:
    """From the model to the split, from the split to the balanced pairs, from those to the rows."""
    run(pipeline)
    folder = pipeline.parent
    (source,) = ancestry(folder / "runs/dpo/final")["data"]
    assert source["manifest"]["made_by"] == "strop data split"
    assert source["manifest"]["before"] == ["strop data balance"]
    assert source["manifest"]["unchanged"] is True
    split = json.loads(Path(source["manifest"]["path"]).read_text())
    (balanced,) = split["inputs"]
    assert balanced["manifest"]["made_by"] == "strop data balance"
    balance = json.loads(Path(balanced["manifest"]["path"]).read_text())
    assert balance["inputs"][0]["path"] == str(folder / "pairs.jsonl")
    assert "manifest" not in balance["inputs"][0]
    answers = json.loads((folder / "answers.manifest.json").read_text())
    assert answers["settings"]["engine"]["path"] == str(folder / "runs/dpo/final")


def test_answers_of_a_refused_attempt_are_kept_beside_it(
    tmp_path: Path, model_folder: Path
) -> None:
    file = write_twice(tmp_path, model_folder)
    (tmp_path / "hard.yaml").write_text("targets: [{score: pairs, min_gain: 5}]\n")
    edit(file, "name: gate-dpo, policy: policy.yaml", "name: gate-dpo, policy: hard.yaml")
    back = "output: gates/dpo.json, back_to: {stage: dpo}}"
    edit(file, "output: gates/dpo.json}", back)
    edit(
        file,
        "  - {kind: eval, name: eval-dpo",
        """  - kind: sample
    name: answers
    model: runs/dpo/final
    inputs: held_out.jsonl
    output: answers.jsonl
    sampling: {max_tokens: 4}
  - {kind: eval, name: eval-dpo""",
    )
    with pytest.raises(GateRefused):
        run(file)
    for name, dpo in (("answers.jsonl", "dpo"), ("answers.attempt-1.jsonl", "dpo.attempt-1")):
        sha256 = weights_hash(tmp_path / "runs" / dpo / "final")
        assert {row["meta"]["engine"]["sha256"] for row in read_jsonl(tmp_path / name)} == {sha256}
    assert (tmp_path / "answers.manifest.attempt-1.json").exists()
    assert planned(file)["answers"] == ("skip", "up to date")


def test_a_build_is_made_again_for_another_card_of_its_judge(tmp_path: Path) -> None:
    """The judge's file is the same; what it names is not."""
    (tmp_path / "rows.jsonl").write_text('{"prompt": "Solve", "answers": ["3", "4"]}\n')
    (tmp_path / "said.jsonl").write_text("")
    (tmp_path / "card.json").write_text("{}")
    (tmp_path / "judge.yaml").write_text("recorded: said.jsonl\ncard: card.json\n")
    (tmp_path / "pipeline.yaml").write_text(
        "name: judged\nstages:\n  - {kind: data, name: build, verb: build, inputs: rows.jsonl,\n"
        "     output: built, options: {judge: judge.yaml}}\n"
    )
    pipeline = load(Pipeline, tmp_path / "pipeline.yaml")

    def seen() -> str:
        return job_of(pipeline, pipeline.stages[0]).seen()  # type: ignore[arg-type]

    before = seen()
    assert seen() == before
    (tmp_path / "card.json").write_text('{"right": 0.9}')
    after = seen()
    assert after != before
    (tmp_path / "said.jsonl").write_text('{"verdict": "A"}\n')
    assert seen() not in (before, after)
