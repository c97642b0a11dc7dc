"""Completions, draw keys, requests and the engines behind one protocol."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from strop.engines.draws import DrawKey, uniforms
from strop.engines.engine import (
    PromptedTask,
    Sampling,
    in_groups,
    requests_of,
    sampling_of,
)
from strop.engines.openai import OpenAIEngine
from strop.errors import UnscoredError, UsageError
from strop.http import RequestLimits
from strop.model.logprobs import Head
from strop.recipe.template import TemplateRecipe
from strop.recipe.train.rollout import RolloutRecipe, SamplingRecipe
from strop.text.tools import Call, calls_in
from strop.types import (
    Answer,
    Branch,
    Completion,
    Origin,
    Task,
    Tree,
    Usage,
    VersionSpan,
    trainable,
)
from tests.support.asking import ask_all, tasks
from tests.support.families import model_of
from tests.support.sampling import engine_of, prompted, sample
from tests.support.servers import chat_server

PROMPTS = [(9, 11, 12), (8,), (10, 13, 14, 15, 16), (17, 18)]
FREE = Sampling(temperature=1.0, max_tokens=8)
GREEDY = Sampling(temperature=0, max_tokens=8)


class TestCompletion:
    WHOLE = Completion.one_turn((5, 6, 2), "x = 3", (-0.1, -0.2, -0.3), "stop", version=7)
    WITH_A_TOOL = Completion(
        "f(3) gives 4: 4", "stop", ids=(5, 90, 91, 6, 2), sampled=(True, False, False, True, True),
        logprobs=(-0.1, -0.2, -0.3), versions=(VersionSpan(0, 1, 7), VersionSpan(3, 5, 8)),
    )  # fmt: skip

    def test_of_one_turn(self) -> None:
        assert self.WHOLE.sampled == (True, True, True)
        assert self.WHOLE.versions == (VersionSpan(0, 3, 7),)
        assert Completion.one_turn((), "", (), "error").versions == ()

    def test_branch_supervises_what_the_policy_wrote(self) -> None:
        assert self.WHOLE.branches() == (Branch((5, 6, 2), (True,) * 3),)
        expected = (True, False, False, True, True)
        assert self.WITH_A_TOOL.branches()[0] == Branch((5, 90, 91, 6, 2), expected)

    def test_what_has_no_tokens_or_no_log_probs_is_not_trained_on(self) -> None:
        assert trainable(self.WITH_A_TOOL) is self.WITH_A_TOOL
        silent = replace(self.WHOLE, logprobs=None)
        said = []
        for untrainable in (Answer("x = 3", "stop"), silent):
            with pytest.raises(UsageError, match="can be judged, but not trained on") as told:
                trainable(untrainable)
            said.append(str(told.value))
        with pytest.raises(UsageError, match="can be judged, but not trained on"):
            silent.sampler_logprobs()
        assert said[0] == said[1]


def test_a_completion_whose_parts_do_not_match_is_refused() -> None:
    marks = (True, False, True)
    Completion("x", "stop", ids=(5, 6, 2), sampled=marks, logprobs=(-0.1, -0.2), versions=())
    for logprobs in ((-0.1,), (-0.1, -0.2, -0.3)):
        with pytest.raises(UsageError, match=r"2 are sampled, and [13] log-probs"):
            Completion("x", "stop", ids=(5, 6, 2), sampled=marks, logprobs=logprobs, versions=())
    with pytest.raises(UsageError, match="2 ids, 3 marks"):
        Completion("x", "stop", ids=(5, 2), sampled=marks, logprobs=None, versions=())


class TestDrawKeys:
    def test_streams_of_one_seed_are_independent(self) -> None:
        keys = [DrawKey(0, "training", 3), DrawKey(0, "eval", 3), DrawKey(0, "decode", round=3),
                DrawKey(0, "held_out"), DrawKey(0, "selfcheck"),
                DrawKey(0, "synthetic")]  # fmt: skip
        assert len({tuple(uniforms(key, 3)) for key in keys}) == 6

    @pytest.mark.parametrize(
        ("key", "text"),
        [
            (DrawKey(7, "training", 3, 0, "1,4", 2), "7/training/3/0/2/1,4"),
            (DrawKey(7, "training", 3, 2, "1,4", 2), "7/training/3/2/2/1,4"),
            (DrawKey(7, "selfcheck", prompt="1,4"), "7/selfcheck/0/0/0/1,4"),
            (DrawKey(7, "held_out", prompt="1,4", index=1), "7/held_out/0/0/1/1,4"),
            (DrawKey(7, "eval", prompt="1,4", index=1), "7/eval/0/0/1/1,4"),
            (DrawKey(7, "decode", round=3, prompt="1,4"), "7/decode/0/3/0/1,4"),
        ],
    )
    def test_numbers_of_every_stream(self, key: DrawKey, text: str) -> None:
        number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
        expected = np.random.Generator(np.random.Philox(key=number)).random(5)
        assert uniforms(key, 5).tolist() == expected.tolist()

    def test_every_part_of_a_key_counts_and_more_numbers_begin_with_the_same(self) -> None:
        key = DrawKey(0, "training", 1, 0, "1,4", 0)
        others = [replace(key, **change) for change in (
            {"seed": 1}, {"stream": "held_out"}, {"step": 2}, {"round": 1}, {"prompt": "1,5"},
            {"index": 1},
        )]  # type: ignore[arg-type] # fmt: skip
        drawn = {tuple(uniforms(one, 4)) for one in (key, *others)}
        assert len(drawn) == 7
        assert uniforms(key, 9)[:4].tolist() == uniforms(key, 4).tolist()


class TestRequests:
    @pytest.mark.parametrize(
        "finished",
        [[(1, "b"), (2, "c"), (3, "d")], [(0, "a"), (0, "a"), (1, "b"), (2, "c")], [(0, "a")]],
        ids=["one is missing", "one came twice", "half a group"],
    )
    def test_an_engine_that_loses_an_answer_is_seen(self, finished: list[tuple[int, Any]]) -> None:
        """Every later answer would be judged as another prompt's."""
        whole = [(3, "d"), (0, "a"), (2, "c"), (1, "b")]
        assert in_groups(whole, 2) == [("a", "b"), ("c", "d")]  # type: ignore[type-var]
        with pytest.raises(UsageError, match="where each request has one"):
            in_groups(finished, 2)

    def test_a_prompt_that_comes_again_counts_on(self) -> None:
        asked = requests_of(prompted([(1, 4), (7,), (1, 4)]), FREE, DrawKey(3, "training", 5), 2)
        assert [(r.key.prompt, r.key.index) for r in asked] == [
            ("1,4", 0), ("1,4", 1), ("7", 0), ("7", 1), ("1,4", 2), ("1,4", 3),
        ]  # fmt: skip
        assert {(r.key.seed, r.key.stream, r.key.step) for r in asked} == {(3, "training", 5)}

    def test_prompts_that_a_server_writes_are_told_apart_by_their_origin(self) -> None:
        tasks = [PromptedTask(Task("p", {}, Origin("t.jsonl", n)), ()) for n in (1, 2)]
        asked = requests_of(tasks, FREE, DrawKey(3, "eval"), 2)
        assert [(r.key.prompt, r.key.index) for r in asked] == [
            ("t.jsonl:1", 0), ("t.jsonl:1", 1), ("t.jsonl:2", 0), ("t.jsonl:2", 1),
        ]  # fmt: skip

    def test_groups_come_back_in_order(self) -> None:
        answers = [Answer(str(n), "stop") for n in range(4)]
        shuffled = ((n, answers[n]) for n in (2, 0, 3, 1))
        assert in_groups(shuffled, 2) == [(answers[0], answers[1]), (answers[2], answers[3])]

    def test_sampling_of_a_recipe(self) -> None:
        asked = SamplingRecipe(temperature=0.5, top_p=0.9, top_k=4, min_p=0.1, stop=["x"])
        assert sampling_of(asked) == Sampling(0.5, 0.9, 4, 0.1, 256, ("x",))
        rollout = RolloutRecipe(group_size=3, temperature=0.7, max_tokens=9)
        assert sampling_of(rollout) == Sampling(temperature=0.7, max_tokens=9)


