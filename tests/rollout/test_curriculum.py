"""Tasks that teach are drawn more often, solved ones leave and come back, all of it repeatable."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest

from strop.errors import UsageError
from strop.recipe.train.rollout import CurriculumRecipe
from strop.rollout.curriculum import Curriculum, Seen
from strop.types import Completion, Origin, Rollout, Score, ScoredGroup, Task

RECIPE = CurriculumRecipe()


def group(*totals: float | None) -> ScoredGroup:
    answers = tuple(Completion.one_turn((5, 2), "x", (-0.1, -0.1), "stop") for _ in totals)
    rollout = Rollout(Task("a", {}, Origin("t.jsonl", 1)), (1,), answers)
    return ScoredGroup(rollout, tuple(Score(total, {}) for total in totals))


def test_weights_by_hand() -> None:
    curriculum = Curriculum(RECIPE, 1, 0)
    assert curriculum.weight(Seen()) == 1
    assert curriculum.weight(Seen(rate=0.5, visits=1)) == 1
    assert curriculum.weight(Seen(rate=0.0, visits=9)) == pytest.approx(0.1)
    assert curriculum.weight(Seen(rate=0.25, visits=2)) == pytest.approx(0.1 + 0.9 * 0.75)
    assert curriculum.weight(Seen(rate=0.9, visits=2, retired=True)) == pytest.approx(0.1)


def test_pass_rates_fade_and_unscored_answers_say_nothing() -> None:
    curriculum = Curriculum(RECIPE, 2, 0)
    curriculum.note(0, group(1, 0, None, 0.99))
    assert curriculum.seen[0].rate == pytest.approx(1 / 3)
    curriculum.note(0, group(1, 1))
    assert curriculum.seen[0].rate == pytest.approx(0.5 / 3 + 0.5)
    curriculum.note(1, group(None, None))
    assert curriculum.seen[1] == Seen()


def test_solved_tasks_retire_and_come_back() -> None:
    curriculum = Curriculum(RECIPE, 1, 0)
    for _ in range(3):
        assert not curriculum.seen[0].retired
        curriculum.note(0, group(1, 1))
    assert curriculum.seen[0].retired
    assert curriculum.metrics()["curriculum/retired"] == 1
    curriculum.note(0, group(1, 0))
    assert not curriculum.seen[0].retired
    assert curriculum.metrics()["curriculum/brought_back"] == 1


def test_tasks_of_middling_difficulty_are_drawn_most() -> None:
    """300 tasks that are always, never or half of the time solved: after they were seen, weights
    are about 0.1, 0.1 and 0.9."""
    draw = random.Random(0)
    chances = [(0.0, 0.5, 1.0)[n % 3] for n in range(300)]
    curriculum = Curriculum(RECIPE, 300, 4)
    counts: Counter[float] = Counter()
    for step in range(200):
        drawn = curriculum.draw(16, step, 0)
        assert len(set(drawn)) == 16
        for task in drawn:
            passes = [float(draw.random() < chances[task]) for _ in range(8)]
            curriculum.note(task, group(*passes))
            counts[chances[task]] += step >= 60
    share = {chance: count / counts.total() for chance, count in counts.items()}
    assert share[0.5] > 0.75
    assert share[0.0] > 0.05, "the floor keeps them"
    assert share[1.0] > 0.05
    bands = curriculum.metrics()
    assert bands["curriculum/unseen"] == 0
    assert 100 <= bands["curriculum/hard"] < 110
    assert bands["curriculum/middle"] > 80


def test_fewer_tasks_than_a_step_takes_are_drawn_again() -> None:
    drawn = Curriculum(RECIPE, 3, 0).draw(8, 0, 0)
    assert Counter(Counter(drawn).values()) == Counter({3: 2, 2: 1})


def test_a_resumed_curriculum_draws_what_it_would_have_drawn() -> None:
    whole, first = Curriculum(RECIPE, 40, 1), Curriculum(RECIPE, 40, 1)
    second = Curriculum(RECIPE, 40, 1)

    def advance(curriculum: Curriculum, steps: range) -> list[list[int]]:
        said = []
        for step in steps:
            drawn = curriculum.draw(8, step, 0)
            for task in drawn:
                curriculum.note(task, group(*((task + k + step) % 3 > 0 for k in range(4))))
            said.append(drawn)
        return said

    expected = advance(whole, range(20))
    assert advance(first, range(9)) == expected[:9]
    second.load(json.loads(json.dumps(first.state())))
    assert advance(second, range(9, 20)) == expected[9:]
    assert second.metrics() == whole.metrics()
    with pytest.raises(UsageError, match="knows 40 tasks, and there are 41"):
        Curriculum(RECIPE, 41, 1).load(first.state())
