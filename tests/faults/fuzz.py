"""Odd files by the thousand: `python -m tests.faults.fuzz --inputs 100000 --seed 0`.

Every input is drawn from (seed, number), so `--only NUMBER` repeats one. It is written to a file
and read by what the command line calls, in a child process with a limit of 5 s an input. Read it
may be, or refused with a `StropError` that names the file and a fix; anything else is a defect.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

from strop.errors import StropError
from tests.faults.kinds import KINDS, ROOT, SCORES, WEIGHTS
from tests.faults.mutate import as_jsonl

SECONDS = 5.0
"""What one input may take."""

LONGEST = 2000
"""Characters in a line of a message that a person still reads."""

COMMANDS = {
    "recipe": ["train", "{}", "--dry-run"],
    "pipeline": ["run", "{}", "--dry-run"],
    "scores": ["gate", "--base", "base.jsonl", "--candidate", "{}", "--margin", "0.1", "--dry-run"],
    "completions": ["reward", "check", "{}", "--recipe", "reward.yaml"],
}
"""Kinds that also go through the program."""

AT_ONCE = 2500
"""Inputs of one child process."""


class Hang(BaseException):
    """Raised by the watchdog."""


def kind_of(rng: Random) -> str:
    names = list(KINDS)
    return rng.choices(names, [WEIGHTS.get(name, 1) for name in names])[0]


def fault_of(kind: str, path: Path) -> tuple[str, str | None]:
    """How an input ended (`read`, `refused`) and what was wrong with that, if anything was."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        KINDS[kind].look(path)
    except StropError as error:
        return "refused", _unhelpful(kind, error, path)
    except Hang:
        return "hang", f"took more than {SECONDS:g} s\n{traceback.format_exc(limit=-4)}"
    except BaseException:  # noqa: BLE001 - exactly this is looked for
        return "traceback", traceback.format_exc(limit=-6)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "read", None


def _unhelpful(kind: str, error: StropError, path: Path) -> str | None:
    """What a message lacks."""
    message = str(error)
    named = kind == "override" or str(path.parent) in (error.where or "")
    if not named:
        return f"no file: {message}"
    if "fix: " not in message:
        return f"no fix: {message}"
    if max(map(len, message.split("\n"))) > LONGEST + len(str(path)):
        return f"an endless line: {message[:200]}"
    return None


def look_at(seed: int, number: int, folder: Path) -> dict[str, Any]:
    """Draw an input, read it, and say what happened."""
    rng = Random(f"{seed}/{number}")
    kind = kind_of(rng)
    folder.mkdir(exist_ok=True)
    for left in folder.iterdir():
        left.unlink()
    path = folder / KINDS[kind].file
    path.write_bytes(KINDS[kind].make(rng))
    started = time.perf_counter()
    ending, fault = fault_of(kind, path)
    return {"number": number, "kind": kind, "ending": ending, "fault": fault,
            "seconds": time.perf_counter() - started}  # fmt: skip


def child(seed: int, numbers: range, report: Path) -> None:
    """Write one JSON line an input; the line of the input in hand is begun before it is read."""

    def stop(*_: object) -> None:
        raise Hang

    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, stop)
    with tempfile.TemporaryDirectory() as parent, report.open("w") as stream:
        for number in numbers:
            faulthandler.dump_traceback_later(4 * SECONDS, exit=True)  # stuck outside of Python
            stream.write(json.dumps({"begun": number}) + "\n")
            stream.flush()
            found = look_at(seed, number, Path(parent) / "in")
            stream.write(json.dumps(found) + "\n")
    faulthandler.cancel_dump_traceback_later()


def chunks(inputs: int) -> Iterator[range]:
    for start in range(0, inputs, AT_ONCE):
        yield range(start, min(start + AT_ONCE, inputs))


