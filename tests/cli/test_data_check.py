"""`strop data check` and `strop data stats` as a user meets them."""

from __future__ import annotations

import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from strop.cli.app import app
from strop.curate.check.families.rendering import Rendering
from strop.curate.check.run import CHECKS
from strop.curate.check.show.lines import FIGURES, preview_lines
from strop.curate.check.show.page import PLOTS
from strop.curate.check.stand_in import byte_tokenizer
from strop.data.records import any_record
from strop.errors import UsageError
from strop.text.render import trees
from strop.text.script import asked_of
from strop.types import Origin
from tests.support.checked import chats, pairs, sentence, tasks, thumbs
from tests.support.runs import WriteRows

SECRET = "sk-Zz9Yy8Xx7Ww6Vv5Uu4Tt3Ss2"


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


@pytest.fixture
def biased(write_rows: WriteRows) -> Path:
    """Two hundred pairs of which the chosen one is longer, some nearly the same, one unusable."""
    rows, rng = pairs(200), random.Random(1)
    for row in rows[:150]:
        row["chosen"] += " " + sentence(rng)
    for row in rows[190:]:
        row["rejected"] = row["chosen"] + "!"
    rows[0]["chosen"] += f" my key is {SECRET}"
    rows[5]["chosen"] = ""
    return write_rows("biased.jsonl", rows)


