"""Bad input is refused: each odd file a person or a machine may hand over, by name.

Every refusal is a `StropError` with the file, the place in it and a fix; nothing hangs, nothing
fills the memory. `tests/faults/fuzz.py` draws odd files by the thousand.
"""

from __future__ import annotations

import copy
import gzip
import hashlib
import json
import os
import pickle
import re
import resource
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from strop.data.json_text import DEEPEST, parsed
from strop.data.records import PARSERS
from strop.data.sources import data_hash, read, rows
from strop.errors import (
    DataError,
    MissingEvidenceError,
    ModelError,
    RecipeError,
    RegistryError,
    StropError,
    TextError,
)
from strop.evals.gate.verdict import read_verdict, run_gate
from strop.evals.golden.manifest import check_frozen
from strop.evals.records import read_records
from strop.model.load import load_for_inference, load_tokenizer
from strop.recipe.gate import Guardrail, Policy
from strop.recipe.loading.load import load_recipe
from strop.recipe.loading.yaml_text import parsed as parsed_yaml
from strop.registry.store import Registry, expect_proof
from strop.rewards.audit.sample import read_completions
from strop.text.render import prompt_ids, trees
from strop.text.script import asked_of
from strop.types import Demonstration, Origin
from tests.faults.fuzz import faults_of, run
from tests.support.clocks import at_most

POLICY = Policy(guardrails=[Guardrail(score="score", margin=0.1)])
GOOD = b'{"prompt": "2x = 6", "completion": "x = 3"}\n'
RECIPE = """
method: sft
output: runs/sft
model: {path: model}
data: sft.jsonl
optim: {learning_rate: 1.0e-5}
run: {steps: 3, batch_size: 2}
"""


@contextmanager
def refused(error: type[StropError], message: str, *, seconds: float = 5.0) -> Iterator[None]:
    """The block raises this error in time, with these words, a place and a fix."""
    with at_most(seconds), pytest.raises(error, match=message) as caught:
        yield
    assert caught.value.where, "no place"
    assert caught.value.fix, "no fix"


def read_bytes(folder: Path, held: bytes, name: str = "rows.jsonl") -> list[Any]:
    path = folder / name
    path.write_bytes(held)
    return read([path], PARSERS["demonstration"])


def load_text(folder: Path, text: str | bytes) -> Any:
    path = folder / "recipe.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_recipe(path)


def nested(depth: int) -> bytes:
    return b'{"prompt": ' + b"[" * depth + b"]" * depth + b"}\n"


