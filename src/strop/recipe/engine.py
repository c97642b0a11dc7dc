"""Which engine answers for a model folder, where nothing is trained: what `engine:` holds in a
suite, a decoding study, a judge's file or the settings of a data verb."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from strop.recipe.train.engine import HoldersRecipe, LocalEngineRecipe

FolderEngineRecipe = Annotated[LocalEngineRecipe | HoldersRecipe, Field(discriminator="kind")]

LOCAL = LocalEngineRecipe()
