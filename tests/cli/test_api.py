"""The functions of `strop`: recipes in every form, own rewards, results as tables and curves."""

from __future__ import annotations

import hashlib
import inspect
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml

import strop
from strop.errors import OutputError, RecipeError, RegistryError, RewardError, UsageError
from strop.recipe.loading.load import load_recipe
from strop.results import RaisedAlarm
from strop.types import Check, Slice, StepRecord, Verdict
from tests.support.runs import metrics

Recipes = dict[str, Path]

ORDERS = {
    "the function first": "import strop; strop.train; from strop.train.run import train",
    "the package first": "from strop.train.run import train; import strop",
    "the package by its path": "import strop.train.run as deep; train = deep.train; import strop",
    "the name from the package": "from strop import train as t; from strop.train.run import train; "
    "import strop; assert t is strop.train",
}


IN_EVERY_ORDER = """
import inspect, sys
import strop.api

for order in sys.argv[1:]:
    for name in [name for name in sys.modules if name.partition(".")[0] == "strop"]:
        del sys.modules[name]  # libraries stay: they take seconds to be imported
    exec(order)
    assert inspect.isfunction(train) and train.__module__ == "strop.train.run"
    assert strop.train.run.train is train
    assert list(inspect.signature(strop.train).parameters)[:2] == ["recipe", "overrides"]
    try:
        strop.train("nowhere.yaml")
    except strop.StropError as error:
        print(error.where)
"""


def test_train_is_a_function_and_a_package() -> None:
    """`strop.train` can be called and `strop.train.run` be imported, whichever comes first."""
    found = subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", IN_EVERY_ORDER, *ORDERS.values()],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.stderr == ""
    assert found.stdout == "nowhere.yaml\n" * len(ORDERS)


def test_importing_strop_imports_nothing_heavy() -> None:
    code = "import sys, strop; strop.StropError, strop.train; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(found.stdout.split())
    assert {"strop.errors", "strop.train"} <= modules
    assert not {"torch", "transformers", "numpy", "pydantic", "strop.api"} & modules


