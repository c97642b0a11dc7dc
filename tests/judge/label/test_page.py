"""The page in a real browser, and what its server refuses."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update"]  # fmt: skip
HOSTILE = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>"
ROWS = [
    {"id": "river", "prompt": "Name a river.", "answers": ["The Rhine.", HOSTILE]},
    {"id": "sum", "prompt": "2 + 2?", "answers": ["4", "5"], "criterion": "Is it right?"},
    {"id": "poet", "prompt": "Who wrote Faust?", "answers": ["Goethe.", "Kafka."]},
]


class Served:
    """`strop judge label` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        data = folder / "pairs.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        self.output = folder / "labels"
        command = [sys.executable, "-m", "strop", "judge", "label", data, "--output",
                   self.output, "--port", "0"]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.before = []
        for line in self.process.stdout:
            found = re.search(r"http://\S+", line)
            if found:
                self.address = found.group()
                break
            self.before.append(line.strip())

    @property
    def token(self) -> str:
        return self.address.partition("token=")[2]

    def end(self) -> str:
        self.process.send_signal(signal.SIGINT)
        said, _ = self.process.communicate(timeout=60)
        return said

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.output / name).read_text().splitlines()]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    running = Served(tmp_path)
    yield running
    if running.process.poll() is None:
        running.end()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield running
        running.close()


def key_of(page: Page, better: str) -> str:
    """The key for the answer with this text, wherever it is shown."""
    return "1" if page.locator("#first").inner_text() == better else "2"


def begin(page: Page, served: Served, name: str) -> None:
    page.goto(served.address)
    page.get_by_label("Your name").fill(name)
    page.keyboard.press("Enter")
    expect(page.locator("#prompt")).to_have_text("Name a river.")


def test_two_people_label_by_keyboard_and_one_comes_back(browser: Browser, served: Served) -> None:
    context = browser.new_context()
    page = context.new_page()
    begin(page, served, "anna")
    page.keyboard.press(key_of(page, "The Rhine."))
    expect(page.locator("#prompt")).to_have_text("2 + 2?")
    expect(page.locator("#criterion")).to_have_text("Is it right?")
    page.close()  # the tab is closed in the middle
    page = context.new_page()
    page.goto(served.address)
    expect(page.get_by_label("Your name")).to_have_value("anna")  # who was there last
    page.keyboard.press("Enter")
    expect(page.locator("#prompt")).to_have_text("2 + 2?")
    expect(page.locator("#count")).to_have_text("1 of 3")
    page.keyboard.press("ArrowLeft" if key_of(page, "5") == "1" else "ArrowRight")
    expect(page.locator("#prompt")).to_have_text("Who wrote Faust?")
    page.keyboard.press("0")
    expect(page.locator("#end")).to_be_visible()
    page.keyboard.press("b")
    expect(page.locator("button.given")).to_contain_text("Equally good")
    page.keyboard.press(key_of(page, "Goethe."))  # another word on it
    expect(page.locator("#end")).to_be_visible()

    other = browser.new_context().new_page()
    begin(other, served, "bert")
    other.keyboard.press(key_of(other, "The Rhine."))
    expect(other.locator("#agreement")).to_contain_text("100 % of 1 pairs")
    other.locator("button[data-choice=skip]").click()
    expect(other.locator("#prompt")).to_have_text("Who wrote Faust?")
    other.keyboard.press(key_of(other, "Kafka."))
    expect(other.locator("#agreement")).to_contain_text("50 % of 2 pairs")

    assert "anna 3, bert 3" in served.end()
    human = {row["id"]: row["human"] for row in served.rows("anchors.jsonl")}
    assert human == {"river": ["A", "A"], "sum": ["B", None], "poet": ["A", "B"]}
    chosen = {row["id"]: row["chosen"] for row in served.rows("preferences.jsonl")}
    assert chosen == {"river": "The Rhine.", "sum": "5"}


def test_a_tab_is_one_persons(browser: Browser, served: Served) -> None:
    """Two people in two tabs of one browser: reloading takes nobody for the other."""
    context = browser.new_context()
    anna, bert = context.new_page(), context.new_page()
    begin(anna, served, "anna")
    begin(bert, served, "bert")
    bert.keyboard.press("s")
    expect(bert.locator("#count")).to_have_text("1 of 3")
    anna.reload()
    expect(anna.locator("#person")).to_have_text("anna")
    expect(anna.locator("#count")).to_have_text("0 of 3")
    anna.locator("#person").click()
    anna.get_by_label("Your name").fill("BERT")
    anna.keyboard.press("Enter")
    expect(anna.get_by_role("alert")).to_contain_text("'bert' labels here already")


def test_what_an_answer_holds_is_shown_and_never_run(browser: Browser, served: Served) -> None:
    page = browser.new_context().new_page()
    begin(page, served, "anna")
    shown = {page.locator("#first").inner_text(), page.locator("#second").inner_text()}
    assert shown == {"The Rhine.", HOSTILE}
    assert page.locator("#answers img, #answers script").count() == 0
    assert page.title() == "Which answer is better?"


def test_a_server_that_went_away_loses_nothing(browser: Browser, served: Served) -> None:
    page = browser.new_context().new_page()
    begin(page, served, "anna")
    page.keyboard.press(key_of(page, "The Rhine."))
    expect(page.locator("#count")).to_have_text("1 of 3")
    served.end()
    page.keyboard.press("1")
    expect(page.get_by_role("alert")).to_contain_text("What you said is kept")
    again = Served(served.output.parent)
    assert again.before == ["anna labelled 1 of 3 pairs before"]
    again.end()


def test_only_who_has_the_token_and_names_this_machine_is_answered(served: Served) -> None:
    base = served.address.partition("#")[0]
    given = {"X-Strop-Token": served.token}
    asked = {"person": "anna"}
    assert httpx.get(f"{base}api/pair", params=asked).status_code == 401
    refused = httpx.get(f"{base}api/pair", params=asked, headers={"X-Strop-Token": "ä".encode()})
    assert refused.status_code == 401
    foreign = httpx.get(f"{base}api/pair", params=asked, headers=given | {"Host": "evil.example"})
    assert foreign.status_code == 400
    label = {"person": "anna", "item": "river", "choice": "first"}
    assert httpx.post(f"{base}api/label", json=label).status_code == 401
    odd = httpx.post(f"{base}api/label", json=label | {"item": "no"}, headers=given)
    assert (odd.status_code, "no pair is called 'no'" in odd.text) == (400, True)
    assert httpx.post(f"{base}api/label", json=label, headers=given).status_code == 200
    assert [row["person"] for row in served.rows("labels.jsonl")] == ["anna"]


def test_a_port_in_use_and_a_folder_in_use_are_said(served: Served, tmp_path: Path) -> None:
    port = re.search(r":(\d+)/", served.address)
    assert port is not None
    for output, said in ((tmp_path / "other", f"port {port[1]} of 127.0.0.1 cannot be had"),
                         (served.output, "works in this folder")):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "strop", "judge", "label", tmp_path / "pairs.jsonl",
             "--output", output, "--port", port[1]],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert said in done.stderr, done.stderr
        assert done.returncode in (1, 2)
