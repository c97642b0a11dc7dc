"""docs/check.md explains every finding, and none that is not there."""

from __future__ import annotations

import re

from strop.curate.check.families.features import FEATURES
from strop.curate.check.finding import CODES
from strop.curate.check.survey import SAMPLED
from tests.support import ROOT

PAGE = (ROOT / "docs/check.md").read_text()


def explained(page: str) -> set[str]:
    """Codes with a heading and at least a sentence below it."""
    return set(re.findall(r"^### `(\w+)`\n\w.{40,}", page, flags=re.M))


def test_every_code_is_explained_and_the_other_way_round() -> None:
    assert explained(PAGE) == set(CODES)
    assert explained(PAGE.replace("### `over_length`\n", "")) == set(CODES) - {"over_length"}
    assert explained(PAGE + "\n### `no_such_code`\n" + "word " * 20) - set(CODES)


def test_its_numbers_are_those_of_the_code() -> None:
    assert f"All {len(FEATURES)} are in the JSON" in PAGE
    assert f"{SAMPLED:,} records" in PAGE
