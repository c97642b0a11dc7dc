"""Recipes that train on the model's own samples."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from strop.recipe.base import Contradiction, Strict
from strop.recipe.train.alarm import OnlineDpoAlarms, PolicyAlarms, SampleAlarms
from strop.recipe.train.data import Sources
from strop.recipe.train.policy import (
    AnyPolicyObjective,
    CispoObjective,
    ClipObjective,
    OnlineDpoObjective,
    PpoObjective,
    RaftObjective,
    ReinforceObjective,
    RlooObjective,
    SapoObjective,
    SequenceClipObjective,
    ValueRecipe,
)
from strop.recipe.train.reward import ProbesRecipe, RewardComponent, Rewards
from strop.recipe.train.rollout import (
    CispoRollout,
    DapoRollout,
    RolloutRecipe,
    UngroupedRollout,
    UnweighedRollout,
)
from strop.recipe.train.run import TrainRecipe


class TasksDuring(Strict):
    """Rewards of `samples` answers to each held-out task every `every` steps.

    `reward` scores the answers (default: the training reward); `temperature` 0 is greedy.
    """

    data: Sources
    every: int = Field(100, ge=1)
    samples: int = Field(1, ge=1)
    temperature: float = Field(1.0, ge=0)
    reward: Rewards | None = None


class OnlineRecipe(TrainRecipe):
    """Training on rewarded samples for `{"prompt", ...columns}` records."""

    rollout: RolloutRecipe = RolloutRecipe()
    reward: Rewards
    probes: ProbesRecipe = ProbesRecipe()
    eval: TasksDuring | None = None
    alarms: SampleAlarms = SampleAlarms()

    @property
    def refresh_every(self) -> int:
        """The number of steps between updates of the reference to the policy; 0 for never."""
        return 0

    @model_validator(mode="after")
    def _environment_is_read(self) -> Self:
        world = self.rollout.environment
        asked = [component for component in self.all_rewards if component.is_environment]
        if asked and world is None:
            within = [*(f"reward.{n}" for n in range(len(self.reward))), "eval.reward"]
            raise Contradiction(
                "the reward `environment` is what an environment gives, and there is none",
                next(key for key, one in zip(within, self.all_rewards, strict=False)
                     if one.is_environment),
                fix="set rollout.environment, or take another reward",
            )  # fmt: skip
        if world is not None and world.credit == "turn":
            plain = [one for one in self.reward if one.is_environment]
            if not plain or plain[0].gate or plain[0].normalize or plain[0].clip is not None:
                raise Contradiction(
                    "credit: turn reads the environment's rewards of turns, so that the reward "
                    "`environment` has to be in the sum as it is (no gate, clip or normalize)",
                    "rollout.environment.credit",
                    fix="add `- function: environment` to reward, or drop credit",
                )
        return self

    @property
    def turn_tokens(self) -> int:
        return self.rollout.max_tokens

    @property
    def answer_tokens(self) -> int:
        return self.rollout.longest

    @property
    def all_rewards(self) -> list[RewardComponent]:
        return [*self.reward, *((self.eval.reward if self.eval else None) or [])]


class PolicyRecipe(OnlineRecipe):
    """The parts that all policy gradients have."""

    objective: AnyPolicyObjective
    alarms: PolicyAlarms = PolicyAlarms()

    @property
    def refresh_every(self) -> int:
        return self.objective.refresh_every

    @property
    def sampler_mix(self) -> float:
        """The teacher's share in what answers are drawn from (MiniLLM)."""
        return 0.0

    @property
    def mini_batches(self) -> int:
        return self.objective.updates[1]


class ClipRecipe(PolicyRecipe):
    """Policy gradients with a clipped token ratio."""

    method: Literal["grpo", "dr_grpo"]
    objective: ClipObjective = ClipObjective()


class DapoRecipe(PolicyRecipe):
    """DAPO: a clipped token ratio, and dynamic sampling."""

    method: Literal["dapo"]
    objective: ClipObjective = ClipObjective()
    rollout: DapoRollout = DapoRollout()


class SequenceClipRecipe(PolicyRecipe):
    method: Literal["gspo", "gmpo"]
    objective: SequenceClipObjective = SequenceClipObjective()


class CispoRecipe(PolicyRecipe):
    method: Literal["cispo"]
    objective: CispoObjective = CispoObjective()
    rollout: CispoRollout = CispoRollout()


class SapoRecipe(PolicyRecipe):
    method: Literal["sapo"]
    objective: SapoObjective = SapoObjective()


class RlooRecipe(PolicyRecipe):
    method: Literal["rloo"]
    objective: RlooObjective = RlooObjective()


class ReinforceRecipe(PolicyRecipe):
    method: Literal["reinforce_pp"]
    objective: ReinforceObjective = ReinforceObjective()
    rollout: UngroupedRollout = UngroupedRollout()


class PpoRecipe(PolicyRecipe):
    """PPO: the critic's model is named in `value`."""

    method: Literal["ppo"]
    objective: PpoObjective = PpoObjective()
    rollout: UngroupedRollout = UngroupedRollout()
    value: ValueRecipe | None = None

    @property
    def critic(self) -> ValueRecipe | None:
        return self.value


class OnlineDpoRecipe(OnlineRecipe):
    """Online DPO: pairs from the model's own samples, ranked by the reward."""

    method: Literal["online_dpo"]
    objective: OnlineDpoObjective = OnlineDpoObjective()
    rollout: UnweighedRollout = UnweighedRollout()
    alarms: OnlineDpoAlarms = OnlineDpoAlarms()

    @property
    def refresh_every(self) -> int:
        return self.objective.refresh_every


class RaftRecipe(OnlineRecipe):
    """Rejection-sampling fine-tuning: maximum likelihood on the best of each group."""

    method: Literal["raft"]
    objective: RaftObjective = RaftObjective()
    rollout: UnweighedRollout = UnweighedRollout()
