"""Twelve real runs beside what `strop estimate` says they take.

    python evidence/memory.py --model build/real/base --out DIR

Every run is a process of its own. Its memory is the peak (VmHWM) above what it held when all
libraries were imported. The table of docs/estimate.md is printed at the end; a run that was
measured is not measured again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from strop.files import write_rows

Row = dict[str, Any]

SIZES = {"8M": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 6,
                "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32},
         "60M": {"hidden_size": 448, "intermediate_size": 1344, "num_hidden_layers": 14,
                 "num_attention_heads": 7, "num_key_value_heads": 7, "head_dim": 64},
         "135M": {}}  # fmt: skip
"""Changes to the config of the real model of 135 million parameters."""
RUNS = (
    ("8M", "full", "sft"), ("8M", "full", "dpo"), ("8M", "full", "grpo"),
    ("60M", "full", "sft"), ("60M", "full", "grpo"), ("60M", "lora", "dpo"),
    ("60M", "qlora", "sft"),
    ("135M", "full", "sft"), ("135M", "full", "dpo"), ("135M", "lora", "sft"),
    ("135M", "qlora", "dpo"), ("135M", "full", "grpo"),
)  # fmt: skip
BATCH = {("135M", "full", "dpo"): 4, ("135M", "full", "grpo"): 2}
"""Records or prompts of a step where 16 would take an hour; a forward reads one of them anyway."""
ADAPTERS: dict[str, Row] = {
    "full": {},
    "lora": {"lora": {"rank": 16}},
    "qlora": {"lora": {"rank": 16}, "quantize": "nf4", "gradient_checkpointing": True},
}

MEASURED = """
import json, os, sys
os.environ["THP_MEM_ALLOC_ENABLE"] = "1"  # as the command line sets it
import peft, torch, transformers, datasets
from strop.cli.show import setup
from strop.recipe.loading.load import load_recipe
from strop.train.run import train
import strop.api
setup()
def kib(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))
before = kib("VmRSS")
train(load_recipe(sys.argv[1]), resume=False, overwrite=True, force=True)
print(json.dumps({"before": before, "peak": kib("VmHWM")}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="the real model's folder")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    write_data(out)
    rows = [row_of(*run, options.model.resolve(), out) for run in RUNS]
    print("| run | estimated GiB | measured GiB | off |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row['name']} | {row['estimated']:.2f} | {row['measured']:.2f} | "
              f"{row['estimated'] / row['measured'] - 1:+.0%} |")  # fmt: skip


def row_of(size: str, adapter: str, method: str, model: Path, out: Path) -> Row:
    name = f"{size} {adapter} {method}"
    kept = out / f"{name.replace(' ', '-')}.json"
    recipe = write_recipe(size, adapter, method, model, out)
    if kept.exists():
        measured = json.loads(kept.read_text())
    else:
        print(name, flush=True)
        run = subprocess.run([sys.executable, "-P", "-c", MEASURED, str(recipe)], check=True,
                             capture_output=True, text=True)  # fmt: skip
        measured = json.loads(run.stdout.splitlines()[-1])
        kept.write_text(json.dumps(measured))
    said = subprocess.run([sys.executable, "-P", "-m", "strop", "estimate", str(recipe),
                           "--json"], check=True, capture_output=True, text=True)  # fmt: skip
    estimated = json.loads(said.stdout)["memory_gib"]["likely"]
    return {"name": name, "estimated": estimated,
            "measured": (measured["peak"] - measured["before"]) / 2**20}  # fmt: skip


def write_recipe(size: str, adapter: str, method: str, model: Path, out: Path) -> Path:
    recipe: Row = {
        "method": method, "output": str(out / "runs" / f"{size}-{adapter}-{method}"),
        "model": {"path": str(sized(size, model, out)), **ADAPTERS[adapter]},
        "data": str(out / f"{method}.jsonl"), "text": {"max_length": 384},
        "optim": {"learning_rate": 1e-5},
        "run": {"steps": 3, "batch_size": BATCH.get((size, adapter, method), 16)},
    }  # fmt: skip
    if method == "grpo":
        recipe["rollout"] = {"group_size": 8, "max_tokens": 96}
        recipe["reward"] = [{"file": str(out / "letters.py"), "function": "letters"}]
    path = out / f"{size}-{adapter}-{method}.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def sized(size: str, model: Path, out: Path) -> Path:
    """The real model, or one of its kind with random weights."""
    if not SIZES[size]:
        return model
    folder = out / f"model-{size}"
    if not folder.exists():
        config = AutoConfig.from_pretrained(model)
        config.update(SIZES[size])
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


LETTERS = '''\
def letters(prompts, completions, **columns):
    """The share of vowels: it differs from answer to answer, so that every group is learnt from."""
    said = [answer if isinstance(answer, str) else answer[-1]["content"] for answer in completions]
    return [sum(letter in "aeiou" for letter in text) / max(1, len(text)) for text in said]
'''


def write_data(out: Path) -> None:
    """48 records a method, of 100 to 300 tokens, and a reward."""
    (out / "letters.py").write_text(LETTERS)
    words = [
        "the",
        "river",
        "ran",
        "past",
        "a",
        "mill",
        "where",
        "nobody",
        "had",
        "ground",
        "any",
        "corn",
        "for",
        "years",
    ]
    rows = []
    for n in range(48):
        said = [" ".join(words[(n + k * step) % len(words)] for k in range(60 + 3 * n))
                for step in (1, 3)]  # fmt: skip
        rows.append({"prompt": [{"role": "user", "content": f"Tell me story {n}."}],
                     "a": said[0], "b": said[1]})  # fmt: skip
    write_rows(out / "sft.jsonl", ({"prompt": r["prompt"], "completion": r["a"]} for r in rows))
    write_rows(out / "dpo.jsonl", ({"prompt": r["prompt"], "chosen": r["a"], "rejected": r["b"]}
                                   for r in rows))  # fmt: skip
    write_rows(out / "grpo.jsonl", ({"prompt": r["prompt"]} for r in rows))


if __name__ == "__main__":
    main()
