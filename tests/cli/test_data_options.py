"""What is wrong with the options of a data verb is said of the options, not of a recipe's keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from strop.errors import UsageError
from tests.support.planned import strop
from tests.support.runs import WriteRows


@pytest.mark.parametrize(
    ("command", "said", "fix"),
    [
        ("clean --pii keep --kind email", "--kind is only read with --pii: drop it", None),
        ("clean --unit words", "--unit is only read with --least or --most: drop it", None),
        ("clean --tokenizer m", "--tokenizer is only read with --unit tokens: drop it", None),
        ("clean --least 0", "--least: Input should be greater than or equal to 1 (got 0)",
         "change --least"),
        ("clean --pii hide", "--pii: 'hide' is none of keep, report, ", None),
        ("clean --pii reprot", "'reprot' is none of keep, report, ", "did you mean `report`?"),
        ("clean --spacy-model en", "--spacy-model is only read with --names: drop it", None),
        ("balance --remove label --tolerance 0.1",
         "--tolerance is not read with --remove label: drop it", None),
        ("split --time t --by kind", "--time orders the records and --by draws them", None),
        ("select --keep 2", "give --by, --diverse or both", None),
        ("select --keep 2 --by quality --endpoint http://x/v1", "--endpoint needs --model", None),
        ("sample --model m --requests 5", "--requests is only read with --endpoint", None),
        ("sample --model m --temperature 0 --samples 2", "are one: raise --temperature", None),
        ("band --model m --reward exact_answer --low 0.9 --high 0.1",
         "--low 0.9 is above --high 0.1: swap them", None),
        ("band --model m --reward exact_answer --keep some", "is none of never, hard, medium",
         "write one of never, hard, medium, easy, always"),
    ],
)  # fmt: skip
def test_options_are_named(
    write_rows: WriteRows, tmp_path: Path, command: str, said: str, fix: str | None
) -> None:
    path = write_rows("rows.jsonl", [{"prompt": "2x = 6", "completion": "x = 3"}])
    verb, *options = command.split()
    with pytest.raises(UsageError) as told:
        strop("data", verb, path, "--output", tmp_path / "out.jsonl", *options)
    assert said in str(told.value)
    assert "`" not in told.value.problem
    if fix is not None:
        assert told.value.fix == fix
    assert not (tmp_path / "out.jsonl").exists()


def test_what_is_no_option_stays_as_it_is() -> None:
    """Names of strop's own files are no options of the command."""
    with pytest.raises(UsageError, match="`dropped` and `manifest` are names of strop's own files"):
        strop("data", "split", "x.jsonl", "--output", "out",
              "--fractions", "dropped=0.5,test=0.5")  # fmt: skip
