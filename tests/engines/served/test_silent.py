"""Servers that take requests and never end an answer hold up neither a run nor its end."""

from __future__ import annotations

import signal
import subprocess
import sys
from functools import partial
from typing import Any

import pytest

from strop.engines.served.expect import expect_context, expect_servers
from strop.engines.served.fleet import Asked, Fleet, Member
from strop.engines.served.server import About, Server
from strop.engines.served.vllm import VllmServer
from strop.errors import TrainingError, UsageError
from strop.recipe.train.engine import VllmRecipe
from strop.recipe.train.model import ModelRecipe
from tests.support.servers import chat_server, stalling_server

TRICKLES = {
    "silent": (b"", b""),
    "headers without end": (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"),
    "a body without end": (b"HTTP/1.1 200 OK\r\n\r\n", b" "),
}
MODEL = ModelRecipe(path="base")


def fleet_of(*servers: Server) -> Fleet:
    return Fleet([Member(server) for server in servers], 8, lambda server: None)


def ask(server: Server) -> Any:
    return server.score([1], None)


@pytest.mark.parametrize("way", TRICKLES)
def test_it_is_left_out_after_its_time_and_asked_no_second_time(way: str) -> None:
    with stalling_server(*TRICKLES[way]) as stalling:
        fleet = fleet_of(VllmServer(stalling.url, seconds=1.0))
        with (
            pytest.raises(TrainingError, match=r"no server answers: .*whole answer within 1 s"),
            pytest.warns(UserWarning, match="is left out"),
        ):
            list(fleet.ask([Asked(ask, 1)]))
        assert stalling.asked == 1


def test_what_it_owed_is_asked_of_another() -> None:
    with stalling_server() as stalling:
        silent = VllmServer(stalling.url, seconds=0.3)
        other = VllmServer("http://other", seconds=1)
        fleet = fleet_of(silent, other)

        def work(number: int, server: Server) -> int:
            return number if server is other else ask(server)

        with pytest.warns(UserWarning, match=f"{stalling.url} is left out"):
            found = dict(fleet.ask([Asked(partial(work, number), 1) for number in range(6)]))
        assert found == {number: number for number in range(6)}


PROGRAM = """
import sys
from strop.engines.served.fleet import Asked, Fleet, Member
from strop.engines.served.vllm import VllmServer

def ask(server):
    print("asked", flush=True)
    return server.score([1], None)

def fail(server):
    raise RuntimeError("planted")

fleet = Fleet([Member(VllmServer(sys.argv[1], seconds=600))], 2, lambda server: None)
list(fleet.ask([Asked(ask, 1), *([Asked(fail, 1)] if sys.argv[2] == "error" else [])]))
"""


@pytest.mark.parametrize("end", ["error", "signal"])
def test_neither_an_error_nor_ctrl_c_waits_for_it(end: str) -> None:
    """Its requests have ten minutes; the process ends at once."""
    with stalling_server() as stalling:
        running = subprocess.Popen([sys.executable, "-c", PROGRAM, stalling.url, end],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True)  # fmt: skip
        assert running.stdout is not None
        assert running.stdout.readline() == "asked\n"
        if end == "signal":
            running.send_signal(signal.SIGINT)
        try:
            _, said = running.communicate(timeout=30)
        finally:
            running.kill()
    assert ("RuntimeError: planted" if end == "error" else "KeyboardInterrupt") in said


class TestAddresses:
    def expect(self, url: str) -> UsageError:
        recipe = VllmRecipe(kind="vllm", url=[url])
        prompts: Any = [type("Prompt", (), {"prompt_ids": (1, 2)})]
        with pytest.raises(UsageError) as told:
            expect_servers(recipe, MODEL, None, prompts, answer_tokens=4)  # type: ignore[arg-type]
        return told.value

    def test_https_where_the_server_speaks_http(self) -> None:
        with chat_server(lambda body: "x") as server:
            url = server.url.removesuffix("/v1").replace("http:", "https:")
            error = self.expect(url)
        assert "does not speak https" in error.problem
        assert f"write {url.replace('https:', 'http:')} if" in str(error.fix)

    def test_a_server_of_another_protocol(self) -> None:
        with stalling_server(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno") as other:
            error = self.expect(other.url)
        assert error.problem.startswith("what answers here speaks another protocol than vLLM's")
        assert "strop engine serve base --port" in str(error.fix)

    def test_a_model_without_a_bound_reads_any_length(self) -> None:
        said = b'{"data": [{"id": "m", "max_model_len": null, "parent": null}]}'
        begin = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said)
        with stalling_server(begin + said) as server:
            about = VllmServer(server.url, seconds=1).about()
        assert about == About("m", None, ())
        expect_context(about, 10**9)
        with pytest.raises(UsageError, match="need 11 tokens, the server reads 10"):
            expect_context(About("m", 10, ()), 11)
