"""HTTP through a record: sent once, told again, and no secret in what is kept or told."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from strop.errors import WorldError
from strop.recipe.train.environment import ToolsEnvironmentRecipe
from strop.rollout.environment import FaultError
from strop.rollout.tools import http
from strop.rollout.tools.combined import CombinedToolboxes
from strop.rollout.tools.record import Exchange, Record
from strop.rollout.tools.toolbox import ToolResult, told
from strop.text.tools import Call

KEY = "sesame-9000"
CITY = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"]}  # fmt: skip


@dataclass
class Server:
    """Answers with what it was asked; `statuses` are those of the next answers."""

    asked: list[dict[str, Any]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    seen = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            one = {"method": self.command, "path": self.path, "key": self.headers.get("X-Key"),
                   "body": json.loads(self.rfile.read(size)) if size else None}  # fmt: skip
            seen.asked.append(one)
            content = json.dumps(one).encode()
            self.send_response(seen.statuses.pop(0) if seen.statuses else 200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        seen.url = f"http://127.0.0.1:{listening.server_address[1]}"
        yield seen
        listening.shutdown()


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEATHER_KEY", KEY)
    monkeypatch.setattr(http, "FIRST_WAIT", 0.01)


def weather(server: Server, record: Path | None, **settings: Any) -> dict[str, Any]:
    return {"http": {
        "name": "weather", "description": "The weather.", "parameters": CITY,
        "url": f"{server.url}/weather/{{city}}", "record": record and str(record),
        "headers": {"X-Key": "${WEATHER_KEY}"}, **settings,
    }}  # fmt: skip


def test_it_is_recorded_once_and_told_again(made: Any, server: Server, tmp_path: Path) -> None:
    record = tmp_path / "weather.jsonl"
    live = made(weather(server, record, live=True))
    first = live.one("weather", city="Bern", days=3)
    assert server.asked == [
        {"method": "GET", "path": "/weather/Bern?days=3", "key": KEY, "body": None}
    ]
    assert live.one("weather", days=3, city="Bern") == first
    assert len(server.asked) == 1
    replayed = made(weather(server, record))
    assert replayed.one("weather", city="Bern", days=3) == first
    assert replayed.one("weather", city="Rome").error == "unrecorded"
    strict = made(weather(server, record, unrecorded="fault"))
    with pytest.raises(FaultError, match="not in the record"):
        strict.one("weather", city="Rome")
    assert len(server.asked) == 1


def test_no_secret_is_kept_or_told(made: Any, server: Server, tmp_path: Path) -> None:
    """The server repeats the header and the query that hold the key."""
    record = tmp_path / "weather.jsonl"
    live = made(weather(server, record, live=True, query={"appid": "${WEATHER_KEY}"}))
    said = live.one("weather", city="Bern")
    assert server.asked[0]["key"] == KEY
    assert server.asked[0]["path"] == f"/weather/Bern?appid={KEY}"
    assert json.loads(said.text)["key"] == "***"
    assert KEY not in said.text + record.read_text()
    server.statuses = [500] * 9
    with pytest.raises(FaultError) as fault:
        live.one("weather", city="Rome")
    assert KEY not in str(fault.value)


def test_no_secret_is_logged(
    made: Any, server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """httpx logs the address of every request, in which a key of the query is written otherwise."""
    monkeypatch.setenv("WEATHER_KEY", "sesame/9000+a b")
    live = made(weather(server, None, live=True, query={"appid": "${WEATHER_KEY}"}))
    with caplog.at_level("DEBUG"):
        said = live.one("weather", city="Bern")
    assert "appid=sesame" in server.asked[0]["path"]
    assert "appid=***" in caplog.text
    assert "sesame" not in caplog.text + said.text


def test_a_post_sends_its_arguments_as_json(made: Any, server: Server, tmp_path: Path) -> None:
    record = tmp_path / "weather.jsonl"
    live = made(weather(server, record, live=True, method="POST"))
    live.one("weather", city="Bern", days=3)
    assert server.asked[0] | {"key": 0} == {
        "method": "POST", "path": "/weather/Bern", "key": 0, "body": {"days": 3},
    }  # fmt: skip
    replayed = made(weather(server, record, method="POST"))
    assert replayed.one("weather", city="Bern", days=3).error == ""
    assert replayed.one("weather", city="Bern", days=4).error == "unrecorded"


def test_those_who_ask_the_same_at_once_share_the_answer(made: Any, server: Server) -> None:
    live = made(weather(server, None, live=True))
    results = live.ask(*[Call("weather", {"city": "Bern"})] * 8)
    assert len(server.asked) == 1
    assert len(set(results)) == 1


def test_it_is_tried_again_where_that_may_help(made: Any, server: Server) -> None:
    live = made(weather(server, None, live=True, retries=2))
    server.statuses = [503, 429]
    assert live.one("weather", city="Bern").error == ""
    assert len(server.asked) == 3
    server.statuses = [500] * 3
    with pytest.raises(FaultError, match="status 500"):
        live.one("weather", city="Rome")
    assert len(server.asked) == 6


def test_a_refusal_of_the_request_is_told_and_one_of_the_key_is_a_fault(
    made: Any, server: Server, tmp_path: Path
) -> None:
    record = tmp_path / "weather.jsonl"
    live = made(weather(server, record, live=True))
    server.statuses = [404, 401]
    gone = live.one("weather", city="Bern")
    assert gone.error == "raised"
    assert "status 404" in gone.text
    with pytest.raises(FaultError, match="status 401"):
        live.one("weather", city="Rome")
    assert len(server.asked) == 2
    assert made(weather(server, record)).one("weather", city="Bern") == gone


@pytest.mark.parametrize(("city", "path"), [
    ("../admin", "/weather/..%2Fadmin"), ("a?b=c&d", "/weather/a%3Fb%3Dc%26d"),
    ("São Paulo", "/weather/S%C3%A3o%20Paulo"),
])  # fmt: skip
def test_an_argument_stays_in_its_place(made: Any, server: Server, city: str, path: str) -> None:
    made(weather(server, None, live=True)).one("weather", city=city)
    assert server.asked[0]["path"] == path


def test_a_step_up_is_no_argument(made: Any, server: Server) -> None:
    tools = made(weather(server, None, live=True))
    assert tools.one("weather", city="..") == told(
        "arguments", "weather: `.` and `..` are no part of an address"
    )
    assert server.asked == []


def test_a_long_answer_is_cut(made: Any, server: Server) -> None:
    said = made(weather(server, None, live=True, longest=10)).one("weather", city="x" * 30)
    assert said.text.startswith('{"method":\n[')


@pytest.mark.parametrize(("settings", "said"), [
    ({}, "neither a record nor live"),
    ({"live": True, "unrecorded": "fault"}, "unrecorded is only read without live"),
    ({"live": True, "url": "http://h/{town}"}, "url names town"),
    ({"live": True, "url": "http://{city}/x"}, "may not choose the server"),
    ({"live": True, "name": "a b"}, "no name of a tool"),
])  # fmt: skip
def test_options_that_contradict_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ToolsEnvironmentRecipe.model_validate(
            {"tools": [weather(Server(url="http://h"), None, **settings)]}
        )


LINE = {"request": "r", "method": "GET", "url": "http://h/weather/Bern", "body": None,
        "status": 200, "text": "fine"}  # fmt: skip


@pytest.mark.parametrize("line", [
    b"\xff\xfe", b"[1]", b"5", b'{"request": "12', b"[" * 100_000,
    json.dumps(LINE | {"status": "200"}).encode(), json.dumps(LINE | {"status": True}).encode(),
    json.dumps(LINE | {"text": 5}).encode(), json.dumps(LINE | {"url": None}).encode(),
], ids=lambda line: str(line[:12]))  # fmt: skip
def test_a_broken_record_is_refused_with_its_line(line: bytes, tmp_path: Path) -> None:
    record = tmp_path / "weather.jsonl"
    record.write_bytes(json.dumps(LINE).encode() + b"\n" + line + b"\n")
    for live in (False, True):
        one = weather(Server(url="http://h"), record, live=live)
        with pytest.raises(WorldError, match=r"weather.jsonl:2: the line is no recorded answer"):
            CombinedToolboxes(ToolsEnvironmentRecipe.model_validate({"tools": [one]}))


@pytest.mark.parametrize("live", [False, True])
def test_a_record_that_is_a_folder_is_refused(live: bool, tmp_path: Path) -> None:
    one = weather(Server(url="http://h"), tmp_path, live=live)
    with pytest.raises(WorldError, match="the record cannot be read: Is a directory"):
        CombinedToolboxes(ToolsEnvironmentRecipe.model_validate({"tools": [one]}))


ADDS = """
import json, sys
from pathlib import Path
from strop.rollout.tools.record import Exchange, Record
record = Record(Path(sys.argv[1]), live=True)
print("ready", flush=True)
sys.stdin.readline()
told = []
for n in range(150):
    one = Exchange("GET", f"http://h/{n}", None, 200, sys.argv[2] * 20_000)
    told.append((record.find("GET", one.url, None) or record.add(one)).text[0])
