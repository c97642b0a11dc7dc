"""The log in other systems' forms, read back: the same records come of it."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from strop.curate.signals.build import build
from strop.data.sources import at
from strop.files import write_rows
from strop.serve.traffic.export import FORMS, PATHS, send
from strop.serve.traffic.rows import rows_in
from tests.support.serving import USER, Serving, recipe_of, serving


@pytest.fixture(scope="module")
def traffic(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three answers: one liked, one mended, one disliked; and a side-by-side choice."""
    folder = tmp_path_factory.mktemp("traffic")
    with serving(recipe_of(model_folder, traffic={"folder": str(folder)})) as server:
        said = [ask(server, f"Solve {n}x = 6") for n in (2, 3, 4)]
        tell(server, said[0], thumb="up", comment="good")
        told = next(row for row in rows_of(server, said[1]) if "answer" in row)["answer"]
        tell(server, said[1], edit=told + " and so it is")
        tell(server, said[2], thumb="down")
        tell(server, said[2], score={"name": "stars", "value": 2.0, "label": "weak",
                                     "explanation": "too long"})  # fmt: skip
    return folder


def rows_of(server: Serving, id_: str) -> list[dict[str, Any]]:
    """What the log has of an answer, which was told to be on the disk."""
    tell(server, id_, score={"name": "seen", "value": 1.0})
    traffic = server.service.traffic
    assert traffic is not None
    return [row for row in traffic.rows() if row.get("id") == id_]


def ask(server: Serving, text: str) -> str:
    asked = [{**USER, "content": text}]
    return str(server.chat(messages=asked, max_tokens=12, seed=1)["id"])


def tell(server: Serving, id_: str, **said: Any) -> None:
    assert server.post("/v1/feedback", {"id": id_, **said}).status_code == 200


def records(files: list[Path], output: Path) -> dict[str, list[dict[str, Any]]]:
    build([at(file) for file in files], output, rules=None)
    found = {}
    for name in ("feedback", "preferences", "demonstrations"):
        file = output / f"{name}.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        found[name] = [{k: v for k, v in json.loads(line).items() if k != "meta"}
                       for line in lines]  # fmt: skip
    return found


def test_records_come_of_the_log_with_the_ids_of_the_answers(traffic: Path, tmp_path: Path) -> None:
    made = records(sorted(traffic.glob("*.jsonl")), tmp_path / "out")
    assert [row["label"] for row in made["feedback"]] == [True, False]
    assert len(made["preferences"]) == len(made["demonstrations"]) == 1
    chosen = made["preferences"][0]["chosen"]
    assert chosen[0]["content"].endswith(" and so it is")
    kept = {row["id"]: row for row in rows_in(traffic) if "messages" in row}
    for line in (tmp_path / "out" / "feedback.jsonl").read_text().splitlines():
        row = json.loads(line)
        source = kept[row["meta"]["trace_id"]]  # provenance, down to the response
        assert row["completion"][0]["content"] == source["answer"]


@pytest.mark.parametrize("form", ["langfuse", "otlp"])
def test_an_export_makes_the_same_feedback(traffic: Path, tmp_path: Path, form: str) -> None:
    write_rows(tmp_path / "export.jsonl", FORMS[form](rows_in(traffic)))
    own = records(sorted(traffic.glob("*.jsonl")), tmp_path / "own")
    theirs = records([tmp_path / "export.jsonl"], tmp_path / "theirs")
    assert theirs["feedback"] == own["feedback"]
    if form == "langfuse":  # OpenTelemetry has no event for an edit
        assert theirs["preferences"] == own["preferences"]


def test_a_collector_gets_spans_and_log_records(traffic: Path) -> None:
    came: list[tuple[str, Any]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            came.append((self.path, json.loads(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        thread = threading.Thread(target=collector.serve_forever, daemon=True)
        thread.start()
        send(FORMS["otlp"](rows_in(traffic)), f"http://127.0.0.1:{collector.server_port}/")
        collector.shutdown()
    assert [path for path, _ in came] == list(PATHS.values())
    spans = came[0][1]["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert len(spans) == 3
    assert len({span["traceId"] for span in spans}) == 3


def test_plain_text_stays_text(model_folder: Path, tmp_path: Path) -> None:
    with serving(recipe_of(model_folder, traffic={"folder": str(tmp_path / "t")})) as server:
        asked = {"prompt": "2x = 6", "max_tokens": 5, "seed": 1}
        said = server.post("/v1/completions", asked).json()
        tell(server, said["id"], thumb="up")
    (row,) = records(sorted((tmp_path / "t").glob("*.jsonl")), tmp_path / "out")["feedback"]
    assert (row["prompt"], row["completion"]) == ("2x = 6", said["choices"][0]["text"])
