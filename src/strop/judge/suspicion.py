"""Answers that speak to the judge instead of to the one who asked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from strop.judge.asking.material import TAGS
from strop.stats.share import wilson

TO_THE_JUDGE = re.compile(
    r"\[\[\s*(?:[AB]|tie|ten|10)\s*\]\]"
    r"|^\W*(?:final\s+)?(?:verdict|score|rating|ranking|decision)\s*:"
    r"|(?:ignore|disregard|forget)\s+(?:all\s+|any\s+|the\s+)*(?:above|previous|prior|earlier)"
    r"|^\s*(?:system|judge|evaluator)\s*:"
    r"|^#+\s*(?:model\s+outputs?|instructions?|evaluation|verdict|ranking)\s*$"
    r"|[\"'](?:model_identifier|model|output|rank|winner|score|verdict)[\"']\s*:",
    re.IGNORECASE | re.MULTILINE,
)
"""Fake verdicts, orders to forget what came before, and the headings and fields of judges' own
prompts. A single answer may hold one for a good reason; many do not."""

OFTEN = 0.02
"""Of a fair model's answers, fewer speak to a judge, or say one and the same thing."""
ENOUGH = 20


@dataclass(frozen=True, slots=True)
class Suspicion:
    """`Suspicion(answers=805, prompts=805, same=805, speaking=805)`: of so many answers the
    commonest one was given to `same` prompts, and `speaking` of them speak to a judge."""

    answers: int
    prompts: int
    same: int
    speaking: int

    @property
    def sentences(self) -> list[str]:
        """What is suspicious, for a person; nothing where nothing is."""
        found = []
        if self.prompts >= ENOUGH and wilson(self.same, self.answers).low > OFTEN:
            found.append(
                f"one text answers {self.same} of {self.prompts} different prompts: its wins say "
                "how the judge is fooled"
            )
        if self.answers >= ENOUGH and wilson(self.speaking, self.answers).low > OFTEN:
            found.append(
                f"{self.speaking} of {self.answers} answers speak to the judge (fake verdicts, "
                "orders, parts of a judge's prompt)"
            )
        return found


def suspicion(prompts: Sequence[str], answers: Sequence[str]) -> Suspicion:
    """What the answers of one model look like to who suspects an attack on the judge.

    A constant text that imitates the judge's prompt wins 77 to 87 % on AlpacaEval (Zheng et al.
    2024, arXiv 2410.07137), and length control does not stop it.
    """
    asked = set(zip(prompts, answers, strict=True))  # one prompt sampled twice may repeat itself
    texts = [" ".join(answer.split()) for _, answer in asked]
    [(_, same)] = Counter(texts).most_common(1) or [("", 0)]
    speaking = sum(bool(TO_THE_JUDGE.search(text) or TAGS.search(text)) for _, text in asked)
    return Suspicion(len(asked), len({prompt for prompt, _ in asked}), same, speaking)
