"""What a reviewer asks about an entry, answered from its lineage alone.

Every line says where it comes from; what the lineage does not hold is left blank, for a person to
fill in. It is no legal advice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from strop.registry.lineage import WITHOUT_TRAINING, generations
from strop.registry.records import Entry
from strop.registry.tree import manifest_line, source_name

BLANK = ""
NOTE = (
    "Written from the lineage of the entry. What is blank is not known to strop. This is no legal "
    "advice."
)
GENERAL_PURPOSE = 1e23
"""Operations from which a model is presumed to be of general purpose: European Commission,
Guidelines on the scope of the obligations for providers of general-purpose AI models (July 2025),
point 17."""
A_THIRD = 1 / 3
"""Share of the original model's training compute from which who modifies it is a provider of a new
one; where the original's is not known, of the threshold above (the same guidelines, points 63 and
64)."""
A_TRAINED_TOKEN, A_SAMPLED_TOKEN = 6, 2
"""Operations a weight (Kaplan et al. 2020, arXiv 2001.08361, section 2.1)."""
A_JOULE = (1e9, 5e10, 5e11)
"""Operations a joule, from a laptop's processor to a current accelerator at work; strop's own
bounds, to be replaced by a measurement."""


@dataclass(frozen=True, slots=True)
class Line:
    """`Line("Base model", "SmolLM2-135M", "lineage: the oldest parent")`; a blank answer is not
    known."""

    question: str
    answer: str
    source: str


def compliance(entry: Entry) -> list[Line]:
    """The lines of an entry; the same entry gives the same lines."""
    made = generations(entry.lineage)
    return [
        Line("Intended use", BLANK, "a person"),
        Line("Uses that are out of scope", BLANK, "a person"),
        Line("Base model", _base(made[0]), "lineage: the oldest parent"),
        Line("Licence of the base model", BLANK, "a person: the lineage holds no licence"),
        Line("How it was made", " -> ".join(_stage(row) for row in made), "lineage: methods"),
        *_data(made),
        *_personal(made),
        *_evals(entry),
        *_compute(made),
        Line("Contact, and how to report a problem", BLANK, "a person"),
    ]


def compliance_text(entry: Entry) -> str:
    """The lines as Markdown."""
    rows = "\n".join(
        f"| {_cell(one.question)} | {_cell(one.answer)} | {_cell(one.source)} |"
        for one in compliance(entry)
    )
    return f"# Notes for review: {entry.id}\n\n{NOTE}\n\n| | | from |\n|---|---|---|\n{rows}\n"


def plain_lines(entry: Entry) -> list[dict[str, str]]:
    """The lines as JSON."""
    return [asdict(line) for line in compliance(entry)]


def _stage(row: Mapping[str, Any]) -> str:
    return str(row.get("method", "the base"))


def _base(made: Mapping[str, Any]) -> str:
    return f"{made['model']}, commit {made['revision']}" if "revision" in made else made["model"]


def _data(made: Sequence[Mapping[str, Any]]) -> Iterator[Line]:
    for row in made:
        for source in row.get("data", []):
            count = f"{source['rows']:,} rows" if "rows" in source else "rows not counted"
            how = manifest_line(source["manifest"]) if "manifest" in source else BLANK
            said = f"{source_name(source)}, {count}, sha256 {source['sha256']}"
            yield Line(f"Data of {_stage(row)}", said, "lineage: data")
            yield Line(f"Where {source_name(source)} comes from", how,
                       "its manifest" if how else "a person: it has no manifest")  # fmt: skip


def _personal(made: Sequence[Mapping[str, Any]]) -> Iterator[Line]:
    """Whether the verb that finds personal data stands in the history of every file."""
    sources = [source for row in made for source in row.get("data", [])]
    cleaned = [source for source in sources if _was_cleaned(source.get("manifest") or {})]
    if not sources:
        return
    said = f"strop data clean was run on {len(cleaned)} of {len(sources)} files"
    yield Line("Personal data", said, "the files' manifests: verbs")
    yield Line("Consent and legal basis of the data", BLANK, "a person")


def _was_cleaned(manifest: Mapping[str, Any]) -> bool:
    """Whether `strop data clean` made a file, or what it was made from."""
    return "strop data clean" in (manifest.get("made_by"), *manifest.get("before", ()))


def _evals(entry: Entry) -> Iterator[Line]:
    verdict = entry.verdict
    if verdict is None:
        yield Line("Evaluation", "promoted without a passing verdict", "the registry: an override")
        return
    yield Line("Evaluation", str(verdict.get("sentence", verdict["name"])), "the gate's verdict")
    checks = verdict.get("checks", [])
    fell = [
        f"{check['name']} fell from {check['base']:.3g} to {check['candidate']:.3g}"
        for check in checks
        if check["candidate"] < check["base"]
    ]
    said = "; ".join(fell) if fell else "no score of the verdict fell" if checks else BLANK
    yield Line("Known to be worse than before", said, "the gate's verdict: checks")
    yield Line("Other known failures and limits", BLANK, "a person")


def _compute(made: Sequence[Mapping[str, Any]]) -> Iterator[Line]:
    """Operations of all stages that strop trained, their energy, and a third of the base's."""
    trained = [row for row in made if row.get("method", "merge") not in WITHOUT_TRAINING]
    spent = [row["spent"] for row in trained if "spent" in row]
    if not trained or len(spent) < len(trained):
        without = "a stage's lineage counts no tokens" if trained else "nothing was trained"
        yield Line("Training compute", BLANK, f"lineage: {without}")
        return
    total = sum(operations(one) for one in spent)
    tokens = sum(one["tokens"] for one in spent)
    yield Line("Training compute", f"about {total:.1e} operations over {tokens:,} tokens",
               "lineage: tokens and parameters, 6 operations each")  # fmt: skip
    low, likely, high = (total / per / 3.6e6 for per in reversed(A_JOULE))
    yield Line("Energy", f"about {likely:.2g} kWh ({low:.2g} to {high:.2g})",
               "training compute at 1 to 500 GFLOP a joule; not measured")  # fmt: skip
    bound = A_THIRD * GENERAL_PURPOSE
    side = "below" if total < bound else "at or above"
    yield Line(
        "Is it a substantial modification?",
        f"{side} a third of 1e23 operations, which counts where the base's compute is not known; "
        "against the base's own compute: ",
        "EU guidelines on general-purpose AI models (July 2025), points 17, 63, 64",
    )


def operations(spent: Mapping[str, Any]) -> float:
    """Of one stage: `operations({"tokens": 1000, "sampled": 0, "parameters": 10}) == 60000`."""
    per_token = A_TRAINED_TOKEN * spent["tokens"] + A_SAMPLED_TOKEN * spent["sampled"]
    return float(spent["parameters"] * per_token)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
