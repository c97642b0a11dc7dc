"""`kill -9` at random instants: `python -m tests.faults.kills --instants 40`.

A run is killed again and again, resumed each time, and has to end with the weights and the log of
one that was left alone.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import yaml
from safetensors.torch import load_file

from strop.demo.model import raw_model, train_tokenizer
from strop.demo.world import all_equations, assistant, solution, user
from tests.support.processes import Child
from tests.support.runs import metrics


def left_alone(recipe: Path, options: Sequence[str]) -> tuple[Path, float]:
    """A run without a fault and the seconds it took."""
    output = recipe.parent / f"runs/{recipe.stem}-whole"
    began = time.monotonic()
    child = Child(_arguments(recipe, options, output), recipe.with_suffix(".whole.log"))
    assert child.end() == 0, child.said
    return output, time.monotonic() - began


def killed(
    recipe: Path, options: Sequence[str], instants: Sequence[float], inside: Sequence[int]
) -> Path:
    """The same run, killed at these flushes of the files of a checkpoint, then this many seconds
    after each start, then left to its end.

    Starts again from nothing when the kills come too late to hit: each has to be one.
    """
    output = recipe.parent / f"runs/{recipe.stem}-killed"
    arguments = [*_arguments(recipe, options, output), "--resume"]
    log = recipe.with_suffix(".killed.log")
    for flush in inside:
        child = Child(arguments, log, dies_at=flush)
        assert child.end() == -9, child.said
    for seconds in instants:
        if (output / "final").exists():
            output.rename(output.with_name(f"{output.name}-{time.monotonic_ns()}"))
        child = Child(arguments, log)
        time.sleep(seconds)
        child.kill()
    child = Child(arguments, log)
    assert child.end() == 0, child.said
    return output


def differences(whole: Path, other: Path) -> list[str]:
    """What is not the same to the bit; the clock's columns do not count."""
    left, right = (load_file(run / "final/model.safetensors") for run in (whole, other))
    found = [name for name in left | right if not (left[name] == right[name]).all()]
    if metrics(whole) != metrics(other):
        found.append("metrics.jsonl")
    rubbish = [path.name for path in other.glob(".*")]
    return found + rubbish


def _arguments(recipe: Path, options: Sequence[str], output: Path) -> list[str]:
    named = [part for option in (*options, f"output={output}") for part in ("--set", option)]
    return ["train", str(recipe), *named]


def write_world(folder: Path) -> list[Path]:
    """Recipes of an offline and an online run over generated data."""
    equations = all_equations()[::53]
    tokenizer = train_tokenizer([solution(e) for e in all_equations()[::7]], vocabulary=325)
    model = folder / "model"
    raw_model(tokenizer, seed=0, width=32).save_pretrained(model)
    tokenizer.save_pretrained(model)
    rows = {
        "dpo": [
            {"prompt": user(e), "chosen": solution(e), "rejected": solution(e, filler=True)}
            for e in equations
        ],
        "sft": [{"prompt": user(e), "completion": assistant(solution(e))} for e in equations],
        "grpo": [{"prompt": user(e), "answer": str(e.x)} for e in equations],
    }
    (folder / "rewards.py").write_text(
        "def shorter(prompts, completions, **columns):\n"
        "    return [-float(len(c[-1]['content'])) for c in completions]\n"
    )
    recipes = []
    for method, records in rows.items():
        data = folder / f"{method}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in records))
        recipe = {
            "method": method, "output": f"runs/{method}", "model": {"path": str(model)},
            "data": data.name, "optim": {"learning_rate": 1e-4},
            "run": {"steps": 40, "batch_size": 4, "save_every": 3},
        }  # fmt: skip
        if method == "grpo":
            recipe["reward"] = [{"function": "shorter", "file": "rewards.py"}]
            recipe["rollout"] = {"group_size": 4, "max_tokens": 12}
        recipes.append(folder / f"{method}.yaml")
        recipes[-1].write_text(yaml.safe_dump(recipe))
    return recipes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instants", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    generator = random.Random(asked.seed)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        recipes = write_world(Path(folder))
        for number, recipe in enumerate(recipes):
            share = len(range(number, asked.instants, len(recipes)))
            whole, seconds = left_alone(recipe, [])
            instants = [generator.uniform(0, 0.9 * seconds) for _ in range(share)]
            found = differences(whole, killed(recipe, [], instants, [1, 5]))
            failed += bool(found)
            said = f"differs in {', '.join(found)}" if found else "bit-identical"
            print(f"{recipe.stem}: {share} instants, 2 inside a checkpoint: {said}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