class TestCheck:
    def test_one_json_object(self, biased: Path) -> None:
        result = run("check", biased, "--json")
        assert result.exit_code == 0
        found = json.loads(result.stdout)
        codes = {one["code"]: one for one in found["findings"]}
        assert set(codes) == {"unusable_rows", "length_bias", "near_identical_pairs"}
        assert codes["length_bias"]["severity"] == "warn"
        assert codes["near_identical_pairs"]["examples"][0].startswith(f"{biased}:19")
        assert set(codes["length_bias"]) == {
            "code", "severity", "said", "methods", "fix", "count", "examples",
        }  # fmt: skip
        assert found["rows"] == {
            "rows": 200, "unusable": 1, "kinds": {"empty": 1},
            "first": [f"{biased}:6: empty: `chosen` is empty"],
        }  # fmt: skip
        assert found["length"]["preference"]["auc"]["auc"] > 0.8

    def test_exit_code(self, biased: Path, write_rows: WriteRows) -> None:
        clean = write_rows("clean.jsonl", pairs(200))
        assert run("check", clean, "--fail-on", "warn").exit_code == 0
        assert run("check", biased, "--fail-on", "warn").exit_code == 10
        assert run("check", biased, "--fail-on", "error").exit_code == 0
        assert run("check", biased, "--max-bad", "0").exit_code == 10
        assert "no findings" in run("check", clean).stdout

    def test_a_page_of_a_terminal(self, biased: Path, model_folder: Path) -> None:
        result = run("check", biased, "--tokenizer", model_folder)
        assert max(map(len, result.stdout.splitlines())) <= 100 + len(str(biased))
        for said in ("WARN length_bias", "suffers:", "fix:", f"{biased}:1: what is learnt of it",
                     "tokens are learnt"):  # fmt: skip
            assert said in " ".join(result.stdout.split())
        assert "<<" in result.stdout

    def test_secrets_stand_nowhere(self, biased: Path, tmp_path: Path, model_folder: Path) -> None:
        page = tmp_path / "page.html"
        options = ("--tokenizer", model_folder, "--html", page)
        shown = run("check", biased, *options).stdout + run("check", biased, "--json").stdout
        assert SECRET in biased.read_text()
        assert SECRET not in shown + page.read_text() + page.with_suffix(".json").read_text()
        assert json.loads(page.with_suffix(".json").read_text())["files"] == [str(biased)]
        assert "[hidden]" in shown

    def test_text_of_the_data_is_in_no_finding(self, biased: Path) -> None:
        prompt = json.loads(biased.read_text().splitlines()[0])["prompt"]
        shown = run("check", biased).stdout + run("check", biased, "--json").stdout
        assert prompt[:20] not in shown

    def test_columns_and_eval(self, write_rows: WriteRows) -> None:
        rows = [{"question": row["prompt"], "answer": "5"} for row in tasks(50)]
        data, held_out = write_rows("train.jsonl", rows), write_rows("test.jsonl", rows[:3])
        columns = ("--columns", "prompt=question,completion=answer")
        found = json.loads(run("check", data, "--eval", held_out, *columns, "--json").stdout)
        assert found["prompts"]["kinds"] == {"demonstration": 50}
        assert found["leak"]["leaked"] == 3
        assert run("check", data, "--eval", held_out, *columns).exit_code == 10

    def test_annotators_of_rows_that_are_no_records(self, write_rows: WriteRows) -> None:
        rows = [{"first": n % 2, "second": str(n % 2), "third": None} for n in range(30)]
        path = write_rows("labels.jsonl", rows)
        result = run("check", path, "--annotators", "first,second,third", "--json")
        found = json.loads(result.stdout)
        assert found["annotators"]["pairs"] == {
            "first / second": {"items": 30, "agreement": 1.0, "kappa": 1.0}
        }
        assert result.exit_code == 10  # not one row is usable

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--fail-on", "never"], "give one of: warn, error"),
            (["--scale", "ratio"], "give one of: nominal"),
            (["--columns", "prompt"], "prompt=question"),
            (["--template", "no_such_template"], "name one of: chatml"),
            (["--model", "m", "--tokenizer", "t"], "a model brings its own"),
            (["--annotators", "judge"], "no row has a label in judge"),
        ],
    )
    def test_mistakes(self, biased: Path, options: list[str], said: str) -> None:
        result = run("check", biased, *options)
        assert isinstance(result.exception, UsageError)
        assert said in str(result.exception)

    def test_ches_by_a_model(self, write_rows: WriteRows, model_folder: Path) -> None:
        """A pair of nearly equal answers is as alike as any to the model; the others are not."""
        rows = pairs(12)
        for row in rows:
            row["prompt"], row["chosen"], row["rejected"] = row["prompt"][:20], "one two", "six"
        rows[3]["rejected"] = "one twos"
        path = write_rows("data.jsonl", rows)
        found = json.loads(run("check", path, "--model", model_folder, "--json").stdout)
        assert found["ches"]["pairs"] == 12
        assert found["tokens"]["max_length"] == 128  # the model's positions
        assert len(found["ches"]["highest"]) == 10


