"""What a check says: findings with a stable code, grouped in sections with their figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from strop.types import Origin

Severity = Literal["info", "warn", "error"]
"""`info`: know it. `warn`: training will suffer. `error`: training on this goes wrong."""

SEVERITIES: tuple[Severity, ...] = ("info", "warn", "error")

EXAMPLES = 5
"""Places that are named for a finding."""


class Known(NamedTuple):
    """Which methods suffer from what a code stands for, and what helps."""

    methods: str
    fix: str


PAIRS = "dpo and its family, reward_model"
CODES: Mapping[str, Known] = {
    "unusable_rows": Known(
        "all", "mend the rows, or let training leave them out (`max_bad` of the source)"
    ),
    "mixed_kinds": Known(
        "all: a method reads one kind and refuses the others",
        "write each kind into a file of its own (strop data build, strop data split)",
    ),
    "duplicate_rows": Known("all: what stands twice is learnt twice", "strop data clean"),
    "near_duplicate_prompts": Known(
        "all, and every split: near-copies end up on both sides",
        "strop data clean, then strop data split (it keeps near-copies together)",
    ),
    "repeated_prompts": Known(
        "every random split: the same prompt ends up in training and evaluation",
        "split by prompt (strop data split); count prompts, not rows, as the size of the data",
    ),
    "repeated_answer": Known(
        "sft and preference methods: one text is learnt for every prompt",
        "look at where the answer comes from (an error page, a template, a default), drop its rows",
    ),
    "one_label": Known("kto, apo_zero_unpaired, bco", "add answers with the other label"),
    "label_balance": Known(
        "kto, apo_zero_unpaired",
        "set desirable_weight and undesirable_weight so that both sides weigh about the same",
    ),
    "length_bias": Known(
        f"{PAIRS}; grpo with such a reward model: the policy learns the length",
        "strop data balance, `length_normalized` or LD-DPO's alpha, or simpo",
    ),
    "style_bias": Known(
        f"{PAIRS}, kto: the policy learns the style and not what it stands for",
        "rewrite or drop pairs that differ in this alone; balance it between both sides",
    ),
    "style_shortcut": Known(
        f"{PAIRS}, kto: where it differs, it nearly always decides",
        "make sure that this is wanted; else add pairs in which it goes the other way",
    ),
    "near_identical_pairs": Known(
        "dpo and its family without an anchor: both likelihoods fall (docs/displacement.md)",
        "an NLL term (objective.nll_weight), dpop, or drop these pairs",
    ),
    "displacement_ches": Known(
        "dpo and its family without an anchor: both likelihoods fall (docs/displacement.md)",
        "drop the pairs with the highest CHES, or use an NLL term or dpop",
    ),
    "contradictory_pairs": Known(
        f"{PAIRS}: such rows cancel out and teach noise",
        "ask again and keep one verdict; or robust_dpo / label_smoothing for the noise",
    ),
    "cyclic_preferences": Known(
        f"{PAIRS}: no reward can order these answers",
        "ask again, or drop the prompt's pairs; ipo and robust_dpo bear such noise better",
    ),
    "contradictory_feedback": Known(
        "kto, apo_zero_unpaired", "keep the majority's label, or drop the answer"
    ),
    "annotator_agreement": Known(
        "every method that learns from these labels",
        "sharpen the guideline, keep the items that annotators agree on, or ask more of them",
    ),
    "label_noise": Known(
        f"{PAIRS}, kto",
        "use the majority's label; set label_smoothing (dpo) or robust_dpo to this share",
    ),
    "safety_share": Known(
        "sft and preference methods: the policy learns to refuse what is harmless, too",
        "draw fewer of these rows (below 10 %), and measure over-refusal with a safety task",
    ),
    "turn_order": Known(
        "all: strict chat templates refuse such rows, others write them as they stand",
        "join turns of one role, put the system turn first, a tool's result behind its call",
    ),
    "unrenderable": Known(
        "all with this template: the rows are left out, or the run is refused",
        "mend the rows, or give the template that the data was written for",
    ),
    "over_length": Known(
        "all: such rows are dropped, or cut (`text.overlong`)",
        "raise text.max_length, or shorten or drop the rows",
    ),
    "eval_leak": Known(
        "every eval on these items: it measures memory", "take the rows out of the training data"
    ),
}
"""Every code that `strop data check` can print; docs/check.md explains each."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`Finding("duplicate_rows", "warn", "12 rows (1.2 %) repeat another one", methods="all: ...",
    fix="strop data clean", count=12, examples=(Origin("pairs.jsonl", 17),))`.

    `count` is how many rows (or items) it concerns; `examples` are the first of their places. Text
    of the data never stands in a finding.
    """

    code: str
    severity: Severity
    said: str
    methods: str
    fix: str
    count: int
    examples: tuple[Origin, ...] = ()

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "code": self.code,
            "severity": self.severity,
            "said": self.said,
            "methods": self.methods,
            "fix": self.fix,
            "count": self.count,
            "examples": [str(place) for place in self.examples],
        }


def finding(
    code: str, severity: Severity, said: str, count: int, examples: Iterable[Origin] = ()
) -> Finding:
    """A finding with what the table of codes says of it."""
    known = CODES[code]
    first = tuple(list(examples)[:EXAMPLES])
    return Finding(code, severity, said, known.methods, known.fix, count, first)


def graded(share: float, warn_at: float) -> Severity:
    """`warn` from a share on, `info` below it."""
    return "warn" if share >= warn_at else "info"


@dataclass(frozen=True, slots=True)
class Section:
    """What one family measured and found: `Section("labels", {"liked": 0.71}, (Finding(...),))`."""

    name: str
    figures: Mapping[str, Any]
    findings: tuple[Finding, ...] = ()
