"""How the records become tokens: what is learnt, what is too long, what no template can render."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from strop.curate.check.finding import EXAMPLES, Finding, Section, Severity, finding
from strop.curate.check.survey import quantiles, share
from strop.data.bad_rows import MAX_BAD
from strop.errors import StropError, TextError
from strop.text.encode import Encoder
from strop.text.masked import masked
from strop.text.parse import decode
from strop.text.render import scripts_in_time, tried
from strop.text.script import Script, asked_of
from strop.types import Branch, Document, Origin, Record, Tree

AT_ONCE = 1024
"""Records that are rendered together."""
MOST_FAULTS = 1_000
"""Rows that a template cannot render, after which rendering more would tell nothing new."""
FIRST, EVERY = 2_000, 20
"""Rows at the beginning that are tokenised, and the step at which rows are after them."""
SPECIAL = 16
"""Tokens that a tokenizer may put around texts, at most."""
OVER_LENGTH = 0.01
"""Share of rows over the limit from which it is worth a warning."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Text of one stretch of tokens: `Segment("x = 3<|end|>", tokens=5, learnt=True)`."""

    text: str
    tokens: int
    learnt: bool


@dataclass(frozen=True, slots=True)
class Preview:
    """One row as training reads it: the prompt, then a list of segments for every answer."""

    origin: Origin
    prompt: Segment
    answers: tuple[tuple[Segment, ...], ...]


@dataclass(slots=True)
class Rendering:
    """Writes every record down as training does, and keeps counts.

    `watch` takes the records as they pass, `finish` the last of them. Every record meets the
    template; tokenised are the first 2,000, every twentieth after them, and all that may be over
    the limit: a text has no more tokens than bytes, so a short one fits. `real_tokens` says whether
    the tokenizer is that of a model: only then do lengths in tokens mean anything.
    """

    tokenizer: Any
    max_length: int
    real_tokens: bool = True
    previewed: int = 3
    rows: int = 0
    lengths: array[int] = field(default_factory=lambda: array("I"))
    long_rows: int = 0
    tokens: int = 0
    learnt: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[Origin]] = field(default_factory=dict)
    previews: list[Preview] = field(default_factory=list)
    _waiting: list[Record] = field(default_factory=list)

    def watch(self, record: Record) -> None:
        self._waiting.append(record)
        if len(self._waiting) >= AT_ONCE:
            self.finish()

    def finish(self) -> None:
        """Render the records that wait; what cannot be rendered is counted."""
        waiting, self._waiting = self._waiting, []
        drawn: list[Record] = []
        others: list[Record] = []
        for record in waiting:
            self.rows += 1
            is_drawn = self.rows <= FIRST or self.rows % EVERY == 0
            (drawn if is_drawn else others).append(record)
        self._tokenise(drawn, drawn=True)
        self._tokenise(self._long(others), drawn=False)

    def _long(self, records: Sequence[Record]) -> list[Record]:
        """Those that may be over the limit, by their bytes; template faults are counted."""
        long: list[Record] = []
        while records and self.faults.total() < MOST_FAULTS:
            scripts = scripts_in_time(Encoder(self.tokenizer), list(map(asked_of, records)))
            for record, script in zip(records, scripts, strict=False):
                if self.faults.total() >= MOST_FAULTS:
                    break
                if isinstance(script.fault, TextError):
                    self._fault(record, script.fault)
                elif script.fault is not None:
                    raise script.fault
                elif _is_unsure(script, self.max_length if self.real_tokens else None):
                    long.append(record)
            records = records[len(scripts) :]
        return long

    def _tokenise(self, records: Sequence[Record], *, drawn: bool) -> None:
        for record, tree in zip(
            records, tried(self.tokenizer, map(asked_of, records)), strict=True
        ):
            if self.faults.total() >= MOST_FAULTS:
                return
            if isinstance(tree, TextError):
                self._fault(record, tree)
            elif isinstance(tree, StropError):
                raise tree
            else:
                self._measure(record, tree, drawn=drawn)

    def _fault(self, record: Record, error: TextError) -> None:
        self.faults[error.problem] += 1
        self._place("unrenderable", record.origin)

    def _measure(self, record: Record, tree: Tree, *, drawn: bool) -> None:
        length = len(tree.trunk) + max((len(branch.ids) for branch in tree.branches), default=0)
        if drawn:
            self._draw(record, tree, length)
        if length > self.max_length and not isinstance(record, Document):
            self.long_rows += 1
            self._place("over_length", record.origin)

    def _draw(self, record: Record, tree: Tree, length: int) -> None:
        """What is told of an even draw alone."""
        self.lengths.append(length)
        self.tokens += len(tree)
        self.learnt += sum(sum(branch.supervised) for branch in tree.branches)
        if len(self.previews) < self.previewed:
            self.previews.append(self._preview(record, tree))

    def _place(self, code: str, origin: Origin) -> None:
        kept = self.places.setdefault(code, [])
        if len(kept) < EXAMPLES:
            kept.append(origin)

    def _preview(self, record: Record, tree: Tree) -> Preview:
        trunk = Segment(self._said(tree.trunk), len(tree.trunk), isinstance(record, Document))
        return Preview(record.origin, trunk, tuple(map(self._segments, tree.branches)))

    def _segments(self, branch: Branch) -> tuple[Segment, ...]:
        runs = groupby(zip(branch.ids, branch.supervised, strict=True), key=lambda one: one[1])
        found = []
        for learnt, run in runs:
            ids = tuple(token for token, _ in run)
            found.append(Segment(self._said(ids), len(ids), learnt))
        return tuple(found)

    def _said(self, ids: tuple[int, ...]) -> str:
        return masked(decode(self.tokenizer, ids, special=True))


