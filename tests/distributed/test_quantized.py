"""4-bit weights below an adapter, cut over real processes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from strop.distributed.world import ALONE, World
from strop.model.sharding import own_part
from strop.recipe.loading.load import load_recipe
from strop.train.build import build_loop, build_state
from strop.train.preflight.prepare import prepare
from tests.support.gloo import in_processes
from tests.support.models import Recorder, sharp_model
from tests.support.resumed import SHARDED, chain, largest_difference
from tests.support.runs import metrics, same

QLORA = ["model.quantize=nf4", "model.lora={rank: 8}", "run.batch_size=5"]


@pytest.fixture(scope="module")
def model_folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose rows are whole blocks of 64."""
    folder = tmp_path_factory.mktemp("wide")
    sharp_model(tokenizer, width=64, std=0.12).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def first_step(world: World, path: Path, *options: str) -> Mapping[str, Any]:
    """The gradient of the first step of a run whose adapter is not at its start, and how the
    weights below it are held."""
    own = [SHARDED] if world.size > 1 else []
    output = path.parent / f"step-{world.size}-{world.rank}"
    shared = [f"output={output}", "run.steps=1", "run.micro_batch_tokens=120"]
    recipe = load_recipe(path, [*shared, *own, *options])
    prepared = prepare(recipe, resume=False, overwrite=False, force=False)
    prepared.folder.mkdir(exist_ok=True)
    state = build_state(recipe, recipe.model, world=world)
    for parameter in state.network.trainable():  # B starts at 0, where A has no gradient
        own_part(parameter).fill_(0.02)
    recorder = Recorder(state.network.trainable())
    state.optimizer = recorder
    (record,) = build_loop(state, prepared, None, world)[0]
    packed = [p for n, p in state.network.model.named_parameters() if "proj.base_layer.weight" in n]
    return {
        "gradient": torch.cat(recorder.seen),
        "loss": record.metrics["loss"],
        "kinds": {p.dtype for p in packed},
        "packed": sum(own_part(p).nbytes for p in packed),
    }


@pytest.mark.parametrize(
    ("options", "kind", "close"),
    [([], torch.float32, 1e-5), (["model.dtype=bfloat16"], torch.bfloat16, 1e-2)],
)
def test_the_gradient_is_that_of_one_process(
    options: list[str], kind: torch.dtype, close: float, recipes: dict[str, Path]
) -> None:
    """Packed bits are kept in tensors of the weights' own type, half of them in each process."""
    alone = first_step(ALONE, recipes["dpo"], *QLORA, *options)
    assert alone["kinds"] == {torch.uint8}
    assert alone["gradient"].norm() > 0
    for several in in_processes(2, first_step, recipes["dpo"], *QLORA, *options):
        assert isinstance(several, dict), several
        apart = (several["gradient"] - alone["gradient"]).norm() / alone["gradient"].norm()
        assert apart <= close
        assert several["loss"] == pytest.approx(alone["loss"], rel=close)
        assert several["kinds"] == {kind}
        assert several["packed"] == alone["packed"] // 2


@pytest.mark.parametrize("method", ["dpo", pytest.param("rloo", marks=pytest.mark.slow)])
def test_killed_and_resumed_by_as_many_and_then_by_one(
    method: str, recipes: dict[str, Path], model_folder: Path, tmp_path: Path
) -> None:
    """Checkpoints and `final/` hold the adapter; what is merged at the end is what was trained."""
    path = recipes[method]
    unbroken = chain(path, tmp_path / "unbroken", [(2, True, None)], *QLORA)
    again = chain(path, tmp_path / "again", [(2, True, 5), (2, True, None)], *QLORA)
    assert same(unbroken, again)
    other = chain(path, tmp_path / "other", [(2, True, 5), (1, False, None)], *QLORA)
    assert largest_difference(unbroken, other) < 1e-4
    for step, alone in zip(
        metrics(tmp_path / "unbroken"), metrics(tmp_path / "other"), strict=True
    ):
        assert step["loss"] == pytest.approx(alone["loss"], rel=1e-3, abs=1e-5)
    assert all("lora_" in name for name in unbroken)
    whole = AutoModelForCausalLM.from_pretrained(model_folder).num_parameters()
    for run in ("unbroken", "other"):
        lineage = json.loads((tmp_path / run / "lineage.json").read_text())
        assert lineage["final"]["merged_difference"] < 0.5
        assert lineage["spent"]["parameters"] == whole
