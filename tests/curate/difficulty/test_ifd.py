"""IFD is exact: against cross-entropies that transformers computes by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from strop.curate.difficulty.ifd import difficulties
from strop.curate.manifest import sources_of
from strop.curate.underway import Underway
from strop.data.records import any_record
from strop.demo.world import all_equations, assistant, solution, user
from strop.engines.local.engine import LocalEngine
from strop.errors import DataError
from strop.types import Demonstration, Origin, Record
from tests.support.planned import read_jsonl, strop
from tests.support.runs import WriteRows

EQUATIONS = all_equations()[::997][:6]


def loss(model: Any, context: list[int], answer: list[int]) -> float:
    """Mean cross-entropy of the answer's tokens after a context, as transformers has it."""
    ids = torch.tensor([[*context, *answer]])
    labels = torch.tensor([[-100] * len(context) + answer])
    with torch.no_grad():
        return float(model(input_ids=ids, labels=labels).loss)


@pytest.fixture
def engine(model_folder: Path) -> LocalEngine:
    return LocalEngine(str(model_folder))


def values(records: list[Record], engine: LocalEngine) -> list[float | None]:
    return [value for _, value in difficulties(records, engine, Underway(None))]


def record(**row: Any) -> Record:
    return any_record(row, Origin("a.jsonl", 1))


class TestExact:
    def test_plain_text(self, engine: LocalEngine, model_folder: Path) -> None:
        model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(model_folder)
        rows: list[Record] = [record(prompt=e.question, completion=solution(e)) for e in EQUATIONS]
        nothing = tokenizer.bos_token_id or tokenizer.eos_token_id
        for e, value in zip(EQUATIONS, values(rows, engine), strict=True):
            answer = [*tokenizer(solution(e), add_special_tokens=False).input_ids,
                      tokenizer.eos_token_id]  # fmt: skip
            asked = loss(model, tokenizer(e.question).input_ids, answer)
            assert value == pytest.approx(asked / loss(model, [nothing], answer), rel=1e-5)

    def test_chat(self, engine: LocalEngine, model_folder: Path) -> None:
        """The prompt as the template writes it, the answer up to the token that ends it."""
        model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(model_folder)
        e = EQUATIONS[0]
        (value,) = values([record(prompt=user(e), completion=assistant(solution(e)))], engine)
        asked = tokenizer.apply_chat_template(user(e), add_generation_prompt=True,
                                              return_dict=False)  # fmt: skip
        answer = [*tokenizer(solution(e), add_special_tokens=False).input_ids,
                  tokenizer.eos_token_id]  # fmt: skip
        nothing = tokenizer.bos_token_id or tokenizer.eos_token_id
        expected = loss(model, asked, answer) / loss(model, [nothing], answer)
        assert value == pytest.approx(expected, rel=1e-5)

    def test_of_a_conversation_the_last_answer_counts(self, engine: LocalEngine) -> None:
        one, two = EQUATIONS[:2]
        turns = [*user(one), *assistant(solution(one)), *user(two), *assistant(solution(two))]
        apart = record(prompt=turns[:-1], completion=[turns[-1]])
        assert values([record(messages=turns)], engine) == pytest.approx(values([apart], engine))

    def test_of_a_pair_the_chosen_answer(self, engine: LocalEngine) -> None:
        e = EQUATIONS[0]
        pair = record(prompt=e.question, chosen=solution(e), rejected="no")
        assert values([pair], engine) == values(
            [record(prompt=e.question, completion=solution(e))], engine
        )


class TestUnknown:
    def test_too_long_is_none_whatever_stands_around_it(self, engine: LocalEngine) -> None:
        e = EQUATIONS[0]
        good = record(prompt=e.question, completion=solution(e))
        long = record(prompt=e.question * 2000, completion=solution(e))
        assert values([good, long, good], engine) == [values([good], engine)[0], None,
                                                      values([good], engine)[0]]  # fmt: skip

    def test_a_task_has_no_answer(self, engine: LocalEngine) -> None:
        with pytest.raises(DataError, match=r"a.jsonl:1: the record has no answer"):
            values([record(prompt="2x = 6")], engine)


def test_parts_are_taken_over(engine: LocalEngine, tmp_path: Path) -> None:
    rows = [record(prompt=e.question, completion=solution(e)) for e in EQUATIONS]
    underway = Underway(tmp_path / "out.jsonl")
    first = [value for _, value in difficulties(rows, engine, underway)]
    (part,) = underway.folder.iterdir() if underway.folder else ()
    part.write_text('{"ifd": 0.25}\n' * len(rows))
    again = [value for _, value in difficulties(rows, engine, underway)]
    assert again == [0.25] * len(rows) != first
    other: list[Record] = [Demonstration("x", "y", {}, Origin("a.jsonl", 1)), *rows]
    assert [value for _, value in difficulties(other, engine, underway)][1:] == pytest.approx(first)


def test_the_command(write_rows: WriteRows, tmp_path: Path, engine: LocalEngine) -> None:
    rows = [{"prompt": e.question, "completion": solution(e)} for e in EQUATIONS]
    known = values([record(**row) for row in rows], engine)
    usable = [value for value in known if value is not None and value < 1]
    out = tmp_path / "out.jsonl"
    strop("data", "select", write_rows("a.jsonl", rows), "--by", "ifd", "--model", engine.path,
          "--keep", 2, "--output", out)  # fmt: skip
    kept = read_jsonl(out)
    assert sorted(row["ifd"] for row in kept) == pytest.approx(sorted(usable)[-2:])
    dropped = read_jsonl(tmp_path / "out.dropped.jsonl")
    helpless = [row["row"]["ifd"] for row in dropped if row["kind"] == "ifd_of_1"]
    assert all(value >= 1 for value in helpless)
    assert len(helpless) == len(known) - len(usable)
    assert sources_of([out])
