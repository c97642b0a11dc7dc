"""A run's samples: what it said, by step, reward and habit."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BESIDE = frozenset({"step", "prompt", "completion", "chosen", "rejected", "learnt", "reward",
                    "habit", "answer", "reference"})  # fmt: skip
TEXTS = ("completion", "chosen", "rejected", "answer", "reference", "learnt")
MOST_SAMPLES = 2000
"""Samples of a run that are held; all of them are searched."""
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


def read_samples(path: Path, most: int = MOST_SAMPLES) -> tuple[list[Sample], list[str]]:
    """A run's samples in order, and what of them cannot be read. Of more than `most` every second
    one is left out, again and again, so that they are spread over all steps."""
    unread: list[str] = []
    samples: list[Sample] = []
    stride = 1
    for number, sample in enumerate(samples_in(path, unread)):
        if number % stride == 0:
            samples.append(sample)
        if len(samples) > most:
            samples, stride = samples[::2], 2 * stride
    lines = "line cannot" if len(unread) == 1 else "lines cannot"
    return samples, [f"{path.name}: {len(unread)} {lines} be read"] if unread else []


def matching(path: Path, wanted: Wanted, most: int) -> tuple[list[Sample], int, list[str]]:
    """The newest `most` samples that are wanted, how many there are, and all habits that samples
    show."""
    kept: deque[Sample] = deque(maxlen=most)
    count, habits = 0, set()
    for sample in samples_in(path, []):
        habits.add(sample.habit)
        if wanted.takes(sample):
            kept.append(sample)
            count += 1
    return list(kept), count, sorted(habits - {""})


def samples_in(path: Path, unread: list[str]) -> Iterator[Sample]:
    """The samples of a run in order; lines that cannot be read are put into `unread`."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            if not line.endswith("\n"):
                return  # it is being written
            try:
                sample = sample_of(json.loads(line))
            except (ValueError, KeyError, TypeError):
                unread.append(line)
            else:
                yield sample


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
