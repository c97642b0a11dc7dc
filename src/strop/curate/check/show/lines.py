"""A report for a terminal, within 100 columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from textwrap import wrap
from typing import Any

from rich.text import Text

from strop.curate.check.families.rendering import Preview, Segment
from strop.curate.check.finding import Finding
from strop.curate.check.run import Report

WIDTH = 100
SHOWN_STYLES = 5
"""Ways of writing that are shown: those that tell the most."""
COLOURS = {"error": "bold red", "warn": "yellow", "info": "cyan"}
LEARNT = "black on green"
PREVIEWED = 600
"""Characters of a stretch that a preview shows."""

Figures = Mapping[str, Any]


def finding_lines(report: Report) -> Iterator[Text]:
    """Every finding with whom it concerns and what helps, the worst first."""
    found = report.findings
    if not found:
        yield Text("no findings", style="green")
    for one in found:
        yield from _finding(one)


def figure_lines(report: Report) -> Iterator[Text]:
    """The figures of every section under its name."""
    yield Text(", ".join(report.files))
    for name, section in report.sections.items():
        if section.figures:
            for number, line in enumerate(FIGURES[name](section.figures)):
                yield _row("" if number else name, line)


def _row(name: str, line: str) -> Text:
    first, *more = wrap(line, WIDTH - 14, drop_whitespace=False) or [""]
    return Text("\n".join([f"  {name:<11} {first}", *(f"{'':<16}{part.strip()}" for part in more)]))


def _finding(one: Finding) -> Iterator[Text]:
    head = Text.assemble((f"{one.severity.upper():<5} ", COLOURS[one.severity]), (one.code, "bold"))
    yield head
    for line in wrap(one.said, WIDTH - 6):
        yield Text(f"      {line}")
    for title, said in (("suffers", one.methods), ("fix", one.fix)):
        yield from _titled(title, said)
    if one.examples:
        yield from _titled("see", ", ".join(map(str, one.examples)))


def _titled(title: str, said: str) -> Iterator[Text]:
    first, *more = wrap(said, WIDTH - 16, break_on_hyphens=False) or [""]
    yield Text(f"      {title + ':':<9} {first}", style="dim" if title == "see" else "")
    for line in more:
        yield Text(f"{'':<16}{line}")


def _rows(of: Figures) -> Iterator[str]:
    yield f"{of['rows']:,} rows, {of['unusable']:,} unusable"
    for kind, count in list(of["kinds"].items())[:5]:
        yield f"  {count:,} {kind}"
    yield from (f"    {line}" for line in of["first"][:5])


def _prompts(of: Figures) -> Iterator[str]:
    yield ", ".join(f"{count:,} {kind}" for kind, count in of["kinds"].items()) or "no records"
    yield (
        f"{of['unique_prompts']:,} different, {of['rows_a_prompt']:.1f} rows a prompt (at most "
        f"{of['most_rows_a_prompt']:,}), {of['near_duplicate_prompts']:,} near-copies"
    )


def _sizes(of: Figures) -> Iterator[str]:
    at = ["max" if share == 1 else f"{share:.0%}" for share in of["quantiles"]]
    yield f"{'':<20}" + "".join(f"{name:>9}" for name in at)
    for what in ("prompt", "answer"):
        for unit, values in of[what].items():
            if values:
                yield f"{what + ' ' + unit:<20}" + "".join(f"{value:>9,}" for value in values)


def _duplicates(of: Figures) -> Iterator[str]:
    answer = of["most_repeated_answer"]
    yield f"{of['duplicate_rows']:,} rows repeat another one"
    if answer["rows"]:
        yield (
            f"{answer['different']:,} different answers; the commonest stands under "
            f"{answer['prompts']:,} prompts ({answer['rows']:,} rows)"
        )


def _labels(of: Figures) -> Iterator[str]:
    yield f"{of['liked']:,} liked, {of['disliked']:,} disliked ({of['share_liked']:.1%} liked)"


def _length(of: Figures) -> Iterator[str]:
    names = {"preference": ("chosen", "rejected"), "feedback": ("liked", "disliked")}
    for kind, one in of.items():
        liked, disliked = names[kind]
        yield (
            f"medians: {liked} {one['median_liked']:,.0f} characters, {disliked} "
            f"{one['median_disliked']:,.0f}"
        )
        yield f"AUC of length alone {_auc(one['auc'])}"


def _style(of: Figures) -> Iterator[str]:
    telling = sorted(of["features"].items(), key=lambda one: -abs(one[1]["auc"] - 0.5))
    yield f"each way of writing alone as a sign of the better answer, {of['compared']:,} {of['of']}"
    for name, one in telling[:SHOWN_STYLES]:
        yield f"  {name:<22} AUC {_auc(one)}, differs in {one['differ']:.0%}"


def _auc(one: Figures) -> str:
    if one["low"] is None:
        return f"{one['auc']:.3f} (too few prompts)"
    return f"{one['auc']:.3f} ({one['low']:.3f} to {one['high']:.3f})"


def _likeness(of: Figures) -> Iterator[str]:
    median = of["distance_quantiles"][2]
    yield (
        f"{of['near_identical']:,} of {of['compared']:,} pairs are nearly identical; median edit "
        f"distance {median:.2f}"
    )


def _ches(of: Figures) -> Iterator[str]:
    if of["pairs"]:
        low, _, middle, _, high = of["quantiles"]
        yield (
            f"CHES of {of['pairs']:,} pairs: median {middle:.3g} (5 % {low:.3g}, 95 % {high:.3g}), "
            f"{of['at_or_above_0']:,} at or above 0"
        )


def _conflicts(of: Figures) -> Iterator[str]:
    if "contradictory_rows" in of:
        yield (
            f"{of['contradictory_rows']:,} rows contradict another one (at least "
            f"{of['least_wrong_rows']:,} are wrong), {of['cyclic_prompts']:,} prompts in a circle"
        )
    if "liked_and_disliked_rows" in of:
        yield f"{of['liked_and_disliked_rows']:,} rows like and dislike one answer"


def _annotators(of: Figures) -> Iterator[str]:
    for names, one in list(of["pairs"].items())[:6]:
        yield (
            f"{names}: agree on {one['agreement']:.1%} of {one['items']:,} items, kappa "
            f"{one['kappa']:.3f}"
        )
    fleiss, alpha = of["fleiss_kappa"], of["krippendorff_alpha"]
    told = [] if fleiss is None else [f"Fleiss' kappa {fleiss:.3f}"]
    told += [] if alpha is None else [f"Krippendorff's alpha {alpha:.3f} ({of['scale']})"]
    yield ", ".join(told) or "no item has two labels"
    if of["label_noise"] is not None:
        majority = of["majority_noise"]
        more = "" if majority is None else f", {majority:.1%} of majorities"
        yield f"about {of['label_noise']:.1%} of single labels are wrong{more}"


def _safety(of: Figures) -> Iterator[str]:
    yield (
        f"{of['share']:.1%} of {of['rows']:,} rows: {of['harmful_prompts']:,} harmful-looking "
        f"prompts, {of['refusals']:,} refusals to learn"
    )


def _turns(of: Figures) -> Iterator[str]:
    if of["turns"]:
        counted = list(of["turns"].items())[:8]
        yield "rows by their turns: " + ", ".join(f"{n}: {count:,}" for n, count in counted)
    for fault, count in of["faults"].items():
        yield f"  {count:,} rows: {fault}"


def _tokens(of: Figures) -> Iterator[str]:
    yield (
        f"{of['rendered']:,} rows rendered, {of['unrenderable']:,} cannot be; "
        f"{of['learnt_share']:.0%} of the tokens are learnt"
    )
    if of.get("length_quantiles"):
        low, _, middle, _, high, most = of["length_quantiles"]
        yield (
            f"tokens a row: {low:,} (5 %), {middle:,} (median), {high:,} (95 %), {most:,} (max); "
            f"{of['over_length']:,} over {of['max_length']:,}"
        )


def _leak(of: Figures) -> Iterator[str]:
    yield f"{of['leaked']:,} of {of['eval_items']:,} eval items stand in this data"


FIGURES: Mapping[str, Callable[[Figures], Iterator[str]]] = {
    "rows": _rows,
    "prompts": _prompts,
    "sizes": _sizes,
    "duplicates": _duplicates,
    "labels": _labels,
    "length": _length,
    "style": _style,
    "likeness": _likeness,
    "ches": _ches,
    "conflicts": _conflicts,
    "annotators": _annotators,
    "safety": _safety,
    "turns": _turns,
    "tokens": _tokens,
    "leak": _leak,
}
"""How the figures of each section are said."""


def preview_lines(preview: Preview, *, colours: bool) -> Iterator[Text]:
    """A row as training reads it: what is learnt stands on green, or between << and >> where there
    are no colours."""
    yield Text(f"{preview.origin}: what is learnt of it", style="bold")
    yield _painted((preview.prompt,), colours)
    for number, answer in enumerate(preview.answers, start=1):
        counted = sum(one.tokens for one in answer if one.learnt)
        yield Text(f"  answer {number}: {counted:,} tokens are learnt", style="dim")
        yield _painted(answer, colours)


def _painted(segments: tuple[Segment, ...], colours: bool) -> Text:
    painted = Text("  ")
    for one in segments:
        said = one.text if len(one.text) <= PREVIEWED else f"{one.text[:PREVIEWED]} ..."
        said = said.replace("\n", "\n  ")
        if one.learnt:
            painted.append(said if colours else f"<<{said}>>", style=LEARNT)
        else:
            painted.append(said)
    return painted
