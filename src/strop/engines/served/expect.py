"""Refuses servers that cannot sample for a run, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, Request, Sampling
from strop.engines.served.kinds import KINDS, Kind, servers_of
from strop.engines.served.server import SIGN_SECONDS, About, Server
from strop.engines.served.ways import expect_started, expect_way
from strop.errors import HttpError, UsageError
from strop.http import refused
from strop.recipe.train.engine import ServedRecipe
from strop.recipe.train.model import ModelRecipe
from strop.text.encode import Tokenizer
from strop.types import Message

TEXT = 'The 2nd price was 41.75 EUR (about $45); Zoe\'s reply: "Nein, danke!"'
CHAT: list[Message] = [{"role": "user", "content": TEXT}]


def expect_servers(
    recipe: ServedRecipe,
    model: ModelRecipe,
    tokenizer: Tokenizer,
    prompts: Sequence[PromptedTask],
    *,
    answer_tokens: int,
) -> About:
    """What the servers hold, which is the same. Raises `UsageError` for one that does not answer,
    reads other tokens or too few of them, samples in a way that does not fit, or gets its weights
    by one that does not."""
    expect_way(recipe, model)
    servers, kind = servers_of(recipe), KINDS[recipe.kind]
    longest = context_of(prompts, answer_tokens)
    rank = None if model.lora is None else model.lora.rank
    abouts = [reached(one, kind, model.path, context=longest, rank=rank) for one in servers]
    for server, about in zip(servers, abouts, strict=True):
        expect_context(about, longest)
        expect_tokenizer(server, about, tokenizer)
        server.expect_usable(prompts[0].prompt_ids)
        expect_started(server, recipe, model)
    held = {about.model for about in abouts}
    if len(held) > 1:
        pairs = zip(servers, abouts, strict=True)
        each = ", ".join(f"{server.url} {about.model}" for server, about in pairs)
        raise UsageError(f"the servers hold different models: {each}",
                         fix="start all with the same model")  # fmt: skip
    return abouts[0]


def context_of(prompts: Sequence[PromptedTask], answer_tokens: int) -> int:
    """Tokens of the longest prompt and its answer."""
    return max(len(prompt.prompt_ids) for prompt in prompts) + answer_tokens


def expect_routes(recipe: ServedRecipe, prompt: PromptedTask) -> None:
    """Raise `UsageError` where a server does not say which experts its tokens went to. One token is
    sampled of each."""
    asked = Request(prompt, Sampling(max_tokens=1, routes=True), DrawKey(0, "selfcheck"))
    for server in servers_of(recipe):
        try:
            server.sample(asked, None, [])
        except HttpError as error:
            raise UsageError(
                f"rollout.routing_replay is set, and {error.problem}",
                where=server.url,
                fix="start the server with --enable-return-routed-experts",
            ) from None


def expect_context(about: About, tokens: int) -> None:
    """Raise `UsageError` where the longest prompt and its answer do not fit."""
    if about.context is not None and tokens > about.context:
        raise UsageError(
            f"the longest prompt and its answer need {tokens} tokens, the server reads "
            f"{about.context}",
            where=about.model,
            fix="start it with a longer --max-model-len (SGLang: --context-length), lower "
            "max_tokens or shorten the prompts",
        )


def reached(server: Server, kind: Kind, model: str, *, context: int, rank: int | None) -> About:
    """What a server holds; `rank` is that of the adapters that it will get. Raises `UsageError`
    with the commands that would start one."""
    try:
        return server.about()
    except HttpError as error:
        port = urlsplit(server.url).port or 80
        start = kind.start(model, rank, port, context)
        raise _no_server(server.url, error, kind, start) from None


def _no_server(url: str, error: HttpError, kind: Kind, start: str) -> UsageError:
    """Why an address has no server that a run can sample from, and what to do."""
    if "SSL" in error.problem:
        return UsageError(
            f"what answers here does not speak https as this machine does ({error.problem})",
            where=url,
            fix=f"write http{url.removeprefix('https')} if the server has no certificate (`strop "
            "engine serve` and vLLM have none by default); else let this machine trust it",
        )
    if error.status == 200 or refused(error):
        return UsageError(
            f"what answers here speaks another protocol than {kind.protocol}'s ({error.problem})",
            where=url,
            fix=f"give the address of a server as it says it when it starts, or {start}",
        )
    return UsageError(
        f"no server answers here within {SIGN_SECONDS:g} s ({error.problem})", where=url, fix=start
    )


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
