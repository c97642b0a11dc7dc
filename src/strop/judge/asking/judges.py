"""Who judges: a model that is asked in words, or a reward model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from strop.engines.draws import DrawKey
from strop.engines.engine import Engine, Sampling, in_groups, requests_of
from strop.errors import UsageError
from strop.files import SHORT, sha256_hex
from strop.judge.asking.forms import (
    FORMS,
    HIGH,
    LIKELY_HIGH,
    LOW,
    MOST_RANKED,
    FormName,
    form_template,
)
from strop.judge.asking.material import material
from strop.judge.asking.question import Question, Ruling
from strop.text.templates import PromptTemplate, conversation
from strop.types import FAILED, Answer, Origin, Task

SAMPLING = Sampling(temperature=0.0, max_tokens=256)


class Judge(Protocol):
    """Rules on questions. An answer that failed or cannot be understood is a ruling without values,
    and fails no other; a server that is down raises `UnscoredError`."""

    def identity(self) -> Mapping[str, Any]:
        """What verdicts depend on: the model, and the words it is asked in."""

    def rule(self, form: FormName, questions: Sequence[Question]) -> list[Ruling]:
        """One ruling for each question, in order."""


@dataclass(frozen=True, slots=True)
class TextJudge:
    """A model behind any engine, asked in the words of templates and read strictly.

    `templates` are a user's own files by form; `seed` fixes the samples of a judge that is not
    greedy, and the marks that fence what it is shown. With `by_likelihood` it gives no reasons: its
    verdict is begun for it, and how likely each end is becomes verdict and confidence.
    """

    engine: Engine
    templates: Mapping[FormName, str] = field(default_factory=dict)
    sampling: Sampling = SAMPLING
    seed: int = 0
    by_likelihood: bool = False

    def identity(self) -> Mapping[str, Any]:
        words = {name: form_template(name, self.templates.get(name)).sha256 for name in FORMS}
        known = {**self.engine.identity(), "templates": words}
        if self.by_likelihood:
            return {**known, "verdicts": "likelihood"}
        how = self.sampling.plain()
        drawn = {"seed": self.seed} if self.sampling.temperature else {}
        return {**known, "verdicts": "words", "sampling": how, **drawn}

    def rule(self, form: FormName, questions: Sequence[Question]) -> list[Ruling]:
        if not questions:
            return []
        template = form_template(form, self.templates.get(form))
        shown = [self.words(form, template, question) for question in questions]
        if self.by_likelihood:
            return self._weighed(form, _tasks(shown, questions, FORMS[form].opened))
        prompts = self.engine.prompted(_tasks(shown, questions), self.sampling)
        requests = requests_of(prompts, self.sampling, DrawKey(self.seed, "judge"), 1)
        answers = in_groups(self.engine.generate(requests), 1)
        return [
            _ruling(form, question, answer)
            for question, (answer,) in zip(questions, answers, strict=True)
        ]

    def _weighed(self, form: FormName, tasks: Sequence[Task]) -> list[Ruling]:
        """Rulings from how likely each end of the verdict is."""
        how = FORMS[form]
        if how.weigh is None:
            raise UsageError(f"a {form} has too many ends to read it from likelihoods",
                             fix="let the judge answer in words")  # fmt: skip
        prompts = self.engine.prompted(tasks, Sampling(temperature=0.0, max_tokens=1))
        rulings = []
        for found in self.engine.choose(prompts, how.options):
            if found.logprobs is None:
                rulings.append(Ruling(None, problem=found.problem, usage=found.usage))
                continue
            likeliest = max(found.logprobs)
            raw = [math.exp(logprob - likeliest) for logprob in found.logprobs]
            chances = [one / math.fsum(raw) for one in raw]
            rulings.append(Ruling(how.weigh(chances), max(chances), usage=found.usage))
        return rulings

    def words(self, form: FormName, template: PromptTemplate, question: Question) -> str:
        """What the judge reads."""
        _expect_answers(form, question)
        texts = [conversation(question.prompt), *question.answers]
        secret = sha256_hex(f"{self.seed} {template.sha256}", SHORT)
        safe = material(texts, secret)
        values: dict[str, Any] = {
            "mark": safe.mark, "prompt": safe.texts[0], "answers": safe.texts[1:],
            "criterion": question.criterion, "low": LOW,
            "high": LIKELY_HIGH if self.by_likelihood else HIGH,
            "names": [chr(ord("A") + n) for n in range(len(question.answers))],
        }  # fmt: skip
        return template.render(**values)


def in_both_orders(
    judge: Judge, form: FormName, questions: Sequence[Question]
) -> tuple[list[Ruling], list[Ruling]]:
    """Rulings on the questions, and on the same answers shown in the opposite order; the values of
    both are in the order of the questions."""
    rulings = judge.rule(form, [*questions, *(question.turned() for question in questions)])
    swapped = [ruling.turned() for ruling in rulings[len(questions) :]]
    return rulings[: len(questions)], swapped


def _tasks(shown: Sequence[str], questions: Sequence[Question], opened: str = "") -> list[Task]:
    """What the judge is asked; with `opened` its answer has begun."""
    begun = [{"role": "assistant", "content": opened}] if opened else []
    return [
        Task(
            [{"role": "user", "content": text}, *begun],
            {"id": one.item},
            Origin(f"question {one.item}", number),
        )
        for number, (text, one) in enumerate(zip(shown, questions, strict=True))
    ]


def _ruling(form: FormName, question: Question, answer: Answer) -> Ruling:
    if answer.finish in FAILED:
        return Ruling(None, problem=f"the judge's answer is {answer.finish}")
    values = FORMS[form].read(answer.text, len(question.answers))
    if values is None:
        cut = " (it met the token limit)" if answer.finish == "length" else ""
        problem = f"no clear verdict in its words{cut}"
        return Ruling(None, said=answer.text, problem=problem, usage=answer.usage)
    return Ruling(values, said=answer.text, usage=answer.usage)


def _expect_answers(form: FormName, question: Question) -> None:
    wanted, given = FORMS[form].answers, len(question.answers)
    if wanted is None and not 2 <= given <= MOST_RANKED:
        raise UsageError(f"a ranking takes 2 to {MOST_RANKED} answers, got {given}",
                         where=f"question {question.item}", fix="rank a part of them")  # fmt: skip
    if wanted not in (None, given):
        raise UsageError(f"{form} takes {wanted} answers, got {given}",
                         where=f"question {question.item}", fix="split the question")  # fmt: skip
