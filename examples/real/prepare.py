"""Everything that the pipeline reads, written into one folder: data, recipes, suites, policies."""

from __future__ import annotations

import json
import random
from itertools import islice
from pathlib import Path
from string import Template
from typing import Any

import notes
import sums

from strop.errors import OutputError
from strop.files import write_rows

HERE = Path(__file__).parent
TEXTS, FILES = HERE / "texts", HERE / "files"
EVERYDAY, NOTICES = 300, 45
"""Lines of `everyday.txt` and `notices.txt` that are trained on; the rest are tested on."""
SEED = "seed.txt"


def write_example(folder: Path, seed: int) -> Path:
    """Write the files and return the pipeline; a folder that holds them already is left as it is.

    Raises `OutputError` where it holds those of another seed, or something else.
    """
    pipeline, mark = folder / "pipeline.yaml", folder / SEED
    if mark.exists():
        if mark.read_text().strip() != str(seed):
            raise OutputError(f"the folder holds the example with seed {mark.read_text().strip()}",
                              where=str(folder), fix="choose another --out")  # fmt: skip
        return pipeline
    strangers = [one.name for one in folder.glob("*") if one.name != "base"]
    if strangers:
        raise OutputError(f"the folder holds {', '.join(sorted(strangers)[:3])}", where=str(folder),
                          fix="choose another --out")  # fmt: skip
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    for name, rows in tables(seed).items():
        write_rows(data / f"{name}.jsonl", rows)
    for file in sorted(FILES.iterdir()):
        if file.suffix in (".yaml", ".py"):
            text = Template(file.read_text(encoding="utf-8")).safe_substitute(seed=seed)
            (folder / file.name).write_text(text, encoding="utf-8")
    mark.write_text(f"{seed}\n")
    return pipeline


def tables(seed: int) -> dict[str, list[dict[str, Any]]]:
    """The rows of every data file. What is tested is the same for every seed."""
    held_out = list(islice(sums.sums(random.Random("sums")), 400))
    tested = {(one.sign, one.a, one.b) for one in held_out}
    drawn = (one for one in sums.sums(random.Random(f"sums {seed}"))
             if (one.sign, one.a, one.b) not in tested)  # fmt: skip
    shown, practised = list(islice(drawn, 300)), list(islice(drawn, 2000))
    patterns = lines("notices.txt")
    read = notes.notes(patterns[:NOTICES], random.Random(f"notes {seed}"))
    tests = notes.notes(patterns[NOTICES:], random.Random("notes"))
    everyday = [{"prompt": sums.chat(line)} for line in lines("everyday.txt")]
    return {
        "sums_sft": [sums.demonstration(one) for one in shown],
        "sums_tasks": [sums.task(one) for one in practised],
        "sums_test": [sums.task(one) for one in held_out],
        "sums_decode": [sums.task(one) for one in held_out[:100]],
        "notes_sft": [notes.demonstration(*one) for one in islice(read, 100)],
        "notes_tasks": [notes.task(*one) for one in islice(read, 600)],
        "notes_test": [notes.task(*one) for one in islice(tests, 100)],
        "everyday": everyday[:EVERYDAY],
        "everyday_test": everyday[EVERYDAY:],
        "knowledge": [json.loads(line) for line in lines("knowledge.jsonl")],
        "prose": [json.loads(line) for line in lines("prose.jsonl")],
    }


def lines(name: str) -> list[str]:
    """The lines of one of the texts."""
    return (TEXTS / name).read_text(encoding="utf-8").splitlines()
