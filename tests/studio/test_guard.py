"""What the studio refuses: other hosts, other sites, writing without the token, other folders."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from strop.tracking.control import CONTROL, want, wish_of
from tests.support.studio import TOKEN, write_root

PAGES = (
    "/", "/runs", "/run/runs/seed-0", "/compare", "/compare?run=runs/seed-0&run=runs/candidate",
    "/data", "/check/checks/pairs.json", "/records/data/pairs.jsonl", "/gates",
    "/gate/gates/candidate.json", "/registry", "/label", "/advise", "/serve",
    "/samples/runs/seed-0", "/part/runs", "/part/run/runs/seed-0",
)  # fmt: skip
ACTS = ("/act/run", "/act/notify", "/act/promote", "/act/rollback", "/act/label", "/act/start")
STOP = {"path": "runs/stopped", "act": "stop"}


@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_there_and_lets_no_script_in(client: TestClient, page: str) -> None:
    answer = client.get(page)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "<script>" not in answer.text
    assert " onclick=" not in answer.text


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "0.0.0.0", ""])
def test_a_name_that_was_made_to_lead_here_is_refused(client: TestClient, host: str) -> None:
    answer = client.get("/runs", headers={"Host": host})
    assert answer.status_code == 400
    assert "seed-0" not in answer.text


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1.evil.example",
                                    "http://127.0.0.1:9999"])  # fmt: skip
def test_another_site_may_not_act_even_with_the_token(client: TestClient, origin: str) -> None:
    answer = client.post("/act/run", json=STOP, headers={"Origin": origin})
    assert answer.status_code == 403


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_another_site_fetches_in_a_browser_is_refused(client: TestClient, method: str) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert client.request(method, "/runs", headers=headers).status_code == 403


def test_a_link_from_another_site_may_be_followed(client: TestClient) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/runs", headers=headers).status_code == 200


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x"])
def test_writing_takes_the_token(client: TestClient, act: str, token: str) -> None:
    answer = client.post(act, json=STOP, headers={"X-Strop-Token": token})
    assert answer.status_code == 401
    assert "open the address that `strop studio` printed" in answer.json()["detail"]


def test_reading_takes_no_token(client: TestClient) -> None:
    assert client.get("/runs", headers={"X-Strop-Token": ""}).status_code == 200


@pytest.mark.parametrize("path", [
    "../outside", "..", "runs/../../outside", "/etc", "//etc/passwd", "link", "link/..",
    "link/../..", "a\x00b",
])  # fmt: skip
@pytest.mark.parametrize("page", ["run", "part/run", "gate", "records", "check", "samples",
                                  "series", "live/run"])  # fmt: skip
def test_no_path_leads_out_of_the_root(
    client: TestClient, root: Path, page: str, path: str
) -> None:
    outside = write_root(root.parent / "outside")
    os.symlink(outside, root / "link")
    hidden = quote(path, safe="").replace(".", "%2e")  # or the client itself would resolve it
    answer = client.get(f"/{page}/{hidden}", params={"metric": "reward"})
    assert answer.status_code in (404, 422)
    assert "x = 3" not in answer.text
    assert "root:x:" not in answer.text


def test_an_act_is_confined_as_well(client: TestClient, root: Path) -> None:
    outside = write_root(root.parent / "outside")
    for act in ("pause", "stop", "resume"):
        body = {"path": "../outside/runs/stopped", "act": act}
        assert client.post("/act/run", json=body).status_code == 400
    assert not (outside / "runs" / "stopped" / CONTROL).exists()
    labels = {"data": "../outside/data/pairs.jsonl", "output": "labels"}
    assert client.post("/act/label", json=labels).status_code == 400
    assert client.post("/act/label", json={"data": "data/pairs.jsonl", "output": "../labels"}
                       ).status_code == 400  # fmt: skip


def test_an_unknown_field_is_not_ignored(client: TestClient, root: Path) -> None:
    body = {**STOP, "force": True}
    assert client.post("/act/run", json=body).status_code == 422
    want(root / "runs" / "stopped", "pause")
    assert wish_of(root / "runs" / "stopped") == "pause"
