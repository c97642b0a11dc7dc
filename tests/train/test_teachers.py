"""Teachers: what they read, which are refused, how the dev suite measures them, what rings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from strop.demo.model import train_tokenizer
from strop.demo.world import all_equations, assistant, solution, user
from strop.engines.served.fixed import FixedEngine
from strop.engines.server.app import engine_app
from strop.errors import (
    DataError,
    ModelError,
    OutputError,
    RecipeError,
    StropError,
    UsageError,
)
from strop.model.teacher import LocalTeacher, in_common
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.alarm import DistilAlarms, GkdAlarms
from strop.recipe.train.engine import HoldersRecipe
from strop.recipe.train.teacher import View
from strop.text.render import prompts_ids
from strop.train.monitor.alarms import AlarmWatch
from strop.train.preflight.prepare import prepare
from strop.train.run import train
from strop.train.teachers.served import ServedTeacher
from strop.train.teachers.view import Informed
from strop.types import Task
from tests.support.engine_servers import engine_server
from tests.support.models import sharp_model
from tests.support.runs import (
    EQUATIONS,
    TAUGHT,
    Finished,
    WriteRows,
    break_off,
    final_weights,
    metrics,
    same,
)
from tests.support.sglang_app import Sglang
from tests.support.teaching import OWN, hinted_rows, teacher_of

STEPS = "run.steps=4"


@pytest.fixture
def hinted(write_rows: WriteRows) -> tuple[str, str]:
    """Demonstrations and tasks with a column that tells the teacher more."""
    return hinted_rows(write_rows)


class TestInformed:
    """The same model as its own teacher, which is told the answer."""

    def test_its_trunk_is_the_columns_prompt_and_its_rows_are_the_students(
        self, recipes: dict[str, Path], hinted: tuple[str, str], tokenizer: Any
    ) -> None:
        recipe = load_recipe(recipes["distil"], [hinted[0], "eval=null", OWN])
        prepared = prepare(recipe, resume=False, overwrite=True, force=False)
        informed = Informed(View(prompt="hinted"), tokenizer)
        rendered = prepared.rendered
        for place in range(3):
            own, record = rendered.trees[place], rendered.records[place]
            read = informed.tree(own, record)
            told = Task(record.columns["hinted"], {}, record.origin)
            assert read.trunk == prompts_ids(tokenizer, [told])[0]
            assert read.trunk != own.trunk
            assert read.branches == own.branches

    @pytest.mark.parametrize("method", TAUGHT)
    @pytest.mark.parametrize("own", ["start", "current"])
    def test_learns_and_resumes_to_the_bit(
        self, method: str, own: str, finished: Finished, recipes: dict[str, Path],
        hinted: tuple[str, str],
    ) -> None:  # fmt: skip
        data = hinted[method in ("on_policy_distil", "minillm")]
        options = [STEPS, data, "eval=null", f"teacher={{own: {own}, prompt: hinted}}"]
        whole = finished(method, *options)
        recipe = load_recipe(recipes[method], options)
        break_off(recipe, 3)
        parts = train(recipe, resume=True).parent
        assert same(final_weights(whole), final_weights(parts))
        assert abs(metrics(whole)[0]["teacher/divergence"]) > 1e-3

    def test_a_system_prompt_that_the_student_does_not_see(self, finished: Finished) -> None:
        run = finished("distil", STEPS, "teacher={own: start, system: Answer with the number.}")
        assert metrics(run)[0]["loss"] > 1e-3

    def test_lora_learns_from_the_model_below_it(
        self, finished: Finished, hinted: tuple[str, str]
    ) -> None:
        informed = "teacher={own: start, prompt: hinted}"
        options = ("model.lora.rank=4", hinted[0], "eval=null", informed)
        whole = finished("distil", STEPS, *options)
        full = finished("distil", STEPS, *options[1:])
        first, other = (metrics(run)[0]["loss"] for run in (whole, full))
        assert first == pytest.approx(other, rel=1e-5)  # a fresh adapter changes nothing


class TestBesideTheRest:
    def test_demonstrations_are_replayed_beside_it(
        self, finished: Finished, recipes: dict[str, Path]
    ) -> None:
        folder = recipes["distil"].parent
        data = (
            f"data=[{{path: {folder}/tasks.jsonl, weight: 3}}, "
            f"{{path: {folder}/sft.jsonl, weight: 1}}]"
        )
        row = metrics(finished("minillm", STEPS, data))[0]
        assert row["replay/loss"] > 0

    def test_lora_students_of_a_larger_teacher(self, finished: Finished) -> None:
        for method in TAUGHT:
            rows = metrics(finished(method, STEPS, "model.lora.rank=4"))
            assert rows[-1]["grad_norm"] > 0


def checked(path: Path, *options: str) -> None:
    """Everything that is looked at before a run."""
    prepare(load_recipe(path, options), resume=False, overwrite=True, force=False)


SERVED = ", engine: {kind: vllm, url: 'http://127.0.0.1:1'}"
REFUSED = [
    ("distil", "objective={divergence: forward_kl, beta: 0.3}", "forward_kl does not read beta"),
    ("distil", "objective={beta: 0.3}", "set divergence to generalized_js"),
    ("distil", "objective={divergence: generalized_js, alpha: 0.3}", "does not read alpha"),
    ("distil", "objective={top_k: 8, temperature: 2}", "no temperature can be taken of"),
    ("distil", "teacher={recorded: a.safetensors}", "no recorded log-probs can be read"),
    ("distil", "teacher={own: start}", "nothing to teach"),
    ("distil", "teacher={own: start, prompt: a, system: b}", "drop system"),
    ("distil", "teacher={size: 7}", "a teacher is a folder"),
    ("gkd", "teacher={recorded: a.safetensors}", "not written yet"),
    ("gkd", "objective={own_samples: 0}", "rollout is not read"),
    ("on_policy_distil", "objective={teacher_weight: 2}", "there is none"),
    ("on_policy_distil", "rollout.resample=2", "equal groups teach as well"),
    ("on_policy_distil", "rollout.overlong_buffer=4", "works on a reward, and there is none"),
    ("on_policy_distil", "rollout.curriculum={}", "works on a reward, and there is none"),
    ("on_policy_distil", "alarms.length_pay={threshold: 0.4}", "could pay for length"),
    ("on_policy_distil", "alarms.zero_variance={threshold: 0.4}", "learns from equal groups"),
    ("minillm", "reward=[{function: exact_answer}]", "learns from its teacher alone"),
]


@pytest.mark.parametrize(("method", "override", "message"), REFUSED)
def test_what_would_have_no_effect(
    method: str, override: str, message: str, recipes: dict[str, Path]
) -> None:
    with pytest.raises((RecipeError, DataError), match=message):
        checked(recipes[method], override)


@pytest.mark.parametrize(
    ("method", "more", "options", "message"),
    [
        ("distil", SERVED, (), "servers give log-probs of given tokens alone"),
        ("gkd", SERVED, (), "servers give log-probs of given tokens alone"),
        ("minillm", SERVED, (), "servers give log-probs of given tokens alone"),
        ("on_policy_distil", SERVED, ("rollout.temperature=0.7",), "score at temperature 1"),
        ("on_policy_distil", f", quantize: nf4{SERVED}", (), "the servers' own"),
        ("minillm", ", system: Think", ("objective.mix=0.2",), "after the same prompt"),
    ],
)
def test_a_teacher_that_cannot_give_what_the_method_reads(
    method: str, more: str, options: Sequence[str], message: str, recipes: dict[str, Path]
) -> None:
    teacher = recipes["distil"].parent / "teacher"
    named = f"teacher={{path: {teacher}{more}}}"
    with pytest.raises(RecipeError, match=message):
        checked(recipes[method], named, *options)


def test_the_starting_model_has_nothing_to_teach(
    recipes: dict[str, Path], model_folder: Path
) -> None:
    recipe = load_recipe(recipes["distil"], [f"teacher={model_folder}"])
    with pytest.raises(RecipeError, match="the student has nothing to learn"):
        prepare(recipe, resume=False, overwrite=True, force=False)


def test_another_tokenizer_is_refused_with_the_methods_that_need_none(
    recipes: dict[str, Path], tmp_path: Path
) -> None:
    other = train_tokenizer([e.question for e in all_equations()[::5]], vocabulary=310)
    sharp_model(other).save_pretrained(tmp_path / "other")
    other.save_pretrained(tmp_path / "other")
    recipe = load_recipe(recipes["distil"], [f"teacher={tmp_path}/other"])
    with pytest.raises(ModelError, match="another tokenizer than the student") as caught:
        prepare(recipe, resume=False, overwrite=True, force=False)
    assert "strop data sample" in str(caught.value.fix)
    assert "method: sft" in str(caught.value.fix)


def test_a_record_without_the_teachers_column_is_named(recipes: dict[str, Path]) -> None:
    recipe = load_recipe(recipes["distil"], ["teacher={own: start, prompt: hint}"])
    with pytest.raises(DataError, match="names the column 'hint'") as caught:
        prepare(recipe, resume=False, overwrite=True, force=False)
    assert caught.value.where.endswith("sft.jsonl:1")


def test_a_teacher_that_reads_what_the_student_reads_is_named(
    recipes: dict[str, Path], write_rows: WriteRows
) -> None:
    rows = [
        {"prompt": user(e), "completion": assistant(solution(e)), "hinted": user(e)}
        for e in EQUATIONS
    ]
    data = write_rows("same.jsonl", rows)
    recipe = load_recipe(recipes["distil"], [OWN, f"data={data}"])
    with pytest.raises(DataError, match="the same prompt as the student"):
        prepare(recipe, resume=False, overwrite=True, force=False)


class TestTheDevSuite:
    @pytest.fixture
    def suite(self, tmp_path: Path, write_rows: WriteRows) -> str:
        """Whether right answers are likelier than wrong ones, on equations that nothing reads."""
        others = [e for e in all_equations()[7::53] if e not in EQUATIONS][:24]
        write_rows(
            "held.jsonl",
            [
                {"prompt": user(e), "chosen": solution(e), "rejected": solution(e, filler=True)}
                for e in others
            ],
        )
        tasks = [{"kind": "preference", "name": "pairs", "data": "held.jsonl", "per_token": True}]
        path = tmp_path / "dev.yaml"
        path.write_text(yaml.safe_dump({"name": "dev", "seed": 1, "tasks": tasks}))
        return f"dev={{suite: {path}, metric: pairs, every: 2}}"

    def test_a_worse_teacher_is_refused_and_force_goes_on(
        self, suite: str, recipes: dict[str, Path], tmp_path: Path, finished: Finished
    ) -> None:
        """The teacher is turned against the pairs: it was trained to prefer their wrong side."""
        held = (tmp_path / "held.jsonl").read_text().splitlines()
        turned = [
            json.dumps({**row, "chosen": row["rejected"], "rejected": row["chosen"]})
            for row in map(json.loads, held)
        ]
        (tmp_path / "turned.jsonl").write_text("\n".join(turned) + "\n")
        worse = train(
            load_recipe(recipes["dpo"], [f"data={tmp_path}/turned.jsonl", "run.steps=20",
                        "optim.learning_rate=1e-2", f"output={tmp_path}/worse"]), force=True,
        )  # fmt: skip
        better = train(
            load_recipe(recipes["dpo"], [f"data={tmp_path}/held.jsonl", "run.steps=20",
                        "optim.learning_rate=1e-2", f"output={tmp_path}/better"]), force=True,
        )  # fmt: skip
        options = [STEPS, suite, f"output={tmp_path}/run"]
        bad = load_recipe(recipes["distil"], [*options, f"teacher={worse}"])
        with pytest.raises(RecipeError, match="the teacher is worse than the student: pairs"):
            train(bad)
        train(bad, force=True)
        good = load_recipe(recipes["distil"], [*options, f"teacher={better}"])
        rows = metrics(train(good, overwrite=True).parent)
        assert rows[0]["step"] == 0
        assert rows[0]["teacher/pairs"] >= rows[0]["dev/pairs"]


class TestAlarms:
    def test_rings_where_the_student_moves_away(self) -> None:
        def rings(distances: Sequence[float]) -> list[str]:
            watch = AlarmWatch(DistilAlarms())
            rows = [
                {"step": n, "teacher/divergence": x, "entropy": 0.5, "grad_norm": 1.0}
                for n, x in enumerate(distances, 1)
            ]
            return [alarm.name for row in rows for alarm in watch.see(row)]

        assert rings([1.0] * 3 + [0.9, 0.7, 0.5, 0.4, 0.3, 0.2]) == []
        assert rings([1.0] * 3 + [1.4] * 9) == []
        assert rings([1.0] * 3 + [1.6] * 5) == ["teacher_divergence"]

    def test_entropy_that_collapses_far_from_the_teacher_rings(self) -> None:
        def rings(left: float) -> list[str]:
            watch = AlarmWatch(GkdAlarms())
            rows = [
                {"step": n, "teacher/divergence": 1.0 if n < 4 else left,
                 "entropy": 0.5 if n < 4 else 0.01, "grad_norm": 1.0}
                for n in range(1, 12)
            ]  # fmt: skip
            return [alarm.name for row in rows for alarm in watch.see(row)]

        assert rings(0.8) == ["entropy_collapse"]
        assert rings(0.05) == []  # the teacher itself is as sure


def test_the_teacher_is_part_of_what_a_run_is_made_of(
    finished: Finished, recipes: dict[str, Path], tmp_path: Path
) -> None:
    """A run cannot be resumed with a teacher whose weights changed."""
    teacher = tmp_path / "teacher"
    source = recipes["distil"].parent / "teacher"
    AutoModelForCausalLM.from_pretrained(source).save_pretrained(teacher)
    AutoTokenizer.from_pretrained(source).save_pretrained(teacher)
    options = [STEPS, f"teacher={teacher}", f"output={tmp_path}/run"]
    recipe = load_recipe(recipes["distil"], options)
    break_off(recipe, 3)
    model = AutoModelForCausalLM.from_pretrained(teacher)
    with torch.no_grad():
        next(model.parameters()).add_(0.01)
    model.save_pretrained(teacher)
    with pytest.raises(OutputError, match="the run began with other teacher"):
        train(recipe, resume=True)


APPS = {"vllm": engine_app, "sglang": Sglang(deterministic=False).app}
"""Servers by kind; one that only scores need not read seeds."""


@pytest.mark.parametrize("kind", APPS)
class TestServed:
    """A teacher on a server that scores given tokens, by either protocol."""

    def test_gives_what_the_teacher_in_this_process_gives(
        self, kind: str, finished: Finished, recipes: dict[str, Path], tmp_path: Path
    ) -> None:
        here = finished("on_policy_distil", STEPS)
        folder = recipes["distil"].parent / "teacher"
        with engine_server(folder, app=APPS[kind]) as server:
            named = f"teacher={{path: {folder}, engine: {{kind: {kind}, url: '{server.url}'}}}}"
            options = [STEPS, named, f"output={tmp_path}/served"]
            there = train(load_recipe(recipes["on_policy_distil"], options)).parent
        left, right = final_weights(here), final_weights(there)
        assert max(float((left[n] - right[n]).abs().max()) for n in left) <= 1e-5
        for one, other in zip(metrics(here), metrics(there), strict=True):
            assert one["teacher/divergence"] == pytest.approx(other["teacher/divergence"], abs=1e-4)

    def test_its_log_probs_are_those_of_the_folder(
        self, kind: str, recipes: dict[str, Path], tmp_path: Path
    ) -> None:
        prepared = prepare(load_recipe(recipes["distil"], [STEPS]), resume=False, overwrite=True,
                           force=False)  # fmt: skip
        trees = [prepared.rendered.trees[place] for place in range(4)]
        folder = recipes["distil"].parent / "teacher"
        policy = teacher_of(recipes)
        with engine_server(folder, app=APPS[kind]) as server:
            holders = HoldersRecipe(kind=kind, url=[server.url])  # type: ignore[arg-type]
            served = ServedTeacher(FixedEngine(str(folder), holders, samples=False))
            found_N = served.logprobs(trees)
        wanted_N = LocalTeacher(policy, in_common(policy)).logprobs(trees)
        assert len(found_N) > 40
        assert float((found_N - wanted_N).abs().max()) <= 1e-5

    def test_a_server_with_other_weights_is_found_out(
        self, kind: str, recipes: dict[str, Path], model_folder: Path, tmp_path: Path
    ) -> None:
        folder = recipes["distil"].parent / "teacher"
        with engine_server(model_folder, app=APPS[kind]) as server:
            named = f"teacher={{path: {folder}, engine: {{kind: {kind}, url: '{server.url}'}}}}"
            options = [STEPS, named, f"output={tmp_path}/served"]
            recipe = load_recipe(recipes["on_policy_distil"], options)
            with pytest.raises(StropError, match="is to be measured"):
                train(recipe)

    def test_a_server_that_is_not_there_is_seen_before_the_run(
        self, kind: str, recipes: dict[str, Path]
    ) -> None:
        folder = recipes["distil"].parent / "teacher"
        named = f"teacher={{path: {folder}, engine: {{kind: {kind}, url: 'http://127.0.0.1:9'}}}}"
        start = {"vllm": f"strop engine serve {folder} --port 9", "sglang": "sglang.launch_server"}
        with pytest.raises(UsageError, match="no server answers here") as caught:
            checked(recipes["on_policy_distil"], named)
        assert start[kind] in str(caught.value.fix)


class TestAhead:
    def test_samples_may_be_a_version_old(
        self, recipes: dict[str, Path], model_folder: Path, tmp_path: Path
    ) -> None:
        """Servers sample while the trainer updates; tokens are weighed by trainer / sampler."""
        with engine_server(model_folder) as server:
            options = [
                STEPS,
                f"rollout.engine={{kind: vllm, url: '{server.url}', folder: {tmp_path}/weights}}",
                "rollout.source={kind: async, max_staleness: 1}",
                f"output={tmp_path}/ahead",
            ]
            run = train(load_recipe(recipes["on_policy_distil"], options)).parent
        rows = metrics(run)
        assert [row["step"] for row in rows] == [1, 2, 3, 4]
        assert all(row["teacher/divergence"] > 0 for row in rows)
        assert all("mismatch/ess" in row for row in rows)