class TestRecipes:
    """A file, a dictionary and an object are the same recipe."""

    def test_every_form_is_the_same_recipe(
        self, recipes: Recipes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = recipes["dpo"]
        monkeypatch.chdir(path.parent)
        values = yaml.safe_load(path.read_text())
        values["model"]["path"] = Path(values["model"]["path"])
        before = repr(values)
        changes = {"optim.learning_rate": 2e-5, "run.steps": 1}
        texts = [f"{name}={value}" for name, value in changes.items()]
        forms = [
            load_recipe(path, texts),
            strop.load_recipe(str(path), changes),
            strop.load_recipe(values, changes),
            strop.load_recipe(strop.load_recipe(values), changes),
        ]
        assert [one.plain() for one in forms] == [forms[0].plain()] * 4
        assert forms[0].optim.learning_rate == 2e-5
        assert repr(values) == before
        assert strop.load_recipe(forms[0]) is forms[0]

    def test_a_file_is_the_folder_of_its_paths_and_a_dictionary_is_not(
        self, recipes: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        values = yaml.safe_load(recipes["sft"].read_text())
        assert strop.load_recipe(recipes["sft"]).output == str(tmp_path / "runs/sft")
        assert strop.load_recipe(values).output == str(tmp_path / "elsewhere/runs/sft")

    def test_mistakes_in_a_dictionary(self, recipes: Recipes) -> None:
        values = yaml.safe_load(recipes["sft"].read_text())
        for wrong, said in (
            ({"optm": {}}, "the recipe: unknown key `optm`.*did you mean `optim`"),
            ({"method": "stf"}, "the recipe: unknown method 'stf'"),
            ({"run": {"steps": -1}}, "the recipe: `run.steps`: .*greater than or equal to 1"),
        ):
            with pytest.raises(RecipeError, match=rf"(?s){said}"):
                strop.train({**values, **wrong})
        with pytest.raises(RecipeError, match="holds no keys"):
            strop.train(values, overrides={"seed.deep": 1})


def shorter(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
    return [-float(len(c[-1]["content"])) for c in completions]


def another_shorter() -> Callable[..., list[float | None]]:
    """A function of the same name, with another source."""

    def shorter(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        return [-2.0 * len(c[-1]["content"]) for c in completions]

    return shorter


def killed_at_3(record: StepRecord) -> None:
    if record.step == 3:
        raise KeyError("killed")


def halves(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
    return [0.5 for _ in completions]


def compute_score(
    data_source: Any, solution_str: str, ground_truth: str, extra_info: Any = None
) -> float:
    return float(len(solution_str)) + float(ground_truth)


class TestRewards:
    """A function of the user's script takes the place of one in a file."""

    def test_it_trains_as_the_same_function_in_a_file_does(self, recipes: Recipes) -> None:
        in_file = strop.train(recipes["grpo"], overrides={"output": "runs/file", "run.steps": 2})
        given = strop.train(
            recipes["grpo"],
            overrides={"output": "runs/given", "run.steps": 2, "reward": [{"function": "shorter"}]},
            rewards=[shorter],
        )
        assert metrics(given.folder) == metrics(in_file.folder)
        assert in_file.lineage["rewards"] != []
        assert "functions" not in in_file.lineage

    def test_lineage_keeps_its_name_and_source(self, recipes: Recipes) -> None:
        """A function that the recipe names counts as it says; one that it does not name, once."""
        run = strop.train(
            recipes["grpo"],
            overrides={"run.steps": 1, "reward": [{"function": "shorter", "weight": 0.25}]},
            rewards=[shorter, halves],
        )
        named = {"shorter": shorter, "halves": halves}
        hashes = {n: hashlib.sha256(inspect.getsource(f).encode()) for n, f in named.items()}
        wanted = [{"name": n, "sha256": h.hexdigest()[:16]} for n, h in hashes.items()]
        assert run.lineage["functions"] == wanted
        row = run.metrics.rows[0]
        assert row["rewards/halves/mean"] == 0.5
        assert row["reward"] == pytest.approx(0.25 * row["rewards/shorter/mean"] + 0.5)
        resolved = yaml.safe_load((run.folder / "recipe.resolved.yaml").read_text())
        assert [one["function"] for one in resolved["reward"]] == ["shorter", "halves"]

    def test_a_run_goes_on_with_the_same_function_alone(self, recipes: Recipes) -> None:
        asked: dict[str, Any] = {"reward": []}
        whole = strop.train(
            recipes["grpo"], overrides={**asked, "output": "runs/whole"}, rewards=[shorter]
        )
        with pytest.raises(KeyError, match="killed"):
            strop.train(recipes["grpo"], overrides=asked, rewards=[shorter], on_step=killed_at_3)
        go_on = partial(strop.train, recipes["grpo"], overrides=asked)
        with pytest.raises(OutputError, match=r"other functions than there are now.*\n.*shorter"):
            go_on(rewards=[another_shorter()], resume=True)
        run = go_on(rewards=[shorter], resume=True)
        assert metrics(run.folder) == metrics(whole.folder)
        assert "forced" not in run.lineage

    def test_a_held_out_reward_may_be_one_too(self, recipes: Recipes) -> None:
        held_out = {"data": "tasks.jsonl", "every": 1, "reward": [{"function": "halves"}]}
        run = strop.train(
            recipes["grpo"],
            overrides={"run.steps": 1, "eval": held_out, "reward": []},
            rewards=[shorter, halves],
        )
        assert run.metrics["eval_reward"].values == (0.5,)

    def test_verl_functions_are_read_as_such(self, recipes: Recipes) -> None:
        run = strop.train(
            recipes["grpo"], overrides={"run.steps": 1, "reward": []}, rewards=[compute_score]
        )
        assert run.metrics["rewards/compute_score/mean"].values[0] > 0

    @pytest.mark.parametrize(
        ("functions", "message"),
        [
            ([lambda prompts, completions: [1.0]], "no plain function with a name"),
            ([partial(shorter)], "no plain function with a name"),
            ([shorter, shorter], "two reward functions have one name"),
        ],
        ids=["lambda", "partial", "twice"],
    )
    def test_what_is_no_reward_is_refused(
        self, recipes: Recipes, functions: list[Any], message: str
    ) -> None:
        with pytest.raises(UsageError, match=message):
            strop.train(recipes["grpo"], rewards=functions)
        assert not (recipes["grpo"].parent / "runs").exists()

    def test_names_that_mean_something_else(self, recipes: Recipes) -> None:
        def length(prompts: Any, completions: Any) -> list[float]:
            return [1.0 for _ in completions]

        with pytest.raises(RewardError, match="length is a reward that strop has"):
            strop.train(recipes["grpo"], rewards=[length])
        with pytest.raises(RecipeError, match="method sft learns from no reward"):
            strop.train(recipes["sft"], rewards=[shorter])

    def test_a_function_without_a_source_is_refused(self, recipes: Recipes) -> None:
        names: dict[str, Any] = {}
        exec("def typed(prompts, completions, **columns):\n    return [1.0]", names)
        with pytest.raises(UsageError, match="the source of typed cannot be read"):
            strop.train(recipes["grpo"], rewards=[names["typed"]])
        assert not (recipes["grpo"].parent / "runs/grpo/final").exists()


def my_hinge(
    policy_chosen: torch.Tensor,
    policy_rejected: torch.Tensor,
    ref_chosen: torch.Tensor,
    ref_rejected: torch.Tensor,
    *,
    beta: float,
) -> torch.Tensor:
    margin = (policy_chosen - ref_chosen) - (policy_rejected - ref_rejected)
    return (1 - beta * margin).clamp(min=0)


def mean_hinge(*four: torch.Tensor) -> torch.Tensor:
    return my_hinge(*four, beta=0.1).mean()


class TestLoss:
    """A function of the user's script takes the place of DPO's loss."""

    def test_it_trains_as_the_same_loss_of_strop_does(self, recipes: Recipes) -> None:
        changes = {"run.steps": 3, "objective.beta": 0.2}
        built_in = strop.train(recipes["hinge"], overrides=changes)
        plain = strop.train(recipes["dpo"], overrides={**changes, "eval": None})
        run = strop.train(
            recipes["dpo"], overrides={**changes, "eval": None, "output": "runs/own"}, loss=my_hinge
        )
        assert metrics(run.folder) == metrics(built_in.folder)
        assert metrics(run.folder) != metrics(plain.folder)  # nothing of it stays behind
        source = inspect.getsource(my_hinge).encode()
        named = {"name": "my_hinge", "sha256": hashlib.sha256(source).hexdigest()[:16]}
        assert run.lineage["functions"] == [named]
        assert "functions" not in plain.lineage

    def test_what_does_not_fit_is_refused(self, recipes: Recipes) -> None:
        with pytest.raises(UsageError, match=r"mean_hinge returned \[\] where the shape is \[1\]"):
            strop.train(recipes["dpo"], loss=mean_hinge)
        with pytest.raises(RecipeError, match="method hinge takes no loss of your own"):
            strop.train(recipes["hinge"], loss=my_hinge)
        with pytest.raises(RecipeError, match=r"my_hinge does not read objective\.label_smoothing"):
            strop.train(recipes["dpo"], overrides={"objective.label_smoothing": 0.1}, loss=my_hinge)
        with pytest.raises(UsageError, match="no plain function"):
            strop.train(recipes["dpo"], loss=partial(my_hinge, beta=0.1))


class TestTrain:
    def test_progress_and_result(self, recipes: Recipes) -> None:
        seen: list[StepRecord] = []
        run = strop.train(recipes["dpo"], on_step=seen.append)
        assert [(record.step, record.total) for record in seen] == [(n, 6) for n in range(1, 7)]
        losses = tuple(record.metrics["loss"] for record in seen)
        assert run.metrics["loss"] == (tuple(range(1, 7)), losses)
        assert run.final == recipes["dpo"].parent / "runs/dpo/final"
        again = strop.train(recipes["dpo"], resume=True, on_step=seen.append)
        assert again == run
        assert len(seen) == 6  # the run was finished before

    def test_the_bars_of_transformers_are_as_they_were(self, recipes: Recipes) -> None:
        transformers.logging.enable_progress_bar()
        try:
            during: list[bool] = []
            strop.train(
                recipes["sft"], overrides={"run.steps": 1},
                on_step=lambda _: during.append(transformers.logging.is_progress_bar_enabled()),
            )  # fmt: skip
            assert during == [False]
            assert transformers.logging.is_progress_bar_enabled()
        finally:
            transformers.logging.disable_progress_bar()

    def test_another_thread_is_refused(self, recipes: Recipes) -> None:
        met: list[Exception] = []

        def start() -> None:
            try:
                strop.train(recipes["sft"])
            except strop.StropError as error:
                met.append(error)

        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
        assert "only be started in the main thread" in str(met[0])

    def test_mistakes_are_those_of_the_command_line(self, recipes: Recipes) -> None:
        strop.train(recipes["sft"], overrides={"run.steps": 1})
        with pytest.raises(OutputError, match="this recipe already ran into this folder"):
            strop.train(recipes["sft"], overrides={"run.steps": 1})


ROWS = (
    {"step": 0, "dev/accuracy": 0.25},
    {"step": 1, "loss": 2.0, "step_time": 0.1, "eval_loss": 2.5},
    {"step": 2, "loss": None, "step_time": 0.1},
    {"step": 3, "loss": 1.0, "step_time": 0.1, "alarms": [["warn", "entropy fell"]]},
)


class TestResults:
    def test_a_column_is_a_curve(self) -> None:
        log = strop.Metrics(ROWS)
        assert log["loss"] == strop.Curve(steps=(1, 3), values=(2.0, 1.0))
        assert log["dev/accuracy"].steps == (0,)
        assert log.names == ["loss", "dev/accuracy", "eval_loss", "step_time"]
        assert log.table.rows == (
            ("loss", "2", "1", "1", "2"),
            ("dev/accuracy", "0.25", "0.25", "0.25", "0.25"),
            ("eval_loss", "2.5", "2.5", "2.5", "2.5"),
        )
        with pytest.raises(UsageError, match=r"no metric 'los'.*\n.*did you mean 'loss'"):
            log["los"]

    def test_a_plot_shows_what_was_asked(self) -> None:
        figure = strop.Metrics(ROWS).plot("loss")
        assert [panel.text for panel in figure.layout.annotations] == ["loss"]
        drawn = {trace.name: (tuple(trace.x), tuple(trace.y)) for trace in figure.data}
        assert drawn == {"loss": ((1, 3), (2.0, 1.0)), "eval_loss": ((1,), (2.5,))}
        whole = strop.Metrics(ROWS).plot()
        assert [panel.text for panel in whole.layout.annotations] == ["loss", "dev/accuracy"]

    def test_a_run_that_goes_on(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="is no folder of a run"):
            strop.TrainResult(tmp_path)
        (tmp_path / "lineage.json").write_text('{"method": "sft"}')
        run = strop.TrainResult(str(tmp_path))
        assert len(run.metrics) == 0
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        assert list(run.metrics) == list(ROWS)
        assert run.alarms == (RaisedAlarm(3, "warn", "entropy fell"),)
        assert "alarm at step 3 (warn): entropy fell" in str(run)
        assert run.title == f"sft: 3 steps, not finished: {tmp_path}"
        with pytest.raises(OutputError, match="not finished"):
            run.final  # noqa: B018 - reading it is the test

    def test_a_gate_says_why_in_100_columns(self) -> None:
        sentence = "Inconclusive: " + " ".join(["it fell"] * 20)
        checks = (
            Check("a/rather/long/name/of/a/score/for/a/column", "target", 0.01, -0.02, 0.04, 0.0,
                  "inconclusive", 40, 900, 0.05, "tango", 0.4, 0.41, lost=3, gained=4),
            Check("drift/greedy/length", "band", 1.1, 1.05, 1.15, 0.8, "pass", 40, None, None,
                  "ratio", 20.0, 22.0, upper=1.25),
        )  # fmt: skip
        slices = (Slice("a", "topic", "<b>", 9, -0.1, -0.2, 0.0, 0.2),)
        found = Verdict("inconclusive", sentence, checks, slices, ("attempt 2 on these items",))
        result = strop.GateResult(found, "release")
        text = str(result)
        assert max(map(len, text.splitlines())) <= 100
        assert text.startswith("policy release\nInconclusive: it fell")
        for said in ("+0.010", "[-0.020, +0.040]", "x1.100", "0.8 to 1.25", "900 would do",
                     "40 items show 0.050", "note: attempt 2", "topic=<b>: -0.100"):  # fmt: skip
            assert said in text
        assert (result.passed, result.verdict) == (False, "inconclusive")
        page = result._repr_html_()
        assert "<td>drift/greedy/length</td><td>band</td><td>x1.100</td>" in page
        assert "topic=&lt;b&gt;" in page
        assert "<b>" not in page


SUITE = {
    "name": "equations",
    "tasks": [
        {"kind": "generate", "name": "greedy", "data": "tasks.jsonl",
         "scores": [{"function": "exact_answer"}], "sampling": {"temperature": 0, "max_tokens": 4}},
        {"kind": "preference", "name": "pairs", "data": "pairs.jsonl"},
    ],
}  # fmt: skip


def test_evaluate_gate_and_promote(
    recipes: Recipes, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verdict within a wide margin: a pass, for exactly the weights that were measured."""
    monkeypatch.chdir(recipes["sft"].parent)
    counted: list[tuple[str, int, int]] = []
    run = strop.train(recipes["sft"], overrides={"run.steps": 1})
    before = strop.evaluate(SUITE, model_folder, output="evals/base",
                            on_part=lambda *part: counted.append(part))  # fmt: skip
    tasks = len(recipes["sft"].with_name("tasks.jsonl").read_text().splitlines())
    assert ("greedy", tasks, tasks) in counted
    assert set(before.scores) == {"greedy/exact_answer", "pairs"}
    judged = [record.score for record in before.records if record.task == "pairs"]
    assert before.scores["pairs"] == pytest.approx(sum(map(float, judged)) / tasks)  # type: ignore[arg-type]
    assert strop.EvalResult("evals/base") == before
    assert before.table.rows[1][2:] == (str(tasks), "0")
    assert max(map(len, str(before).splitlines())) <= 100

    after = strop.evaluate(SUITE, run, output="evals/sft", reference=model_folder)
    assert after.summary["model"]["path"] == str(run.final)
    assert after.kl is None  # nothing was sampled above temperature 0
    guards = [{"score": name, "margin": 0.9} for name in before.scores]
    policy = {"guardrails": guards, "refuse_overlap": False}
    unwritten = strop.gate(before, after, policy=policy, registry=None)
    with pytest.raises(UsageError, match="written nowhere"):
        strop.promote(run, "equations", verdict=unwritten)
    good = strop.gate(before, after, policy=policy, output="gates/sft.json")
    assert good.passed
    assert "67 of 67 items are in the training data" in " ".join(str(good).split())
    assert "attempt" not in str(good)  # the first one was not recorded
    with pytest.raises(RegistryError, match="for other weights"):
        strop.promote(model_folder, "equations", verdict=good)
    made = strop.promote(run, "equations", verdict=good)
    assert str(made).startswith(f"equations is now {made.entry.id}\n")
    assert "attempt 2 on these items" in str(strop.gate("evals/base", before, margin=0.9))


def test_whom_to_measure(recipes: Recipes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recipes["sft"].parent)
    with pytest.raises(UsageError, match="no engine to measure"):
        strop.evaluate(SUITE, output="evals/none")
    with pytest.raises(UsageError, match="answers already given"):
        strop.evaluate(SUITE, "model", outputs="answers.jsonl", output="evals/none")
    with pytest.raises(UsageError, match="exactly one of"):
        strop.gate("evals/a", "evals/b")
