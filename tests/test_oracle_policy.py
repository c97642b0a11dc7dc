"""strop against TRL 1.16 on a policy's own answers: loss and gradient of two updates on one batch.

The same answers and rewards are handed to strop's `PolicyGradient` and, through a rollout
function, to TRL's trainers. Both then take what they need of the weights that wrote the answers
(old log-probs, advantages, corrections) and make two updates: one on policy, one after the weights
have moved. Where TRL means something else, the difference is asserted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from transformers import AutoTokenizer

from conftest import Recorder, learn
from strop.demo.world import solution, user
from strop.model.load import load_policy
from strop.model.logprobs import Head
from strop.model.network import Policy
from strop.model.reference import Reference
from strop.recipe.train.methods import METHODS
from strop.recipe.train.model import ModelRecipe
from strop.recipe.train.online import PolicyRecipe
from strop.text.render import prompt_ids
from strop.train.build import build_state
from strop.train.methods.policy_gradient import PolicyGradient, loss_of
from strop.types import (
    Branch,
    Completion,
    Origin,
    Rollout,
    Score,
    ScoredGroup,
    Task,
    Tree,
)
from test_oracle_pairs import EQUATIONS, TRL_OPTIONS, Step, shake, shaken, step_of

pytestmark = pytest.mark.oracle

GROUP = 4
LONGEST = 48
TEMPERATURE = 0.9
REWARDS = [[1.0, 0.0, 0.25, 0.0], [0.5, 0.5, 0.5, 0.5], [0.0, 2.0, 1.0, 0.75]]
"""Of the answers to each prompt; the second group agrees, so without a KL it says nothing."""


@dataclass(frozen=True, slots=True)
class Updates:
    """Mean loss of the two updates, and each one's gradient."""

    loss: float
    gradients: tuple[torch.Tensor, ...]