print("".join(told), flush=True)
"""


def test_two_processes_that_record_at_once_agree_and_tear_no_line(tmp_path: Path) -> None:
    """Each asks the same 150 things and would be answered otherwise; the first answer counts for
    both, and is one line."""
    file = tmp_path / "made" / "weather.jsonl"
    both = [
        subprocess.Popen([sys.executable, "-c", ADDS, str(file), name], text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for name in "ab"
    ]  # fmt: skip
    for one in both:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in both:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    told = [one.communicate(timeout=120)[0].strip() for one in both]
    assert told[0] == told[1]
    rows = [json.loads(line) for line in file.read_bytes().splitlines()]
    assert len(rows) == 150
    by_url = {row["url"]: row["text"] for row in rows}
    assert [by_url[f"http://h/{n}"] for n in range(150)] == [name * 20_000 for name in told[0]]


def test_what_another_process_recorded_is_found(tmp_path: Path) -> None:
    """By one that records itself; what is only told again stays as it was when the run began."""
    file = tmp_path / "weather.jsonl"
    file.write_text(json.dumps(LINE))  # without an end of line, as some editors leave it
    one, other, told = Record(file, live=True), Record(file, live=True), Record(file, live=False)
    added = Exchange("GET", "http://h/weather/Rome", None, 200, "mild")
    assert one.add(added) == added
    assert one.add(Exchange("GET", added.url, None, 200, "cold")) == added
    assert other.find("GET", added.url, None) == added
    assert told.find("GET", added.url, None) is None
    assert len(Record(file, live=False)) == 2


@pytest.mark.parametrize(("settings", "line", "said"), [
    ({}, None, "there is no record of answers"),
    ({}, "{}", "weather.jsonl:1: the line is no recorded answer"),
    ({"live": True, "headers": {"K": "${NOT_SET_HERE}"}}, None, "NOT_SET_HERE is not set"),
    ({"live": True, "url": "ftp://h/{city}"}, None, "is no HTTP address"),
])  # fmt: skip
def test_what_cannot_work_is_refused_before_the_run(
    settings: dict[str, Any], line: str | None, said: str, tmp_path: Path
) -> None:
    record = tmp_path / "weather.jsonl"
    if line is not None:
        record.write_text(line + "\n")
    one = weather(Server(url="http://h"), record, **settings)
    with pytest.raises(WorldError, match=said):
        CombinedToolboxes(ToolsEnvironmentRecipe.model_validate({"tools": [one]}))


def test_calls_go_to_their_tool(made: Any, server: Server) -> None:
    both = made({"python": {}}, weather(server, None, live=True))
    results = both.ask(Call("weather", {"city": "Bern"}), Call("python", {"code": "print(3)"}))
    assert json.loads(results[0].text)["path"] == "/weather/Bern"
    assert results[1] == ToolResult("3")
    assert both.one("clock").text.endswith('there are: python, weather"}')


@pytest.mark.parametrize("arguments", [
    {"city": "x" * 70_000}, {"city": "東" * 15_000}, {"city": "Bern", "note": "y" * 70_000},
])  # fmt: skip
def test_arguments_that_make_no_address_are_told(
    made: Any, server: Server, arguments: dict[str, Any]
) -> None:
    """The client refuses to write such an address; that is the policy's doing, and ends nothing."""
    schema = {"type": "object", "properties": {"city": {}, "note": {}}}
    live = made(weather(server, None, live=True, parameters=schema))
    said = live.one("weather", **arguments)
    assert said.error == "arguments"
    assert "make no address" in said.text
    assert server.asked == []
