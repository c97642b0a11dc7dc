"""Weights from memory to memory: what vLLM and SGLang are told, in which order, and what is
refused. Servers are small ones of the tests' own: nothing here needs a GPU, or shows that one
works."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi import FastAPI, HTTPException, Request

import strop
from strop.engines.served import sending, ways
from strop.engines.served.build import served_engine
from strop.engines.served.engine import ServedEngine
from strop.engines.served.expect import expect_servers
from strop.engines.served.sglang import SglangServer
from strop.engines.served.start import _command
from strop.engines.served.sync import IpcSync
from strop.engines.served.vllm import VllmServer
from strop.engines.server.app import engine_app
from strop.engines.server.held import Held
from strop.engines.transfer.handles import Shared
from strop.errors import HttpError, TrainingError, UsageError
from strop.model.network import Policy
from strop.recipe.train.engine import SglangRecipe, VllmRecipe
from strop.recipe.train.model import ModelRecipe
from strop.recipe.train.rollout import RolloutRecipe
from tests.support.engine_servers import Running, engine_server
from tests.support.runs import WriteRows
from tests.support.served import PROMPTS, nudge, publish, requests
from tests.support.sglang_app import Sglang

WEIGHTS = {"a.weight": torch.zeros(2, 3), "b.bias": torch.zeros(4, dtype=torch.bfloat16)}
LISTED = {"names": ["a.weight", "b.bias"], "dtype_names": ["float32", "bfloat16"],
          "shapes": [[2, 3], [4]]}  # fmt: skip
MODEL = ModelRecipe(path="base")


class Told:
    """A server that notes what it is told, and fails at one route."""

    def __init__(self, fails: str = "", workers: int = 2) -> None:
        self.said: list[tuple[str, Any]] = []
        self.fails, self.workers = fails, workers

    def app(self, held: Held) -> FastAPI:
        app = FastAPI()

        @app.get("/get_world_size")
        def world() -> Any:
            return {"world_size": self.workers}

        @app.get("/server_info")
        def info() -> Any:
            return {"tp_size": self.workers, "pp_size": 1}

        @app.post("/{route}")
        async def note(route: str, request: Request) -> Any:
            query = f"?{request.url.query}" if request.url.query else ""
            self.said.append((route + query, await request.json()))
            if route == self.fails:
                raise HTTPException(500, "no weight transfer is configured")
            return {}

        return app


@pytest.fixture
def halves(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the trainer's halves over NCCL are given; they send nothing."""
    given: list[Any] = []

    def send(library: Any, unique: bytes, size: int, weights: Any, **how: Any) -> None:
        given.append((unique, size, list(weights)))
        while not (how["taken"].is_set() or how["given_up"].is_set()):
            threading.Event().wait(0.01)

    monkeypatch.setattr(sending.nccl, "library", lambda: None)
    monkeypatch.setattr(sending.nccl, "unique_id", lambda library: b"u" * 128)
    monkeypatch.setattr(sending.nccl, "send", send)
    return given


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tuple(range(8))
    given = Shared("GPU-1f", tuple(WEIGHTS), tuple(WEIGHTS.values()), (handle, handle))
    monkeypatch.setattr(sending.handles, "shared", lambda weights: given)
    monkeypatch.setattr(sending.handles, "by_gpu", lambda given: "pickled")
    monkeypatch.setattr(sending.handles, "named", lambda given: "opened")