class MovingRecorder(Recorder):
    """An optimizer whose update is a fixed move of the weights."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(list(model.parameters()))
        self.model = model

    def step(self, learning_rate: float) -> None:
        super().step(learning_rate)
        move(self.model)


def move(model: torch.nn.Module) -> None:
    shake(model, seed=3, scale=0.02)


@pytest.fixture(scope="module")
def groups(model_folder: Path) -> tuple[ScoredGroup, ...]:
    """Three prompts with four answers of several lengths and their rewards.

    The log-probs that the sampler reports are a noisy version of what the policy gives.
    """
    policy = load_policy(ModelRecipe(path=str(model_folder)))
    shake(policy.model)
    generator = torch.Generator().manual_seed(5)
    made = []
    for equation, rewards in zip(EQUATIONS, REWARDS, strict=False):
        prompt = prompt_ids(policy.tokenizer, user(equation))
        lines = solution(equation, filler=True).split("\n")
        texts = [lines[-1], "\n".join(lines[2:]), lines[0], "\n".join([lines[0], lines[-1]])]
        completions = []
        for text in texts:
            ids = (*policy.tokenizer(text)["input_ids"], policy.tokenizer.eos_token_id)
            tree = Tree(prompt, (Branch(ids, (True,) * len(ids)),))
            with torch.no_grad():
                exact_N = policy.score([tree], Head(temperature=TEMPERATURE)).logprobs_N
            noisy_N = exact_N + 0.4 * torch.randn(exact_N.shape, generator=generator)
            completions.append(Completion.one_turn(ids, text, tuple(noisy_N.tolist()), "stop"))
        scores = tuple(Score(reward, {}) for reward in rewards)
        task = Task(user(equation), {}, Origin("tasks.jsonl", len(made) + 1))
        made.append(ScoredGroup(Rollout(task, prompt, tuple(completions)), scores))
    return tuple(made)


@dataclass(frozen=True, slots=True)
class Sides:
    """One test's two trainers over the same answers."""

    folder: Path
    scratch: Path
    groups: tuple[ScoredGroup, ...]

    def learnt(
        self,
        method: str,
        objective: Mapping[str, Any],
        mismatch: Mapping[str, Any] | None = None,
        updates: int = 2,
    ) -> tuple[Updates, dict[str, float]]:
        """strop's updates and what it logged of them."""
        recipe = METHODS[method].recipe.model_validate(
            {
                "method": method,
                "output": str(self.scratch / method),
                "model": {"path": str(self.folder)},
                "data": "none.jsonl",
                "optim": {"learning_rate": 1e-6, "max_grad_norm": 1e9},
                "run": {"steps": 1, "batch_size": len(self.groups), "micro_batch_tokens": 90},
                "rollout": {
                    "group_size": GROUP,
                    "max_tokens": LONGEST,
                    "temperature": TEMPERATURE,
                    "mismatch": dict(mismatch or {}),
                },
                "reward": [{"function": "exact_answer"}],
                "objective": {**objective, **({"num_iterations": updates} if updates > 1 else {})},
            }
        )
        assert isinstance(recipe, PolicyRecipe)
        state = build_state(recipe, recipe.model)
        policy = state.network
        assert isinstance(policy, Policy)
        reference = Reference(policy) if loss_of(recipe).beta > 0 else None
        shake(policy.model)
        recorder = MovingRecorder(policy.model)
        state.optimizer = recorder
        row = learn(PolicyGradient(recipe, state, policy, reference), state, self.groups)
        return Updates(row["loss"], tuple(recorder.seen)), row

    def strop(self, *args: Any, **more: Any) -> Updates:
        return self.learnt(*args, **more)[0]

    def trl(
        self,
        options: Mapping[str, Any],
        *,
        classes: tuple[Any, Any] | None = None,
        sampled_elsewhere: bool = False,
        updates: int = 2,
    ) -> Updates:
        """TRL's updates; `sampled_elsewhere` says that vLLM wrote the answers."""
        trl = pytest.importorskip("trl")
        config, trainer_class = classes or (trl.GRPOConfig, trl.GRPOTrainer)
        completions = [c for group in self.groups for c in group.rollout.completions]
        prompts = [{"prompt": g.rollout.task.prompt} for g in self.groups]

        def rollout(prompts: Any, trainer: Any) -> dict[str, list[list[float]]]:
            ids = [list(g.rollout.prompt_ids) for g in self.groups for _ in range(GROUP)]
            answers = [list(c.ids) for c in completions]
            return {
                "prompt_ids": ids,
                "completion_ids": answers,
                "logprobs": [list(c.logprobs) for c in completions],
            }

        def reward(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
            return [score.total for group in self.groups for score in group.scores]

        args = config(
            output_dir=str(self.scratch / "trl"),
            per_device_train_batch_size=len(completions),
            num_generations=GROUP,
            max_completion_length=LONGEST,
            temperature=TEMPERATURE,
            num_iterations=updates,
            **TRL_OPTIONS,
            **options,
        )
        trainer = trainer_class(
            model=shaken(self.folder),
            reward_funcs=reward,
            args=args,
            train_dataset=datasets.Dataset.from_list(prompts),
            processing_class=AutoTokenizer.from_pretrained(self.folder),
            **({"rollout_func": rollout} if issubclass(trainer_class, trl.GRPOTrainer) else {}),
        )
        if not issubclass(trainer_class, trl.GRPOTrainer):
            made = rollout(None, None)
            texts = [c.text for c in completions]
            trainer._generate = lambda _: (made["prompt_ids"], made["completion_ids"], texts)
        if sampled_elsewhere:
            trainer.use_vllm, trainer._last_loaded_step = True, trainer.state.global_step
        trainer.current_gradient_accumulation_steps = 1  # its training loop would set this
        trainer.model.train()
        repeated = [prompt for prompt in prompts for _ in range(GROUP)]
        inputs = trainer._generate_and_score_completions(repeated)
        steps: list[Step] = []
        for _ in range(updates):
            steps.append(step_of(trainer.model, trainer.compute_loss(trainer.model, inputs)))
            move(trainer.model)
        loss = sum(step.loss for step in steps) / updates
        return Updates(loss, tuple(step.gradient for step in steps))


@pytest.fixture
def sides(model_folder: Path, tmp_path: Path, groups: tuple[ScoredGroup, ...]) -> Sides:
    return Sides(model_folder, tmp_path, groups)


def apart(ours: Updates, theirs: Updates) -> list[float]:
    """How far each update's gradient is from theirs, relative."""
    assert len(ours.gradients) == len(theirs.gradients)
    pairs = zip(ours.gradients, theirs.gradients, strict=True)
    return [float((a - b).norm() / b.norm()) for a, b in pairs]


def agree(ours: Updates, theirs: Updates) -> None:
    assert abs(ours.loss - theirs.loss) <= 1e-5
    assert max(apart(ours, theirs)) <= 1e-4
    for mine, other in zip(ours.gradients, theirs.gradients, strict=True):
        assert other.norm() > 1e-3
        assert float(mine.norm()) == pytest.approx(float(other.norm()), rel=1e-4)


SEQUENCE = {"loss_type": "grpo", "importance_sampling_level": "sequence"}

SAME: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "grpo": ("grpo", {}, {"loss_type": "grpo"}),
    "dapo": ("dapo", {}, {"loss_type": "dapo", "epsilon_high": 0.28}),
    "bnpo": ("dapo", {"epsilon_high": 0.2}, {"loss_type": "bnpo"}),
    "dr_grpo": ("dr_grpo", {}, {"loss_type": "dr_grpo", "scale_rewards": "none"}),
    # TRL's epsilon_high is the cap itself, ours what it exceeds 1 by
    "cispo": ("cispo", {"epsilon_high": 0.1}, {"loss_type": "cispo", "epsilon_high": 1.1}),
    "gspo": ("gspo", {"epsilon_low": 0.01, "epsilon_high": 0.02},
             {**SEQUENCE, "epsilon": 0.01, "epsilon_high": 0.02}),
    "sapo": ("sapo", {}, {"loss_type": "sapo"}),
}  # fmt: skip
"""strop's method and options beside TRL's options."""

