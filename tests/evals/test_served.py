"""Evals, decoding studies and judges that ask servers give what the embedded engine gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner, Result

from strop.cli.app import app
from strop.demo.model import raw_model, train_tokenizer
from strop.demo.world import all_equations, user
from strop.engines.served.fixed import FixedEngine
from strop.engines.served.vllm import VllmServer
from strop.errors import UnscoredError, UsageError
from strop.evals.decode.study import check_study, run_study
from strop.evals.gate.verdict import rules_of, run_gate
from strop.evals.records import read_records
from strop.evals.run import run_suite
from strop.recipe.study import Study
from strop.recipe.suite import Suite
from strop.recipe.train.engine import HoldersRecipe
from tests.support.engine_processes import process as serving
from tests.support.engine_servers import Running, engine_server
from tests.support.runs import EQUATIONS, WriteRows
from tests.support.served_evals import QUIZ, expect_equal, save_adapter
from tests.support.suites import GENERATE, PAIRS, SAMPLED, MakeSuite

PROSE = {"kind": "perplexity", "name": "prose", "data": "prose.jsonl", "window": 24}
LM_EVAL = {"kind": "lm_eval", "name": "bench", "tasks": ["arc_easy"]}
OWN = {"kind": "python", "name": "own", "file": "own.py"}


@pytest.fixture(scope="module")
def process(model_folder: Path) -> Iterator[str]:
    with serving(model_folder) as url:
        yield url


@pytest.fixture
def suite(make_suite: MakeSuite, write_rows: WriteRows, tmp_path: Path) -> Suite:
    """Every kind of task that servers can answer."""
    quiz = [
        {"prompt": user(e) if e.x % 2 else e.question, "choices": [f"{e.x}", f"{e.x + 1}", "so"],
         "answer": 0, "id": f"c{n}"}
        for n, e in enumerate(EQUATIONS[:6])
    ]  # fmt: skip
    write_rows("quiz.jsonl", quiz)
    write_rows("prose.jsonl", [{"text": " ".join(e.question for e in EQUATIONS[:4])}])
    (tmp_path / "own.py").write_text(
        "def evaluate(generate, seed):\n"
        "    said = generate(['x = 4', 'so y'], max_tokens=5)\n"
        "    for n, text in enumerate(said):\n"
        "        yield {'item': str(n), 'score': float(len(text)), 'output': text}\n"
    )
    return make_suite(GENERATE, SAMPLED, PAIRS, QUIZ, PROSE, OWN, seed=3)


def refused_with(result: Result) -> str:
    """The message of a command that was refused."""
    assert isinstance(result.exception, UsageError)
    return str(result.exception)


def served(*urls: str, **options: Any) -> HoldersRecipe:
    return HoldersRecipe(kind="vllm", url=list(urls), **options)


class TestEvals:
    def test_another_process_gives_what_the_embedded_engine_gives(
        self, suite: Suite, process: str, model_folder: Path, tmp_path: Path
    ) -> None:
        run_suite(suite, str(model_folder), tmp_path / "here")
        asked = suite.model_copy(update={"engine": served(process)})
        result = run_suite(asked, str(model_folder), tmp_path / "there")
        expect_equal(tmp_path / "here", tmp_path / "there", but="sampled")
        assert {"greedy/right", "edits", "quiz/acc", "prose/logprob", "own"} <= result.scores.keys()
        assert len({r.output for r in result.records if r.task == "sampled/right"}) > 12
        here, there = (
            json.loads((tmp_path / name / "summary.json").read_text()) for name in ("here", "there")
        )
        assert there["model"] == {**here["model"], "engine": "vllm", "servers": [process]}
        for name in ("suite_sha256", "prompts", "overlap", "items"):
            assert there[name] == here[name]

    def test_the_gate_compares_engines_and_says_so(
        self, make_suite: MakeSuite, process: str, model_folder: Path, tmp_path: Path
    ) -> None:
        suite = make_suite(SAMPLED)
        for name, engine in (("here", suite.engine), ("there", served(process))):
            one = suite.model_copy(update={"engine": engine})
            run_suite(one, str(model_folder), tmp_path / name)
        rules = rules_of(None, 0.5, tmp_path / "here")
        verdict = run_gate(rules, tmp_path / "here", tmp_path / "there")
        said = "base was answered by the embedded engine, candidate by vllm servers"
        assert [one for one in verdict.remarks if one.startswith(said)]
        alike = run_gate(rules, tmp_path / "there", tmp_path / "there")
        assert not [one for one in alike.remarks if "answered by" in one]

    def test_the_command_line(
        self, suite: Suite, process: str, model_folder: Path, tmp_path: Path
    ) -> None:
        given = ["eval", str(tmp_path / "suite.yaml"), "--model", str(model_folder),
                 "--engine", process, "--output", str(tmp_path / "out"), "--json"]  # fmt: skip
        checked = CliRunner().invoke(app, [*given, "--dry-run"])
        assert "would measure greedy: 12 items" in checked.output
        found = CliRunner().invoke(app, given, catch_exceptions=False)
        assert json.loads(found.output)["scores"]["quiz/acc"] >= 0
        assert json.loads((tmp_path / "out/summary.json").read_text())["model"]["engine"] == "vllm"

    def test_a_dry_run_looks_at_the_servers(
        self, make_suite: MakeSuite, process: str, model_folder: Path, tmp_path: Path
    ) -> None:
        make_suite(GENERATE)
        given = ["eval", str(tmp_path / "suite.yaml"), "--model", str(model_folder),
                 "--output", str(tmp_path / "out"), "--dry-run"]  # fmt: skip

        def said(*more: str) -> str:
            return refused_with(CliRunner().invoke(app, [*given, *more]))

        assert "no server answers here within 5 s" in said("--engine", "http://127.0.0.1:9")
        longer = "tasks.0.sampling={max_tokens: 4000}"
        found = said("--engine", process, "--set", longer)
        assert "the longest prompt and its answer need" in found

    def test_a_dry_run_looks_at_an_endpoint(
        self, make_suite: MakeSuite, process: str, model_folder: Path, tmp_path: Path
    ) -> None:
        make_suite(GENERATE)
        given = ["eval", str(tmp_path / "suite.yaml"), "--output", str(tmp_path / "out"),
                 "--dry-run", "--endpoint"]  # fmt: skip
        runner = CliRunner()
        nobody = runner.invoke(app, [*given, "http://127.0.0.1:9/v1", "--model", "m"])
        assert "no endpoint answers here within 5 s" in refused_with(nobody)
        other = runner.invoke(app, [*given, f"{process}/v1", "--model", "another"])
        assert "the endpoint has no model 'another'" in refused_with(other)
        assert f"give one that it has: {model_folder}" in refused_with(other)
        right = runner.invoke(app, [*given, f"{process}/v1", "--model", str(model_folder)])
        assert "would measure greedy: 12 items" in right.output

    @pytest.mark.parametrize(
        ("address", "fix"),
        [
            ("http://a:1,http://b:2", "repeat it: --engine http://a:1 --engine http://b:2"),
            ("http://a:1/v1", "give the server's own: --engine http://a:1"),
            ("http://a:1/v1/", "give the server's own: --engine http://a:1"),
        ],
    )
    def test_what_is_no_address_of_one_server_has_the_fix_that_helps(
        self, make_suite: MakeSuite, tmp_path: Path, address: str, fix: str
    ) -> None:
        make_suite(GENERATE)
        given = ["eval", str(tmp_path / "suite.yaml"), "--model", "m", "--engine", address,
                 "--output", str(tmp_path / "out")]  # fmt: skip
        error = CliRunner().invoke(app, given).exception
        assert isinstance(error, UsageError)
        assert error.fix == fix

    def test_what_needs_distributions_is_refused_before_anybody_is_asked(
        self, make_suite: MakeSuite, model_folder: Path, tmp_path: Path
    ) -> None:
        nobody = served("http://127.0.0.1:9")
        suite = make_suite(GENERATE, LM_EVAL, engine=nobody.plain())
        with pytest.raises(UsageError, match="no distributions over the vocabulary, which bench"):
            run_suite(suite, str(model_folder), tmp_path / "out")
        suite = make_suite(GENERATE, engine=nobody.plain())
        with pytest.raises(UsageError, match="the KL of greedy to"):
            run_suite(suite, str(model_folder), tmp_path / "out", reference=str(model_folder))
        assert not list(tmp_path.glob(".out*"))

    def test_an_engine_of_servers_is_for_a_model_folder(
        self, make_suite: MakeSuite, tmp_path: Path
    ) -> None:
        make_suite(GENERATE)
        given = ["eval", str(tmp_path / "suite.yaml"), "--model", "m", "--engine",
                 "http://127.0.0.1:9", "--endpoint", "http://127.0.0.1:9/v1",
                 "--output", str(tmp_path / "out")]  # fmt: skip
        found = CliRunner().invoke(app, given)
        assert isinstance(found.exception, UsageError)
        assert "names vllm servers for a model folder" in str(found.exception)

    def test_a_window_that_the_server_cannot_read(
        self, make_suite: MakeSuite, write_rows: WriteRows, process: str, model_folder: Path,
        tmp_path: Path,
    ) -> None:  # fmt: skip
        write_rows("prose.jsonl", [{"text": " ".join(e.question for e in EQUATIONS)}])
        whole = {name: value for name, value in PROSE.items() if name != "window"}
        suite = make_suite(whole, engine=served(process).plain())
        with pytest.raises(UsageError, match="set window to"):
            run_suite(suite, str(model_folder), tmp_path / "out")


class TestProof:
    def test_other_weights_of_the_same_shape(self, model_folder: Path, tmp_path: Path) -> None:
        """The server names no folder, so that only its log-probs tell."""
        model = AutoModelForCausalLM.from_pretrained(model_folder)
        draw = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in model.parameters():
                weight += 0.02 * torch.randn(weight.shape, generator=draw)

        def lie(held: Any) -> None:
            held.policy.model.load_state_dict(model.state_dict())
            held.path = "nobody/knows"

        with engine_server(model_folder, lie) as server:
            engine = FixedEngine(str(model_folder), served(server.url))
            with pytest.raises(UsageError, match=r"log-probs of a fixed text .* from the folder's"):
                engine.prove()

    def test_another_folder_by_its_name(self, model_folder: Path, base_folder: Path) -> None:
        with engine_server(base_folder) as server:
            engine = FixedEngine(str(model_folder), served(server.url, limit=100.0))
            with pytest.raises(UsageError, match=f"the server holds {base_folder}, and"):
                engine.prove()

    def test_another_tokenizer(self, tokenizer: Any, model_folder: Path, tmp_path: Path) -> None:
        other = tmp_path / "other"
        made = train_tokenizer([e.question for e in all_equations()[3::9]], vocabulary=300)
        raw_model(made, seed=0, width=32).save_pretrained(other)
        made.save_pretrained(other)
        with engine_server(other) as server:
            engine = FixedEngine(str(model_folder), served(server.url))
            with pytest.raises(UsageError, match=f"another tokenizer than {model_folder}"):
                engine.expect()

    def test_nobody_answers(self, model_folder: Path) -> None:
        engine = FixedEngine(str(model_folder), served("http://127.0.0.1:9"))
        with pytest.raises(UsageError, match=f"strop engine serve {model_folder} --port 9"):
            engine.expect()

    def test_weights_that_change_while_it_is_asked(
        self, make_suite: MakeSuite, model_folder: Path, tmp_path: Path
    ) -> None:
        """The answers that came from them are not kept."""

        def lie(held: Any) -> None:
            once = held.engine.open

            def begin(weights: str) -> Any:
                with torch.no_grad():
                    held.policy.model.get_input_embeddings().weight.mul_(1.5)
                return once(weights)

            held.engine.open = begin

        suite = make_suite(GENERATE)
        with engine_server(model_folder, lie) as server:
            asked = suite.model_copy(update={"engine": served(server.url)})
            with pytest.raises(UsageError, match="does not hold"):
                run_suite(asked, str(model_folder), tmp_path / "out")
        assert not (tmp_path / ".out.partial/parts.jsonl").read_text()


@pytest.fixture(scope="module")
def adapter_folder(
    model_folder: Path, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return save_adapter(model_folder, tokenizer, tmp_path_factory.mktemp("adapter"))


class TestAdapters:
    def test_it_is_loaded_under_a_new_name_and_unloaded(
        self, suite: Suite, model_folder: Path, adapter_folder: Path, tmp_path: Path
    ) -> None:
        run_suite(suite, str(adapter_folder), tmp_path / "here")
        run_suite(suite, str(model_folder), tmp_path / "base")
        with engine_server(model_folder) as server:
            seen: list[str] = []
            load = server.held.load_adapter

            def loading(name: str, folder: str) -> Any:
                seen.append(name)
                return load(name, folder)

            server.held.load_adapter = loading  # type: ignore[method-assign]
            asked = suite.model_copy(update={"engine": served(server.url)})
            run_suite(asked, str(adapter_folder), tmp_path / "there")
            assert [name[:6] for name in seen] == ["strop-"]
            assert not VllmServer(server.url, seconds=5).about().adapters
        expect_equal(tmp_path / "here", tmp_path / "there", but="sampled")
        said = [{r.output for r in read_records(tmp_path / n) if r.task == "greedy/right"}
                for n in ("base", "there")]  # fmt: skip
        assert said[0] != said[1]

    def test_a_server_of_another_base(self, base_folder: Path, adapter_folder: Path) -> None:
        with engine_server(base_folder) as server:
            engine = FixedEngine(str(adapter_folder), served(server.url))
            with pytest.raises(UsageError, match=f"the server holds {base_folder}"):
                engine.prove()


class TestSeveralServers:
    def test_one_that_dies_costs_no_item(
        self, make_suite: MakeSuite, process: str, model_folder: Path, tmp_path: Path
    ) -> None:
        suite = make_suite(SAMPLED, seed=3)
        one = suite.model_copy(update={"engine": served(process)})
        run_suite(one, str(model_folder), tmp_path / "whole")
        running: list[Running] = []

        def dies(held: Any) -> None:
            """Its connections end when it has begun to sample, and no answer was given."""

            def dying(request: Any, adapter: Any) -> Any:
                running[0].server.should_exit = running[0].server.force_exit = True
                return Future()

            held.sample = dying

        with engine_server(model_folder, dies) as dying, engine_server(model_folder) as other:
            running.append(dying)
            asked = suite.model_copy(update={"engine": served(dying.url, other.url)})
            with pytest.warns(UserWarning, match=f"{dying.url} is left out"):
                run_suite(asked, str(model_folder), tmp_path / "there")
        expect_equal(tmp_path / "whole", tmp_path / "there")

    def test_when_all_are_gone_the_eval_stops_and_goes_on(
        self, make_suite: MakeSuite, process: str, model_folder: Path, tmp_path: Path
    ) -> None:
        suite = make_suite(GENERATE, SAMPLED, seed=3)
        one = suite.model_copy(update={"engine": served(process)})
        run_suite(one, str(model_folder), tmp_path / "whole")
        running: list[Running] = []

        def killed(name: str, done: int, total: int) -> None:
            running[0].kill()

        with engine_server(model_folder) as server:
            running.append(server)
            asked = suite.model_copy(update={"engine": served(server.url)})
            with (
                pytest.warns(UserWarning, match="is left out"),
                pytest.raises(UnscoredError, match=r"no server answers[\s\S]*same command again"),
            ):
                run_suite(asked, str(model_folder), tmp_path / "there", on_part=killed)
        asked_for: list[str] = []

        def counts(held: Any) -> None:
            sample = held.sample
            held.sample = lambda one, adapter: (asked_for.append(""), sample(one, adapter))[1]

        with engine_server(model_folder, counts) as server:
            asked = suite.model_copy(update={"engine": served(server.url)})
            run_suite(asked, str(model_folder), tmp_path / "there")
        assert len(asked_for) == 36  # the twelve greedy answers were kept, at another address
        expect_equal(tmp_path / "whole", tmp_path / "there")


def greedy(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "samples.jsonl").open()]
    return [row for row in rows if row["temperature"] == 0]


class TestStudies:
    def test_a_study_on_servers_is_the_study_here(
        self, study: Callable[..., Study], process: str, model_folder: Path, base_folder: Path,
        tmp_path: Path,
    ) -> None:  # fmt: skip
        recipe = study(refine={"instruction": "Check it."}, sampling={"max_tokens": 8})
        asked = recipe.model_copy(update={"engine": served(process)})
        here, there = tmp_path / "here", tmp_path / "there"
        for one, folder in ((recipe, here), (asked, there)):
            run_study(check_study(one, model=str(model_folder), base=str(base_folder)), folder)
        assert greedy(there) == greedy(here)
        assert {row["round"] for row in greedy(there)} == {0, 1}
        other = json.loads((there / "decode.json").read_text())
        assert any("sampled by different engines" in note for note in other["notes"])
        assert other["model"]["engine"] == "vllm"
        assert "engine" not in other["base"]
