"""Stages that make data: the verb, its inputs, and whether its output is up to date."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.curate.manifest import intact, read_manifest
from strop.curate.underway import folder_of
from strop.curate.verbs import VERBS, Verb
from strop.data.sources import rows_hash
from strop.errors import RecipeError
from strop.files import SHORT, hashed_files, sha256_hex, sha256_of
from strop.judge.build import judge_hash
from strop.model.load import weights_hash
from strop.recipe.base import Strict
from strop.recipe.curate import SampleSettings
from strop.recipe.loading.load import validate
from strop.recipe.loading.paths import Named, named_paths
from strop.recipe.pipeline import DataStage, Pipeline, SampleStage
from strop.recipe.train.data import DataSource


@dataclass(frozen=True, slots=True)
class DataJob:
    """The work of a `data` or `sample` stage: `DataJob("split", VERBS["split"], [source],
    Path("/w/split"), SplitSettings())`."""

    name: str
    verb: Verb
    inputs: Sequence[DataSource]
    output: Path
    settings: Strict

    def run(self) -> str:
        """Run the verb, replacing the stage's earlier output; returns a sentence on what was
        done."""
        report = self.verb.run(self.inputs, self.output, self.settings, overwrite=self.is_ours)
        return report.sentence

    @property
    def is_ours(self) -> bool:
        """Whether a data verb wrote the current output."""
        return bool(read_manifest(self.output))

    @property
    def is_underway(self) -> bool:
        """Whether an interrupted run left parts to continue from."""
        return folder_of(self.output).exists()

    def seen(self) -> str:
        """Hash of everything that the output depends on, and of the output itself, so that any
        change to the output changes the hash."""
        made = intact(self.output)
        reads = [_content(named) for named in named_paths(self.settings)]
        values = [self.name, self.settings.plain(), _listed(self.inputs), reads, made]
        return sha256_hex(json.dumps(values, sort_keys=True), SHORT)

    def changed(self) -> str:
        """Why the output is not up to date, for the plan."""
        if intact(self.output) is None:
            return "its output was changed"
        before = {one.get("path", one.get("hub")): one["sha256"]
                  for one in read_manifest(self.output)["inputs"]}  # fmt: skip
        files = [Path(source.name).name for source in self.inputs
                 if before.get(source.path or source.hub) != rows_hash(source)]  # fmt: skip
        return f"data changed: {', '.join(files)}" if files else "its options or a model changed"

    def counted(self) -> str:
        """`"train.jsonl 80, test.jsonl 20"`: the rows of every file."""
        files = read_manifest(self.output)["files"]
        return ", ".join(f"{name} {one.get('rows', '')}".rstrip() for name, one in files.items())


def job_of(pipeline: Pipeline, stage: DataStage | SampleStage) -> DataJob:
    """The verb with its settings. Raises `RecipeError` with file, line and fix for an unknown verb
    and for wrong options."""
    if isinstance(stage, SampleStage):
        own = {name: getattr(stage, name) for name in SampleSettings.model_fields}
        settings: Strict = SampleSettings.model_construct(stage.model_fields_set, **own)
        return DataJob("sample", VERBS["sample"], stage.inputs, Path(stage.output), settings)
    if stage.verb not in VERBS:
        near = difflib.get_close_matches(stage.verb, VERBS, 1, 0.5)
        raise RecipeError(
            f"unknown verb {stage.verb!r}",
            where=pipeline.place(stage.name, "verb"),
            fix=f"{f'did you mean {near[0]!r}? ' if near else ''}known verbs: {', '.join(VERBS)}",
        )
    verb = VERBS[stage.verb]
    settings = validate(verb.settings, pipeline.options_of(stage))
    return DataJob(stage.verb, verb, stage.inputs, Path(stage.output), settings)


def _listed(inputs: Sequence[DataSource]) -> list[Any]:
    """Every source with the hash of its bytes."""
    return [[source.plain(), rows_hash(source)] for source in inputs]


def _content(named: Named) -> Any:
    """The content hash of a file or folder that the settings name; the name itself of a hub model
    or a server's model; of a judge's file all that its verdicts depend on."""
    path = Path(named.path)
    if named.loc[-1] == "judge":
        return judge_hash(path)
    if named.is_model:
        return weights_hash(named.path)
    if path.is_file():
        return sha256_of(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return hashed_files(path, files)
