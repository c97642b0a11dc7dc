"""The gate on files: reads eval folders or plain score files, writes `verdict.json` and a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from strop.data.json_text import parsed
from strop.errors import DataError, MissingEvidenceError, StropError, UsageError
from strop.evals.drift import PREFIX
from strop.evals.gate.judge import EvalRecords, gate
from strop.evals.gate.page import write_page
from strop.evals.records import read_records
from strop.evals.summary import read_summary
from strop.files import SHORT, read_text, sha256_hex, write_json
from strop.recipe.gate import Demand, GateRules, Guardrail
from strop.recipe.loading.load import Given, load
from strop.registry.store import Registry
from strop.tracking.notify.notifier import Notifier
from strop.types import Verdict


def rules_of(given: Given | None, margin: float | None, base: str | Path) -> GateRules:
    """The policy that was given, or a policy with a guardrail of `margin` on every score of `base`.

    Raises `UsageError` for both, for neither, and for a margin outside of 0 to 1.
    """
    if (given is None) == (margin is None):
        raise UsageError("give exactly one of --policy and --margin")
    if given is not None:
        return load(GateRules, given)
    if margin is None or not 0 < margin < 1:
        raise UsageError(f"--margin is {margin}", fix="give a number between 0 and 1")
    names = sorted({record.task for record in read_records(base)})
    scores = [name for name in names if not name.startswith(PREFIX)]
    return GateRules(guardrails=[Guardrail(score=name, margin=margin) for name in scores])


def run_gate(
    policy: GateRules,
    base: str | Path,
    candidate: str | Path,
    output: str | Path | None = None,
    *,
    noise: Sequence[str | Path] = (),
    registry: str | Path | None = None,
) -> Verdict:
    """Judge candidate against base.

    With `output`, write the verdict with the hash of the weights it is for, and a page beside it
    (`.html`). With `registry`, record the attempt there; the verdict then says how many attempts
    this sealed suite has seen. `noise` adds to the policy's own. Those whom the policy's `notify`
    names are told the verdict.
    """
    notifier = Notifier(policy.notify, _name(candidate), where="notify")
    before, after = Side(base), Side(candidate)
    _expect_one_suite(before, after)
    _expect_one_reference(before, after, policy)
    overlap, rewritten = _overlap(after, policy), _other_prompts(before, after)
    judged = _judged(after, policy)
    again = [Side(path) for path in (*policy.noise, *noise)]
    for side in again:
        _expect_one_suite(before, side)
    try:
        verdict = gate(before.records, after.records, policy, noise=[s.records for s in again])
    except StropError as error:
        raise type(error)(error.problem, where=f"{base}, {candidate}", fix=error.fix) from None
    looks = _record_attempt(registry, before, after, verdict)
    remarks = [*overlap, *rewritten, *_other_engines(before, after), *judged, *looks]
    verdict = replace(verdict, remarks=(*verdict.remarks, *remarks))
    if output is not None:
        _write(Path(output), verdict, policy, before, after)
    with notifier:
        facts = {"base": str(base), "candidate": str(candidate), "policy": policy.name}
        notifier.tell("verdict", verdict.name, f"{notifier.about}: {verdict.sentence}", **facts)
    return verdict


def _name(eval_path: str | Path) -> str:
    """What an eval is called in a message: the folder, or the file without its ending."""
    path = Path(eval_path)
    return path.stem if path.suffix else path.name


class Side:
    """One eval: its records, and its summary if a suite made it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.records: EvalRecords = read_records(path)
        self.summary = read_summary(path) or {}

    @property
    def model(self) -> dict[str, Any] | None:
        """Path and weights hash of the measured model, if the summary has them."""
        return self.summary.get("model")

    @property
    def evidence(self) -> str:
        """Hash of the items that were measured, whatever their scores."""
        asked = sorted({(r.task, r.item, r.sample) for r in self.records})
        return _digest([self.summary.get("suite_sha256"), asked])

    @property
    def identity(self) -> str:
        """Identity of what was measured: the weights, or without a model the scores themselves."""
        scores = [[r.task, r.item, r.sample, r.score] for r in self.records]
        return (self.model or {}).get("sha256") or _digest(scores)

    def plain(self) -> dict[str, Any]:
        """The parts of an eval that a verdict keeps."""
        names = ("suite", "suite_sha256", "sealed", "scores", "figures", "kl")
        kept = {name: self.summary[name] for name in names if name in self.summary}
        return {"folder": str(self.path.resolve()), "records": len(self.records), **kept}


def read_verdict(path: str | Path) -> dict[str, Any]:
    """A written verdict; raises `DataError` for anything else."""
    verdict = parsed(read_text(Path(path), DataError), str(path), fix="run `strop gate` again")
    if not isinstance(verdict, dict) or "name" not in verdict:
        raise DataError(
            "not a verdict", where=str(path), fix="write one with `strop gate --output`"
        )
    return verdict


def _expect_one_suite(base: Side, other: Side) -> None:
    hashes = [side.summary.get("suite_sha256") for side in (base, other)]
    if None not in hashes and hashes[0] != hashes[1]:
        raise MissingEvidenceError(
            f"the suite changed between the two evals ({hashes[0]} and {hashes[1]}): its tasks, "
            f"data or rewards are not those that {base.path} was measured with",
            where=str(other.path),
            fix="run the same suite on both",
        )


