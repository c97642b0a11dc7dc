"""What came of it: a table in the terminal and a page to look at, from the folder's files alone."""

from __future__ import annotations

import html
import json
import math
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from strop.evals.records import read_records
from strop.files import write_whole
from strop.tracking.report import html_of, page
from strop.tracking.story.page import story_html, style
from strop.tracking.story.story import read_story

CANDIDATES = ("base", "sums-sft", "sums", "voice", "careless", "notes-sft", "notes")
FINAL = ("sums", "voice", "notes")
COLUMNS = {
    "sums right": "sums/accuracy",
    "no opener": "voice/no_opener",
    "no closer": "voice/no_closer",
    "brief": "voice/brief",
    "of the reader": "voice/of_the_reader",
    "five words": "voice/substance",
    "in voice": "voice/in_voice",
    "answer tokens": "voice tokens",
    "notes exact": "notes/exact",
    "notes schema": "notes/schema",
    "knowledge": "knowledge/acc",
    "prose perplexity": "prose/logprob",
}
"""What a column shows, and the score that it is read from."""
GATES = ("sums", "voice", "careless", "notes")
RUNS = ("sums-sft", "sums", "voice", "careless", "notes-sft", "notes")
ANSWERS = {"sums": "sums/accuracy", "voice": "voice/no_opener", "notes": "notes/exact"}


LEFT = "text-align:left;white-space:pre-wrap"


def print_story(folder: Path) -> None:
    """The candidates, the verdicts and the stages, in 100 columns."""
    console = Console(width=100, highlight=False)
    table = Table(title="What was gained where, and lost where", title_justify="left",
                  box=SIMPLE_HEAD, pad_edge=False, padding=0)  # fmt: skip
    table.add_column("", no_wrap=True)
    for name in COLUMNS:
        table.add_column(name.replace(" ", "\n"), justify="right")
    for name in CANDIDATES:
        table.add_row(name, *(_shown(column, value) for column, value in row(folder, name).items()))
    console.print(table)
    for name in GATES:
        console.print(f"{name}: {verdict(folder, name)['sentence']}", markup=False)
    for sentence in study(folder)["sentences"]:
        console.print(f"sampling more: {sentence}", markup=False)
    stages = Table(title="Wall time and peak memory", title_justify="left", box=SIMPLE_HEAD,
                   pad_edge=False)  # fmt: skip
    for heading in ("stage", "seconds", "peak MB"):
        stages.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage, known in _stages(folder).items():
        stages.add_row(stage, f"{known['seconds']:.0f}", f"{known['peak_mb'] or 0:.0f}")
    console.print(stages)


def row(folder: Path, name: str) -> dict[str, float | None]:
    """The columns of a candidate; `None` where it was not measured."""
    scores: dict[str, float] = {}
    for summary in folder.glob(f"evals/*/{name}/summary.json"):
        read = json.loads(summary.read_text())
        scores |= read["scores"]
        if "voice" in read["figures"]:
            scores["voice tokens"] = read["figures"]["voice"]["length"]
    return {column: scores.get(score) for column, score in COLUMNS.items()}


def verdict(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "gates" / f"{name}.json").read_text())
    return found


def study(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "evals/decode/decode.json").read_text())
    return found


def write_story(folder: Path) -> Path:
    """`real.html`: verdicts, the table, bars, the decoding study, answers, curves; one file."""
    parts = [f"<p><b>{name}</b>: {html.escape(verdict(folder, name)['sentence'])}</p>"
             for name in GATES]  # fmt: skip
    parts += [_table(folder), html_of(_bars(folder), library=True)]
    parts += ["<h2>Sampling more, or training more</h2>", _decoded(folder)]
    parts += [_answers(folder, task) for task in ANSWERS]
    for name in RUNS:
        parts += [f"<h2>{name}</h2>", story_html(read_story(folder / "runs" / name), samples=10)]
    parts += ["<h2>Wall time and peak memory</h2>", _stage_table(folder)]
    path = folder / "real.html"
    write_whole(path, page("A real model, start to finish", parts, style()))
    return path


