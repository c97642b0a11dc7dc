"""A run's curves as one HTML file that opens without a network."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strop.files import write_whole
from strop.tracking.runlog import read_rows

if TYPE_CHECKING:
    import plotly.graph_objects as go

FIRST = ("loss", "reward", "rewards/accuracies", "rewards/margins", "displacement/chosen_per_token",
         "logps/chosen", "logps/rejected", "kl", "entropy", "completions/mean_length",
         "frac_reward_zero_std", "grad_norm", "learning_rate")  # fmt: skip
"""Curves in the order a reader wants them; others follow by name."""

HIDDEN = frozenset({"step", "epoch", "step_time", "sampling_time", "alarms"})


def write_report(folder: Path) -> Path:
    """`report.html` of a run directory, from its `metrics.jsonl`, and from `lineage.json` where it
    was resumed."""
    rows = list(read_rows(folder / "metrics.jsonl"))
    resumed = resumed_at(folder)
    parts = [html_of(curves(rows, resumed), library=True)]
    if resumed:
        steps = ", ".join(str(step) for step in resumed)
        parts.insert(0, f"<p>Resumed after step {steps} (dashed lines).</p>")
    path = folder / "report.html"
    write_whole(path, page(f"Run {folder.name}", parts))
    return path


def resumed_at(folder: Path) -> list[int]:
    """The steps after which a run was stopped and resumed, in order, each once."""
    lineage = folder / "lineage.json"
    if not lineage.exists():
        return []
    noted = json.loads(lineage.read_text(encoding="utf-8")).get("resumed", [])
    return sorted({int(one["step"]) for one in noted})


def curves(rows: Sequence[Mapping[str, Any]], resumed: Sequence[int] = ()) -> go.Figure:
    """One small panel per metric over the optimizer steps, held-out values beside trained ones; a
    dashed line after each step from which the run was resumed."""
    import plotly.graph_objects as go  # here alone, for the sake of start-up
    from plotly.subplots import make_subplots

    names = {name for row in rows for name in row if not name.startswith("eval_")} - HIDDEN
    ordered = [name for name in FIRST if name in names] + sorted(names - set(FIRST))
    columns = 3
    figure = make_subplots(
        rows=max(1, math.ceil(len(ordered) / columns)), cols=columns, subplot_titles=ordered
    )
    for number, name in enumerate(ordered):
        place = {"row": number // columns + 1, "col": number % columns + 1}
        for series, colour in ((name, "#1f6feb"), (f"eval_{name}", "#d1242f")):
            points = [(row["step"], row[series]) for row in rows if row.get(series) is not None]
            if points:
                x, y = zip(*points, strict=True)
                mode = "lines" if len(points) > 1 else "markers"
                line = {"color": colour}
                figure.add_trace(
                    go.Scatter(x=x, y=y, name=series, mode=mode, line=line, showlegend=False),
                    **place,
                )
    if ordered:  # plotly draws lines into panels that hold something
        for step in resumed:
            figure.add_vline(x=step + 0.5, line={"dash": "dash", "color": "#8c959f", "width": 1})
    height = 230 * max(1, math.ceil(len(ordered) / columns))
    figure.update_layout(template="plotly_white", height=height, margin={"t": 40, "b": 20})
    return figure


def html_of(figure: go.Figure, *, library: bool) -> str:
    """A figure as an HTML part; the first one of a page brings the library along."""
    config = {"displayModeBar": False, "responsive": True}
    part: str = figure.to_html(full_html=False, include_plotlyjs=library, config=config)
    return part


def page(title: str, parts: Sequence[str]) -> str:
    """A plain page around trusted HTML parts."""
    style = (
        "body{font:15px/1.5 system-ui,sans-serif;max-width:1200px;margin:24px auto;padding:0 16px;"
        "color:#1f2328}table{border-collapse:collapse}td,th{padding:4px 14px;text-align:right;"
        "border-bottom:1px solid #d0d7de}td:first-child,th:first-child{text-align:left}"
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
        f"<style>{style}</style><body><h1>{html.escape(title)}</h1>{''.join(parts)}</body></html>"
    )
