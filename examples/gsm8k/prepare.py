"""GSM8K files -> the three kinds of records that the recipes here read.

    python prepare.py FOLDER [OUTPUT]

FOLDER holds `train`, `test` and `model_solutions` as JSONL or JSONL.gz, as published
(github.com/openai/grade-school-math). The published model solutions answer *test* questions, so a
tenth of those questions is kept out of the pairs, by a hash of the question, as the held-out set.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

INSTRUCTION = "{question}\nWork it out step by step and end with a line `#### ` and the number."


def prepare(source: Path, output: Path) -> dict[str, int]:
    """Write the records under `output` and return how many of each kind."""
    output.mkdir(parents=True, exist_ok=True)
    train, solved = list(rows(source, "train")), list(rows(source, "model_solutions"))
    held_out = [row for row in rows(source, "test") if is_held_out(row["question"])]
    written = {
        "sft": [{"prompt": ask(r), "completion": f"\n{plain(r['answer'])}"} for r in train],
        "pairs": [pair for pair in pairs(solved) if not is_held_out(pair.pop("question"))],
        "tasks": [{"prompt": ask(r), "answer": r["answer"]} for r in train],
        "test": [{"prompt": ask(r), "answer": r["answer"]} for r in held_out],
    }
    for name, records in written.items():
        text = "".join(json.dumps(record) + "\n" for record in records)
        (output / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return {name: len(records) for name, records in written.items()}


def pairs(solved: Iterable[dict[str, Any]]) -> Iterator[dict[str, str]]:
    """Every wrong solution beside a right one of the same question (a model's, or the book's)."""
    right: dict[str, str] = {}
    wrong: dict[str, list[str]] = defaultdict(list)
    for row in solved:
        solution = plain(row["solution"])
        if row["is_correct"]:
            right[row["question"]] = solution
        elif solution.strip():
            right.setdefault(row["question"], plain(row["ground_truth"]))
            wrong[row["question"]].append(solution)
    for question, solutions in wrong.items():
        for solution in dict.fromkeys(solutions):
            if solution != right[question]:
                yield {
                    "question": question,
                    "prompt": ask({"question": question}),
                    "chosen": f"\n{right[question]}",
                    "rejected": f"\n{solution}",
                }


def ask(row: dict[str, str]) -> str:
    return INSTRUCTION.format(question=row["question"])


def plain(solution: str) -> str:
    """A solution without calculator marks, ending in `#### N`."""
    return re.sub(r"^A: ", "#### ", re.sub(r"<<[^>]*>>", "", solution), flags=re.M)


def is_held_out(question: str) -> bool:
    return hashlib.sha256(question.encode()).digest()[0] < 26


def rows(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    for path in (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz"):
        if path.exists():
            with (gzip.open if path.suffix == ".gz" else open)(path, "rt") as stream:
                yield from map(json.loads, stream)
            return
    sys.exit(f"{folder} holds no {name}.jsonl or {name}.jsonl.gz")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    counts = prepare(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) == 3 else "data"))
    print(", ".join(f"{name} {count}" for name, count in counts.items()))
