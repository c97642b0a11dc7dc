"""Tiny models and data, made once per test session."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml

from strop.demo.model import raw_model, train_tokenizer
from strop.demo.world import all_equations, assistant, solution, user
from strop.losses.metrics import Metric, merge, results
from strop.sandbox import tiers
from strop.sandbox.client import Sandbox
from strop.sandbox.confine import landlock
from strop.tracking.runlog import read_rows
from strop.train.loop.offline import OfflineMethod
from strop.train.loop.online import Learner
from strop.train.loop.optim import Optimizers
from strop.train.loop.state import TrainState
from strop.train.loop.updater import MicroBatchLoss, Updater
from strop.types import ScoredGroup

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

WriteRows = Callable[[str, Sequence[Mapping[str, Any]]], Path]


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """The demo's tokenizer: digits apart, two roles, EOS `<|end|>`."""
    texts = [text for e in all_equations()[::7] for text in (e.question, solution(e))]
    return train_tokenizer(texts, vocabulary=325)


@pytest.fixture(scope="session")
def model_folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved Qwen3 of three narrow layers with that tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    model = raw_model(tokenizer, seed=0, width=32)
    for parameter in model.parameters():  # larger weights than at birth: sharper, less forgiving
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def write_rows(tmp_path: Path) -> WriteRows:
    """Write rows as JSONL under the test's own folder."""

    def write(name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A sandbox of the tier that this kernel has by itself."""
    if landlock.version() == 0:
        pytest.skip("this kernel has no Landlock: no candidate is run on it")
    with tiers.start("landlock") as started:
        yield started


CLOCK = ("step_time", "sampling_time")


def metrics(folder: Path) -> list[dict[str, Any]]:
    """A run's log without what depends on the clock."""
    rows = read_rows(folder / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in CLOCK} for row in rows]


def learn(
    learner: Learner, state: TrainState, groups: Sequence[ScoredGroup], rate: float = 0.0
) -> dict[str, float]:
    """All updates that a learner makes of these groups; what they log."""
    updater, metrics = Updater(state, 1e9), dict[str, Metric]()
    for update in learner.updates(groups):
        metrics = merge(metrics, updater.step(update, learning_rate=rate, where="step 1"))
    return results(metrics)


def losses_of(method: OfflineMethod, indices: Sequence[int]) -> Sequence[MicroBatchLoss]:
    """The micro-batches' losses of a step in one process."""
    update = method.update(indices)
    return update.losses(update.counts)


class Recorder(Optimizers):
    """Keeps the gradients of an update and leaves the weights alone."""

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        super().__init__([torch.optim.SGD(parameters, lr=0.0)])
        self.parameters = parameters
        self.seen: list[torch.Tensor] = []

    def step(self, learning_rate: float) -> None:
        gradients = [
            torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in self.parameters
        ]
        self.seen.append(torch.cat([g.flatten() for g in gradients]))


EQUATIONS = all_equations()[::53]

OFFLINE = ["cpt", "sft", "dft", "dpo", "robust_dpo", "ipo", "exo_pair", "aot", "aot_unpaired",
           "discopop", "dpop", "sppo_hard", "mpo", "simpo", "orpo", "cpo", "hinge", "nca_pair",
           "bco_pair", "apo_zero", "apo_down", "kto", "apo_zero_unpaired",
           "reward_model"]  # fmt: skip
ONLINE = ["grpo", "dapo", "dr_grpo", "gspo", "gmpo", "cispo", "sapo", "rloo", "reinforce_pp",
          "ppo", "online_dpo", "raft"]  # fmt: skip


@pytest.fixture
def recipes(tmp_path: Path, model_folder: Path, write_rows: WriteRows) -> dict[str, Path]:
    """A small recipe of every method over generated data."""
    answers = [(user(e), solution(e), solution(e, filler=True)) for e in EQUATIONS]
    write_rows("text.jsonl", [{"text": solution(e)} for e in EQUATIONS])
    write_rows(
        "sft.jsonl", [{"prompt": p, "completion": assistant(good)} for p, good, _ in answers]
    )
    pairs = [
        {"prompt": p, "chosen": good, "rejected": bad, "margin": 0.1 * n}
        for n, (p, good, bad) in enumerate(answers)
    ]
    write_rows("pairs.jsonl", pairs)
    thumbs = [
        {"prompt": p, "completion": good if n % 3 else bad, "label": n % 3 != 0}
        for n, (p, good, bad) in enumerate(answers)
    ]
    write_rows("thumbs.jsonl", thumbs)
    write_rows("tasks.jsonl", [{"prompt": user(e), "answer": str(e.x)} for e in EQUATIONS])
    (tmp_path / "rewards.py").write_text(
        "def shorter(prompts, completions, **columns):\n"
        "    return [-float(len(c[-1]['content'])) for c in completions]\n"
    )
    data = {"cpt": "text", "sft": "sft", "dft": "sft", "kto": "thumbs",
            "apo_zero_unpaired": "thumbs"}  # fmt: skip
    paths = {}
    for method in [*OFFLINE, *ONLINE]:
        own = data.get(method, "tasks" if method in ONLINE else "pairs")
        recipe: dict[str, Any] = {
            "method": method,
            "output": f"runs/{method}",
            "seed": 3,
            "model": {"path": str(model_folder)},
            "data": f"{own}.jsonl",
            "optim": {"learning_rate": 1e-4},
            "run": {"steps": 6, "batch_size": 4, "save_every": 2, "micro_batch_tokens": 150},
        }
        if method in ONLINE:
            recipe["reward"] = [{"function": "shorter", "file": "rewards.py"}]
            recipe["rollout"] = {"group_size": 4, "max_tokens": 12}
        if method == "grpo":
            recipe["objective"] = {"beta": 0.05}
        if method == "ppo":
            recipe["value"] = {"path": str(model_folder), "learning_rate": 1e-3}
        if method in ("sft", "dpo", "kto", "reward_model"):
            recipe["eval"] = {"data": f"{own}.jsonl", "every": 3}
        paths[method] = tmp_path / f"{method}.yaml"
        paths[method].write_text(yaml.safe_dump(recipe))
    return paths
