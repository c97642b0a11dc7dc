"""A teacher that is an adapter on the student's own base, in whole runs: one base in memory, the
numbers of a teacher apart, and nothing of it in checkpoints."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from strop.demo.world import all_equations, solution, user
from strop.errors import RecipeError
from strop.model.load import load_config, load_policy
from strop.model.teacher import LocalTeacher
from strop.recipe.loading.load import load_recipe
from strop.train.preflight.cost.shape import shape_of
from strop.train.preflight.cost.teacher import teacher_of
from strop.train.preflight.prepare import prepare
from strop.train.run import train
from strop.train.teachers import build
from strop.train.teachers.build import is_the_start, same_weights, shares_base, teaching_of
from tests.support.gloo import in_processes
from tests.support.runs import (
    EQUATIONS,
    TAUGHT,
    Finished,
    WriteRows,
    break_off,
    final_weights,
    latest_checkpoint,
    metrics,
    same,
    weights,
)
from tests.support.served_evals import save_adapter
from tests.support.teaching import hinted_rows, one_of_several

RUN = ("run.steps=4", "model.lora={rank: 4, targets: [q_proj, up_proj]}")


@pytest.fixture(scope="module")
def adapter(model_folder: Path, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(model_folder, tokenizer, tmp_path_factory.mktemp("shared") / "adapter")


def no_second_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "load_teacher", None)


@pytest.mark.parametrize("method", TAUGHT)
def test_learns_what_it_learns_from_a_teacher_apart_and_resumes_to_the_bit(
    method: str, recipes: dict[str, Path], adapter: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def run(name: str) -> Any:
        options = [*RUN, f"teacher={adapter}", f"output={tmp_path}/{name}"]
        return load_recipe(recipes[method], options)

    with monkeypatch.context() as patched:
        patched.setattr(build, "shares_base", lambda *_: False)
        apart = train(run("apart")).parent
    no_second_model(monkeypatch)
    whole = train(run("whole")).parent
    ones, others = final_weights(apart), final_weights(whole)
    assert ones.keys() == others.keys()
    assert max(float((ones[name] - others[name]).abs().max()) for name in ones) <= 1e-5
    for one, other in zip(metrics(apart), metrics(whole), strict=True):
        assert one["teacher/divergence"] == pytest.approx(other["teacher/divergence"], abs=1e-5)
    break_off(run("parts"), 3)
    checkpoint = latest_checkpoint(tmp_path / "parts")
    assert checkpoint is not None
    assert not [path for path in checkpoint.rglob("*") if "teacher" in path.name]
    assert weights(checkpoint).keys() == others.keys()
    parts = train(run("parts"), resume=True).parent
    assert same(final_weights(whole), final_weights(parts))


def test_four_bit_weights_are_shared(
    recipes: dict[str, Path], wide_folder: Path, tokenizer: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    adapter = save_adapter(wide_folder, tokenizer, tmp_path / "adapter")
    no_second_model(monkeypatch)
    options = [*RUN, f"model.path={wide_folder}", "model.quantize=nf4", f"teacher={adapter}"]
    whole = train(load_recipe(recipes["distil"], [*options, f"output={tmp_path}/whole"])).parent
    rows = metrics(whole)
    assert rows[0]["teacher/divergence"] > 1e-3
    recipe = load_recipe(recipes["distil"], [*options, f"output={tmp_path}/parts"])
    break_off(recipe, 3)
    parts = train(recipe, resume=True).parent
    assert same(final_weights(whole), final_weights(parts))


def test_the_dev_suite_measures_the_teacher_and_not_the_student(
    recipes: dict[str, Path], adapter: Path, tmp_path: Path, write_rows: WriteRows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    others = [e for e in all_equations()[7::53] if e not in EQUATIONS][:24]
    pairs = [{"prompt": user(e), "chosen": solution(e), "rejected": solution(e, filler=True)}
             for e in others]  # fmt: skip
    write_rows("held.jsonl", pairs)
    suite = tmp_path / "dev.yaml"
    task = "{kind: preference, name: pairs, data: held.jsonl, per_token: true}"
    suite.write_text(f"name: dev\nseed: 1\ntasks: [{task}]\n")
    dev = f"dev={{suite: {suite}, metric: pairs, every: 4}}"
    measured = []
    for name, shares in (("apart", False), ("shared", True)):
        with monkeypatch.context() as patched:
            if not shares:
                patched.setattr(build, "shares_base", lambda *_: False)
            options = [*RUN, dev, f"teacher={adapter}", f"output={tmp_path}/{name}"]
            run = train(load_recipe(recipes["distil"], options), force=True).parent
        measured.append([row for row in metrics(run) if row["step"] == 0])
    assert measured[0] == measured[1]
    assert measured[0][0]["teacher/pairs"] != measured[0][0]["dev/pairs"]


class TestWhichAreShared:
    """`shares_base` and `is_the_start`: by weights, not by names."""

    def recipe(
        self, recipes: dict[str, Path], teacher: str, *options: str, method: str = "distil"
    ) -> Any:
        return load_recipe(recipes[method], [*RUN, *options, f"teacher={teacher}"])

    @pytest.mark.parametrize(
        ("more", "options", "shared"),
        [
            ("", (), True),
            (", dtype: float32", (), True),
            (", dtype: bfloat16", (), False),
            (", dtype: bfloat16", ("model.dtype=bfloat16",), True),
            (", quantize: nf4", (), False),
            (", quantize: nf4", ("model.quantize=nf4",), True),
            ("", ("model.quantize=nf4",), True),
            (", dtype: float32", ("model.quantize=nf4",), False),
            ("", ("model.lora=null",), False),
            ("", ("run.distributed.shard=full",), False),
        ],
    )
    def test_in_the_form_that_the_student_has(
        self, more: str, options: Sequence[str], shared: bool, recipes: dict[str, Path],
        adapter: Path, model_folder: Path,
    ) -> None:  # fmt: skip
        recipe = self.recipe(recipes, f"{{path: {adapter}{more}}}", *options)
        assert shares_base(recipe.teacher, recipe, str(model_folder)) == shared

    def test_the_base_is_compared_by_its_weights(
        self, recipes: dict[str, Path], adapter: Path, model_folder: Path, tmp_path: Path
    ) -> None:
        copied = Path(shutil.copytree(model_folder, tmp_path / "elsewhere"))
        recipe = self.recipe(recipes, str(adapter), f"model.path={copied}")
        assert shares_base(recipe.teacher, recipe, str(copied))
        model = AutoModelForCausalLM.from_pretrained(copied)
        with torch.no_grad():
            next(model.parameters()).add_(0.01)
        model.save_pretrained(copied)
        assert not shares_base(recipe.teacher, recipe, str(copied))

    def test_weights_of_other_sizes_are_not_read(
        self, model_folder: Path, wide_folder: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(build, "weights_hash", None)
        assert not same_weights(str(model_folder), str(wide_folder))
        assert not same_weights(str(model_folder), str(adapter))
        assert same_weights(str(model_folder), str(model_folder))

    def test_an_adapter_over_what_the_students_adapter_was_merged_into(
        self, recipes: dict[str, Path], adapter: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        """SFT left an adapter; teacher and student both train another one over it."""
        lora = (*RUN, f"model.path={adapter}")
        teacher = train(load_recipe(recipes["dpo"], [*lora, f"output={tmp_path}/large"]))
        no_second_model(monkeypatch)
        options = [*lora, f"teacher={teacher}", f"output={tmp_path}/student"]
        rows = metrics(train(load_recipe(recipes["distil"], options)).parent)
        assert rows[0]["teacher/divergence"] > 0

    def test_the_students_start_by_another_path(
        self, recipes: dict[str, Path], model_folder: Path, write_rows: WriteRows, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch, finished: Finished,
    ) -> None:  # fmt: skip
        copied = Path(shutil.copytree(model_folder, tmp_path / "elsewhere"))
        recipe = self.recipe(recipes, str(copied))
        with pytest.raises(RecipeError, match="the student has nothing to learn"):
            prepare(recipe, resume=False, overwrite=True, force=False)
        no_second_model(monkeypatch)
        data = (hinted_rows(write_rows)[0], "eval=null")
        recipe = self.recipe(recipes, f"{{path: {copied}, prompt: hinted}}", *data)
        assert is_the_start(recipe.teacher, recipe)
        run = train(recipe).parent
        own = finished("distil", *RUN, *data, "teacher={own: start, prompt: hinted}")
        assert same(final_weights(run), final_weights(own))


def test_the_teacher_of_a_run_is_the_students_model_with_another_adapter(
    recipes: dict[str, Path], adapter: Path, model_folder: Path
) -> None:
    recipe = load_recipe(recipes["distil"], [*RUN, f"teacher={adapter}"])
    policy = load_policy(recipe.model)
    teaching = teaching_of(recipe, policy)
    assert teaching is not None
    assert isinstance(teaching.teacher, LocalTeacher)
    assert teaching.teacher.policy is policy


def test_the_estimate_counts_its_adapter_alone(
    recipes: dict[str, Path], adapter: Path, model_folder: Path
) -> None:
    shape = shape_of(load_config(str(model_folder)))
    shared, apart = (
        teacher_of(load_recipe(recipes["distil"], [*options, f"teacher={adapter}"]), shape)
        for options in (RUN, ())
    )
    assert shared is not None
    assert apart is not None
    assert shared.held == (adapter / "adapter_model.safetensors").stat().st_size
    assert apart.held == 4 * shape.parameters
    assert shared.parameters == apart.parameters


def test_two_processes_end_as_one(recipes: dict[str, Path], adapter: Path, tmp_path: Path) -> None:
    """Each of them has the base once."""
    shared = [*RUN, "run.batch_size=5", f"teacher={adapter}"]
    options = [*shared, f"output={tmp_path}/one"]
    alone = train(load_recipe(recipes["distil"], options)).parent
    together = [*shared, "run.distributed.shard=none", f"output={tmp_path}/two"]
    assert in_processes(2, one_of_several, recipes["distil"], together) == [None, None]
    one, two = final_weights(alone), final_weights(tmp_path / "two")
    assert max(float((one[name] - two[name]).abs().max()) for name in one) <= 2e-5
