"""Curves and pages that open without a network."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go

FIRST = ("loss", "reward", "rewards/accuracies", "rewards/margins", "displacement/chosen_per_token",
         "logps/chosen", "logps/rejected", "kl", "entropy", "completions/mean_length",
         "frac_reward_zero_std", "grad_norm", "learning_rate")  # fmt: skip
"""Curves in the order a reader wants them; others follow by name."""

HIDDEN = frozenset({"step", "epoch", "step_time", "sampling_time", "alarms"})


def curves(rows: Sequence[Mapping[str, Any]]) -> go.Figure:
    """One small panel per metric over the optimizer steps, held-out values beside trained ones."""
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
    height = 230 * max(1, math.ceil(len(ordered) / columns))
    figure.update_layout(template="plotly_white", height=height, margin={"t": 40, "b": 20})
    return figure


def html_of(figure: go.Figure, *, library: bool) -> str:
    """A figure as an HTML part; the first one of a page brings the library along."""
    config = {"displayModeBar": False, "responsive": True}
    part: str = figure.to_html(full_html=False, include_plotlyjs=library, config=config)
    return part


def page(title: str, parts: Sequence[str], style: str = "") -> str:
    """A plain page around trusted HTML parts; `style` is more of its style sheet."""
    plain = (
        "body{font:15px/1.5 system-ui,sans-serif;max-width:1200px;margin:24px auto;padding:0 16px;"
        "color:#1f2328}table{border-collapse:collapse}td,th{padding:4px 14px;text-align:right;"
        "border-bottom:1px solid #d0d7de}td:first-child,th:first-child{text-align:left}"
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
        f"<style>{plain}{style}</style><body><h1>{html.escape(title)}</h1>{''.join(parts)}</body></html>"
    )
