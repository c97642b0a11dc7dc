"""The command line as a user meets it: own folder of JSONL, own tiny model, own mistakes."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from strop.cli.app import app
from strop.demo.world import all_equations, assistant, solution, user
from tests.support.processes import expect_refused, sets, strop
from tests.support.runs import WriteRows

ROWS = [{"prompt": user(e), "completion": assistant(solution(e))} for e in all_equations()[::97]]


def verbs(command: Any, *names: str) -> list[list[str]]:
    """Every verb that can be typed, groups of verbs left out: `["registry", "show"]`."""
    below = getattr(command, "commands", None)
    if below is None:
        return [list(names)]
    return [verb for name, inner in below.items() for verb in verbs(inner, *names, name)]


VERBS = verbs(typer.main.get_command(app))


@pytest.fixture
def recipe(tmp_path: Path, model_folder: Path, write_rows: WriteRows) -> Path:
    """An SFT recipe over a folder of JSONL."""
    (tmp_path / "data").mkdir()
    write_rows("data/rows.jsonl", ROWS)
    path = tmp_path / "sft.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "method": "sft",
                "output": "runs/sft",
                "model": {"path": str(model_folder)},
                "data": "data",
                "optim": {"learning_rate": 0.001},
                "run": {"steps": 3, "batch_size": 4},
            }
        )
    )
    return path


def cpu_seconds(*command: object, runs: int = 1) -> float:
    """The least CPU time of some runs: how long they wait for others does not count."""
    times = []
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *map(str, command)], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def test_help_is_fast() -> None:
    """Under 0.3 s, and hardly more than the two libraries that print it."""
    result = strop("--help")
    assert result.returncode == 0
    listed = re.findall(r"^[│ ]+([a-z][a-z-]*) {2,}", result.stdout, flags=re.M)
    assert sorted(listed) == sorted({verb[0] for verb in VERBS})
    bare = cpu_seconds("-c", "import typer, rich.console", runs=3)
    assert cpu_seconds("-m", "strop", "--help", runs=3) < max(0.3, 2 * bare)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, strop.cli.app; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"strop.cli.train", "typer"} <= set(found.stdout.split())
    assert not {"torch", "transformers", "numpy", "pydantic"} & set(found.stdout.split())


UNUSED = {"peft", "bitsandbytes", "datasets", "pyarrow", "pandas", "plotly", "trl", "matplotlib"}
"""Libraries that no first step of a plain recipe needs."""

FIRST_STEP = """
import os, sys, time
from strop.cli import main, show

def stop(progress, record):
    print(time.process_time(), *sys.modules, flush=True)
    os._exit(0)

show.Progress.step = stop
main()
"""


@pytest.mark.parametrize("method", ["sft", "dpo", "grpo"])
def test_the_first_step_comes_soon(method: str, recipes: dict[str, Path]) -> None:
    """Nearly all of the time before it is what torch and transformers take to be imported."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        [sys.executable, "-c", FIRST_STEP, "train", str(recipes[method])],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    seconds, *modules = found.stdout.splitlines()[-1].split()
    assert "torch" in modules
    assert not UNUSED & set(modules)
    if method == "dpo":
        bare = cpu_seconds("-c", "from transformers import Qwen3ForCausalLM")
        assert float(seconds) < 1.7 * bare


@pytest.mark.parametrize("verb", [["eval"], *VERBS], ids=" ".join)  # `strop eval suite.yaml`
def test_every_verb_has_an_example(verb: list[str]) -> None:
    result = strop(*verb, "--help")
    assert result.returncode == 0
    assert f"Example: strop {' '.join(verb)}" in " ".join(result.stdout.replace("│", "").split())


def test_train_on_ones_own_folder(recipe: Path) -> None:
    result = strop("train", recipe)
    assert result.returncode == 0, result.stderr
    final = recipe.parent / "runs/sft/final"
    assert f"saved {final}" in result.stdout
    assert "step 3/3" in result.stdout
    tokenizer = AutoTokenizer.from_pretrained(final)
    model = AutoModelForCausalLM.from_pretrained(final)
    ids = tokenizer("Solve", return_tensors="pt")
    assert model.generate(**ids, max_new_tokens=3).shape[1] > 1


def test_json_lines(recipe: Path) -> None:
    lines = strop("train", recipe, "--json").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["step"] for row in rows[:-1]] == [1, 2, 3]
    final = str(recipe.parent / "runs/sft/final")
    assert rows[-1] == {"final": final, "finished_before": False}


LINES = {"train", "run", "show", "sweep", "demo", "registry verify", "registry diff",
         "registry attempts"}  # fmt: skip
"""Verbs that print a row for each of several things; all others print one value."""


def test_the_help_of_json_says_what_is_printed() -> None:
    said = {}
    for verb in [["eval", "suite"], *VERBS]:
        command: Any = typer.main.get_command(app)
        for name in verb:
            command = command.commands[name]
        said |= {" ".join(verb): one.help for one in command.params if "--json" in one.opts}
    assert {verb for verb, words in said.items() if "JSON lines" in words} == LINES
    assert said["reward probe"] == "Print one JSON array for machines."
    assert said["registry show"] == "Print one JSON object for machines."


def test_dry_run_writes_nothing(recipe: Path) -> None:
    result = strop("train", recipe, "--dry-run", "--json")
    plan = json.loads(result.stdout)
    assert (plan["steps"], plan["records"], plan["ends_in_eos"]) == (3, len(ROWS), 1.0)
    assert not (recipe.parent / "runs").exists()


