"""Every form of file a user hands over: valid examples of it, and what reads it."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

import pyarrow
import pyarrow.parquet
import yaml

from strop.data.records import PARSERS
from strop.data.sources import at, read
from strop.demo.model import train_tokenizer
from strop.errors import RegistryError
from strop.evals.gate.verdict import read_verdict, run_gate
from strop.evals.golden.manifest import check_frozen
from strop.evals.lm_eval.log import read_log_samples
from strop.pipeline.graph import graph
from strop.pipeline.state import read_state
from strop.recipe.gate import GateRules, Guardrail
from strop.recipe.loading.load import load, load_recipe
from strop.recipe.pipeline import Pipeline
from strop.recipe.study import Study
from strop.recipe.suite import Suite
from strop.recipe.train.reward import RewardFile
from strop.registry.store import Registry, expect_proof
from strop.rewards.audit.sample import read_completions
from strop.text.render import document_trees, trees
from strop.text.script import asked_of
from strop.types import Document
from tests.faults.mutate import as_json, as_jsonl, noise, odd, torn, zipped
from tests.support import ROOT

DEMO = ROOT / "src/strop/demo/files"
YAMLS = sorted((ROOT / "examples").rglob("*.yaml")) + sorted(DEMO.glob("*.yaml"))
CALLS = [{"id": "1", "type": "function", "function": {"name": "add", "arguments": "{}"}}]
CHAT = [
    {"role": "system", "content": "Answer."},
    {"role": "user", "content": "Solve 2x = 6"},
    {"role": "assistant", "content": "x = 3"},
]
ROWS: dict[str, list[list[Any]]] = {
    "document": [[{"text": "15 / 3 = 5"}, {"text": "2 + 2 = 4", "source": "book"}]],
    "demonstration": [
        [{"prompt": "Solve 2x = 6", "completion": "x = 3", "label": True}] * 2,
        [{"messages": CHAT}, {"messages": [*CHAT, CHAT[1], CHAT[2]]}],
        [{"prompt": CHAT[:2], "completion": CHAT[2:]}],
        [{"messages": [*CHAT[:2], {"role": "assistant", "content": None, "tool_calls": CALLS}]}],
    ],
    "preference": [
        [{"prompt": "2x = 6", "chosen": "x = 3", "rejected": "x = 4", "margin": 0.5}],
        [{"chosen": CHAT, "rejected": [*CHAT[:2], {"role": "assistant", "content": "x = 4"}]}],
        [{"input": {"messages": CHAT[:2]}, "preferred_output": CHAT[2:],
          "non_preferred_output": [{"role": "assistant", "content": "No."}]}],
    ],
    "feedback": [[{"prompt": "2x = 6", "completion": "x = 3", "label": True}]],
    "task": [[{"prompt": "2x = 6", "answer": "3", "level": 2}], [{"prompt": CHAT[:2]}],
             [{"prompt": [{"role": "user", "content": [{"type": "text", "text": "2x = 6"}]}],
               "system": "Solve.", "tools": [{"name": "add", "parameters": {"a": None}}]}]],
}  # fmt: skip
COMPLETIONS: list[list[Any]] = [
    [{"prompt": "2x = 6", "completion": "x = 3", "label": True, "answer": "3"}],
    [{"prompt": CHAT[:2], "completions": ["x = 3", "x = 4"], "labels": [1, 0], "answer": "3"}],
]
SCORES: list[list[Any]] = [
    [{"item": str(n), "score": float(n % 3 == 0)} for n in range(12)],
    [{"task": "a/b", "item": n, "score": 0.5, "cluster": n // 2, "sample": 0, "output": "x",
      "details": {"length": 3.0}, "slices": {"topic": "sums"}} for n in range(12)],
    [{"item": str(n), "score": None if n == 3 else 1} for n in range(12)],
    [{"item": str(n), "score": n % 2, "scale": [0, 1]} for n in range(12)],
]  # fmt: skip
SAMPLES: list[list[Any]] = [
    [{"doc_id": n, "doc": {"question": "?"}, "target": "1", "arguments": [["q", " a"]],
      "resps": [["a"]], "filtered_resps": ["a"], "filter": "none", "metrics": ["acc"],
      "doc_hash": "ab", "acc": 1.0} for n in range(3)],
]  # fmt: skip
RESULTS = {"higher_is_better": {"arc": {"acc": True}}, "results": {}}
VERDICT = {
    "name": "pass", "sentence": "pass", "checks": [], "remarks": [], "slices": [],
    "candidate": {"path": "runs/dpo/final", "sha256": "9b1c"}, "base": None,
}  # fmt: skip
SUMMARY = {
    "suite": "s", "suite_sha256": "aa", "sealed": False, "model": {"path": "m", "sha256": "bb"},
    "reference": None, "not_compared": {"data.jsonl": "gone"},
    "overlap": [{"task": "score", "of": 12, "items": []}], "scores": {}, "figures": {}, "kl": None,
}  # fmt: skip
STATE = {"seen": {"gate": "52ab"}, "attempts": {"dpo": {"number": 2, "key": "9f31"}}, "aside": {}}
MANIFEST = {"files": {"tasks.jsonl": {"sha256": "00", "rows": 1}}}


@dataclass(frozen=True, slots=True)
class Kind:
    """`Kind("recipe.yaml", make, look)`: `make` draws a file's bytes, `look` reads the file."""

    file: str
    make: Callable[[Random], bytes]
    look: Callable[[Path], object]


