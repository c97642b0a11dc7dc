"""Episodes in training: several turns and forks teach what their rows teach one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from strop.advantages import GROUPED
from strop.episodes import Episode, Turn
from strop.model.logprobs import TreeScorer
from strop.model.network import Policy
from strop.recipe.train.environment import ToolsEnvironmentRecipe, UserEnvironmentRecipe
from strop.recipe.train.methods import METHODS
from strop.train.loop.online import score_metrics
from strop.train.loop.optim import Optimizers
from strop.train.loop.state import TrainState
from strop.train.methods.policy_gradient import PolicyGradient
from strop.train.rundir.directory import environment_files
from strop.types import Origin, Rollout, Score, ScoredGroup, Task, Tree, VersionSpan
from tests.support.rollouts import Words
from tests.support.steps import learn

PROMPT = (5, 9, 11, 30)


def one_path(*turns: tuple[tuple[int, ...], tuple[int, ...]]) -> Episode:
    """An episode of turns, each said, then read what the environment said to it."""
    ids: list[int] = []
    sampled: list[bool] = []
    for said, read in turns:
        ids += (*said, *read)
        sampled += (*(True,) * len(said), *(False,) * len(read))
    while not sampled[-1]:
        del ids[-1], sampled[-1]
    return Episode(
        "x", "stop", ids=tuple(ids), sampled=tuple(sampled), logprobs=(-0.5,) * sum(sampled),
        versions=(VersionSpan(0, len(ids), 0),), shared=len(PROMPT),
        turns=tuple(Turn(len(said), 0.1) for said, _ in turns),
    )  # fmt: skip


def forked() -> Episode:
    """Two turns; before the second one the template wrote the first one otherwise."""
    first, second = (40, 41, 42, 2), (50, 51, 60, 61, 2)
    return Episode(
        "x", "stop", ids=(*first, *second), sampled=(True,) * 4 + (False, False, True, True, True),
        logprobs=(-0.5,) * 7, versions=(VersionSpan(0, 4, 0), VersionSpan(6, 9, 0)),
        shared=len(PROMPT), starts=(0, 4), turns=(Turn(4, 0.3), Turn(3, 0.0)),
    )  # fmt: skip


def group(*members: tuple[Episode, float]) -> ScoredGroup:
    task = Task([{"role": "user", "content": "?"}], {}, Origin("tasks.jsonl", 1))
    rollout = Rollout(task, PROMPT, tuple(episode for episode, _ in members))
    return ScoredGroup(rollout, tuple(Score(total, {"environment": total}) for _, total in members))


GROUP = group(
    (one_path(((20, 21, 2), (31, 32)), ((22, 2), (33,)), ((23, 24, 2), ())), 1.0),
    (forked(), 0.3),
    (one_path(((25, 2), ())), 0.0),
)


def learner(policy: Policy, method: str, **options: Any) -> PolicyGradient:
    recipe = METHODS[method].recipe.model_validate({
        "method": method, "output": "o", "model": {"path": "m"}, "data": "d",
        "optim": {"learning_rate": 1e-5, "max_grad_norm": 1e9}, "run": {"steps": 1},
        "reward": [{"function": "environment"}], **options,
    })  # fmt: skip
    state = TrainState(policy, Optimizers([torch.optim.SGD(policy.trainable(), lr=1.0)]))
    return PolicyGradient(recipe, state, policy, None)  # type: ignore[arg-type]


ROLLOUT = {"environment": {"file": "e.py", "class": "E", "max_turns": 4}, "max_tokens": 16}


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> Policy:
    """A model that rounds nothing to float32: its norms and its head compute in float64."""
    torch.manual_seed(0)
    config = hf.GPTNeoXConfig(
        vocab_size=97, hidden_size=48, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    model = hf.GPTNeoXForCausalLM(config).double().eval()

    def kept(tensor: torch.Tensor) -> torch.Tensor:
        return tensor if tensor.is_floating_point() else tensor.double()

    monkeypatch.setattr(torch.Tensor, "float", kept)
    return Policy(model, Words(), False, TreeScorer(model))


def by_rows(policy: Policy, advantages: list[list[float]], weight: Any) -> list[torch.Tensor]:
    """The gradient of the episodes' paths, each read by itself; `weight(tokens)` is what a token of
    an episode of so many counts."""
    loss = torch.zeros((), dtype=torch.float64)
    for i, episode in enumerate(GROUP.rollout.completions):
        assert isinstance(episode, Episode)
        left = iter(advantages[i])
        for branch in episode.branches():
            (said_N,) = policy.score([Tree(PROMPT, (branch,))]).logprobs_N.split(
                sum(branch.supervised)
            )
            for said in said_N:
                loss = loss - next(left) * weight(sum(episode.sampled)) * said
    return list(torch.autograd.grad(loss, policy.trainable()))


@pytest.mark.parametrize("tokens", [None, 24])
@pytest.mark.parametrize("method", ["grpo", "dapo", "dr_grpo", "gspo", "rloo"])
def test_the_gradient_is_that_of_separate_rows(
    exact: Policy, method: str, tokens: int | None
) -> None:
    """Also where the group is cut into forwards of 24 tokens, in which a fork's paths stay
    together."""
    options: dict[str, Any] = {"rollout": ROLLOUT}
    if tokens is not None:
        options["run"] = {"steps": 1, "micro_batch_tokens": tokens}
    gradient = learner(exact, method, **options)
    totals = torch.tensor([[1.0, 0.3, 0.0]])
    advantage = GROUPED[gradient.method.advantage](totals)[0].tolist()
    lengths = [8, 7, 2]
    weights = {
        "sequence_mean": lambda n: 1 / n / 3,
        "sequence_sum": lambda n: 1 / 3,
        "token_mean": lambda n: 1 / sum(lengths),
        "constant": lambda n: 1 / (3 * 64),  # 4 turns of 16 tokens
    }
    expected = by_rows(
        exact,
        [[a] * n for a, n in zip(advantage, lengths, strict=True)],
        weights[gradient.method.denominator],
    )
    before = [p.detach().clone() for p in exact.trainable()]
    learn(gradient, gradient.state, [GROUP], 1.0)
    for old, new, wanted in zip(before, exact.trainable(), expected, strict=True):
        assert float((old - new.detach() - wanted).abs().max()) < 1e-8


def test_credit_by_turn_reaches_every_turns_tokens(exact: Policy) -> None:
    """By hand: returns to go with weight 1 are 1, 0.9, 0.8 of the first episode, 0.3 and 0 of the
    second, 0 of the third, whose turn gave 0.1 as well."""
    world = {**ROLLOUT["environment"], "credit": "turn"}  # type: ignore[dict-item]
    gradient = learner(exact, "dr_grpo", rollout={**ROLLOUT, "environment": world})
    first = [1 - 1.3 / 3, 0.3 - 1.3 / 3, 0 - 1.3 / 3]
    second = [0.9 - 0.45, 0 - 0.45]
    dealt = [
        [first[0]] * 3 + [second[0]] * 2 + [0.0] * 3,
        [first[1]] * 4 + [second[1]] * 3,
        [first[2]] * 2,
    ]
    expected = by_rows(exact, dealt, lambda n: 1 / (3 * 64))
    before = [p.detach().clone() for p in exact.trainable()]
    learn(gradient, gradient.state, [GROUP], 1.0)
    for old, new, wanted in zip(before, exact.trainable(), expected, strict=True):
        assert float((old - new.detach() - wanted).abs().max()) < 1e-8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rollout": {**ROLLOUT, "routing_replay": True}}, "routing_replay is not read"),
        ({"rollout": {**ROLLOUT, "overlong_buffer": 4}}, "overlong_buffer shapes single answers"),
        ({"rollout": {}}, "the reward `environment` is what an environment gives"),
        ({"rollout": {"environment": {"file": "e.py"}}}, "give one of class"),
        (
            {
                "rollout": {"environment": {"file": "e.py", "class": "E", "credit": "turn"}},
                "reward": [{"function": "environment", "normalize": True}],
            },
            "credit: turn reads the environment's rewards",
        ),
    ],
)
def test_what_an_episode_does_not_read_is_refused(
    policy: Policy, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        learner(policy, "grpo", **change)


def test_lengths_are_what_the_policy_wrote() -> None:
    """An environment that says more does not make answers longer; all tokens are counted apart."""
    row = score_metrics([GROUP])
    assert row["completions/mean_length"] == pytest.approx((8 + 7 + 2) / 3)
    assert row["completions/max_length"] == 8
    assert row["num_tokens"] == 11 + 9 + 2


def test_the_files_of_an_environment_are_inputs_of_the_run(tmp_path: Path) -> None:
    """Wherever they stand in the recipe; a changed one gives another hash."""
    own, tools = tmp_path / "env.py", tmp_path / "tools.py"
    own.write_text("class E: ...\n")
    tools.write_text("def f(): ...\n")
    several = ToolsEnvironmentRecipe.model_validate(
        {"tools": [{"python": {}}, {"file": str(tools), "functions": ["f"]}]}
    )
    user = UserEnvironmentRecipe.model_validate({"user": {"file": str(own), "class": "E"}})
    assert [one["path"] for one in environment_files(several)] == [str(tools)]
    (before,) = environment_files(user)
    own.write_text("class E: pass\n")
    (after,) = environment_files(user)
    assert before["path"] == after["path"] == str(own)
    assert before["sha256"] != after["sha256"]
