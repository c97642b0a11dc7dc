"""More work for one answer: the best of several, what most of several say, a second look."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from strop.engines.server.lanes import Answered
from strop.evals.decode.draws import revision_prompt
from strop.recipe.study import Refine
from strop.rewards.answer.read import final_answer
from strop.rewards.compose import Reward, as_said
from strop.serve.answering import drawn
from strop.serve.errors import RefusedError
from strop.serve.exchange import Exchange
from strop.serve.protocol.bodies import Compute
from strop.text.script import before_answer
from strop.types import Completion


@dataclass(frozen=True, slots=True)
class Chosen:
    """The answer that is told, and how many tokens were sampled for it in all."""

    completion: Completion
    sampled: int


async def chosen(asked: Exchange, wanted: Compute, rewards: dict[str, Reward]) -> Chosen:
    """The answer to a request for more work. Raises `RefusedError` for a reward that the server
    does not have, or that can judge none of the answers."""
    if wanted.refine is not None:
        return await _refined(asked, wanted)
    if wanted.maj_at is not None:
        made = await _candidates(replace(asked, n=wanted.maj_at))
        return Chosen(made[majority([one.said for one in made])], _tokens(made))
    assert wanted.best_of is not None
    assert wanted.reward is not None
    reward = reward_of(wanted.reward, rewards)
    made = await _candidates(replace(asked, n=wanted.best_of))
    best = await asyncio.to_thread(_best, reward, asked, made)
    return Chosen(made[best], _tokens(made))


def reward_of(name: str, rewards: dict[str, Reward]) -> Reward:
    """The server's reward of this name. Raises `RefusedError` where there is none."""
    if name not in rewards:
        known = ", ".join(rewards) or "none"
        raise RefusedError(400, f"there is no reward {name!r} here: there are {known}",
                           param="strop.reward")  # fmt: skip
    return rewards[name]


def majority(texts: Sequence[str]) -> int:
    """The place of the first answer whose final answer most of the texts give; texts without one
    do not vote, and where none has one the first is taken."""
    answers = [final_answer(text) for text in texts]
    votes = Counter(one for one in answers if one is not None)
    return answers.index(votes.most_common(1)[0][0]) if votes else 0


def _best(reward: Reward, asked: Exchange, made: Sequence[Completion]) -> int:
    """The place of the answer with the highest score; the first of equal ones."""
    columns: dict[str, Sequence[Any]] = {
        name: [value] * len(made) for name, value in asked.metadata.items()
    }
    columns["completion_ids"] = [list(one.ids) for one in made]
    prompts = [before_answer(asked.prompt)] * len(made)
    said = [as_said(asked.prompt, one.said) for one in made]
    totals = [score.total for score in reward.judge(prompts, said, columns, len(made)).scores]
    scored = [(-total, place) for place, total in enumerate(totals) if total is not None]
    if not scored:
        raise RefusedError(400, "the reward can judge none of the answers to this request",
                           param="strop.reward")  # fmt: skip
    return min(scored)[1]


async def _refined(asked: Exchange, wanted: Compute) -> Chosen:
    assert wanted.refine is not None
    given = {} if wanted.refine.instruction is None else {"instruction": wanted.refine.instruction}
    how = Refine(rounds=wanted.refine.rounds, **given)
    made = (await _candidates(replace(asked, n=1)))[0]
    sampled = len(made.ids)
    for _ in range(how.rounds):
        prompt = revision_prompt(how, asked.prompt, made.said)
        prompted = await asyncio.to_thread(
            asked.version.renderer.prompted, prompt, asked.tools, asked.caller.name
        )
        room = asked.version.context or len(prompted.prompt_ids) + asked.sampling.max_tokens
        left = room - len(prompted.prompt_ids)
        if left < 1:
            break
        sampling = replace(asked.sampling, max_tokens=min(asked.sampling.max_tokens, left))
        made = (await _candidates(replace(asked, n=1, prompted=prompted, sampling=sampling)))[0]
        sampled += len(made.ids)
    return Chosen(made, sampled)


async def _candidates(asked: Exchange) -> list[Completion]:
    made: dict[int, Completion] = {}
    async with aclosing(drawn(asked.version, asked.requests())) as stream:
        async for index, what in stream:
            if isinstance(what, Answered):
                made[index] = what.what
    return [made[index] for index in range(asked.n)]


def _tokens(made: Sequence[Completion]) -> int:
    return sum(len(one.ids) for one in made)