class TestLocalEngine:
    def test_samplings_of_one_call_do_not_meet(self) -> None:
        engine = engine_of(model_of("llama"))
        free = requests_of(prompted(PROMPTS), FREE, DrawKey(1, "eval"), 2)
        greedy = requests_of(prompted(PROMPTS), GREEDY, DrawKey(1, "eval"), 2)
        alone = [*in_groups(engine.generate(free), 2), *in_groups(engine.generate(greedy), 2)]
        woven = [request for pair in zip(free, greedy, strict=True) for request in pair]
        together = dict(engine.generate(woven))
        flat = [completion.ids for group in alone for completion in group]
        assert [together[2 * n].ids for n in range(8)] == flat[:8]
        assert [together[2 * n + 1].ids for n in range(8)] == flat[8:]

    def test_gradients_are_on_between_two_answers(self) -> None:
        """The caller may train on an answer while others are still to come."""
        engine = engine_of(model_of("llama").train(), max_rows=1)
        model = engine.policy().model
        asked = requests_of(prompted(PROMPTS), FREE, DrawKey(1, "eval"), 1)
        for _ in engine.generate(asked):
            assert torch.is_grad_enabled()
            assert model.training

    @pytest.mark.parametrize("masked", [False, True])
    def test_score_gives_what_the_trainer_computes(self, masked: bool) -> None:
        engine = engine_of(model_of("qwen3"))
        groups = sample(engine, PROMPTS, group_size=2, sampling=FREE, seed=0, step=0)
        trees = [
            Tree(prompt, tuple(completion.branches()[0] for completion in group))
            for prompt, group in zip(PROMPTS, groups, strict=True)
        ]
        if masked:  # the second token of every branch was a tool's
            trees = [replace(t, branches=tuple(map(_second_read, t.branches))) for t in trees]
        found = engine.score(trees)
        assert [len(one) for one in found] == [sum(b.supervised) for t in trees for b in t.branches]
        assert torch.is_grad_enabled()
        if not masked:
            said = [c.sampler_logprobs() for group in groups for c in group]
            assert max(abs(a - b) for x, y in zip(found, said, strict=True)
                       for a, b in zip(x, y, strict=True)) < 1e-5  # fmt: skip
        scores = engine.policy().score(trees, Head()).logprobs_N.tolist()
        assert [x for one in found for x in one] == pytest.approx(scores, abs=1e-6)

    def test_published_weights_are_the_ones_that_sample(self) -> None:
        mine, other = model_of("qwen3"), model_of("qwen3")
        with torch.no_grad():
            other.lm_head.weight.copy_(torch.randn(other.lm_head.weight.shape))
        engine, theirs = engine_of(mine), engine_of(other)
        asked = {"group_size": 1, "sampling": GREEDY, "seed": 0, "step": 0}
        before = sample(engine, PROMPTS, **asked)
        expected = sample(theirs, PROMPTS, **asked)
        assert [g[0].ids for g in before] != [g[0].ids for g in expected]
        assert {span.version for (c,) in before for span in c.versions} == {0}
        assert engine.publish(dict(other.named_parameters())) == 1
        after = sample(engine, PROMPTS, **asked)
        assert [g[0].ids for g in after] == [g[0].ids for g in expected]
        assert {span.version for (c,) in after for span in c.versions} == {1}
        assert [(c.versions[0].start, c.versions[0].stop) for (c,) in after] == [
            (0, len(c.ids)) for (c,) in after
        ]

    def test_its_own_tensors_are_published_by_counting(self) -> None:
        engine = engine_of(model_of("qwen3"))
        own = dict(engine.policy().model.named_parameters())
        versions = [tensor._version for tensor in own.values()]
        assert [engine.publish(own), engine.publish(own)] == [1, 2]
        assert [tensor._version for tensor in own.values()] == versions
        with pytest.raises(UsageError, match=r"no weights 'lm_head\.bias'"):
            engine.publish({"lm_head.bias": torch.zeros(1)})


