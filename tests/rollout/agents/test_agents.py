"""Agents against OpenAI's real client: what they ask becomes their episode, to the token."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from strop.engines.engine import Request
from strop.errors import TextError, WorldError
from strop.recipe.train.environment import AgentRecipe
from strop.rollout.agents.capture import Capture, Clock
from strop.rollout.environments import way_of
from strop.text.encode import Encoder
from strop.text.parse import decode
from strop.types import Completion
from tests.rollout.agents.agents import ADD
from tests.support.agents import PROMPT, played, speaker, texts
from tests.support.episodes import asked
from tests.support.templates import PLAIN, TOOLS

FILE = Path(__file__).parent / "agents.py"
CALL = '<tool_call>{"name": "add", "arguments": {"a": 2, "b": 3}}</tool_call>'


@pytest.fixture(scope="module")
def plain(tokenizer: Any) -> Any:
    return speaker(tokenizer, PLAIN)


@pytest.fixture(scope="module")
def tooled(tokenizer: Any) -> Any:
    return speaker(tokenizer, TOOLS)


def adds(prompt: str, request: Request) -> str:
    return "It is 5." if "tool\n5" in prompt else CALL


def test_a_conversation_with_tools_is_one_path(tooled: Any) -> None:
    right, wrong = played(FILE, tooled, adds, "run", [{"answer": 5}, {"answer": 6}])
    assert (right.reward, wrong.reward) == (1.0, 0.0)
    assert (right.finish, len(right.turns), right.facts["forks"]) == ("stop", 2, 0.0)
    written = [text for text, sampled in texts(tooled, right) if sampled]
    assert written == [f"{CALL}<|im_end|>", "It is 5.<|im_end|>"]
    assert sum(right.sampled) == len(right.sampler_logprobs()) == sum(t.tokens for t in right.turns)
    assert [m["role"] for m in right.messages] == ["assistant", "tool", "assistant"]
    assert right.facts["overruled"] == 0.0


def test_the_path_is_what_the_template_writes(tooled: Any) -> None:
    (episode,) = played(FILE, tooled, adds, "run", [{"answer": 5}])
    messages = [*PROMPT, *episode.messages]
    whole = tooled.apply_chat_template(messages, tools=[ADD], tokenize=False)
    requests = asked(tooled, [PROMPT])
    prompt = decode(tooled, requests[0].prompt.prompt_ids[: episode.shared], special=True)
    said = "".join(text for text, _ in texts(tooled, episode))
    assert whole.startswith(prompt + said)


def test_a_turn_that_the_template_writes_otherwise_is_a_fork(tooled: Any) -> None:
    """The second path reads the call as the template writes it, and only the last turn is learnt in
    it; the call is learnt where it was sampled."""
    spaced = CALL.replace(">{", ">\n{")

    def say(prompt: str, request: Request) -> str:
        return "It is 5." if "tool\n5" in prompt else spaced

    (episode,) = played(FILE, tooled, say, "run", [{"answer": 5}])
    assert (episode.reward, episode.facts["forks"]) == (1.0, 1.0)
    first, second = episode.branches()
    assert [sum(branch.supervised) for branch in (first, second)] == [
        turn.tokens for turn in episode.turns
    ]
    assert spaced in decode(tooled, first.ids, special=True)
    assert CALL in decode(tooled, second.ids, special=True)


def test_another_conversation_is_a_fork(plain: Any) -> None:
    (episode,) = played(FILE, plain, lambda prompt, request: f"n {len(prompt)}", "chat")
    assert episode.reward is None
    assert (len(episode.turns), len(episode.starts), episode.facts["forks"]) == (3, 2, 1.0)
    assert episode.facts["overruled"] == 2.0  # a temperature of 0.1 is not the run's
    first, second = episode.branches()
    assert sum(first.supervised) == episode.turns[0].tokens + episode.turns[1].tokens
    assert sum(second.supervised) == episode.turns[2].tokens
    assert "Sum up." in decode(plain, second.ids, special=True)


def test_questions_at_once_are_as_many_paths(plain: Any) -> None:
    (episode,) = played(FILE, plain, lambda prompt, request: prompt[-25:-20], "parallel")
    assert (episode.reward, len(episode.starts)) == (3.0, 3)


def test_episodes_are_told_apart_by_their_keys(plain: Any) -> None:
    """Answers depend on the draw keys, which name the episode's request."""
    episodes = played(
        FILE, plain, lambda prompt, request: f"k {request.key.index}", "failing",
        [{"way": "no"}] * 4,
    )  # fmt: skip
    said = [episode.messages[-1]["content"] for episode in episodes]
    assert sorted(said) == ["k 0", "k 1", "k 2", "k 3"]
    assert [int(one.split()[1]) for one in said] == [0, 1, 2, 3]


