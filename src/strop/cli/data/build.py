"""`strop data build`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strop.cli.data.options import MaxBad, Overwrite, settings_of
from strop.cli.options import AsJson, DryRun

if TYPE_CHECKING:
    from strop.curate.signals.build import Built

FIELDS_SHOWN = 12
"""Unknown fields of a source that are printed; --json has all."""


def build(
    output: Annotated[Path, typer.Option("--output", help="Folder to write the records to.")],
    files: Annotated[list[Path] | None, typer.Argument(help="Data files or folders.")] = None,
    from_serve: Annotated[
        list[Path],
        typer.Option(metavar="DIR", help="The traffic folder of `strop serve`; may be repeated."),
    ] = [],  # noqa: B006
    source: Annotated[
        str | None, typer.Option(help="Where the rows come from; recognised unless given.")
    ] = None,
    kinds: Annotated[
        str, typer.Option(help="Kinds of records to make, with commas between them.")
    ] = "preference,demonstration,feedback,task",
    column: Annotated[
        list[str],
        typer.Option(metavar="OURS=THEIRS", help="What a column is called here; may be repeated."),
    ] = [],  # noqa: B006
    thumb: Annotated[
        list[str], typer.Option(help="A further name of a thumb; may be repeated.")
    ] = [],  # noqa: B006
    verdict: Annotated[
        list[str], typer.Option(help="A further name of a check for right or wrong.")
    ] = [],  # noqa: B006
    score: Annotated[
        str | None, typer.Option(help="The score that ranks several answers to one prompt.")
    ] = None,
    edit_min: Annotated[
        float, typer.Option(min=0, max=1, help="Edits that change less are left out.")
    ] = 0.05,
    edit_max: Annotated[
        float, typer.Option(min=0, max=1, help="Edits that change more are left out.")
    ] = 0.7,
    infer_regenerations: Annotated[
        bool,
        typer.Option(help="A prompt asked again in one session replaces the earlier answer."),
    ] = False,
    all_prompts: Annotated[
        bool, typer.Option(help="Make tasks of prompts whose answers nobody judged, too.")
    ] = False,
    balance_length: Annotated[
        bool, typer.Option(help="Leave out verified pairs that their lengths give away.")
    ] = True,
    judge: Annotated[
        Path | None,
        typer.Option(help="A judge (YAML) that compares answers nobody said anything about."),
    ] = None,
    max_bad: MaxBad = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Turn logs, thumbs, edits and tickets into preferences, demonstrations, feedback and tasks.

    Rows of several files (traces and scores) are joined. Clean personal data afterwards.

    Example: strop data build traces.jsonl scores.jsonl --output records
    """
    from strop.cli.data.shown import counting
    from strop.curate.signals.build import build_stage
    from strop.recipe.curate import BuildSettings
    from strop.recipe.train.data import DataSource

    columns = dict(_renamed(pair) for pair in column)
    given = {
        "source": source, "kinds": [kind.strip() for kind in kinds.split(",") if kind.strip()],
        "edit_min": edit_min, "edit_max": edit_max, "thumb": thumb, "verdict": verdict,
        "score": score, "infer_regenerations": infer_regenerations, "all_prompts": all_prompts,
        "balance_length": balance_length, "judge": None if judge is None else str(judge),
    }  # fmt: skip
    settings = settings_of(BuildSettings, given)
    sources = [DataSource(path=str(file), columns=columns, max_bad=max_bad)
               for file in _inputs(files or [], from_serve)]  # fmt: skip
    with counting(as_json, "rows") as advance:
        built = build_stage(sources, None if dry_run else output, settings,
                            overwrite=overwrite, advance=advance)  # fmt: skip
    _show(built, output, dry_run=dry_run, as_json=as_json)


def _show(built: Built, output: Path, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps(built.plain() | {"output": None if dry_run else str(output)}))
        return
    for line in lines(built):
        print(f"  {line}")
    print(f"would write {output}" if dry_run else f"saved {output}")


