"""Files of any other form: no page fails, nothing is waited for, nothing leads out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from strop.studio.root import Root

BAD_LINES = (
    '{"step": NaN}', '{"step": Infinity}', '{"step": 1e20, "loss": 1}', '{"step": 41, "alarms": 5}',
    '{"step": 41, "alarms": [["warn"]]}', '{"step": 41, "loss": ' + "9" * 400 + "}",
    "[" * 20_000, "5", '"x"', "[1, 2]", '{"prompt": "no step"}', "\ufffd",
)  # fmt: skip


@pytest.mark.parametrize("line", BAD_LINES)
@pytest.mark.parametrize("file", ["metrics.jsonl", "samples.jsonl"])
def test_a_line_of_another_form_is_told_and_no_page_fails(
    client: TestClient, root: Path, file: str, line: str
) -> None:
    with (root / "runs" / "stopped" / file).open("a") as stream:
        stream.write(line + "\n")
    assert client.get("/runs").status_code == 200
    page = client.get("/run/runs/stopped")
    assert page.status_code == 200
    assert "Over 20 steps" in page.text


BAD_FILES = {
    "lineage.json": ['{"data": 5}', '{"manifests": [{}]}', '{"resumed": [{}]}', "[" * 20_000,
                     '{"method": "\\ud800"}', "[]", '{"parent": 3}'],
    ".lock": ["[" * 20_000, '{"pid": 99999999999999999999, "host": "x"}', '{"pid": "x"}', "5"],
    "control.json": ["[" * 20_000, "5", '{"want": ["stop"]}'],
    "recipe.resolved.yaml": ["run: {epochs: .inf}", "[" * 5_000, "5", "a: &a [1]\nb: *a"],
    "env.json": ["[" * 20_000, "5"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("file", "text"), [(file, text) for file, texts in BAD_FILES.items() for text in texts]
)
def test_a_file_of_another_form_takes_no_page_with_it(
    client: TestClient, root: Path, file: str, text: str
) -> None:
    (root / "runs" / "stopped" / file).write_text(text)
    for page in ("/runs", "/run/runs/stopped", "/compare?run=runs/stopped&run=runs/seed-0"):
        assert client.get(page).status_code == 200, page


def test_pipes_are_not_waited_for(client: TestClient, root: Path) -> None:
    run = root / "runs" / "stopped"
    files = ("metrics.jsonl", "samples.jsonl", "lineage.json", "control.json")
    for path in (*(run / file for file in files), root / "x.db", root / "gates/candidate.json"):
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    for page in ("/runs", "/run/runs/stopped", "/registry", "/gates"):
        assert client.get(page).status_code == 200, page


@pytest.mark.parametrize("file", ["samples.jsonl", "metrics.jsonl", "lineage.json"])
def test_a_link_in_a_run_does_not_lead_out(client: TestClient, root: Path, file: str) -> None:
    secret = root.parent / "secret"
    secret.write_text('{"step": 1, "prompt": "hidden words"}\n')
    path = root / "runs" / "stopped" / file
    path.unlink()
    path.symlink_to(secret)
    for page in ("/run/runs/stopped", "/samples/runs/stopped", "/part/run/runs/stopped"):
        answer = client.get(page)
        assert answer.status_code == 404
        assert "hidden words" not in answer.text


def test_aliases_in_a_recipe_end(client: TestClient, root: Path) -> None:
    bomb = "a0: &a0 {x: 1}\n" + "".join(
        f"a{n}: &a{n} {{{', '.join(f'k{m}: *a{n - 1}' for m in range(5))}}}\n" for n in range(1, 13)
    )
    (root / "runs" / "stopped" / "recipe.resolved.yaml").write_text(bomb)
    assert client.get("/compare?run=runs/stopped&run=runs/seed-0").status_code == 200


def test_a_page_that_fails_says_so_and_lets_no_script_in(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Root) -> None:
        raise RuntimeError("a fault of our own")

    monkeypatch.setattr(Root, "found", fails)
    answer = client.get("/gates")
    assert answer.status_code == 500
    assert "this page failed: RuntimeError: a fault of our own" in answer.text
    assert "script-src 'self'" in answer.headers["content-security-policy"]
