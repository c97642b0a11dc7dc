"""A judge and generated data on servers that hold the model's folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from strop.cli.app import app
from strop.errors import RecipeError, UsageError
from strop.judge.asking.question import Question
from strop.judge.build import build_judge, judge_hash
from strop.judge.trust.card import without_places
from strop.recipe.judge import JudgeRecipe
from strop.recipe.loading.load import load
from tests.support.engine_servers import engine_server
from tests.support.runs import EQUATIONS, WriteRows


@pytest.fixture(scope="module")
def url(model_folder: Path) -> Iterator[str]:
    with engine_server(model_folder) as server:
        yield server.url


QUESTIONS = [Question(str(n), "so?", (f"x = {e.x}", "y")) for n, e in enumerate(EQUATIONS[:3])]
SHORT = "{{ mark }}{{ prompt }}{% for a in answers %}{{ a }}{% endfor %}"


@pytest.fixture
def files(model_folder: Path, url: str, tmp_path: Path) -> dict[str, Path]:
    """The same judge here and there, with words that the tiny model can read whole."""
    (tmp_path / "short.txt").write_text(SHORT)
    found = {}
    for name, engine in (("here", None), ("there", {"kind": "vllm", "url": url})):
        said: dict[str, Any] = {"model": str(model_folder), "by_likelihood": True,
                                "templates": {"pairwise": "short.txt"}}  # fmt: skip
        found[name] = tmp_path / f"{name}.yaml"
        found[name].write_text(yaml.safe_dump(said | ({"engine": engine} if engine else {})))
    return found


def test_verdicts_are_those_of_the_embedded_engine(files: dict[str, Path], url: str) -> None:
    here, there = (build_judge(load(JudgeRecipe, files[name])) for name in ("here", "there"))
    for one, other in zip(
        here.rule("pairwise", QUESTIONS), there.rule("pairwise", QUESTIONS), strict=True
    ):
        assert one.values == other.values
        assert other.confidence == pytest.approx(one.confidence, abs=1e-5)
    assert there.identity()["servers"] == [url]


def test_it_is_the_same_judge_with_the_same_card(files: dict[str, Path]) -> None:
    here, there = (build_judge(load(JudgeRecipe, files[name])) for name in ("here", "there"))
    assert here.identity() != there.identity()
    assert without_places(here.identity()) == without_places(there.identity())
    assert judge_hash(files["here"]) == judge_hash(files["there"])


def test_the_command_asks_the_servers_of_its_option(
    files: dict[str, Path], url: str, write_rows: WriteRows, tmp_path: Path
) -> None:
    pairs = write_rows("pairs.jsonl", [
        {"prompt": "so?", "answers": list(one.answers), "id": one.item}
        for one in QUESTIONS
    ])  # fmt: skip
    said = []
    for name, more in (("one", []), ("two", ["--engine", url])):
        out = tmp_path / f"{name}.jsonl"
        given = ["judge", "compare", str(files["here"]), "--data", str(pairs), "--output", str(out)]
        CliRunner().invoke(app, [*given, *more], catch_exceptions=False)
        said.append([json.loads(line)["verdict"] for line in out.open()])
    assert said[0] == said[1]
    given = ["judge", "compare", str(files["here"]), "--data", str(pairs), "--output", str(out)]
    found = CliRunner().invoke(app, [*given, "--engine", "http://127.0.0.1:9"])
    assert isinstance(found.exception, UsageError)
    assert "strop engine serve" in str(found.exception)


def test_servers_are_for_a_model_folder(tmp_path: Path) -> None:
    file = tmp_path / "judge.yaml"
    file.write_text("url: http://a/v1\nmodel_name: m\nengine: {kind: vllm, url: http://a}\n")
    with pytest.raises(RecipeError, match="`engine` is for a `model` folder"):
        load(JudgeRecipe, file)


@pytest.mark.parametrize("verb", [["data", "sample"], ["data", "generate", "self-instruct"]])
def test_data_verbs_refuse_servers_without_a_folder_or_with_an_endpoint(
    verb: list[str], write_rows: WriteRows, tmp_path: Path
) -> None:
    prompts = str(write_rows("prompts.jsonl", [{"prompt": "so?"}]))
    given = [*verb, prompts, "--output", str(tmp_path / "out.jsonl"), "--engine", "http://a:1"]
    other = (["--model", "m", "--endpoint", "http://a/v1"] if verb[-1] == "sample"
             else ["--url", "http://a/v1", "--model-name", "m"])  # fmt: skip
    found = CliRunner().invoke(app, [*given, *other])
    assert isinstance(found.exception, UsageError)
    assert "engine" in str(found.exception)
    assert "model" in str(found.exception)


def test_sampled_greedily_the_rows_are_the_same(
    model_folder: Path, url: str, write_rows: WriteRows, tmp_path: Path
) -> None:
    prompts = str(write_rows("prompts.jsonl", [{"prompt": e.question} for e in EQUATIONS[:5]]))
    said = []
    for name, more in (("one", []), ("two", ["--engine", url])):
        out = tmp_path / f"{name}.jsonl"
        given = ["data", "sample", prompts, "--model", str(model_folder), "--output", str(out),
                 "--temperature", "0", "--max-tokens", "8"]  # fmt: skip
        CliRunner().invoke(app, [*given, *more], catch_exceptions=False)
        rows = [json.loads(line) for line in out.open()]
        said.append([row["completion"] for row in rows])
        engine = rows[0]["meta"]["engine"]
        assert engine.get("servers") == ([url] if more else None)
    assert said[0] == said[1]
