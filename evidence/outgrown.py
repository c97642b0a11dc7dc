"""SFT on more text than memory holds: peak memory against the same run on a thousandth of it.

    python evidence/outgrown.py --gigabytes 5 --out DIR      # half an hour, 15 GB of disk

Text, tokenizer and a tiny model are generated; with few different answers the tokenizer has less to
do, and everything else as much. Each run is `strop train` in a process of its own:
the peak is the kernel's (`ru_maxrss`: the highest of all runs so far), which counts pages of mapped
files; beside it stand the peaks of what is the process's own (anonymous) and of mapped files,
sampled. The text and the cache
are deleted at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import yaml
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from strop.demo.model import TEMPLATE, raw_model

LETTERS = "etaoinshrdlucmfwypvbgkqjxz"
EVERY = 0.2
"""Seconds between two samples of a run's memory."""

Peak = dict[str, float]
"""`{"seconds": 61.2, "maxrss": 602.1, "anonymous": 410.0, "mapped": 190.5}`; MiB."""


def sentences(draw: random.Random, count: int) -> list[str]:
    """Sentences of 40 words; some words are common and most are rare, as in a language."""
    words = ["".join(draw.choices(LETTERS, k=draw.randint(2, 6))) for _ in range(2000)]
    weights = [1 / (rank + 2) for rank in range(len(words))]
    return [" ".join(draw.choices(words, weights, k=40)) + "." for _ in range(count)]


def write_model(folder: Path, texts: list[str]) -> None:
    bpe = Tokenizer(BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts,
        BpeTrainer(
            vocab_size=4000, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=special[1], pad_token=special[0], chat_template=TEMPLATE
    )
    raw_model(tokenizer, 0, width=64, layers=2, positions=2048).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_text(path: Path, texts: list[str], answers: int, size: int) -> None:
    """Demonstrations of about 4 kB, all different; only `answers` of the answers are."""
    draw, written, row = random.Random(1), 0, 0
    said = [" ".join(draw.choices(texts, k=20)) for _ in range(answers)]
    with path.open("w") as stream:
        while written < size:
            row += 1
            asked = f"{row}: {draw.choice(texts)}"
            written += stream.write(
                json.dumps({"prompt": asked, "completion": draw.choice(said)}) + "\n"
            )


def run(folder: Path, name: str, text: Path, cache: str) -> Peak:
    """Train three steps on this text; how much memory that took at its fullest."""
    recipe = folder / f"{name}.yaml"
    recipe.write_text(
        yaml.safe_dump(
            {
                "method": "sft",
                "model": {"path": str(folder / "model")},
                "data": str(text),
                "output": str(folder / name),
                "text": {"max_length": 2048, "cache": cache},
                "optim": {"learning_rate": 0.001},
                "run": {"steps": 3, "batch_size": 2},
            }
        )
    )
    environment = {**os.environ, "STROP_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-c", "from strop.cli import main; main()", "train", str(recipe)],
        env=environment,
    )
    own = mapped = 0.0
    while child.poll() is None:
        for one_own, one_mapped in sample(child.pid):
            own, mapped = max(own, one_own), max(mapped, one_mapped)
        time.sleep(EVERY)
    if child.returncode:
        raise SystemExit(f"{name} ended with {child.returncode}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    seconds = time.monotonic() - started
    return {"seconds": seconds, "maxrss": peak, "anonymous": own, "mapped": mapped}


def sample(pid: int) -> Iterator[tuple[float, float]]:
    """MiB that are a process's own, and that it has mapped of files; nothing once it is over."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return
    found = dict(line.split(":", 1) for line in lines)
    if "RssAnon" in found:
        own, mapped = (int(found[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile"))
        yield own, mapped


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--gigabytes", type=float, default=5.0)
    arguments.add_argument("--answers", type=int, default=64)
    arguments.add_argument("--out", type=Path, required=True)
    given = arguments.parse_args()
    folder = given.out / "outgrown"
    folder.mkdir(parents=True)
    try:
        texts = sentences(random.Random(0), 5000)
        write_model(folder / "model", texts)
        large, small = folder / "large.jsonl", folder / "small.jsonl"
        write_text(small, texts, given.answers, int(given.gigabytes * 1e6))
        write_text(large, texts, given.answers, int(given.gigabytes * 1e9))
        runs = (
            ("a thousandth of it, in memory", small, "never"),
            ("a thousandth of it, on disk", small, "always"),
            ("all of it", large, "auto"),
            ("all of it, reused", large, "auto"),
        )
        for number, (name, text, cache) in enumerate(runs):
            peak = run(folder, f"run{number}", text, cache)
            print(f"{name}: {json.dumps({k: round(v) for k, v in peak.items()})}", flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
