"""Tables and pictures from finished runs: `python evidence/report.py DIR [--docs docs]`.

Prints the Markdown tables of docs/displacement.md and docs/evidence.md and draws their pictures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

Row = dict[str, Any]

DISPLACEMENT = {
    "careless": "DPO, rate 4e-4",
    "slow": "DPO, rate 5e-5",
    "nll-1": "with NLL term 1.0",
    "nll": "with NLL term 3.0",
    "replay": "with replayed answers",
    "ches": "lowest quarter by CHES",
    "dpop": "DPOP",
    "simpo": "SimPO",
    "apo_down": "APO-down",
    "ipo": "IPO, beta 0.1",
    "ipo-1": "IPO, beta 1.0",
}
TARGET = 0.9
"""Held-out accuracy to reach in the comparison of policy gradients."""


class World:
    """The finished runs of one seed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name

    def has(self, run: str) -> bool:
        return (self.folder / "evals" / run / "summary.json").exists()

    def rows(self, run: str) -> list[Row]:
        lines = (self.folder / "runs" / run / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def summary(self, run: str) -> Row:
        summary: Row = json.loads((self.folder / "evals" / run / "summary.json").read_text())
        return summary

    def score(self, run: str, name: str) -> float:
        return float(self.summary(run)["scores"][name])

    def alarm(self, run: str, name: str = "displacement") -> int | None:
        """The step at which the alarm first rang."""
        for row in self.rows(run):
            if any(said.startswith(name) for _, said in row.get("alarms", [])):
                return int(row["step"])
        return None

    def drift(self, run: str) -> float:
        """Held-out chosen log-prob per token against the SFT model, at the end of a run."""
        return self.chosen(self.rows(run)[-1])

    def chosen(self, row: Row) -> float:
        """The same from one row; the careless run's reference stands for all."""
        if "eval_displacement/chosen_per_token" in row:
            return float(row["eval_displacement/chosen_per_token"])
        known = self.rows("careless")[-1]
        start = known["eval_logps/chosen_per_token"] - known["eval_displacement/chosen_per_token"]
        return float(row["eval_logps/chosen_per_token"] - start)

    def reached(self, run: str) -> tuple[int, int, float] | None:
        """(steps, sampled completions, mean share of them in groups without a gradient) until the
        held-out accuracy reached the target."""
        rows = self.rows(run)
        for number, row in enumerate(rows, start=1):
            if row.get("eval_reward", 0.0) >= TARGET:
                sampled = sum(r["completions/count"] for r in rows[:number])
                return number, int(sampled), _mean(rows[:number], "frac_reward_zero_std")
        return None


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    rule = "|".join("---" for _ in header)
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"| {' | '.join(header)} |\n|{rule}|\n{body}\n"


def each(worlds: Sequence[World], run: str, value: Callable[[World], float], form: str) -> str:
    """One figure per seed that has the run, `0.60 0.58 0.61`."""
    found = [value(world) for world in worlds if world.has(run)]
    return " ".join(format(v, form) for v in found) or "-"


def displacement(worlds: Sequence[World]) -> str:
    start = [
        "SFT, where all start",
        each(worlds, "sft", lambda w: w.score("sft", "greedy/accuracy"), ".2f"),
        each(worlds, "sft", lambda w: 1 - w.score("sft", "sampled/no_filler"), ".2f"),
        each(worlds, "sft", lambda w: w.score("sft", "edits"), ".2f"),
    ]
    lines = [[*start, "0", "0", "-"]]
    for run, label in DISPLACEMENT.items():
        here = [world for world in worlds if world.has(run)]
        rang = [world.alarm(run) for world in here]
        lines.append(
            [
                label,
                each(here, run, lambda w, r=run: w.score(r, "greedy/accuracy"), ".2f"),
                each(here, run, lambda w, r=run: 1 - w.score(r, "sampled/no_filler"), ".2f"),
                each(here, run, lambda w, r=run: w.score(r, "edits"), ".2f"),
                each(here, run, lambda w, r=run: w.rows(r)[-1]["eval_rewards/margins"], ".1f"),
                each(here, run, lambda w, r=run: w.drift(r), "+.2f"),
                " ".join("silent" if step is None else str(step) for step in rang) or "-",
            ]
        )
    header = ["run", "accuracy", "filler", "pairs won", "margin", "chosen, nats/token", "alarm"]
    return table(header, lines)


def draw_displacement(worlds: Sequence[World], path: Path) -> None:
    """Margin and chosen log-prob over the steps of one seed, and what became of the accuracy."""
    first = worlds[0]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.2))
    runs = [run for run in DISPLACEMENT if first.has(run)]
    colours = dict(zip(runs, plt.get_cmap("tab20").colors, strict=False))
    for run in runs:
        rows = [row for row in first.rows(run) if "eval_rewards/margins" in row]
        steps = [row["step"] for row in rows]
        style = {"color": colours[run], "label": DISPLACEMENT[run]}
        wide = {"linewidth": 3.0} if run == "careless" else {}
        if run in ("careless", "nll", "nll-1", "slow", "replay", "ches"):
            left.plot(steps, [row["eval_rewards/margins"] for row in rows], **style, **wide)
        middle.plot(steps, [first.chosen(row) for row in rows], **style, **wide)
        rung = first.alarm(run)
        if rung is not None and run == "careless":
            middle.axvline(rung, color=colours[run], linestyle=":")
            middle.text(rung + 0.5, -3.6, "alarm", color=colours[run])
    middle.axhline(0, color="0.6", linewidth=0.8)
    middle.set_ylim(-4, 0.3)
    for number, run in enumerate(reversed(runs)):
        values = [w.score(run, "greedy/accuracy") for w in worlds if w.has(run)]
        right.barh(number, sum(values) / len(values), color=colours[run])
        right.plot(values, [number] * len(values), "k.", markersize=4)
    sft = [w.score("sft", "greedy/accuracy") for w in worlds if w.has("sft")]
    right.axvline(sum(sft) / len(sft), color="0.4", linestyle="--", label="SFT")
    right.set_yticks(range(len(runs)), [DISPLACEMENT[run] for run in reversed(runs)])
    left.set(title="margin (DPO, held out)", xlabel="step")
    middle.set(title="chosen log-prob per token against the start", xlabel="step")
    right.set(title=f"accuracy after, {len(sft)} seeds", xlim=(0, 0.75))
    left.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def policies(worlds: Sequence[World]) -> str:
    def reached(run: str, which: int, form: str) -> str:
        found = [w.reached(run) for w in worlds if w.has(run)]
        return " ".join("never" if f is None else format(f[which], form) for f in found) or "-"

    def in_update(run: str) -> str:
        return each(worlds, run, lambda w: _mean(w.rows(run), "skipped/groups") / 32, ".2f")

    lines = [
        [
            run,
            reached(run, 0, "d"),
            reached(run, 1, ",d"),
            reached(run, 2, ".2f"),
            in_update(run),
        ]
        for run in ("grpo-fine", "dapo-fine")
    ]
    header = ["method", "steps to 0.90", "completions to 0.90", "zero-gradient groups sampled",
              "learnt from, all 40 steps"]  # fmt: skip
    return table(header, lines)


