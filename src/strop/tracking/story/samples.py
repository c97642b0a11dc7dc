"""A run's samples: what it said, by step, reward and habit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BESIDE = frozenset({"step", "prompt", "completion", "chosen", "rejected", "learnt", "reward",
                    "habit", "answer", "reference"})  # fmt: skip
TEXTS = ("completion", "chosen", "rejected", "answer", "reference", "learnt")
MOST_TEXT = 4000
"""Characters of one text on a page."""


@dataclass(frozen=True, slots=True)
class Sample:
    """`Sample(12, "2+2?", (("completion", "4"),), 1.0, "", {"exact": 1.0})`: what stands in a line
    of `samples.jsonl`; `texts` are its answers by what they are."""

    step: int
    prompt: str
    texts: tuple[tuple[str, str], ...]
    reward: float | None
    habit: str
    scores: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which samples: those of `steps` (first, last) that contain `text` and show `habit`, with a
    reward from `low` to `high`."""

    text: str = ""
    steps: tuple[int, int] | None = None
    habit: str = ""
    low: float | None = None
    high: float | None = None

    def takes(self, sample: Sample) -> bool:
        if self.steps is not None and not self.steps[0] <= sample.step <= self.steps[1]:
            return False
        if self.habit and sample.habit != self.habit:
            return False
        if self.low is not None and (sample.reward is None or sample.reward < self.low):
            return False
        if self.high is not None and (sample.reward is None or sample.reward > self.high):
            return False
        said = [sample.prompt, *(text for _, text in sample.texts)]
        return not self.text or any(self.text.casefold() in one.casefold() for one in said)


def read_samples(path: Path) -> tuple[list[Sample], list[str]]:
    """All samples of a run in order, and what of them cannot be read."""
    if not path.is_file():
        return [], []
    samples, unread = [], 0
    with path.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            if not line.endswith("\n"):
                break  # it is being written
            try:
                samples.append(sample_of(json.loads(line)))
            except (ValueError, KeyError, TypeError):
                unread += 1
    lines = "line cannot" if unread == 1 else "lines cannot"
    return samples, [f"{path.name}: {unread} {lines} be read"] if unread else []


def sample_of(row: Mapping[str, Any]) -> Sample:
    reward = row.get("reward")
    return Sample(
        int(row["step"]),
        written(row.get("prompt", "")),
        tuple((name, written(row[name])) for name in TEXTS if row.get(name)),
        float(reward) if isinstance(reward, int | float) else None,
        str(row.get("habit", "")),
        {name: value for name, value in row.items() if name not in BESIDE},
    )


def written(text: Any) -> str:
    """A text, or the messages of a conversation one below the other."""
    if isinstance(text, list):
        text = "\n".join(
            f"{one.get('role', '?')}: {_content(one)}" if isinstance(one, dict) else str(one)
            for one in text
        )
    said = str(text)
    return said if len(said) <= MOST_TEXT else f"{said[:MOST_TEXT]} ... ({len(said)} characters)"


def chosen(samples: Sequence[Sample], most: int) -> list[Sample]:
    """At most `most` samples, evenly over the steps, the first and the last step whole."""
    if len(samples) <= most:
        return list(samples)
    stride = len(samples) / most
    return [samples[int(k * stride)] for k in range(most - 1)] + [samples[-1]]


def same_prompt(samples: Iterable[Sample]) -> Iterator[tuple[Sample, Sample]]:
    """For each prompt that was sampled at several steps: its first and its last sample."""
    seen: dict[str, tuple[Sample, Sample]] = {}
    for sample in samples:
        first, _ = seen.get(sample.prompt, (sample, sample))
        seen[sample.prompt] = (first, sample)
    return (pair for pair in seen.values() if pair[0].step != pair[1].step)


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if content is None or content == "":
        calls = message.get("tool_calls")
        return json.dumps(calls, ensure_ascii=False) if calls else ""
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
