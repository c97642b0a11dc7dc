"""How a brand team edits answers, and the same rules as rewards.

An answer begins with what was asked for, offers nothing at its end, has at most three sentences,
and speaks to the reader, not of the assistant.
"""

from __future__ import annotations

import re

SENTENCE = re.compile(r"(?<=[.!?])[\"')\]]*\s+")
OF_ITSELF = re.compile(
    r"\b(I|I'm|I'd|I'll|I've)\b|\b(?i:my|me|we|we're|let's|as an AI)\b",
)
OPENER = re.compile(
    r"^\W*(sure|of course|certainly|absolutely|great|wonderful|thanks?|hey|hello|hi|sorry"
    r"|here('s| is| are)|to (get started|begin)|while there('s| is) no|what a"
    r"|i('m|'d|'ll| am| can| would))\b",
    re.IGNORECASE,
)
CLOSER = re.compile(
    r"(let me know|hope (this|that|these)|feel free|happy to|any (other|more|further) question"
    r"|would you like|shall I|best of luck|good luck|enjoy!)",
    re.IGNORECASE,
)
MOST, LEAST = 3, 5
"""Sentences an answer has at most, and words at least."""


def edit(row):
    """What the team makes of an answer: the same sentences without those that it strikes.

    `None` where nothing would be left, or nothing has to go.
    """
    answer = said(row["completion"])
    kept = [one for one in sentences(answer) if not struck(one)][:MOST]
    edited = " ".join(kept)
    if not kept or edited == " ".join(answer.split()):
        return None
    return row | {"edited": [{"role": "assistant", "content": edited}]}


def sentences(text):
    """Whole sentences of running text; lists, headings and what was cut off are none."""
    lines = [line for line in text.splitlines() if not re.match(r"\s*([-*#|>]|\d+[.)])", line)]
    found = [one.strip() for line in lines for one in SENTENCE.split(line.strip())]
    return [one for one in found if re.search(r"[.!?][\"')\]]*$", one) and len(one.split()) > 2]


def struck(sentence):
    return any(rule.search(sentence) for rule in (OPENER, CLOSER, OF_ITSELF))


def no_opener(prompts, completions, **columns):
    """1 where the answer begins with what was asked for."""
    return [float(not OPENER.search(said(one))) for one in completions]


def no_closer(prompts, completions, **columns):
    """1 where its last sentence offers nothing."""
    return [
        float(not CLOSER.search((said(one).splitlines() or [""])[-1][-160:])) for one in completions
    ]


def brief(prompts, completions, **columns):
    """1 for at most three sentences and no list."""
    return [float(len(SENTENCE.split(said(one).strip())) <= MOST and "\n" not in said(one).strip())
            for one in completions]  # fmt: skip


def of_the_reader(prompts, completions, **columns):
    """1 where the assistant does not speak of itself."""
    return [float(not OF_ITSELF.search(said(one))) for one in completions]


def substance(prompts, completions, **columns):
    """1 for five words at least: an answer of none breaks no other rule."""
    return [float(len(said(one).split()) >= LEAST) for one in completions]


def in_voice(prompts, completions, **columns):
    """1 where all rules are kept."""
    rules = (no_opener, no_closer, brief, of_the_reader, substance)
    kept = [rule(prompts, completions) for rule in rules]
    return [float(all(one)) for one in zip(*kept, strict=True)]


def said(completion):
    return completion if isinstance(completion, str) else completion[-1]["content"]
