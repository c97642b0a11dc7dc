"""Figures of how a model's answers look, apart from their scores: side effects that a gain may
hide.

Per answer (`drift/<task>/...`, so that a policy can bound it) and over all answers of a task.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from math import fsum
from statistics import fmean, quantiles

import torch

from strop.episodes import Episode, said_by_policy
from strop.evals.tasks.generation import record_of
from strop.model.network import Policy
from strop.model.tree import owners
from strop.recipe.suite import AnswerTask
from strop.text.refusal import refuses
from strop.types import FAILED, Answer, Answered, Completion, EvalRecord, Rollout, Scale, Tree

PREFIX = "drift/"

SCALES: Mapping[str, Scale] = {
    **dict.fromkeys(("finished", "answered", "distinct_2"), (0.0, 1.0)),
}
"""The range of each figure that has one."""

BLEU_SAMPLE = 200
"""Self-BLEU compares every answer with every other one, so only this many answers are taken."""


def answer_figures(
    recipe: AnswerTask,
    rollouts: Sequence[Rollout | Answered],
    policy: Policy | None,
    reference: Policy | None,
) -> list[EvalRecord]:
    """Per answer: `length` (tokens; words where tokens are unknown), `finished` (0 if it was cut),
    `answered` (0 for a refusal), `distinct_2` (distinct share of word pairs); with a model
    `entropy` (nats per sampled token, temperature 1), with a reference `kl`: KL(model || reference)
    per sampled token, exact over the vocabulary. Of an episode also
    what happened in it (`turns`, `tool_errors`). All of an answer that failed or was called off are
    unscored."""
    episodes = [c for r in rollouts for c in r.completions if isinstance(c, Episode)]
    counted = sorted({name for episode in episodes for name in episode.facts})
    figures = [
        {
            "length": float(_length(c)),
            "finished": float(c.finish == "stop"),
            "answered": float(not refuses(c.text)),
            "distinct_2": distinct([c.text], 2),
            **_of_episode(c, counted),
        }
        for rollout in rollouts
        for c in rollout.completions
    ]
    if policy is not None:
        sampled = [rollout for rollout in rollouts if isinstance(rollout, Rollout)]
        measured = zip(figures, _likelihoods(policy, reference, sampled), strict=True)
        figures = [{**written, **likely} for written, likely in measured]
    answers = [(r, sample) for r in rollouts for sample in range(len(r.completions))]
    return [
        record_of(
            recipe,
            f"{PREFIX}{recipe.name}/{name}",
            rollout,
            sample,
            None if rollout.completions[sample].finish in FAILED else value,
            scale=SCALES.get(name, (None, None)),
        )
        for (rollout, sample), row in zip(answers, figures, strict=True)
        for name, value in row.items()
    ]


def _of_episode(answer: Answer, counted: Iterable[str]) -> dict[str, float]:
    """What happened in an episode: how many `turns`, and what its environment counted."""
    if not isinstance(answer, Episode):
        return {}
    return {name: answer.facts.get(name, 0.0) for name in counted}


def _length(answer: Answer) -> int:
    return said_by_policy(answer) if isinstance(answer, Completion) else len(answer.text.split())


def corpus_figures(records: Sequence[EvalRecord]) -> dict[str, dict[str, float]]:
    """`{"sampled": {"length": 21.4, "distinct_2": 0.31, "self_bleu": 0.62, ...}}`: per task the
    means of the per-answer figures, and the figures of all its answers together; displacement
    figures (docs/displacement.md) for pairs that were compared with a reference."""
    found: dict[str, dict[str, list[EvalRecord]]] = {}
    for record in records:
        if record.task.startswith(PREFIX):
            task, name = record.task.removeprefix(PREFIX).split("/", 1)
            found.setdefault(task, {}).setdefault(name, []).append(record)
    return {task: _of_task(figures) for task, figures in found.items()}


def _of_task(figures: Mapping[str, Sequence[EvalRecord]]) -> dict[str, float]:
    if "held" in figures:
        return displacement(figures["held"])
    scored = {
        name: [record for record in records if record.score is not None]
        for name, records in figures.items()
    }
    if not scored["length"]:
        return {}
    means = {
        name: fmean(record.score or 0.0 for record in records)
        for name, records in scored.items()
        if name not in ("distinct_2", "kl", "entropy")
    }
    for name in scored.keys() & {"kl", "entropy"}:
        means[name] = per_token(scored[name], scored["length"])
    texts = [record.output for record in scored["length"]]
    return {**means, "distinct_2": distinct(texts, 2), "self_bleu": self_bleu(texts)}


def per_token(records: Sequence[EvalRecord], lengths: Sequence[EvalRecord]) -> float:
    """Mean over all tokens, from means over each answer's tokens."""
    weights = [record.score or 0.0 for record in lengths]
    total = sum(w * (r.score or 0.0) for w, r in zip(weights, records, strict=True))
    return total / max(1.0, sum(weights))


