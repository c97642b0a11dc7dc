"""Bad rows, paths and recipes are refused: each odd file that may be handed over, by name.

Every refusal is a `StropError` with the file, the place in it and a fix; nothing hangs, nothing
fills the memory. `tests/faults/fuzz.py` draws odd files by the thousand.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from strop.data.json_text import DEEPEST, parsed
from strop.data.records import PARSERS
from strop.data.sources import at, data_hash, read, rows
from strop.errors import DataError, RecipeError, StropError
from strop.evals.gate.verdict import read_verdict
from strop.evals.records import read_records
from strop.recipe.loading.load import load_recipe
from strop.recipe.loading.yaml_text import parsed as parsed_yaml
from strop.registry.store import Registry
from strop.types import Origin
from tests.support.refusals import GOOD, RECIPE, refused


def read_bytes(folder: Path, held: bytes, name: str = "rows.jsonl") -> list[Any]:
    path = folder / name
    path.write_bytes(held)
    return read([at(path)], PARSERS["demonstration"])


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
            assert len(read([at(path)], PARSERS["demonstration"])) == 1

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            ("/dev/zero", "no regular file"),
            ("/nowhere", "no such file"),
            ("loop.jsonl", "no such file"),
            (".", "no regular file"),
        ],
    )
    def test_links_to_what_is_no_file(self, tmp_path: Path, target: str, message: str) -> None:
        link = tmp_path / "loop.jsonl"
        link.symlink_to(target)
        with refused(DataError, message):
            list(rows(link if target != "." else tmp_path))

    @pytest.mark.parametrize("look", [lambda p: list(rows(p)), lambda p: data_hash([p])])
    def test_devices_and_pipes(self, tmp_path: Path, look: Callable[[Path], Any]) -> None:
        pipe = tmp_path / "pipe.jsonl"
        os.mkfifo(pipe)
        for path in (pipe, tmp_path):
            with refused(DataError, "no regular file"):
                look(path)
        with refused(DataError, "zero: unknown kind"):
            look(Path("/dev/zero"))

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
        with refused(DataError, "this is a folder of another kind"):
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
