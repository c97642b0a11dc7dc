"""How fast the studio opens, how soon it shows a step, and pictures of its pages.

    python evidence/studio.py --out build/studio
    python evidence/studio.py --root strop-demo --pictures docs/studio

The first form makes 1,000 runs and one of 10,000 steps, and opens them in Chromium. Times are from
the request to the browser's `load` event; the memory is what the server's process has beyond what
it had before its first page, and the page's JavaScript heap.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.studio import write_run

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--enable-precise-memory-info"]
RUNS, STEPS, ROUNDS = 1000, 10_000, 5
HEAP = "performance.memory.usedJSHeapSize / 2 ** 20"
TOOK = "performance.getEntriesByType('navigation')[0].loadEventEnd"


@contextmanager
def served(root: Path) -> Iterator[tuple[str, int]]:
    """The studio's address, and its process."""
    command = [sys.executable, "-m", "strop", "studio", root, "--port", "0", "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = re.search(r"(http://\S+)/#(\S+)", process.stdout.readline())
    assert found
    try:
        yield found.group(1), process.pid
    finally:
        process.terminate()
        process.wait()


def resident(process: int) -> float:
    """MiB that a process holds (Linux)."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def opened(page: Page, address: str) -> dict[str, float]:
    page.goto(address, wait_until="load")
    return {"seconds": page.evaluate(TOOK) / 1000, "heap": page.evaluate(HEAP)}


def measured(browser: Browser, out: Path) -> dict[str, Any]:
    """The list of all runs, the long run, and how long a new step takes to show."""
    root = out / "root"
    if not root.exists():
        for number in range(RUNS - 1):
            write_run(root / f"group-{number % 10}" / f"run-{number:04}", steps=40, seed=number)
        write_run(root / "long", steps=STEPS, finished=False)
    told: dict[str, Any] = {}
    with served(root) as (address, process):
        page = browser.new_page()
        page.goto(f"{address}/healthz")
        before = resident(process)
        for name, path in (("1,000 runs", "/runs"), ("10,000 steps", "/run/long")):
            rounds = [opened(page, f"{address}{path}") for _ in range(ROUNDS)]
            told[name] = {
                "first": round(rounds[0]["seconds"], 3),
                "median": round(statistics.median(one["seconds"] for one in rounds), 3),
                "heap MiB": round(max(one["heap"] for one in rounds), 1),
                "server MiB": round(resident(process) - before, 1),
            }
        told["a step shows after"] = [round(delay(page, root / "long", k), 2) for k in range(5)]
        page.close()
    return told


def delay(page: Page, run: Path, number: int) -> float:
    """Seconds from a step's row in the log until the page says it."""
    step = STEPS + 1 + number
    row = json.dumps({"step": step, "reward": 0.9}) + "\n"
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write(row)
    began = time.perf_counter()
    page.locator(".sentence", has_text=str(step)).wait_for()
    return time.perf_counter() - began


def pictures(browser: Browser, root: Path, folder: Path, pages: dict[str, str]) -> None:
    """Each page, light and dark."""
    folder.mkdir(parents=True, exist_ok=True)
    with served(root) as (address, _):
        for colours in ("light", "dark"):
            scheme = "dark" if colours == "dark" else "light"
            context = browser.new_context(
                color_scheme=scheme, viewport={"width": 1000, "height": 720}
            )
            page = context.new_page()
            for name, path in pages.items():
                page.goto(f"{address}{path}", wait_until="load")
                page.screenshot(path=folder / f"{name}-{colours}.png")
            context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/studio"))
    parser.add_argument("--root", type=Path, help="take pictures of this folder")
    parser.add_argument("--pictures", type=Path, default=Path("docs/studio"))
    parser.add_argument("--page", nargs=2, action="append", default=[], metavar=("NAME", "PATH"))
    given = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        if given.root is not None:
            pictures(browser, given.root, given.pictures, dict(given.page))
            return
        told = measured(browser, given.out)
        browser.close()
    (given.out / "studio.json").write_text(json.dumps(told, indent=1))
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
