"""`strop eval decode`: a trained model and its base, by accuracy against tokens spent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from strop.data.items import cluster_of, expect_own_items, item_of
from strop.data.records import task
from strop.data.sources import read
from strop.engines.build import FolderEngine, folder_engine
from strop.engines.served.fixed import FixedEngine
from strop.errors import (
    MissingEvidenceError,
    ModelError,
    OutputError,
    RecipeError,
)
from strop.evals.decode.draws import Side, answers_of, draws_of
from strop.evals.decode.frontier import FrontierRow, rows_of, sentences, ways_of
from strop.evals.decode.grading import Graded, Grader, judged_items
from strop.evals.decode.page import study_page
from strop.evals.inputs import suite_hash
from strop.files import writing_folder
from strop.model.load import expect_weights, load_tokenizer, weights_hash
from strop.recipe.engine import FolderEngineRecipe
from strop.recipe.study import Refine, Study
from strop.stats.compare import FEWEST_CLUSTERS
from strop.types import Task

TABLE = "decode.json"

CUT_SHARE = 0.05
"""A larger share of answers cut at max_tokens gets a note."""


@dataclass(frozen=True, slots=True)
class CheckedStudy:
    """A study that can run:
    `CheckedStudy(study, {"base": "b", "model": "m"}, tasks, answers=2720)`.

    `answers` counts what both models will sample.
    """

    study: Study
    models: dict[Side, str]
    tasks: list[Task]
    answers: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a study found: `Decoded(rows, sentences=("One greedy ...",), notes=(), items=200)`."""

    rows: tuple[FrontierRow, ...]
    sentences: tuple[str, ...]
    notes: tuple[str, ...]
    items: int

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def check_study(study: Study, *, model: str, base: str) -> CheckedStudy:
    """Check everything that can be checked before a model is loaded.

    Raises `ModelError`, `DataError`, `RecipeError` or `RewardError` for a study that cannot run,
    `MissingEvidenceError` for items in too few clusters.
    """
    for path in (base, model):
        expect_weights(path)
    if weights_hash(model) == weights_hash(base):
        raise ModelError(
            "the base has the same weights as the model, so there is nothing to compare",
            where=base,
            fix="give the checkpoint that the model was trained from as --base",
        )
    tasks = read(study.data, task, held_out=True)
    expect_own_items(tasks)
    _expect_clusters(tasks)
    grader = Grader(study)
    for reward in (grader.scores, grader.picker):
        if reward is not None:
            reward.expect_columns(tasks)
    _template_is_read(study, tasks)
    return CheckedStudy(
        study, {"base": base, "model": model}, tasks, 2 * answers_of(study, len(tasks))
    )


def run_study(
    checked: CheckedStudy,
    output: str | Path,
    *,
    advance: Callable[[int], None] = lambda answers: None,
) -> Decoded:
    """Sample, judge, compare; write `samples.jsonl`, `decode.json` and `decode.html` under
    `output`, whole or not at all.

    Answers sampled before an interruption are read from `.<output>.parts` beside it. `advance` gets
    the number of answers sampled or read.
    """
    study, folder = checked.study, Path(output)
    if folder.exists() and (folder.is_file() or any(folder.iterdir())) and not (
        folder / TABLE
    ).exists():  # fmt: skip
        raise OutputError("the output exists and holds no decoding study", where=str(folder),
                          fix="choose another output")  # fmt: skip
    parts = parts_of(folder)
    grader = Grader(study)
    engines = engines_of(study, checked.models)
    for engine in engines.values():
        if isinstance(engine, FixedEngine):
            engine.prove()
    draws = draws_of(study, checked.tasks, engines, parts, advance)
    graded = [grader.grade(one) for one in draws]
    items = judged_items(graded)
    clusters = [cluster_of(checked.tasks[i]) for i in items]
    ways = ways_of(study, graded, items)
    result = Decoded(
        rows=tuple(rows_of(study, ways, clusters)),
        sentences=tuple(sentences(study, ways, clusters)),
        notes=tuple(_notes(checked, graded, len(items))),
        items=len(items),
    )
    with writing_folder(folder) as temporary:
        _write(temporary, checked, graded, result)
    shutil.rmtree(parts)
    return result


def engines_of(study: Study, models: Mapping[Side, str]) -> dict[Side, FolderEngine]:
    """Who answers for the base and for the model."""
    recipes: dict[Side, FolderEngineRecipe] = {"base": study.base_engine, "model": study.engine}
    return {side: folder_engine(path, recipes[side]) for side, path in models.items()}


