"""The name that was probably meant."""

from __future__ import annotations

from strop.text.nearest import did_you_mean


def test_the_nearest_name_is_asked_about_and_a_far_one_is_not() -> None:
    known = ("random", "perfect", "sft")
    assert did_you_mean("randm", known) == "did you mean 'random'? "
    assert did_you_mean("stf", iter(known)) == "did you mean 'sft'? "
    assert did_you_mean("alpha", known) == did_you_mean("", known) == ""
