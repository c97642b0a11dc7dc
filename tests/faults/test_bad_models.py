"""Odd model folders, templates and files of scores are refused, by name."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from strop.errors import (
    DataError,
    MissingEvidenceError,
    ModelError,
    RegistryError,
    StropError,
    TextError,
)
from strop.evals.gate.verdict import read_verdict, run_gate
from strop.evals.golden.manifest import check_frozen
from strop.evals.records import read_records
from strop.model.load import load_for_inference, load_tokenizer
from strop.recipe.gate import GateRules, Guardrail
from strop.registry.store import Registry, expect_proof
from strop.rewards.audit.sample import read_completions
from strop.text.render import prompt_ids, trees
from strop.text.script import asked_of
from strop.types import Demonstration, Origin
from tests.support.refusals import GOOD, refused

POLICY = GateRules(guardrails=[Guardrail(score="score", margin=0.1)])


@pytest.fixture
def odd_model(model_folder: Path, tmp_path: Path) -> Path:
    """A copy of the small model to be damaged."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in model_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


class TestModels:
    """Model folders from anywhere."""

    def test_pickled_weights_under_a_safetensors_name(self, odd_model: Path) -> None:
        """They are parsed as safetensors and refused; nothing in them is run."""

        class Trap:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.mkdir, (str(odd_model / "sprung"),)

        (odd_model / "model.safetensors").write_bytes(pickle.dumps(Trap()))
        with refused(ModelError, "cannot load the model", seconds=20):
            load_for_inference(str(odd_model))
        assert not (odd_model / "sprung").exists()

    @pytest.mark.parametrize(
        ("file", "held"),
        [
            ("config.json", b""),
            ("config.json", b'{"architectures": 7}'),
            ("config.json", b'{"model_type": "qwen3", "hidden_size": "wide"}'),
            ("config.json", b"[" * 100_000),
            ("tokenizer.json", b"{}"),
            ("tokenizer.json", b'{"model": {"type": "BPE", "vocab": 3}}'),
            ("adapter_config.json", b""),
            ("adapter_config.json", b'{"peft_type": 7}'),
            ("model.safetensors", b""),
            ("model.safetensors", b"\xff" * 64),
        ],
    )
    def test_damaged_files(self, odd_model: Path, file: str, held: bytes) -> None:
        (odd_model / file).write_bytes(held)
        with refused(StropError, str(odd_model), seconds=20):
            load_for_inference(str(odd_model))

    def test_a_link_out_of_the_folder(self, odd_model: Path, tmp_path: Path) -> None:
        """A copied model could bring in any file of this machine, so a link may not lead out; one
        to the hub cache's own `blobs` may, since the hub's cache is built of those."""
        weights = odd_model / "model.safetensors"
        (tmp_path / "elsewhere").write_bytes(weights.read_bytes())
        weights.unlink()
        weights.symlink_to(tmp_path / "elsewhere")
        with refused(ModelError, "leads out of the model folder"):
            load_for_inference(str(odd_model))
        hub = tmp_path / "hub/snapshots/rev"
        (tmp_path / "hub/blobs").mkdir(parents=True)
        hub.parent.mkdir()
        odd_model.rename(hub)
        (tmp_path / "elsewhere").rename(tmp_path / "hub/blobs/9f")
        (hub / "model.safetensors").unlink()
        (hub / "model.safetensors").symlink_to("../../blobs/9f")
        assert load_for_inference(str(hub)).tokenizer.eos_token == "<|end|>"

    def test_a_tokenizer_larger_than_the_model(self, odd_model: Path) -> None:
        tokenizer = load_tokenizer(str(odd_model))
        tokenizer.add_tokens([f"<extra{n}>" for n in range(9)])
        tokenizer.save_pretrained(odd_model)
        with refused(ModelError, r"knows ids up to \d+ but the model has \d+ embeddings"):
            load_for_inference(str(odd_model))

    def test_a_tokenizer_without_an_end(self, odd_model: Path) -> None:
        config = json.loads((odd_model / "tokenizer_config.json").read_text())
        (odd_model / "tokenizer_config.json").write_text(json.dumps({**config, "eos_token": None}))
        with refused(ModelError, "no end-of-sequence token"):
            load_tokenizer(str(odd_model))

    def test_a_file_and_nothing(self, odd_model: Path) -> None:
        for path, message in ((odd_model / "config.json", "this is a file"),
                              (odd_model / "none", "no such model folder")):  # fmt: skip
            with refused(ModelError, message):
                load_for_inference(str(path))


CHAT = [{"role": "user", "content": "2x = 6"}]


LONG = "{% for a in range(100) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