def _expect_one_reference(base: Side, candidate: Side, policy: GateRules) -> None:
    """Raise if figures against a reference were measured with different references."""
    demands: tuple[Demand, ...] = (*policy.targets, *policy.guardrails, *policy.bands)
    relative = [one.score for one in demands if one.score.endswith(("/held", "/kl"))]
    found = [(side.summary.get("reference") or {}).get("sha256") for side in (base, candidate)]
    if relative and found[0] != found[1]:
        raise MissingEvidenceError(
            f"{relative[0]} is measured against a reference, and the two evals had different ones",
            where=str(candidate.path),
            fix=f"measure both with --reference {base.summary['model'].get('path', 'BASE')}",
        )


def _overlap(candidate: Side, policy: GateRules) -> list[str]:
    """Raise if the candidate was trained on eval items, unless the policy allows it. Returns
    remarks, also about training data that could not be compared."""
    found = [found for found in candidate.summary.get("overlap", ()) if found["items"]]
    gone = [
        f"{path}: not compared with the eval's items: {why}"
        for path, why in candidate.summary.get("not_compared", {}).items()
    ]
    said = [
        f"{one['task']}: {len(one['items'])} of {one['of']} items are in the training data "
        f"(item {one['items'][0]['item']} at {one['items'][0]['where']})"
        for one in found
    ]
    if said and policy.refuse_overlap:
        raise MissingEvidenceError(
            "; ".join(said), where=str(candidate.path),
            fix="take the items out of the training data and train again, or out of the suite; "
            "`refuse_overlap: false` in the policy lets them through and says so",
        )  # fmt: skip
    return [*said, *gone]


def _other_prompts(base: Side, candidate: Side) -> list[str]:
    """Compare the prompts of both sides. Different prompts are a remark if the models differ; with
    the same weights only the prompts could make a difference, so they are refused."""
    one, other = (side.summary.get("prompts", {}) for side in (base, candidate))
    differ = sorted(name for name in one.keys() & other.keys() if one[name] != other[name])
    if not differ:
        return []
    said = f"{', '.join(differ)}: the two models were asked with different prompts"
    if base.model and candidate.model and base.identity == candidate.identity:
        raise MissingEvidenceError(
            f"{said}, and their weights are the same",
            where=str(candidate.path),
            fix="measure both with one chat template, template_options and date",
        )
    return [f"{said} (their chat templates differ)"]


def _other_engines(base: Side, candidate: Side) -> list[str]:
    """A remark where the answers of both sides came by different ways: the same weights then do not
    give the same numbers to the last digit."""
    if base.model is None or candidate.model is None:
        return []
    ways = [_way(side.model or {}) for side in (base, candidate)]
    if ways[0] == ways[1]:
        return []
    return [f"base was answered by {ways[0]}, candidate by {ways[1]}: a difference can be theirs"]


def _way(model: Mapping[str, Any]) -> str:
    """Who answered for a measured model: `"vllm servers"`, `"the embedded engine"`."""
    if "engine" in model:
        return f"{model['engine']} servers"
    if "endpoint" in model:
        return "an OpenAI-compatible endpoint"
    return "recorded answers" if "outputs" in model else "the embedded engine"


def _judged(after: Side, policy: GateRules) -> list[str]:
    """What is known of the judges whose scores decide.

    Raises `MissingEvidenceError` for a judge without a card that the policy does not account for.
    """
    remarks = []
    judges = after.summary.get("judges", {})
    for demand in (*policy.targets, *policy.guardrails, *policy.bands):
        known = judges.get(demand.score)
        if known is None:
            continue
        if known["card"] is not None:
            remarks.append(f"{demand.score} is a judge's: {known['card']}")
        elif policy.uncalibrated is not None:
            remarks.append(f"{demand.score} is of a judge without a card ({policy.uncalibrated})")
        else:
            raise MissingEvidenceError(
                f"{demand.score} is of a judge without a card, and nobody knows how far it agrees "
                "with people", where=str(after.path),
                fix="write its card (strop judge calibrate), or say in the policy under "
                "`uncalibrated` why it may decide",
            )  # fmt: skip
    return remarks


def _record_attempt(
    registry: str | Path | None, base: Side, candidate: Side, verdict: Verdict
) -> list[str]:
    """Record the attempt; returns remarks about earlier ones."""
    if registry is None:
        return []
    sealed = bool(base.summary.get("sealed"))
    attempt = Registry(registry).record_attempt(
        evidence=base.evidence,
        suite=str(base.summary.get("suite", base.path)),
        sealed=sealed,
        base=base.identity,
        candidate=candidate.identity,
        verdict=verdict.name,
    )
    if attempt.look == 1:
        return []
    if not sealed:
        return [f"attempt {attempt.look} on these items"]
    return [
        f"look {attempt.look} at the sealed suite {attempt.suite}: every look makes a pass by "
        "chance likelier, and a fresh set would prove more"
    ]


def _write(path: Path, verdict: Verdict, policy: GateRules, base: Side, candidate: Side) -> None:
    written = {
        **asdict(verdict),
        "policy": policy.plain(),
        "base": base.model,
        "candidate": candidate.model,
        "evals": {"base": base.plain(), "candidate": candidate.plain()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, written)
    page = path.with_suffix(".html")
    write_page(page, verdict, base.records, candidate.records, policy=policy.name)


def _digest(value: Any) -> str:
    return sha256_hex(json.dumps(value), SHORT)
