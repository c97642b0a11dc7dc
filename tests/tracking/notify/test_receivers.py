"""A webhook and a command are told; what goes wrong there is an answer, and never a secret."""

from __future__ import annotations

import json
import logging
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from strop.errors import UsageError
from strop.recipe.notify import NotifyRecipe
from strop.tracking.notify.message import Message
from strop.tracking.notify.receivers import expect_receivers, receiver_of, send_test
from tests.support.hooks import hook_server
from tests.support.servers import stalling_server

MESSAGE = Message("alarm", "stop", "dpo", "dpo: <spike>", {"step": 9}, 1767225600.0)
WHERE = "run.notify"


def webhook(**keys: Any) -> NotifyRecipe:
    return NotifyRecipe.model_validate(keys)


class TestAWebhook:
    @pytest.mark.parametrize(
        ("form", "body"),
        [
            ("json", MESSAGE.plain()),
            ("slack", {"text": "dpo: &lt;spike&gt;"}),
            ("discord", {"content": "dpo: <spike>", "allowed_mentions": {"parse": []}}),
        ],
    )
    def test_is_posted_the_form_it_wants(self, form: str, body: dict[str, Any]) -> None:
        with hook_server() as hook:
            recipe = webhook(webhook=hook.url, format=form, headers={"X-Team": "evals"})
            reply = receiver_of(recipe, WHERE).send(MESSAGE)
        assert hook.bodies == [body]
        assert hook.headers[0]["X-Team"] == "evals"
        assert (reply.sent, reply.said, reply.name) == (True, "status 200", f"webhook {hook.url}")

    def test_that_fails_now_and_then_is_tried_again(self) -> None:
        with hook_server([500, 503]) as hook:
            reply = receiver_of(webhook(webhook=hook.url), WHERE).send(MESSAGE)
        assert (reply.sent, reply.said, len(hook.bodies)) == (True, "status 200", 3)

    def test_that_goes_on_failing_is_given_up(self) -> None:
        with hook_server([500] * 9) as hook:
            reply = receiver_of(webhook(webhook=hook.url), WHERE).send(MESSAGE)
        assert (reply.sent, reply.said, len(hook.bodies)) == (False, "status 500: ok", 3)

    def test_that_says_no_is_asked_once(self) -> None:
        with hook_server([404] * 9) as hook:
            reply = receiver_of(webhook(webhook=hook.url), WHERE).send(MESSAGE)
        assert (reply.sent, reply.said, len(hook.bodies)) == (False, "status 404: ok", 1)

    def test_that_wants_to_be_asked_in_an_hour_is_not_waited_for(self) -> None:
        with hook_server([429] * 9, retry_after="3600") as hook:
            reply = receiver_of(webhook(webhook=hook.url), WHERE).send(MESSAGE)
        assert not reply.sent
        assert "it asks to wait 3600 seconds" in reply.said
        assert len(hook.bodies) == 1

    def test_that_hangs_is_left_after_its_seconds(self) -> None:
        with stalling_server() as server:
            reply = receiver_of(webhook(webhook=server.url, seconds=0.2), WHERE).send(MESSAGE)
        assert (reply.sent, reply.said) == (False, "no whole answer within 0.2 s")
        assert server.asked == 1

    def test_that_is_not_there_is_said_in_words(self) -> None:
        with hook_server() as hook:
            pass
        reply = receiver_of(webhook(webhook=hook.url), WHERE).send(MESSAGE)
        assert not reply.sent
        assert reply.said.startswith("ConnectError")


