"""Model card of an entry: Hugging Face's front matter, then the verdict, checks, ancestry and
recipe.

Front matter: huggingface.co/docs/hub/model-cards.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from strop.registry.lineage import generations, parents_of
from strop.registry.records import Entry, size_of
from strop.registry.tree import drawn, manifest_line, source_name

RELATIONS = {"blend": "merge"}
"""What the hub calls the relation to its base of a model of this method; others are fine-tuned."""

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def card(entry: Entry) -> str:
    """README.md of an entry; the same entry gives the same text."""
    sections = [
        f"# {_name(entry.lineage['model'])}",
        _verdict(entry),
        _checks(_rows(entry)),
        _ancestry(entry.lineage),
        _data(entry.lineage),
        _recipe(entry.lineage),
        _loading(entry),
        _files(entry),
    ]
    header = yaml.safe_dump(front_matter(entry), sort_keys=False, allow_unicode=True)
    return f"---\n{header}---\n\n" + "\n\n".join(filter(None, sections)) + "\n"


def front_matter(entry: Entry) -> dict[str, Any]:
    """The front matter for the hub, without a licence, which strop does not know."""
    made = entry.lineage
    methods = [row["method"] for row in generations(made) if "method" in row]
    known: dict[str, Any] = {}
    if parents_of(made):
        relation = (
            "adapter" if is_adapter(entry) else RELATIONS.get(str(made.get("method")), "finetune")
        )
        known |= {"base_model": _base(made), "base_model_relation": relation}
    known["library_name"] = "peft" if is_adapter(entry) else "transformers"
    rewards = made.get("method") == "reward_model"
    known["pipeline_tag"] = "text-classification" if rewards else "text-generation"
    known["tags"] = ["strop", *dict.fromkeys(methods)]
    if "data" in made:
        known["datasets"] = [Path(source_name(source)).name for source in made["data"]]
    if rows := _rows(entry):
        results = [_result(row, known["pipeline_tag"]) for row in rows]
        known["model-index"] = [{"name": _name(made["model"]), "results": results}]
    return known


def is_adapter(entry: Entry) -> bool:
    return "adapter_config.json" in entry.manifest


def _result(check: Mapping[str, Any], task: str) -> dict[str, Any]:
    """A check as one result of the hub's model-index; `greedy/accuracy` is accuracy on greedy."""
    dataset, _, metric = check["name"].rpartition("/")
    return {
        "task": {"type": task},
        "dataset": {"type": dataset or check["name"], "name": dataset or check["name"]},
        "metrics": [{"type": metric if dataset else "score", "name": check["name"],
                     "value": check["candidate"]}],
    }  # fmt: skip


def _base(made: Mapping[str, Any]) -> str:
    """The nearest ancestor with a name on the hub, or the name of the oldest folder."""
    above = generations(made)[-2::-1]
    others = [row["model"] for row in above if "method" not in row]
    return next(filter(HUB_NAME.fullmatch, others), _name(above[-1]["model"]))


def _name(model: str) -> str:
    """`runs/dpo/final` is the run's: dpo."""
    path = Path(model)
    return path.parent.name if path.name == "final" else path.name


def _rows(entry: Entry) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = (entry.verdict or {}).get("checks", [])
    return found


def _verdict(entry: Entry) -> str:
    if entry.verdict is None:
        return "**Promoted without a passing verdict**: the gate was overridden."
    sentence = f"**{_cell(entry.verdict.get('sentence', entry.verdict['name']))}**"
    remarks = [f"- {_cell(remark)}" for remark in entry.verdict.get("remarks", [])]
    return "\n".join([sentence, *([""] if remarks else []), *remarks])


def _checks(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    lines = [
        [row["name"], row["kind"], f"{row['base']:.4g}", f"{row['candidate']:.4g}",
         *_interval(row), str(row["n"]), row["verdict"]]
        for row in rows
    ]  # fmt: skip
    head = ["check", "kind", "base", "candidate", "difference", "95 % interval", "items", "verdict"]
    return "## Checks\n\n" + _table(head, lines)


def _interval(row: Mapping[str, Any]) -> list[str]:
    """Difference and interval; a band holds a ratio."""
    form, sign = ("{:.4g}", "x ") if row["kind"] == "band" else ("{:+.4g}", "")
    estimate, low, high = (form.format(row[key]) for key in ("estimate", "low", "high"))
    return [f"{sign}{estimate}", f"{low} to {high}"]


def _ancestry(made: Mapping[str, Any]) -> str:
    return "## Ancestry\n\n```\n" + "\n".join(drawn(made)) + "\n```"


def _data(made: Mapping[str, Any]) -> str:
    sources = [(row, source) for row in generations(made) for source in row.get("data", [])]
    head = ["stage", "file", "sha256", "rows"]
    lines = [
        [_name(row["model"]), source_name(source), source["sha256"],
         str(source.get("rows", "unknown"))]
        for row, source in sources
    ]  # fmt: skip
    if any("manifest" in source for _, source in sources):
        head.append("made by")
        for line, (_, source) in zip(lines, sources, strict=True):
            line.append(manifest_line(source["manifest"]) if "manifest" in source else "")
    return "## Data\n\n" + _table(head, lines) if lines else ""


def _recipe(made: Mapping[str, Any]) -> str:
    if "resolved" not in made:
        return ""
    text = yaml.safe_dump(made["resolved"], sort_keys=False, allow_unicode=True)
    return f"## Recipe\n\n```yaml\n{text}```"


def _loading(entry: Entry) -> str:
    if is_adapter(entry):
        lines = ["from peft import AutoPeftModelForCausalLM", "",
                 'model = AutoPeftModelForCausalLM.from_pretrained("model")']  # fmt: skip
    else:
        kind = ("SequenceClassification" if entry.lineage.get("method") == "reward_model"
                else "CausalLM")  # fmt: skip
        lines = [f"from transformers import AutoModelFor{kind}, AutoTokenizer", "",
                 f'model = AutoModelFor{kind}.from_pretrained("model")',
                 'tokenizer = AutoTokenizer.from_pretrained("model")']  # fmt: skip
    return "\n".join(["## How to load", "", "```python", *lines, "```"])


def _files(entry: Entry) -> str:
    said = f"Entry `{entry.id}`, weights `{entry.weights}`, promoted by {_cell(entry.who)} "
    return (
        f"{said}at {entry.created}, {len(entry.manifest)} files, {size_of(entry.manifest)} bytes."
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
