"""When rollouts are sampled: between updates, or while updates are made."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from strop.recipe.base import Strict


class SynchronousRecipe(Strict):
    """Every step samples with the newest weights and waits for its answers."""

    kind: Literal["synchronous"] = "synchronous"


class AsynchronousRecipe(Strict):
    """Servers sample further steps' answers while the trainer updates.

    No token that is learnt from is older than `max_staleness` versions of the policy; 0 samples as
    the synchronous source does. `order` says which groups a step takes: `drawn` those of the next
    prompts, and waits for their longest answers; `ready` whichever are finished, so that a step
    waits for none, and groups that became too old in the meantime are dropped. That favours short
    answers.
    """

    kind: Literal["async"]
    max_staleness: int = Field(2, ge=0)
    order: Literal["drawn", "ready"] = "drawn"


SourceRecipe = Annotated[SynchronousRecipe | AsynchronousRecipe, Field(discriminator="kind")]
