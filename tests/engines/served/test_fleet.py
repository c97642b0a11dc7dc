"""Several servers: no sample lost, none doubled, none of other weights."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.engines.draws import DrawKey
from strop.engines.engine import Request, Sampling, requests_of
from strop.engines.served.fleet import Asked, Fleet, Member
from strop.errors import HttpError, TrainingError, UsageError
from strop.model.network import Policy
from strop.types import Branch, Tree
from tests.support.engine_servers import Running, engine_server, start
from tests.support.served import (
    PROMPTS,
    engine_for,
    killing_after,
    nudge,
    publish,
    requests,
    trained,
)


class TestFleet:
    def test_a_server_killed_within_a_step_loses_no_sample_and_doubles_none(
        self, policy: Policy, model_folder: Path, tmp_path: Path
    ) -> None:
        with ExitStack() as stack:
            alone = stack.enter_context(engine_server(model_folder))
            one = engine_for(policy, tmp_path / "a", alone)
            publish(one, policy)
            wanted = {n: answer.ids for n, answer in one.generate(requests(16))}
            first, second = (start(model_folder) for _ in range(2))
            stack.callback(second.kill)
            engine = engine_for(policy, tmp_path / "b", first, second, at_once=6)
            publish(engine, policy)
            with pytest.warns(UserWarning, match="is left out until it answers again"):
                answered = list(killing_after(3, first, engine.generate(requests(16))))
            assert len(answered) == 48
            assert {n: answer.ids for n, answer in answered} == wanted

    def test_a_restarted_server_samples_from_the_newest_weights_only(
        self, trains: Policy, model_folder: Path, tmp_path: Path
    ) -> None:
        first, second = start(model_folder), start(model_folder)
        engine = engine_for(trains, tmp_path, first, second)
        publish(engine, trains)
        first.kill()
        nudge(trains)
        with pytest.warns(UserWarning, match="is left out"):
            publish(engine, trains)
        back = start(model_folder, port=int(first.url.rpartition(":")[2]))
        try:
            second.kill()
            with pytest.warns(UserWarning, match="is left out"):
                answers = dict(engine.generate(requests()))
            for number, asked in enumerate(requests()):
                own = trained(trains, asked, answers[number])
                assert torch.tensor(answers[number].logprobs) == pytest.approx(own, abs=1e-5)
        finally:
            back.kill()

    def test_a_server_that_was_restarted_unseen_gets_the_newest_weights_within_the_call(
        self, trains: Policy, model_folder: Path, tmp_path: Path
    ) -> None:
        first = start(model_folder)
        nudge(trains)
        engine = engine_for(trains, tmp_path, first)
        publish(engine, trains)
        wanted = {n: answer.ids for n, answer in engine.generate(requests())}
        trees = [Tree(PROMPTS[0].prompt_ids, (Branch(wanted[0], (True,) * len(wanted[0])),))]
        scores = engine.score(trees)

        def restarted() -> Running:
            first.kill()
            return start(model_folder, port=int(first.url.rpartition(":")[2]))

        first = restarted()
        with pytest.warns(UserWarning, match=r"is left out.*it was restarted, or serves"):
            answers = dict(engine.generate(requests()))
        assert {n: answer.ids for n, answer in answers.items()} == wanted
        first = restarted()
        with pytest.warns(UserWarning, match=r"is left out.*it was restarted, or serves"):
            again = engine.score(trees)
        assert again == [pytest.approx(scores[0], abs=1e-6)]
        first.kill()

    def test_weights_lost_between_two_answers_give_no_sample_of_others(
        self, trains: Policy, model_folder: Path, tmp_path: Path
    ) -> None:
        """The fifth sample of the call finds the server as it was when it was started."""
        seen: list[int] = []

        def forgetful(held: Any) -> None:
            plain = held.sample

            def sample(request: Request, adapter: str | None) -> Any:
                seen.append(1)
                if len(seen) == 5:
                    for name in set(held.adapters):
                        held.unload_adapter(name).result()
                    held.reload(str(model_folder)).result()
                    held.version = "0"
                return plain(request, adapter)

            held.sample = sample

        nudge(trains)
        with engine_server(model_folder) as whole, engine_server(model_folder, forgetful) as other:
            one = engine_for(trains, tmp_path / "a", whole)
            publish(one, trains)
            wanted = {n: answer.ids for n, answer in one.generate(requests())}
            engine = engine_for(trains, tmp_path / "b", other, at_once=1)
            publish(engine, trains)
            with pytest.warns(UserWarning, match="is left out"):
                answers = dict(engine.generate(requests()))
        assert {n: answer.ids for n, answer in answers.items()} == wanted
        for number, asked in enumerate(requests()):
            own = trained(trains, asked, answers[number])
            assert torch.tensor(answers[number].logprobs) == pytest.approx(own, abs=1e-5)

    def test_a_server_that_loses_its_weights_again_and_again_is_left_out(
        self, policy: Policy, model_folder: Path, tmp_path: Path
    ) -> None:
        def shared(held: Any) -> None:
            plain = held.sample

            def sample(request: Request, adapter: str | None) -> Any:
                held.version = "another run's"
                return plain(request, adapter)

            held.sample = sample

        with engine_server(model_folder, shared) as server:
            engine = engine_for(policy, tmp_path, server)
            publish(engine, policy)
            with (
                pytest.raises(TrainingError, match=r"no server answers.*or serves another run"),
                pytest.warns(UserWarning, match="is left out"),
            ):
                list(engine.generate(requests()))

    def test_a_restart_while_weights_are_read_gives_the_old_ones_no_new_name(
        self, policy: Policy, model_folder: Path, tmp_path: Path
    ) -> None:
        """The weights moved by less than the canary can tell, so the name alone can."""

        def restarted(held: Any) -> None:
            plain = held.reload

            def reload(folder: str) -> Any:
                done = plain(folder)
                if folder.endswith("-2"):
                    done.result()
                    held.version = "0"
                    return plain(str(model_folder))
                return done

            held.reload = reload

        with (
            engine_server(model_folder, restarted) as first,
            engine_server(model_folder) as second,
        ):
            engine = engine_for(policy, tmp_path, first, second)
            publish(engine, policy)
            nudge(policy, 1e-9)
            with pytest.warns(UserWarning, match=f"{first.url} is left out"):
                publish(engine, policy)
            assert [member.alive for member in engine.fleet.members] == [False, True]

    def test_a_request_that_nobody_could_meet_ends_the_call(
        self, trains: Policy, server: Running, tmp_path: Path
    ) -> None:
        engine = engine_for(trains, tmp_path, server)
        publish(engine, trains)
        (long,) = requests_of(PROMPTS[:1], Sampling(max_tokens=10**4), DrawKey(1, "training"), 1)
        with pytest.raises(HttpError, match=r"status 400.*the model reads"):
            list(engine.generate([long]))
        assert len(dict(engine.generate(requests()))) == 12, "and the server was not left out"

    @pytest.mark.parametrize("way", ["dies", "breaks"])
    def test_a_server_that_dies_while_it_takes_weights_is_left_out(
        self, trains: Policy, model_folder: Path, tmp_path: Path, way: str
    ) -> None:
        def take(*_: str) -> Future[None]:
            never: Future[None] = Future()
            if way == "dies":
                threading.Thread(target=first.kill).start()
            else:
                never.set_exception(RuntimeError("out of memory"))
            return never

        first = start(model_folder)
        with engine_server(model_folder) as second:
            engine = engine_for(trains, tmp_path, first, second)
            publish(engine, trains)
            first.held.load_adapter = first.held.reload = take  # type: ignore[method-assign, assignment]
            nudge(trains)
            with pytest.warns(UserWarning, match=f"{first.url} is left out"):
                publish(engine, trains)
            answers = dict(engine.generate(requests()))
            own = trained(trains, requests()[0], answers[0])
            assert torch.tensor(answers[0].logprobs) == pytest.approx(own, abs=1e-5)
            second.held.load_adapter = second.held.reload = take  # type: ignore[method-assign, assignment]
            if way == "breaks":
                with (
                    pytest.raises(TrainingError, match="no server answers"),
                    pytest.warns(UserWarning, match="is left out"),
                ):
                    publish(engine, trains)
        first.kill()

    def test_a_server_that_refuses_weights_ends_the_run(
        self, policy: Policy, model_folder: Path, tmp_path: Path
    ) -> None:
        def refuse(folder: str) -> Future[None]:
            refused: Future[None] = Future()
            refused.set_exception(UsageError("not here"))
            return refused

        with engine_server(model_folder, lambda held: setattr(held, "reload", refuse)) as server:
            engine = engine_for(policy, tmp_path, server)
            with pytest.raises(TrainingError, match="the server took no new weights: status 400"):
                publish(engine, policy)

    def test_without_any_server_the_run_stops_and_says_which(
        self, policy: Policy, model_folder: Path, tmp_path: Path
    ) -> None:
        only = start(model_folder)
        engine = engine_for(policy, tmp_path, only)
        publish(engine, policy)
        only.kill()
        with (
            pytest.raises(TrainingError, match=f"no server answers: {only.url}"),
            pytest.warns(UserWarning, match="left out"),
        ):
            list(engine.generate(requests()))

    def test_work_goes_to_who_owes_the_fewest_tokens(
        self, policy: Policy, model_folder: Path, tmp_path: Path
    ) -> None:
        seen: dict[str, int] = {}

        def counted(held: Any) -> None:
            plain = held.sample

            def sample(request: Request, adapter: str | None) -> Any:
                seen[str(id(held))] = seen.get(str(id(held)), 0) + 1
                return plain(request, adapter)

            held.sample = sample

        with (
            engine_server(model_folder, counted) as first,
            engine_server(model_folder, counted) as second,
        ):
            engine = engine_for(policy, tmp_path, first, second, at_once=8)
            publish(engine, policy)
            list(engine.generate(requests(16)))
        assert sum(seen.values()) == 48
        assert min(seen.values()) >= 12


class Away:
    """A server that says nothing for 5 s of a clock that this moves, while it is away."""

    def __init__(self, url: str, clock: list[float]) -> None:
        self.url, self.clock, self.away, self.looked = url, clock, False, 0

    def about(self) -> None:
        self.looked += 1
        if self.away:
            self.clock[0] += 5.0
            raise HttpError("no whole answer within 5 s", where=self.url)


class TestLooking:
    @pytest.fixture
    def clock(self) -> list[float]:
        return [0.0]

    def fleet(self, clock: list[float], *servers: Away) -> Fleet:
        members = [Member(server) for server in servers]  # type: ignore[arg-type]
        made = Fleet(members, 4, lambda server: None, clock=lambda: clock[0])
        made.everywhere()
        return made

    def wave(self, fleet: Fleet) -> list[str]:
        """Who answers, in a wave that takes a second."""
        asked = Asked(lambda server: server.url, 1)
        return [url for _, url in fleet.ask([asked])]

    def test_a_dead_server_takes_a_small_share_of_the_time(self, clock: list[float]) -> None:
        here, dead = Away("http://a:1", clock), Away("http://b:1", clock)
        dead.away = True
        with pytest.warns(UserWarning, match="is left out"):
            fleet = self.fleet(clock, here, dead)
        began, dead.looked = clock[0], 0
        for _ in range(1000):
            assert self.wave(fleet) == [here.url]
            clock[0] += 1.0
        spent = 5.0 * dead.looked
        assert dead.looked >= 5, "it is still looked for"
        assert spent / (clock[0] - began) == pytest.approx(0.05, abs=0.01)

    def test_one_that_is_back_is_found(self, clock: list[float]) -> None:
        here, dead = Away("http://a:1", clock), Away("http://b:1", clock)
        dead.away = True
        with pytest.warns(UserWarning, match="is left out"):
            fleet = self.fleet(clock, here, dead)
        self.wave(fleet)
        dead.away = False
        waves = 0
        while not fleet.members[1].alive:
            self.wave(fleet)
            clock[0] += 1.0
            waves += 1
        assert waves <= 101, "5 s are 5 % of 100"

    def test_where_nobody_is_left_one_is_looked_for_at_once(self, clock: list[float]) -> None:
        only = Away("http://a:1", clock)
        fleet = self.fleet(clock, only)
        fleet.members[0].alive, fleet.members[0].look_at = False, 10.0**9
        assert self.wave(fleet) == [only.url]
