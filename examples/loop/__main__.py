"""Serve, listen, learn again: `python examples/loop --out build/loop`."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path
from string import Template

import httpx
from server import server
from story import Bounds, Story, draw
from users import visits

import strop
from strop.curate.signals.build import build
from strop.data.sources import at
from strop.demo.world import split
from strop.demo.write import HELD_OUT, write_demo
from strop.errors import StropError

FILES = Path(__file__).parent / "files"
PICKED_UP_WITHIN = 60.0
"""Seconds that the server has to notice a promotion."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="examples/loop", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/loop"), help="folder to write")
    parser.add_argument("--users", type=int, default=300, help="visits before and after")
    parser.add_argument("--sft", type=int, default=900, help="steps of the first model's training")
    parser.add_argument("--steps", type=int, default=30, help="steps of the second one's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="draw the curve into this PNG")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    folder = given.out.resolve()
    try:
        prepare(folder, given.seed, given.sft, given.steps)
        story = loop(folder, given.users, given.seed)
    except StropError as error:
        sys.exit(f"loop: {error}")
    story.save(folder)
    for sentence in story.sentences():
        print(sentence)
    if given.picture is not None:
        draw(story, given.picture)


def prepare(folder: Path, seed: int, sft: int, steps: int) -> None:
    """The demo's world, the first model trained and promoted."""
    write_demo(folder, seed)
    recipe = (folder / "sft.yaml").read_text()
    (folder / "sft.yaml").write_text(recipe.replace("steps: 900", f"steps: {sft}"))
    for file in FILES.iterdir():
        text = Template(file.read_text()).substitute(seed=seed, steps=steps)
        (folder / file.name).write_text(text)
    strop.run(folder / "first.yaml")


def loop(folder: Path, users: int, seed: int) -> Story:
    """Users, their words, the next model, more users, and a canary that is no good."""
    equations, _ = split(seed, HELD_OUT)
    story = Story()
    with server(folder) as url:
        story.first += visits(url, equations, users, seed)
        build([at(file) for file in sorted((folder / "traffic").glob("traffic-*.jsonl"))],
              folder / "records")  # fmt: skip
        before = served(url)
        strop.run(folder / "again.yaml")
        wait_for_another(url, before)
        story.second += visits(url, equations, users, seed + 1)
    canary = {"entry": str(folder / "runs/sft/final"), "share": 0.5}
    with server(folder, canary=canary) as url:
        for visit in visits(url, equations, 10 * users, seed + 2):
            story.trial.append(visit)
            told = httpx.get(f"{url}/canary").json()["canary"]
            story.bounds.append(
                Bounds(len(story.trial), told["difference"], told["low"], told["high"])
            )
            story.state = told["state"]
            if told["state"] != "on trial":
                break
    return story


def served(url: str) -> str:
    """The weights that the server's name stands for."""
    listed = httpx.get(f"{url}/v1/models").json()["data"]
    return str(listed[0]["strop"]["weights"])


def wait_for_another(url: str, before: str) -> None:
    """Wait until the server has picked up what was promoted."""
    until = time.monotonic() + PICKED_UP_WITHIN
    while served(url) == before:
        if time.monotonic() > until:
            sys.exit("loop: the server did not pick up the promotion")
        time.sleep(0.2)


if __name__ == "__main__":
    main()
