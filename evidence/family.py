"""The preference family on one real task: the pairs of `make real`, one run a method.

    make real
    python evidence/family.py --example build/real --out DIR   # two to three hours on two cores
    python evidence/family.py --example build/real --out DIR --only dpo simpo

Every run trains on the same pairs for the same number of steps and is measured by the example's
own suite and on pairs that no run trained on, against the base model. A finished run is skipped.
The table of docs/family.md is printed at the end, from whatever is finished.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from strop.files import write_json, write_rows

Row = dict[str, Any]

HELD_OUT = 40
"""Pairs that are measured on only."""
FLIPPED = 0.2


@dataclass(frozen=True, slots=True)
class Entry:
    """One run: a method with its options, the data it reads and what is trained."""

    method: str
    objective: Row = field(default_factory=dict)
    data: str = "pairs"
    rate: float = 1e-5
    rank: int | None = None

    def recipe(self, example: Path, folder: Path, steps: int) -> Row:
        lora = {} if self.rank is None else {"lora": {"rank": self.rank, "alpha": 2.0 * self.rank}}
        # a pair is two labelled answers
        batch = 32 if self.data == "thumbs" else 16
        return {
            "method": self.method, "output": str(folder), "seed": 0,
            "model": {"path": str(example / "base"), **lora},
            "data": str(folder.parent.parent / f"{self.data}.jsonl"),
            "text": {"max_length": 256}, "objective": self.objective,
            "optim": {"learning_rate": self.rate, "warmup_ratio": 0.1},
            "run": {"steps": steps, "batch_size": batch},
        }  # fmt: skip


ENTRIES = {
    "dpo": Entry("dpo"),
    "dpo + nll": Entry("dpo", {"nll_weight": 1.0}),
    "ipo": Entry("ipo"),
    "simpo": Entry("simpo"),
    "orpo": Entry("orpo"),
    "kto": Entry("kto", data="thumbs"),
    "apo_zero": Entry("apo_zero"),
    "dpo, flipped": Entry("dpo", data="flipped"),
    "cdpo, flipped": Entry("dpo", {"label_smoothing": FLIPPED}, data="flipped"),
    "ipo, flipped": Entry("ipo", data="flipped"),
    "dpo + nll, rank 1": Entry("dpo", {"nll_weight": 1.0}, rate=2e-4, rank=1),
    "dpo + nll, rank 8": Entry("dpo", {"nll_weight": 1.0}, rate=2e-4, rank=8),
}
"""Each at its default options. Adapters learn at twenty times the rate of all weights."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--example", type=Path, required=True, help="what `make real` left")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=ENTRIES, help="default: all")
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    example, out = options.example.resolve(), options.out.resolve()
    if not (example / "data/pairs/preferences.jsonl").exists():
        sys.exit(f"family: {example} holds no pairs\n  fix: make real first, or name its folder")
    out.mkdir(parents=True, exist_ok=True)
    write_data(example, out)
    suite = write_suite(example, out)
    measure("base", example / "base", suite, example, out)
    for name in options.only or ENTRIES:
        run(name, example, suite, out, options.steps)
    print(table(out))


def write_data(example: Path, out: Path) -> None:
    """The pairs to train on, the same with a fifth flipped, as thumbs, and those held out."""
    text = (example / "data/pairs/preferences.jsonl").read_text(encoding="utf-8")
    rows: list[Row] = [json.loads(line) for line in text.splitlines()]
    pairs = [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in rows]
    draw = random.Random("family")
    draw.shuffle(pairs)
    held_out, pairs = pairs[:HELD_OUT], pairs[HELD_OUT:]
    turned = set(draw.sample(range(len(pairs)), round(FLIPPED * len(pairs))))
    flipped = [
        {**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]} if n in turned else pair
        for n, pair in enumerate(pairs)
    ]
    thumbs = [
        {"prompt": pair["prompt"], "completion": pair[side], "label": side == "chosen"}
        for pair in pairs
        for side in ("chosen", "rejected")
    ]
    tables = {"held_out": held_out, "pairs": pairs, "flipped": flipped, "thumbs": thumbs}
    for name, wanted in tables.items():
        if not (out / f"{name}.jsonl").exists():
            write_rows(out / f"{name}.jsonl", wanted)


