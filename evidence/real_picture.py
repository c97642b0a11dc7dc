"""The README's picture of `make real`: `python evidence/real_picture.py build/real docs/real.png`.

Left: what each candidate gained and lost against the base. Right: DPO with the NLL term and the
careless one, which look alike by their margin and differ by the chosen answers' log-prob.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

Row = dict[str, Any]

SCORES = {
    "sums right": "sums/accuracy",
    "answers in voice": "voice/in_voice",
    "notes right": "notes/exact",
    "common knowledge": "knowledge/acc",
}
CANDIDATES = {"sums": "#1f6feb", "voice": "#1a7f37", "notes": "#8250df", "careless": "#d1242f"}
RUNS = {"voice": "with NLL term", "careless": "careless"}


def scores(folder: Path, name: str) -> dict[str, float]:
    """Every score that was measured of a candidate."""
    found: dict[str, float] = {}
    for summary in folder.glob(f"evals/*/{name}/summary.json"):
        found |= json.loads(summary.read_text())["scores"]
    return found


def draw(folder: Path, picture: Path) -> None:
    figure, (gains, margins, chosen) = plt.subplots(
        1, 3, figsize=(11, 3.4), width_ratios=(1.6, 1, 1)
    )
    base = scores(folder, "base")
    for place, score in enumerate(SCORES.values()):
        gains.axhline(place, color="0.92", linewidth=10, zorder=0)
        gains.plot(base[score], place, "|", color="black", markersize=16, markeredgewidth=2)
    gains.plot([], [], "|", color="black", markersize=12, markeredgewidth=2, label="base")
    for offset, (name, colour) in zip((-0.24, -0.08, 0.08, 0.24), CANDIDATES.items(), strict=True):
        measured = scores(folder, name)
        for place, score in enumerate(SCORES.values()):
            if score in measured:
                ends, height = (base[score], measured[score]), place + offset
                gains.plot(ends, (height, height), color=colour, linewidth=1.5)
                gains.plot(ends[1], height, "o", color=colour, markersize=5)
        gains.plot([], [], "o", color=colour, label=name)
    gains.set(yticks=range(len(SCORES)), yticklabels=SCORES, xlim=(-0.02, 1.02),
              title="share of held-out items")  # fmt: skip
    gains.invert_yaxis()
    gains.legend(fontsize=8, ncols=5, loc="upper center", bbox_to_anchor=(0.4, -0.1),
                 frameon=False, handletextpad=0.1, columnspacing=0.8)  # fmt: skip
    for name, label in RUNS.items():
        rows = [json.loads(line) for line in
                (folder / "runs" / name / "metrics.jsonl").read_text().splitlines()]  # fmt: skip
        steps = [row["step"] for row in rows]
        for axis, key in ((margins, "rewards/margins"),
                          (chosen, "displacement/chosen_per_token")):  # fmt: skip
            axis.plot(steps, [row[key] for row in rows], color=CANDIDATES[name], label=label)
    margins.set(title="DPO: margin", xlabel="step", yscale="symlog")
    chosen.axhline(0, color="0.6", linestyle=":")
    chosen.set(title="DPO: chosen answers", xlabel="step", ylabel="nats a token above the base")
    margins.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(picture, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="what `make real` left")
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    if not (options.folder / "evals").exists():
        sys.exit(f"real_picture: {options.folder} holds no evals\n  fix: make real first")
    draw(options.folder, options.picture)


if __name__ == "__main__":
    main()