def displacement(held: Sequence[EvalRecord]) -> dict[str, float]:
    """Gain of the chosen answers over the reference, nats per token: median, 10th percentile, share
    below 0, and share below 0 although the margin rose."""
    gains = [record.details["gain"] or 0.0 for record in held]
    tenths = quantiles(gains, n=10, method="inclusive") if len(gains) > 1 else gains * 9
    return {
        "chosen_gain_median": tenths[4],
        "chosen_gain_p10": tenths[0],
        "chosen_fell": fmean(float(gain < 0) for gain in gains),
        "displaced": fmean(1.0 - (record.score or 0.0) for record in held),
    }


def distinct(texts: Sequence[str], n: int) -> float:
    """Distinct share of all word n-grams (Li et al. 2016, arXiv 1510.03055); 1 where there are
    none: `distinct(["a b a b"], 2) == 2 / 3`."""
    grams: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        words = text.split()
        grams.update(zip(*(islice(words, i, None) for i in range(n)), strict=False))
    return len(grams) / grams.total() if grams else 1.0


def self_bleu(texts: Sequence[str]) -> float:
    """Mean BLEU-4 of each answer against the others, 0 to 1 (Zhu et al. 2018, arXiv 1802.01886):
    near 1 when all say the same. 0 for a single answer."""
    from sacrebleu.metrics.bleu import BLEU  # here alone, for the sake of start-up

    some = [text for text in texts[:BLEU_SAMPLE] if text.strip()]
    if len(some) < 2:
        return 0.0
    bleu = BLEU(effective_order=True)
    return fmean(
        bleu.sentence_score(text, [*some[:i], *some[i + 1 :]]).score / 100
        for i, text in enumerate(some)
    )


@torch.no_grad()
def _likelihoods(
    policy: Policy, reference: Policy | None, rollouts: Sequence[Rollout]
) -> list[dict[str, float]]:
    """Mean entropy (and KL to the reference) over the tokens of every answer.

    Where the sampler gave the entropies and there is no reference, no forward is needed.
    """
    given = [completion.entropies for r in rollouts for completion in r.completions]
    known = [entropies for entropies in given if entropies is not None]
    if reference is None and len(known) == len(given):
        return [{"entropy": fsum(one) / max(1, len(one))} for one in known]
    answers = [completion for r in rollouts for completion in r.completions]
    branches = [[b for b in completion.branches() if b.ids] for completion in answers]
    told = iter(branches)
    laid = [
        (r.prompt_ids, tuple(b for own in islice(told, len(r.completions)) for b in own))
        for r in rollouts
    ]
    trees = [Tree(prompt_ids, own) for prompt_ids, own in laid if own]
    if not trees:
        return [{} for _ in answers]
    with policy.arithmetic():
        scores = policy.score(trees)
        kl_N = None if reference is None else policy.score.divergence(trees, reference.score)
    answer_N = owners([len(own) for own in branches])[scores.branch_N.cpu()]
    lengths_A = torch.bincount(answer_N, minlength=len(answers)).clamp(min=1)

    def mean_A(values_N: torch.Tensor) -> list[float]:
        sums_A = torch.zeros(len(answers)).index_add(0, answer_N, values_N.float().cpu())
        return (sums_A / lengths_A).tolist()

    rows = [{"entropy": value} for value in mean_A(scores.entropy_N)]
    if kl_N is None:
        return rows
    return [{**row, "kl": value} for row, value in zip(rows, mean_A(kl_N), strict=True)]
