"""How data is generated: what `strop data generate` reads."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from strop.recipe.base import LocalPath, ModelPath, Strict
from strop.recipe.curate import CachePath
from strop.recipe.engine import LOCAL, FolderEngineRecipe
from strop.recipe.requests import PricesRecipe, RequestsRecipe
from strop.recipe.train.reward import Rewards
from strop.recipe.train.rollout import SamplingRecipe

PICTURES = ("image", "images", "picture", "photo", "graph", "chart", "diagram", "figure", "map",
            "draw", "plot", "video", "audio", "music", "file", "attachment", "link")  # fmt: skip
"""Words of instructions that a text model cannot follow (the filter of arXiv 2212.10560, section
2.2, with words of our own)."""


class GenerateRecipe(Strict):
    """What all kinds of generated data share.

    `chat` asks a prompt of plain text as a user's turn, and the record holds messages; otherwise it
    stays as its file has it. Answers that met `sampling.max_tokens` are left out unless `keep_cut`.
    `at_once` prompts are asked together, and `requests` says how an endpoint is asked.
    """

    sampling: SamplingRecipe = SamplingRecipe(max_tokens=1024)
    seed: int = Field(0, ge=0)
    chat: bool = False
    keep_cut: bool = False
    at_once: int = Field(32, ge=1)
    requests: RequestsRecipe = RequestsRecipe()
    prices: PricesRecipe | None = None


class SelfInstructRecipe(GenerateRecipe):
    """New instructions from seeds (arXiv 2212.10560), and answers to them unless `answers` is off.

    A request shows `seeds_shown` seeds and `generated_shown` instructions that were kept before, in
    random order, and asks for `asked` more. One is kept whose ROUGE-L with every seed and every
    kept one is below `similarity`, that has `min_words` to `max_words` words and none of the words
    in `avoid`. The run ends once `count` were kept, or after `patience` rounds of `at_once`
    requests that gave none.
    """

    count: int = Field(100, ge=1)
    answers: bool = True
    seeds_shown: int = Field(6, ge=1)
    generated_shown: int = Field(2, ge=0)
    asked: int = Field(8, ge=1)
    similarity: float = Field(0.7, gt=0, le=1)
    min_words: int = Field(4, ge=1)
    max_words: int = Field(150, ge=1)
    avoid: tuple[str, ...] = PICTURES
    patience: int = Field(5, ge=1)
    at_once: int = Field(8, ge=1)
    template: LocalPath | None = None


class ScoredRecipe(GenerateRecipe):
    """Several answers to every prompt; `template` is a file with `{{ prompt }}` that words the
    prompt for this engine, while the record keeps the prompt itself. `think` is strop's own one
    that asks for a thought in `<think>` tags."""

    samples: int = Field(8, ge=1)
    template: LocalPath | Literal["think"] | None = None


def _several(samples: int) -> int:
    if samples < 2:
        raise ValueError("the best of one answer is that answer: ask for two or more samples")
    return samples


class BestOfRecipe(ScoredRecipe):
    """The best of `samples` answers: as a demonstration (`keep: best`), or as a pair with the one
    nearest to the mean minus two standard deviations (`keep: pair`, arXiv 2502.16825)."""

    samples: Annotated[int, AfterValidator(_several)] = 8
    keep: Literal["best", "pair"] = "best"


class RejectRecipe(ScoredRecipe):
    """All different answers whose reward is at least `threshold`, at most `most` a prompt, the best
    first."""

    threshold: float
    most: int | None = Field(None, ge=1)


class ReasonRecipe(ScoredRecipe):
    """Reasoning traces that a verifier finds right: a reward of at least `threshold`.

    At most `most` a prompt, the `shortest` first, or such that each is as unlike those before it as
    can be (`diverse`). With `thought` an answer without a closed `<think>...</think>` is left out.
    """

    threshold: float = 1.0
    most: int = Field(4, ge=1)
    first: Literal["shortest", "diverse"] = "shortest"
    thought: bool = False


class CritiqueRecipe(GenerateRecipe):
    """An answer, its critique by a principle and the revision (arXiv 2212.08073): the revision is
    chosen, the answer rejected.

    `rounds` principles are drawn for every prompt, and each revises what the one before left.
    `principles` is a file of your own; so are the templates of the two requests.
    """

    rounds: int = Field(1, ge=1)
    principles: LocalPath | None = None
    critique: LocalPath | None = None
    revision: LocalPath | None = None


class EngineOptions(Strict):
    """Who answers: one of `model`, `url` with `model_name`, and `recorded` answers. A model folder
    answers in this process, or on the servers that `engine` names. `cache` keeps every answer for
    later runs, too."""

    model: ModelPath | None = None
    engine: FolderEngineRecipe = LOCAL
    url: str | None = None
    model_name: str | None = None
    recorded: LocalPath | None = None
    cache: CachePath | None = None


class WhoAnswers(Strict):
    """The engine of a `data` stage that generates."""

    engine: EngineOptions


class Rewarded(WhoAnswers):
    """With the reward that judges the answers, as in a training recipe."""

    reward: Rewards


class SelfInstructStage(SelfInstructRecipe, WhoAnswers):
    """Options of `verb: generate self-instruct`."""


class CritiqueStage(CritiqueRecipe, WhoAnswers):
    """Options of `verb: generate critique`."""


class BestOfStage(BestOfRecipe, Rewarded):
    """Options of `verb: generate best-of`."""


class RejectStage(RejectRecipe, Rewarded):
    """Options of `verb: generate reject`."""


class ReasonStage(ReasonRecipe, Rewarded):
    """Options of `verb: generate reason`."""


class Principle(Strict):
    """`{name: honest, critique: "Name every claim that ...", revision: "Rewrite the answer so that
    ..."}`: what a critique looks for, and what a revision does about it."""

    name: Annotated[str, Field(min_length=1)]
    critique: Annotated[str, Field(min_length=1)]
    revision: Annotated[str, Field(min_length=1)]


def _names_differ(principles: tuple[Principle, ...]) -> tuple[Principle, ...]:
    names = [principle.name for principle in principles]
    if len(set(names)) < len(names):
        raise ValueError(f"two principles have one name ({', '.join(names)})")
    return principles


class Principles(Strict):
    """A file of principles."""

    principles: Annotated[tuple[Principle, ...], AfterValidator(_names_differ), Field(min_length=1)]