class TestRows:
    """Data files, line by line."""

    @pytest.mark.parametrize(
        ("held", "message"),
        [
            (b"", "holds no records"),
            (b"\n \n", "holds no records"),
            (GOOD + b"{", r"rows.jsonl:2: broken JSON"),
            (GOOD.decode().encode("utf-16"), r"rows.jsonl:1: not UTF-8"),
            (GOOD.decode().encode("utf-16-le"), r"rows.jsonl:1: broken JSON"),
            (GOOD + b"\x00\n", r"rows.jsonl:2: broken JSON"),
            (GOOD + b'"\xff"\n', "not UTF-8"),
            (GOOD + nested(100_000), r"rows.jsonl:2: broken JSON: nested deeper than 100 levels"),
            (GOOD + nested(DEEPEST), r"rows.jsonl:2: broken JSON: nested deeper than 100 levels"),
            (
                b'{"prompt": "a", "prompt": "b", "completion": "c"}',
                "the key 'prompt' appears twice",
            ),
            (b'{"prompt": "\\ud800", "completion": "c"}', r"rows.jsonl:1: .*surrogate pair"),
            (b'{"prompt": "a", "completion": "c", "n": ' + b"9" * 5000 + b"}", "broken JSON"),
            (b'{"prompt": "  ", "completion": "c"}', "`prompt` is empty"),
            (b'{"prompt": 1e999, "completion": "c"}', "`prompt` is neither text nor"),
            (b'{"prompt": "a", "completion": true}', "`completion` is neither text nor"),
            (b'{"prompt": [{"role": "user", "content": [1]}], "completion": "c"}', "is no text"),
            (b'{"messages": [{"role": "assistant", "tool_calls": 7}]}', "no list of objects"),
            (b"[]\n", "not a JSON object"),
        ],
        ids=lambda value: None if isinstance(value, str) else value[:24].decode("latin-1"),
    )
    def test_refused_by_line(self, tmp_path: Path, held: bytes, message: str) -> None:
        with refused(DataError, message):
            read_bytes(tmp_path, held)

    def test_a_byte_order_mark_is_no_part_of_the_text(self, tmp_path: Path) -> None:
        (record,) = read_bytes(tmp_path, b"\xef\xbb\xbf" + GOOD)
        assert record.prompt == "2x = 6"

    def test_whole_surrogate_pairs_are_characters(self, tmp_path: Path) -> None:
        (record,) = read_bytes(tmp_path, b'{"prompt": "\\ud83d\\ude00", "completion": "c"}')
        assert record.prompt == "😀"

    def test_the_deepest_row_that_is_read(self) -> None:
        """Objects and lists of `DEEPEST` levels are read, one more is not."""
        text = "[" * DEEPEST + "]" * DEEPEST
        assert json.dumps(parsed(text, "here")) == text
        with refused(DataError, "nested deeper"):
            parsed(f"[{text}]", "here")

    @pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
    def test_a_line_of_50_mb(self, tmp_path: Path, name: str) -> None:
        """Refused before it is held whole, also where 50 kB of gzip unpack to it."""
        path = tmp_path / name
        line = b'{"prompt": "' + b"a" * 50_000_000 + b'", "completion": "c"}\n'
        path.write_bytes(gzip.compress(line, 1) if name.endswith("gz") else line)
        del line
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with refused(DataError, rf"{name}:1: the line is longer than 16 million"):
            list(rows(path))
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 100_000, f"{grown} kB more memory"

    @pytest.mark.parametrize("cut", [10, 30])
    def test_damaged_gzip(self, tmp_path: Path, cut: int) -> None:
        packed = gzip.compress(GOOD * 50)
        with refused(DataError, "cannot read the file"):
            read_bytes(tmp_path, packed[:-cut], "rows.jsonl.gz")
        with refused(DataError, "cannot read the file|not UTF-8"):
            read_bytes(tmp_path, packed[:20] + b"\xff\xff" + packed[22:], "rows.jsonl.gz")

    @pytest.mark.parametrize("held", [b"", b"PAR1", b"PAR1" + b"\x00" * 40 + b"PAR1", GOOD])
    def test_what_is_no_parquet(self, tmp_path: Path, held: bytes) -> None:
        with refused(DataError, "not a Parquet file"):
            read_bytes(tmp_path, held, "rows.parquet")

    def test_a_damaged_dataset_folder(self, tmp_path: Path) -> None:
        (tmp_path / "state.json").write_text("{}")
        with refused(DataError, "not a saved dataset"):
            list(rows(tmp_path))

    @settings(max_examples=200, deadline=None)
    @given(st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
            st.sampled_from(["prompt", "completion", "messages", "role", "content", "chosen",
                             "rejected", "label", "text", "tool_calls"]), inner, max_size=4),
        max_leaves=12,
    ))  # fmt: skip
    def test_any_row_is_a_record_or_refused(self, value: Any) -> None:
        """Of every parser; what is read has a prompt or a text that says something."""
        row, origin = value if isinstance(value, dict) else {"prompt": value}, Origin("rows", 1)
        for parse in PARSERS.values():
            try:
                record: Any = parse(row, origin)
            except DataError as error:
                said: Any = error.fix if str(error).startswith("rows:1: ") else None
            else:
                said = getattr(record, "prompt", None) or getattr(record, "text", None)
                said = said or record.completion  # a conversation may begin with the assistant
            assert said