def _is_unsure(script: Script, max_length: int | None) -> bool:
    """Whether prompt and longest answer have more bytes than tokens are allowed, or half of a
    surrogate pair, which no tokenizer takes."""
    contexts = [script.prompt, *(one.context for one in script.answers)]
    answers = ["".join(turn.text for turn in one.turns) for one in script.answers]
    try:
        asked = max(len(text.encode()) for text in contexts)
        most = asked + max((len(text.encode()) for text in answers), default=0) + SPECIAL
    except UnicodeEncodeError:
        return True
    return max_length is not None and most > max_length


def rendered(rendering: Rendering | None) -> Section:
    """Lengths in tokens, rows over the limit, the share that is learnt, template faults."""
    if rendering is None:
        return Section("tokens", {})
    rows = rendering.rows
    figures: dict[str, Any] = {
        "rows": rows,
        "tokenised": len(rendering.lengths),
        "unrenderable": rendering.faults.total(),
        "faults": {masked(said): n for said, n in rendering.faults.most_common(10)},
        "learnt_share": share(rendering.learnt, rendering.tokens),
    }
    if rendering.real_tokens:
        figures |= {
            "max_length": rendering.max_length,
            "over_length": rendering.long_rows,
            "length_quantiles": quantiles(rendering.lengths, (0.05, 0.25, 0.5, 0.75, 0.95, 1.0)),
        }
    return Section("tokens", figures, tuple(_of_rendering(rendering, rows)))


def _of_rendering(rendering: Rendering, rows: int) -> list[Finding]:
    found = []
    faults = rendering.faults.total()
    if faults:
        first = masked(rendering.faults.most_common(1)[0][0])
        text = f"{faults:,} rows cannot be rendered, most often: {first}"
        if faults >= MOST_FAULTS:
            text += f" (stopped looking after {faults:,})"
        severity: Severity = "error" if share(faults, rows) > MAX_BAD else "warn"
        found.append(
            finding("unrenderable", severity, text, faults, rendering.places["unrenderable"])
        )
    if rendering.long_rows and rendering.real_tokens:
        part = share(rendering.long_rows, rows)
        text = (
            f"{rendering.long_rows:,} rows ({part:.1%}) are longer than {rendering.max_length:,} "
            "tokens"
        )
        severity = "error" if part == 1 else "warn" if part >= OVER_LENGTH else "info"
        places = rendering.places["over_length"]
        found.append(finding("over_length", severity, text, rendering.long_rows, places))
    return found
