"""A judge with a planted taste for length as the reward of GRPO, as it is and with its card.

    python evidence/judged_length.py --worlds 0 1 2 --out DIR     # 6 runs
    python evidence/judged_length.py --report DIR                 # table and curves of evidence.md

The judge knows the right answer: it gives it `RIGHT` log-odds over a wrong one, and `TASTE`
log-odds for every 100 characters that an answer is longer. Its card is made as a user would make
it, from pairs of the starting model's own answers that people decided. The starting model has seen
a few long demonstrations, so there is something to find.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from hacks import policy, world

import strop
from strop.cli.show import setup
from strop.curate.manifest import sources_of
from strop.curate.sample import sample
from strop.files import digest64, write_json, write_rows
from strop.judge.asking.forms import FormName
from strop.judge.asking.question import Question, Ruling
from strop.judge.bias.sway import Sway
from strop.judge.trust.anchors import Anchor
from strop.judge.trust.card import calibrate
from strop.recipe.curate import SampleSettings
from strop.recipe.train.rollout import SamplingRecipe
from strop.rewards.exact import exact_answer
from strop.rewards.judged import judge_win
from strop.text.parse import plain
from strop.tracking.runlog import read_rows
from strop.train.rundir.directory import is_finished

RIGHT, TASTE, NOISE = 2.0, 1.5, 0.5
STEPS, ANCHORS = 60, 400
ARMS = ("as it is", "with its card")
PICTURE = Path(__file__).parents[1] / "docs/judged_length.png"


@dataclass(frozen=True, slots=True)
class Biased:
    """The simulated judge; `gold` are the right answers by prompt."""

    gold: Mapping[str, str]

    def identity(self) -> Mapping[str, Any]:
        return {"simulated": [RIGHT, TASTE, NOISE]}

    def right(self, prompt: Any, answer: str) -> float:
        [score] = exact_answer([prompt], [answer], answer=[self.gold[plain(prompt)]])
        return score or 0.0

    def rule(self, form: FormName, questions: Sequence[Question]) -> list[Ruling]:
        assert form == "pairwise"
        return [self._one(question) for question in questions]

    def _one(self, question: Question) -> Ruling:
        one, other = question.answers
        better = self.right(question.prompt, one) - self.right(question.prompt, other)
        # whatever it thinks of an answer besides, it thinks wherever the answer is shown
        mood = sum(side * (digest64(text) / 2**64 - 0.5) for side, text in ((1, one), (-1, other)))
        odds = RIGHT * better + TASTE * (len(one) - len(other)) / 100 + NOISE * mood
        won = 0.5 if odds == 0 else float(odds > 0)
        return Ruling((won, 1 - won), 1 / (1 + math.exp(-abs(odds))))


def sampled(folder: Path) -> list[dict[str, Any]]:
    """Two answers of the starting model to every training task, once."""
    file = folder / "data/sampled.jsonl"
    if not file.exists():
        settings = SampleSettings(
            model=str(folder / "runs/sft/final"), samples=2,
            sampling=SamplingRecipe(temperature=1.0, max_tokens=112),
        )  # fmt: skip
        sample(sources_of([folder / "data/tasks.jsonl"], None), file, settings)
    return [json.loads(line) for line in file.read_text().splitlines()]


def prepared(folder: Path) -> tuple[Biased, dict[str, Sway]]:
    """The judge, and what its card says of it; the tasks get a `baseline` answer."""
    tasks = [json.loads(line) for line in (folder / "data/tasks.jsonl").read_text().splitlines()]
    judge = Biased({plain(task["prompt"]): str(task["answer"]) for task in tasks})
    answers: dict[str, list[str]] = {}
    for row in sampled(folder):
        answers.setdefault(plain(row["prompt"]), []).append(plain(row["completion"]))
    rows = [{**task, "baseline": answers[plain(task["prompt"])][0]} for task in tasks]
    write_rows(folder / "data/against.jsonl", rows)
    anchors = []
    for number, task in enumerate(tasks):
        one, other = answers[plain(task["prompt"])][:2]
        better = judge.right(task["prompt"], one) - judge.right(task["prompt"], other)
        if better and one != other:
            question = Question(str(number), task["prompt"], (one, other))
            anchors.append(Anchor(question, (float(better > 0),), str(number)))
    card, _ = calibrate(judge, anchors[:ANCHORS], folder / "data/tasks.jsonl")
    write_json(folder / "card.json", card.plain())
    return judge, dict(card.sways)


def trained(folder: Path, arm: str, judge: Biased, known: Mapping[str, Sway]) -> None:
    output = folder / "runs" / arm.replace(" ", "-")
    if is_finished(output):
        return
    taken = known if arm == ARMS[1] else {}

    def judged(prompts: Any, completions: Any, *, baseline: Any, **_: Any) -> Any:
        return judge_win(judge, taken, prompts, completions, baseline=baseline, at_no_bias=True)

    recipe = policy([{"function": "exact_answer"}]) | {
        "data": str(folder / "data/against.jsonl"), "output": str(output), "seed": 0,
        "model": {"path": str(folder / "runs/sft/final")},
    }  # fmt: skip
    recipe["run"]["steps"] = STEPS
    recipe["eval"]["data"] = str(folder / "data/test_200.jsonl")
    del recipe["reward"], recipe["probes"]
    strop.train(recipe, rewards=[judged], overwrite=output.exists(), force=True)
    print(f"{folder.name} {arm}", flush=True)


def curves(folder: Path, arm: str) -> list[dict[str, Any]]:
    return list(read_rows(folder / "runs" / arm.replace(" ", "-") / "metrics.jsonl"))


def ends(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[float, float]:
    """Mean over the first three and the last ten values."""
    values = [row[name] for row in rows if name in row]
    return statistics.fmean(values[:3]), statistics.fmean(values[-10:])


def report(out: Path) -> None:
    """The table of docs/evidence.md, and its picture."""
    worlds = sorted(out.glob("world-*"))
    print("| world | sway on the card, per 100 characters | reward | tokens | right, greedy |")
    print("| --- | --- | --- | --- | --- |")
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
    for number, folder in enumerate(worlds):
        sway = Sway(**json.loads((folder / "card.json").read_text())["sways"]["length"])
        told = " to ".join(f"{100 * value / sway.unit:.2f}" for value in (sway.low, sway.high))
        for arm, colour in zip(ARMS, ("#cf222e", "#0969da"), strict=True):
            rows = curves(folder, arm)
            tokens, right = ends(rows, "completions/mean_length"), ends(rows, "eval_reward")
            size = f"{100 * sway.estimate / sway.unit:.2f} ({told})"
            print(f"| {folder.name.removeprefix('world-')} | {size} | {arm} | {tokens[0]:.0f} to "
                  f"{tokens[1]:.0f} | {right[0]:.2f} to {right[1]:.2f} |")  # fmt: skip
            label = arm if number == 0 else None
            for axis, name in zip(axes, ("completions/mean_length", "eval_reward"), strict=True):
                points = [(row["step"], row[name]) for row in rows if name in row]
                axis.plot(*zip(*points, strict=True), color=colour, label=label, linewidth=1)
    for axis, name in zip(axes, ("tokens of an answer", "right, greedy"), strict=True):
        axis.set(xlabel="step", ylabel=name)
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    if options.report:
        report(options.report)
        return
    setup()
    for seed in options.worlds:
        folder = options.out / f"world-{seed}"
        world(folder, seed)
        judge, known = prepared(folder)
        for arm in ARMS:
            trained(folder, arm, judge, known)


if __name__ == "__main__":
    main()
