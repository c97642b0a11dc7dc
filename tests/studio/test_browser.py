"""The studio in a real browser: every page, every button, live, by keyboard, small and dark."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from strop.files import locked
from strop.registry.store import Registry
from strop.tracking.control import wish_of
from tests.support.registries import model, promote
from tests.support.studio import write_root

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update"]  # fmt: skip
PAGES = ("/runs", "/run/runs/seed-0", "/compare?run=runs/seed-0&run=runs/seed-1&run=runs/candidate",
         "/data", "/check/checks/pairs.json", "/records/data/pairs.jsonl", "/gates",
         "/gate/gates/candidate.json", "/registry", "/label", "/advise", "/serve",
         "/samples/runs/seed-0", "/run/none")  # fmt: skip


class Studio:
    """`strop studio` in a process of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        command = [sys.executable, "-m", "strop", "studio", root, "--port", "0", "--no-browser"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        found = re.search(r"http://\S+", self.process.stdout.readline())
        assert found
        self.address = found.group()
        self.base = self.address.partition("/#")[0]

    def end(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    root = write_root(tmp_path_factory.mktemp("studio"))
    promote(Registry(root / "registry.db"), model(root / "models" / "one", "first"), "support")
    running = Studio(root)
    yield running
    running.end()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser, studio: Studio) -> Iterator[Page]:
    """A tab that knows the token; what its console says against it fails the test."""
    context = browser.new_context()
    tab = context.new_page()
    wrong: list[str] = []
    tab.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.goto(studio.address)
    expect(tab.get_by_role("heading", name="Runs")).to_be_visible()
    yield tab
    context.close()
    # a refusal that was asked for is an answer; the browser notes its status
    assert [said for said in wrong if "status of 4" not in said] == []


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_every_page_can_be_used_by_everybody(
    browser: Browser, studio: Studio, colours: str
) -> None:
    assert colours in ("light", "dark")
    context = browser.new_context(color_scheme="dark" if colours == "dark" else "light")
    tab = context.new_page()
    for path in PAGES:
        tab.goto(f"{studio.base}{path}")
        for details in tab.locator("details").all()[:3]:
            details.evaluate("one => { one.open = true; }")
        found = Axe().run(tab, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa"]})
        assert found.violations_count == 0, f"{path}: {found.generate_report()}"
    context.close()


def test_every_page_fits_a_telephone(browser: Browser, studio: Studio) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800})
    tab = context.new_page()
    for path in PAGES:
        tab.goto(f"{studio.base}{path}")
        wide = tab.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, path
    context.close()


def test_every_entry_of_the_navigation_leads_somewhere(page: Page) -> None:
    names = page.get_by_role("navigation").get_by_role("link").all_inner_texts()
    assert names == ["Runs", "Compare", "Data", "Gates", "Registry", "Label", "Advise", "Serve"]
    for name in names:
        page.get_by_role("navigation").get_by_role("link", name=name).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
        expect(page.locator("[aria-current=page]")).to_have_text(name)


def test_a_step_shows_within_two_seconds_and_what_is_open_stays_open(
    page: Page, studio: Studio
) -> None:
    run = studio.root / "runs" / "stopped"
    page.goto(f"{studio.base}/run/runs/stopped")
    expect(page.locator(".sentence")).to_contain_text("Over 20 steps")
    numbers = page.locator("details", has_text="Numbers").first
    numbers.locator("summary").click()
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write(json.dumps({"step": 21, "reward": 0.9, "entropy": 0.4}) + "\n")
    expect(page.locator(".sentence")).to_contain_text("Over 21 steps", timeout=2000)
    expect(page.locator("details", has_text="Numbers").first).to_have_attribute("open", "")
    page.reload()
    expect(page.locator(".sentence")).to_contain_text("Over 21 steps")


def test_the_list_is_live_filtered_and_leads_to_a_comparison(page: Page, studio: Studio) -> None:
    page.get_by_label("compare runs/seed-0").check()
    page.get_by_label("compare runs/candidate").check()
    run = studio.root / "runs" / "stopped"
    with locked(run):
        row = page.locator("tr", has_text="runs/stopped")
        expect(row.locator(".state")).to_have_text("running", timeout=5000)
        expect(page.get_by_label("compare runs/candidate")).to_be_checked()
    page.get_by_label("Show").fill("seed finished")
    expect(page.locator("#runs tbody tr:visible")).to_have_count(2)
    page.get_by_label("Show").fill("")
    page.get_by_role("button", name="Compare those ticked").click()
    expect(page.get_by_role("heading", name="What the recipes differ in")).to_be_visible()
    expect(page.locator(".legend li")).to_have_count(2)


