"""Draws the ancestry of a model as a tree of plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from strop.registry.lineage import parents_of

WIDTH = 100
"""Columns; a longer line loses the middle of its longest word."""

MACHINE = ("system", "cuda", "threads", "processes")


def drawn(lineage: Mapping[str, Any], width: int = WIDTH) -> list[str]:
    """Lines of at most `width` columns: the model, what it was made of, and so on upwards.

    dpo  runs/dpo/final
        ├─ data         pairs.jsonl  2f34abcd  896 rows
        ├─ made by      strop data balance  pairs.manifest.json  77aa12cd
        ├─ recipe       5d2c8e12
        ├─ code         strop 0.1.0, commit 1a2b3c4
        ├─ environment  python 3.11.9, torch 2.13.0, transformers 5.1.0, Linux x86_64
        └─ parent       sft  runs/sft/final  9b1c0d2e
           └─ parent    hub/base  (no record)
    """
    lines = [_title(lineage), *_branches(lineage)]
    return [fitted(line, width) for line in lines]


def _branches(lineage: Mapping[str, Any]) -> list[str]:
    parents = parents_of(lineage)
    facts = _facts(lineage)
    last = len(facts) + len(parents) - 1
    lines = [
        f"{'└─' if number == last else '├─'} {name:<11}  {said}"
        for number, (name, said) in enumerate(facts)
    ]
    for number, parent in enumerate(parents, len(facts)):
        lines.append(f"{'└─' if number == last else '├─'} {'parent':<11}  {_title(parent)}")
        edge = " " if number == last else "│"
        lines += [f"{edge}  {line}" for line in _branches(parent)]
    return lines


def _title(made: Mapping[str, Any]) -> str:
    sha256 = [made["sha256"][:8]] if "sha256" in made else []
    commit = [f"at {made['revision'][:8]}"] if "revision" in made else []
    known = [] if "method" in made else ["(no record)"]
    if made.get("changed"):
        known = ["(other weights lie there now)"]
    return "  ".join([*([made["method"]] if "method" in made else []), made["model"],
                      *commit, *sha256, *known])  # fmt: skip


def _facts(made: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [fact for source in made.get("data", []) for fact in _source_facts(source)]
    if made.get("rewards"):
        facts.append(("rewards", ", ".join(sha256[:8] for sha256 in made["rewards"])))
    facts += [("function", f"{f['name']}  {f['sha256'][:8]}") for f in made.get("functions", [])]
    if "recipe" in made:
        facts.append(("recipe", made["recipe"]))
    if "settings" in made:
        said = (f"{key} {value}" for key, value in made["settings"].items())
        facts.append(("settings", ", ".join(said)))
    if "final" in made:
        facts.append(("final", ", ".join(f"{key} {said}" for key, said in made["final"].items())))
    if "code" in made:
        commit = made["code"].get("commit")
        at = f", commit {commit[:12]}" if commit else ""
        facts.append(("code", f"strop {made['code']['strop']}{at}"))
    if "environment" in made:
        facts.append(("environment", _environment(made["environment"])))
    return facts


def _source_facts(source: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [("data", source_line(source))]
    if "manifest" in source:
        facts.append(("made by", manifest_line(source["manifest"])))
    return facts


def source_line(source: Mapping[str, Any]) -> str:
    """`pairs.jsonl  2f34abcd  896 rows`."""
    rows = f"  {source['rows']} rows" if "rows" in source else ""
    return f"{Path(source_name(source)).name}  {source['sha256'][:8]}{rows}"


def source_name(source: Mapping[str, Any]) -> str:
    """The path of a data source, or the name of a hub data set."""
    return str(source["path"] if "path" in source else source["hub"])


def manifest_line(manifest: Mapping[str, Any]) -> str:
    """`strop data balance pairs.manifest.json 77aa12cd`, with a note if the file that was read
    differs from the one in the manifest."""
    changed = "" if manifest["unchanged"] else "  (the file was changed since)"
    name = Path(manifest["path"]).name
    return f"{manifest['made_by']}  {name}  {manifest['sha256'][:8]}{changed}"


def _environment(found: Mapping[str, Any]) -> str:
    versions = [f"{name} {found[name]}" for name in found if name not in (*MACHINE, "strop")]
    return ", ".join([*versions, *(str(found[name]) for name in MACHINE[:2] if found.get(name))])


def fitted(line: str, width: int) -> str:
    """The line itself, or with the middle of its longest word left out."""
    if len(line) <= width:
        return line
    words = line.split(" ")
    longest = max(words, key=len)
    room = len(longest) - (len(line) - width)
    if room < 8:
        return line[: width - 1] + "…"
    head = (room - 1) // 3
    cut = f"{longest[:head]}…{longest[len(longest) - (room - 1 - head) :]}"
    return line.replace(longest, cut, 1)


def table(rows: Sequence[Sequence[str]], width: int = WIDTH) -> list[str]:
    """Rows in columns; each column as wide as its widest cell."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    lines = ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)) for row in rows]
    return [fitted(line.rstrip(), width) for line in lines]
