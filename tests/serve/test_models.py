"""Adapters over one base, swaps that drop nobody, the registry's promotions picked up."""

from __future__ import annotations

import asyncio
import re
import shutil
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from strop.engines.engine import PromptedTask
from strop.errors import ModelError
from strop.files import write_json
from strop.model.load import weights_hash
from strop.registry.store import Registry
from strop.serve.models.places import Place, name_of
from strop.serve.models.renderer import Renderer
from strop.serve.models.selftest import expect_parity
from tests.support.registries import promote
from tests.support.rounds import wait_for
from tests.support.serving import USER, Serving, recipe_of, serving


def ids(answer: dict[str, Any]) -> list[int]:
    return list(answer["choices"][0]["token_ids"])


def ask(server: Serving, model: str, **more: Any) -> dict[str, Any]:
    return server.chat(model=model, seed=1, return_token_ids=True, max_tokens=20, **more)


@pytest.fixture(scope="module")
def server(model_folder: Path, adapters: list[Path]) -> Any:
    names = ["base", "one", "two"]
    models = [{"name": name, "path": str(path)}
              for name, path in zip(names, [model_folder, *adapters], strict=True)]  # fmt: skip
    with serving(recipe_of(models=models)) as made:
        yield made


def test_adapters_share_one_base_and_answer_as_if_alone(
    server: Serving, adapters: list[Path]
) -> None:
    lineup = server.service.lineup
    assert lineup.version("one").held is lineup.version("two").held
    said = {name: ids(ask(server, name)) for name in ("base", "one", "two")}
    assert len(set(map(tuple, said.values()))) == 3
    together: dict[str, list[int]] = {}

    def one(name: str) -> None:
        together[name] = ids(ask(server, name))

    threads = [threading.Thread(target=one, args=(name,)) for name in said]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == said
    with serving(recipe_of(models=[{"name": "alone", "path": str(adapters[0])}])) as alone:
        assert ids(ask(alone, "alone")) == said["one"]


def test_a_swap_drops_nobody_and_every_answer_says_its_weights(
    model_folder: Path, adapters: list[Path]
) -> None:
    with serving(recipe_of(models=[{"name": "m", "path": str(adapters[0])}])) as server:
        weights = [weights_hash(folder) for folder in adapters]
        wanted = {}
        for place, folder in enumerate(adapters):
            server.do(server.service.use("m", Place(str(folder), weights[place])))
            wanted[weights[place]] = ids(ask(server, "m"))
        assert wanted[weights[0]] != wanted[weights[1]]
        found: list[dict[str, Any]] = []
        done = threading.Event()

        def asking() -> None:
            while not done.is_set():
                found.append(ask(server, "m"))

        def answers_from(place: int, first: int) -> bool:
            return any(one["strop"]["weights"] == weights[place] for one in found[first:])

        threads = [threading.Thread(target=asking) for _ in range(4)]
        for thread in threads:
            thread.start()
        for turn in range(6):
            place, before = turn % 2, len(found)
            server.do(server.service.use("m", Place(str(adapters[place]), weights[place])))
            wait_for(partial(answers_from, place, before))
        done.set()
        for thread in threads:
            thread.join()
        assert {answer["strop"]["weights"] for answer in found} == set(weights)
        for answer in found:
            assert ids(answer) == wanted[answer["strop"]["weights"]]
        held = server.service.lineup.version("m").held
        server.do(_settled())
        assert len(held.adapters) == 1  # the old one was let go


async def _settled() -> None:
    await asyncio.sleep(0.3)


def test_promotions_and_rollbacks_are_picked_up(
    model_folder: Path, adapters: list[Path], tmp_path: Path
) -> None:
    registry = Registry(tmp_path / "registry.db")
    first = promote(registry, adapters[0], "support")
    model = {"name": "help", "entry": "support", "follow": True}
    recipe = recipe_of(models=[model], registry=str(registry.path), follow_seconds=0.05)
    with serving(recipe) as server:
        assert ask(server, "help")["strop"]["entry"] == first.id
        before = ids(ask(server, "help"))
        second = promote(registry, adapters[1], "support")
        _wait_for(server, second.id)
        assert ids(ask(server, "help")) != before
        registry.rollback("support")
        _wait_for(server, first.id)
        assert ids(ask(server, "help")) == before


def _wait_for(server: Serving, entry: str) -> None:
    for _ in range(200):
        if server.service.lineup.version("help").place.entry == entry:
            return
        threading.Event().wait(0.05)
    raise AssertionError("the promotion was not picked up")


def test_an_adapter_whose_base_was_changed_is_refused(
    model_folder: Path, adapters: list[Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(adapters[0], run / "final")
    parent = {"path": str(model_folder), "sha256": "0123456789abcdef"}
    write_json(run / "lineage.json", {"parent": parent, "data": []})
    with (
        pytest.raises(ModelError, match="0123456789abcdef"),
        serving(recipe_of(models=[{"name": "m", "path": str(run / "final")}])),
    ):
        pass
    write_json(run / "lineage.json", {
        "parent": parent | {"sha256": weights_hash(model_folder)}, "data": []
    })  # fmt: skip
    with serving(recipe_of(models=[{"name": "m", "path": str(run / "final")}])) as server:
        assert server.chat(messages=[USER])["choices"]


def test_a_model_without_a_template_answers_text_and_no_chat(
    model_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "plain"
    shutil.copytree(model_folder, folder)
    (folder / "chat_template.jinja").unlink()
    with serving(recipe_of(folder)) as server:
        refused = server.post("/v1/chat/completions", {"messages": [USER]})
        assert refused.status_code == 400
        assert "no chat template" in refused.json()["error"]["message"]
        told = server.post("/v1/completions", {"prompt": "2x = 6", "max_tokens": 3})
        assert told.status_code == 200


def test_names_are_those_of_the_run() -> None:
    assert name_of("/runs/dpo/final") == "dpo"
    assert name_of("/models/base") == "base"


def test_a_template_that_ends_no_answer_is_warned_of(model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "endless"
    shutil.copytree(model_folder, folder)
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text(template.replace("<|end|>", "\n"))
    with pytest.warns(UserWarning, match="run on to their limit"), serving(recipe_of(folder)):
        pass


def test_prompts_and_ends_are_those_of_training(tokenizer: Any) -> None:
    end = tokenizer.eos_token_id
    expect_parity(Renderer(tokenizer), frozenset({end}), "m")
    with pytest.raises(ModelError, match=re.escape("<|end|>")):
        expect_parity(Renderer(tokenizer), frozenset({end + 1}), "m")

    class Shifted(Renderer):
        def prompted(self, prompt: Any, tools: Any, caller: str) -> PromptedTask:
            made = super().prompted(prompt, tools, caller)
            return replace(made, prompt_ids=(end, *made.prompt_ids))

    with pytest.raises(ModelError, match="not the one that is trained on"):
        expect_parity(Shifted(tokenizer), frozenset({end}), "m")
