"""`strop data clean`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from strop.cli.data.options import Inputs, MaxBad, OutputPath, Overwrite, settings_of
from strop.cli.options import AsJson, DryRun

if TYPE_CHECKING:
    from strop.curate.clean.clean import CleanReport


def clean(
    files: Inputs,
    output: OutputPath,
    pii: Annotated[
        str, typer.Option(metavar="keep|report|replace|drop", help="What to do with personal data.")
    ] = "report",
    kind: Annotated[
        list[str] | None, typer.Option(help="Look for this kind alone; may be repeated.")
    ] = None,
    names: Annotated[bool, typer.Option(help="Persons and places, too (extra presidio).")] = False,
    spacy_model: Annotated[str | None, typer.Option(help="The spaCy model for --names.")] = None,
    mend: Annotated[bool, typer.Option(help="Undo damage of encodings.")] = True,
    keep_damaged: Annotated[bool, typer.Option(help="Keep what cannot be mended.")] = False,
    language: Annotated[
        list[str] | None, typer.Option(help="Keep this language (en, de); may be repeated.")
    ] = None,
    drop_refusals: Annotated[bool, typer.Option(help="Leave out answers that decline.")] = False,
    drop_disclaimers: Annotated[
        bool, typer.Option(help="Leave out answers that speak of themselves as an AI.")
    ] = False,
    strip_openings: Annotated[
        bool, typer.Option(help="Take `Sure, here is ...` off the answers.")
    ] = False,
    least: Annotated[int | None, typer.Option(help="Shortest answer.")] = None,
    most: Annotated[int | None, typer.Option(help="Longest answer.")] = None,
    unit: Annotated[
        str | None, typer.Option(metavar="characters|words|tokens", help="Of --least and --most.")
    ] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Whose tokens are counted.")] = None,
    duplicates: Annotated[
        str, typer.Option(metavar="keep|exact|near", help="Which copies to leave out.")
    ] = "near",
    semantic: Annotated[
        str | None, typer.Option(help="A model2vec folder: leave out what says the same.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Cosine similarity from which it does.")
    ] = None,
    against: Annotated[
        list[str] | None, typer.Option(help="An eval set not to train on; may be repeated.")
    ] = None,
    max_bad: MaxBad = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Mend records, replace personal data, leave out copies and what nobody should learn.

    Example: strop data clean export.jsonl --output clean.jsonl --pii replace --language en
    """
    from strop.cli.data.shown import counting, show, table
    from strop.curate.clean.clean import clean as clean_records
    from strop.curate.manifest import sources_of
    from strop.recipe.curate import CleanSettings

    given = {
        "pii": pii, "kinds": kind or None, "names": names, "spacy_model": spacy_model,
        "mend": mend, "damaged": "keep" if keep_damaged else "drop", "languages": language,
        "refusals": _drop(drop_refusals), "disclaimers": _drop(drop_disclaimers),
        "openings": "strip" if strip_openings else "keep", "least": least, "most": most,
        "unit": unit, "tokenizer": tokenizer, "duplicates": duplicates, "semantic": semantic,
        "threshold": threshold, "against": against,
    }  # fmt: skip
    said_as = {
        "kinds": "--kind", "damaged": "--keep-damaged", "languages": "--language",
        "refusals": "--drop-refusals", "disclaimers": "--drop-disclaimers",
        "openings": "--strip-openings",
    }  # fmt: skip
    settings = settings_of(CleanSettings, given, said_as)
    with counting(as_json, "rows") as advance:
        report = clean_records(
            sources_of(files, max_bad), None if dry_run else output, settings,
            overwrite=overwrite, advance=advance,
        )  # fmt: skip
    rows = [[name, f"{count:,}"] for name, count in _lines(report)]
    show(report, as_json, output=output, dry_run=dry_run, body=table(["", "rows"], rows))


def _drop(dropped: bool) -> str:
    return "drop" if dropped else "keep"


def _lines(report: CleanReport) -> list[tuple[str, int]]:
    def part(title: str, counts: Mapping[str, int]) -> list[tuple[str, int]]:
        return [(f"{title}: {name}", count) for name, count in counts.items()]

    asked = report.duplicates
    lines = [
        ("read", report.rows),
        ("kept", report.kept),
        *part("left out", report.dropped),
        *part("mended", report.repairs),
        *part("personal values", report.personal),
        ("different prompts", asked["unique_prompts"]),
        ("of these near-duplicates of others", asked["near_duplicate_prompts"]),
    ]
    if report.contaminated is not None:
        lines.append(("eval items found in the data", report.contaminated))
    return lines
