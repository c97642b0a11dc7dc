"""A judge card as a page to look at."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from strop.files import write_json, write_whole
from strop.judge.trust.calibration import Reliability
from strop.judge.trust.card import JudgeCard
from strop.stats.share import Share
from strop.tracking.report import html_of, page

UNITS = {"length": " for {:.0f} characters", "formatting": " for {:.1f} marks", "own family": ""}


def write_card(card: JudgeCard, path: Path) -> Path:
    """The card as JSON in `path`, and the page beside it; returns the page's path."""
    write_json(path, card.plain())
    shown = path.with_suffix(".html")
    parts = [f"<p>{html.escape(card.sentence)}</p>", _table(_rows(card))]
    if card.reliability is not None:
        parts.append(f"<h2>Confidence</h2>{html_of(_curve(card.reliability), library=True)}")
    told = html.escape(
        json.dumps({"judge": card.judge, "form": card.form, "anchors": card.anchors}, indent=1)
    )
    parts.append(f"<h2>Of what</h2><pre>{told}</pre>")
    write_whole(shown, page("Judge card", parts))
    return shown


def _rows(card: JudgeCard) -> list[tuple[str, str]]:
    rows = [
        ("right, of pairs that people decided", shown_share(card.right)),
        ("finds a win of the first answer", shown_share(card.rates.sensitivity)),
        ("finds a win of the second answer", shown_share(card.rates.specificity)),
        ("agrees with people, ties included", shown_share(card.agreement.observed)),
        ("kappa with people", shown_share(card.agreement.kappa)),
        ("pairs without a verdict", f"{card.missing:.3f}"),
    ]
    if card.position is not None:
        rows.append(("same verdict in both orders", shown_share(card.position.consistency)))
        rows.append(("verdicts for the place shown first", shown_share(card.position.first)))
    if card.ceiling is not None:
        rows.insert(5, ("people agree with one another", shown_share(card.ceiling.observed)))
        rows.insert(6, ("kappa of people", shown_share(card.ceiling.kappa)))
    for name, one in card.sways.items():
        size = f"{one.estimate:+.2f} ({one.low:+.2f} to {one.high:+.2f})"
        rows.append((f"sway of {name}, log-odds{UNITS[name].format(one.unit)}", size))
    if card.self_preference is not None:
        kin = card.self_preference
        rows.append(("finds wins of its own family more often than others'",
                     f"{kin.difference:+.2f} ({kin.low:+.2f} to {kin.high:+.2f})"))  # fmt: skip
    if card.threshold is not None:
        limit = card.threshold
        kept = f"{limit.confidence:.2f}, which keeps {limit.kept:.0%} of verdicts"
        rows.append((f"confidence for {limit.at_least:.0%} agreement", kept))
    return rows


def shown_share(value: Share) -> str:
    return f"{value.mean:.3f} ({value.low:.3f} to {value.high:.3f})"


def _table(rows: list[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><td>{html.escape(k)}<td>{html.escape(v)}</tr>" for k, v in rows)
    return f"<table>{cells}</table>"


def _curve(found: Reliability) -> go.Figure:
    """How often verdicts of a confidence are right, beside the line on which it would be honest."""
    figure = go.Figure()
    figure.add_scatter(x=[0.5, 1], y=[0.5, 1], mode="lines", name="honest",
                       line={"dash": "dot", "color": "#8c959f"})  # fmt: skip
    right: list[Any] = [one.right for one in found.bins]
    figure.add_scatter(
        x=[one.confidence for one in found.bins], y=[share.mean for share in right],
        error_y={"symmetric": False, "array": [share.high - share.mean for share in right],
                 "arrayminus": [share.mean - share.low for share in right]},
        mode="markers+lines", name="this judge",
    )  # fmt: skip
    figure.update_layout(template="plotly_white", height=380, xaxis_title="confidence",
                         yaxis={"title": "right", "range": [0, 1]}, margin={"t": 20})  # fmt: skip
    return figure