def _second_read(branch: Branch) -> Branch:
    return replace(branch, supervised=tuple(n != 1 for n in range(len(branch.ids))))


class TestOpenAIEngine:
    def test_answers_come_as_they_finish(self, url: str) -> None:
        found = list(ask_all(OpenAIEngine(url, "mine"), tasks("a", "b", "c")))
        used = Usage(prompt=10, completion=1)
        assert found[-1] == (0, Answer("A", "stop", usage=used))
        assert dict(found)[1] == Answer("B", "aborted", usage=used)
        assert dict(found)[2] == Answer("C", "stop", usage=used)

    def test_what_was_answered_is_kept(self, url: str, tmp_path: Path) -> None:
        limits = RequestLimits(most_requests=2)
        engine = OpenAIEngine(url, "mine", limits=limits, cache=tmp_path)
        first = dict(ask_all(engine, tasks("d", "c")))
        again = engine.with_template(TemplateRecipe())
        assert dict(ask_all(again, tasks("c", "d"))) == {0: first[1], 1: first[0]}
        assert (engine.client.sent, again.client.sent) == (2, 0)
        assert again.client.limits is limits

    def test_an_answer_that_failed_is_asked_again(self, url: str, tmp_path: Path) -> None:
        for _ in range(2):
            engine = OpenAIEngine(url, "mine", cache=tmp_path)
            ((_, answer),) = ask_all(engine, tasks("b"))
            assert (answer.finish, engine.client.sent) == ("aborted", 1)

    def test_a_refused_request_ends_all_others_unless_it_may_fail_alone(self) -> None:
        def reply(body: dict[str, Any]) -> Any:
            said = body["messages"][-1]["content"]
            return int(said) if said.isdigit() else said

        with chat_server(reply) as server:
            lenient = OpenAIEngine(server.url, "mine", lenient=True)
            with pytest.warns(UserWarning, match="a request got no answer .status 400"):
                found = dict(ask_all(lenient, tasks("b", "400", "c")))
            assert [found[n].text for n in range(3)] == ["b", "", "c"]
            assert [found[n].finish for n in range(3)] == ["stop", "error", "stop"]
            with pytest.raises(UnscoredError, match="status 400"):
                dict(ask_all(OpenAIEngine(server.url, "mine"), tasks("b", "400", "c")))
            with pytest.raises(UnscoredError, match="status 401"):
                dict(ask_all(lenient, tasks("b", "401", "c")))

    def test_a_thought_beside_the_answer_is_kept_where_it_is_wanted(self) -> None:
        message = {"content": "4", "reasoning_content": "2 and 2"}
        with chat_server(lambda body: {"message": message}) as server:
            said = dict(ask_all(OpenAIEngine(server.url, "m"), tasks("b")))
            assert said[0].text == "4"
            thinking = OpenAIEngine(server.url, "m", thoughts=True).with_template(TemplateRecipe())
            assert dict(ask_all(thinking, tasks("b")))[0].text == (
                "<think>\n2 and 2\n</think>\n\n4"
            )

    def test_rounds_of_one_prompt_are_other_draws(self) -> None:
        with chat_server(lambda body: "x") as server:
            engine = OpenAIEngine(server.url, "m")
            prompts = engine.prompted(tasks("b"), FREE)
            for round in (0, 1):
                key = DrawKey(3, "synthetic", round=round)
                list(engine.generate(requests_of(prompts, FREE, key, 2)))
            assert sorted(body["seed"] for body in server.asked) == [3, 4, 65539, 65540]


