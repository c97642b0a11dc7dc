"""Makes what a scenario describes: files of records, evals, models."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from strop.advise.known.evals import Target
from strop.advise.known.model import ORDINARY
from strop.advise.run import Question
from strop.demo.model import raw_model, train_tokenizer
from strop.files import write_rows

Row = dict[str, Any]
Spec = Mapping[str, Any]

WORDS = (
    "river", "stone", "window", "garden", "letter", "morning", "market", "copper", "winter",
    "harbour", "basket", "meadow", "engine", "silver", "corner", "bridge", "candle", "forest",
    "pepper", "anchor", "village", "blanket", "ladder", "kettle", "orchard",
)  # fmt: skip


def question_of(case: Spec, folder: Path) -> Question:
    """The files of a scenario, written, and the question about them."""
    draw = random.Random(case["name"])
    data = []
    for kind, rows_of in MADE.items():
        if kind in case:
            path = folder / f"{kind}.jsonl"
            write_rows(path, rows_of(case[kind], draw))
            data.append(path)
    target = case.get("target")
    return Question(
        data=tuple(data),
        model=model(case["model"], folder / "model") if "model" in case else None,
        eval=evaluated(case["eval"], folder / "eval") if "eval" in case else None,
        prompted=evaluated(case["prompted"], folder / "prompted") if "prompted" in case else None,
        decode=decoded(case["decode"], folder / "decode") if "decode" in case else None,
        teacher=model(case["teacher"], folder / "teacher") if "teacher" in case else None,
        teacher_eval=(evaluated(case["taught"], folder / "taught") if "taught" in case else None),
        target=None if target is None else Target("greedy/accuracy", target),
        goal=case.get("goal", ""),
        users=case.get("users"),
    )


def text(draw: random.Random, words: int) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(words))


def pairs(spec: Spec, draw: random.Random) -> Iterator[Row]:
    """`rows` pairs of `prompts` prompts, one answer of `long` words and one of `short`, the chosen
    one longer in a share `longer`; a share `near`
    of them with nearly one answer; the first `again` of them a second time, and of those
    `disagree` the other way round; `circles` prompts whose preferences run in a circle."""
    rows, longer = spec["rows"], spec.get("longer", 0.5)
    prompts = spec.get("prompts", rows)
    near, again = round(spec.get("near", 0) * rows), spec.get("again", 0)
    made = []
    for n in range(rows):
        long, short = text(draw, spec.get("long", 20)), text(draw, spec.get("short", 12))
        if n < near:
            long = short = text(draw, 30)
            short = short[:-1] + "x"
        # every stretch of the file has the same share of long chosen answers
        wins = (n + 1) * longer // 1 > n * longer // 1
        made.append({
            "prompt": f"{text(draw, 8)} {n % prompts}",
            "chosen": long if wins else short, "rejected": short if wins else long,
        })  # fmt: skip
    if prompts < rows:
        asked = [row["prompt"] for row in made[:prompts]]
        made = [row | {"prompt": asked[n % prompts]} for n, row in enumerate(made)]
    yield from made
    for n, row in enumerate(made[:again]):
        turned = n < spec.get("disagree", 0)
        yield row | {
            "chosen": row["rejected" if turned else "chosen"],
            "rejected": row["chosen" if turned else "rejected"],
        }
    for n in range(spec.get("circles", 0)):
        a, b, c = (text(draw, 16) for _ in range(3))
        for chosen, rejected in ((a, b), (b, c), (c, a)):
            yield {"prompt": f"circle {n}", "chosen": chosen, "rejected": rejected}


def thumbs(spec: Spec, draw: random.Random) -> Iterator[Row]:
    """`rows` thumbs, a share `liked` of them up; the first `again` twice, `disagree` of them the
    other way round."""
    rows, liked = spec["rows"], spec.get("liked", 0.5)
    made = [
        {"prompt": f"{text(draw, 8)} {n}", "completion": text(draw, 16),
         "label": (n + 1) * liked // 1 > n * liked // 1}
        for n in range(rows)
    ]  # fmt: skip
    yield from made
    for n, row in enumerate(made[: spec.get("again", 0)]):
        yield row | {"label": row["label"] != (n < spec.get("disagree", 0))}


def demonstrations(spec: Spec, draw: random.Random) -> Iterator[Row]:
    for n in range(spec["rows"]):
        yield {"prompt": f"{text(draw, 8)} {n}", "completion": text(draw, 16)}


def tasks(spec: Spec, draw: random.Random) -> Iterator[Row]:
    """`rows` tasks, a share `checkable` of them with an answer."""
    share = spec.get("checkable", 1.0)
    for n in range(spec["rows"]):
        checked = (n + 1) * share // 1 > n * share // 1
        yield {"prompt": f"{text(draw, 8)} {n}"} | ({"answer": str(7 * n)} if checked else {})


def documents(spec: Spec, draw: random.Random) -> Iterator[Row]:
    """`rows` documents: plain prose, or signs that no word of it is made of."""
    for n in range(spec["rows"]):
        if spec["foreign"]:
            yield {"text": "".join(draw.choice("0123456789abcdef;{}") for _ in range(400)) + str(n)}
        else:
            yield {"text": f"{ORDINARY[n % len(ORDINARY)]} {text(draw, 1)}"}


MADE = {"pairs": pairs, "thumbs": thumbs, "demonstrations": demonstrations, "tasks": tasks,
        "documents": documents}  # fmt: skip


def evaluated(spec: Spec, folder: Path) -> Path:
    """An eval of `items` items: greedy answers, `right` of them right; with `samples`, so many
    sampled ones of each item, of which `hits` are right in `lucky` items. `formatted` and
    `finished` are shares of the answers."""
    folder.mkdir()
    rows: list[Row] = []
    items, right = spec["items"], spec["right"]
    for n in range(items):
        rows.append({"task": "greedy/accuracy", "item": str(n), "score": float(n < right),
                     "output": text(random.Random(n), 5)})  # fmt: skip
    for n in range(items if "samples" in spec else 0):
        for sample in range(spec["samples"]):
            hit = n < spec.get("lucky", 0) and sample < spec.get("hits", 1)
            rows.append({"task": "sampled/accuracy", "item": str(n), "sample": sample,
                         "score": float(hit),
                         "output": text(random.Random(sample), 5)})  # fmt: skip
            if "formatted" in spec:
                formed = sample < spec["formatted"] * spec["samples"]
                rows.append({"task": "sampled/format", "item": str(n), "sample": sample,
                             "score": float(formed)})  # fmt: skip
    write_rows(folder / "records.jsonl", rows)
    figures = {"finished": spec.get("finished", 1.0), "answered": 1.0, "entropy": 1.0}
    summary = {"suite": "made", "figures": {"greedy": figures, "sampled": figures}}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def decoded(spec: Spec, folder: Path) -> Path:
    """A decoding study in which the base reaches these accuracies by a vote: `{8 = 0.9}`."""
    folder.mkdir()
    rows = [{"model": "base", "method": "greedy", "k": 1, "accuracy": 0.99},
            {"model": "base", "method": "pass", "k": 2, "accuracy": 0.99}]  # fmt: skip
    rows += [{"model": "base", "method": "maj", "k": int(k), "accuracy": accuracy}
             for k, accuracy in spec.items()]  # fmt: skip
    (folder / "decode.json").write_text(json.dumps({"rows": rows}))
    return folder


def model(spec: Spec, folder: Path) -> Path:
    """A tiny model: with a chat template or without; with `log`, the final one of an SFT whose loss
    was `"falling"` or `"flat"`. A `wide` one is larger; `tokens` is how many its tokenizer has."""
    run = folder
    folder = folder / "final"
    tokenizer = train_tokenizer(ORDINARY, vocabulary=spec.get("tokens", 600))
    width = spec.get("wide", 16)
    raw_model(tokenizer, 0, width=width, layers=1, positions=512).save_pretrained(folder)
    if not spec.get("chat", False):
        tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    if "log" in spec:
        draw = random.Random(0)
        falls = {"falling": 0.02, "flat": 0.0}[spec["log"]]
        losses = [2.0 - falls * step + draw.gauss(0, 0.02) for step in range(60)]
        write_rows(run / "metrics.jsonl",
                   [{"step": n + 1, "loss": loss} for n, loss in enumerate(losses)])  # fmt: skip
        lineage = {"method": "sft", "parent": {"path": "base", "sha256": "0"}, "data": []}
        (run / "lineage.json").write_text(json.dumps(lineage))
    return folder
