"""Decoding studies: compare sampling more from the base with training."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from strop.recipe.base import Strict
from strop.recipe.engine import LOCAL, FolderEngineRecipe
from strop.recipe.train.data import Sources
from strop.recipe.train.reward import RewardComponent, Rewards
from strop.recipe.train.rollout import SamplingRecipe

Temperature = Annotated[float, Field(ge=0)]

Voting = Literal["answer", "text"]

PLACEHOLDERS = ("{prompt}", "{completion}", "{instruction}")

STATED = ("exact_answer", "math_answer")
"""Rewards whose completions end in an answer that can be voted on."""


class BestOf(Strict):
    """The reward that picks one of k answers; ties share.

    The grader itself may pick only with `oracle: true`. It knows the right answer, which is not
    available in production, so best-of-k is then the same as pass@k.
    """

    reward: Rewards
    oracle: bool = False


class Refine(Strict):
    """Show the model its own answer and ask again, `rounds` times.

    The first `answers` of an item's samples are refined, each on its own. A chat gets the answer
    as the assistant's turn and `instruction` as the next user turn; a text prompt becomes
    `template`, which holds {prompt}, {completion} and {instruction}.
    """

    rounds: int = Field(1, ge=1)
    answers: int = Field(1, ge=1)
    instruction: str = Field(
        "Check your answer step by step. Correct it where it is wrong, then give the final answer "
        "in the same form.",
        min_length=1,
    )
    template: str = "{prompt}{completion}\n\n{instruction}\n"

    @field_validator("template")
    @classmethod
    def _complete(cls, template: str) -> str:
        missing = [name for name in PLACEHOLDERS if name not in template]
        if missing:
            raise ValueError(f"the template lacks {' and '.join(missing)}: add what is missing")
        return template


class Study(Strict):
    """The tasks, their grading, and the ways of answering to compare.

    An answer is right where the first component of `scores` gives at least `right`. `samples`
    answers an item are drawn at every temperature above 0; one greedy answer an item is always
    drawn. `ks` defaults to the powers of two up to `samples`. `vote` says what maj@k counts: the
    final answer as `exact_answer` finds it (`answer`), or the whole text (`text`). By default
    exact_answer and math_answer vote by answer, and other rewards have no maj@k. `engine` says who
    answers for the model, `base_engine` for its base: this process, or servers that hold it.
    """

    data: Sources
    scores: Rewards
    right: float = 1.0
    serving_temperature: Temperature
    temperatures: list[Temperature] = Field(min_length=1)
    samples: int = Field(16, ge=1, le=512)
    ks: list[Annotated[int, Field(ge=1)]] = Field(default_factory=list)
    sampling: SamplingRecipe = SamplingRecipe()
    vote: Voting | None = None
    best_of: BestOf | None = None
    refine: Refine | None = None
    seed: int = 0
    engine: FolderEngineRecipe = LOCAL
    base_engine: FolderEngineRecipe = LOCAL

    @field_validator("temperatures")
    @classmethod
    def _serving_is_swept(cls, given: list[float], info: ValidationInfo) -> list[float]:
        serving = info.data.get("serving_temperature")
        if serving is not None and serving not in given:
            raise ValueError(f"what users get is not measured: add serving_temperature {serving:g}")
        if len(set(given)) < len(given):
            raise ValueError("a temperature appears twice: drop one")
        if max(given) == 0:
            raise ValueError(
                "temperature 0 gives the same answer every time, so there is nothing to sample: "
                "add one above 0 (a greedy answer is always measured)"
            )
        return given

    @field_validator("ks")
    @classmethod
    def _enough_samples(cls, given: list[int], info: ValidationInfo) -> list[int]:
        samples = info.data.get("samples")
        if samples is not None and given and max(given) > samples:
            raise ValueError(f"k = {max(given)} needs as many samples, there are {samples}: "
                             "raise samples or drop that k")  # fmt: skip
        if len(set(given)) < len(given):
            raise ValueError("a k appears twice: drop one")
        return given

    @field_validator("sampling")
    @classmethod
    def _one_home_of_temperature(cls, given: SamplingRecipe) -> SamplingRecipe:
        if "temperature" in given.model_fields_set:
            raise ValueError("a study samples at each of `temperatures`: drop sampling.temperature")
        return given

    @field_validator("best_of")
    @classmethod
    def _picker_is_no_grader(cls, given: BestOf | None, info: ValidationInfo) -> BestOf | None:
        scores = info.data.get("scores")
        if given is None or scores is None:
            return given
        grades = any(_same_function(component, scores[0]) for component in given.reward)
        if grades and not given.oracle:
            raise ValueError(
                f"{scores[0].label} grades the answers, and picking by it is pass@k: choose "
                "a reward that does not know the right answer, or say `oracle: true`"
            )
        if given.oracle and not grades:
            raise ValueError("oracle is true but none of the rewards is the grader: drop oracle")
        return given

    @model_validator(mode="after")
    def _refines_what_is_drawn(self) -> Self:
        if self.refine is not None and self.refine.answers > self.samples:
            raise ValueError(
                f"refine.answers is {self.refine.answers} but only {self.samples} samples are "
                "drawn: lower it or raise samples"
            )
        return self

    @model_validator(mode="after")
    def _several_to_choose_from(self) -> Self:
        for name in ("vote", "best_of"):
            if getattr(self, name) is not None and not self.counts:
                raise ValueError(f"{name} chooses among several answers: raise samples or ks")
        return self

    @property
    def counts(self) -> list[int]:
        """The k above 1, in rising order (k = 1 is always measured)."""
        powers = [2**e for e in range(1, self.samples.bit_length()) if 2**e <= self.samples]
        return sorted(k for k in self.ks or powers if k > 1)

    @property
    def voting(self) -> Voting | None:
        """What maj@k counts; `None` if it is not measured."""
        grader = self.scores[0]
        stated = grader.function in STATED and grader.file is None and grader.url is None
        return self.vote or ("answer" if stated else None)


def _same_function(one: RewardComponent, other: RewardComponent) -> bool:
    """Whether two components give the same values, whatever their names and weights."""
    drop = {"name", "weight", "gate", "optional", "clip", "normalize"}
    return one.model_dump(exclude=drop) == other.model_dump(exclude=drop)
