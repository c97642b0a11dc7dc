"""The end of a run: its report, the weights it ends with, the model that is published."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import torch

from strop.distributed.world import World
from strop.files import publish
from strop.model.adapters import weight_count
from strop.model.network import Network
from strop.model.save import gathered_weights, save_final
from strop.model.sharding import whole_weights
from strop.tracking.runlog import read_rows
from strop.tracking.story.page import write_report
from strop.train.loop.state import TrainState
from strop.train.monitor.dev import Dev, start_score
from strop.train.preflight.cost.workload import workload_of
from strop.train.preflight.selfcheck import MERGED_LIMITS, merged_difference
from strop.train.rundir.checkpoint import load_network, verify
from strop.train.rundir.directory import write_final
from strop.train.rundir.writer import Writer
from strop.train.underway import Run


def finish(run: Run, writer: Writer) -> None:
    """Write the report and the final model. An adapter is first compared with its merged model.
    Every process makes this call; the first one writes."""
    folder, network, world = run.prepared.folder, run.state.network, run.world
    temporary = folder / ".final.tmp"
    writer.wait()
    world.first(lambda: writer.submit("the report", lambda: write_report(folder)))
    writer.wait()
    final = _chosen(run.state, run.dev, folder, world)
    weights = None
    if network.is_sharded:
        weights = gathered_weights(network, keep=world.rank == 0)
    world.first(
        lambda: writer.submit("the final model", lambda: _save_final(network, temporary, weights))
    )
    writer.wait()
    if network.is_adapter:
        limit = MERGED_LIMITS[run.recipe.model.quantize or run.recipe.model.dtype]
        with whole_weights(network):
            final["merged_difference"] = world.first(
                lambda: merged_difference(network, run.prepared.probes(), limit=limit)
            )
    world.first(lambda: write_final(folder, final, _spent(run)))
    world.first(
        lambda: writer.submit("the final model", lambda: publish(temporary, folder / "final"))
    )
    writer.wait()
    world.exchanged(None)  # none goes on before the model is there


def _spent(run: Run) -> dict[str, int]:
    """Weights of the network, tokens that it learnt from (prompts included) and sampled, in all
    steps: what the compute of a run is counted from."""
    workload, steps = workload_of(run.prepared), run.state.step
    sampled = 0
    tokens = workload.step_tokens * steps
    if workload.answers:
        rows = read_rows(run.prepared.folder / "metrics.jsonl")
        sampled = round(sum(row.get("num_tokens") or 0.0 for row in rows))
        tokens = sampled + workload.prompt_tokens * steps
    parameters = weight_count(run.state.network.model)
    return {"parameters": parameters, "tokens": tokens, "sampled": sampled}


def _chosen(state: TrainState, dev: Dev | None, folder: Path, world: World) -> dict[str, Any]:
    """Load the weights that the run ends with into the network, on all processes that hold a part
    of them; returns their entry in `lineage.json`."""
    total = state.step
    if dev is None or dev.best is None or dev.recipe.final == "last":
        return {"step": total, "of": total, "by": "last"}
    if dev.best.step != total:
        checkpoint = folder / f"checkpoint-{dev.best.step}"
        world.first(lambda: verify(checkpoint))
        if world.rank == 0 or state.network.is_sharded:
            load_network(state.network, checkpoint)
    metric = dev.recipe.metric
    before = world.first(lambda: start_score(folder, metric))
    if world.rank == 0 and before is not None and dev.best.score <= before:
        warnings.warn(
            f"{dev.recipe.metric} was {before:.4g} before step 1 and never higher: the model that "
            "the run began with is as good",
            stacklevel=3,
        )
    by = {"by": f"dev/{dev.recipe.metric}", "score": dev.best.score, "before": before}
    return {"step": dev.best.step, "of": total, **by}


def _save_final(network: Network, temporary: Path, weights: dict[str, torch.Tensor] | None) -> None:
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    save_final(network, temporary, weights)