KL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no KL": ({}, {"beta": 0.0}),
    "k3": ({"beta": 0.08}, {"beta": 0.08, "use_bias_correction_kl": False}),
    "weighted k3": ({"beta": 0.08, "kl_weighted": True}, {"beta": 0.08}),  # TRL's default
}  # fmt: skip


@pytest.mark.parametrize("kl", KL)
@pytest.mark.parametrize("name", SAME)
def test_grpo_family(name: str, kl: str, sides: Sides) -> None:
    """TRL weighs the KL by the importance ratio unless told otherwise: another gradient on policy
    already. The GRPO paper (arXiv 2402.03300, equation 3) does not."""
    method, ours, theirs = SAME[name]
    ours_kl, theirs_kl = KL[kl]
    mine, row = sides.learnt(method, {**ours, **ours_kl})
    other = sides.trl({**theirs, **theirs_kl})
    if name == "gspo" and kl == "weighted k3":
        # TRL takes the sequence's ratio for the tokens' KL, which no longer makes it unbiased
        assert min(apart(mine, other)) > 1e-3
        return
    agree(mine, other)
    cut = [value for key, value in row.items() if key.startswith("clip_ratio/")]
    assert all(0 < value < 0.9 for value in cut)


@pytest.mark.parametrize("name", SAME)
def test_one_update_per_batch(name: str, sides: Sides) -> None:
    """Old log-probs are not computed then, by either side."""
    method, ours, theirs = SAME[name]
    agree(sides.strop(method, ours, updates=1), sides.trl({"beta": 0.0, **theirs}, updates=1))


def test_entropy_bonus(sides: Sides) -> None:
    theirs = sides.trl({"loss_type": "grpo", "beta": 0.0, "entropy_coef": 0.05})
    agree(sides.strop("grpo", {"entropy_weight": 0.05}), theirs)


def test_dual_clip(sides: Sides) -> None:
    """TRL's delta is the dual clip only above 1 + epsilon_high. Below, it is a second epsilon_high
    for good answers, and bad ones are bounded at 1 + epsilon_high, not at delta: with A < 0,
    min(min(r, delta) A, clip(r) A) is the looser of the two. Ye et al. 2020 (arXiv 1912.09729,
    equation 5) bound bad answers alone, at the constant itself."""
    plain = {"loss_type": "grpo", "beta": 0.0}
    wide = sides.trl({**plain, "delta": 1.3})
    agree(sides.strop("grpo", {"dual_clip": 1.3}), wide)
    assert apart(wide, sides.trl(plain))[1] > 0.01
    narrow = sides.trl({**plain, "delta": 1.05})
    assert apart(sides.strop("grpo", {"dual_clip": 1.05}), narrow)[1] > 0.01
    agree(sides.strop("grpo", {"epsilon_high": 0.05, "dual_clip": 1.2}), narrow)


