"""Describes the data of a step: rows for the file of a batch that failed, sizes for messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from strop.engines.engine import PromptedTask
from strop.episodes import asked_of
from strop.text.parse import decode
from strop.text.trees import Rendered
from strop.types import Score, ScoredGroup, Tree

Row = dict[str, Any]


def record_rows(rendered: Rendered, indices: Sequence[int], tokenizer: Any) -> Iterator[Row]:
    """Records as the model read them, each with its origin: `{"origin": "pairs.jsonl:17", "tokens":
    41, "trunk": "Solve ...", "branches": [...]}`."""
    for i in indices:
        tree, record = rendered.trees[i], rendered.records[i]
        yield {
            "origin": str(record.origin),
            "tokens": len(tree),
            "trunk": decode(tokenizer, tree.trunk),
            "branches": [decode(tokenizer, branch.ids) for branch in tree.branches],
        }


def sample_rows(groups: Sequence[ScoredGroup]) -> Iterator[Row]:
    """Sampled completions with their scores and the origins of their tasks."""
    for group in groups:
        for completion, score in zip(group.rollout.completions, group.scores, strict=True):
            yield {
                "origin": str(group.rollout.task.origin),
                "tokens": len(group.rollout.prompt_ids) + len(completion.ids),
                "prompt": asked_of(group.rollout.task, completion),
                "completion": completion.said,
                **judged(score),
            }


def judged(score: Score) -> Row:
    """`{"reward": 1.1, "exact_answer": 1.0}`; nothing where no reward judged."""
    return {"reward": score.total, **score.components} if score.components else {}


def shape_of_trees(trees: Sequence[Tree]) -> str:
    """`"4 trees, 210 tokens, the longest 61"`."""
    return _shape("trees", [len(tree) for tree in trees])


def shape_of_groups(groups: Sequence[ScoredGroup]) -> str:
    """`shape_of_trees` for sampled groups: a tree is a prompt with its completions."""
    sizes = [
        len(group.rollout.prompt_ids) + sum(len(c.ids) for c in group.rollout.completions)
        for group in groups
    ]
    return _shape("trees", sizes)


def shape_of_tasks(tasks: Sequence[PromptedTask], group_size: int, max_tokens: int) -> str:
    """`"4 prompts, 80 tokens, the longest 22; each 8 times with up to 256 tokens more"`."""
    asked = _shape("prompts", [len(task.prompt_ids) for task in tasks])
    return f"{asked}; each {group_size} times with up to {max_tokens} tokens more"


def _shape(name: str, sizes: Sequence[int]) -> str:
    return f"{len(sizes)} {name}, {sum(sizes)} tokens, the longest {max(sizes, default=0)}"
