"""`strop data generate` as it is typed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from strop.cli.app import app
from strop.errors import StropError
from tests.support.generated import lines
from tests.support.runs import write_jsonl
from tests.support.servers import ChatServer, chat_server

KINDS = ("self-instruct", "best-of", "reject", "reason", "critique")


def reply(body: dict[str, Any]) -> str:
    asked = body["messages"][-1]["content"]
    if "numbered from" in asked:
        return "7. Explain how bees find their way home.\n8. List five uses of salt at sea."
    if "<revision>" in asked:
        return "<revision>7, since 3 + 4 is 7</revision>"
    return "7" if body["seed"] % 2 else "It is 8, I think"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server(reply) as running:
        yield running


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "tasks.jsonl", [{"prompt": "3 + 4?", "answer": "7"}])
    (tmp_path / "reward.yaml").write_text("reward: [{function: exact_answer}]\n")
    return tmp_path


def said(*arguments: object) -> str:
    """What a command prints; its mistakes are raised."""
    result = CliRunner().invoke(app, ["data", "generate", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def asked(server: ChatServer, kind: str, *more: object) -> list[object]:
    reward = ["--reward", "reward.yaml"] if kind in ("best-of", "reject", "reason") else []
    return [kind, "tasks.jsonl", "--url", server.url, "--model-name", "teacher", *reward, *more]


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("best-of", ["--samples", 2], [{"completion": "7"}]),
        ("best-of", ["--samples", 2, "--keep", "pair"],
         [{"chosen": "7", "rejected": "It is 8, I think", "margin": 1.0}]),
        ("reject", ["--samples", 4, "--threshold", 1], [{"completion": "7"}]),
        ("reason", ["--samples", 4], [{"completion": "7"}]),
        ("critique", ["--set", "seed=1"], []),
        ("critique", [], [{"chosen": "7, since 3 + 4 is 7", "rejected": "It is 8, I think"}]),
        ("self-instruct", ["--count", 2, "--set", "answers=false", "--set", "at_once=1"],
         [{"prompt": "Explain how bees find their way home."},
          {"prompt": "List five uses of salt at sea."}]),
    ],
)  # fmt: skip
def test_every_kind(
    server: ChatServer, here: Path, kind: str, options: list[Any], expected: list[dict[str, Any]]
) -> None:
    told = json.loads(said(*asked(server, kind, "--output", "out.jsonl", "--json", *options)))
    rows = lines(here / "out.jsonl")
    if expected:
        assert [{**row, **want} for row, want in zip(rows, expected, strict=True)] == rows
    assert told["records"] == len(rows) > 0
    assert told["output"] == "out.jsonl"
    assert told["cost"]["answers"] == told["cost"]["asked"] == len(server.asked)
    manifest = json.loads((here / "out.manifest.json").read_text())
    assert manifest["made_by"] == f"strop data generate {kind}"
    assert rows[0]["meta"]["engine"] == {"endpoint": server.url, "model": "teacher"}


def test_what_a_person_reads(server: ChatServer, here: Path) -> None:
    """10 tokens of each of 4 prompts at 1 a million, 1 + 5 + 1 + 5 of the answers at 2."""
    prices = ["--set", "prices={prompt: 1000000, completion: 2000000}"]
    output = said(*asked(server, "reject", "--samples", 4, "--threshold", 1, "--output", "o.jsonl",
                         *prices))  # fmt: skip
    assert output.splitlines() == [
        "  1 records from 1 prompts",
        "  left out: 2 below_threshold, 1 repeated_answer",
        "  scored 4, unscored 0, mean_score 0.5, score_deviation 0.5",
        "  4 answers (4 asked for now): 40 + 12 tokens, 64.0000 in money",
        "saved o.jsonl",
    ]
    assert max(map(len, output.splitlines())) <= 100


def test_a_dry_run_asks_nobody_and_writes_nothing(server: ChatServer, here: Path) -> None:
    before = sorted(here.iterdir())
    command = asked(server, "best-of", "--output", "out.jsonl", "--dry-run")
    assert said(*command) == "would ask about 1 rows and write out.jsonl\n"
    assert json.loads(said(*command, "--json")) == {"rows": 1, "output": None}
    assert sorted(here.iterdir()) == before
    assert server.asked == []


def test_settings_come_from_the_file_the_options_and_set(server: ChatServer, here: Path) -> None:
    (here / "settings.yaml").write_text("samples: 9\nseed: 4\nsampling: {max_tokens: 5}\n")
    said(*asked(server, "best-of", "--settings", "settings.yaml", "--samples", 3, "--set", "seed=6",
                "--output", "out.jsonl"))  # fmt: skip
    assert sorted(body["seed"] for body in server.asked) == [6, 7, 8]
    assert {body["max_tokens"] for body in server.asked} == {5}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ([], "who answers?"),
        (["--model", "m", "--recorded", "a.jsonl"], "--model and --recorded name two engines"),
        (["--url", "http://127.0.0.1:1/v1"], "--url and --model-name belong together"),
        (["--model", "m", "--model-name", "x"], "--url and --model-name belong together"),
        (["--model", "m", "--set", "requests.retries=0"], "`requests` says how an endpoint"),
        (["--model", "m", "--set", "samplse=3"], "did you mean `samples`"),
        (["--model", "m", "--keep", "worst"], "keep"),
        (["--model", "m", "--samples", 1], "the best of one answer"),
        (["--model", "m", "--set", "template=no.txt", "--set", "chat=true"], "no.txt"),
        (["--model", "nowhere"], "nowhere"),
        (["--recorded", "none.jsonl"], "none.jsonl"),
    ],
)
def test_mistakes(here: Path, more: list[Any], told: str) -> None:
    with pytest.raises(StropError) as raised:
        said("best-of", "tasks.jsonl", "--reward", "reward.yaml", "--output", "out.jsonl", *more)
    assert told in str(raised.value)
    assert raised.value.exit_code == 2
    assert not [path for path in here.iterdir() if path.name.startswith((".out", "out"))]


def test_recorded_answers(here: Path) -> None:
    write_jsonl(here / "said.jsonl", [{"prompt": "3 + 4?", "completion": text} for text in "87"])
    told = said("best-of", "tasks.jsonl", "--recorded", "said.jsonl", "--reward", "reward.yaml",
                "--samples", 2, "--output", "out.jsonl")  # fmt: skip
    assert lines(here / "out.jsonl")[0]["completion"] == "7"
    assert "the tokens of 2 answers were not counted" in told


@pytest.mark.parametrize("kind", KINDS)
def test_help_shows_an_example(kind: str) -> None:
    assert f"Example: strop data generate {kind}" in " ".join(said(kind, "--help").split())


def test_the_token_of_a_server_stands_nowhere(
    server: ChatServer, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STROP_API_KEY", "sk-very-secret")
    told = said(*asked(server, "best-of", "--output", "out.jsonl", "--cache", "cache"))
    kept = [path.read_text() for path in here.rglob("*") if path.is_file()]
    assert len(kept) > 4
    assert not [text for text in (told, *kept) if "very-secret" in text]