def test_cispo_cap_of_trl_read_as_an_epsilon_shrinks_gradients(sides: Sides) -> None:
    """Its epsilon_high is the cap on the ratio itself and defaults to 0.2, so that on policy every
    token's gradient is a fifth (MiniMax, arXiv 2506.13585, equation 5: the cap is 1 + epsilon)."""
    ours = sides.strop("cispo", {}, updates=1)
    theirs = sides.trl({"loss_type": "cispo", "beta": 0.0}, updates=1)
    fifth = Updates(0.2 * ours.loss, tuple(0.2 * gradient for gradient in ours.gradients))
    agree(fifth, theirs)


CORRECTIONS: dict[str, dict[str, Any]] = {
    "token_truncate": {"level": "token", "bound": "truncate", "cap": 1.5},
    "token_mask": {"level": "token", "bound": "mask", "cap": 1.5, "floor": 0.6},
    "sequence_truncate": {"level": "sequence", "bound": "truncate", "cap": 1.5},
    "sequence_mask": {"level": "sequence", "bound": "mask", "cap": 1.5, "floor": 0.3},
}


def correction(mode: str) -> dict[str, Any]:
    ours = CORRECTIONS[mode]
    return {
        "vllm_importance_sampling_mode": mode,
        "vllm_importance_sampling_clip_max": ours["cap"],
        "vllm_importance_sampling_clip_min": ours.get("floor"),
    }


@pytest.mark.parametrize("mode", CORRECTIONS)
@pytest.mark.parametrize("name", ["grpo", "cispo"])
def test_mismatch_correction(name: str, mode: str, sides: Sides) -> None:
    """The surrogate is weighed, the KL is not; masked tokens stay in the denominator."""
    method, ours, theirs = SAME[name]
    ours_kl, theirs_kl = KL["k3"]
    mine, row = sides.learnt(method, {**ours, **ours_kl}, CORRECTIONS[mode])
    options = {**theirs, **theirs_kl, **correction(mode)}
    agree(mine, sides.trl(options, sampled_elsewhere=True))
    assert (0 < row["mismatch/masked"] < 1) == mode.endswith("mask")
    assert min(apart(mine, sides.trl(options))) > 0.01


def gmpo_classes() -> tuple[Any, Any]:
    pytest.importorskip("trl")
    from trl.experimental.gmpo import GMPOConfig, GMPOTrainer

    return GMPOConfig, GMPOTrainer


@pytest.mark.parametrize("beta", [0.0, 0.08])
def test_gmpo(beta: float, sides: Sides) -> None:
    """Alike, the ratio between new and old policy included, at a clip that binds.

    TRL's GMPO does not read use_bias_correction_kl: its default of true leaves the KL unweighted.
    """
    ours = {"beta": beta, "epsilon_low": 0.1, "epsilon_high": 0.15}
    theirs = {"beta": beta, "epsilon": 0.1, "epsilon_high": 0.15}
    mine = sides.strop("gmpo", ours)
    agree(mine, sides.trl(theirs, classes=gmpo_classes()))
    wider = sides.strop("gmpo", {"beta": beta})
    agree(wider, sides.trl({"beta": beta}, classes=gmpo_classes()))
    assert apart(mine, wider)[1] > 0.01


def test_trl_ignores_the_samplers_importance_ratio_in_gmpo(sides: Sides) -> None:
    """With vLLM it computes the ratio of trainer to sampler, as its options ask, and drops it."""
    options = {"beta": 0.0, **correction("token_truncate")}
    corrected = sides.trl(options, classes=gmpo_classes(), sampled_elsewhere=True)
    plain = sides.trl(options, classes=gmpo_classes())
    assert corrected.loss == plain.loss
    assert apart(corrected, plain) == [0.0, 0.0]
    ours = sides.strop("gmpo", {}, CORRECTIONS["token_truncate"])
    assert min(apart(ours, corrected)) > 0.01


@pytest.mark.parametrize("beta", [0.0, 0.05])
def test_rloo(beta: float, sides: Sides) -> None:
    """The gradient on policy, baseline and KL in the reward included. The losses' values differ:
    -A log p here, the ratio -A r with r = 1 there."""
    trl = pytest.importorskip("trl")
    ours = sides.strop("rloo", {"beta": beta}, updates=1)
    theirs = sides.trl({"beta": beta}, classes=(trl.RLOOConfig, trl.RLOOTrainer), updates=1)
    assert max(apart(ours, theirs)) <= 1e-4
    assert abs(ours.loss - theirs.loss) > 0.01