def adapters(worlds: Sequence[World]) -> str:
    lines = [
        [
            label,
            each(worlds, run, lambda w, r=run: _first(w.rows(r), 0.9), ".0f"),
            each(worlds, run, lambda w, r=run: _first(w.rows(r), 0.97), ".0f"),
            each(worlds, run, lambda w, r=run: w.score(r, "greedy/accuracy"), ".3f"),
            each(worlds, run, lambda w, r=run: w.summary(r)["kl"], ".3f"),
        ]
        for run, label in {
            "grpo": "GRPO, full",
            "lora-8": "GRPO, LoRA rank 8",
            "lora-1": "GRPO, LoRA rank 1",
            "dapo": "DAPO, full",
            "dr_grpo": "Dr. GRPO, full",
        }.items()
    ]
    return table(
        ["run", "steps to 0.90", "steps to 0.97", "accuracy after 240", "KL to SFT"], lines
    )


def _first(rows: Sequence[Row], target: float) -> float:
    return next((r["step"] for r in rows if r.get("eval_reward", 0.0) >= target), float("nan"))


def lengths(worlds: Sequence[World]) -> str:
    def part(run: str, start: int, stop: int | None) -> str:
        name = "completions/mean_length_below"
        return each(worlds, run, lambda w: _mean(w.rows(run)[start:stop], name), ".1f")

    lines = [
        [run, part(run, 0, 40), part(run, 100, 140), part(run, -40, None)]
        for run in ("grpo", "dr_grpo", "dapo")
    ]
    return table(["method", "steps 1 to 40", "101 to 140", "last 40"], lines)


