"""The engine that a recipe names, where it is in other processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from strop.engines.canary import Canary, canary_tree
from strop.engines.engine import PromptedTask
from strop.engines.served.engine import ServedEngine, expect_context
from strop.engines.served.server import About, Server
from strop.engines.served.sync import AdapterSync, DiskSync, Sync
from strop.errors import HttpError, UsageError
from strop.model.network import Policy
from strop.recipe.train.engine import VllmRecipe
from strop.types import Message

TEXT = 'The 2nd price was 41.75 EUR (about $45); Zoe\'s reply: "Nein, danke!"'
CHAT: list[Message] = [{"role": "user", "content": TEXT}]


def served_engine(
    recipe: VllmRecipe,
    policy: Policy,
    prompts: Sequence[PromptedTask],
    *,
    answer_tokens: int,
    folder: Path,
) -> ServedEngine:
    """Ask the servers of a recipe what they are, and refuse those that cannot sample for this
    policy. Raises `UsageError` before anything is computed."""
    ways: dict[str, Callable[[Path], Sync]] = {"adapter": AdapterSync, "disk": DiskSync}
    way = recipe.sync or ("adapter" if policy.is_adapter else "disk")
    if (way == "adapter") != policy.is_adapter:
        raise UsageError(
            f"rollout.engine.sync is {way}, and the model has "
            f"{'an' if policy.is_adapter else 'no'} adapter",
            fix="drop rollout.engine.sync: it follows from model.lora",
        )
    servers = [Server(url, seconds=recipe.seconds) for url in recipe.url]
    abouts = [_reached(server) for server in servers]
    longest = max(len(prompt.prompt_ids) for prompt in prompts)
    for server, about in zip(servers, abouts, strict=True):
        expect_context(about, longest + answer_tokens)
        _expect_tokenizer(server, about, policy)
    models = {about.model for about in abouts}
    if len(models) > 1:
        raise UsageError(f"the servers hold different models: {', '.join(sorted(models))}",
                         fix="start all with the same --model or --served-model-name")  # fmt: skip
    canary = Canary(policy, canary_tree(prompts), limit=recipe.limit)
    sync = ways[way](recipe.folder or folder)
    return ServedEngine(policy, abouts[0], servers, sync, canary, at_once=recipe.at_once)


def _reached(server: Server) -> About:
    try:
        return server.about()
    except HttpError as error:
        raise UsageError(
            f"no server answers here ({error.problem})", where=server.url,
            fix="start one: strop engine serve MODEL --port PORT, or vLLM by the command in "
            "docs/engines.md",
        ) from None  # fmt: skip


def _expect_tokenizer(server: Server, about: About, policy: Policy) -> None:
    """Raise `UsageError` where the server reads a text or a conversation as other tokens. One
    without a tokenizer (`--tokens-only`) is left to the canary."""
    tokenizer = policy.tokenizer
    body = {"model": about.model, "prompt": TEXT, "add_special_tokens": False}
    said = server.encoded(body)
    if said is None:
        return
    if said != list(tokenizer(TEXT, add_special_tokens=False)["input_ids"]):
        raise UsageError("the server has another tokenizer than the model that is trained",
                         where=server.url, fix="start it with the recipe's model")  # fmt: skip
    if tokenizer.chat_template is None:
        return
    chat = {"model": about.model, "messages": CHAT, "add_generation_prompt": True}
    own = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
    if server.encoded(chat) != list(own):
        raise UsageError(
            "the server has another chat template than the model that is trained",
            where=server.url,
            fix="start it with the recipe's model, or with --chat-template",
        )