class TestMistakes:
    def run(self, recipe: Path, *settings: str) -> subprocess.CompletedProcess[str]:
        return strop("train", recipe, *sets(*settings))

    def test_misspelt_key(self, recipe: Path) -> None:
        text = recipe.read_text().replace("learning_rate", "lerning_rate")
        recipe.write_text(text)
        line = next(i for i, row in enumerate(text.splitlines(), 1) if "lerning_rate" in row)
        result = self.run(recipe)
        expect_refused(result, f"sft.yaml:{line}", "did you mean `learning_rate`?",
                       output=recipe.parent / "runs")  # fmt: skip

    def test_unknown_method(self, recipe: Path) -> None:
        expect_refused(self.run(recipe, "method=stf"), "unknown method 'stf'", "'sft'")

    def test_broken_line(self, recipe: Path) -> None:
        with (recipe.parent / "data/rows.jsonl").open("a") as stream:
            stream.write('{"prompt": \n')
        expect_refused(self.run(recipe), f"rows.jsonl:{len(ROWS) + 1}: broken JSON", "fix:",
                       output=recipe.parent / "runs")  # fmt: skip

    def test_wrong_columns(self, recipe: Path) -> None:
        expect_refused(self.run(recipe, "method=dpo", "optim.learning_rate=1e-6"),
                       "rows.jsonl:1: wrong columns for pref", "fits methods sft")  # fmt: skip

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"prompt": "a", "chosen": "", "rejected": "b"}, "`chosen` is empty"),
            ({"prompt": "a", "chosen": "b", "rejected": "b"}, "chosen equals rejected"),
        ],
    )
    def test_bad_pairs(
        self, recipe: Path, write_rows: WriteRows, row: dict[str, str], message: str
    ) -> None:
        write_rows("data/rows.jsonl", [row])
        result = self.run(recipe, "method=dpo", "optim.learning_rate=1e-6")
        expect_refused(result, f"rows.jsonl:1: {message}", output=recipe.parent / "runs")

    def test_model_folder_without_weights(
        self, recipe: Path, model_folder: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(model_folder, tmp_path / "empty")
        (tmp_path / "empty/model.safetensors").unlink()
        expect_refused(self.run(recipe, "model.path=empty"), "no safetensors weights", "fix:",
                       output=recipe.parent / "runs")  # fmt: skip

    def test_no_model_folder(self, recipe: Path) -> None:
        expect_refused(self.run(recipe, "model.path=./nowhere"), "nowhere", "fix:")

    def test_tokenizer_without_a_template(
        self, recipe: Path, model_folder: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(model_folder, tmp_path / "plain")
        (tmp_path / "plain/chat_template.jinja").unlink()
        expect_refused(self.run(recipe, "model.path=plain"), "rows.jsonl:1", "no chat template",
                       output=recipe.parent / "runs")  # fmt: skip

    def test_a_reward_that_raises_stops_the_run_when_it_never_scores(
        self, recipe: Path, write_rows: WriteRows
    ) -> None:
        (recipe.parent / "rewards.py").write_text("def f(**_): raise KeyError('answer')")
        write_rows("data/rows.jsonl", [{"prompt": "a"}])
        result = self.run(recipe, "method=grpo", "rollout.max_tokens=8",
                          "reward=[{function: f, file: rewards.py}]")  # fmt: skip
        assert result.returncode == 1
        assert "none of 32 completions could be scored: f: KeyError: 'answer'" in result.stderr
        assert "Traceback" not in result.stderr

    def test_a_reward_that_raises_sometimes_is_counted(
        self, recipe: Path, write_rows: WriteRows
    ) -> None:
        (recipe.parent / "rewards.py").write_text(
            "def f(prompts, completions, **_):\n"
            "    return [None if i % 4 == 0 else i % 4 for i in range(len(completions))]\n"
        )
        write_rows("data/rows.jsonl", [{"prompt": "a"}])
        given = sets("method=grpo", "rollout.max_tokens=8", "run.steps=1",
                     "reward=[{function: f, file: rewards.py}]")  # fmt: skip
        result = strop("train", recipe, "--json", *given)
        assert json.loads(result.stdout.splitlines()[0])["skipped/unscored"] == 8

    def test_unwritten_options(self, recipe: Path) -> None:
        result = strop("train", recipe, "--frobnicate")
        assert result.returncode == 2
        assert "Traceback" not in result.stderr

    @pytest.mark.parametrize(
        "args",
        [["gate", "--base", "a", "--candidate", "b"],
         ["gate", "--base", "a", "--candidate", "b", "--margin", "7"],
         ["gate", "--base", "a.jsonl", "--candidate", "b.jsonl", "--margin", "0.1"],
         ["registry", "show", "x"],
         ["registry", "promote", "nowhere", "--entry", "x"],
         ["run", "nowhere.yaml"],
         ["eval", "nowhere.yaml", "--model", "m", "--output", "o"]],
        ids=lambda args: " ".join(args[:2]),
    )  # fmt: skip
    def test_other_verbs(self, args: Sequence[str], tmp_path: Path) -> None:
        expect_refused(strop(*args, cwd=tmp_path))
        assert list(tmp_path.iterdir()) == []


def test_doctor_finds_the_tree_forward_exact() -> None:
    result = strop("doctor", "--json")
    found = json.loads(result.stdout)
    assert result.returncode == 0
    assert found["ok"]
    assert found["tree_forward_difference"] < 1e-5


def test_closed_pipe(recipe: Path) -> None:
    command = f"{sys.executable} -m strop train {recipe} --json | head -1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in result.stderr