class TestVllmIsTold:
    def test_over_nccl(self, model_folder: Path, halves: list[Any]) -> None:
        told = Told(workers=2)
        with engine_server(model_folder, app=told.app) as server:
            VllmServer(server.url, seconds=5).receive(WEIGHTS, "a-1", "nccl")
        init = {"nccl_unique_id_b64": "dXV1" * 42 + "dXU=", "rank_offset": 1, "world_size": 3,
                "packed": False}  # fmt: skip
        assert told.said == [
            ("pause?mode=keep", {}),
            ("init_weight_transfer_engine", {"init_info": init}),
            ("start_weight_update", {}),
            ("update_weights", {"update_info": LISTED}),
            ("finish_weight_update", {"weight_version": "a-1"}),
            ("shutdown_weight_transfer_engine", {}),
            ("reset_prefix_cache", {}),
            ("resume", {}),
        ]
        assert halves == [(b"u" * 128, 3, ["a.weight", "b.bias"])]

    @pytest.mark.usefixtures("shared")
    def test_by_ipc(self, model_folder: Path) -> None:
        told = Told()
        with engine_server(model_folder, app=told.app) as server:
            VllmServer(server.url, seconds=5).receive(WEIGHTS, "a-1", "ipc")
        assert told.said == [
            ("pause?mode=keep", {}),
            ("init_weight_transfer_engine", {"init_info": {"packed": False}}),
            ("start_weight_update", {}),
            ("update_weights", {"update_info": {**LISTED, "ipc_handles_pickled": "pickled"}}),
            ("finish_weight_update", {"weight_version": "a-1"}),
            ("reset_prefix_cache", {}),
            ("resume", {}),
        ]

    def test_a_server_that_fails_goes_on_with_its_answers(
        self, model_folder: Path, halves: list[Any]
    ) -> None:
        told = Told(fails="init_weight_transfer_engine")
        with (
            engine_server(model_folder, app=told.app) as server,
            pytest.raises(HttpError, match="no weight transfer is configured"),
        ):
            VllmServer(server.url, seconds=5).receive(WEIGHTS, "a-1", "nccl")
        assert [route for route, _ in told.said] == [
            "pause?mode=keep", "init_weight_transfer_engine", "resume",
        ]  # fmt: skip
        assert len(halves) == 1, "and the trainer's half was let go"

    def test_a_half_that_hangs_is_an_error_with_a_name(
        self, model_folder: Path, halves: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        free = threading.Event()
        monkeypatch.setattr(sending, "CONTROL_SECONDS", 0.5)
        monkeypatch.setattr(sending, "ENDS_WITHIN", 0.1)
        monkeypatch.setattr(sending.nccl, "send", lambda *_, **__: free.wait(60))
        with (
            engine_server(model_folder, app=Told().app) as server,
            pytest.raises(HttpError, match=r"of the weights hung: .* within 0\.5 s"),
        ):
            VllmServer(server.url, seconds=5).receive(WEIGHTS, "a-1", "nccl")
        free.set()

    def test_a_half_that_fails_is_said(
        self, model_folder: Path, halves: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(*_: Any, **__: Any) -> None:
            raise RuntimeError("NCCL: duplicate GPU detected")

        monkeypatch.setattr(sending.nccl, "send", fails)
        with (
            engine_server(model_folder, app=Told().app) as server,
            pytest.raises(HttpError, match="half of the transfer failed: NCCL: duplicate GPU"),
        ):
            VllmServer(server.url, seconds=5).receive(WEIGHTS, "a-1", "nccl")

    def test_sleeps_once_its_answers_are_given(self, model_folder: Path) -> None:
        told = Told()
        with engine_server(model_folder, app=told.app) as running:
            server = VllmServer(running.url, seconds=5)
            server.sleep()
            server.wake_up()
        assert told.said == [("sleep?level=1&mode=wait", {}), ("wake_up", {})]


class TestSglangIsTold:
    @pytest.mark.usefixtures("shared")
    def test_by_ipc(self, model_folder: Path) -> None:
        told = Told(workers=1)
        with engine_server(model_folder, app=told.app) as server:
            SglangServer(server.url, seconds=5).receive(WEIGHTS, "a-1", "ipc")
        body = {"serialized_named_tensors": ["opened"], "flush_cache": True,
                "weight_version": "a-1"}  # fmt: skip
        assert told.said == [("update_weights_from_tensor", body)]

    def test_over_nccl(self, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        given: list[Any] = []

        def send(place: Any, weights: Any, backend: str, **how: Any) -> None:
            given.append((place.getsockname()[1], list(weights), backend, how["name"], how["size"]))
            place.close()

        monkeypatch.setattr(sending.group, "send", send)
        told = Told(workers=2)
        with engine_server(model_folder, app=told.app) as server:
            SglangServer(server.url, seconds=5).receive(WEIGHTS, "a-1", "nccl")
        (port, names, backend, name, size), = given  # fmt: skip
        assert (names, backend, size) == (["a.weight", "b.bias"], "nccl", 3)
        init = {"master_address": "127.0.0.1", "master_port": port, "rank_offset": 1,
                "world_size": 3, "group_name": name, "backend": "nccl"}  # fmt: skip
        update = {"names": LISTED["names"], "dtypes": LISTED["dtype_names"],
                  "shapes": LISTED["shapes"], "group_name": name, "flush_cache": True,
                  "weight_version": "a-1"}  # fmt: skip
        assert told.said == [
            ("init_weights_update_group", init),
            ("update_weights_from_distributed", update),
            ("destroy_weights_update_group", {"group_name": name}),
        ]


def test_samples_of_sglang_are_of_the_policy_that_was_broadcast(
    policy: Policy, model_folder: Path, tmp_path: Path
) -> None:
    """Over gloo, on a CPU: the group is made on the server's side as SGLang makes it."""
    with engine_server(model_folder, app=Sglang().app) as server:
        recipe = SglangRecipe(kind="sglang", url=[server.url], sync="broadcast")
        about = expect_servers(recipe, MODEL, policy.tokenizer, PROMPTS, answer_tokens=16)
        engine = served_engine(recipe, about, policy, PROMPTS, folder=tmp_path / "engine")
        for version in (1, 2):
            nudge(policy)
            assert publish(engine, policy) == version, "the canary compared the log-probs"
            own = policy.model.named_parameters()
            there = dict(server.held.policy.model.named_parameters())
            assert all(torch.equal(there[name], one) for name, one in own)
        engine.close()


class Sleeping(Sglang):
    """Refuses to answer, and to take weights, while it sleeps."""

    def app(self, held: Held) -> FastAPI:
        app = super().app(held)
        self.inner = app

        @app.middleware("http")
        async def awake(request: Request, call: Any) -> Any:
            asleep = app.state.slept[-1:] == ["release"]
            if asleep and request.url.path in ("/generate", "/init_weights_update_group"):
                raise HTTPException(503, "asleep")
            return await call(request)

        return app


@pytest.fixture
def sleeper(model_folder: Path) -> Iterator[tuple[Running, list[str]]]:
    how = Sleeping()
    with engine_server(model_folder, app=how.app) as server:
        yield server, how.inner.state.slept


def engine_that_sleeps(policy: Policy, server: Running, root: Path) -> ServedEngine:
    """Over gloo instead of CUDA IPC, which alone may sleep in a recipe."""
    recipe = SglangRecipe(kind="sglang", url=[server.url], sync="broadcast")
    about = expect_servers(recipe, MODEL, policy.tokenizer, PROMPTS, answer_tokens=16)
    asleep = recipe.model_copy(update={"sleep": True})
    return served_engine(asleep, about, policy, PROMPTS, folder=root / "engine")


def test_a_server_sleeps_until_it_is_asked_or_gets_weights(
    policy: Policy, sleeper: tuple[Running, list[str]], tmp_path: Path
) -> None:
    server, slept = sleeper
    engine = engine_that_sleeps(policy, server, tmp_path)
    publish(engine, policy)
    assert slept == [], "it was never asleep"
    engine.rest()
    engine.rest()
    assert slept == ["release"], "one that sleeps is not sent to sleep"
    nudge(policy)
    publish(engine, policy)
    assert slept == ["release", "resume"]
    engine.rest()
    assert len(list(engine.generate(requests()))) == len(requests())
    assert slept == ["release", "resume"] * 2
    engine.rest()
    engine.close()
    assert slept == ["release", "resume"] * 3, "nobody finds it asleep after the run"


class TestSharedWeights:
    def test_are_never_those_of_another_version(self, policy: Policy) -> None:
        sync, given = IpcSync(), list[Any]()

        class Server:
            url = "http://127.0.0.1:1"

            def receive(self, weights: Any, name: str, way: str) -> None:
                given.append((weights["model.embed_tokens.weight"].data_ptr(), name, way))

        sync.write(policy, 1, ())
        sync.load(Server(), 1)  # type: ignore[arg-type]
        own = dict(policy.model.named_parameters())["model.embed_tokens.weight"].data_ptr()
        assert given == [(own, sync.label(1), "ipc")], "nothing was copied"
        nudge(policy)
        with pytest.raises(TrainingError, match="updated since it was published"):
            sync.load(Server(), 1)  # type: ignore[arg-type]


CUDA = ModelRecipe(path="base", device="cuda")


class TestRefused:
    @pytest.fixture(autouse=True)
    def pretend(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            ways, "pick_device", lambda device: "cuda" if device == "cuda" else "cpu"
        )

    def test_ipc_without_a_gpu(self) -> None:
        recipe = VllmRecipe(kind="vllm", url=["http://127.0.0.1:1"], sync="ipc")
        with pytest.raises(UsageError, match="shares the memory of a GPU, and the model is on cpu"):
            ways.expect_way(recipe, MODEL)

    def test_ipc_with_a_server_on_another_machine(self) -> None:
        there = VllmRecipe(kind="vllm", url=["http://192.0.2.7:8000"], sync="ipc")
        here = there.model_copy(update={"url": ["http://localhost:8000"]})
        ways.expect_way(here, CUDA)
        with pytest.raises(UsageError, match="this server is on another machine") as caught:
            ways.expect_way(there, CUDA)
        assert caught.value.where == "http://192.0.2.7:8000"

    @pytest.mark.parametrize(
        ("says", "recipe", "model", "problem"),
        [
            ({"transfer": "nccl"}, {"sync": "broadcast"}, MODEL, "over NCCL, which needs CUDA"),
            ({"transfer": None}, {"sync": "broadcast"}, MODEL, "takes no weights by broadcast"),
            ({"transfer": "ipc"}, {"sync": "broadcast"}, CUDA, "takes no weights by broadcast"),
            ({"transfer": "nccl"}, {"sync": "ipc"}, CUDA, "takes no weights by CUDA IPC"),
            ({"transfer": "ipc", "workers": 2}, {"sync": "ipc"}, CUDA, "has 2 processes"),
            ({"transfer": "ipc"}, {"sync": "ipc", "sleep": True}, CUDA, "cannot give its memory"),
            ({"quantization": "fp8"}, {}, MODEL, r"quantises its weights \(fp8\)"),
            ({"quantization": "awq"}, {"sync": "disk"}, CUDA, r"quantises its weights \(awq\)"),
        ],
    )
    def test_what_a_vllm_was_started_with(
        self, model_folder: Path, says: Any, recipe: Any, model: ModelRecipe, problem: str
    ) -> None:
        with engine_server(model_folder, app=SaysItsStart(**says).app) as server:
            wanted = VllmRecipe(kind="vllm", url=[server.url], **recipe)
            with pytest.raises(UsageError, match=problem):
                ways.expect_started(VllmServer(server.url, seconds=5), wanted, model)

    @pytest.mark.parametrize(
        ("says", "recipe", "model"),
        [
            ({"transfer": "nccl"}, {"sync": "broadcast"}, CUDA),
            ({"transfer": "ipc", "sleeps": True}, {"sync": "ipc", "sleep": True}, CUDA),
            ({"quantization": "fp8"}, {}, ModelRecipe(path="base", lora={"rank": 4})),  # type: ignore[arg-type]
            ({}, {"sync": "disk"}, MODEL),
        ],
    )
    def test_what_fits_is_not(
        self, model_folder: Path, says: Any, recipe: Any, model: ModelRecipe
    ) -> None:
        with engine_server(model_folder, app=SaysItsStart(**says).app) as server:
            wanted = VllmRecipe(kind="vllm", url=[server.url], **recipe)
            ways.expect_started(VllmServer(server.url, seconds=5), wanted, model)

    def test_a_vllm_that_does_not_say_is_left_to_the_canary(self, model_folder: Path) -> None:
        with engine_server(model_folder, app=lambda held: FastAPI()) as server:
            recipe = VllmRecipe(kind="vllm", url=[server.url], sync="disk")
            ways.expect_started(VllmServer(server.url, seconds=5), recipe, MODEL)
            ipc = recipe.model_copy(update={"sync": "ipc"})
            with pytest.raises(UsageError, match=r'start vLLM in its dev mode with .*"ipc"'):
                ways.expect_started(VllmServer(server.url, seconds=5), ipc, CUDA)

    @pytest.mark.parametrize(
        ("arguments", "recipe", "problem"),
        [
            ({"quantization": "fp8"}, {}, r"quantises its weights \(fp8\)"),
            ({"device": "cuda"}, {"sync": "broadcast"}, "over NCCL, which needs CUDA"),
            ({"device": "cuda", "dp_size": 2}, {"sync": "broadcast"}, "no weights by broadcast"),
        ],
    )
    def test_what_an_sglang_was_started_with(
        self, model_folder: Path, arguments: Any, recipe: Any, problem: str
    ) -> None:
        with engine_server(model_folder, app=Sglang(arguments=arguments).app) as server:
            wanted = SglangRecipe(kind="sglang", url=[server.url], **recipe)
            with pytest.raises(UsageError, match=problem):
                ways.expect_started(SglangServer(server.url, seconds=5), wanted, MODEL)

    def test_an_sglang_sleeps_only_with_a_backup_of_its_weights(self, model_folder: Path) -> None:
        for saver, backup in ((True, False), (False, True), (True, True)):
            said = {"enable_memory_saver": saver, "enable_weights_cpu_backup": backup}
            with engine_server(model_folder, app=Sglang(arguments=said).app) as server:
                assert SglangServer(server.url, seconds=5).started().sleeps is (saver and backup)

    @pytest.mark.parametrize(
        ("engine", "problem"),
        [
            ({"sleep": True}, "sleep is for servers on the trainer's GPU"),
            ({"sleep": True, "sync": "disk"}, "sleep is for servers on the trainer's GPU"),
            ({"sync": "ipc", "folder": "x"}, "drop it, or sync: ipc"),
        ],
    )
    def test_a_recipe_that_contradicts_itself(self, engine: Any, problem: str) -> None:
        with pytest.raises(ValueError, match=problem):
            VllmRecipe(kind="vllm", url=["http://127.0.0.1:1"], **engine)

    def test_weights_that_are_updated_while_somebody_samples(self) -> None:
        engine = {"kind": "vllm", "url": "http://127.0.0.1:1", "sync": "ipc"}
        with pytest.raises(ValueError, match="shares the weights that the trainer updates"):
            RolloutRecipe.model_validate({"engine": engine, "source": {"kind": "async"}})


class SaysItsStart:
    """A vLLM that says how it was started."""

    def __init__(
        self, transfer: str | None = None, quantization: str | None = None, workers: int = 1,
        sleeps: bool = False,
    ) -> None:  # fmt: skip
        self.config = {
            "model_config": {"quantization": quantization, "enable_sleep_mode": sleeps},
            "parallel_config": {"world_size": workers, "data_parallel_size": 1},
            "weight_transfer_config": None if transfer is None else {"backend": transfer},
        }

    def app(self, held: Held) -> FastAPI:
        app = FastAPI()

        @app.get("/server_info")
        def info(config_format: str) -> Any:
            assert config_format == "json"
            return {"vllm_config": self.config}

        return app


def test_strops_own_server_says_that_its_model_is_quantised(model_folder: Path) -> None:
    def quantise(held: Held) -> None:
        held.policy.model.config.quantization_config = {"quant_method": "bitsandbytes"}

    with engine_server(model_folder) as plain, engine_server(model_folder, quantise) as fewer:
        said = [VllmServer(one.url, seconds=5).started() for one in (plain, fewer)]
    assert said[0] is not None
    assert said == [said[0], replace(said[0], quantization="bitsandbytes")]
    assert said[0].transfers == {"gloo"}


def test_a_run_with_a_quantised_server_is_refused_before_it_begins(
    model_folder: Path, write_rows: WriteRows, tmp_path: Path
) -> None:
    def app(held: Held) -> FastAPI:
        held.policy.model.config.quantization_config = {"quant_method": "fp8"}
        return engine_app(held)

    tasks = [{"prompt": f"Solve {n}x = {2 * n}", "answer": "2"} for n in range(1, 5)]
    with engine_server(model_folder, app=app) as server:
        recipe = {
            "method": "grpo", "output": str(tmp_path / "run"), "model": {"path": str(model_folder)},
            "data": str(write_rows("tasks.jsonl", tasks)), "text": {"max_length": 96},
            "reward": [{"function": "exact_answer"}],
            "rollout": {"group_size": 4, "max_tokens": 12,
                        "engine": {"kind": "vllm", "url": server.url}},
            "optim": {"learning_rate": 1e-3}, "run": {"steps": 3, "batch_size": 2},
        }  # fmt: skip
        with pytest.raises(UsageError, match=r"quantises its weights \(fp8\)"):
            strop.train(recipe)
    assert not (tmp_path / "run").exists()


def test_a_vllm_that_strop_starts_shares_and_sleeps(tmp_path: Path) -> None:
    recipe = VllmRecipe.model_validate(
        {"kind": "vllm", "python": "/bin/sh", "sync": "ipc", "sleep": True}
    )
    command = _command(recipe, ModelRecipe(path="base", device="cpu"), 8000, 64)
    assert command.environment["VLLM_ALLOW_INSECURE_SERIALIZATION"] == "1"
    at = command.arguments.index("--weight-transfer-config")
    assert command.arguments[at + 1] == '{"backend": "ipc"}'
    assert "--enable-sleep-mode" in command.arguments