class TestTemplates:
    """Chat templates are programs that come with a model."""

    @pytest.mark.parametrize(
        ("template", "message"),
        [
            ("{% for i in range(10**9) %}{% endfor %}", "cannot render .*[Rr]ange too big"),
            ("{{ messages[7]['content'] }}", "cannot render .*no element 7"),
            ("{{ 1 / 0 }}", "cannot render .*division"),
            ("{{ 'a' + 1 }}", "cannot render"),
            ("{% if %}", "cannot render"),
            ("{{ ''.__class__.__mro__ }}", "cannot render .*unsafe"),
            ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "cannot render .*recursion"),
        ],
    )
    def test_errors_name_the_record(self, tokenizer: Any, template: str, message: str) -> None:
        changed = type(tokenizer)(
            tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|end|>",
            chat_template=template,
        )  # fmt: skip
        with refused(TextError, f"rows.jsonl:3: the chat template {message}"):
            prompt_ids(changed, CHAT, where="rows.jsonl:3")

    def test_a_template_that_loops(self, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """jinja2's sandbox bounds a `range`, not loops in loops. These end after some seconds, so
        that the thread left behind ends too."""
        changed = copy.deepcopy(tokenizer)
        changed.chat_template = LONG
        monkeypatch.setattr("strop.text.render.TEMPLATE_SECONDS", 0.1)
        before = set(threading.enumerate())
        with refused(TextError, r"rows.jsonl:3: the chat template did not end within 0.1 s"):
            prompt_ids(changed, CHAT, where="rows.jsonl:3")
        (left,) = set(threading.enumerate()) - before
        assert left.daemon, "it must not keep the program from ending"
        left.join(60)
        assert not left.is_alive()

    def test_half_a_surrogate_pair_that_no_file_held(self, tokenizer: Any) -> None:
        record = Demonstration("2x = 6", "x = \ud800", {}, Origin("rows.jsonl", 4))
        with refused(TextError, "rows.jsonl:4: .*surrogate pair"):
            list(trees(tokenizer, [asked_of(record)]))


class TestScores:
    """Files that the gate and the registry read; each was a traceback once."""

    @pytest.mark.parametrize("summary", ["7", '{"overlap": 7}', '{"model": []}', "{", "\ufeff"])
    def test_summaries(self, tmp_path: Path, summary: str) -> None:
        (tmp_path / "records.jsonl").write_text('{"item": "1", "score": 1}\n')
        (tmp_path / "summary.json").write_text(summary)
        with refused(DataError, "summary.json"):
            run_gate(POLICY, tmp_path, tmp_path)

    @pytest.mark.parametrize(
        "row",
        [
            '{"item": "1", "score": NaN}',
            '{"item": "1", "score": 1e999}',
            '{"item": "1", "score": 1, "details": 3}',
            '{"item": "1", "score": 1, "output": "\\ud800"}',
            '{"item": "1", "score": 1, "score": 0}',
        ],
    )
    def test_rows(self, tmp_path: Path, row: str) -> None:
        (tmp_path / "scores.jsonl").write_text(f'{{"item": "0", "score": 1}}\n{row}\n')
        with refused(DataError, "scores.jsonl:2: "):
            read_records(tmp_path / "scores.jsonl")

    def test_messages_stay_short(self, tmp_path: Path) -> None:
        """A file with a score name, or a column, of 5,000 characters."""
        odd = tmp_path / "odd.jsonl"
        odd.write_text(json.dumps({"item": "1", "score": 1, "task": "a" * 5000}))
        with pytest.raises(StropError, match="it has aaa") as caught:
            run_gate(POLICY, odd, odd)
        odd.write_text(json.dumps({"a" * 5000: 1}))
        with pytest.raises(DataError, match="needs `prompt`") as told:
            read_completions(odd)
        assert max(len(str(caught.value)), len(str(told.value))) < 1000

    @pytest.mark.parametrize("verdict", ["", "[]", "{}", "[" * 100_000, '{"name": 1, "name": 2}'])
    def test_verdicts(self, tmp_path: Path, verdict: str) -> None:
        (tmp_path / "verdict.json").write_text(verdict)
        with refused(DataError, "verdict.json"):
            read_verdict(tmp_path / "verdict.json")

    def test_a_golden_set_behind_a_link(self, tmp_path: Path) -> None:
        """A frozen set is its bytes: a link out of its folder passes while the file that it leads
        to has the frozen hash, and not one byte later."""
        frozen = tmp_path / "elsewhere.jsonl"
        frozen.write_bytes(GOOD)
        listed = {"tasks.jsonl": {"sha256": hashlib.sha256(GOOD).hexdigest()}}
        (tmp_path / "golden.json").write_text(json.dumps({"files": listed}))
        (tmp_path / "tasks.jsonl").symlink_to(frozen)
        check_frozen(tmp_path / "tasks.jsonl")
        frozen.write_bytes(GOOD + b"\n")
        with refused(MissingEvidenceError, "changed since it was frozen"):
            check_frozen(tmp_path / "tasks.jsonl")

    def test_a_verdict_whose_candidate_is_no_model(self) -> None:
        with pytest.raises(RegistryError, match="for other weights"):
            expect_proof("9b1c", {"name": "pass", "candidate": 7})

    @pytest.mark.parametrize(
        ("statement", "message"),
        [
            ("INSERT INTO entries VALUES ('a','b','c','{','{}','{}','me','now','null')", "no JSON"),
            ("INSERT INTO events VALUES (9,'n','rollback','a',NULL,'me','now')", "takes back noth"),
            ("INSERT INTO entries VALUES ('a','b',CAST(x'ff' AS TEXT),'{}','{}','{}','','','{}')",
             "decode"),
        ],
    )  # fmt: skip
    def test_registries(self, tmp_path: Path, statement: str, message: str) -> None:
        path = tmp_path / "registry.db"
        store = Registry(path)
        store.record_attempt(evidence="5d", suite="s", sealed=True, base="a", candidate="b",
                             verdict="pass")  # fmt: skip
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA foreign_keys = OFF")
            db.execute(statement)
        with refused(RegistryError, message):
            store.entries(), store.stacks()