def by_command(seed: int, number: int, parent: Path) -> dict[str, Any]:
    """An input through the real program, in a process of its own: no traceback, nothing written."""
    rng = Random(f"{seed}/command {number}")
    kind = list(COMMANDS)[number % len(COMMANDS)]
    folder = parent / f"command-{number}"
    folder.mkdir()
    file = folder / KINDS[kind].file
    file.write_bytes(KINDS[kind].make(rng))
    (folder / "reward.yaml").write_text("reward: [{function: exact_answer}]\n")
    (folder / "base.jsonl").write_bytes(as_jsonl(SCORES[0]))
    before = sorted(path.name for path in folder.iterdir())
    words = [word.format(file.name) for word in COMMANDS[kind]]
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "strop", *words], cwd=folder, check=False,
        capture_output=True, text=True, errors="backslashreplace", timeout=300,
    )  # fmt: skip
    fault = None
    if "Traceback" in done.stderr or (done.returncode and "fix: " not in done.stderr):
        fault = f"{' '.join(words)}: exit {done.returncode}: {done.stderr[-1500:]}"
    if sorted(path.name for path in folder.iterdir()) != before:
        fault = f"{' '.join(words)}: wrote {sorted(path.name for path in folder.iterdir())}"
    return {"number": number, "kind": f"strop {words[0]}", "fault": fault,
            "ending": "refused" if done.returncode else "read",
            "seconds": time.perf_counter() - started}  # fmt: skip


def run_chunk(seed: int, numbers: range, folder: Path) -> list[dict[str, Any]]:
    """The rows of one child; where it died, a row says at which input."""
    report = folder / f"{numbers.start}.jsonl"
    command = [sys.executable, "-m", "tests.faults.fuzz", "--seed", str(seed), "--child",
               f"{numbers.start}:{numbers.stop}:{report}"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if not report.exists():
        raise SystemExit(f"a child could not begin: {done.stderr[-1500:]}")
    rows = [json.loads(line) for line in report.read_text().splitlines()]
    looked = [row for row in rows if "kind" in row]
    if done.returncode:
        number = rows[-1].get("begun", rows[-1].get("number"))
        kind = kind_of(Random(f"{seed}/{number}"))
        looked.append({"number": number, "kind": kind, "ending": "died", "seconds": 0.0,
                       "fault": f"exit {done.returncode}: {done.stderr[-1500:]}"})  # fmt: skip
    return looked


def run(inputs: int, seed: int, jobs: int, commands: int = 0) -> list[dict[str, Any]]:
    """All rows, in order; those of `commands` runs of the program come last."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        last = pool.map(lambda number: by_command(seed, number, Path(folder)), range(commands))
        parts = pool.map(lambda numbers: run_chunk(seed, numbers, Path(folder)), chunks(inputs))
        return [*(row for part in parts for row in part), *last]


def faults_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One line for each different fault: how often, an input that shows it, and what it said."""
    shown: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["fault"]:
            shown.setdefault((row["kind"].split()[0], _alike(row["fault"])), []).append(row)
    return [
        f"{len(alike)} x {kind}, {alike[0]['ending']}, --only {alike[0]['number']}: "
        f"{alike[0]['fault'].strip()[-900:]}"
        for (kind, _), alike in sorted(shown.items(), key=lambda pair: -len(pair[1]))
    ]


def _alike(fault: str) -> str:
    """A traceback by its last place, a message by its words without names and numbers."""
    places = [line for line in fault.split("\n") if line.startswith("  File")]
    return places[-1] if places else "".join(c for c in fault.split(": ")[-1][:40] if c.isalpha())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--commands", type=int, default=20, help="also through the program")
    parser.add_argument("--only", type=int, help="look at this input alone and keep its file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        start, stop, report = asked.child.split(":", 2)
        child(asked.seed, range(int(start), int(stop)), Path(report))
        return 0
    if asked.only is not None:
        folder = Path(tempfile.mkdtemp())
        print(folder, json.dumps(look_at(asked.seed, asked.only, folder / "in"), indent=1))
        return 0
    started = time.perf_counter()
    rows = run(asked.inputs, asked.seed, asked.jobs, asked.commands)
    kinds = Counter(row["kind"] for row in rows)
    endings = {kind: Counter(r["ending"] for r in rows if r["kind"] == kind) for kind in kinds}
    for kind, count in sorted(kinds.items()):
        print(f"{count:>7} {kind:<24} {dict(endings[kind])}")
    faults = faults_of(rows)
    print("\n\n".join(faults))
    slowest = max((row for row in rows if row["kind"] in KINDS), key=lambda row: row["seconds"])
    print(f"{len(rows)} inputs in {time.perf_counter() - started:.0f} s, {len(faults)} defects; "
          f"the slowest took {slowest['seconds']:.2f} s ({slowest['kind']})")  # fmt: skip
    return 1 if faults or len(rows) < asked.inputs else 0


if __name__ == "__main__":
    sys.exit(main())
