"""What a blend is asked to be, checked before anything is read."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from strop.errors import UsageError

Method = Literal["linear", "slerp", "ties", "dare", "dare_ties", "task_arithmetic", "soup"]


@dataclass(frozen=True, slots=True)
class Kind:
    """What a method reads: `Kind(based=True, density=0.2)` needs a base, and keeps a fifth of what
    each model adds to it unless told otherwise."""

    based: bool = False
    density: float | None = None
    drawn: bool = False
    straight: bool = False
    """Whether the result is a weighted sum of the models, so that adapters stay an adapter."""


KINDS: dict[Method, Kind] = {
    "linear": Kind(straight=True),
    "soup": Kind(straight=True),
    "slerp": Kind(),
    "task_arithmetic": Kind(based=True, straight=True),
    "ties": Kind(based=True, density=0.2),
    "dare": Kind(based=True, density=0.1, drawn=True),
    "dare_ties": Kind(based=True, density=0.1, drawn=True),
}
"""Densities are those of the papers: TIES keeps 20 %, DARE drops 90 %."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`Settings("ties", weights=(0.5, 0.5), density=0.2, seed=None)`.

    `weights` has one number a model: its share of the whole (they sum to one) for a method without
    a base, the scale of what it adds to the base for the others.
    """

    method: Method
    weights: tuple[float, ...]
    density: float | None = None
    seed: int | None = None

    @property
    def kind(self) -> Kind:
        return KINDS[self.method]

    def plain(self) -> dict[str, Any]:
        """What was set, for the lineage and for JSON."""
        found = {"method": self.method, "weights": list(self.weights), "density": self.density,
                 "seed": self.seed}  # fmt: skip
        return {key: value for key, value in found.items() if value is not None}


def settle(
    method: str,
    weights: Sequence[float],
    models: int,
    *,
    density: float | None = None,
    seed: int | None = None,
) -> Settings:
    """The settings of a blend of so many models. Raises `UsageError` for a method that is not
    known, for options that it does not read, and for weights that do not fit.

    One weight is, without a base, the share of the second of two models; with a base it is the
    scale of every model. None are equal shares, or scales of 1.
    """
    known = next((name for name in KINDS if name == method), None)
    if known is None:
        near = difflib.get_close_matches(method, KINDS, 1)
        fix = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(KINDS)}"
        raise UsageError(f"there is no blending method {method!r}", fix=fix)
    kind = KINDS[known]
    if models < 2:
        raise UsageError("a blend is made of at least two models", fix="name another one")
    if method == "slerp" and models != 2:
        raise UsageError(f"slerp goes from one model to one other, and {models} are given",
                         fix="use --method linear")  # fmt: skip
    if density is not None and kind.density is None:
        raise UsageError(f"{method} keeps all values and reads no --density", fix="drop it")
    if density is not None and not 0 < density <= 1:
        raise UsageError(f"--density is {density:g}", fix="give a share above 0, of at most 1")
    if seed is not None and not kind.drawn:
        raise UsageError(f"{method} draws nothing and reads no --seed", fix="drop it")
    if method == "soup" and weights:
        raise UsageError("a soup is the mean of its models and reads no --weights",
                         fix="use --method linear for other weights")  # fmt: skip
    return Settings(
        known,
        _weights(kind, weights, models),
        kind.density if density is None else density,
        (0 if seed is None else seed) if kind.drawn else None,
    )


def _weights(kind: Kind, given: Sequence[float], models: int) -> tuple[float, ...]:
    if not all(map(math.isfinite, given)):
        raise UsageError("--weights holds what is no number", fix="give finite numbers")
    if kind.based:
        each = tuple(given) if given else (1.0,)
        each = each * models if len(each) == 1 else each
    elif len(given) == 1 and models == 2:
        each = (1 - given[0], given[0])
    else:
        each = tuple(given) if given else (1.0,) * models
    if len(each) != models:
        raise UsageError(
            f"--weights has {len(given)} numbers for {models} models",
            fix=f"give {'one, or ' if kind.based or models == 2 else ''}{models}, with commas",
        )
    if kind.based:
        return each
    total = math.fsum(each)
    if abs(total) < 1e-9:
        raise UsageError("--weights sum to 0, so nothing would be left of the models",
                         fix="give shares that sum to something, such as 0.3,0.7")  # fmt: skip
    return tuple(weight / total for weight in each)


def progression(text: str) -> tuple[float, ...]:
    """Numbers with commas between them; `...` goes on as the two before it began, up to the one
    behind it: `0,0.1,...,1` is 0, 0.1, 0.2 and so on up to 1. Raises `UsageError`."""
    parts = [part.strip() for part in text.split(",")]
    found: list[float] = []
    for place, part in enumerate(parts):
        if part not in ("...", "…"):
            found.append(_number(part, text))
            continue
        if len(found) < 2 or place + 1 == len(parts):
            raise UsageError(f"{text!r}: `...` stands between numbers",
                             fix="write it like 0,0.1,...,1")  # fmt: skip
        first, step = found[-1], found[-1] - found[-2]
        end = _number(parts[place + 1], text)
        count = round((end - first) / step) if step else 0
        if count < 1 or count > 1000 or abs(first + count * step - end) > 1e-6:
            raise UsageError(f"{text!r}: steps of {step:g} do not lead from {first:g} to {end:g}",
                             fix="write it like 0,0.1,...,1")  # fmt: skip
        found += [round(first + n * step, 10) for n in range(1, count)]
    return tuple(found)


def _number(part: str, text: str) -> float:
    try:
        found = float(part)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise UsageError(f"{text!r}: {part!r} is no number", fix="give numbers with commas between")
    return found
