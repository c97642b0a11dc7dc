"""What the demo found, as data, as a table and as a page."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from strop.evals.records import read_records
from strop.files import write_whole
from strop.registry.lineage import generations
from strop.registry.store import Registry
from strop.tracking.report import page
from strop.tracking.runlog import read_rows
from strop.tracking.story.page import story_html, style
from strop.tracking.story.story import read_story

SAMPLES = 10
"""Of each run, on the page."""
STAGES = ("base", "sft", "dpo", "grpo")
REFUSED = {
    "careless": "likelihood displacement: the training view was perfect "
    "(preference accuracy {accuracy:.2f}, margin {margin:+.1f}) while the chosen answer itself "
    "lost {drift:.2f} nats per token",
    "hacked": "a reward without correctness: its own curve rose from {first:.2f} to {last:.2f} "
    "while fewer answers were right",
}


def outcome(folder: Path, *, seconds: float) -> dict[str, Any]:
    """The result of a finished demo, from its files alone."""
    return {
        "stages": [_stage(folder, name) for name in STAGES],
        "gate": _verdict(folder, "grpo")["name"],
        "refused": [{"name": n, "verdict": _verdict(folder, n)["name"]} for n in REFUSED],
        "report": str(folder / "report.html"),
        "seconds": round(seconds, 1),
    }


def why_refused(folder: Path, name: str) -> str:
    """What went wrong in a refused run, with its own numbers."""
    rows = list(read_rows(folder / "runs" / name / "metrics.jsonl"))
    if name == "hacked":
        return REFUSED[name].format(first=rows[0]["reward"], last=rows[-1]["reward"])
    last = rows[-1]
    return REFUSED[name].format(
        accuracy=last["rewards/accuracies"],
        margin=last["rewards/margins"],
        drift=-last["displacement/chosen_per_token"],
    )


def print_story(folder: Path, result: dict[str, Any], *, program: str) -> None:
    """The table of the stages, the verdicts, and what to try next with `program`."""
    console = Console(highlight=False, width=100)
    table = Table(title="The same 400 held-out equations after every stage", title_justify="left")
    table.add_column("stage")
    for column in ("accuracy", "accuracy T=1", "filler T=1", "KL to parent", "training"):
        table.add_column(column, justify="right")
    shown = [*result["stages"], *(_stage(folder, name) for name in REFUSED)]
    for row in shown:
        refused = f"{row['name']} (refused)" if row["name"] in REFUSED else row["name"]
        table.add_row(
            refused,
            f"{row['accuracy']:.3f}",
            f"{row['accuracy_t1']:.3f}",
            f"{row['filler']:.3f}",
            f"{row['kl']:.3f}",
            f"{row['seconds']:.0f} s",
        )
    console.print()
    console.print(table)
    for name in REFUSED:
        said = f"{name}: {_verdict(folder, name)['sentence']}\n  why: {why_refused(folder, name)}."
        console.print(said, markup=False)
    verdict = _verdict(folder, "grpo")["sentence"]
    console.print(f"grpo: {verdict}", markup=False)
    entry = Registry(folder / "registry.db").entry("algebra")
    console.print(f"registry: algebra is {entry.id}, from {_line(entry.lineage)}", soft_wrap=True)
    console.print(f"report:   {result['report']}  ({result['seconds']:.0f} s in all)")
    console.print("\nNext:")
    for command in next_commands(folder):
        console.print(f"  {program} {command}", soft_wrap=True)


def next_commands(folder: Path) -> list[str]:
    return [
        f"registry show algebra --registry {folder}/registry.db",
        f"gate --policy {folder}/gate-dpo.yaml --base {folder}/evals/sft "
        f"--candidate {folder}/evals/careless",
        f"train {folder}/grpo.yaml --set method=dapo --set output=runs/dapo",
    ]


def write_story(folder: Path, result: dict[str, Any]) -> None:
    """`report.html`: table, verdicts, curves of every run and answers side by side; one file."""
    rows = [*result["stages"], *(_stage(folder, name) for name in REFUSED)]
    header = "<tr><th>stage<th>accuracy<th>at T=1<th>filler<th>KL to parent<th>training</tr>"
    cells = "".join(
        f"<tr><td>{row['name']}{' (refused)' if row['name'] in REFUSED else ''}"
        f"<td>{row['accuracy']:.3f}<td>{row['accuracy_t1']:.3f}<td>{row['filler']:.3f}"
        f"<td>{row['kl']:.3f}<td>{row['seconds']:.0f} s</tr>"
        for row in rows
    )
    parts = [f"<p>{html.escape(_verdict(folder, 'grpo')['sentence'])}</p>",
             f"<table>{header}{cells}</table>", _answers(folder)]  # fmt: skip
    for name in ("sft", "dpo", "careless", "hacked", "grpo"):
        parts.append(f"<h2>{name}</h2>")
        if name in REFUSED:
            said = (
                f"Refused. {_verdict(folder, name)['sentence']} Why: {why_refused(folder, name)}."
            )
            parts.append(f"<p>{html.escape(said)}</p>")
        parts.append(story_html(read_story(folder / "runs" / name), samples=SAMPLES))
    text = page("strop demo: from a raw model to a promoted one", parts, style())
    write_whole(folder / "report.html", text)


def _stage(folder: Path, name: str) -> dict[str, Any]:
    """One row of the table; the base is its own parent."""
    summary = json.loads((folder / "evals" / name / "summary.json").read_text())
    scores = summary["scores"]
    log = folder / "runs" / name / "metrics.jsonl"
    seconds = sum(row["step_time"] for row in read_rows(log)) if log.exists() else 0.0
    return {
        "name": name,
        "accuracy": round(scores["greedy/accuracy"], 4),
        "accuracy_t1": round(scores["sampled/accuracy"], 4),
        "filler": round(1.0 - scores["sampled/no_filler"], 4),
        "kl": round(summary["kl"] or 0.0, 4),
        "seconds": round(seconds, 1),
    }


def _verdict(folder: Path, name: str) -> dict[str, Any]:
    verdict: dict[str, Any] = json.loads((folder / "gates" / f"{name}.json").read_text())
    return verdict


def _line(lineage: Any) -> str:
    return " -> ".join(Path(made["model"]).parent.name if "method" in made else "raw model"
                       for made in generations(lineage))  # fmt: skip


def _answers(folder: Path) -> str:
    """What every stage says to the first minus equation it was tested on."""
    tests = [json.loads(line) for line in (folder / "data/test.jsonl").read_text().splitlines()]
    place = next(i for i, row in enumerate(tests) if " - " in row["prompt"][0]["content"])
    question = tests[place]["prompt"][0]["content"]
    rows = []
    for name in (*STAGES, *REFUSED):
        records = [r for r in read_records(folder / "evals" / name) if r.task == "greedy/accuracy"]
        said = html.escape(records[place].output)
        rows.append(f"<tr><td>{name}<td style='text-align:left;white-space:pre-wrap'>{said}</tr>")
    return f"<h2>{html.escape(question)}</h2><table>{''.join(rows)}</table>"