def _yaml(keys: Sequence[str], rng: Random) -> bytes:
    """A recipe that has these keys, made odd as values or as text."""
    text, values = rng.choice([pair for pair in _recipes() if all(key in pair[1] for key in keys)])
    how = rng.random()
    if how < 0.02:
        return noise(rng)
    return as_json(odd(rng, values)) if how < 0.5 else torn(rng, text.encode())


@cache
def _recipes() -> list[tuple[str, dict[str, Any]]]:
    texts = [path.read_text().replace("$seed", "1") for path in YAMLS]
    return [(text, yaml.load(text, yaml.CSafeLoader)) for text in texts]


def _rows(examples: list[list[Any]], rng: Random) -> bytes:
    rows, how = rng.choice(examples), rng.random()
    if how < 0.02:
        return noise(rng)
    return as_jsonl(odd(rng, rows)) if how < 0.6 else torn(rng, as_jsonl(rows))


def _array(examples: list[list[Any]], rng: Random) -> bytes:
    rows = rng.choice(examples)
    return as_json(odd(rng, rows)) if rng.random() < 0.6 else torn(rng, as_json(rows))


def _object(value: Any, rng: Random) -> bytes:
    return as_json(odd(rng, value)) if rng.random() < 0.6 else torn(rng, as_json(value))


def _zipped(examples: list[list[Any]], rng: Random) -> bytes:
    return zipped(rng, _rows(examples, rng))


def _zstd(examples: list[list[Any]], rng: Random) -> bytes:
    packed = bytes(pyarrow.compress(_rows(examples, rng), codec="zstd", asbytes=True))
    return torn(rng, packed) if rng.random() < 0.5 else packed


def _csv(examples: list[list[Any]], rng: Random) -> bytes:
    rows = odd(rng, rng.choice(examples)) if rng.random() < 0.6 else rng.choice(examples)
    listed = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(listed[0] if listed else ["prompt"])
    for row in listed:
        writer.writerow(json.dumps(v) if isinstance(v, list) else v for v in row.values())
    whole = stream.getvalue().encode("utf-8", "surrogatepass")
    return torn(rng, whole) if rng.random() < 0.5 else whole


def _parquet(examples: list[list[Any]], rng: Random) -> bytes:
    rows = rng.choice(examples)
    if rng.random() < 0.5:
        return torn(rng, _as_parquet(rows))
    changed = odd(rng, rows)
    try:
        return _as_parquet(changed if isinstance(changed, list) else [changed])
    except (pyarrow.ArrowException, AttributeError, TypeError, ValueError, OverflowError):
        return torn(rng, _as_parquet(rows))  # Arrow has no such table


def _as_parquet(rows: list[Any]) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue()