def test_the_buttons_of_a_run(page: Page, studio: Studio) -> None:
    run = studio.root / "runs" / "stopped"
    page.goto(f"{studio.base}/run/runs/stopped")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#said")).to_contain_text("nothing works in runs/stopped")
    with locked(run):
        page.get_by_role("button", name="Pause").click()
        expect(page.locator("#said")).to_have_text("it pauses after this step")
        expect(page.locator(".state")).to_have_text("paused", timeout=5000)
        page.get_by_role("button", name="Go on").click()
        expect(page.locator("#said")).to_have_text("it goes on")
        assert wish_of(run) == "go"
        page.get_by_role("button", name="Stop").click()
        expect(page.locator("#said")).to_have_text("it saves this step and ends")
        assert wish_of(run) == "stop"
        page.get_by_role("button", name="Resume").click()
        expect(page.locator("#said")).to_contain_text("the run is running")


def test_without_the_token_nothing_is_done(browser: Browser, studio: Studio) -> None:
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(f"{studio.base}/run/runs/seed-0")
    tab.get_by_role("button", name="Go on").click()
    expect(tab.locator("#said")).to_contain_text("open the address that `strop studio` printed")
    context.close()


def test_a_curve_is_enlarged_by_plotly_and_closed_by_keyboard(page: Page, studio: Studio) -> None:
    page.goto(f"{studio.base}/run/runs/seed-0")
    page.get_by_role("button", name="Enlarge Reward").click()
    expect(page.locator("#zoom-plot .scatterlayer .trace")).to_have_count(2, timeout=20_000)
    page.keyboard.press("Escape")
    expect(page.locator("#zoom")).to_be_hidden()


def test_rolling_back_asks_for_a_reason_and_says_why_it_cannot(page: Page, studio: Studio) -> None:
    page.goto(f"{studio.base}/registry")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_label("Why").fill("slow answers")
    page.get_by_role("button", name="Roll back").click()
    expect(page.locator("#said.bad")).to_be_visible()
    page.get_by_label("Name").fill("support")
    page.get_by_role("button", name="Promote").click()
    expect(page.locator("#said.bad")).to_be_visible()


def test_two_people_label_in_the_studio(page: Page, studio: Studio) -> None:
    page.goto(f"{studio.base}/label")
    page.get_by_label("Pairs").select_option("data/pairs.jsonl")
    page.get_by_role("button", name="Begin").click()
    for name in ("anna", "ben"):
        page.get_by_label("Your name").fill(name)
        page.keyboard.press("Enter")
        for number in range(3):
            expect(page.locator("#count")).to_have_text(f"{number} of 50")
            page.keyboard.press("1" if "Rhine" in page.locator("#first").inner_text() else "2")
        expect(page.locator("#count")).to_have_text("3 of 50")
        page.locator("#person").click()
    page.goto(f"{studio.base}/label")
    expect(page.get_by_text("People agree on 100 % of 3 pairs")).to_be_visible()
    page.get_by_role("link", name="data/pairs.jsonl").click()
    expect(page.locator("#person")).to_have_text("ben")  # who was there last
    expect(page.locator("#count")).to_have_text("3 of 50")


def test_searching_samples_and_paging_records(page: Page, studio: Studio) -> None:
    page.goto(f"{studio.base}/run/runs/seed-0")
    page.get_by_role("link", name="Search all samples").click()
    page.get_by_label("Text").fill("x = 3 (12)")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_text("1 found")).to_be_visible()
    page.goto(f"{studio.base}/data")
    page.get_by_role("link", name="data/pairs.jsonl").click()
    page.get_by_role("link", name="Later").click()
    expect(page.get_by_role("heading", name="Row 11")).to_be_visible()
    page.get_by_role("link", name="Earlier").click()
    expect(page.get_by_role("heading", name="Row 1", exact=True)).to_be_visible()


def test_asking_for_advice(page: Page, studio: Studio) -> None:
    page.goto(f"{studio.base}/advise")
    page.get_by_label("Data").select_option("data/pairs.jsonl")
    page.get_by_label("Goal in words").fill("answer in our brand voice")
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("heading", name="Advice", exact=True)).to_be_visible()


def test_printed_a_page_has_no_buttons(page: Page, studio: Studio) -> None:
    page.goto(f"{studio.base}/run/runs/seed-0")
    page.emulate_media(media="print")
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    expect(page.locator(".sentence")).to_be_visible()
