"""How likely each of several given answers is, as in multiple choice."""

from __future__ import annotations

import math
from collections.abc import Sequence

from strop.engines.engine import Chances, PromptedTask
from strop.text.encode import Tokenizer
from strop.types import Branch, Tree, Usage


def option_trees(
    tokenizer: Tokenizer, prompts: Sequence[PromptedTask], options: Sequence[str]
) -> list[Tree]:
    """Every prompt with a branch for each option, all of whose tokens are scored."""
    ids = [tuple(tokenizer(option, add_special_tokens=False)["input_ids"]) for option in options]
    branches = tuple(Branch(one, (True,) * len(one)) for one in ids)
    return [Tree(prompt.prompt_ids, branches) for prompt in prompts]


def chances_of(trees: Sequence[Tree], scores: Sequence[Sequence[float]]) -> list[Chances]:
    """What an engine said of `option_trees`: `scores` are the log-probs of their branches' tokens,
    branch by branch, nats."""
    said = iter(scores)
    return [
        Chances(
            tuple(math.fsum(next(said)) for _ in tree.branches),
            Usage(len(tree.trunk), sum(len(branch.ids) for branch in tree.branches)),
        )
        for tree in trees
    ]