class Read(HTMLParser):
    """What a page holds: its tags, and the text outside of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name in ("src", "href") for name, _ in attrs), "it needs a network"

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] != "script":
            self.text += data


def plots(page: str) -> list[list[dict[str, Any]]]:
    """The traces of every plot of a page."""
    return [
        json.JSONDecoder().raw_decode(page[start.end() - 1 :])[0]
        for start in re.finditer(r"Plotly\.newPlot\(\s*\"[\w-]+\",\s*\[", page)
    ]


class TestPage:
    def test_findings_figures_plots_and_marks(
        self, biased: Path, tmp_path: Path, model_folder: Path
    ) -> None:
        path = tmp_path / "page.html"
        result = run("check", biased, "--tokenizer", model_folder, "--html", path)
        assert f"page: {path}" in result.stdout.replace("\n", "")
        page = path.read_text()
        read = Read()
        read.feed(page)
        for said in ("length_bias", "near_identical_pairs", "unusable_rows", "what is learnt"):
            assert said in read.text
        # three rows, two answers each
        assert read.tags.count("mark") == 6
        drawn = plots(page)
        assert [traces[0]["type"] for traces in drawn] == ["box", "scatter", "bar"]
        assert page.count("plotly.js v") == 1

    def test_plots_of_thumbs_and_annotators(self, write_rows: WriteRows, tmp_path: Path) -> None:
        rows = [row | {"a": "x", "b": "y" if n % 3 else "x"} for n, row in enumerate(thumbs(100))]
        rows[1]["prompt"] = rows[0]["prompt"]
        path = tmp_path / "page.html"
        data = write_rows("data.jsonl", rows)
        run("check", data, "--annotators", "a,b", "--html", path)
        prompts, labels, _, _, kappas = plots(path.read_text())
        assert prompts[0]["x"] == ["1", "2"]
        assert labels[0]["x"] == ["liked", "disliked"]
        assert kappas[0]["x"] == ["a / b"]

    def test_every_section_is_said(self) -> None:
        assert set(FIGURES) == set(CHECKS) >= set(PLOTS)


class TestPreview:
    def test_what_is_marked_is_what_training_learns(self, tokenizer: Any) -> None:
        row = chats(1)[0]
        record = any_record(row, Origin("chats.jsonl", 1))
        (tree,) = trees(tokenizer, [asked_of(record)])
        rendering = Rendering(tokenizer, 2048)
        rendering.watch(record)
        rendering.finish()
        (preview,) = rendering.previews
        (segments,) = preview.answers
        (branch,) = tree.branches
        learnt = [one for one in segments if one.learnt]
        assert sum(one.tokens for one in learnt) == sum(branch.supervised)
        assert [one.text for one in learnt] == [
            turn["content"] + "<|end|>" for turn in row["messages"][1::2]
        ]
        between = "".join(one.text for one in segments if not one.learnt)
        assert row["messages"][2]["content"] in between

    def test_colours_or_marks(self, tokenizer: Any) -> None:
        rendering = Rendering(tokenizer, 2048)
        rendering.watch(any_record({"prompt": "2x = 6", "completion": "3"}, Origin("a", 1)))
        rendering.finish()
        plain = [str(line) for line in preview_lines(rendering.previews[0], colours=False)]
        assert plain[1:] == ["  2x = 6", "  answer 1: 2 tokens are learnt", "  <<3<|end|>>>"]
        coloured = list(preview_lines(rendering.previews[0], colours=True))
        assert str(coloured[-1]) == "  3<|end|>"
        assert any("green" in str(span.style) for span in coloured[-1].spans)

    def test_a_template_without_a_model(self, write_rows: WriteRows) -> None:
        path = write_rows("data.jsonl", chats(3))
        result = run("check", path, "--template", "chatml", "--preview", 1)
        assert "<|im_start|>assistant" in result.stdout
        assert "<|im_end|>>>" in result.stdout
        assert "over 2,048" not in result.stdout  # bytes are no model's tokens
        tokenizer = byte_tokenizer("chatml")
        text = "h\u00e9 \u4e2d <|im_end|>"
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


class TestStats:
    def test_figures(self, write_rows: WriteRows, model_folder: Path) -> None:
        path = write_rows("data.jsonl", chats(5) + tasks(3, seed=1))
        found = json.loads(run("stats", path, "--tokenizer", model_folder, "--json").stdout)
        assert found["prompts"]["kinds"] == {"demonstration": 5, "task": 3}
        assert found["prompts"]["unique_prompts"] == 8
        assert found["turns"]["turns"] == {"1": 3, "4": 5}
        assert found["tokens"]["tokenised"] == 8
        assert set(found) == {"files", "rows", "prompts", "sizes", "turns", "tokens"}

    def test_a_table(self, write_rows: WriteRows) -> None:
        """Answers of one to five words: the median has three."""
        rows = [{"prompt": f"ask {n}", "completion": "word " * n} for n in range(1, 6)]
        shown = run("stats", write_rows("data.jsonl", rows)).stdout
        cells = next(line for line in shown.splitlines() if "answer words" in line).split()
        assert cells == ["answer", "words", "1", "2", "3", "4", "5", "5"]
        assert "5 demonstration" in shown
