"""Models of one architecture -> one, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

import strop
from strop.errors import ModelError, UsageError
from strop.files import digest64, write_json, writing_folder
from strop.model.adapters import is_adapter_folder
from strop.model.blend.alike import expect_alike, expect_one_tokenizer, expect_plain
from strop.model.blend.formulas import dare, dare_ties, linear, slerp, soup, task_arithmetic, ties
from strop.model.blend.low_rank import LowRank, low_rank, write_sum
from strop.model.blend.settings import Settings
from strop.model.blend.tensors import Tensors, write_like
from strop.model.blend.trim import threshold
from strop.model.load import TOKENIZERS, weights_hash
from strop.model.stored import Stored, base_of, carry, expect_new, stored
from strop.registry.lineage import MADE, generations

Form = Literal["model", "adapter"]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the models: weights, and the adapter on them if it is one."""

    stored: Stored
    folder: Path
    weights: Tensors
    adapter: LowRank | None

    def tensor(self, name: str) -> torch.Tensor:
        """A weight in float32, with what the adapter adds."""
        tensor = self.weights.floating(name)
        if self.adapter is None:
            return tensor
        added = self.adapter.added(name, tensor.shape)
        return tensor if added is None else tensor + added

    def vector(self, name: str, base: Tensors) -> torch.Tensor:
        """What the model adds to the base in float32: for an adapter on exactly this base what it
        says, without the rounding of a difference."""
        if self.adapter is not None and self.weights.folder.resolve() == base.folder.resolve():
            shape = self.weights.places[name].shape
            added = self.adapter.added(name, shape)
            return torch.zeros(shape) if added is None else added
        return self.tensor(name) - base.floating(name)

    @property
    def described(self) -> Path:
        """The folder with its tokenizer: an adapter without one has its base's."""
        own = any(next(self.stored.folder.glob(kind), None) for kind in TOKENIZERS)
        return self.stored.folder if own else self.folder


@dataclass(frozen=True, slots=True)
class Blend:
    """A blend that can be made: checked, and nothing read but headers.

    `base` is the model that task vectors start from, `None` for a method without one. `notes` are
    sentences that a reader has to know.
    """

    sides: tuple[Side, ...]
    base: Stored | None
    settings: Settings
    form: Form
    notes: tuple[str, ...]

    def lineage(self, settings: Settings) -> dict[str, Any]:
        """What `lineage.json` says of a blend with these settings: all parents and their
        histories."""
        told = settings.plain()
        if self.base is not None:
            told["base"] = f"{self.base.name} {self.base.sha256}"
        return {
            "method": "blend",
            "settings": {"blend": told.pop("method"), **told},
            "code": {"strop": strop.__version__},
            "data": [],
            "parents": [side.stored.as_parent() for side in self.sides],
        }


@contextmanager
def checked_blend(
    models: Sequence[str],
    settings: Settings,
    *,
    base: str | None = None,
    form: Form = "model",
    registry: Path,
) -> Iterator[Blend]:
    """The blend of these models, checked. Raises `ModelError` for models that do not fit,
    `UsageError` for options that the method does not read."""
    if base is not None and not settings.kind.based:
        raise UsageError(f"{settings.method} reads no --base", fix="drop it")
    with ExitStack() as stack:
        found = [stack.enter_context(stored(which, registry)) for which in models]
        notes: list[str] = []
        sides = tuple(_side(one, notes) for one in found)
        _expect_different(sides)
        folders = [side.folder for side in sides]
        for folder in folders:
            expect_plain(folder)
        expect_alike(folders, models)
        if not expect_one_tokenizer([side.described for side in sides], models):
            notes.append(f"their chat templates differ: the blend has that of {models[0]}")
        below = None
        if settings.kind.based:
            given = None if base is None else stack.enter_context(stored(base, registry))
            below = given or _base(sides, notes)
            _expect_whole(below)
            expect_plain(below.folder)
            expect_alike([folders[0], below.folder], [models[0], below.name])
        _expect_form(form, sides, settings)
        yield Blend(sides, below, settings, form, tuple(notes))


def write_blend(blend: Blend, output: Path, settings: Settings | None = None) -> str:
    """Write the blend, whole or not at all; returns its weights hash. `settings` take the place of
    its own, at another point of a curve.

    Raises `OutputError` where something stands there already.
    """
    expect_new(output)
    used = settings or blend.settings
    with writing_folder(output) as folder:
        first = blend.sides[0]
        if blend.form == "adapter":
            adapters = [side.adapter for side in blend.sides if side.adapter is not None]
            write_sum(adapters, used.weights, folder)
        else:
            write_like(first.weights, folder, _maker(blend, used))
            carry(first.folder, folder)
        if first.adapter is not None:
            carry(first.stored.folder, folder)
        write_json(folder / MADE, blend.lineage(used))
    return weights_hash(output)


Maker = Callable[[str, torch.Tensor], torch.Tensor]


def _maker(blend: Blend, settings: Settings) -> Maker:
    """The function that makes each tensor of the blend. Tensors that are no floating-point numbers
    (a mask, a count) are the first model's, and have to be the same in all."""
    formula = _formula(blend, settings)

    def made(name: str, kept: torch.Tensor) -> torch.Tensor:
        if kept.is_floating_point():
            return formula(name)
        for side in blend.sides[1:]:
            if not torch.equal(side.weights.read(name), kept):
                raise ModelError(f"{name} holds no weights and differs from the first model's",
                                 where=side.stored.name)  # fmt: skip
        return kept

    return made