class TestSecrets:
    def test_are_read_when_they_are_used_and_told_to_the_server_alone(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        with hook_server([400], echo=True) as hook:
            monkeypatch.setenv("TEAM_WEBHOOK", hook.url.replace("/hook", "/services/T0-s3cr3t"))
            monkeypatch.setenv("TEAM_TOKEN", "tok-9f31c2")
            recipe = webhook(
                webhook="${TEAM_WEBHOOK}", headers={"Authorization": "Bearer ${TEAM_TOKEN}"}
            )
            with caplog.at_level(logging.DEBUG):
                reply = receiver_of(recipe, WHERE).send(MESSAGE)
        assert hook.paths == ["/services/T0-s3cr3t"]
        assert hook.headers[0]["Authorization"] == "Bearer tok-9f31c2"
        assert (reply.name, reply.said) == ("webhook ${TEAM_WEBHOOK}",
                                            "status 400: no *** Bearer ***")  # fmt: skip
        assert any(record.name == "httpx" for record in caplog.records)
        assert "s3cr3t" not in caplog.text
        assert "9f31c2" not in caplog.text
        assert "s3cr3t" not in json.dumps(recipe.plain())

    def test_that_are_not_set_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("TEAM_WEBHOOK", raising=False)
        with pytest.raises(UsageError, match=r"run\.notify: the environment variable TEAM_WEBHOOK"):
            expect_receivers([webhook(webhook="${TEAM_WEBHOOK}")], WHERE)

    def test_that_are_no_address_are_refused_without_being_told(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TEAM_WEBHOOK", "'https://hooks.example/s3cr3t'")
        with pytest.raises(UsageError, match=r"has for \$\{TEAM_WEBHOOK\} is no HTTP") as found:
            expect_receivers([webhook(webhook="${TEAM_WEBHOOK}")], WHERE)
        assert "s3cr3t" not in str(found.value)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def wait_until_gone(process: int) -> None:
    """Returns when a process has ended; fails where it goes on."""
    stat = Path(f"/proc/{process}/stat")
    for _ in range(200):
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.02)
    raise AssertionError(f"process {process} goes on")


class TestACommand:
    def test_reads_the_message_and_no_shell_reads_its_words(self, tmp_path: Path) -> None:
        code = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read() + sys.argv[2])"
        recipe = webhook(command=[*python(code), str(tmp_path / "told"), "$HOME; echo"])
        reply = receiver_of(recipe, WHERE).send(MESSAGE)
        said = (tmp_path / "told").read_text().removesuffix("$HOME; echo")
        assert json.loads(said) == MESSAGE.plain()
        assert (reply.sent, reply.said) == (True, "exit status 0")

    def test_that_fails_is_quoted(self) -> None:
        recipe = webhook(command=python("import sys; sys.exit('one\\nno such channel')"))
        reply = receiver_of(recipe, WHERE).send(MESSAGE)
        assert (reply.sent, reply.said) == (False, "exit status 1: no such channel")

    def test_that_reads_nothing_is_no_fault(self) -> None:
        long = Message("end", "failed", "dpo", "x", {"log": "y" * 1_000_000})
        assert receiver_of(webhook(command=["true"]), WHERE).send(long).sent

    def test_that_hangs_is_killed_with_its_children(self, tmp_path: Path) -> None:
        script = f"sleep 60 & echo $! > {shlex.quote(str(tmp_path / 'child'))}; sleep 60"
        recipe = webhook(command=["sh", "-c", script], seconds=0.5)
        reply = receiver_of(recipe, WHERE).send(MESSAGE)
        assert (reply.sent, reply.said) == (False, "it did not end within 0.5 s, and was killed")
        wait_until_gone(int((tmp_path / "child").read_text()))

    def test_that_is_not_there_is_refused(self) -> None:
        with pytest.raises(UsageError, match="no program 'notify-nobody' to run"):
            expect_receivers([webhook(command=["notify-nobody"])], WHERE)

    def test_that_goes_away_during_the_run_is_an_answer(self, tmp_path: Path) -> None:
        program = tmp_path / "tell"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        receiver = receiver_of(webhook(command=[str(program)]), WHERE)
        program.unlink()
        reply = receiver.send(MESSAGE)
        assert (reply.sent, reply.said) == (False, "it cannot be run: No such file or directory")


def test_a_test_goes_to_all_and_brings_back_what_each_said() -> None:
    with hook_server() as hook:
        replies = send_test([webhook(webhook=hook.url), webhook(command=["false"])], "dpo", WHERE)
    assert hook.outcomes == [("test", "test")]
    assert hook.texts == ["dpo: this is a test, and nothing happened."]
    assert [(one.sent, one.said) for one in replies] == [
        (True, "status 200"), (False, "exit status 1: it says nothing"),
    ]  # fmt: skip
