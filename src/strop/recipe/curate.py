"""Settings of the data verbs that choose, split, balance, mix and sample records.

Each class is what `strop data VERB` takes as options, and what a `data` stage of a pipeline holds
under `options`.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from strop.recipe.base import LocalPath, ModelPath, Strict, absolute
from strop.recipe.engine import LOCAL, FolderEngineRecipe
from strop.recipe.template import TemplatePath
from strop.recipe.train.reward import Rewards
from strop.recipe.train.rollout import SamplingRecipe


def _written(value: str, info: ValidationInfo) -> str:
    return absolute(value, info)


CachePath = Annotated[str, AfterValidator(_written)]
"""A folder that is written to: unlike a `LocalPath` it need not be there."""

JUDGED = ("complexity", "quality", "deita")
"""Scores that a judge gives; `deita` is the product of the other two."""

Band = Literal["never", "hard", "medium", "easy", "always"]
BANDS: tuple[Band, ...] = ("never", "hard", "medium", "easy", "always")


class Asked(Strict):
    """Whom to ask: a model folder or hub name, or with `endpoint` the model of that name behind an
    OpenAI-compatible server.

    `cache` is the folder that keeps a server's answers (default: beside the output); `requests` and
    `tokens` bound what the server may be asked, `at_once` and `per_second` how fast. `engine` says
    who answers for a model folder: this process, or servers that hold it.
    """

    model: ModelPath | None = None
    engine: FolderEngineRecipe = LOCAL
    endpoint: str | None = None
    cache: CachePath | None = None
    requests: int | None = Field(None, ge=1)
    tokens: int | None = Field(None, ge=1)
    at_once: int | None = Field(None, ge=1)
    per_second: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _server_is_asked(self) -> Self:
        if self.engine.kind != "local" and (self.model is None or self.endpoint is not None):
            raise ValueError("`engine` is for a model folder: give `model` and no `endpoint`")
        if self.endpoint is not None:
            if self.model is None:
                raise ValueError("`endpoint` needs `model`: the name by which the server knows it")
            return self
        for name in ("cache", "requests", "tokens", "at_once", "per_second"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"`{name}` is only read with `endpoint`: drop it, or name a server"
                )
        return self


class SampleSettings(Asked):
    """`samples` answers of a model to every prompt, written as rows."""

    model: ModelPath
    sampling: SamplingRecipe = SamplingRecipe()
    samples: int = Field(1, ge=1)
    seed: int = 0
    truncated: Literal["keep", "drop"] = "keep"

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        _expect_draws(self.samples, self.sampling)
        return self


class BandSettings(Asked):
    """Pass rates of `samples` answers to every task, and which bands of them are kept.

    An answer passes where the one component of `reward` gives at least `right`. Bands: `never`
    (none passes), `hard` (below `low`), `medium` (from `low` to `high`), `easy` (above `high`),
    `always` (all pass).
    """

    model: ModelPath
    reward: Rewards
    right: float = 1.0
    sampling: SamplingRecipe = SamplingRecipe()
    samples: int = Field(8, ge=2, le=512)
    low: float = Field(0.2, gt=0, lt=1)
    high: float = Field(0.8, gt=0, lt=1)
    keep: list[Band] = Field(["hard", "medium", "easy"], min_length=1)
    seed: int = 0

    @model_validator(mode="after")
    def _bands_stand(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"`low` {self.low:g} is above `high` {self.high:g}: swap them")
        if len(self.reward) > 1:
            raise ValueError(
                f"one component of `reward` decides whether an answer passes, and "
                f"{len(self.reward)} are given ({', '.join(one.label for one in self.reward)}): "
                "keep the one that tells right from wrong"
            )
        _expect_draws(self.samples, self.sampling)
        return self


def _expect_draws(samples: int, sampling: SamplingRecipe) -> None:
    if samples > 1 and sampling.temperature == 0:
        raise ValueError(
            f"at temperature 0 all {samples} samples are one: raise `sampling.temperature`"
        )


class SelectSettings(Asked):
    """The `keep` best records by a score, or the most diverse of them.

    `by` is `quality`, `complexity` or `deita` (asked of `model`), `ifd` (of a local `model`), or a
    column, which may be nested (`meta.score`); without a model the first four are columns too.
    `diverse` picks by k-centre greedy among the `pool` * `keep` best (among all without `by`), on
    TF-IDF or with `embeddings` on vectors of a model2vec folder.
    """

    keep: int = Field(ge=1)
    by: str | None = Field(None, min_length=1)
    order: Literal["highest", "lowest"] = "highest"
    diverse: bool = False
    pool: float | None = Field(None, ge=1)
    embeddings: LocalPath | None = None

    @model_validator(mode="after")
    def _options_are_read(self) -> Self:
        computed = self.by in (*JUDGED, "ifd")
        if self.by is None and not self.diverse:
            raise ValueError("nothing says which records are kept: give `by`, `diverse` or both")
        if self.model is not None and not computed:
            raise ValueError(
                f"`model` is only read by {', '.join(JUDGED)} and ifd, not by {self.by}: drop it"
            )
        if self.by == "ifd" and self.endpoint is not None:
            raise ValueError("ifd reads the likelihood of given answers, which no endpoint tells: "
                             "give a model folder")  # fmt: skip
        if self.by is None and self.order == "lowest":
            raise ValueError("`order` is only read with `by`: drop it")
        if self.pool is not None and not (self.by and self.diverse):
            raise ValueError("`pool` is only read with both `by` and `diverse`: drop it")
        if self.embeddings is not None and not self.diverse:
            raise ValueError("`embeddings` is only read with `diverse`: drop it, or set that")
        return self


class BalanceSettings(Strict):
    """Which bias is removed by leaving records out.

    `length`: of pairs, until the chosen answer is the longer one in half of them; of thumbs, until
    lengths are distributed alike under both labels. The AUC of length alone then lies within
    `tolerance` of 0.5. `label`: of thumbs, until there are at most `ratio` times as many of one
    label as of the other. `unit` is what lengths are counted in.
    """

    remove: Literal["length", "label"] = "length"
    unit: Literal["characters", "words"] | None = None
    tolerance: float | None = Field(None, ge=0, lt=0.5)
    ratio: float | None = Field(None, ge=1)
    seed: int = 0

    @model_validator(mode="after")
    def _options_are_read(self) -> Self:
        for name in ("unit", "tolerance") if self.remove == "label" else ("ratio",):
            if getattr(self, name) is not None:
                raise ValueError(f"`{name}` is not read with `remove: {self.remove}`: drop it")
        return self


class SplitSettings(Strict):
    """Fractions of the records that go to each part, none of it leaking into another.

    Records with the same prompt, with nearly the same one (unless `near` is off) or with the same
    value of the column `group` stay together. `by` keeps the shares of a column's values alike in
    all parts; `time` puts what is latest into the last parts. Columns may be nested (`meta.time`).
    """

    fractions: dict[Annotated[str, Field(pattern=r"^[\w-]+$")], Annotated[float, Field(gt=0)]] = (
        Field(default_factory=lambda: {"train": 0.8, "validation": 0.1, "test": 0.1})
    )
    by: str | None = None
    time: str | None = None
    group: str | None = None
    near: bool = True
    seed: int | None = None

    @field_validator("fractions")
    @classmethod
    def _are_shares(cls, given: dict[str, float]) -> dict[str, float]:
        if len(given) < 2:
            raise ValueError("a split has at least two parts, as in train=0.9,test=0.1")
        if abs(sum(given.values()) - 1) > 1e-6:
            raise ValueError(f"the fractions add up to {sum(given.values()):g}, not to 1")
        if {"dropped", "manifest"} & given.keys():
            raise ValueError("`dropped` and `manifest` are names of strop's own files: rename it")
        return given

    @model_validator(mode="after")
    def _options_are_read(self) -> Self:
        if self.time is not None and self.by is not None:
            raise ValueError("`time` orders the records and `by` draws them: give one of the two")
        if self.time is not None and self.seed is not None:
            raise ValueError("`seed` draws nothing where `time` orders the records: drop it")
        return self


class MixSettings(Strict):
    """Shares of the inputs in one mixed file of `rows` records, in the order of the inputs.

    They are relative (`7, 3` is `0.7, 0.3`). Without `rows` the file is as long as it can be with
    no record repeated.
    """

    shares: list[Annotated[float, Field(gt=0)]] = Field(min_length=1)
    rows: int | None = Field(None, ge=1)
    seed: int = 0


class MapSettings(Strict):
    """The user's own function of a row: `function` of the Python file `file`."""

    file: LocalPath
    function: str = Field(min_length=1)