def test_what_the_model_in_training_cannot_be_made_to_do_is_refused(plain: Any) -> None:
    (episode,) = played(FILE, plain, lambda prompt, request: "x", "refused")
    assert (episode.reward, len(episode.turns)) == (5.0, 1)


ASK = [{"role": "user", "content": "Go."}]
CHAT, TOKENS = "/chat/completions", "/inference/v1/generate"
DEEP = "[" * 3000 + "]" * 3000
WRONG: list[tuple[str, Any, str]] = [
    (CHAT, "{not json", "the request is no JSON"),
    (CHAT, [], "valid dictionary"),
    (CHAT, {"messages": []}, "messages: "),
    (CHAT, {"messages": [{"content": "x"}]}, "messages.0.role: Field required"),
    (CHAT, {"messages": [{"role": 5, "content": "x"}]}, "messages.0.role: "),
    (CHAT, {"messages": [{"role": "user", "content": 5}]},
     "messages.0.content: it is neither a text nor a list of parts"),
    (CHAT, {"messages": [{"role": "user", "content": [1]}]}, "messages.0.content.0: "),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
     "messages.0.content.0: a part of the type `text` has no `text`"),
    (CHAT, {"messages": [*ASK, {"role": "assistant", "tool_calls": [{"id": "x"}]}]},
     "messages.1.tool_calls.0.function: Field required"),
    (CHAT, {"messages": [*ASK, {"role": "assistant", "tool_calls": [
        {"id": "x", "function": {"name": "a", "arguments": "[1]"}}]}]}, "are no JSON object"),
    (CHAT, {"messages": [*ASK, {"role": "assistant", "tool_calls": [
        {"id": "x", "function": {"name": "a", "arguments": DEEP}}]}]}, "are no JSON object"),
    (CHAT, {"messages": ASK, "stop": 5}, "stop: "),
    (CHAT, {"messages": ASK, "stop": [["x"]]}, "stop.0: "),
    (CHAT, {"messages": ASK, "stop": ["\ud800"]}, "answers do not end at"),
    (CHAT, {"messages": ASK, "response_format": "text"}, "response_format: "),
    (CHAT, {"messages": ASK, "tools": [{"a": 1}]}, "tools.0.function: Field required"),
    (CHAT, {"messages": ASK, "max_tokens": 0}, "max_tokens: "),
    (CHAT, {"messages": ASK, "max_completion_tokens": 1.5}, "max_completion_tokens: "),
    (CHAT, {"messages": [{"role": "user", "content": "\ud800"}]}, "half of a surrogate pair"),
    (TOKENS, {"token_ids": []}, "token_ids: "),
    (TOKENS, {"token_ids": [5, -1]}, "token_ids.1 is -1: the model's tokens are 0 to "),
    (TOKENS, {"token_ids": [10_000_000]}, "token_ids.0 is 10000000: the model's tokens are 0 to "),
    (TOKENS, {"token_ids": [10**30]}, "token_ids.0"),
    (TOKENS, {"token_ids": ["x"]}, "token_ids.0: "),
    (TOKENS, {"token_ids": [5], "sampling_params": {"max_tokens": "x"}}, "max_tokens: "),
    (TOKENS, {"token_ids": [5], "sampling_params": {"max_tokens": 0}}, "max_tokens: "),
    (TOKENS, {"token_ids": [5], "sampling_params": {"max_tokens": 1.5}}, "max_tokens: "),
    (TOKENS, {"token_ids": [5], "sampling_params": {"stop": 5}}, "sampling_params.stop: "),
    (TOKENS, {"token_ids": [5], "sampling_params": {"n": 2}}, "sampling_params.n: "),
]  # fmt: skip


