"""Planted copies among many generated rows are found, and templates are left alone."""

from __future__ import annotations

import pytest

from evidence.copies import apart, quality, rows
from strop.data.duplicates import words
from strop.data.near.find import find_repeats


def expect_found(figures: dict[str, float]) -> None:
    assert figures["recall_equal"] == 1.0
    assert figures["recall_triples"] >= 0.99
    assert figures["recall_words"] >= 0.99
    assert figures["precision"] >= 0.99


@pytest.mark.parametrize("seed", [0, 1])
def test_thirty_thousand_rows(seed: int) -> None:
    found = find_repeats(words(row.text) for row in rows(30_000, seed))
    expect_found(quality(found, rows(30_000, seed)))
    kinds = [row.kind for row in rows(30_000, seed)]
    templates = [n for n, kind in enumerate(kinds) if kind in ("numbers", "names")]
    assert len(templates) >= 2500
    assert all(found.first[n] == n for n in templates)


def test_the_planted_copies_are_as_alike_as_they_say() -> None:
    every = list(rows(3000, 0))
    for row in every:
        if row.kind in ("triples", "words") and row.original is not None:
            one, two = words(row.text), words(every[row.original].text)
            size = 3 if row.kind == "triples" else 1
            pieces = [{t[n : n + size] for n in range(len(t) - size + 1)} for t in (one, two)]
            shared, all_of = len(pieces[0] & pieces[1]), len(pieces[0] | pieces[1])
            assert (shared, all_of) == (16, 20)


@pytest.mark.slow
def test_a_million_rows_in_90_seconds_and_3_gib_and_growth_is_linear() -> None:
    """Seconds are of the processor: others may use this machine, too."""
    small, large = apart(100_000, 0), apart(1_000_000, 0)
    for figures in (small, large):
        expect_found(figures)
    assert large["cpu_s"] <= 90
    assert large["peak_MiB"] <= 3 * 1024
    assert large["cpu_s"] <= 14 * small["cpu_s"]
