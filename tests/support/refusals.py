"""Odd bytes, and what a refusal of them has to say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from strop.errors import StropError
from tests.support.clocks import at_most

GOOD = b'{"prompt": "2x = 6", "completion": "x = 3"}\n'


RECIPE = """
method: sft
output: runs/sft
model: {path: model}
data: sft.jsonl
optim: {learning_rate: 1.0e-5}
run: {steps: 3, batch_size: 2}
"""


@contextmanager
def refused(error: type[StropError], message: str, *, seconds: float = 5.0) -> Iterator[None]:
    """The block raises this error in time, with these words, a place and a fix."""
    with at_most(seconds), pytest.raises(error, match=message) as caught:
        yield
    assert caught.value.where, "no place"
    assert caught.value.fix, "no fix"
