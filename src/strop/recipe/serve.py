"""The settings of `strop serve`: a YAML file, or the options of the command line."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from strop.recipe.base import LocalPath, ModelPath, Strict
from strop.recipe.curate import CachePath
from strop.recipe.train.engine import Address
from strop.recipe.train.reward import Rewards

Scope = Literal["serve", "feedback", "admin"]

LOOPBACK = ("127.0.0.1", "::1", "localhost")
Name = Annotated[str, Field(pattern=r"^[\w.@/-]{1,120}$")]
Share = Annotated[float, Field(gt=0, lt=1)]


class TokenRecipe(Strict):
    """Who may ask: `{name: app, env: APP_TOKEN, scopes: [serve, feedback]}`.

    The secret itself stands in the environment variable `env` or alone in the file `file`, never in
    the YAML. What one token asked and said is closed to the others.
    """

    name: Name
    env: str | None = None
    file: LocalPath | None = None
    scopes: list[Scope] = Field(["serve", "feedback"], min_length=1)

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError("give `env` or `file`: where the secret of this token stands")
        return self


class LimitsRecipe(Strict):
    """What one request and all together may take.

    `body_bytes` of a request's body, `tokens` of one answer (also where a request names no limit),
    `choices` of one request (of all its prompts, candidates that are not shown among them),
    `concurrency` answers at a time, `queue` requests that wait for their turn beyond those (a
    further one is told to come back), `seconds` for an answer, `drain_seconds`
    for what is under way when the server is told to end.
    """

    body_bytes: int = Field(1 << 20, ge=1024)
    tokens: int = Field(2048, ge=1)
    choices: int = Field(64, ge=1)
    concurrency: int = Field(64, ge=1)
    queue: int = Field(256, ge=0)
    seconds: float = Field(300.0, gt=0)
    drain_seconds: float = Field(30.0, ge=0)


class TrafficRecipe(Strict):
    """What is kept of requests, answers and feedback: JSONL files in `folder`.

    `share` of the conversations are kept, whole ones (feedback needs an answer that was kept).
    `personal_data`: `replace` puts placeholders in the place of personal values and leaves the
    token ids out, `drop` keeps nothing of an exchange that holds some, `keep` keeps all as it is.
    `days` is how long files are kept, `file_bytes` when a new one begins, `flush_seconds` how long
    a line may wait until it is on the disk together with others.
    """

    folder: CachePath
    share: float = Field(1.0, gt=0, le=1)
    personal_data: Literal["replace", "drop", "keep"] = "replace"
    days: float | None = Field(None, gt=0)
    file_bytes: int = Field(1 << 26, ge=1 << 12)
    flush_seconds: float = Field(0.02, ge=0, le=5)


class CanaryRecipe(Strict):
    """A new version that `share` of the users get in the place of `of`, until it is shown worse.

    Whoever is drawn stays with it. `entry` is what they get (a registry entry or a folder). Each
    user (or conversation) counts once, by the first `signal`: `thumb`, `edit` (an edited answer is
    0, a thumb up 1), or the name of a score with its `scale`. The canary is taken back when its
    mean is shown to be more than `margin` below the other's, with an error of at most `alpha`
    however often it is looked at.
    """

    entry: str
    of: Name | None = None
    share: Share = 0.1
    signal: str = Field("thumb", min_length=1)
    scale: tuple[float, float] = (0.0, 1.0)
    alpha: float = Field(0.05, gt=0, lt=0.5)
    margin: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _scale_is_read(self) -> Self:
        low, high = self.scale
        if low >= high:
            raise ValueError("`scale` is [lowest, highest] of the score")
        if self.signal in ("thumb", "edit") and self.scale != (0.0, 1.0):
            raise ValueError("`scale` is only read with the name of a score as `signal`: drop it")
        return self


class ShadowRecipe(Strict):
    """A version that answers `share` of the conversations of `of` as well, unseen; rewards compare
    the two answers where `rewards` names some of the server's."""

    entry: str
    of: Name | None = None
    share: Annotated[float, Field(gt=0, le=1)] = 0.1
    rewards: Name | None = None


class EngineRecipe(Strict):
    """Who draws the answers: this process (`local`), or a `vllm` or `sglang` at `url` that was
    started with the same model; it is asked `at_once` requests at a time, `seconds` for each."""

    kind: Literal["local", "vllm", "sglang"] = "local"
    url: Address | None = None
    at_once: int = Field(64, ge=1)
    seconds: float = Field(300.0, gt=0)

    @model_validator(mode="after")
    def _url_is_read(self) -> Self:
        if (self.kind == "local") != (self.url is None):
            raise ValueError("`url` goes with kind vllm or sglang, and those need it")
        return self


class ServedModel(Strict):
    """`{name: support, path: runs/dpo/final}`, or `{name: support, entry: support}` of the
    registry; with `follow` the name's promotions and rollbacks are picked up."""

    name: Name
    path: ModelPath | None = None
    entry: str | None = None
    follow: bool = False

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.entry is None):
            raise ValueError("give `path` (a model folder) or `entry` (of the registry)")
        if self.follow and self.entry is None:
            raise ValueError("`follow` is for an `entry`: a folder does not change")
        return self


class ServeRecipe(Strict):
    """What `strop serve` serves, to whom, and what it keeps."""

    models: list[ServedModel] = Field(min_length=1)
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65_535)
    registry: LocalPath | None = None
    engine: EngineRecipe = EngineRecipe()
    follow_seconds: float = Field(5.0, gt=0)
    tokens: list[TokenRecipe] = Field(default_factory=list)
    limits: LimitsRecipe = LimitsRecipe()
    traffic: TrafficRecipe | None = None
    rewards: dict[Name, Rewards] = Field(default_factory=dict)
    canary: CanaryRecipe | None = None
    shadow: ShadowRecipe | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        names = [model.name for model in self.models]
        if len(set(names)) < len(names):
            raise ValueError(f"`models`: two are called {_twice(names)}: rename one")
        callers = [token.name for token in self.tokens]
        if len(set(callers)) < len(callers):
            raise ValueError(f"`tokens`: two are called {_twice(callers)}: rename one")
        if self.host not in LOOPBACK and not self.tokens:
            raise ValueError(
                f"`host` is {self.host}: other machines may only ask with a token. Give `tokens`, "
                "or serve on 127.0.0.1"
            )
        if self.canary is not None and self.traffic is None:
            raise ValueError("a `canary` is judged by feedback: give `traffic.folder` to keep it")
        for part in (self.canary, self.shadow):
            if part is not None and (part.of or names[0]) not in names:
                raise ValueError(f"`of` is {part.of}, and the models are {', '.join(names)}")
        shadow = self.shadow
        if shadow is not None and shadow.rewards not in (None, *self.rewards):
            raise ValueError(f"`shadow.rewards` is {shadow.rewards}, which `rewards` does not have")
        return self


def _twice(names: list[str]) -> str:
    return next(name for name in names if names.count(name) > 1)
