"""Sampled answers as a tree whose tokens take the experts that they took while sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from strop.errors import UsageError
from strop.types import Completion, Tree


def routed_tree(prompt_ids: tuple[int, ...], completions: Sequence[Completion]) -> Tree:
    """One prompt with these answers. The prompt is read once, along the routes that it took for the
    first of them.

    Raises `UsageError` where the engine did not say the routes.
    """
    if any(one.prompt_routes is None or one.routes is None for one in completions):
        raise UsageError(
            "rollout.routing_replay is set, but the engine does not say which experts its tokens "
            "went to",
            fix="start servers with --enable-return-routed-experts; an engine of your own fills "
            "`routes` and `prompt_routes` of its completions",
        )
    branches = tuple(
        replace(branch, routes=one.routes) for one in completions for branch in one.branches()
    )
    tree = Tree(prompt_ids, branches, completions[0].prompt_routes)
    given = [(len(prompt_ids), tree.routes), *((len(b.ids) - 1, b.routes) for b in branches)]
    for tokens, routes in given:
        if routes is not None and routes.tokens != tokens:
            raise UsageError(
                f"the engine gave routes of {routes.tokens} tokens for {tokens}",
                fix="let it give those of the prompt, and those of the answer without its last "
                "token",
            )
    return tree
