"""Who judges: what `judge:` holds in a recipe, a suite or a file of its own."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from strop.recipe.base import LocalPath, ModelPath, Strict
from strop.recipe.curate import CachePath
from strop.recipe.engine import LOCAL, FolderEngineRecipe
from strop.recipe.requests import RequestsRecipe
from strop.recipe.train.rollout import SamplingRecipe

Form = Literal["pairwise", "score", "criterion", "ranking"]
Reason = Annotated[str, Field(min_length=1)]

WHO = ("model", "url", "recorded", "reward_model", "panel")
Vote = Literal["majority", "weighted", "escalate"]


class JudgeRecipe(Strict):
    """One judge: a `model` folder or hub name, the model `model_name` behind an OpenAI-compatible
    `url`, a file of `recorded` answers, the folder of a `reward_model`, or a `panel` of such files.

    `engine` says who answers for a `model` folder: this process, or servers that hold it.

    It is asked in strop's words or in those of `templates` (a file for each form), greedily unless
    `sampling` says otherwise; `by_likelihood` reads its verdict from how likely each one is, and it
    gives no reasons. `requests` says how an endpoint is asked, and `cache` is a folder that keeps
    its answers.

    A panel joins its judges by `vote`: their majority (mean of scores and rankings), a vote that
    counts by what each one's card says of it, or an escalation, in which each keeps the pairs that
    it is sure enough of by its card and hands the rest to the next.

    `card` is the file that `strop judge calibrate` wrote of this judge. Training and gates refuse a
    judge without one unless `uncalibrated` says why, and a judge of the policy's own family unless
    `same_family` does.
    """

    model: ModelPath | None = None
    engine: FolderEngineRecipe = LOCAL
    url: str | None = None
    model_name: str | None = None
    recorded: LocalPath | None = None
    reward_model: ModelPath | None = None
    panel: list[LocalPath] | None = Field(None, min_length=2)
    vote: Vote = "majority"
    by_likelihood: bool = False
    templates: dict[Form, LocalPath] = Field(default_factory=dict)
    sampling: SamplingRecipe = SamplingRecipe(temperature=0.0, max_tokens=256)
    seed: int = Field(0, ge=0)
    requests: RequestsRecipe = RequestsRecipe()
    cache: CachePath | None = None
    card: LocalPath | None = None
    uncalibrated: Reason | None = None
    same_family: Reason | None = None

    @model_validator(mode="after")
    def _one_judge(self) -> Self:
        named = [name for name in WHO if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(
                f"{' and '.join(named)} name two judges: keep one" if named
                else f"who judges? give one of {', '.join(WHO)}"
            )  # fmt: skip
        if (self.url is None) != (self.model_name is None):
            raise ValueError("`url` and `model_name` belong together: give both")
        return self

    @model_validator(mode="after")
    def _all_is_read(self) -> Self:
        if self.url is None and (self.requests != RequestsRecipe() or self.cache is not None):
            raise ValueError("`requests` and `cache` are for an endpoint, and there is none")
        if self.model is None and self.engine.kind != "local":
            raise ValueError("`engine` is for a `model` folder, and there is none: drop it")
        if self.recorded is not None and self.by_likelihood:
            raise ValueError("recorded answers have no likelihoods: drop by_likelihood")
        if self.reward_model is not None and (self.templates or self.by_likelihood):
            raise ValueError("a reward model reads no words: drop templates and by_likelihood")
        if self.panel is None and self.vote != "majority":
            raise ValueError("`vote` is for a panel, and there is none: drop it")
        own = ("by_likelihood", "templates", "sampling", "seed")
        told = [name for name in own if name in self.model_fields_set]
        if self.panel is not None and told:
            raise ValueError(f"{', '.join(told)} belong into the files of the panel's judges")
        if "sampling" in self.model_fields_set and (
            self.by_likelihood or self.recorded is not None or self.reward_model is not None
        ):
            raise ValueError("nothing is sampled from this judge: drop `sampling`")
        if self.card is not None and self.uncalibrated is not None:
            raise ValueError("`uncalibrated` says why there is no card, and there is one: drop it")
        return self