class TestPaths:
    """A data path that the user names may lie anywhere, behind `..` and links too; but it is a
    regular file or a folder of such files, since it is read more than once."""

    def test_up_and_through_links(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "rows.jsonl").write_bytes(GOOD)
        (tmp_path / "a/link.jsonl").symlink_to(tmp_path / "rows.jsonl")
        for path in (tmp_path / "a/../rows.jsonl", tmp_path / "a/link.jsonl", tmp_path / "a"):
            assert len(read([path], PARSERS["demonstration"])) == 1

    @pytest.mark.parametrize("target", ["/dev/zero", "/nowhere", "loop.jsonl", "."])
    def test_links_to_what_is_no_file(self, tmp_path: Path, target: str) -> None:
        link = tmp_path / "loop.jsonl"
        link.symlink_to(target)
        with refused(DataError, r"no regular file|no such file|holds no data|cannot read"):
            list(rows(link if target != "." else tmp_path))

    @pytest.mark.parametrize("look", [lambda p: list(rows(p)), lambda p: data_hash([p])])
    def test_devices_and_pipes(self, tmp_path: Path, look: Callable[[Path], Any]) -> None:
        pipe = tmp_path / "pipe.jsonl"
        os.mkfifo(pipe)
        for path in (pipe, tmp_path, Path("/dev/zero")):
            with refused(DataError, "no regular file|unknown kind"):
                look(path)

    def test_long_names_and_a_folder_below_a_file(self, tmp_path: Path) -> None:
        with refused(DataError, "cannot read it: File name too long"):
            list(rows(tmp_path / ("a" * 300)))
        (tmp_path / "rows.jsonl").write_bytes(GOOD)
        with refused(DataError, "no such file"):
            list(rows(tmp_path / "rows.jsonl/rows.jsonl"))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    def test_without_permission(self, tmp_path: Path) -> None:
        (tmp_path / "rows.jsonl").write_bytes(GOOD)
        (tmp_path / "rows.jsonl").chmod(0)
        with refused(DataError, "cannot read the file"):
            list(rows(tmp_path / "rows.jsonl"))

    def test_other_files_that_are_none(self, tmp_path: Path) -> None:
        """Recipes, scores, verdicts and registries: a folder, a pipe and an endless device."""
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        for path in (pipe, Path("/dev/zero"), tmp_path):
            with refused(RecipeError, "cannot read the file: it is a"):
                load_recipe(path)
            with refused(DataError, "cannot read the file: it is a"):
                read_verdict(path)
            with refused(StropError, "no registry here"):
                Registry(path).entries()
        with refused(DataError, "cannot read the file: it is a"):
            read_records(pipe)
        with refused(DataError, "cannot read the file: No such file"):
            read_records(tmp_path)


