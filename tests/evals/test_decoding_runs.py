"""Decoding studies that are interrupted, refined, or cannot be made."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import typer
import yaml
from typer.testing import CliRunner

from strop.cli.evals.decode import decode, table
from strop.demo.world import user
from strop.engines.engine import Request
from strop.engines.local.continuous import Continuous
from strop.engines.local.engine import LocalEngine
from strop.errors import (
    DataError,
    MissingEvidenceError,
    ModelError,
    OutputError,
    RecipeError,
    UnscoredError,
    UsageError,
)
from strop.evals.decode import draws
from strop.evals.decode.draws import revision_prompt
from strop.evals.decode.frontier import FrontierRow
from strop.evals.decode.page import figure
from strop.evals.decode.study import check_study, engines_of, run_study
from strop.recipe.loading.load import load
from strop.recipe.study import Refine, Study
from tests.support import ROOT
from tests.support.runs import EQUATIONS, Stop, WriteRows
from tests.support.studies import STUDY, Planted


def ran(study: Study, model: Path, base: Path, output: Path, **options: Any) -> dict[str, bytes]:
    """Bytes of what a run wrote, the page aside (its figure has a name of its own each time)."""
    run_study(check_study(study, model=str(model), base=str(base)), output, **options)
    assert {file.name for file in output.iterdir()} == {
        "decode.html",
        "decode.json",
        "samples.jsonl",
    }
    return {name: (output / name).read_bytes() for name in ("decode.json", "samples.jsonl")}


class TestRuns:
    """The real sampler, on random models graded by the length of what they say."""

    CHANGES: ClassVar[dict[str, Any]] = {
        "refine": {"instruction": "Check it."},
        "temperatures": [0.7, 1.0],
    }

    def recipe(self, study: Callable[..., Study], tmp_path: Path, **changes: Any) -> Study:
        own = {"file": str(tmp_path / "rewards.py")}
        return study(scores=[{"function": "even", **own}],
                     best_of={"reward": [{"function": "digits", **own}]},
                     **{**self.CHANGES, **changes})  # fmt: skip

    def test_interrupted_and_resumed(
        self, study: Callable[..., Study], model_folder: Path, base_folder: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        recipe = self.recipe(study, tmp_path)
        whole = ran(recipe, model_folder, base_folder, tmp_path / "whole")
        asked: list[int] = []
        add = Continuous.add

        def counted(self: Any, requests: Any) -> None:
            requests = list(requests)
            asked.append(len(requests))
            add(self, requests)

        monkeypatch.setattr(Continuous, "add", counted)
        told = []

        def stop(count: int) -> None:
            told.append(count)
            if len(told) == 5:  # amid the third part: greedy and 0.7 of the base are kept
                raise Stop

        output = tmp_path / "out"
        with pytest.raises(Stop):
            ran(recipe, model_folder, base_folder, output, advance=stop)
        assert not output.exists()
        assert sum(asked) == (6 + 6) + (24 + 6) + 24
        asked.clear()
        told.clear()
        again = ran(recipe, model_folder, base_folder, output, advance=told.append)
        assert sum(asked) == (24 + 6) + (6 + 6) + 2 * (24 + 6)
        assert sum(told) == check_study(
            recipe, model=str(model_folder), base=str(base_folder)
        ).answers  # fmt: skip
        assert again == whole
        assert not list(tmp_path.glob(".out*"))

    def test_other_inputs_are_sampled_anew(
        self, study: Callable[..., Study], model_folder: Path, base_folder: Path, tmp_path: Path
    ) -> None:
        """Parts of an interrupted study with another seed are not taken for this one's."""
        recipe = self.recipe(study, tmp_path, seed=6)
        whole = ran(recipe, model_folder, base_folder, tmp_path / "whole")

        def stop(count: int) -> None:
            raise Stop

        checked = check_study(
            self.recipe(study, tmp_path), model=str(model_folder), base=str(base_folder)
        )
        parts = tmp_path / ".out.parts"
        engines = engines_of(checked.study, checked.models)
        for _ in draws.draws_of(checked.study, checked.tasks, engines, parts, lambda n: None):
            pass
        assert len(list(parts.iterdir())) == 6
        assert ran(recipe, model_folder, base_folder, tmp_path / "out") == whole

    def test_how_many_prompts_a_call_takes_changes_nothing(
        self, study: Callable[..., Study], model_folder: Path, base_folder: Path, tmp_path: Path,
        write_rows: WriteRows, monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        """Two items ask the same: their samples differ, in one call or in several."""
        recipe = self.recipe(study, tmp_path)
        rows = [{"prompt": user(EQUATIONS[i % 4]), "id": str(i)} for i in range(6)]
        write_rows("tasks.jsonl", rows)
        together = ran(recipe, model_folder, base_folder, tmp_path / "together")
        monkeypatch.setattr(draws, "AT_ONCE", 1)
        assert ran(recipe, model_folder, base_folder, tmp_path / "apart") == together
        kept = [json.loads(line) for line in together["samples.jsonl"].splitlines()]
        said = {
            item: [r["text"] for r in kept
                   if r["item"] == item and r["temperature"] == 1.0 and r["round"] == 0]
            for item in ("0", "4")
        }  # fmt: skip
        assert said["0"] != said["4"]

    def test_page_draws_the_table(
        self, study: Callable[..., Study], model_folder: Path, base_folder: Path, tmp_path: Path
    ) -> None:
        recipe = self.recipe(study, tmp_path)
        files = ran(recipe, model_folder, base_folder, tmp_path / "out")
        found = json.loads(files["decode.json"])
        rows = [FrontierRow(**row) for row in found["rows"]]
        drawn = figure(recipe, rows)
        names = {note.text for note in drawn.layout.annotations}
        assert {"temperature 0.7 (serving)", "temperature 1", "base best", "trained pass",
                "base greedy refine"} <= names  # fmt: skip
        line = next(trace for trace in drawn.data if trace.name == "trained best")
        best = [r for r in rows if r.model == "model" and r.temperature == 0.7
                and r.method in ("sample", "best")]  # fmt: skip
        assert list(line.x) == [row.tokens for row in best]
        assert list(line.y) == [row.accuracy for row in best]
        assert [row.k for row in best] == [1, 2, 4]
        assert drawn.layout.xaxis.type == "log"
        for name in drawn.layout.annotations:
            if name.yref == "y":  # inside the axes, or plotly hides it
                assert drawn.layout.yaxis.range[0] < name.y < drawn.layout.yaxis.range[1]
                assert drawn.layout.xaxis.range[0] < name.x < drawn.layout.xaxis.range[1]
        page = (tmp_path / "out/decode.html").read_text()
        assert found["sentences"][1].split(";")[0][:60] in page.replace("&#x27;", "'")
        assert page.count("<tr>") == len(rows) + 1


class TestRefining:
    def test_a_chat_gets_the_answer_as_a_turn(self) -> None:
        asked = revision_prompt(Refine(instruction="Check."), user(EQUATIONS[0]), "x = 3")
        assert [m["role"] for m in asked] == ["user", "assistant", "user"]
        assert [m["content"] for m in asked][1:] == ["x = 3", "Check."]  # type: ignore[index]

    def test_a_text_gets_the_template_filled_once(self) -> None:
        refine = Refine(instruction="Check.", template="{prompt}|{completion}|{instruction}")
        asked = revision_prompt(refine, "Say {completion}", "\\boxed{prompt} {prompt}")
        assert asked == "Say {completion}|\\boxed{prompt} {prompt}|Check."

    def test_the_models_read_what_was_refined(
        self, study: Callable[..., Study], model_folder: Path, base_folder: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        seen: list[str] = []
        generate = LocalEngine.generate

        def heard(self: LocalEngine, requests: Sequence[Request]) -> Any:
            for one in requests:
                if one.key.round == 1:
                    seen.append(self.tokenizer().decode(one.prompt.prompt_ids))
            return generate(self, requests)

        monkeypatch.setattr(LocalEngine, "generate", heard)
        recipe = study(refine={"instruction": "Check it."}, temperatures=[0.7])
        files = ran(recipe, model_folder, base_folder, tmp_path / "out")
        first = [json.loads(line) for line in files["samples.jsonl"].splitlines()]
        greedy = [
            r["text"]
            for r in first
            if r["model"] == "model" and r["temperature"] == 0 and r["round"] == 0
        ]
        assert len(seen) == 2 * 2 * 6
        assert len(set(greedy)) > 1
        for asked, e, text in zip(seen[12:18], EQUATIONS[:6], greedy, strict=True):
            turns = f"<|user|>{e.question}<|assistant|>{text}<|end|><|user|>Check it.<|assistant|>"
            assert asked == turns


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"serving_temperature": 0.5}, "add serving_temperature 0.5"),
    ({"temperatures": [0], "serving_temperature": 0}, "nothing to sample: add one above 0"),
    ({"temperatures": [0.7, 0.7]}, "a temperature appears twice"),
    ({"temperatures": [0.7, -1]}, "greater than or equal to 0"),
    ({"ks": [2, 8]}, "k = 8 needs as many samples, there are 4: raise samples or drop that k"),
    ({"ks": [2, 2]}, "a k appears twice"),
    ({"scores": []}, "at least 1 item"),
    ({"sampling": {"temperature": 0.7}}, "drop sampling.temperature"),
    ({"best_of": {"reward": [{"function": "exact_answer", "name": "again"}]}},
     "picking by it is pass@k"),
    ({"best_of": {"reward": [{"function": "length"}], "oracle": True}}, "drop oracle"),
    ({"samples": 1, "vote": "text"}, "vote chooses among several answers"),
    ({"ks": [1], "best_of": {"reward": [{"function": "length"}]}}, "best_of chooses among several"),
    ({"refine": {"answers": 5}}, "only 4 samples are drawn"),
    ({"refine": {"template": "{prompt} {question}"}}, "lacks {completion} and {instruction}"),
    ({"temperature": [0.7]}, "did you mean `temperatures`?"),
]  # fmt: skip


