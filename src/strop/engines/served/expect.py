"""Refuses servers that cannot sample for a run, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from strop.engines.engine import PromptedTask
from strop.engines.served.command import vllm_command
from strop.engines.served.server import SIGN_SECONDS, About, Server
from strop.errors import HttpError, UsageError
from strop.recipe.train.engine import VllmRecipe
from strop.recipe.train.model import ModelRecipe
from strop.text.encode import Tokenizer
from strop.types import Message

TEXT = 'The 2nd price was 41.75 EUR (about $45); Zoe\'s reply: "Nein, danke!"'
CHAT: list[Message] = [{"role": "user", "content": TEXT}]


def expect_servers(
    recipe: VllmRecipe,
    model: ModelRecipe,
    tokenizer: Tokenizer,
    prompts: Sequence[PromptedTask],
    *,
    answer_tokens: int,
) -> About:
    """What the servers hold, which is the same. Raises `UsageError` for one that does not answer,
    reads other tokens or too few of them, or gets its weights by a way that does not fit."""
    way = recipe.sync or ("disk" if model.lora is None else "adapter")
    if (way == "disk") != (model.lora is None):
        raise UsageError(
            f"rollout.engine.sync is {way}, and the model has "
            f"{'no' if model.lora is None else 'an'} adapter",
            fix="drop rollout.engine.sync: it follows from model.lora",
        )
    servers = [Server(url, seconds=recipe.seconds) for url in recipe.url]
    longest = max(len(prompt.prompt_ids) for prompt in prompts) + answer_tokens
    rank = None if model.lora is None else model.lora.rank
    abouts = [reached(server, model.path, context=longest, rank=rank) for server in servers]
    for server, about in zip(servers, abouts, strict=True):
        expect_context(about, longest)
        expect_tokenizer(server, about, tokenizer)
    held = {about.model for about in abouts}
    if len(held) > 1:
        raise UsageError(f"the servers hold different models: {', '.join(sorted(held))}",
                         fix="start all with the same model or --served-model-name")  # fmt: skip
    return abouts[0]


def expect_context(about: About, tokens: int) -> None:
    """Raise `UsageError` where the longest prompt and its answer do not fit."""
    if tokens > about.context:
        raise UsageError(
            f"the longest prompt and its answer need {tokens} tokens, the server reads "
            f"{about.context}",
            where=about.model,
            fix="start it with a longer --max-model-len, lower max_tokens or shorten the prompts",
        )


def reached(server: Server, model: str, *, context: int, rank: int | None) -> About:
    """What a server holds; `rank` is that of the adapters that it will get. Raises `UsageError`
    with the commands that would start one."""
    try:
        return server.about()
    except HttpError as error:
        port = urlsplit(server.url).port or 80
        command = vllm_command("python", model, port, context=context, rank=rank)
        raise UsageError(
            f"no server answers here within {SIGN_SECONDS:g} s ({error.problem})",
            where=server.url,
            fix=f"start one: strop engine serve {model} --port {port}\n"
            f"  or vLLM, by its own Python (docs/engines.md): {command.line()}",
        ) from None


def expect_tokenizer(
    server: Server, about: About, tokenizer: Tokenizer, of: str = "the model that is trained"
) -> None:
    """Raise `UsageError` where the server reads a text or a conversation as other tokens. One
    without a tokenizer (`--tokens-only`) is left to the canary."""
    body = {"model": about.model, "prompt": TEXT, "add_special_tokens": False}
    said = server.encoded(body)
    if said is None:
        return
    if said != list(tokenizer(TEXT, add_special_tokens=False)["input_ids"]):
        raise UsageError(f"the server has another tokenizer than {of}", where=server.url,
                         fix="start it with that model")  # fmt: skip
    if tokenizer.chat_template is None:
        return
    chat = {"model": about.model, "messages": CHAT, "add_generation_prompt": True}
    own = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
    if server.encoded(chat) != list(own):
        raise UsageError(
            f"the server has another chat template than {of}",
            where=server.url,
            fix="start it with that model, or with --chat-template",
        )
