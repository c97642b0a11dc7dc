"""The end of a run: its report, the weights it ends with, the model that is published."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

from strop.files import publish
from strop.model.network import Network
from strop.model.save import load_weights, save_final
from strop.tracking.report import write_report
from strop.tracking.runlog import read_rows
from strop.train.loop.state import TrainState
from strop.train.monitor.dev import Dev, start_score
from strop.train.preflight.cost.workload import workload_of
from strop.train.preflight.selfcheck import MERGED_LIMITS, merged_difference
from strop.train.rundir.checkpoint import verify
from strop.train.rundir.directory import write_final
from strop.train.rundir.writer import Writer
from strop.train.underway import Run


def finish(run: Run, writer: Writer) -> None:
    """Write the report and the final model. An adapter is first compared with its merged model."""
    folder, network = run.prepared.folder, run.state.network
    temporary = folder / ".final.tmp"
    writer.submit("the report", lambda: write_report(folder))
    writer.wait()
    final = _chosen(run.state, run.dev, folder)
    writer.submit("the final model", lambda: _save_final(network, temporary))
    writer.wait()
    if network.is_adapter:
        limit = MERGED_LIMITS[run.recipe.model.quantize or run.recipe.model.dtype]
        final["merged_difference"] = merged_difference(network, run.prepared.probes(), limit=limit)
    write_final(folder, final, _spent(run))
    writer.submit("the final model", lambda: publish(temporary, folder / "final"))
    writer.wait()


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
    parameters = sum(p.numel() for p in run.state.network.model.parameters())
    return {"parameters": parameters, "tokens": tokens, "sampled": sampled}


def _chosen(state: TrainState, dev: Dev | None, folder: Path) -> dict[str, Any]:
    """Load the weights that the run ends with into the network; returns their entry in
    `lineage.json`."""
    total = state.step
    if dev is None or dev.best is None or dev.recipe.final == "last":
        return {"step": total, "of": total, "by": "last"}
    if dev.best.step != total:
        checkpoint = folder / f"checkpoint-{dev.best.step}"
        verify(checkpoint)
        load_weights(state.network, checkpoint)
    before = start_score(folder, dev.recipe.metric)
    if before is not None and dev.best.score <= before:
        warnings.warn(
            f"{dev.recipe.metric} was {before:.4g} before step 1 and never higher: the model that "
            "the run began with is as good",
            stacklevel=3,
        )
    by = {"by": f"dev/{dev.recipe.metric}", "score": dev.best.score, "before": before}
    return {"step": dev.best.step, "of": total, **by}


def _save_final(network: Network, temporary: Path) -> None:
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    save_final(network, temporary)
