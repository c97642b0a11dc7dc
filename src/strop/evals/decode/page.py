"""A decoding study as one HTML file that opens without a network."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from strop.evals.decode.frontier import FrontierRow
from strop.recipe.study import Study
from strop.tracking.report import html_of, page

if TYPE_CHECKING:
    import plotly.graph_objects as go

COLOURS = {"base": "#6e7781", "model": "#1f6feb"}
DASHES = {"maj": "solid", "best": "dash", "pass": "dot", "refine": "dashdot"}
NAMES = {"base": "base", "model": "trained"}
LINE_HEIGHT = 0.045
"""Least distance of two names, as a share of the accuracy axis."""

HEADINGS = ("model", "temp.", "method", "k", "tokens", "accuracy", "95 % interval",
            "base at\nequal tokens")  # fmt: skip


def study_page(study: Study, rows: Sequence[FrontierRow], said: Sequence[str]) -> str:
    """Sentences first, then accuracy against tokens, then the table."""
    words = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in said)
    counted = "<p>Tokens: the mean that are sampled for an item; the prompt's are not counted.</p>"
    plot = html_of(figure(study, rows), library=True)
    return page("Sampling more or training more", [words, plot, counted, _table(rows)])


def figure(study: Study, rows: Sequence[FrontierRow]) -> go.Figure:
    """One panel per temperature; each line is a way to spend more tokens, labelled at its end."""
    import plotly.graph_objects as go  # here alone, for the sake of start-up
    from plotly.subplots import make_subplots

    temperatures = sorted({row.temperature for row in rows if row.temperature > 0})
    serving = study.serving_temperature
    titles = [f"temperature {t:g}{' (serving)' if t == serving else ''}" for t in temperatures]
    panels = make_subplots(rows=len(titles), cols=1, subplot_titles=titles, vertical_spacing=0.3 /
                           max(2, len(titles)))  # fmt: skip
    ends = max(row.tokens for row in rows)
    starts = min(row.tokens for row in rows)
    top = 1.0
    for number, temperature in enumerate(temperatures, 1):
        lines = lines_at(rows, temperature)
        places = _apart([line[-1].accuracy for line in lines.values()])
        top = max(top, *places)
        for (name, line), place in zip(lines.items(), places, strict=True):
            colour, method = COLOURS[line[0].model], line[-1].method
            panels.add_trace(
                go.Scatter(
                    x=[row.tokens for row in line],
                    y=[row.accuracy for row in line],
                    customdata=[[row.k, row.low, row.high] for row in line],
                    name=name,
                    mode="lines+markers" if len(line) > 1 else "markers",
                    marker={"symbol": "circle" if len(line) > 1 else "star", "size": 8},
                    line={"color": colour, "dash": DASHES.get(method, "solid")},
                    hovertemplate="k %{customdata[0]}: %{y:.3f} "
                    "(%{customdata[1]:.3f} to %{customdata[2]:.3f}), %{x:.1f} tokens",
                    showlegend=False,
                ),
                row=number,
                col=1,
            )
            panels.add_annotation(
                x=math.log10(line[-1].tokens), y=place, text=name, xanchor="left", xshift=9,
                showarrow=False, font={"color": colour, "size": 12}, row=number, col=1,
            )  # fmt: skip
    spread = math.log10(ends / starts) + 0.1
    reach = [math.log10(starts) - 0.05, math.log10(ends) + 0.25 * spread + 0.05]
    panels.update_xaxes(type="log", range=reach, title="tokens an item (log)")
    panels.update_yaxes(range=[-0.05, top + 0.05], title="accuracy")
    return panels.update_layout(template="plotly_white", height=430 * len(titles))


def lines_at(rows: Sequence[FrontierRow], temperature: float) -> dict[str, list[FrontierRow]]:
    """The lines of one panel: one per model and method from one answer on, the greedy points, and
    the greedy points refined."""
    lines = {}
    for side, name in NAMES.items():
        mine = [row for row in rows if row.model == side]
        greedy = [row for row in mine if row.temperature == 0]
        here = [row for row in mine if row.temperature == temperature]
        one = [row for row in here if row.method == "sample"]
        lines[f"{name} greedy"] = [row for row in greedy if row.method == "greedy"]
        if len(greedy) > 1:
            lines[f"{name} greedy refine"] = greedy
        for method in dict.fromkeys(row.method for row in here if row.method != "sample"):
            lines[f"{name} {method}"] = one + [row for row in here if row.method == method]
        if len(here) == len(one):
            lines[f"{name} sample"] = one
    return lines


def cells(row: FrontierRow) -> tuple[str, ...]:
    """A row of the table under `HEADINGS`."""
    return (
        NAMES[row.model],
        f"{row.temperature:g}",
        row.method,
        str(row.k),
        f"{row.tokens:,.1f}",
        f"{row.accuracy:.3f}",
        f"{row.low:.3f} - {row.high:.3f}",
        "" if row.base_at_tokens is None else f"{row.base_at_tokens:.3f}",
    )


def _table(rows: Sequence[FrontierRow]) -> str:
    head = "".join(f"<th>{html.escape(name)}" for name in HEADINGS)
    body = "".join(f"<tr>{''.join(f'<td>{cell}' for cell in cells(row))}" for row in rows)
    return f"<table><tr>{head}{body}</table>"


def _apart(heights: Sequence[float]) -> list[float]:
    """Heights for labels at least a line apart, placed from the bottom up."""
    placed: dict[int, float] = {}
    last = -math.inf
    for i in sorted(range(len(heights)), key=heights.__getitem__):
        last = max(heights[i], last + LINE_HEIGHT)
        placed[i] = last
    return [placed[i] for i in range(len(heights))]
