"""Environment variables and patterns in the paths of a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from strop.errors import RecipeError
from strop.recipe.gate import GateRules
from strop.recipe.loading.load import load, load_recipe
from strop.recipe.pipeline import Pipeline

SFT = """method: sft
output: {output}
model: {{path: {model}}}
data: {data}
optim: {{learning_rate: 1.0e-5}}
run: {{steps: 1}}
"""


def recipe(folder: Path, *, output: str = "out", model: str = "m", data: str = "d.jsonl") -> Path:
    path = folder / "r.yaml"
    path.write_text(SFT.format(output=output, model=model, data=data))
    return path


class TestVariables:
    def test_they_are_expanded_wherever_a_path_stands(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SCRATCH", "/scratch/me")
        monkeypatch.setenv("NAME", "seven")
        found = load_recipe(
            recipe(
                tmp_path, output="${SCRATCH}/runs/$NAME", model="$SCRATCH/m", data="x-${NAME}.jsonl"
            )
        )
        assert found.output == "/scratch/me/runs/seven"
        assert found.model.path == "/scratch/me/m"  # no hub name any more
        assert found.data[0].path == str(tmp_path / "x-seven.jsonl")
        assert load_recipe(recipe(tmp_path), ["output=${SCRATCH}/o"]).output == "/scratch/me/o"
        (tmp_path / "p.yaml").write_text("targets: [{score: a}]\nnoise: ['${SCRATCH}/n']\n")
        assert load(GateRules, tmp_path / "p.yaml").noise == ["/scratch/me/n"]
        (tmp_path / "p.yaml").write_text(
            "name: p\nregistry: ${SCRATCH}/r.db\n"
            "stages: [{kind: train, name: a, recipe: '${SCRATCH}/a.yaml'}]\n"
        )
        pipeline = load(Pipeline, tmp_path / "p.yaml")
        assert pipeline.registry == "/scratch/me/r.db"

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            ("${STROP_UNSET}/runs", "the environment variable STROP_UNSET is not set"),
            ("a/$STROP_UNSET", "the environment variable STROP_UNSET is not set"),
            ("${STROP_EMPTY}/runs", "the environment variable STROP_EMPTY is empty"),
            ("${STROP_UNSET:-/tmp}/runs", "only `${NAME}` is read"),
            ("${}/runs", "only `${NAME}` is read"),
        ],
    )
    def test_one_that_is_not_set_is_refused_by_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, said: str
    ) -> None:
        monkeypatch.delenv("STROP_UNSET", raising=False)
        monkeypatch.setenv("STROP_EMPTY", "")
        with pytest.raises(RecipeError) as caught:
            load_recipe(recipe(tmp_path, output=f"'{value}'"))
        assert caught.value.where == f"{tmp_path / 'r.yaml'}:2"
        assert said in str(caught.value)
        assert "`output`" in str(caught.value)
        assert not list(tmp_path.glob("*$*"))

    def test_other_dollar_signs_stay(self, tmp_path: Path) -> None:
        for written, read in (("a$$b", "a$b"), ("5$", "5$"), ("$-x", "$-x"), ("$1", "$1")):
            found = load_recipe(recipe(tmp_path, output=f"'{written}'"))
            assert found.output == str(tmp_path / read)