def bomb(levels: int, text: str = "[{0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}]") -> str:
    """Each level holds the one below nine times."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} {text.format(f'*a{n - 1}')}" for n in range(1, levels)]
    return "\n".join(lines)


class TestYaml:
    """Recipes and all else that is written in YAML."""

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "expected `key: value` lines"),
            ("\ufeff", "expected `key: value` lines"),
            ("just words", "expected `key: value` lines"),
            (RECIPE.encode("utf-16"), "not UTF-8"),
            (RECIPE + "a: \x00", r"yaml:8: not valid YAML: special characters are not allowed"),
            (RECIPE + "\tseed: 1", r"yaml:8: not valid YAML: .*'\\t'"),
            (RECIPE + "seed: !!python/object/apply:os.system [id]", r"yaml:8: .*python/object"),
            (RECIPE + f"seed: !!i{'9' * 5000} 1", r"yaml:8: .{40,240}\n"),
            (RECIPE + "seed: !!int x", r"yaml:8: not valid YAML: 'x' is no int"),
            (RECIPE + "seed: 2024-13-45", r"yaml:8: .*'2024-13-45' is no timestamp"),
            (RECIPE + "seed: 2024-11-21", r"yaml:8: `seed`: .*valid integer"),
            (RECIPE + "seed: " + "9" * 5000, r"yaml:8: not valid YAML: .* is no int"),
            (RECIPE + "seed: 0x" + "f" * 5000, r"yaml:8: .*more than 64 bits"),
            (RECIPE + "seed: true", r"yaml:8: `seed`: Input should be a valid integer"),
            (RECIPE + "output: a\noutput: b", r"yaml:8: the key `output` appears twice"),
            (RECIPE + "1: 2", "Keys should be strings"),
            (RECIPE + "? [a]\n: b", r"yaml:8: .*unhashable key"),
            (RECIPE + "seed: &a [*a]", r"yaml:8: .*holds itself"),
            (RECIPE + bomb(12), r"yaml:\d+: .*more than 100000 values"),
            (RECIPE + bomb(12, "{{<<: [{0}, {0}, {0}, {0}, {0}, {0}]}}"), "than 100000 values"),
            (RECIPE + "seed: " + "[" * 100_000, "nested too deeply"),
            (RECIPE + "seed: " + "[" * 150 + "]" * 150, "100 levels"),
            (RECIPE + "# " + "a" * 300_000, "longer than 256 KiB"),
            (RECIPE.replace("1.0e-5", "1e999"), "`optim.learning_rate`: .*finite number"),
            (RECIPE.replace("1.0e-5", ".nan"), "`optim.learning_rate`: .*finite number"),
            (RECIPE.replace("1.0e-5", "true"), "`optim.learning_rate`: .*valid number"),
            (RECIPE.replace("steps: 3", "steps: yes"), "`run.steps`: .*valid integer"),
            (RECIPE.replace("runs/sft", "~nobody-by-this-name/x"), "no path can be made of it"),
            (RECIPE.replace("runs/sft", '"a\\0b"'), "embedded null byte"),
            (RECIPE.replace("runs/sft", '"\\ud800"'), "'.*' is no str"),
            (RECIPE.replace("runs/sft", "a" * 5000), "`output`: .*a name of it is too long"),
            (RECIPE.replace("runs/sft", "2024-11-21"), "`output`: .*valid string"),
        ],
        ids=range(32),
    )  # fmt: skip
    def test_refused_by_line(self, tmp_path: Path, text: str | bytes, message: str) -> None:
        with refused(RecipeError, message):
            load_text(tmp_path, text)

    def test_a_byte_order_mark_and_aliases_are_fine(self, tmp_path: Path) -> None:
        shared = RECIPE.replace("steps: 3", "steps: &n 3").replace("size: 2", "size: *n")
        recipe = load_text(tmp_path, "\ufeff" + shared)
        assert recipe.run.batch_size == recipe.run.steps == 3

    def test_every_wrong_value_in_one_message_of_bounded_length(self, tmp_path: Path) -> None:
        text = RECIPE + "\n".join(f"{'k' * 500}{n}: 1" for n in range(300))
        with pytest.raises(RecipeError, match="unknown key") as caught:
            load_text(tmp_path, text)
        assert str(caught.value).count("unknown key") == 20
        assert len(str(caught.value)) < 20_000

    @pytest.mark.parametrize(
        "override",
        ["seed=[", "seed=!!int x", "seed=" + "[" * 2000, "data.\u00b2=1", "=", "method.a=1"],
    )
    def test_overrides(self, tmp_path: Path, override: str) -> None:
        (tmp_path / "recipe.yaml").write_text(RECIPE)
        with pytest.raises(RecipeError, match=r"--set[\s\S]*fix: "):
            load_recipe(tmp_path / "recipe.yaml", [override])

    @settings(max_examples=300, deadline=None)
    @given(
        st.text(alphabet=st.sampled_from("ab01 \n\t:-[]{}&*!|>'\"#,?<~%@`\\.\u2028é"), max_size=40)
    )
    def test_any_text_is_plain_values_or_refused(self, text: str) -> None:
        """What is read is what PyYAML alone reads of it."""
        try:
            values, _ = parsed_yaml(text, "here")
        except RecipeError as error:
            told = str(error).startswith("here") and bool(error.fix)
        else:
            told = repr(values) == repr(yaml.safe_load(text))
        assert told


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


COMMANDS = [
    "train odd.yaml --dry-run",
    "run odd.yaml --dry-run",
    "gate --base odd.jsonl --candidate odd.jsonl --margin 0.1 --output verdict.json",
    "reward check odd.jsonl --recipe reward.yaml",
]
PROGRAM = """
import sys
from strop.cli import main
for command in sys.argv[1:]:
    sys.argv = ["strop", *command.split()]
    try:
        main()
    except SystemExit as end:
        print(f"end of {command}: {end.code}", file=sys.stderr)
"""


def test_the_program_prints_one_message_and_writes_nothing(tmp_path: Path) -> None:
    """Four commands (in one process, for the sake of start-up): exit code 2, no traceback."""
    (tmp_path / "odd.yaml").write_text(RECIPE + "seed: !!int x\n")
    (tmp_path / "odd.jsonl").write_bytes(b'{"item": "1", "score": 1, "prompt": "\\ud800"}\n')
    (tmp_path / "reward.yaml").write_text("reward: [{function: exact_answer}]\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *COMMANDS],
        capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr + done.stdout
    said = re.findall(
        r"strop: odd\.(?:yaml|jsonl):\d+: .*\n  fix: .*\nend of (.*): 2\n", done.stderr
    )
    assert said == COMMANDS
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_two_thousand_drawn_inputs() -> None:
    """The first 2,000 of the fuzzer; `make chaos` draws 100,000."""
    found = run(2000, seed=0, jobs=1)
    assert len(found) == 2000
    assert len({row["kind"] for row in found}) > 30
    assert {"read", "refused"} == {row["ending"] for row in found}
    assert faults_of(found) == []
