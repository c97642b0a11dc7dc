"""strop: the last 20 % of a language model's quality.

The names in `__all__` are the public ones (docs/python.md); everything else may change.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from strop.api import evaluate, gate, load_recipe, promote, run, train
    from strop.errors import StropError
    from strop.results import (
        Curve,
        EvalResult,
        GateResult,
        Metrics,
        PromoteResult,
        RunResult,
        Table,
        TrainResult,
    )
    from strop.tracking.notebook import RunStory, show
    from strop.types import StepRecord

__version__ = "0.1.0"

_HOMES = {
    "strop.api": ("evaluate", "gate", "load_recipe", "promote", "run"),
    "strop.errors": ("StropError",),
    "strop.results": ("Curve", "EvalResult", "GateResult", "Metrics", "PromoteResult", "RunResult",
                      "Table", "TrainResult"),
    "strop.tracking.notebook": ("RunStory", "show"),
    "strop.types": ("StepRecord",),
}  # fmt: skip
"""Where the public names come from, but `train`: see `_Strop`. None is imported before it is used,
so that `import strop` and `strop --help` take no time."""

__all__ = [
    "Curve",
    "EvalResult",
    "GateResult",
    "Metrics",
    "PromoteResult",
    "RunResult",
    "RunStory",
    "StepRecord",
    "StropError",
    "Table",
    "TrainResult",
    "evaluate",
    "gate",
    "load_recipe",
    "promote",
    "run",
    "show",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "train":
        return importlib.import_module("strop.train")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'strop' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


class _CallableTrain(ModuleType):
    """The package `strop.train`, which is also the function: `strop.train(recipe)`."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return importlib.import_module("strop.api").train(*args, **options)

    @property
    def __wrapped__(self) -> Any:
        """The function itself: `inspect.signature` and notebooks read its arguments there."""
        return importlib.import_module("strop.api").train


class _Strop(ModuleType):
    """`strop` itself. `train` is the name of a function and of a package, and Python sets it to the
    package as soon as anything imports `strop.train.run`: from that moment on, in whatever order
    things are imported, the package can be called."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "train" and isinstance(value, ModuleType):
            value.__class__ = _CallableTrain
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Strop