class CleanSettings(Strict):
    """What is mended, replaced and left out.

    `pii` says what happens to personal data and secrets: `keep` does not look, `report` counts,
    `replace` writes placeholders, `drop` leaves the record out; `kinds` are those that are looked
    for (all unless given), `names` also persons and places (extra `presidio`, with the spaCy model
    `spacy_model`). `duplicates` leaves out what repeats an earlier record; `semantic` is the folder
    of a model2vec model, by which records that say the same in other words go, too (extra
    `semhash`). Answers have at least `least` and at most `most` of a `unit`. Refusals, disclaimers
    ("as an AI") and boilerplate openings are only looked for where they are to go: `strop data
    check` counts them. `against` are eval sets whose items must not be among the records.
    """

    pii: Literal["keep", "report", "replace", "drop"] = "report"
    kinds: list[str] | None = None
    names: bool = False
    spacy_model: str | None = None
    mend: bool = True
    damaged: Literal["keep", "drop"] = "drop"
    languages: list[str] = Field(default_factory=list)
    refusals: Literal["keep", "drop"] = "keep"
    disclaimers: Literal["keep", "drop"] = "keep"
    openings: Literal["keep", "strip"] = "keep"
    least: int | None = Field(None, ge=1)
    most: int | None = Field(None, ge=1)
    unit: Literal["characters", "words", "tokens"] | None = None
    tokenizer: ModelPath | None = None
    duplicates: Literal["keep", "exact", "near"] = "near"
    semantic: LocalPath | None = None
    threshold: float | None = Field(None, gt=0, le=1)
    against: list[LocalPath] = Field(default_factory=list)

    @model_validator(mode="after")
    def _options_are_read(self) -> Self:
        limited = self.least is not None or self.most is not None
        unread = {
            "kinds": self.pii == "keep" and self.kinds is not None,
            "names": self.pii == "keep" and self.names,
            "spacy_model": not self.names and self.spacy_model is not None,
            "threshold": self.semantic is None and self.threshold is not None,
            "unit": not limited and self.unit is not None,
            "tokenizer": self.unit != "tokens" and self.tokenizer is not None,
        }
        needs = {"kinds": "`pii`", "names": "`pii`", "spacy_model": "`names`",
                 "threshold": "`semantic`",
                 "unit": "`least` or `most`", "tokenizer": "`unit: tokens`"}  # fmt: skip
        for name, is_unread in unread.items():
            if is_unread:
                raise ValueError(f"`{name}` is only read with {needs[name]}: drop it, or set that")
        if self.unit == "tokens" and self.tokenizer is None:
            raise ValueError("a length in tokens needs `tokenizer`, a model folder")
        return self


