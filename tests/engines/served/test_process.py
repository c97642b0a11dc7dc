"""A run that samples from `strop engine serve`, a process of its own."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import strop
from strop.cli.app import app
from strop.engines.local.engine import LocalEngine
from strop.errors import TrainingError, UsageError
from strop.http import HttpClient
from strop.train.loop.parity import PROBED
from tests.support.engine_processes import process
from tests.support.engine_servers import engine_server
from tests.support.runs import WriteRows


@pytest.fixture(scope="module")
def url(model_folder: Path) -> Iterator[str]:
    with process(model_folder) as address:
        yield address


@pytest.fixture
def recipe(model_folder: Path, write_rows: WriteRows, tmp_path: Path) -> dict[str, Any]:
    tasks = [{"prompt": f"Solve {n}x = {2 * n}", "answer": "2"} for n in range(1, 9)]
    return {
        "method": "grpo", "output": str(tmp_path / "run"),
        "model": {"path": str(model_folder)},
        "data": str(write_rows("tasks.jsonl", tasks)), "text": {"max_length": 96},
        "rollout": {"group_size": 4, "max_tokens": 12},
        "optim": {"learning_rate": 1e-3}, "run": {"steps": 3, "batch_size": 4},
    }  # fmt: skip


def short(prompts: Any, completions: Any, **_: Any) -> list[float]:
    return [-float(len(c if isinstance(c, str) else c[-1]["content"])) for c in completions]


@pytest.mark.parametrize("adapter", [None, {"rank": 4}])
def test_a_run_samples_from_another_process_and_its_ratios_are_one(
    model_folder: Path, recipe: dict[str, Any], adapter: Any, tmp_path: Path
) -> None:
    recipe["model"]["lora"] = adapter
    with process(model_folder) as url:
        recipe["rollout"]["engine"] = {"kind": "vllm", "url": url}
        run = strop.train(recipe, rewards=[short])
    assert run.metrics["reward_std"].values[0] > 0
    checks = json.loads((tmp_path / "run/lineage.json").read_text())["self_check"]
    assert checks["sampler_mismatch"] < 1e-5
    assert checks["engine"]["servers"] == [url]
    assert checks["engine"]["sync"] == ("AdapterSync" if adapter else "DiskSync")


@pytest.mark.parametrize("adapter", [None, {"rank": 4}])
@pytest.mark.parametrize("source", [{"kind": "synchronous"}, {"kind": "async"}])
def test_a_resumed_run_samples_from_the_weights_of_its_checkpoint(
    model_folder: Path, recipe: dict[str, Any], adapter: Any, source: Any
) -> None:
    """Until the checkpoint is loaded its servers have the weights that the run began with."""
    recipe["model"]["lora"] = adapter
    recipe["run"] |= {"steps": 4, "save_every": 2}
    recipe["optim"]["schedule"] = "constant"
    with process(model_folder) as url:
        recipe["rollout"] |= {"engine": {"kind": "vllm", "url": url}, "source": source}
        strop.train(recipe, rewards=[short])
        recipe["run"]["steps"] = 6
        run = strop.train(recipe, rewards=[short], resume=True, force_resume=True)
    name = "async" if source["kind"] == "async" else "mismatch"
    apart = run.metrics[f"{name}/logprob_difference"].values
    if name == "mismatch":
        assert max(apart) < 1e-5
    else:  # what is sampled first after the checkpoint was loaded is of its weights
        assert run.metrics["async/staleness"].values[4] == 0
        assert apart[4] < 1e-5


@pytest.mark.parametrize("adapter", [None, {"rank": 4}])
def test_an_asynchronous_run_learns_from_every_prompt_once(
    model_folder: Path, recipe: dict[str, Any], adapter: Any, tmp_path: Path
) -> None:
    recipe["model"]["lora"] = adapter
    recipe["run"] |= {"steps": 6, "save_every": 3}
    recipe["rollout"] |= {"parity_every": 2, "source": {"kind": "async", "max_staleness": 2}}
    with process(model_folder) as url:
        recipe["rollout"]["engine"] = {"kind": "vllm", "url": url}
        run = strop.train(recipe, rewards=[short])
    assert max(run.metrics["async/staleness_max"].values) == 2
    assert run.metrics["async/learnt"].values == (4, 8, 12, 16, 20, 24)
    assert set(run.metrics["async/dropped"].values) == {0}
    assert run.metrics["async/drawn"].values == (12, 16, 20, 24, 24, 24)
    assert max(run.metrics["parity/worst"].values) < 1e-5
    assert min(run.metrics["mismatch/ess"].values) < 1  # older weights are other probabilities
    saved = json.loads((tmp_path / "run/checkpoint-3/trainer.json").read_text())["parts"]
    tickets = saved["rollouts"]["tickets"]
    assert (tickets["learnt"], tickets["drawn"]) == (12, 20)
    assert sorted(number for number, *_ in tickets["outstanding"]) == list(range(12, 20))


def test_given_tokens_come_back_the_same_by_both_routes(url: str, model_folder: Path) -> None:
    client = HttpClient()
    ids = [2, 40, 41, 42, 3]
    how = {"temperature": 0.9, "max_tokens": 10, "seed": 77}
    one = client.post(f"{url}/inference/v1/generate", {"token_ids": ids, "sampling_params": how})
    other = client.post(f"{url}/v1/completions", {"prompt": ids, "return_token_ids": True, **how})
    assert one["choices"][0]["token_ids"] == other["choices"][0]["token_ids"]
    assert other["choices"][0]["prompt_token_ids"] == ids
    assert other["usage"]["completion_tokens"] == len(other["choices"][0]["token_ids"])
    assert client.get(f"{url}/v1/models")["data"][0]["id"] == str(model_folder)


@pytest.mark.parametrize(
    ("route", "body", "said"),
    [
        ("inference/v1/generate", {"token_ids": [2], "sampling_params": {"max_tokens": 9999}},
         "the model reads"),
        ("inference/v1/generate", {"token_ids": [2], "sampling_params": {}, "model": "nobody"},
         "no model 'nobody' is loaded"),
        ("inference/v1/generate", {"token_ids": [2], "sampling_params": {"stop_token_ids": [9]}},
         "answers end at the tokens"),
        ("inference/v1/generate", {"token_ids": [2], "sampling_params": {"n": 3}}, "extra_forbid"),
        ("inference/v1/generate", {"token_ids": [], "sampling_params": {}}, "too_short"),
        ("inference/v1/generate", {"token_ids": [2, 10**5], "sampling_params": {}},
         "there is no token 100000: the model knows"),
        ("inference/v1/generate", {"token_ids": [10**5, 2], "sampling_params":
         {"prompt_logprobs": 0}}, "there is no token 100000"),
        ("v1/load_lora_adapter", {"lora_name": "a", "lora_path": "/nowhere"}, "no such folder"),
        ("v1/unload_lora_adapter", {"lora_name": "a"}, "no adapter 'a' is loaded"),
        ("collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": "/nowhere"}},
         "nowhere"),
        ("collective_rpc", {"method": "exec", "kwargs": {"weights_path": "x"}}, "literal_error"),
    ],
)  # fmt: skip
def test_what_cannot_be_met_is_refused_and_said(
    url: str, route: str, body: dict[str, Any], said: str
) -> None:
    with pytest.raises(strop.errors.HttpError, match=said) as caught:
        HttpClient().post(f"{url}/{route}", body)
    assert caught.value.status in (400, 422)


def test_a_port_that_is_taken(model_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        found = CliRunner().invoke(app, ["engine", "serve", str(model_folder), "--port", port])
    assert isinstance(found.exception, UsageError)
    assert f"port {port} of 127.0.0.1 cannot be had" in str(found.exception)


def test_a_run_whose_server_keeps_its_weights_stops_and_says_so(
    model_folder: Path, recipe: dict[str, Any]
) -> None:
    def lie(held: Any) -> None:
        held.reload = lambda folder: held._put(None, None, lambda: None)

    with engine_server(model_folder, lie) as server:
        recipe["rollout"]["engine"] = {"kind": "vllm", "url": server.url}
        with pytest.raises(TrainingError, match=r"older weights|from the trainer's"):
            strop.train(recipe, rewards=[short])


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ({"kind": "local", "url": "http://127.0.0.1:1"}, "url"),
        ({"kind": "vllm"}, "url"),
        ({"kind": "vllm", "url": ["http://a:1", "http://a:1/"]}, "stands twice"),
        ({"kind": "vllm", "url": "http://a:1/v1/"}, "the server's own, http://a:1"),
        ({"kind": "sglong", "url": "http://a:1"}, "kind"),
        ({"kind": "sglang"}, "url"),
        ({"kind": "sglang", "url": "http://a:1", "tokens_only": True}, "tokens_only"),
        ({"kind": "vllm", "url": "http://a:1", "at_once": 0}, "at_once"),
    ],
)
def test_options_of_another_engine_are_refused(
    recipe: dict[str, Any], engine: dict[str, Any], said: str
) -> None:
    recipe["rollout"]["engine"] = engine
    with pytest.raises(UsageError, match=said):
        strop.train(recipe, rewards=[short])


def test_an_engine_beside_a_recipe_that_names_one(recipe: dict[str, Any]) -> None:
    recipe["rollout"]["engine"] = {"kind": "vllm", "url": "http://127.0.0.1:9"}
    engine = LocalEngine(recipe["model"]["path"])
    with pytest.raises(UsageError, match="drop one of the two"):
        strop.train(recipe, rewards=[short], engine=engine)


@pytest.mark.parametrize("adapter", [None, {"rank": 4}])
@pytest.mark.parametrize("fails", [False, True])
def test_a_run_leaves_nothing_on_its_servers_and_no_weights_for_them(
    model_folder: Path, recipe: dict[str, Any], tmp_path: Path, adapter: Any, fails: bool
) -> None:
    asked = []

    def reward(prompts: Any, completions: Any, **more: Any) -> list[float]:
        asked.append(len(server.held.adapters))
        if fails and len(asked) == 2:
            raise KeyboardInterrupt
        return short(prompts, completions, **more)

    recipe["model"]["lora"] = adapter
    with engine_server(model_folder) as server:
        recipe["rollout"]["engine"] = {"kind": "vllm", "url": server.url}
        with pytest.raises(KeyboardInterrupt) if fails else nullcontext():
            strop.train(recipe, rewards=[reward])
        assert asked[:2] == ([0, 0] if adapter is None else [1, 1])
        assert not server.held.adapters
    assert (tmp_path / "run").exists()
    assert not (tmp_path / "run/engine").exists()


def test_ctrl_c_ends_a_run_whose_server_fell_silent(
    model_folder: Path, recipe: dict[str, Any], tmp_path: Path
) -> None:
    """The requests have ten minutes. The state is saved, and the server drops the adapter."""
    silent = threading.Event()

    def fall_silent(held: Any) -> None:
        plain, asked = held.sample, []

        def sample(*what: Any) -> Any:
            asked.append(what)
            if len(asked) <= PROBED:
                return plain(*what)
            silent.set()
            return Future()

        held.sample = sample

    with engine_server(model_folder, fall_silent) as server:
        recipe["rollout"]["engine"] = {"kind": "vllm", "url": server.url}
        recipe["model"]["lora"] = {"rank": 4}
        recipe["reward"] = [{"function": "exact_answer"}]
        (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
        command = [sys.executable, "-m", "strop", "train", str(tmp_path / "recipe.yaml")]
        running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            assert silent.wait(120)
            assert server.held.adapters
            running.send_signal(signal.SIGINT)
            _, said = running.communicate(timeout=60)
        finally:
            running.kill()
        assert running.returncode == 130, said
        assert "stopped by SIGINT" in said
        assert not server.held.adapters
    assert not (tmp_path / "run/engine").exists()
