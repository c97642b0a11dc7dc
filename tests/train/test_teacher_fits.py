"""Teachers and students that do not fit each other are told before a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from strop.errors import DataError, ModelError, RecipeError
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.alarm import DistilSampleAlarms
from strop.train.monitor.alarms import AlarmWatch
from strop.train.preflight.prepare import prepare
from strop.train.run import train
from tests.support.runs import Finished, WriteRows, metrics
from tests.support.teaching import hinted_rows

STEPS = "run.steps=4"


def looked_at(path: Path, *options: str) -> Any:
    return prepare(load_recipe(path, options), resume=False, overwrite=True, force=False)


def changed(source: Path, folder: Path, change: Callable[[Any], object]) -> Path:
    """A copy of a model after a change."""
    model = AutoModelForCausalLM.from_pretrained(source)
    with torch.no_grad():
        change(model)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


class TestHeads:
    def test_a_student_that_can_sample_what_the_teacher_cannot_read(
        self, recipes: dict[str, Path], model_folder: Path, tmp_path: Path
    ) -> None:
        wide = changed(model_folder, tmp_path / "wide", lambda m: m.resize_token_embeddings(400))
        for method in ("on_policy_distil", "minillm", "gkd"):
            with pytest.raises(ModelError, match="student's head has 400 rows and the teacher's"):
                looked_at(recipes[method], f"model.path={wide}")
        looked_at(recipes["distil"], f"model.path={wide}")  # nothing is sampled
        looked_at(recipes["gkd"], f"model.path={wide}", "objective.own_samples=0", "rollout={}")

    def test_a_teacher_that_lacks_tokens_of_its_own_tokenizer(
        self, recipes: dict[str, Path], tmp_path: Path
    ) -> None:
        source = recipes["distil"].parent / "teacher"
        short = changed(source, tmp_path / "short", lambda m: m.resize_token_embeddings(90))
        with pytest.raises(ModelError, match="the teacher knows 90 tokens, and its tokenizer has"):
            looked_at(recipes["distil"], f"teacher={short}")

    def test_a_tail_is_left_of_the_smaller_one(self, recipes: dict[str, Path]) -> None:
        with pytest.raises(RecipeError, match="leaves no tail of a vocabulary of"):
            looked_at(recipes["distil"], "objective.top_k=4000")


def test_rows_are_no_longer_than_the_teacher_can_read(
    recipes: dict[str, Path], tmp_path: Path
) -> None:
    longest = max(map(len, looked_at(recipes["distil"], "eval=null").rendered.trees))

    def shorten(model: Any) -> None:
        model.config.max_position_embeddings = longest - 1

    short = changed(recipes["distil"].parent / "teacher", tmp_path / "short", shorten)
    prepared = looked_at(recipes["distil"], f"teacher={short}", "eval=null")
    assert prepared.recipe.text.max_length == longest - 1
    assert prepared.checks["dropped"] > 0
    assert max(map(len, prepared.rendered.trees)) < longest


def test_a_teacher_of_damaged_weights_is_named(recipes: dict[str, Path], tmp_path: Path) -> None:
    def damage(model: Any) -> None:
        next(model.parameters())[:] = math.nan

    nan = changed(recipes["distil"].parent / "teacher", tmp_path / "nan", damage)
    recipe = load_recipe(recipes["distil"], [STEPS, f"teacher={nan}", f"output={tmp_path}/run"])
    with pytest.raises(ModelError, match="nan are NaN") as caught:
        train(recipe)
    assert "damaged" in str(caught.value.fix)


def test_a_hint_without_the_template_is_refused(
    recipes: dict[str, Path], write_rows: WriteRows
) -> None:
    data, _ = hinted_rows(write_rows)
    own = "teacher={own: start, prompt: plain}"
    path = Path(data.removeprefix("data="))
    lines = path.read_text().splitlines()
    path.write_text("".join(line[:-1] + ', "plain": "x = 9"}\n' for line in lines))
    with pytest.raises(DataError, match="'plain' is plain text, and the student's prompt a conv"):
        looked_at(recipes["distil"], own, data, "eval=null")


@pytest.mark.parametrize(
    ("method", "option", "said"),
    [
        ("on_policy_distil", "probes.tasks=5", "probes works on a reward, and there is none"),
        ("minillm", "probes.tasks=5", "probes works on a reward, and there is none"),
        ("minillm", "rollout.mismatch.level=none", "level none does not weigh"),
    ],
)
def test_what_has_nothing_to_work_on(
    method: str, option: str, said: str, recipes: dict[str, Path]
) -> None:
    options = [option, "objective.mix=0.2"] if method == "minillm" else [option]
    with pytest.raises(RecipeError, match=said):
        looked_at(recipes[method], *options)


class TestDistance:
    def test_of_answers_that_the_teacher_helped_to_draw(self, finished: Finished) -> None:
        """Log q - log p of the teacher's own tokens is below 0; the divergence is not."""
        rows = metrics(finished("minillm", STEPS, "objective.mix=0.95"))
        assert all(row["teacher/divergence"] > 0.1 for row in rows)

    @pytest.mark.parametrize("start", [-0.02, 0.0, 0.01])
    def test_a_student_that_begins_at_its_teacher_is_watched(self, start: float) -> None:
        def rings(later: float) -> list[str]:
            watch = AlarmWatch(DistilSampleAlarms())
            rows = [
                {"step": n, "teacher/divergence": start if n < 4 else later, "entropy": 0.5,
                 "grad_norm": 1.0}
                for n in range(1, 12)
            ]  # fmt: skip
            return [alarm.name for row in rows for alarm in watch.see(row)]

        assert rings(0.06) == []
        assert rings(0.2) == ["teacher_divergence"]
