"""An advice as a page: the verdict first, then everything that it stands on."""

from __future__ import annotations

import html
from collections.abc import Sequence

import yaml

from strop.advise.advice import Advice, Seen
from strop.advise.facts import value_of
from strop.advise.run import Answered
from strop.advise.table.conditions import Condition
from strop.tracking.report import page

TITLES = {
    "no_eval": "Do not train yet: there is nothing to measure with",
    "at_the_bar": "Do not train: the target is met",
    "gap_within_noise": "Do not train yet: the gap may be none",
    "prompt_first": "Do not train yet: change the prompt first",
    "not_yet_a_product": "Do not train yet: what a good answer is will still change",
    "sample_more": "Do not train: sample more",
    "stronger_base": "Do not train this model: take a stronger one",
    "cold_start": "A small SFT first, as a cold start",
    "cpt": "Continued pretraining",
    "sft": "Supervised fine-tuning",
    "dpo": "DPO",
    "cdpo": "DPO with label smoothing (cDPO)",
    "robust_dpo": "Robust DPO",
    "ipo": "IPO",
    "simpo": "SimPO",
    "orpo": "ORPO",
    "kto": "KTO",
    "reward_model": "A reward model",
    "grpo": "GRPO",
    "grpo_then_dpo": "GRPO, then DPO",
    "on_policy_distil": "On-policy distillation from the stronger model",
    "judge_pairs": "Do not train yet: make pairs with a judge",
    "collect_more": "Do not train yet: collect more",
    "not_enough_to_decide": "Not enough is known to decide",
}
"""Every verdict in words."""
LEFT = "<td style='text-align:left'>"


def lines(answered: Answered, explain: bool = False) -> list[str]:
    """The advice in plain lines, for a terminal."""
    advice = answered.advice
    said = [f"{advice.verdict}: {TITLES[advice.verdict]}", "", advice.why]
    if advice.source:
        said += [f"source: {advice.source}", f"wrong where: {advice.counter}"]
    for title, held in (
        ("runners-up", [f"{one.verdict}: {one.why_not}" for one in advice.runners_up]),
        ("before training", advice.work),
        ("risks", [f"{one['id']}: {one['said']} Guarded by: {one['guard']}."
                   for one in advice.risks]),
        ("measure next", advice.measure_next),
        ("left out", answered.left_out),
    ):  # fmt: skip
        if held:
            said += ["", title, *(f"  - {one}" for one in held)]
    if answered.recipe is not None:
        said += ["", "recipe", *(f"  {line}" for line in recipe_text(answered).splitlines())]
    if explain:
        said += ["", "rules", *(f"  {explained(one, advice)}" for one in advice.seen)]
    return said


def explained(seen: Seen, advice: Advice) -> str:
    """`"missed simpo (length_decides): length bias, but it is False"`."""
    rule = seen.rule
    said = f"{seen.outcome} {rule.verdict} ({rule.id}, {rule.stage})"
    if seen.outcome == "fired":
        return said
    return f"{said}: {'; '.join(_told(one, seen.outcome, advice) for one in seen.by)}"


def _told(condition: Condition, outcome: str, advice: Advice) -> str:
    if outcome == "open":
        return f"needs {condition.wanted()}, which is unknown"
    value = value_of(advice.facts, condition.fact)
    shown = f"{value:.4g}" if isinstance(value, float) else str(value)
    return f"needs {condition.wanted()}, found {shown}"


def recipe_text(answered: Answered) -> str:
    """The recipe as YAML."""
    return yaml.safe_dump(answered.recipe, sort_keys=False, width=100)


def advice_page(answered: Answered) -> str:
    """One page without anything from outside."""
    advice = answered.advice
    parts = [f"<p>{_text(advice.why)}</p>"]
    if advice.source:
        parts.append(f"<p>Source: {_text(advice.source)}<br>"
                     f"Wrong where: {_text(advice.counter)}</p>")  # fmt: skip
    parts += [
        _table("Runners-up", ("verdict", "why not"),
               [(one.verdict, one.why_not) for one in advice.runners_up]),
        _table("Before training", ("do",), [(one,) for one in advice.work]),
        _table("Risks", ("risk", "what", "guarded by"),
               [(one["id"], one["said"], one["guard"]) for one in advice.risks]),
        _table("Measure next", ("cheapest first",), [(one,) for one in advice.measure_next]),
    ]  # fmt: skip
    if answered.recipe is not None:
        parts.append(f"<h2>Recipe</h2><pre>{_text(recipe_text(answered))}</pre>")
    facts = advice.plain()["facts"]
    parts += [
        _table("Facts", ("fact", "value"), [(name, _value(facts[name])) for name in facts]),
        _table("Every rule", ("outcome", "verdict", "rule", "why"), [
            (one.outcome, one.rule.verdict, one.rule.id,
             "; ".join(_told(held, one.outcome, advice) for held in one.by))
            for one in advice.seen
        ]),
    ]  # fmt: skip
    return page(f"Advice: {TITLES[advice.verdict]}", parts)


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    heads = "".join(f"<th style='text-align:left'>{name}" for name in head)
    body = "".join("<tr>" + "".join(LEFT + _text(cell) for cell in row) + "</tr>" for row in rows)
    return f"<h2>{title}</h2><table><tr>{heads}</tr>{body}</table>"


def _text(text: str) -> str:
    return html.escape(text)
