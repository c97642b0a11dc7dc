"""Answers drawn by a server of another process, over vLLM's protocol."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from strop.errors import HttpError, UsageError
from tests.support.engine_servers import engine_server
from tests.support.serving import Serving, recipe_of, serving


def ids(server: Serving, model: str, **how: Any) -> list[list[int]]:
    said = server.chat(model=model, return_token_ids=True, max_tokens=12, **how)
    return [choice["token_ids"] for choice in said["choices"]]


def test_adapters_of_a_server_behind_answer_as_the_embedded_engine(
    model_folder: Path, adapters: list[Path]
) -> None:
    models = [{"name": "base", "path": str(model_folder)},
              {"name": "one", "path": str(adapters[0])}]  # fmt: skip
    with engine_server(model_folder) as behind:
        engine = {"kind": "vllm", "url": behind.url}
        with serving(recipe_of(models=models, engine=engine)) as server:
            found = {name: ids(server, name, temperature=0.0) for name in ("base", "one")}
            drawn = ids(server, "one", seed=4, n=3)
            assert ids(server, "one", seed=4, n=3) == drawn  # pure functions of their seeds
            assert len({tuple(one) for one in drawn}) == 3
            streamed = server.client.chat.completions.create(
                model="one", messages=[{"role": "user", "content": "Solve 2x = 6"}],
                max_tokens=12, temperature=0.0, stream=True,
            )  # fmt: skip
            text = "".join(c.choices[0].delta.content or "" for c in streamed)
            whole = server.chat(model="one", max_tokens=12, temperature=0.0)
            assert text == whole["choices"][0]["message"]["content"]
            refused = server.post("/v1/chat/completions", {
                "model": "one", "messages": [{"role": "user", "content": "x"}],
                "presence_penalty": 1.0,
            })  # fmt: skip
            assert refused.status_code == 400
            assert "penalties" in refused.json()["error"]["message"]
    with serving(recipe_of(models=models)) as own:
        assert {name: ids(own, name, temperature=0.0) for name in ("base", "one")} == found


def test_a_server_of_other_weights_or_nobody_is_refused(model_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(model_folder, other)
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    with engine_server(other) as behind:
        engine = {"kind": "vllm", "url": behind.url}
        with pytest.raises(UsageError, match="holds the weights of"):
            start(model_folder, engine)
        url = behind.url
    with pytest.raises(HttpError, match=url):
        start(model_folder, {"kind": "vllm", "url": url})


def start(folder: Path, engine: dict[str, str]) -> None:
    with serving(recipe_of(folder, engine=engine)):
        pass