def write_suite(example: Path, out: Path) -> Path:
    """The example's suite of the voice, with the pairs that were held out."""
    suite = yaml.safe_load((example / "suite-voice.yaml").read_text())
    for task in suite["tasks"]:
        task["data"] = str(example / task["data"])
        for score in task.get("scores", []):
            score["file"] = str(example / score["file"])
    suite["tasks"].append(
        {"kind": "preference", "name": "pairs", "data": str(out / "held_out.jsonl"),
         "per_token": True}
    )  # fmt: skip
    path = out / "suite.yaml"
    path.write_text(yaml.safe_dump(suite, sort_keys=False))
    return path


def run(name: str, example: Path, suite: Path, out: Path, steps: int) -> None:
    """Train and measure one entry, each in a process of its own so that its peak is its own."""
    folder = out / "runs" / slug(name)
    if not (folder / "took.json").exists():
        recipe = ENTRIES[name].recipe(example, folder, steps)
        folder.parent.mkdir(exist_ok=True)
        path = folder.parent / f"{folder.name}.yaml"
        path.write_text(yaml.safe_dump(recipe, sort_keys=False))
        seconds, peak = strop("train", str(path), "--overwrite", "--force")
        write_json(folder / "took.json", {"seconds": seconds, "peak_mb": peak})
    measure(folder.name, folder / "final", suite, example, out)


def slug(name: str) -> str:
    """A run's folder: `dpo + nll, rank 8` is `dpo-nll-rank-8`."""
    return "-".join(re.findall(r"\w+", name))


def measure(name: str, model: Path, suite: Path, example: Path, out: Path) -> None:
    if (out / "evals" / name / "summary.json").exists():
        return
    reference = () if name == "base" else ("--reference", str(example / "base"))
    strop("eval", str(suite), "--model", str(model), "--output", str(out / "evals" / name),
          *reference)  # fmt: skip


def strop(*arguments: str) -> tuple[float, float]:
    """Run a command of strop; its seconds of processor time and its peak memory in MB."""
    print("strop", *arguments, flush=True)
    command = [sys.executable, "-P", "-m", "strop", *arguments]
    child = os.posix_spawn(sys.executable, command, os.environ)
    _, status, usage = os.wait4(child, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"family: {' '.join(arguments[:2])} failed, for the reason above")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


HEAD = ("run", "in voice", "tokens", "pairs won", "chosen", "displaced", "knowledge", "perplexity",
        "processor s", "peak MB")  # fmt: skip
"""`chosen`: median change of the chosen answers' log-prob against the base, nats a token, on pairs
that were held out; `displaced`: share of them whose chosen answer fell although the margin rose."""


def table(out: Path) -> str:
    """The rows of docs/family.md that are finished, in the order of `ENTRIES`."""
    lines = [HEAD, ("---",) * len(HEAD)]
    for name in ("base", *ENTRIES):
        measured = out / "evals" / slug(name) / "summary.json"
        if measured.exists():
            took = out / "runs" / slug(name) / "took.json"
            known = json.loads(took.read_text()) if took.exists() else {}
            lines.append(_cells(name, json.loads(measured.read_text()), known))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(name: str, summary: Row, took: Row) -> tuple[str, ...]:
    scores, figures = summary["scores"], summary["figures"]
    held_out = figures.get("pairs", {})
    return (
        name,
        _shown(scores["voice/in_voice"], ".2f"),
        _shown(figures["voice"]["length"], ".0f"),
        _shown(scores["pairs"], ".2f"),
        _shown(held_out.get("chosen_gain_median"), "+.3f"),
        _shown(held_out.get("displaced"), ".2f"),
        _shown(scores["knowledge/acc"], ".3f"),
        _shown(math.exp(-scores["prose/logprob"]), ".1f"),
        _shown(took.get("seconds"), ".0f"),
        _shown(took.get("peak_mb"), ".0f"),
    )


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


if __name__ == "__main__":
    main()