def answered(message: Mapping[str, Any], finish: str = "stop") -> Answer:
    """What the engine makes of a server's message."""

    class Said(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            choice = {"message": message, "finish_reason": finish}
            self.wfile.write(json.dumps({"choices": [choice]}).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Said) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{running.server_port}/v1"
            ((_, answer),) = ask_all(OpenAIEngine(url, "mine"), tasks("a"))
        finally:
            running.shutdown()
            thread.join()
    return answer


CALL = {"function": {"name": "f", "arguments": '{"x": 1}'}}


class TestWhatAServerSays:
    def test_null_without_a_call_is_no_finished_answer(self) -> None:
        assert answered({"content": None}) == Answer("", "error")
        assert answered({"content": None, "tool_calls": []}) == Answer("", "error")
        assert answered({"content": None}, "length") == Answer("", "length")
        assert answered({"content": ""}) == Answer("", "stop")
        assert answered({"content": "half"}, "content_filter") == Answer("half", "error")

    def test_calls_are_put_back_into_the_text(self) -> None:
        alone = answered({"content": None, "tool_calls": [CALL]}, "tool_calls")
        assert alone.finish == "stop"
        assert calls_in(alone.text) == [Call("f", {"x": 1})]
        beside = answered({"content": "so:", "tool_calls": [CALL] * 2}, "tool_calls")
        assert beside.text.splitlines() == ["so:", *[alone.text] * 2]

    def test_arguments_that_are_no_json_stay_as_they_were_written(self) -> None:
        broken = {"function": {"name": "f", "arguments": '{"x": '}}
        said = answered({"content": None, "tool_calls": [broken]}).text
        assert r'''"{\"x\": "''' in said
        assert calls_in(said) is None

    def test_a_call_without_a_name_is_not_of_the_form(self) -> None:
        with pytest.raises(UnscoredError, match="not of the OpenAI form"):
            answered({"content": None, "tool_calls": [{"function": {}}]})


def test_a_key_that_no_header_can_carry(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("schl\u00fcssel", "two\nlines"):
        monkeypatch.setenv("STROP_API_KEY", key)
        with pytest.raises(UsageError, match="STROP_API_KEY holds a character") as told:
            OpenAIEngine("http://127.0.0.1:8000/v1", "mine")
        assert key not in str(told.value)
    monkeypatch.setenv("STROP_API_KEY", "sk-1_2.3/4+5=")
    engine = OpenAIEngine("http://127.0.0.1:8000/v1", "mine")
    assert engine.client.headers == {"Authorization": "Bearer sk-1_2.3/4+5="}


def test_what_is_noted_of_sampling_stays_equal_when_options_are_added() -> None:
    """Cards of judges and caches of answers are found by it."""
    noted = {
        "temperature": 0.7, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "max_tokens": 256,
        "stop": ["x"], "include_stop_str_in_output": True, "skip_special_tokens": True,
        "entropies": False, "routes": False,
    }  # fmt: skip
    assert Sampling(temperature=0.7, stop=("x",)).plain() == noted
    assert Sampling(presence_penalty=0.5).plain()["presence_penalty"] == 0.5
