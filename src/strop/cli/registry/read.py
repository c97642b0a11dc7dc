"""`strop registry list | show | diff | attempts | card`: what is there."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strop.cli.options import AsJson, AsJsonLines, DryRun

if TYPE_CHECKING:
    from strop.registry.records import Entry
    from strop.registry.store import Registry

Store = Annotated[Path, typer.Option("--registry", help="The registry file.")]
Which = Annotated[str, typer.Argument(help="Entry id, the start of one, or a name.")]
HERE = Path("registry.db")


def list_entries(registry: Store = HERE, as_json: AsJson = False) -> None:
    """Names with their current entry, every event, and entries that were only imported.

    Example: strop registry list --registry strop-demo/registry.db
    """
    from strop.registry.store import Registry

    store = Registry(registry)
    current = {name: store.current(name) for name in store.names()}
    events = store.events()
    seen = {event.entry for event in events}
    imported = [entry for entry in store.entries() if entry.id not in seen]
    if as_json:
        found = {name: asdict(entry) for name, entry in current.items() if entry}
        listed = {"current": found, "events": [asdict(event) for event in events]}
        print(json.dumps({**listed, "imported": [asdict(entry) for entry in imported]}))
        return
    for name, now in current.items():
        print(f"{name}: {now.id if now else 'nothing'}")
        for event in store.events(name):
            reason = f"  ({event.reason})" if event.reason else ""
            print(f"  {event.at}  {event.action:<9} {event.entry}  by {event.who}{reason}")
    for entry in imported:
        print(f"under no name: {entry.id}  {entry.lineage['model']}")
    if not current and not imported:
        print("no entries yet: strop registry promote makes one")


def show(which: Which, registry: Store = HERE, as_json: AsJson = False) -> None:
    """One entry: who promoted it, on what evidence, and its whole ancestry.

    Example: strop registry show algebra --registry strop-demo/registry.db
    """
    from strop.registry.store import Registry
    from strop.registry.tree import drawn

    store = Registry(registry)
    entry = store.entry(which)
    if as_json:
        print(json.dumps(asdict(entry)))
        return
    print("\n".join([*_facts(store, entry), "", *drawn(entry.lineage)]))


def _facts(store: Registry, entry: Entry) -> list[str]:
    from strop.registry.records import size_of
    from strop.registry.tree import fitted

    files = f"{len(entry.manifest)}, {size_of(entry.manifest)} bytes"
    lost = store.objects.missing(entry.manifest)
    facts = [
        ("entry", entry.id),
        *(("name", f"{name}{' (current)' if stack[-1] == entry.id else ' (before)'}")
          for name, stack in store.stacks().items() if entry.id in stack),
        ("weights", entry.weights),
        ("path", entry.path),
        ("files", f"{files}, {f'{len(lost)} no longer stored' if lost else 'all stored'}"),
        ("made by", f"{entry.who} at {entry.created}"),
        *_evidence(entry),
    ]  # fmt: skip
    return [fitted(f"{name:<10}{said}", 100) for name, said in facts]


def _evidence(entry: Entry) -> list[tuple[str, str]]:
    import textwrap

    facts = []
    if entry.origin is not None:
        facts.append(("imported", f"by {entry.origin['who']} at {entry.origin['at']}"))
        facts += [
            ("", f"{event['action']} {event['name']} by {event['who']} at {event['at']}")
            for event in entry.origin["events"]
        ]
    if entry.verdict is None:
        return [*facts, ("verdict", "none: the gate was overridden")]
    wrapped = textwrap.wrap(entry.verdict.get("sentence", entry.verdict["name"]), 90)
    facts += [("" if number else "verdict", line) for number, line in enumerate(wrapped)]
    for side in ("base", "candidate"):
        measured = entry.verdict.get(side) or {}
        if "path" in measured:
            facts.append((side, f"{measured['sha256']}  {measured['path']}"))
    for side, found in entry.verdict.get("evals", {}).items():
        facts.append(("evals", f"{side}: {found['folder']}, {found['records']} records"))
    return [*facts, *(("remark", remark) for remark in entry.verdict.get("remarks", []))]


def diff(a: Which, b: Which, registry: Store = HERE, as_json: AsJsonLines = False) -> None:
    """In what two entries differ: recipe, data, code, environment, parents, verdict and scores.

    Example: strop registry diff 3f9a12 algebra --registry strop-demo/registry.db
    """
    from strop.registry.diff import differences
    from strop.registry.store import Registry
    from strop.registry.tree import fitted, table

    store = Registry(registry)
    left, right = store.entry(a), store.entry(b)
    found = differences(left, right)
    if as_json:
        for difference in found:
            print(json.dumps(asdict(difference)))
        return
    if not found:
        print(f"{left.id} and {right.id} do not differ")
        return
    shown = [["", "", left.id, right.id]]
    shown += [[d.part, d.key, *(fitted(_plain(value), 32) for value in (d.a, d.b))] for d in found]
    print("\n".join(table(shown)))


def _plain(value: object) -> str:
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def attempts(
    evidence: Annotated[str | None, typer.Option(help="Only looks at this evidence hash.")] = None,
    registry: Store = HERE,
    as_json: AsJsonLines = False,
) -> None:
    """Every attempt at the gate, and how often it had looked at the same evidence by then.

    Example: strop registry attempts --registry strop-demo/registry.db
    """
    from strop.registry.store import Registry
    from strop.registry.tree import table

    found = Registry(registry).attempts(evidence)
    if as_json:
        for attempt in found:
            print(json.dumps(asdict(attempt)))
        return
    head = ["#", "at", "suite", "evidence", "look", "base", "candidate", "verdict", "by"]
    rows = [
        [str(a.number), a.at, a.suite, a.evidence[:8], f"{a.look}{' sealed' if a.sealed else ''}",
         a.base[:8], a.candidate[:8], a.verdict, a.who]
        for a in found
    ]  # fmt: skip
    print("\n".join(table([head, *rows])) if rows else "no attempts yet")


def card(
    which: Which,
    output: Annotated[Path | None, typer.Option(help="Write it here, e.g. README.md.")] = None,
    registry: Store = HERE,
    for_review: Annotated[
        bool, typer.Option("--compliance", help="What a reviewer asks, each line with its source.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """The model card of an entry, with Hugging Face's front matter, or notes for a review.

    Example: strop registry card algebra --output README.md --registry strop-demo/registry.db
    """
    from strop.errors import OutputError
    from strop.files import write_whole
    from strop.registry.card import card as card_of
    from strop.registry.card import front_matter
    from strop.registry.compliance import compliance_text, plain_lines
    from strop.registry.store import Registry

    entry = Registry(registry).entry(which)
    text = compliance_text(entry) if for_review else card_of(entry)
    if output is not None and output.exists():
        raise OutputError("the file exists already", where=str(output), fix="choose another name")
    if output is not None and not output.parent.is_dir():
        raise OutputError("no such folder", where=str(output.parent))
    if output is not None and not dry_run:
        write_whole(output, text)
    if as_json:
        more = ({"lines": plain_lines(entry)} if for_review
                else {"front_matter": front_matter(entry)})  # fmt: skip
        print(json.dumps({"entry": entry.id, **more, "card": text}))
    elif output is None:
        print(text, end="")
    else:
        print(f"{'would write' if dry_run else 'wrote'} {output}")