class BuildSettings(Strict):
    """What signals become: the options of `strop data build` (docs/signals.md)."""

    source: str | None = None
    kinds: list[str] | None = Field(None, min_length=1)
    edit_min: float = Field(0.05, ge=0, le=1)
    edit_max: float = Field(0.7, ge=0, le=1)
    thumb: list[str] = Field(default_factory=list)
    verdict: list[str] = Field(default_factory=list)
    score: str | None = None
    infer_regenerations: bool = False
    all_prompts: bool = False
    balance_length: bool = True
    judge: LocalPath | None = None


class CheckSettings(Strict):
    """What a check looks at (docs/check.md): `eval` files that must not be among the records,
    columns of `annotators`, a `model` or the tokenizer of one, another `template`.
    `fail_on` is the severity of a finding from which the check fails."""

    eval: list[LocalPath] = Field(default_factory=list)
    annotators: list[str] = Field(default_factory=list)
    scale: Literal["nominal", "ordinal", "interval"] = "nominal"
    model: ModelPath | None = None
    tokenizer: ModelPath | None = None
    template: TemplatePath | None = None
    max_length: int = Field(2048, ge=2)
    preview: int = Field(3, ge=0)
    fail_on: Literal["warn", "error"] = "error"

    @model_validator(mode="after")
    def _one_tokenizer(self) -> Self:
        if self.model is not None and self.tokenizer is not None:
            raise ValueError("`model` brings its own tokenizer: drop `tokenizer`")
        return self
