"""Says which stage a run is at, and keeps what each took."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from pathlib import Path

from strop.files import write_json
from strop.results import StageResult
from strop.types import StepRecord

SHOWN = {
    "eval-base-sums": "base: 400 sums",
    "eval-base-voice": "base: everyday prompts, knowledge, fluency",
    "eval-base-notes": "base: a hundred notes",
    "sums-sft": "a. cold start on 300 worked sums",
    "eval-sums-sft-sums": "sums-sft: 400 sums",
    "sums": "a. GRPO from there: the verifier is the right number",
    "eval-sums-sums": "sums: 400 sums",
    "eval-sums-voice": "sums: everyday prompts, knowledge, fluency",
    "eval-sums-notes": "sums: a hundred notes",
    "sampling-more": "a. or would sampling more do as well?",
    "answers": "b. the model's own answers to 300 everyday prompts",
    "edits": "b. a brand team edits them",
    "pairs": "b. edits become pairs",
    "check": "b. what would make training on them fail",
    "voice": "b. DPO with the NLL term",
    "eval-voice-voice": "voice: everyday prompts, knowledge, fluency",
    "eval-voice-sums": "voice: 400 sums",
    "eval-voice-notes": "voice: a hundred notes",
    "gate-voice": "b. is the voice better, and nothing else worse?",
    "careless": "b. the same pairs, carelessly",
    "eval-careless-voice": "careless: everyday prompts, knowledge, fluency",
    "gate-careless": "b. refused",
    "notes-sft": "c. a hundred notes as JSON",
    "eval-notes-sft-notes": "notes-sft: a hundred notes",
    "notes": "c. GRPO with a schema and exact fields",
    "eval-notes-notes": "notes: a hundred notes",
    "eval-notes-sums": "notes: 400 sums",
    "eval-notes-voice": "notes: everyday prompts, knowledge, fluency",
    "gate-notes": "c. is it better than its cold start?",
    "gate-sums": "a. is it better than its cold start?",
    "promote-sums": "a. into the registry",
}


class Watch:
    """Says what is being shown, and keeps every stage's wall time and peak memory.

    They are kept in `stages.json`, so that a run that was interrupted shows those of both parts.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "stages.json"
        self.known = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.names = list(SHOWN)
        self.began = time.monotonic()
        reset_peak()
        self._say(0)

    def _say(self, number: int) -> None:
        if number < len(self.names):
            name = self.names[number]
            print(f"[{number + 1}/{len(self.names)}] {name}: {SHOWN[name]}", flush=True)

    def step(self, record: StepRecord) -> None:
        if sys.stdout.isatty():
            print(f"\r    step {record.step}", end="", flush=True)

    def stage(self, result: StageResult) -> None:
        seconds = time.monotonic() - self.began
        if result.outcome != "skipped" or result.name not in self.known:
            self.known[result.name] = {
                "seconds": round(seconds, 1), "peak_mb": peak_mb(), "said": result.said,
            }  # fmt: skip
            write_json(self.file, self.known)
        print(f"\r    {result.outcome} in {seconds:.0f} s: {result.said}", flush=True)
        self.began = time.monotonic()
        reset_peak()
        self._say(self.names.index(result.name) + 1)


def peak_mb() -> float | None:
    """Most resident memory of this process since it was last reset, in MB; Linux only."""
    try:
        status = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return round(int(next(one for one in status if one.startswith("VmHWM")).split()[1]) / 1024, 0)


def reset_peak() -> None:
    """Make `peak_mb` begin anew, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