class TestMistakes:
    @pytest.mark.parametrize(("changes", "said"), MISTAKES)
    def test_in_the_study(
        self, study: Callable[..., Study], changes: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(RecipeError) as refused:
            study(**changes)
        assert said in str(refused.value)
        assert "study.yaml:" in str(refused.value)

    def test_no_scores(self, study: Callable[..., Study], tmp_path: Path) -> None:
        study()
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in STUDY.items() if k != "scores"}))
        with pytest.raises(RecipeError, match="missing key `scores`"):
            load(Study, path)

    def test_before_anything_is_sampled(
        self, study: Callable[..., Study], model_folder: Path, base_folder: Path, tmp_path: Path,
        write_rows: WriteRows,
    ) -> None:  # fmt: skip
        both = {"model": str(model_folder), "base": str(base_folder)}
        with pytest.raises(ModelError, match="same weights as the model"):
            check_study(study(), model=str(model_folder), base=str(model_folder))
        with pytest.raises(ModelError, match="no such model folder"):
            check_study(study(), model=str(tmp_path / "none"), base=str(base_folder))
        template = {"refine": {"template": "{prompt}{completion}{instruction}"}}
        with pytest.raises(RecipeError, match="every prompt of the data is a chat"):
            check_study(study(**template), **both)
        (tmp_path / "full").mkdir()
        (tmp_path / "full/mine").write_text("")
        with pytest.raises(OutputError, match="holds no decoding study"):
            run_study(check_study(study(), **both), tmp_path / "full")
        long = check_study(study(sampling={"max_tokens": 120}), **both)
        with pytest.raises(UsageError, match="the model reads 128"):
            run_study(long, tmp_path / "out")
        tasks = [{"prompt": "Solve", "answer": "1", "id": i} for i in (1, 2, 1)]
        recipe = study()
        write_rows("tasks.jsonl", tasks)
        with pytest.raises(DataError, match=r"l:3: this row has the `id` of .*tasks.jsonl:1, so"):
            check_study(recipe, **both)
        write_rows("tasks.jsonl", [{"prompt": "Solve"}])
        with pytest.raises(DataError, match="reads the column `answer`"):
            check_study(recipe, **both)
        few = [{"prompt": f"Solve {i}", "answer": "1", "cluster": i % 4} for i in range(8)]
        write_rows("tasks.jsonl", few)
        with pytest.raises(MissingEvidenceError, match="8 items are in 4 clusters"):
            check_study(recipe, **both)
        write_rows("tasks.jsonl", tasks[:1])
        with pytest.raises(UnscoredError, match="two are the least"):
            run_study(check_study(recipe, **both), tmp_path / "out")
        assert not (tmp_path / "out").exists()


