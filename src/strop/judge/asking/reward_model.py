"""A trained reward model: what it gives an answer, and as a judge of pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from strop.errors import UsageError
from strop.judge.asking.forms import FormName
from strop.judge.asking.question import Question, Ruling
from strop.model.load import load_reward_model, weights_hash
from strop.model.network import ScalarNetwork
from strop.text.render import answer_tree
from strop.text.runs import runs
from strop.text.script import tools_of
from strop.types import Text

TOKENS_AT_ONCE = 8192


@dataclass(frozen=True, slots=True)
class RewardModelJudge:
    """The reward model in a folder, as a judge of two answers or a ranking of several.

    The confidence of a pair is the model's own, sigmoid of the difference (Bradley and Terry). It
    has no words, and its numbers no scale, so it answers neither scores nor criteria; what counts
    (`Question.criterion`) is what it was trained on.
    """

    path: str

    def identity(self) -> Mapping[str, Any]:
        return {"path": self.path, "sha256": weights_hash(self.path), "verdicts": "reward model"}

    def rule(self, form: FormName, questions: Sequence[Question]) -> list[Ruling]:
        if form not in ("pairwise", "ranking"):
            raise UsageError(f"a reward model's numbers have no scale for a {form}",
                             where=self.path, fix="ask it for pairs or rankings")  # fmt: skip
        told = next((question for question in questions if question.criterion), None)
        if told is not None:
            raise UsageError("a reward model cannot be told what counts", where=self.path,
                             fix="leave the criterion out, or ask a judge that reads")  # fmt: skip
        prompts = [question.prompt for question in questions for _ in question.answers]
        answers = [
            answer if isinstance(question.prompt, str)
            else [{"role": "assistant", "content": answer}]
            for question in questions for answer in question.answers
        ]  # fmt: skip
        scores = iter(reward_scores(self.path, prompts, answers))
        rulings = []
        for question in questions:
            own = [next(scores) for _ in question.answers]
            confidence = 1 / (1 + math.exp(-abs(own[0] - own[1]))) if form == "pairwise" else None
            rulings.append(Ruling(_places(own), confidence))
        return rulings


@torch.no_grad()
def reward_scores(
    path: str,
    prompts: Sequence[Text],
    answers: Sequence[Text],
    tools: Sequence[Any] | None = None,
) -> list[float]:
    """The scalar for each answer of the reward model in a folder.

    Answers are rendered with the reward model's own template and end with its own end-of-sequence
    token. Raises `ModelError` for a folder without a scalar head.
    """
    network = _network(path, _written(path))
    offered = tools if tools is not None else [None] * len(prompts)
    trees = [
        answer_tree(network.tokenizer, prompt, answer, tools_of(column))
        for prompt, answer, column in zip(prompts, answers, offered, strict=True)
    ]
    return [
        score
        for held in runs(trees, TOKENS_AT_ONCE)
        for score in network.score.finals(held).tolist()
    ]


def _places(scores: Sequence[float]) -> tuple[float, ...]:
    """The share of the other answers that each one beats, ties half."""
    others = max(1, len(scores) - 1)
    return tuple(
        sum((mine > other) + 0.5 * (mine == other) for m, other in enumerate(scores) if m != n)
        / others
        for n, mine in enumerate(scores)
    )


@lru_cache(maxsize=1)
def _network(path: str, written: int) -> ScalarNetwork:
    return load_reward_model(path)


def _written(path: str) -> int:
    """When the newest file of a folder was written, so that a retrained model is loaded again."""
    return max((file.stat().st_mtime_ns for file in Path(path).glob("*")), default=0)
