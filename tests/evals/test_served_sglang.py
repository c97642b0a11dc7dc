"""Evals and judges that ask servers which speak SGLang's protocol (tests/support/sglang_app.py)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from strop.cli.app import app
from strop.cli.options import asking, holders
from strop.engines.served.fixed import FixedEngine
from strop.engines.served.sglang import SglangServer
from strop.errors import UsageError
from strop.evals.records import read_records
from strop.evals.run import run_suite
from strop.recipe.train.engine import HoldersRecipe
from tests.support.engine_servers import Running, engine_server
from tests.support.runs import EQUATIONS, WriteRows
from tests.support.served_evals import QUIZ, expect_equal, save_adapter
from tests.support.sglang_app import Sglang
from tests.support.suites import GENERATE, PAIRS, SAMPLED, MakeSuite


def of(*urls: str, **options: Any) -> HoldersRecipe:
    return HoldersRecipe(kind="sglang", url=list(urls), **options)


@pytest.fixture
def server(model_folder: Path) -> Iterator[Running]:
    with engine_server(model_folder, app=Sglang().app) as running:
        yield running


def test_an_eval_is_the_eval_with_the_embedded_engine(
    make_suite: MakeSuite, write_rows: WriteRows, server: Running, model_folder: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    quiz = [{"prompt": e.question, "choices": [f"{e.x}", "so"], "answer": 0, "id": f"c{n}"}
            for n, e in enumerate(EQUATIONS[:6])]  # fmt: skip
    write_rows("quiz.jsonl", quiz)
    suite = make_suite(GENERATE, SAMPLED, PAIRS, QUIZ)
    run_suite(suite, str(model_folder), tmp_path / "here")
    asked = suite.model_copy(update={"engine": of(server.url)})
    run_suite(asked, str(model_folder), tmp_path / "there")
    expect_equal(tmp_path / "here", tmp_path / "there", but="sampled")
    told = json.loads((tmp_path / "there/summary.json").read_text())
    assert (told["model"]["engine"], told["model"]["servers"]) == ("sglang", [server.url])


def test_an_adapter_is_loaded_on_its_base_and_unloaded(
    make_suite: MakeSuite, server: Running, model_folder: Path, tokenizer: Any, tmp_path: Path
) -> None:
    adapter = save_adapter(model_folder, tokenizer, tmp_path / "adapter")
    suite = make_suite(GENERATE, PAIRS)
    run_suite(suite, str(adapter), tmp_path / "here")
    run_suite(suite, str(model_folder), tmp_path / "base")
    asked = suite.model_copy(update={"engine": of(server.url)})
    run_suite(asked, str(adapter), tmp_path / "there")
    expect_equal(tmp_path / "here", tmp_path / "there")
    said = [[r.output for r in read_records(tmp_path / name)] for name in ("base", "there")]
    assert said[0] != said[1]
    assert not SglangServer(server.url, seconds=5).about().adapters


def test_the_command_line_names_its_kind(
    make_suite: MakeSuite, server: Running, model_folder: Path, tmp_path: Path
) -> None:
    make_suite(PAIRS)
    given = ["eval", str(tmp_path / "suite.yaml"), "--model", str(model_folder), "--json",
             "--engine", f"sglang:{server.url}", "--output", str(tmp_path / "out")]  # fmt: skip
    CliRunner().invoke(app, given, catch_exceptions=False)
    told = json.loads((tmp_path / "out/summary.json").read_text())
    assert told["model"]["engine"] == "sglang"


def test_how_kinds_are_spelt() -> None:
    assert holders([]) is None
    assert holders(["http://a:1", "http://b:2"]) == {
        "kind": "vllm", "url": ["http://a:1", "http://b:2"]
    }  # fmt: skip
    assert asking(["sglang:http://a:1"], "base_engine") == [
        'base_engine.kind="sglang"', 'base_engine.url=["http://a:1"]'
    ]  # fmt: skip
    with pytest.raises(UsageError, match="two kinds"):
        holders(["http://a:1", "sglang:http://b:2"])
    with pytest.raises(UsageError, match="OpenAI interface") as caught:
        holders(["sglang:http://a:1/v1"])
    assert caught.value.fix == "give the server's own: --engine sglang:http://a:1"


class TestProof:
    def test_one_that_draws_without_seeds_is_refused_and_may_score(
        self, make_suite: MakeSuite, model_folder: Path, tmp_path: Path
    ) -> None:
        with engine_server(model_folder, app=Sglang(deterministic=False).app) as server:
            asked = make_suite(GENERATE).model_copy(update={"engine": of(server.url)})
            with pytest.raises(UsageError, match="reads no seeds"):
                run_suite(asked, str(model_folder), tmp_path / "out")
            FixedEngine(str(model_folder), of(server.url), samples=False).prove()
        assert not (tmp_path / "out").exists()

    def test_other_weights_under_the_same_name(self, model_folder: Path) -> None:
        def lie(held: Any) -> None:
            held.policy.model.get_input_embeddings().weight.data.mul_(1.5)

        with engine_server(model_folder, lie, Sglang().app) as server:
            engine = FixedEngine(str(model_folder), of(server.url))
            with pytest.raises(UsageError, match=r"log-probs of a fixed text .* from the folder's"):
                engine.prove()

    def test_another_folder_by_its_name(self, model_folder: Path, base_folder: Path) -> None:
        with engine_server(base_folder, app=Sglang().app) as server:
            engine = FixedEngine(str(model_folder), of(server.url, limit=100.0))
            with pytest.raises(UsageError, match=f"the server holds {base_folder}, and"):
                engine.prove()

    def test_a_server_of_the_other_protocol(self, model_folder: Path) -> None:
        with engine_server(model_folder) as server:
            engine = FixedEngine(str(model_folder), of(server.url))
            with pytest.raises(UsageError, match="another protocol than SGLang's"):
                engine.prove()
