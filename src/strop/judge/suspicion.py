"""Answers that speak to the judge instead of to the one who asked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from strop.stats.share import wilson

TO_THE_JUDGE = re.compile(
    r"<\|\w+\|>|\[/?INST\]|\[\[\s*(?:[AB]|tie|ten|10)\s*\]\]"
    r"|^\W*(?:final\s+)?(?:verdict|score|rating|ranking|decision)\s*:"
    r"|(?:ignore|disregard|forget)\s+(?:all\s+|any\s+|the\s+)*(?:above|previous|prior|earlier)"
    r"|^\s*(?:system|judge|evaluator)\s*:"
    r"|^#+\s*(?:model\s+outputs?|instructions?|evaluation|verdict|ranking)\s*$"
    r"|[\"'](?:model_identifier|output|rank|winner|score|verdict)[\"']\s*:",
    re.IGNORECASE | re.MULTILINE,
)
"""Fake verdicts, orders to forget what came before, tags of chat templates, and the headings and
fields of judges' own prompts. A single answer may hold one for a good reason; many do not."""

SPEAK, SAY_THE_SAME = 0.02, 0.1
"""Of a fair model's answers smaller shares speak to a judge, and say one and the same thing."""
FEWEST = 5
"""Fewer cases are chance."""


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
        if self.same >= FEWEST and wilson(self.same, self.answers).low > SAY_THE_SAME:
            found.append(
                f"one text answers {self.same} of {self.prompts} different prompts: look whether "
                "its wins are deserved"
            )
        if self.speaking >= FEWEST and wilson(self.speaking, self.answers).low > SPEAK:
            found.append(
                f"{self.speaking} of {self.answers} answers look as if they spoke to the judge "
                "(fake verdicts, orders, parts of a judge's prompt): look at them"
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
    speaking = sum(bool(TO_THE_JUDGE.search(text)) for _, text in asked)
    return Suspicion(len(asked), len({prompt for prompt, _ in asked}), same, speaking)