def _formula(blend: Blend, settings: Settings) -> Callable[[str], torch.Tensor]:
    sides, scales = blend.sides, settings.weights
    if blend.base is None:
        straight: Mapping[str, Callable[[list[torch.Tensor]], torch.Tensor]] = {
            "soup": soup,
            "linear": lambda tensors: linear(tensors, scales),
            "slerp": lambda tensors: slerp(tensors[0], tensors[1], scales[1]),
        }
        join = straight[settings.method]
        return lambda name: join([side.tensor(name) for side in sides])
    base = Tensors(blend.base.folder)
    density = settings.density or 1.0
    lows = _thresholds(sides, base, density) if settings.method == "ties" else ()
    Vectors = Sequence[torch.Tensor]
    based: Mapping[str, Callable[[str, torch.Tensor, Vectors], torch.Tensor]] = {
        "task_arithmetic": lambda name, w, vectors: task_arithmetic(w, vectors, scales),
        "ties": lambda name, w, vectors: ties(w, vectors, scales, lows),
        "dare": lambda name, w, vectors: dare(
            w, vectors, scales, 1 - density, _generators(settings, name)
        ),
        "dare_ties": lambda name, w, vectors: dare_ties(
            w, vectors, scales, 1 - density, _generators(settings, name)
        ),
    }
    add = based[settings.method]
    return lambda name: add(name, base.floating(name), [s.vector(name, base) for s in sides])


def _thresholds(sides: Sequence[Side], base: Tensors, density: float) -> list[float]:
    """For each model the size from which a value is among the kept share of its task vector."""
    names = [name for name, place in base.places.items() if place.dtype.is_floating_point]

    def parts_of(side: Side) -> Callable[[], Iterator[torch.Tensor]]:
        return lambda: (side.vector(name, base) for name in names)

    return [threshold(parts_of(side), density) for side in sides]


def _generators(settings: Settings, name: str) -> list[torch.Generator]:
    """One for each model; what it draws depends on the seed, the model's number and the weight's
    name alone."""
    seeds = [f"{settings.seed} {number} {name}" for number in range(len(settings.weights))]
    return [torch.Generator().manual_seed(digest64(seed) >> 1) for seed in seeds]


def _side(found: Stored, notes: list[str]) -> Side:
    if not is_adapter_folder(str(found.folder)):
        return Side(found, found.folder, Tensors(found.folder), None)
    folder, said = base_of(found, None)
    notes += said
    weights = Tensors(folder)
    return Side(found, folder, weights, low_rank(found.folder, weights))


def _expect_different(sides: Sequence[Side]) -> None:
    hashes = {side.stored.sha256 for side in sides}
    if len(hashes) == 1:
        raise ModelError("all these models have the same weights, so there is nothing to blend",
                         where=sides[-1].stored.name, fix="give another model")  # fmt: skip


def _expect_whole(below: Stored) -> None:
    if is_adapter_folder(str(below.folder)):
        raise ModelError("the base is an adapter", where=below.name,
                         fix="merge it first (strop merge), or give its base")  # fmt: skip


def _expect_form(form: Form, sides: Sequence[Side], settings: Settings) -> None:
    """Raise unless the result can have this form."""
    if form == "model":
        return
    if not settings.kind.straight:
        raise UsageError(
            f"{settings.method} is no weighted sum, so its result has no low rank",
            fix="use --as model, or a method that sums: linear, soup, task_arithmetic",
        )
    whole = [side.stored.name for side in sides if side.adapter is None]
    if whole:
        raise UsageError(f"{whole[0]} is a whole model, and an adapter is made of adapters alone",
                         fix="use --as model")  # fmt: skip
    bases = {side.folder.resolve() for side in sides}
    if len({weights_hash(base) for base in bases}) > 1:
        raise ModelError("the adapters belong to different bases", where=sides[-1].stored.name,
                         fix="use --as model")  # fmt: skip


def _base(sides: Sequence[Side], notes: list[str]) -> Stored:
    """Where no base is given: that of all adapters, else the nearest common ancestor of which the
    weights are still there, else the first model."""
    bases = {side.folder for side in sides}
    if len(bases) == 1:
        (folder,) = bases
        return Stored(folder, str(folder), weights_hash(folder), {"model": str(folder)})
    families = [
        [made.get("sha256") for made in generations(side.stored.as_parent())] for side in sides
    ]
    for made in reversed(generations(sides[0].stored.as_parent())):
        digest, folder = made.get("sha256"), Path(made["model"])
        shared = digest is not None and all(digest in family for family in families)
        there = folder.is_dir() and not is_adapter_folder(str(folder))
        if shared and there and weights_hash(folder) == digest:
            notes.append(f"the base is {folder}, the nearest model that all were trained from")
            return Stored(folder, str(folder), digest, {**made, "model": str(folder)})
    first = sides[0].stored
    notes.append(
        f"the base is {first.name}, the first model: no model is known that all were trained from "
        "(--base names one)"
    )
    return first
