"""The verbs of `strop data` as Python: what each takes, and what does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from strop.curate.balance import balance
from strop.curate.check.stage import check_stage
from strop.curate.clean.clean import clean
from strop.curate.difficulty.band import band
from strop.curate.difficulty.select import select
from strop.curate.mapping import map_records
from strop.curate.mix import mix
from strop.curate.sample import sample
from strop.curate.signals.build import build_stage
from strop.curate.split import split
from strop.curate.synthetic.stage import STAGES
from strop.recipe.base import Strict
from strop.recipe.curate import (
    BalanceSettings,
    BandSettings,
    BuildSettings,
    CheckSettings,
    CleanSettings,
    MapSettings,
    MixSettings,
    SampleSettings,
    SelectSettings,
    SplitSettings,
)


class Report(Protocol):
    """What a verb says of what it did."""

    @property
    def sentence(self) -> str:
        """On one line, for a person."""

    def plain(self) -> dict[str, Any]:
        """For JSON."""


@dataclass(frozen=True, slots=True)
class Verb:
    """`Verb(SplitSettings, split)`: a verb's options, and
    `run(inputs, output, settings, overwrite=False) -> Report`, which writes to `output` whole or
    not at all; the inputs are data sources, the output a path, or `None` to write nothing."""

    settings: type[Strict]
    run: Callable[..., Report]


VERBS: Mapping[str, Verb] = {
    "build": Verb(BuildSettings, build_stage),
    "clean": Verb(CleanSettings, clean),
    "check": Verb(CheckSettings, check_stage),
    "select": Verb(SelectSettings, select),
    "band": Verb(BandSettings, band),
    "balance": Verb(BalanceSettings, balance),
    "split": Verb(SplitSettings, split),
    "map": Verb(MapSettings, map_records),
    "mix": Verb(MixSettings, mix),
    "sample": Verb(SampleSettings, sample),
    **{name: Verb(settings, run) for name, (settings, run) in STAGES.items()},
}
"""By the name that follows `strop data`; a `data` stage of a pipeline takes any of them."""
