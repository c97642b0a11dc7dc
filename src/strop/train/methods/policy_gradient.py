"""One step of a policy-gradient method: from scored groups to updated weights.

The samples become a `PolicyBatch` (every token's advantage, and its log-prob under older weights).
One or several passes over the batch make one or several updates each. Groups that carry no gradient
get no forward and no backward; the loss's denominators count them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from strop.advantages import GROUPED, gae, normalized, to_go
from strop.distributed.world import ALONE, Counts, World
from strop.errors import TrainingError
from strop.losses.divergence import ESTIMATORS
from strop.losses.metrics import Mean, Metric, Sum
from strop.losses.mismatch import effective_share, mismatch_weights
from strop.losses.presets import PRESETS, PolicyLoss, PolicyTokens, policy_loss
from strop.losses.reduce import Loss, StepCounts, mean_of
from strop.model.logprobs import Head, eval_mode
from strop.model.network import Policy
from strop.model.reference import Reference
from strop.model.transfer import moved
from strop.model.tree import owners
from strop.recipe.train.online import PolicyRecipe
from strop.recipe.train.policy import PpoObjective
from strop.recipe.train.source import AsynchronousRecipe
from strop.rollout.collect import carries_no_gradient
from strop.rollout.credit import turn_advantages
from strop.rollout.routed import routed_tree
from strop.tracking.phases import phase
from strop.train.loop.micro_batches import (
    MicroBatch,
    forward_tokens,
    micro_batches,
    passes,
    split_group,
)
from strop.train.loop.state import TrainState
from strop.train.loop.updater import MicroBatchLoss, Update
from strop.train.methods.critic import token_values, value_loss_of
from strop.train.methods.taught import Taught
from strop.types import Completion, ScoredGroup, Tree


@dataclass(frozen=True, slots=True)
class Kept:
    """The part of a group that is trained on: its tree, which completions are in it, and how many
    branches each of them has."""

    group: int
    tree: Tree
    completions: tuple[int, ...]
    paths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PolicyBatch:
    """A step's samples with all that the loss needs.

    `trees` are in the order of their groups (`group_of[i]` is tree i's); every list of tensors has
    one tensor per branch of `trees`, in order, with a value per token; `answer_B` says which of the
    step's answers a branch belongs to. `old` is None when the
    policy itself is the older policy (one update); `ref` without a reference; `weight` without
    mismatch correction; `value` and `ret` (returns) without a critic; `teacher` (its log-probs)
    and `read` (the trees as it reads them) without a teacher. `counted[g]` are the lengths of the
    answers of group g that count in the denominators.
    """

    trees: tuple[Tree, ...]
    group_of: tuple[int, ...]
    answer_B: torch.Tensor
    advantage: list[torch.Tensor]
    sampler: list[torch.Tensor]
    old: list[torch.Tensor] | None
    ref: list[torch.Tensor] | None
    weight: list[torch.Tensor] | None
    value: list[torch.Tensor] | None
    ret: list[torch.Tensor] | None
    counted: tuple[tuple[int, ...], ...]
    metrics: dict[str, Metric]
    teacher: list[torch.Tensor] | None = None
    read: tuple[Tree, ...] = ()

    def as_read(self, work: MicroBatch) -> tuple[Tree, ...]:
        """The trees of a forward as the teacher reads them."""
        first = int(owners([len(tree.branches) for tree in self.trees])[work.branches.start])
        return self.read[first : first + len(work.trees)]


@dataclass(frozen=True, slots=True)
class MiniBatch:
    """A mini-batch of a step's samples: its forwards and its own denominators."""

    work: tuple[MicroBatch, ...]
    counts: Counts

    @property
    def forwards(self) -> list[tuple[Tree, ...]]:
        """The trees of each."""
        return [work.trees for work in self.work]


def loss_of(recipe: PolicyRecipe) -> PolicyLoss:
    """The method's preset, overridden by what the recipe sets."""
    return PRESETS[recipe.method](**recipe.objective.loss_options())


class PolicyGradient:
    """Policy-gradient updates from scored groups, with one of the presets."""

    def __init__(
        self,
        recipe: PolicyRecipe,
        state: TrainState,
        policy: Policy,
        reference: Reference | None,
        *,
        world: World = ALONE,
        taught: Taught | None = None,
    ) -> None:
        self.recipe, self.state, self.policy, self.reference = recipe, state, policy, reference
        self.world, self.taught = world, taught
        self.max_tokens = forward_tokens(recipe.run, policy)
        self.method = loss_of(recipe)
        self.compares_groups = self.method.advantage in GROUPED and taught is None
        self.iterations, self.mini_batches = recipe.objective.updates
        # older weights are apart from the trainer's without anything being wrong
        ahead = isinstance(recipe.rollout.source, AsynchronousRecipe)
        kind = "mixed" if recipe.sampler_mix else "async" if ahead else "mismatch"
        self.apart = f"{kind}/logprob_difference"
        self.head = Head(
            temperature=recipe.rollout.temperature,
            entropy_gradient=self.method.entropy_weight > 0,
        )

    def updates(self, parts: Sequence[Sequence[ScoredGroup]]) -> Iterator[Update]:
        """`num_iterations` passes over the groups, each with an update of the policy a part; the
        critic, if there is one, is updated after each of them."""
        with phase("data"):
            batch = self.prepare([group for part in parts for group in part])
        sizes = [len(part) for part in parts]
        metrics = batch.metrics
        for _ in range(self.iterations):
            for mini in self.mini_batches_of(batch, sizes):
                yield replace(self._update(batch, mini), metrics=metrics)
                metrics = {}
                if self.state.critic is not None:
                    yield self._critic_update(mini, batch.value or [], batch.ret or [])

    def prepare(self, groups: Sequence[ScoredGroup]) -> PolicyBatch:
        """Log-probs under older weights, advantages and mismatch weights of a step's samples."""
        rewards_PG = torch.tensor(
            [[float("nan") if s.total is None else s.total for s in g.scores] for g in groups],
            dtype=torch.float32,
        )
        kept = [k for number, group in enumerate(groups) for k in self._kept(number, group)]
        counted = tuple(self._counted(group) for group in groups)
        metrics: dict[str, Metric] = {
            "skipped/groups": Sum(float(len(groups) - len({k.group for k in kept}))),
        }
        # a process without an answer to learn from goes the same way with nothing in its hands: the
        # others wait for it in every forward and exchange
        trees = tuple(k.tree for k in kept)
        lengths_B = [sum(branch.supervised) for tree in trees for branch in tree.branches]
        answer_B = owners([paths for k in kept for paths in k.paths])
        completions = [groups[k.group].rollout.completions[i] for k in kept for i in k.completions]
        said = [x for c in completions for x in c.sampler_logprobs()]
        lengths = [sum(c.sampled) for c in completions]
        sampler_N = torch.tensor(said, dtype=torch.float32)
        old_N = self._older(trees) if self._needs_old() else None
        ref_N = self._referenced(trees) if self.reference is not None else None
        reward_B = torch.tensor(
            [float(rewards_PG[k.group, i]) for k in kept for i in k.completions]
        )
        weight_N = self._weights(old_N, sampler_N, lengths, metrics)
        value_N = return_N = None
        if self.method.advantage in GROUPED:
            advantage_N = self._grouped(groups, rewards_PG, kept, lengths, old_N, ref_N)
        else:
            advantage_N, value_N, return_N = self._by_token(trees, reward_B, lengths, old_N, ref_N)

        read: tuple[Tree, ...] = ()
        teacher_N = None
        if self.taught is not None:
            read = self.taught.trees(trees, [groups[k.group].rollout.task for k in kept])
            teacher_N = self.taught.logprobs(read, self.max_tokens)

        def split(values_N: torch.Tensor | None) -> list[torch.Tensor] | None:
            return None if values_N is None else list(values_N.split(lengths_B))

        return PolicyBatch(
            trees, tuple(k.group for k in kept), answer_B,
            list(advantage_N.split(lengths_B)), list(sampler_N.split(lengths_B)),
            split(old_N), split(ref_N), split(weight_N), split(value_N), split(return_N),
            counted, metrics, split(teacher_N), read,
        )  # fmt: skip

    def mini_batches_of(self, batch: PolicyBatch, sizes: Sequence[int]) -> Iterator[MiniBatch]:
        """The batch's groups in parts of `sizes`, in order."""
        first_branch = stop = 0
        for size in sizes:
            start, stop = stop, stop + size
            lengths = [n for group in batch.counted[start:stop] for n in group]
            counts = {"sequences": len(lengths), "tokens": sum(lengths)}
            trees = [
                tree
                for tree, group in zip(batch.trees, batch.group_of, strict=True)
                if start <= group < stop
            ]
            work = [
                MicroBatch(
                    cut.trees,
                    slice(cut.branches.start + first_branch, cut.branches.stop + first_branch),
                )
                for cut in micro_batches(trees, self.max_tokens)
            ]
            first_branch += sum(len(tree.branches) for tree in trees)
            yield MiniBatch(tuple(work), counts)

    def _update(self, batch: PolicyBatch, mini: MiniBatch) -> Update:
        def losses(counts: Counts) -> list[MicroBatchLoss]:
            total = StepCounts(
                sequences=max(1, counts["sequences"]),
                tokens=max(1, counts["tokens"]),
                max_length=self.recipe.rollout.longest,
            )
            return [partial(self._loss, batch, work, total) for work in mini.work]

        return Update(mini.counts, losses, mini.forwards)

    def _critic_update(
        self, mini: MiniBatch, value: list[torch.Tensor], ret: list[torch.Tensor]
    ) -> Update:
        critic, objective = self.state.critic, self.recipe.objective
        assert critic is not None
        assert isinstance(objective, PpoObjective)

        def losses(counts: Counts) -> list[MicroBatchLoss]:
            return [
                value_loss_of(
                    critic, work,
                    torch.cat(value[work.branches]), torch.cat(ret[work.branches]),
                    clip=objective.value_clip, tokens=max(1, counts["tokens"]),
                )
                for work in mini.work
            ]  # fmt: skip

        return Update(mini.counts, losses, mini.forwards, of="critic")

    def _loss(self, batch: PolicyBatch, work: MicroBatch, counts: StepCounts) -> Loss:
        head = self.head
        if self.taught is not None:
            head = self.taught.head(batch.as_read(work), head)
        with self.policy.arithmetic():
            scores = self.policy.score(work.trees, head)
        device = scores.logprobs_N.device

        def here(values: list[torch.Tensor] | None) -> torch.Tensor | None:
            return None if values is None else moved(torch.cat(values[work.branches]), device)

        old_N = here(batch.old)
        advantage_N = here(batch.advantage)
        assert advantage_N is not None
        old_N = scores.logprobs_N.detach() if old_N is None else old_N
        metrics: dict[str, Metric] = {}
        teacher_N = here(batch.teacher)
        if self.taught is not None and teacher_N is not None:
            lengths = [len(part) for part in batch.sampler[work.branches]]
            told_N = self.taught.advantage(old_N, teacher_N, lengths)
            advantage_N = advantage_N + self.taught.weight * told_N
            # of tokens that the teacher helped to draw, only whole distributions tell the distance
            exact_N = scores.divergence_N
            metrics["teacher/divergence"] = mean_of(
                old_N - teacher_N if exact_N is None else exact_N.detach()
            )
        answer_B = batch.answer_B[work.branches]
        tokens = PolicyTokens(
            logprobs_N=scores.logprobs_N,
            old_N=old_N,
            ref_N=here(batch.ref),
            advantage_N=advantage_N,
            branch_N=moved(answer_B - answer_B[0], device)[scores.branch_N],
            entropy_N=scores.entropy_N,
            weight_N=here(batch.weight),
            exact_N=scores.divergence_N,
        )
        loss = policy_loss(self.method, tokens, counts)
        sampler_N = moved(torch.cat(batch.sampler[work.branches]), device)
        apart = (sampler_N - tokens.old_N).abs()
        metrics |= {**loss.metrics, self.apart: mean_of(apart)}
        if scores.rerouted_T is not None:
            metrics["mismatch/rerouted"] = mean_of(scores.rerouted_T)
        return Loss(loss.value, metrics)

    def _kept(self, number: int, group: ScoredGroup) -> list[Kept]:
        """The group's tree (several where it is too long for one forward), or nothing."""
        terms = self.method.beta > 0 or self.method.entropy_weight > 0 or self.taught is not None
        if self.method.advantage in GROUPED and not terms and carries_no_gradient(group):
            return []
        completions = group.rollout.completions
        kept = [
            i
            for i, (score, completion) in enumerate(zip(group.scores, completions, strict=True))
            if score.total is not None and not self._masked(completion)
        ]
        if not kept:
            return []
        answers = [completions[i] for i in kept]
        written = [answer.branches() for answer in answers]
        whole = Tree(group.rollout.prompt_ids, tuple(b for paths in written for b in paths))
        if self.recipe.rollout.routing_replay:
            whole = routed_tree(whole.trunk, answers)
        left = iter(zip(kept, map(len, written), strict=True))
        parts = []
        for tree, count in split_group(
            whole, [len(paths) for paths in written], self.recipe.run, self.max_tokens
        ):
            inside = list(itertools.islice(left, count))
            completed, paths = zip(*inside, strict=True)
            parts.append(Kept(number, tree, completed, paths))
        return parts

    def _masked(self, completion: Completion) -> bool:
        return self.recipe.rollout.mask_truncated and completion.finish == "length"

    def _counted(self, group: ScoredGroup) -> tuple[int, ...]:
        """Sampled tokens of the answers that the denominators count: judged, and not masked."""
        pairs = zip(group.rollout.completions, group.scores, strict=True)
        return tuple(
            sum(c.sampled) for c, s in pairs if s.total is not None and not self._masked(c)
        )

    def _needs_old(self) -> bool:
        several = self.iterations * self.mini_batches > 1
        in_reward = self.method.beta > 0 and self.method.kl_in == "reward"
        return several or in_reward or self.recipe.rollout.mismatch.level != "none"

    @torch.no_grad()
    def _older(self, trees: Sequence[Tree]) -> torch.Tensor:
        """Log-probs before the first update, [N], without dropout, as in sampling."""
        head = Head(temperature=self.head.temperature)

        def read(trees: Sequence[Tree]) -> torch.Tensor:
            return self.policy.score(trees, head).logprobs_N.cpu()

        with phase("forward"), eval_mode(self.policy.model), self.policy.arithmetic():
            read_N = passes(self.policy, trees, self.max_tokens, read, self.world)
        return torch.cat([torch.zeros(0), *read_N])

    def _referenced(self, trees: Sequence[Tree]) -> torch.Tensor:
        reference, temperature = self.reference, self.head.temperature
        assert reference is not None

        def read(trees: Sequence[Tree]) -> torch.Tensor:
            return reference.scores(trees, temperature=temperature).logprobs_N.cpu()

        read_N = passes(self.policy, trees, self.max_tokens, read, self.world)
        return torch.cat([torch.zeros(0), *read_N])

    def _weights(
        self,
        old_N: torch.Tensor | None,
        sampler_N: torch.Tensor,
        lengths: Sequence[int],
        metrics: dict[str, Metric],
    ) -> torch.Tensor | None:
        """Mismatch correction of every token, [N]; raises `TrainingError` below `min_ess`."""
        wanted = self.recipe.rollout.mismatch
        if wanted.level == "none" or old_N is None:
            return None
        counts_B = torch.tensor(lengths, dtype=torch.long)
        branch_N = torch.repeat_interleave(torch.arange(len(lengths)), counts_B)
        found = mismatch_weights(
            old_N, sampler_N, branch_N,
            level=wanted.level, bound=wanted.bound, cap=wanted.cap, floor=wanted.floor,
        )  # fmt: skip
        moments = [one for one in self.world.by_data_rank(found.moments) if one.count]
        if not moments:
            return found.weight_N
        ess = effective_share(moments)
        metrics["mismatch/ess"] = Mean.of(ess)
        metrics["mismatch/masked"] = Mean(float(found.masked_N.sum()), len(found.masked_N))
        if wanted.min_ess is not None and ess < wanted.min_ess:
            raise TrainingError(
                f"step {self.state.step + 1}: the effective sample size is {ess:.3f} of the "
                f"tokens, below rollout.mismatch.min_ess {wanted.min_ess}",
                fix="bring sampler and trainer closer (same precision, fresher weights); "
                "weights were not changed",
            )
        return found.weight_N

    def _penalty(self, old_N: torch.Tensor | None, ref_N: torch.Tensor | None) -> torch.Tensor:
        """beta times the KL of every token, [N], where the KL is part of the reward; else 0."""
        if self.method.beta == 0 or self.method.kl_in == "loss" or old_N is None or ref_N is None:
            return torch.zeros(())
        return self.method.beta * ESTIMATORS[self.method.kl](old_N, ref_N)

    def _grouped(
        self,
        groups: Sequence[ScoredGroup],
        rewards_PG: torch.Tensor,
        kept: Sequence[Kept],
        lengths: Sequence[int],
        old_N: torch.Tensor | None,
        ref_N: torch.Tensor | None,
    ) -> torch.Tensor:
        """The group's baseline, the same for all tokens of an answer or of a turn, [N]."""
        penalty_N = self._penalty(old_N, ref_N)
        of_answer = [(k.group, i) for k in kept for i in k.completions]
        if not of_answer:
            return torch.zeros(0)
        if penalty_N.dim() == 1:
            # an answer that is not trained on has no KL, so the baseline leaves it out as well
            plain_PG, rewards_PG = rewards_PG, torch.full_like(rewards_PG, float("nan"))
            for owner, penalty in zip(of_answer, penalty_N.split(list(lengths)), strict=True):
                rewards_PG[owner] = plain_PG[owner] - penalty.sum()
        baseline = GROUPED[self.method.advantage]
        if self.recipe.rollout.credits_turns:
            weight = next(c.weight for c in self.recipe.reward if c.is_environment)
            dealt = [turn_advantages(group, weight, baseline) for group in groups]
            return torch.cat([dealt[group][i] for group, i in of_answer])
        advantage_PG = baseline(rewards_PG)
        advantage_A = torch.tensor([float(advantage_PG[owner]) for owner in of_answer])
        return advantage_A.repeat_interleave(torch.tensor(lengths, dtype=torch.long))

    def _by_token(
        self,
        trees: Sequence[Tree],
        reward_B: torch.Tensor,
        lengths: Sequence[int],
        old_N: torch.Tensor | None,
        ref_N: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """(advantage, value, return) of every token: reward at the end, KL on the way, [N]."""
        rewards_N = torch.zeros(sum(lengths)) - self._penalty(old_N, ref_N)
        ends = torch.tensor(list(lengths), dtype=torch.long).cumsum(0) - 1
        rewards_N[ends] += reward_B
        if self.method.advantage == "to_go":
            return self._normalized(to_go(rewards_N, lengths)), None, None
        objective = self.recipe.objective
        assert self.state.critic is not None
        assert isinstance(objective, PpoObjective)
        value_N = token_values(self.state.critic, trees, self.max_tokens, self.world)
        advantage_N = gae(
            rewards_N, value_N, lengths, gamma=objective.gamma, lam=objective.gae_lambda
        )
        return self._normalized(advantage_N), value_N, advantage_N + value_N

    def _normalized(self, advantage_N: torch.Tensor) -> torch.Tensor:
        """Mean 0 and deviation 1 over the tokens of all processes, [N] of this one."""
        everyone = self.world.gathered(advantage_N)
        if len(everyone.values_N) == 0:
            return advantage_N
        return normalized(everyone.values_N)[everyone.own]
