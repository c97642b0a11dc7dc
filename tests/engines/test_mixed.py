"""Answers drawn from a student mixed with its teacher: the mixture, exactly, token by token."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, Request, Sampling, in_groups, requests_of
from strop.engines.local.engine import LocalEngine
from strop.engines.local.mixed import MixedEngine, Mixing, mixture
from strop.model.load import load_for_inference
from strop.model.network import Policy
from strop.model.teacher import LocalTeacher, in_common
from strop.types import Branch, Completion, Origin, Task, Tree
from tests.support.runs import write_teacher

PROMPTS = ((2, 40, 41, 42), (2, 50, 51), (2, 40, 41, 60, 61, 62))


@pytest.fixture(scope="module")
def pair(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Policy, Policy]:
    """A student and a teacher."""
    teacher = write_teacher(tmp_path_factory.mktemp("mixed"), model_folder)
    return load_for_inference(str(model_folder)), load_for_inference(str(teacher))


def engine(pair: tuple[Policy, Policy], share: float, temperature: float = 1.0) -> MixedEngine:
    teacher = LocalTeacher(pair[1], in_common(*pair))
    mixing = Mixing("", pair[0], teacher, share=share, temperature=temperature)
    return MixedEngine(mixing)


def asked(group: int, sampling: Sampling, stream: str = "training") -> list[Request]:
    prompts = [PromptedTask(Task("", {}, Origin("", 1)), ids) for ids in PROMPTS]
    return requests_of(prompts, sampling, DrawKey(7, stream), group)  # type: ignore[arg-type]


def test_a_mixture_by_hand() -> None:
    own = torch.tensor([[0.9, 0.1]]).log()
    other = torch.tensor([[0.5, 0.5]]).log()
    torch.testing.assert_close(mixture(own, other, 0.25).exp(), torch.tensor([[0.8, 0.2]]))
    wide = torch.tensor([[0.5, 0.5, 1e-9]]).log()
    found = mixture(own, wide, 0.25)
    torch.testing.assert_close(found.exp(), torch.tensor([[0.8, 0.2]]))
    padded = mixture(wide, own, 0.25)
    assert padded[0, 2] == -math.inf


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_are_those_of_the_mixture(
    pair: tuple[Policy, Policy], temperature: float
) -> None:
    """Of every token of every answer, by whole forwards of both models."""
    share, sampling = 0.3, Sampling(temperature=temperature, max_tokens=9)
    groups = in_groups(engine(pair, share, temperature).generate(asked(4, sampling)), 4)
    for prompt, answers in zip(PROMPTS, groups, strict=True):
        for answer in answers:
            assert isinstance(answer, Completion)
            tree = Tree(prompt, (Branch(answer.ids, (True,) * len(answer.ids)),))
            with torch.no_grad():
                student, teacher = (
                    torch.softmax(policy.score.distributions([tree]) / temperature, -1)
                    for policy in pair
                )
            mixed = share * teacher + (1 - share) * student
            expected = mixed[torch.arange(len(answer.ids)), torch.tensor(answer.ids)].log()
            found = torch.tensor(answer.sampler_logprobs())
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_tokens_are_drawn_as_often_as_the_mixture_says(pair: tuple[Policy, Policy]) -> None:
    """2,000 first tokens; four standard errors of each frequent one."""
    share, count = 0.5, 2000
    request = asked(count, Sampling(max_tokens=1))[:count]
    drawn = [answer.ids[0] for _, answer in engine(pair, share).generate(request)]
    tree = Tree(PROMPTS[0], (Branch((5,), (True,)),))
    with torch.no_grad():
        student, teacher = (p.score.distributions([tree])[0].exp() for p in pair)
    chance = share * teacher + (1 - share) * student
    for token in chance.topk(8).indices.tolist():
        p = float(chance[token])
        spread = math.sqrt(p * (1 - p) / count)
        assert abs(drawn.count(token) / count - p) <= 4 * spread


def test_all_but_training_asks_the_student_alone(pair: tuple[Policy, Policy]) -> None:
    sampling = Sampling(max_tokens=6)
    plain = dict(LocalEngine("", pair[0]).generate(asked(2, sampling, "held_out")))
    assert dict(engine(pair, 0.5).generate(asked(2, sampling, "held_out"))) == plain
    mixed = dict(engine(pair, 0.5).generate(asked(2, sampling)))
    alone = dict(LocalEngine("", pair[0]).generate(asked(2, sampling)))
    assert mixed != alone


def test_what_was_published_is_the_version_of_mixed_answers(pair: tuple[Policy, Policy]) -> None:
    mixed = engine(pair, 0.5)
    assert mixed.publish({}) == 1
    answers = mixed.generate(asked(1, Sampling(max_tokens=2)))
    assert {span.version for _, answer in answers for span in answer.versions} == {1}
