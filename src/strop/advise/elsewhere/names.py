"""The systems that a recipe can go to and come from, by the names that are typed."""

from __future__ import annotations

from typing import Literal, get_args

Target = Literal["trl", "axolotl", "llamafactory", "verl", "openrlhf", "unsloth"]
Origin = Literal["trl", "axolotl", "llamafactory"]

TARGETS: tuple[Target, ...] = get_args(Target)
ORIGINS: tuple[Origin, ...] = get_args(Origin)