def test_a_wrong_call_is_refused_in_words_and_costs_no_turn(
    plain: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever an agent sends, the run goes on, and the message is about its request."""
    told = tmp_path / "told"
    task = {"calls": [call[:2] for call in WRONG], "told": str(told)}
    (episode,) = played(FILE, plain, lambda prompt, request: "x", "wrong", [task], max_turns=1)
    for (path, body, wanted), (status, said) in zip(
        WRONG, json.loads(told.read_text()), strict=True
    ):
        assert status == 400, (path, body, status, said)
        assert wanted in said, (path, body, said)
        assert "record" not in said
        assert "tasks.jsonl" not in said
    assert (episode.finish, episode.reward, len(episode.turns)) == ("stop", 1.0, 1)
    assert episode.facts["overruled"] == 0.0
    assert "Traceback" not in caplog.text


def test_a_token_that_the_model_said_may_be_sent_back(plain: Any) -> None:
    """Also one that its tokenizer has no word for; no other such one."""
    (request,) = asked(plain, [PROMPT])

    async def ask(ids: tuple[int, ...], **_: Any) -> Completion:
        return Completion.one_turn([995, plain.eos_token_id], "x", [-0.5, -0.5], "stop", 1)

    async def both() -> None:
        limits = AgentRecipe.model_validate({"agent": {"file": str(FILE)}})
        capture = Capture(request, ask, Encoder(plain), limits, context=64, vocabulary=292)  # type: ignore[arg-type]
        await capture.generate((5,), None)
        await capture.generate((5, 995), None)
        with pytest.raises(TextError, match=r"token_ids.1 is 996: the model's tokens are 0 to 291"):
            await capture.generate((5, 996), None)
        assert len(capture.asked) == 2

    asyncio.run(both())


@pytest.mark.parametrize(
    ("limits", "turns"),
    [({"max_turns": 3}, 3), ({"max_turns": 50, "max_episode_tokens": 60}, None)],
)
def test_limits_end_an_episode_as_length(
    plain: Any, limits: dict[str, Any], turns: int | None
) -> None:
    (episode,) = played(FILE, plain, lambda prompt, request: "more and more", "endless", **limits)
    assert episode.finish == "length"
    if turns:
        assert len(episode.turns) == turns
    else:
        assert 2 <= len(episode.turns) < 50
        assert len(episode.ids) <= 60


def test_an_agent_that_a_limit_cut_short_has_no_reward_unless_it_says_one(plain: Any) -> None:
    """Also one that raises when it is refused, as OpenAI's client does: it is told and counted."""
    ways = [{"then": then} for then in ("return", "raise", "hang")]
    with pytest.warns(UserWarning, match="has no reward of its own") as warned:
        ended = played(FILE, plain, lambda p, r: "x", "cut_short", ways, max_turns=2,
                       episode_seconds=8.0)  # fmt: skip
    assert [(e.finish, e.reward, len(e.turns)) for e in ended] == [
        ("length", 1.0, 2), ("length", None, 2), ("length", None, 2),
    ]  # fmt: skip
    assert [e.facts["cut_short"] for e in ended] == [0.0, 1.0, 1.0]
    said = "\n".join(str(one.message) for one in warned)
    assert "RuntimeError: refused" in said
    assert "max_turns" in said


def test_an_episode_without_an_answer_has_failed_whatever_the_agent_returns(plain: Any) -> None:
    """Its only request did not fit into what the model reads."""
    with pytest.warns(UserWarning, match="no request of the agent .* was answered: a prompt of "):
        (episode,) = played(FILE, plain, lambda p, r: "x", "cut_short",
                            [{"then": "return", "say": "x" * 9000}])  # fmt: skip
    assert (episode.finish, episode.reward, episode.ids) == ("error", None, ())


def test_failures_cost_their_episode_only(plain: Any) -> None:
    ways = [{"way": way} for way in ("raise", "no", "crash", "hang")]
    ended = played(FILE, plain, lambda p, r: "x", "failing", ways, episode_seconds=8.0)
    assert [e.finish for e in ended] == ["error", "stop", "error", "aborted"]
    assert [e.reward for e in ended] == [None, 1.0, None, None]


def test_what_an_agent_has_started_ends_with_it(plain: Any, tmp_path: Path) -> None:
    """Also what has a session of its own, and what has lost its parent."""
    told = tmp_path / "pids"
    task = {"way": "daemons", "pids": str(told)}
    (episode,) = played(FILE, plain, lambda p, r: "x", "failing", [task], episode_seconds=8.0)
    assert episode.finish == "aborted"
    pids = [int(pid) for pid in told.read_text().split()]
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_an_agent_that_asks_for_nothing_has_failed(plain: Any) -> None:
    with pytest.warns(UserWarning, match="silent of .* was answered: it made none"):
        (episode,) = played(FILE, plain, lambda prompt, request: "x", "silent")
    assert (episode.finish, episode.reward, episode.turns) == ("error", None, ())


@pytest.mark.parametrize(
    ("function", "said"),
    [("fly", "the file has no function 'fly'"),
     ("two", r"two is called as two\(base_url, api_key, task\)")],
)  # fmt: skip
def test_what_is_no_agent_is_refused(function: str, said: str) -> None:
    recipe = AgentRecipe.model_validate({"agent": {"file": str(FILE), "function": function}})
    with pytest.raises(WorldError, match=said):
        way_of(recipe)


def test_the_clock_stands_still_while_an_answer_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    clock = Clock()
    now[0] = 102.0
    clock.asks()
    now[0] = 103.0
    clock.asks()
    now[0] = 107.0
    assert clock.own == 2.0
    clock.answered()
    clock.answered()
    now[0] = 108.0
    assert clock.own == 3.0