def _shown(column: str, value: float | None) -> str:
    if value is None:
        return "-"
    if column == "prose perplexity":
        return f"{math.exp(-value):.1f}"
    return f"{value:.0f}" if column == "answer tokens" else f"{value:.3f}"


def _table(folder: Path) -> str:
    """Against the base, gains are green and losses red; a length is neither."""
    base = row(folder, "base")
    lines = ["<tr><th>" + "".join(f"<th>{name}" for name in COLUMNS) + "</tr>"]
    for name in CANDIDATES:
        cells = []
        for column, value in row(folder, name).items():
            change = 0.0 if value is None or base[column] is None else value - base[column]
            told = abs(change) > 0.005 and column != "answer tokens"
            colour = ("#dafbe1" if change > 0 else "#ffebe9") if told else "none"
            cells.append(f"<td style='background:{colour}'>{_shown(column, value)}")
        lines.append(f"<tr><td style='white-space:nowrap'>{name}{''.join(cells)}</tr>")
    # twelve columns have to fit a laptop's window
    return f"<table style='font-size:12px'>{''.join(lines)}</table>"


def _bars(folder: Path) -> go.Figure:
    """Every final candidate beside the base, by everything that is a share."""
    shares = [name for name in COLUMNS if name not in ("answer tokens", "prose perplexity")]
    figure = go.Figure()
    for name in ("base", *FINAL):
        values = row(folder, name)
        figure.add_bar(name=name, x=shares, y=[values[share] for share in shares])
    figure.update_layout(template="plotly_white", barmode="group", height=380,
                         yaxis={"range": [0, 1]}, margin={"t": 30, "b": 30})  # fmt: skip
    return figure


def _decoded(folder: Path) -> str:
    found = study(folder)
    said = "".join(f"<p>{html.escape(one)}</p>" for one in found["sentences"])
    cells = "".join(
        f"<tr><td>{one['model']} {one['method']}@{one['k']} T={one['temperature']:g}"
        f"<td>{one['tokens']:.0f}<td>{one['accuracy']:.3f}<td>{one['low']:.3f} to {one['high']:.3f}"
        "</tr>"
        for one in found["rows"]
    )
    return f"{said}<table><tr><th>way<th>tokens<th>accuracy<th>95 %</tr>{cells}</table>"


def _answers(folder: Path, task: str) -> str:
    """What every candidate says to the first three items of a task."""
    said: dict[str, dict[str, str]] = {}
    for name in CANDIDATES:
        measured = folder / "evals" / task / name
        for record in read_records(measured) if measured.exists() else ():
            if record.task == ANSWERS[task]:
                said.setdefault(str(record.item), {})[name] = record.output
    data = {"sums": "sums_test", "voice": "everyday_test", "notes": "notes_test"}[task]
    lines = (folder / "data" / f"{data}.jsonl").read_text(encoding="utf-8").splitlines()
    prompts = [json.loads(line)["prompt"][-1]["content"] for line in lines]
    parts = [f"<h2>Answers: {task}</h2>"]
    for (_, answers), prompt in list(zip(said.items(), prompts, strict=False))[:3]:
        cells = "".join(
            f"<tr><td>{name}<td style='{LEFT}'>{html.escape(text)}</tr>"
            for name, text in answers.items()
        )
        parts.append(f"<p><b>{html.escape(prompt)}</b></p><table>{cells}</table>")
    return "".join(parts)


def _stages(folder: Path) -> dict[str, dict[str, Any]]:
    known: dict[str, dict[str, Any]] = json.loads((folder / "stages.json").read_text())
    return known


def _stage_table(folder: Path) -> str:
    cells = "".join(
        f"<tr><td>{name}<td>{known['seconds']:.0f} s<td>{known['peak_mb'] or 0:.0f} MB"
        f"<td style='text-align:left'>{html.escape(known['said'])}</tr>"
        for name, known in _stages(folder).items()
    )
    return f"<table><tr><th>stage<th>time<th>peak<th></tr>{cells}</table>"