class TestCommand:
    def invoke(self, *args: object) -> Any:
        app = typer.Typer(pretty_exceptions_enable=False)
        app.command("decode")(decode)
        return CliRunner().invoke(app, [str(arg) for arg in args])

    def test_table_json_and_dry_run(
        self, study: Callable[..., Study], planted: type[Planted], model_folder: Path,
        base_folder: Path, tmp_path: Path,
    ) -> None:  # fmt: skip
        study()
        said = [tmp_path / "study.yaml", "--model", model_folder, "--base", base_folder,
                "--output", tmp_path / "out"]  # fmt: skip
        dry = self.invoke(*said, "--dry-run")
        assert dry.output == "would sample 60 answers to 6 items\n"
        assert not (tmp_path / "out").exists()
        shown = self.invoke(*said)
        assert shown.exit_code == 0, shown.output
        lines = shown.output.splitlines()
        assert max(map(len, lines[:-1])) <= 100
        row = next(line for line in lines if "base" in line and " maj " in line)
        assert row.split() == ["base", "0.7", "maj", "2", "4.0", "0.500", "0.188", "-", "0.812"]
        found = json.loads(self.invoke(*said, "--json").output)
        assert found["items"] == 6
        assert len(found["rows"]) == 2 * (1 + 1 + 2 + 2)
        refused = self.invoke(*said, "--set", "ks=[64]")
        assert isinstance(refused.exception, RecipeError)
        assert refused.exception.exit_code == 2

    def test_the_widest_table_fits(self) -> None:
        row = FrontierRow("model", 0.75, "refine", 512, 1_234_567.8, 0.5, 0.4, 0.6, 0.4)
        from rich.console import Console

        console = Console(width=200)
        assert console.measure(table((row, row))).maximum <= 100


def test_the_documented_study_loads(tmp_path: Path) -> None:
    text = (ROOT / "docs/decoding.md").read_text()
    block = text.split("    # study.yaml\n")[1].split("\n\n")[0]
    path = tmp_path / "study.yaml"
    path.write_text("".join(line.removeprefix("    ") + "\n" for line in block.splitlines()))
    recipe = load(Study, path)
    assert recipe.counts == [2, 4, 8, 16]
    assert {*Study.model_fields} <= {word.strip("`:") for word in text.split()}