def study_inputs(study: Study, *, model: str, base: str) -> dict[str, Any]:
    """Everything that the result of a study depends on, by hash; addresses of servers left out."""
    engines = engines_of(study, {"base": base, "model": model})
    return {
        "study": suite_hash(study),
        **{
            side: {name: value for name, value in engine.identity().items() if name != "servers"}
            for side, engine in engines.items()
        },
    }


def parts_of(folder: Path) -> Path:
    """Where the answers of an unfinished study are kept."""
    return folder.with_name(f".{folder.name}.parts")


def is_study_of(output: str | Path, inputs: Mapping[str, Any]) -> bool:
    """Whether a study's folder holds the result of these inputs."""
    made = json.loads((Path(output) / TABLE).read_text())
    return all(made[name] == value for name, value in inputs.items())


def read_sentences(output: str | Path) -> list[str]:
    """What a study found, in words."""
    said: list[str] = json.loads((Path(output) / TABLE).read_text())["sentences"]
    return said


def _write(folder: Path, checked: CheckedStudy, graded: Sequence[Graded], result: Decoded) -> None:
    study = checked.study
    with (folder / "samples.jsonl").open("w", encoding="utf-8") as stream:
        for row in _samples(checked.tasks, graded):
            stream.write(json.dumps(row) + "\n")
    described = {
        **study_inputs(study, model=checked.models["model"], base=checked.models["base"]),
        "engines": {"base": study.base_engine.plain(), "model": study.engine.plain()},
        "serving_temperature": study.serving_temperature,
        **result.plain(),
    }
    (folder / TABLE).write_text(json.dumps(described, indent=1) + "\n")
    page = study_page(study, result.rows, [*result.sentences, *result.notes])
    (folder / "decode.html").write_text(page, encoding="utf-8")


def _samples(tasks: Sequence[Task], graded: Sequence[Graded]) -> Iterator[dict[str, Any]]:
    for part in graded:
        for number, item, sample, answer in part.answers():
            yield {
                "model": part.side,
                "temperature": part.temperature,
                "item": item_of(tasks[item]),
                "cluster": cluster_of(tasks[item]),
                "round": number,
                "sample": sample,
                "text": answer.completion.said,
                "tokens": len(answer.completion.ids),
                "finish_reason": answer.completion.finish,
                "scores": dict(answer.scores),
                "right": answer.right,
                "vote": answer.vote,
                "reward": answer.reward,
            }


def _notes(checked: CheckedStudy, graded: Sequence[Graded], items: int) -> Iterator[str]:
    """Limits of the table that a reader has to know."""
    study = checked.study
    if items < len(checked.tasks):
        left = len(checked.tasks) - items
        yield f"{left} of {len(checked.tasks)} items are left out: an answer could not be judged."
    if study.voting is None:
        yield (f"No maj@k: {study.scores[0].label} says of no answer what it is; set `vote` where "
               "answers can be compared.")  # fmt: skip
    if study.engine.kind != study.base_engine.kind:
        yield ("The two models were sampled by different engines, whose log-probs differ by "
               "rounding.")  # fmt: skip
    base, model = (load_tokenizer(path).get_vocab() for path in checked.models.values())
    if base != model:
        yield "The two models have different tokenizers, so a token is not the same to both."
    for part in graded:
        answers = [answer for *_, answer in part.answers()]
        cut = sum(a.completion.finish == "length" for a in answers) / len(answers)
        if cut > CUT_SHARE:
            yield (f"{part.side}, temperature {part.temperature:g}: {cut:.0%} of the answers were "
                   f"cut at {study.sampling.max_tokens} tokens.")  # fmt: skip
        unranked = sum(a.reward is None for answers in part.rounds[0] for a in answers)
        if study.best_of and part.temperature and unranked:
            yield (f"{part.side}, temperature {part.temperature:g}: best_of could not rank "
                   f"{unranked} answers; they are picked last.")  # fmt: skip


def _expect_clusters(tasks: Sequence[Task]) -> None:
    found = len({cluster_of(one) for one in tasks})
    if found < min(FEWEST_CLUSTERS, len(tasks)):
        raise MissingEvidenceError(
            f"the {len(tasks)} items are in {found} clusters, too few for an interval",
            fix=f"give items of at least {FEWEST_CLUSTERS} clusters, or drop the column `cluster`",
        )


def _template_is_read(study: Study, tasks: Sequence[Task]) -> None:
    usual = Refine().template
    changed = study.refine is not None and study.refine.template != usual
    if changed and not any(isinstance(one.prompt, str) for one in tasks):
        raise RecipeError(
            "refine.template is for text prompts, and every prompt of the data is a chat",
            fix="drop it; a chat gets refine.instruction as the next user turn",
        )
