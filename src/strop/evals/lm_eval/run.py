"""Tasks of lm-eval on a policy of ours."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from strop.errors import RecipeError, UsageError
from strop.evals.lm_eval.log import sample_records
from strop.evals.lm_eval.model import LmEvalModel
from strop.model.network import Policy
from strop.recipe.suite import LmEvalTask
from strop.types import EvalRecord, Origin

PYTHON_SEED, OTHER_SEED = 0, 1234
"""lm-eval's defaults."""


def run_lm_eval(policy: Policy, recipe: LmEvalTask, *, seed: int) -> list[EvalRecord]:
    """One record for every document, metric and filter of the tasks.

    Few-shot examples are the ones that lm-eval itself draws; `seed` is for sampled answers.

    Raises `UsageError` if the extra is not installed or a task's data is not on this machine, and
    `RecipeError` for an unknown task.
    """
    simple_evaluate, manager, protocol = _extra(recipe)
    protocol.register(LmEvalModel)
    with _lm_eval_seeds():
        results = simple_evaluate(
            model=LmEvalModel(policy, seed=seed),
            tasks=_load(manager, recipe),
            num_fewshot=recipe.num_fewshot,
            limit=recipe.limit,
            apply_chat_template=recipe.chat_template,
            task_manager=manager,
            bootstrap_iters=0,
        )
    records: list[EvalRecord] = []
    for task, samples in results["samples"].items():
        name = task if task == recipe.name else f"{recipe.name}/{task}"
        higher = results["higher_is_better"][task]
        for sample in samples:
            origin = Origin(task, sample["doc_id"] + 1)
            records += sample_records(name, sample, higher, origin, recipe.slices)
    return records


def _extra(recipe: LmEvalTask) -> tuple[Any, Any, Any]:
    """lm-eval's evaluator, its index of tasks and its class of models."""
    try:
        from lm_eval import simple_evaluate
        from lm_eval.api.model import LM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise UsageError(
            f"task {recipe.name} needs lm-eval: {error}", fix="pip install 'strop[lm-eval]'"
        ) from None
    return simple_evaluate, _index(TaskManager, recipe), LM


def _index(task_manager: Any, recipe: LmEvalTask) -> Any:
    """An index of the user's own tasks if these suffice, because lm-eval's thousands take long to
    read."""
    if recipe.include_path is not None:
        own = task_manager(include_path=recipe.include_path, include_defaults=False)
        if all(task in own.task_index for task in recipe.tasks):
            return own
    return task_manager(include_path=recipe.include_path)


def _load(manager: Any, recipe: LmEvalTask) -> list[Any]:
    from datasets.exceptions import DatasetsError  # here alone, for the sake of start-up

    unknown = [task for task in recipe.tasks if task not in manager.task_index]
    if unknown:
        raise RecipeError(
            f"task {recipe.name}: lm-eval has no task {unknown[0]!r}",
            fix="see `lm-eval ls tasks`, or set include_path to the folder of its YAML file",
        )
    try:
        return list(manager.load(recipe.tasks)["tasks"].values())
    except (OSError, ValueError, KeyError, TypeError, DatasetsError) as error:
        raise UsageError(
            f"task {recipe.name}: lm-eval cannot load {', '.join(recipe.tasks)}: "
            f"{str(error).strip().splitlines()[0]}",
            fix="its data set has to be on this machine: name local files in the task's YAML "
            "(dataset_path: json, dataset_kwargs: {data_files: ...})",
        ) from None


@contextmanager
def _lm_eval_seeds() -> Iterator[None]:
    """Load data under the seeds that lm-eval's own command sets, so that the documents are the
    same. The random states are restored afterwards, for training runs that measure."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            random.seed(PYTHON_SEED)
            np.random.seed(OTHER_SEED)
            torch.manual_seed(OTHER_SEED)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