def preferences(worlds: Sequence[World]) -> str:
    named = {
        "sft": "SFT",
        "dpo": "DPO, NLL term 3.0 (edits)",
        "simpo-gentle": "SimPO, NLL term 3.0 (edits)",
        "kto": "KTO (thumbs alone)",
        "orpo": "ORPO (one stage, from the raw model)",
    }
    lines = [
        [
            label,
            each(worlds, run, lambda w, r=run: w.score(r, "greedy/accuracy"), ".3f"),
            each(worlds, run, lambda w, r=run: w.score(r, "sampled/accuracy"), ".3f"),
            each(worlds, run, lambda w, r=run: 1 - w.score(r, "sampled/no_filler"), ".3f"),
            each(worlds, run, lambda w, r=run: w.summary(r)["kl"] or float("nan"), ".3f"),
        ]
        for run, label in named.items()
    ]
    return table(["run", "accuracy", "at temperature 1", "filler", "KL to SFT"], lines)


def draw_policies(worlds: Sequence[World], path: Path) -> None:
    """Held-out accuracy of every method over sampled completions."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True)
    groups = (("grpo-fine", "dapo-fine"), ("grpo", "lora-8", "lora-1"))
    for axis, runs in zip(axes, groups, strict=True):
        for colour, run in zip(("#1f6feb", "#d1242f", "#1a7f37"), runs, strict=False):
            for number, world in enumerate(w for w in worlds if w.has(run)):
                sampled, xs, ys = 0, [], []
                for row in world.rows(run):
                    sampled += row["completions/count"]
                    if "eval_reward" in row:
                        xs.append(sampled)
                        ys.append(row["eval_reward"])
                axis.plot(xs, ys, color=colour, alpha=0.8, linewidth=1.2,
                          label=run.removesuffix("-fine") if number == 0 else None)  # fmt: skip
        axis.axhline(TARGET, color="0.6", linestyle=":")
        axis.set(xlabel="sampled completions", xscale="log")
        axis.legend()
    axes[0].set(ylabel="held-out accuracy, greedy", title="the first 40 steps, a line a seed")
    axes[1].set(title="GRPO, 240 steps: full against LoRA")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _mean(rows: Sequence[Row], name: str) -> float:
    values = [row[name] for row in rows if name in row]
    return sum(values) / len(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    options = parser.parse_args()
    worlds = [World(path) for path in sorted(options.folder.glob("seed-*"))]
    for title, text in (
        ("displacement", displacement(worlds)),
        ("policy gradients", policies(worlds)),
        ("after 240 steps", adapters(worlds)),
        ("length of answers below the mean reward", lengths(worlds)),
        ("preference methods", preferences(worlds)),
    ):
        print(f"## {title}\n\n{text}")
    draw_displacement(worlds, options.docs / "displacement.png")
    draw_policies(worlds, options.docs / "policies.png")


if __name__ == "__main__":
    main()
