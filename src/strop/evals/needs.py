"""What the tasks of a suite ask of an engine, and whether it gives that: looked at for all tasks
before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from strop.engines.engine import Engine
from strop.engines.openai import OpenAIEngine
from strop.engines.recorded import RecordedEngine
from strop.engines.served.fixed import FixedEngine
from strop.errors import UsageError
from strop.recipe.suite import (
    AnswerTask,
    ChoiceTask,
    EpisodeTask,
    EvalTask,
    LmEvalTask,
    PerplexityTask,
    PreferenceTask,
    Suite,
)

Need = Literal["tokens", "logprobs", "distributions"]

NEEDS: Mapping[type[EvalTask], Need] = {
    ChoiceTask: "logprobs",
    PerplexityTask: "logprobs",
    PreferenceTask: "logprobs",
    LmEvalTask: "distributions",
    EpisodeTask: "tokens",
}
"""What a kind of task reads beside answers: log-probs of given texts, or what else was likely."""

WORDS: Mapping[Need, str] = {
    "tokens": "no tokens of its answers",
    "logprobs": "no likelihoods of given texts",
    "distributions": "no distributions over the vocabulary",
}

GIVES: Mapping[type, frozenset[Need]] = {
    FixedEngine: frozenset({"tokens", "logprobs"}),
    OpenAIEngine: frozenset(),
    RecordedEngine: frozenset(),
}
"""What an engine gives beside answers; one that is not listed is asked for its model."""


def expect_measurable(suite: Suite, engine: Engine, reference: str | None) -> None:
    """Raise `UsageError` for tasks of the suite that this engine cannot answer, all of them in one
    message, and for a KL that servers cannot give."""
    given = GIVES.get(type(engine))
    if given is None:
        return
    where = str(engine.identity().get("path") or suite.name)
    for need in WORDS:
        names = [task.name for task in suite.tasks if NEEDS.get(type(task)) == need]
        if names and need not in given:
            raise UsageError(
                f"the engine gives {WORDS[need]}, which {', '.join(names)} "
                f"need{'s' * (len(names) == 1)}", where=where,
                fix="leave such tasks out of the suite, or measure a model folder"
                f"{' without --engine' * bool(given)}",
            )  # fmt: skip
    answered = [task.name for task in suite.tasks if isinstance(task, AnswerTask)]
    if reference is not None and answered and isinstance(engine, FixedEngine):
        raise UsageError(
            f"the KL of {', '.join(answered)} to {reference} reads distributions over the "
            "vocabulary, which servers do not give", where=where,
            fix="drop --reference, or measure the model folder without --engine",
        )  # fmt: skip
