"""What an engine has answered so far, on disk, so that nothing is asked twice."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from strop.engines.engine import Request
from strop.files import append_line, sha256_hex
from strop.text.script import tools_of
from strop.types import Answer, Completion, Usage

ANSWERS = "answers.jsonl"


class AnswerJournal:
    """Answers in the file `answers.jsonl` of a folder, each under the hash of all that makes it:
    engine, prompt, tools, sampling and draw key. A line that was cut by a kill is dropped.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.identity = folder / ANSWERS, dict(identity)
        self.path.touch()
        self._places: dict[str, int] = {}
        """Where the line of a request begins: the answers themselves stay on the disk."""
        with self.path.open("rb") as stream:
            self._end = 0
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                if (key := _key_of(line)) is not None:
                    self._places[key] = self._end
                self._end += len(line)
        os.truncate(self.path, self._end)

    def key(self, request: Request) -> str:
        """The hash of everything that an answer depends on."""
        task = request.prompt.task
        asked = [task.prompt, tools_of(task.columns.get("tools")), task.columns.get("id")]
        parts = [self.identity, asked, request.sampling.plain(), asdict(request.key)]
        return sha256_hex(json.dumps(parts, sort_keys=True, default=str))

    def get(self, key: str) -> Answer | None:
        """The answer to a request, if it was answered before."""
        if key not in self._places:
            return None
        with self.path.open("rb") as stream:
            stream.seek(self._places[key])
            return _answer_of(json.loads(stream.readline()))

    def add(self, key: str, answer: Answer) -> Answer:
        """Keep an answer; the same one comes back, as `get` will give it."""
        row = {"key": key, **_row_of(answer)}
        line = json.dumps(row)
        append_line(self.path, line)
        self._places[key] = self._end
        self._end += len(line) + 1
        return _answer_of(row)


def _key_of(line: bytes) -> str | None:
    """The request that a line answers; none for a line that was damaged: it is asked again."""
    try:
        return str(json.loads(line)["key"])
    except (ValueError, KeyError, TypeError):
        return None


def _row_of(answer: Answer) -> dict[str, Any]:
    ids = list(answer.ids) if isinstance(answer, Completion) else None
    usage = None if answer.usage is None else asdict(answer.usage)
    return {"text": answer.text, "finish": answer.finish, "opened": answer.opened, "ids": ids,
            "usage": usage}  # fmt: skip


def _answer_of(row: Mapping[str, Any]) -> Answer:
    """A kept answer; the log-probs of a completion were not kept."""
    made = Answer(row["text"], row["finish"])
    if row["ids"] is not None:
        made = Completion.one_turn(row["ids"], row["text"], None, row["finish"])
    usage = None if row["usage"] is None else Usage(**row["usage"])
    return replace(made, opened=row["opened"], usage=usage)
