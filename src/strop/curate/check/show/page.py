"""A report as one HTML file that opens without a network."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from strop.curate.check.families.rendering import Preview, Segment
from strop.curate.check.finding import Finding
from strop.curate.check.run import Report
from strop.curate.check.show.lines import FIGURES
from strop.tracking.report import html_of, page

if TYPE_CHECKING:
    import plotly.graph_objects as go

COLOURS = {"error": "#d1242f", "warn": "#bf8700", "info": "#0969da"}
LIKED, DISLIKED = "#1f6feb", "#8c959f"
STYLE = (
    "<style>.finding{border-left:6px solid;margin:14px 0;padding:2px 14px}.finding p{margin:4px 0}"
    "code,.preview,.figures{font:13px/1.5 ui-monospace,monospace}.preview{white-space:pre-wrap;"
    "border:1px solid #d0d7de;padding:8px;overflow-wrap:anywhere}mark{background:#aceebb}"
    ".figures{white-space:pre-wrap}td.left{text-align:left}</style>"
)
SAID = 4_000
"""Characters of a stretch that a preview shows."""

Figures = Mapping[str, Any]


def report_page(report: Report) -> str:
    """Findings first, then the figures of every section with its plot, then what is learnt."""
    parts = [STYLE, f"<p>{html.escape(', '.join(report.files))}</p>", _summary(report)]
    parts += [_finding(one) for one in report.findings]
    library = True
    for name, section in report.sections.items():
        if not section.figures:
            continue
        lines = "\n".join(FIGURES[name](section.figures))
        parts.append(f"<h2>{html.escape(name)}</h2><p class=figures>{html.escape(lines)}</p>")
        figure = PLOTS[name](section.figures) if name in PLOTS else None
        if figure is not None:
            parts.append(html_of(figure, library=library))
            library = False
    if report.previews:
        parts.append("<h2>what is learnt</h2><p>Marked text is learnt; the rest is read.</p>")
        parts += [_preview(one) for one in report.previews]
    return page("Data check", parts)


def _summary(report: Report) -> str:
    found = report.findings
    if not found:
        return "<p>No findings.</p>"
    rows = "".join(
        f"<tr><td><b style='color:{COLOURS[one.severity]}'>{one.severity}</b>"
        f"<td class=left><code>{one.code}</code><td>{one.count:,}</tr>"
        for one in found
    )
    heading = "<tr><th>severity<th style='text-align:left'>code<th>rows or items</tr>"
    return f"<table>{heading}{rows}</table>"


def _finding(one: Finding) -> str:
    places = ", ".join(map(str, one.examples))
    see = f"<p><i>see</i> <code>{html.escape(places)}</code></p>" if places else ""
    return (
        f"<div class=finding style='border-color:{COLOURS[one.severity]}'>"
        f"<p><b>{one.severity}</b> <code>{one.code}</code></p><p>{html.escape(one.said)}</p>"
        f"<p><i>suffers</i> {html.escape(one.methods)}</p><p><i>fix</i> {html.escape(one.fix)}</p>"
        f"{see}</div>"
    )


def _preview(one: Preview) -> str:
    answers = "".join(
        f"<p>answer {number}</p><div class=preview>{_marked(answer)}</div>"
        for number, answer in enumerate(one.answers, start=1)
    )
    return (
        f"<p><code>{html.escape(str(one.origin))}</code></p>"
        f"<div class=preview>{_marked((one.prompt,))}</div>{answers}"
    )


def _marked(segments: tuple[Segment, ...]) -> str:
    found = []
    for one in segments:
        said = html.escape(one.text if len(one.text) <= SAID else f"{one.text[:SAID]} ...")
        found.append(f"<mark>{said}</mark>" if one.learnt else said)
    return "".join(found)


def _bars(figure: go.Figure, title: str, x: str, y: str, height: int = 320) -> go.Figure:
    return figure.update_layout(
        template="plotly_white", height=height, title=title, xaxis_title=x, yaxis_title=y,
        margin={"t": 50, "b": 50}, bargap=0.08,
    )  # fmt: skip


def prompts_plot(of: Figures) -> go.Figure | None:
    """How many prompts have one row, two, ..."""
    import plotly.graph_objects as go  # here alone, for the sake of start-up

    counted = of["prompts_by_rows"]
    if len(counted) < 2:
        return None
    bar = go.Bar(x=list(counted), y=list(counted.values()), marker_color=LIKED)
    return _bars(go.Figure(bar), "Prompts by their rows", "rows", "prompts")


def length_plot(of: Figures) -> go.Figure | None:
    """Box plots of both sides, from the quantiles of all rows."""
    import plotly.graph_objects as go

    names = {"preference": ("chosen", "rejected"), "feedback": ("liked", "disliked")}
    figure = go.Figure()
    for kind, one in of.items():
        sides = zip(names[kind], ("liked_quantiles", "disliked_quantiles"), strict=True)
        for (name, quantiles), colour in zip(sides, (LIKED, DISLIKED), strict=True):
            low, q1, median, q3, high = ([value] for value in one[quantiles])
            box = {"lowerfence": low, "q1": q1, "median": median, "q3": q3, "upperfence": high}
            drawn = go.Box(y=[name], name=name, marker_color=colour, orientation="h", **box)
            figure.add_trace(drawn)
    title = "Characters of the answers (5, 25, 50, 75 and 95 %)"
    return _bars(figure, title, "characters", "", 240).update_layout(showlegend=False)


def style_plot(of: Figures) -> go.Figure | None:
    """Every way of writing with its area under the curve and the interval, and the bounds."""
    import plotly.graph_objects as go

    known = [(name, one) for name, one in of["features"].items() if one["low"] is not None]
    known.sort(key=lambda pair: pair[1]["auc"])
    if not known:
        return None
    areas = [one["auc"] for _, one in known]
    figure = go.Figure(
        go.Scatter(
            x=areas, y=[name for name, _ in known], mode="markers", marker={"color": LIKED},
            error_x={"type": "data", "symmetric": False,
                     "array": [one["high"] - one["auc"] for _, one in known],
                     "arrayminus": [one["auc"] - one["low"] for _, one in known]},
        )
    )  # fmt: skip
    figure.add_vrect(x0=0.4, x1=0.6, fillcolor="#d0d7de", opacity=0.3, line_width=0)
    figure.add_vline(x=0.5, line_dash="dot", line_color=DISLIKED)
    title = "How well one way of writing alone tells the better answer (95 % intervals)"
    height = 120 + 20 * len(known)
    drawn = _bars(figure, title, "area under the curve", "", height)
    return drawn.update_layout(xaxis_range=[0, 1], margin_l=170)


def likeness_plot(of: Figures) -> go.Figure | None:
    """Edit distances of the pairs."""
    import plotly.graph_objects as go

    counts = of["histogram"]
    middles = [(place + 0.5) / len(counts) for place in range(len(counts))]
    bar = go.Bar(x=middles, y=counts, marker_color=LIKED)
    return _bars(go.Figure(bar), "Edit distance of the two answers", "0: the same text", "pairs")


def annotators_plot(of: Figures) -> go.Figure | None:
    """Cohen's kappa of every two annotators."""
    import plotly.graph_objects as go

    if not of["pairs"]:
        return None
    names, kappas = zip(*((name, one["kappa"]) for name, one in of["pairs"].items()), strict=True)
    bar = go.Bar(x=list(names), y=list(kappas), marker_color=LIKED)
    return _bars(go.Figure(bar), "Cohen's kappa", "annotators", "kappa")


def labels_plot(of: Figures) -> go.Figure | None:
    """Liked and disliked answers."""
    import plotly.graph_objects as go

    bar = go.Bar(x=["liked", "disliked"], y=[of["liked"], of["disliked"]],
                 marker_color=[LIKED, DISLIKED])  # fmt: skip
    return _bars(go.Figure(bar), "Labels", "", "answers", 260)


PLOTS: Mapping[str, Callable[[Figures], go.Figure | None]] = {
    "prompts": prompts_plot,
    "labels": labels_plot,
    "length": length_plot,
    "style": style_plot,
    "likeness": likeness_plot,
    "annotators": annotators_plot,
}
"""The plot of each section that has one; `None` where there is nothing to draw."""
