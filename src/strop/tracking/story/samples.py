"""A run's samples: what it said, by step, reward and habit."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.tracking.reading import FAULTS, opened

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


class SamplesLog:
    """A run's samples in order, read on while the run goes on. Of more than `most` every second one
    is left out, again and again, so that they are spread over all steps."""

    def __init__(self, path: Path, most: int = MOST_SAMPLES) -> None:
        self.path, self.most = path, most
        self._inode = -1
        self.samples: list[Sample] = []
        self._read = self._unread = self._seen = 0
        self._stride = 1

    def refresh(self) -> None:
        """Read on; a file that was cut or replaced is read anew."""
        try:
            with opened(self.path) as stream:
                stat = os.fstat(stream.fileno())
                if stat.st_size < self._read or stat.st_ino != self._inode:
                    self._forget()
                    self._inode = stat.st_ino
                stream.seek(self._read)
                for line in stream:
                    if not line.endswith(b"\n"):
                        return  # it is being written
                    self._read += len(line)
                    self._take(line)
        except OSError:
            self._forget()

    @property
    def problems(self) -> list[str]:
        """What cannot be read, in words."""
        lines = "line cannot" if self._unread == 1 else "lines cannot"
        return [f"{self.path.name}: {self._unread} {lines} be read"] if self._unread else []

    def _take(self, line: bytes) -> None:
        try:
            sample = sample_of(json.loads(line))
        except FAULTS:
            self._unread += 1
            return
        if self._seen % self._stride == 0:
            self.samples.append(sample)
        self._seen += 1
        if len(self.samples) > self.most:
            self.samples, self._stride = self.samples[::2], 2 * self._stride

    def _forget(self) -> None:
        self._read = self._unread = self._seen = 0
        self._stride, self.samples = 1, []


def matching(path: Path, wanted: Wanted, most: int) -> tuple[list[Sample], int, list[str]]:
    """The newest `most` samples that are wanted, how many there are, and all habits that samples
    show. All are looked at."""
    kept: deque[Sample] = deque(maxlen=most)
    count, habits = 0, set()
    for sample in samples_in(path):
        habits.add(sample.habit)
        if wanted.takes(sample):
            kept.append(sample)
            count += 1
    return list(kept), count, sorted(habits - {""})


def samples_in(path: Path) -> Iterator[Sample]:
    """The samples of a run in order, without lines that cannot be read; none where there is no
    file."""
    try:
        with opened(path) as stream:
            for line in stream:
                if line.endswith(b"\n"):
                    try:
                        sample = sample_of(json.loads(line))
                    except FAULTS:
                        continue
                    yield sample
    except OSError:
        return


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
    said = str(text).encode("utf-8", "backslashreplace").decode()  # halves of characters
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
