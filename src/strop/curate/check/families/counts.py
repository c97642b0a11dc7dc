"""How much there is: rows, prompts, duplicates, labels, unusable rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.curate.check.finding import Finding, Section, Severity, finding, graded
from strop.curate.check.ledger import Ledger, asks, column, prompt_of
from strop.curate.check.survey import Survey, share
from strop.data.duplicates import first_alike, words

REPEATED = 0.01
"""Share of rows from which repetitions are worth a warning."""
MANY_ROWS = {"preference": 2.0, "feedback": 3.0, "demonstration": 2.0, "task": 2.0}
"""Rows a prompt from which the number of rows says little of the size of the data."""
NOT_SHORT = 50
"""Characters from which an answer is nobody's but its own prompt's."""
NO_CHANCE = 10
"""Prompts with one answer that are no coincidence."""
LIKED = (0.2, 0.8)
"""Share of liked answers within which kto needs no weights. Ethayarajh et al. 2024 (arXiv
2402.01306, equation 9) want the weighted numbers within 1 to 4/3 of each other."""

Rows = NDArray[np.intp]


def usable(survey: Survey, max_bad: float) -> Section:
    """Rows that are no records, above `max_bad` an error."""
    kinds: Counter[str] = sum((sieve.dropped.kinds for sieve in survey.sieves), Counter())
    shown = [
        bad for sieve in survey.sieves for rows in sieve.dropped.first.values() for bad in rows
    ]
    figures = {
        "rows": survey.rows,
        "unusable": survey.bad,
        "kinds": dict(kinds.most_common()),
        "first": [f"{bad.origin}: {bad.kind}: {bad.reason}" for bad in shown],
    }
    if not survey.bad:
        return Section("rows", figures)
    over = survey.bad > max_bad * survey.rows
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    text = f"{survey.bad} of {survey.rows} rows cannot be used ({counted})"
    text += f", more than max_bad allows ({max_bad:.1%})" if over else ""
    places = [bad.origin for bad in shown]
    bad = finding("unusable_rows", "error" if over else "warn", text, survey.bad, places)
    return Section("rows", figures, (bad,))


def prompts(survey: Survey) -> Section:
    """Kinds, unique prompts, rows a prompt, near-copies of prompts."""
    ledger, kinds = survey.ledger, survey.kinds
    per_prompt = np.unique(column(ledger.prompts), return_counts=True)[1]
    counts = Counter(per_prompt.tolist())
    near, looked_at, places = _near_prompts(survey)
    figures: dict[str, Any] = {
        "kinds": dict(kinds.most_common()),
        "unique_prompts": len(per_prompt),
        "rows_a_prompt": share(len(ledger), len(per_prompt)),
        "most_rows_a_prompt": int(per_prompt.max()) if len(per_prompt) else 0,
        "prompts_by_rows": {str(n): counts[n] for n in sorted(counts)[:20]},
        "near_duplicate_prompts": near,
        "prompts_compared": looked_at,
    }
    return Section("prompts", figures, tuple(_of_prompts(survey, figures, places)))


def _of_prompts(survey: Survey, figures: dict[str, Any], places: Sequence[Any]) -> list[Finding]:
    found = []
    main, most = survey.kinds.most_common(1)[0] if survey.kinds else ("", 0)
    others = len(survey.ledger) - most
    if others:
        said = ", ".join(f"{count} {kind}" for kind, count in survey.kinds.most_common())
        stray = (
            row for kind in survey.kinds if kind != main for row in survey.ledger.of_kind(kind)
        )
        found.append(finding("mixed_kinds", "warn", f"records of several kinds: {said}", others,
                             survey.ledger.origins(sorted(stray)[:5])))  # fmt: skip
    ratio = figures["rows_a_prompt"]
    if ratio >= MANY_ROWS.get(main, 2.0):
        text = (
            f"{len(survey.ledger):,} rows have {figures['unique_prompts']:,} different prompts, "
            f"{ratio:.1f} rows a prompt"
        )
        found.append(finding("repeated_prompts", "info", text, len(survey.ledger)))
    near, looked_at = figures["near_duplicate_prompts"], figures["prompts_compared"]
    if near:
        text = f"{near:,} of {looked_at:,} different prompts nearly repeat an earlier one"
        severity = graded(near / looked_at, REPEATED)
        found.append(finding("near_duplicate_prompts", severity, text, near, places))
    return found


def near_copies(texts: Sequence[str]) -> list[int]:
    """For each text the index of the first that it nearly repeats; its own where it is new."""
    return first_alike([words(text) for text in texts])


def _near_prompts(survey: Survey) -> tuple[int, int, list[Any]]:
    """Near-copies among the different prompts of the sample, how many were compared, where."""
    different: dict[str, Any] = {}
    for record in survey.sample.records():
        different.setdefault(asks(prompt_of(record)), record.origin)
    origins = list(different.values())
    alike = near_copies(list(different))
    repeats = [place for place, first in enumerate(alike) if place != first]
    return len(repeats), len(different), [origins[place] for place in repeats[:5]]


def duplicates(survey: Survey) -> Section:
    """Rows that stand twice, and one answer under many prompts."""
    ledger = survey.ledger
    fields = (ledger.fixed, ledger.second, ledger.first, ledger.prompts)
    repeated = _repeats(*(column(one) for one in fields))
    answer = _commonest_answer(ledger)
    figures = {"duplicate_rows": len(repeated), "most_repeated_answer": answer}
    found = []
    if len(repeated):
        part = len(repeated) / len(ledger)
        text = f"{len(repeated):,} rows ({part:.1%}) repeat another row"
        places = ledger.origins(repeated[:5].tolist())
        found.append(finding("duplicate_rows", graded(part, REPEATED), text, len(repeated), places))
    few = max(NO_CHANCE, REPEATED * len(ledger))
    if answer["characters"] >= NOT_SHORT and answer["prompts"] >= few:
        part = answer["rows"] / len(ledger)
        text = (
            f"one answer of {answer['characters']:,} characters stands under "
            f"{answer['prompts']:,} different prompts ({answer['rows']:,} rows, {part:.1%})"
        )
        found.append(finding("repeated_answer", "warn", text, answer["rows"], answer.pop("places")))
    answer.pop("places", None)
    return Section("duplicates", figures, tuple(found))


def _repeats(*columns: NDArray[Any]) -> Rows:
    """Rows that equal an earlier one in all columns, in order."""
    if not len(columns[0]):
        return np.zeros(0, np.intp)
    order = np.lexsort(columns)
    same = np.ones(len(order) - 1, bool)
    for values in columns:
        same &= values[order[1:]] == values[order[:-1]]
    # lexsort is stable, so of equal rows the earliest comes first
    return np.sort(order[1:][same])


def _commonest_answer(ledger: Ledger) -> dict[str, Any]:
    """The answer that stands under most different prompts: `{"prompts": 805, "rows": 805, ...}`."""
    prompt = np.concatenate([column(ledger.prompts)] * 2)
    answer = np.concatenate([column(ledger.first), column(ledger.second)])
    length = np.concatenate([column(ledger.first_lengths), column(ledger.second_lengths)])
    held = np.flatnonzero(answer)
    if not len(held):
        return {"prompts": 0, "rows": 0, "characters": 0, "different": 0}
    both = np.unique(np.stack([answer[held], prompt[held]]), axis=1)
    different, under = np.unique(both[0], return_counts=True)
    commonest = different[under.argmax()]
    rows = held[answer[held] == commonest]
    return {
        "prompts": int(under.max()),
        "rows": len(rows),
        "characters": int(length[rows[0]]),
        "different": len(different),
        "places": list(ledger.origins(sorted(rows[:5] % len(ledger)))),
    }


def labels(survey: Survey) -> Section:
    """The share of liked answers, where rows have thumbs."""
    ledger = survey.ledger
    rows = ledger.of_kind("feedback")
    if not len(rows):
        return Section("labels", {})
    liked = column(ledger.labels)[rows] == 1
    part = float(liked.mean())
    figures = {"liked": int(liked.sum()), "disliked": int((~liked).sum()), "share_liked": part}
    few = rows[~liked] if part > 0.5 else rows[liked]
    text = f"{part:.1%} of {len(rows):,} answers are liked"
    code, severity = _balance(part)
    places = ledger.origins(few[:5].tolist())
    if code is None:
        return Section("labels", figures)
    return Section("labels", figures, (finding(code, severity, text, len(few), places),))


def _balance(part: float) -> tuple[str | None, Severity]:
    if part in (0.0, 1.0):
        return "one_label", "error"
    return ("label_balance", "warn") if not LIKED[0] <= part <= LIKED[1] else (None, "info")