def _inputs(files: list[Path], from_serve: list[Path]) -> list[Path]:
    """All files that are read."""
    from strop.serve.traffic.rows import expect_files

    found = [*files, *(file for folder in from_serve for file in expect_files(folder))]
    if not found:
        raise typer.BadParameter("give data files, or --from-serve DIR")
    return found


def _renamed(pair: str) -> tuple[str, str]:
    from strop.errors import UsageError

    ours, sign, theirs = pair.partition("=")
    if not sign or not ours or not theirs:
        fix = "write strop's name, then the file's: --column prompt=question"
        raise UsageError(f"{pair!r} renames nothing", where="--column", fix=fix)
    return ours, theirs


def _as_typed(path: str) -> str:
    """A path below the working folder as a person would type it."""
    below = Path(path).is_relative_to(Path.cwd())
    return str(Path(path).relative_to(Path.cwd())) if below else path


def lines(built: Built) -> list[str]:
    """The report, for a person."""
    told = [
        f"recognised {_as_typed(path)}: "
        + ", ".join(f"{name} ({rows} rows)" for name, rows in found.items())
        for path, found in built.recognised.items()
    ]
    told.append(
        f"interactions {built.interactions}: {built.used} used, {built.without_signal} without a "
        f"signal, {sum(built.left_out.values())} left out"
    )
    told += _counts("signals", built.signals)
    told.append("records: " + ", ".join(f"{n} {kind}" for kind, n in built.records.items()))
    told += _lost(built)
    told += [line for name, found in built.unknown.items() for line in _unknown(name, found)]
    return told


def _lost(built: Built) -> list[str]:
    """What was left out, and why."""
    from strop.curate.signals.records import REASONS
    from strop.data.bad_rows import lines_of

    told = [f"left out {n}: {REASONS.get(kind, kind)}" for kind, n in built.left_out.items()]
    if built.bad:
        told += [f"left out {len(built.bad)} broken rows:", *lines_of(built.bad)]
    if built.conflicts:
        told.append(
            f"{built.conflicts} answers have signals that contradict each other: the latest counts"
        )
    if built.unread:
        named = ", ".join(f"{name} ({n})" for name, n in built.unread.items())
        told.append(f"not read: {named}")
        told.append("  say what they mean with --thumb NAME or --verdict NAME")
    if built.unmatched:
        told.append(f"{built.unmatched} signals refer to an answer that is in none of the files")
    if built.silent:
        told.append(f"{built.silent} rows hold no answer (spans of tools, steps of a chain)")
    if built.shared_ids:
        told.append(f"{built.shared_ids} answers have the id of an earlier, different one, which "
                    "gets the signals of that id")  # fmt: skip
    if built.asked_again:
        told.append(f"{built.asked_again} prompts were asked again in their session")
    if built.lengths is not None:
        one = built.lengths
        told.append(
            f"right and wrong answers: {len(one.kept)} of {one.of} pairs kept, AUC of length "
            f"{one.before:.2f} before, {one.after:.2f} after"
        )
    if built.judged:
        told += _counts("pairs for the judge", built.judged)
    if "kept" in built.judged:
        told.append("verify.jsonl holds some of its pairs: have a person judge them")
    return told


def _counts(title: str, counts: Mapping[str, int]) -> list[str]:
    told = ", ".join(f"{n} {name}" for name, n in counts.items())
    return [f"{title}: {told}"] if told else []


def _unknown(name: str, counts: Mapping[str, int]) -> list[str]:
    shown = [f"{path} ({n})" for path, n in list(counts.items())[:FIELDS_SHOWN]]
    more = [f"and {len(counts) - FIELDS_SHOWN} more"] if len(counts) > FIELDS_SHOWN else []
    return [f"unknown fields of {name}: " + ", ".join([*shown, *more])] if counts else []
