"""Is a judge of the family of the model that it judges?"""

from __future__ import annotations

import re

from strop.errors import RewardError
from strop.model.load import load_config
from strop.recipe.judge import JudgeRecipe
from strop.recipe.loading.load import load


def family_of(path: str) -> str:
    """The letters of a model folder's architecture: `qwen` for `qwen3`, `llama`."""
    found = re.match(r"[a-z]+", str(load_config(path).get_text_config().model_type))
    return found[0] if found else ""


def expect_other_family(recipe: JudgeRecipe, policy: str, where: str) -> None:
    """Raise `RewardError` for a judge of the policy's own family that the recipe does not account
    for: judges prefer what they could have written (arXiv 2410.21819), and a policy that is trained
    on that learns to please its own kind.

    Folders are compared by architecture, a server's model by its name. Recorded answers have no
    family.
    """
    if recipe.panel is not None and recipe.same_family is None:
        for file in recipe.panel:
            expect_other_family(load(JudgeRecipe, file), policy, file)
    folder = recipe.model or recipe.reward_model
    own = family_of(policy)
    if folder is not None:
        same = family_of(folder) == own
    else:
        same = recipe.model_name is not None and own in recipe.model_name.lower()
    if same and recipe.same_family is None:
        raise RewardError(
            f"the judge is of the policy's own family ({own}), and judges prefer their own kind",
            where=where, fix="use another judge, or say under `same_family` why this one is right",
        )  # fmt: skip