@cache
def _registry() -> bytes:
    """The bytes of a registry with an entry, a promotion and an attempt."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "registry.db"
        store = Registry(path)
        for number in range(2):
            store.promote("algebra", weights=f"9b{number}", path="hub/name", lineage={"base": "m"},
                          verdict=VERDICT, override="because")  # fmt: skip
        store.record_attempt(evidence="5d", suite="s", sealed=True, base="a", candidate="b",
                             verdict="pass")  # fmt: skip
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA journal_mode = DELETE")
        return path.read_bytes()


def _database(rng: Random) -> bytes:
    return noise(rng) if rng.random() < 0.02 else torn(rng, _registry())


@cache
def _tokenizer() -> Any:
    return train_tokenizer(["Solve 2x = 6", "x = 3", "15 / 3 = 5"], vocabulary=300)


def _read_and_render(kind: str, path: Path) -> None:
    """Records as training reads them: parsed, then as tokens."""
    records = read([at(path)], PARSERS[kind])
    for record in records:
        if isinstance(record, Document):
            document_trees(_tokenizer(), record, max_length=16)
    list(trees(_tokenizer(), [asked_of(record) for record in records]))


def _judge(path: Path) -> None:
    """The odd scores against sound ones; a refused gate leaves no half verdict behind."""
    base, output = path.with_name("base.jsonl"), path.with_name("verdict.json")
    base.write_bytes(as_jsonl(SCORES[0]))
    policy = GateRules(guardrails=[Guardrail(score="score", margin=0.1)])
    try:
        run_gate(policy, base, path, output)
        json.loads(output.read_text())
    except BaseException:
        assert not output.exists(), "the gate was refused and left a verdict"
        assert not output.with_suffix(".html").exists(), "the gate was refused and left a page"
        raise
    output.unlink()
    output.with_suffix(".html").unlink()


def _judge_folder(path: Path) -> None:
    """An eval folder whose summary is odd."""
    (path.parent / "records.jsonl").write_bytes(as_jsonl(SCORES[0]))
    policy = GateRules(guardrails=[Guardrail(score="score", margin=0.1)])
    run_gate(policy, path.parent, path.parent)


def _samples(path: Path) -> None:
    path.with_name("results_2025-07-01T10-00-00.1.json").write_bytes(as_json(RESULTS))
    read_log_samples(path)


def _results(path: Path) -> None:
    samples = path.with_name("samples_arc_2025-07-01T10-00-00.1.jsonl")
    samples.write_bytes(as_jsonl(SAMPLES[0]))
    read_log_samples(samples)


def _promote(path: Path) -> None:
    verdict = read_verdict(path)
    with suppress(RegistryError):  # it says what the verdict says, not where that stands
        expect_proof("9b1c", verdict)


def _store(path: Path) -> None:
    store = Registry(path)
    store.entries(), store.events(), store.stacks(), store.attempts()


def _state(path: Path) -> None:
    pipeline = {"name": "p", "registry": str(path.with_name("registry.db")), "stages": [
        {"kind": "train", "name": "sft", "recipe": "sft.yaml"}]}  # fmt: skip
    read_state(Pipeline.model_validate(pipeline))


def _frozen(path: Path) -> None:
    path.with_name("tasks.jsonl").write_text("{}\n")
    check_frozen(path.with_name("tasks.jsonl"))


def _set(path: Path) -> None:
    """`--set` with the file's text as the override."""
    text = path.read_bytes().decode("utf-8", "replace")
    load_recipe(ROOT / "examples/methods/grpo.yaml", [text])


def _override(rng: Random) -> bytes:
    name = rng.choice(("optim.learning_rate", "data", "data.0.path", "reward.0", "seed.a", ""))
    return torn(rng, f"{name}={rng.choice(('1e-5', '[a, b]', '{path: x}', '3'))}".encode())


def _kinds() -> dict[str, Kind]:
    kinds = {
        "recipe": Kind("recipe.yaml", partial(_yaml, ["method"]), load_recipe),
        "pipeline": Kind("pipeline.yaml", partial(_yaml, ["stages"]),
                         lambda path: graph(load(Pipeline, path))),
        "suite": Kind("suite.yaml", partial(_yaml, ["tasks"]), partial(load, Suite)),
        "policy": Kind("policy.yaml", partial(_yaml, ["guardrails"]), partial(load, GateRules)),
        "reward file": Kind("reward.yaml", _reward_file, partial(load, RewardFile)),
        "study": Kind("study.yaml", _study, partial(load, Study)),
        "override": Kind("override.txt", _override, _set),
        "completions": Kind("said.jsonl", partial(_rows, COMPLETIONS), read_completions),
        "scores": Kind("scores.jsonl", partial(_rows, SCORES), _judge),
        "summary": Kind("summary.json", partial(_object, SUMMARY), _judge_folder),
        "lm-eval samples": Kind("samples_arc_2025-07-01T10-00-00.1.jsonl", partial(_rows, SAMPLES),
                                _samples),
        "lm-eval results": Kind("results_2025-07-01T10-00-00.1.json", partial(_object, RESULTS),
                                _results),
        "verdict": Kind("verdict.json", partial(_object, VERDICT), _promote),
        "pipeline state": Kind("registry.p.json", partial(_object, STATE), _state),
        "golden manifest": Kind("golden.json", partial(_object, MANIFEST), _frozen),
        "registry": Kind("registry.db", _database, _store),
    }  # fmt: skip
    forms = {"jsonl": _rows, "json": _array, "jsonl.gz": _zipped, "parquet": _parquet,
             "jsonl.zst": _zstd, "csv": _csv}  # fmt: skip
    for name, examples in ROWS.items():
        for ending, make in forms.items():
            kinds[f"{name} {ending}"] = Kind(
                f"data.{ending}", partial(make, examples), partial(_read_and_render, name)
            )
    return kinds


def _reward_file(rng: Random) -> bytes:
    return _object({"reward": [{"function": "exact_answer", "weight": 1.0}],
                    "probes": {"tasks": 8}}, rng)  # fmt: skip


def _study(rng: Random) -> bytes:
    return _object({"data": "test.jsonl",
                    "serving_temperature": 0.7, "temperatures": [0.7],
                    "scores": [{"function": "exact_answer"}]}, rng)  # fmt: skip


KINDS = _kinds()
WEIGHTS = {"recipe": 8, "pipeline": 2, "suite": 4, "policy": 4, "registry": 4, "scores": 4,
           "verdict": 4, "completions": 4}  # fmt: skip
"""Kinds that are drawn more often than others, and how much."""
