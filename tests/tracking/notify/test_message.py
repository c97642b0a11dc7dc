"""What is posted: all of it as JSON, or what Slack and Discord want, with nobody mentioned."""

from __future__ import annotations

import json

from strop.tracking.notify.message import BODIES, DISCORD_MOST, MOST, Message

ALARM = Message("alarm", "stop", "dpo", "dpo: displacement at step 9: a < b & <!channel>",
                {"step": 9, "alarm": "displacement"}, 1767225600.0)  # fmt: skip


def test_json_has_all_that_is_known() -> None:
    body = BODIES["json"](ALARM)
    assert json.loads(json.dumps(body)) == {
        "event": "alarm",
        "outcome": "stop",
        "about": "dpo",
        "text": "dpo: displacement at step 9: a < b & <!channel>",
        "facts": {"step": 9, "alarm": "displacement"},
        "time": 1767225600.0,
        "held_back": 0,
    }


def test_slack_gets_a_text_that_mentions_nobody() -> None:
    said = "dpo: displacement at step 9: a &lt; b &amp; &lt;!channel&gt;"
    assert BODIES["slack"](ALARM) == {"text": said}


def test_discord_gets_a_content_that_mentions_nobody() -> None:
    body = BODIES["discord"](ALARM)
    assert body == {"content": ALARM.text, "allowed_mentions": {"parse": []}}


def test_long_texts_end_where_the_receiver_would_refuse_them() -> None:
    long = Message("end", "failed", "dpo", "x" * 9000)
    assert len(BODIES["discord"](long)["content"]) == DISCORD_MOST
    assert len(BODIES["json"](long)["text"]) == MOST
    assert BODIES["json"](long)["text"].endswith("x ...")


def test_what_was_held_back_is_said() -> None:
    later = [Message("alarm", "warn", "dpo", "dpo: spike", held_back=count) for count in (0, 1, 3)]
    assert [one.said for one in later] == [
        "dpo: spike",
        "dpo: spike (1 earlier message was held back)",
        "dpo: spike (3 earlier messages were held back)",
    ]
