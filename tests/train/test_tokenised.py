"""Tokenised records on the disk: the same run as in memory, written once and reused."""

from __future__ import annotations

import errno
import gc
import json
import os
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strop.errors import DataError, OutputError
from strop.files import locked
from strop.recipe.loading.load import load_recipe
from strop.text.store import CARD, StoredTrees, StoreWriter
from strop.train.preflight import tokenised
from strop.train.preflight.prepare import prepare
from strop.train.preflight.prepared import PreparedOffline
from strop.train.preflight.tokenised import KEPT_DAYS, TREES, cache_folder
from strop.train.run import train
from tests.support.runs import Finished, break_off, final_weights, metrics, same, write_jsonl

pytestmark = pytest.mark.filterwarnings("ignore:.*tokenising:UserWarning")

ALWAYS = "text.cache=always"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("STROP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


def prepared(recipe: Path, *options: str, dry_run: bool = False) -> PreparedOffline:
    loaded = load_recipe(recipe, [ALWAYS, *options])
    found = prepare(loaded, resume=False, overwrite=True, force=True, dry_run=dry_run)
    assert isinstance(found, PreparedOffline)
    return found


def on_disk(found: PreparedOffline) -> bool:
    return isinstance(found.rendered.trees, StoredTrees)


class TestTheRunIsTheSame:
    @pytest.mark.parametrize("method", ["cpt", "sft", "dpo", "kto", "reward_model"])
    def test_bit_for_bit(
        self, recipes: dict[str, Path], finished: Finished, cache: Path, method: str
    ) -> None:
        """Metrics of training and of held-out records, and the weights; written, then reused."""
        more = ["objective.margin=margin"] if method == "reward_model" else []
        in_memory = finished(method, *more)
        for name in ("written", "reused"):
            recipe = load_recipe(recipes[method], [f"output={name}", ALWAYS, *more])
            run = train(recipe, force=True).parent
            assert metrics(run) == metrics(in_memory)
            assert same(final_weights(run), final_weights(in_memory))
            assert (run / "samples.jsonl").read_text() == (in_memory / "samples.jsonl").read_text()
        sources = 1 if method == "cpt" else 2  # the others look at held-out records as well
        assert len(list(cache.iterdir())) == sources

    def test_demonstrations_that_are_replayed(self, recipes: dict[str, Path], cache: Path) -> None:
        mixed = "data=[{path: pairs.jsonl, weight: 0.5}, {path: sft.jsonl, weight: 0.5}]"
        left, right = (
            train(load_recipe(recipes["dpo"], [mixed, f"output={where}", f"text.cache={where}"]),
                  force=True).parent
            for where in ("never", "always")
        )  # fmt: skip
        assert metrics(left) == metrics(right)
        assert same(final_weights(left), final_weights(right))

    @pytest.mark.parametrize(
        ("method", "first", "then"),
        [("sft", "always", "never"), ("dpo", "always", "always"), ("kto", "never", "always")],
    )
    def test_broken_off_and_gone_on_with(
        self, recipes: dict[str, Path], finished: Finished, method: str, first: str, then: str
    ) -> None:
        """Where tokens are kept may change in between: it is no part of what a run is."""
        break_off(load_recipe(recipes[method], [f"text.cache={first}"]), 3, force=True)
        gone_on = load_recipe(recipes[method], [f"text.cache={then}"])
        run = train(gone_on, resume=True, force=True).parent
        assert metrics(run) == metrics(finished(method))
        assert same(final_weights(run), final_weights(finished(method)))

    def test_small_data_stays_in_memory(
        self, recipes: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Data, replayed and held-out sources are counted together."""
        size = sum((recipes["sft"].parent / "sft.jsonl").stat().st_size for _ in range(2))
        monkeypatch.setattr(tokenised, "OUTGROWN", size + 1)
        assert not on_disk(prepared(recipes["sft"], "text.cache=auto"))
        assert not cache.exists()
        monkeypatch.setattr(tokenised, "OUTGROWN", size)
        assert on_disk(prepared(recipes["sft"], "text.cache=auto"))
        assert not on_disk(prepared(recipes["sft"], "text.cache=never"))


def rendering_fails(*_: Any, **__: Any) -> Any:
    raise AssertionError("it is tokenised again")


class TestReuse:
    def test_nothing_is_tokenised_again_and_that_is_said(
        self, recipes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.warns(UserWarning, match=r"sft.jsonl: tokenising .* the next run reuses"):
            first = prepared(recipes["sft"])
        monkeypatch.setattr("strop.train.preflight.sources.render_into", rendering_fails)
        again = prepared(recipes["sft"])
        assert "reused" not in first.checks["tokenised"]
        assert "MiB on disk, reused" in again.checks["tokenised"]
        assert list(again.rendered.trees) == list(first.rendered.trees)
        assert again.rendered.tally == first.rendered.tally
        before, after = ({**one.checks, "tokenised": ""} for one in (first, again))
        assert before == after

    @pytest.mark.parametrize(
        "option",
        ["text.max_length=40", "text.overlong=cut", "text.date=2026-02-03", "chat_template=chatml",
         "text.end_of_turn='<|user|>'", "data={path: sft.jsonl, limit: 9}",
         "data={path: sft.jsonl, max_bad: 0.5}"],
    )  # fmt: skip
    def test_what_is_rendered_otherwise_is_another_source(
        self, recipes: dict[str, Path], cache: Path, option: str
    ) -> None:
        prepared(recipes["sft"], "eval=null")
        prepared(recipes["sft"], "eval=null", option)
        assert len(list(cache.iterdir())) == 2

    def test_other_bytes_are_another_source(self, recipes: dict[str, Path], cache: Path) -> None:
        data = recipes["sft"].parent / "sft.jsonl"
        before = prepared(recipes["sft"], "eval=null")
        rows = data.read_text().splitlines()
        data.write_text("\n".join(reversed(rows)) + "\n")
        after = prepared(recipes["sft"], "eval=null")
        assert list(after.rendered.trees) == list(before.rendered.trees)[::-1]
        data.write_text("\n".join(rows) + "\n")
        assert "reused" in prepared(recipes["sft"], "eval=null").checks["tokenised"]
        assert len(list(cache.iterdir())) == 2

    def test_what_was_left_out_is_told_again(
        self, recipes: dict[str, Path], tmp_path: Path
    ) -> None:
        """Bad rows and long ones, with their lines, in the checks and in `dropped.jsonl`."""
        rows = [{"prompt": f"{n}x = 6", "completion": "x = 6"} for n in range(20)]
        rows[3]["completion"], rows[7]["completion"] = " ", "x = 12345678" * 20
        data = write_jsonl(tmp_path / "dirty.jsonl", rows)
        source = f"data={json.dumps({'path': str(data), 'max_bad': 0.1})}"
        options = ["eval=null", "run.steps=1", ALWAYS, source]
        left, right = (
            train(load_recipe(recipes["sft"], [f"output={name}", *options]), force=True).parent
            for name in ("left", "right")
        )
        told = [json.loads(line) for line in (right / "dropped.jsonl").read_text().splitlines()]
        assert [(row["line"], row["kind"]) for row in told] == [(4, "empty"), (8, "too_long")]
        assert (left / "dropped.jsonl").read_text() == (right / "dropped.jsonl").read_text()
        (before,), (after,) = (prepared(recipes["sft"], *options).sources for _ in range(2))
        assert before.plain() == after.plain()
        assert list(before.dropped) == list(after.dropped)

    def test_a_lower_share_is_not_met_by_what_was_kept(
        self, recipes: dict[str, Path], tmp_path: Path
    ) -> None:
        rows = [{"prompt": f"{n}x = 6", "completion": "x = 6" if n else " "} for n in range(20)]
        data = write_jsonl(tmp_path / "dirty.jsonl", rows)
        dirty = {"path": str(data), "max_bad": 0.1}
        prepared(recipes["sft"], "eval=null", f"data={json.dumps(dirty)}")
        with pytest.raises(DataError, match=r"dirty.jsonl:1: .*empty"):
            prepared(recipes["sft"], "eval=null", f"data={json.dumps({**dirty, 'max_bad': 0.01})}")


class TestBroken:
    @pytest.mark.parametrize("name", ["tokens.bin", "records.jsonl", CARD])
    def test_a_torn_one_is_written_again(
        self, recipes: dict[str, Path], cache: Path, name: str
    ) -> None:
        first = list(prepared(recipes["sft"], "eval=null").rendered.trees)
        (place,) = cache.iterdir()
        file = place / TREES / name
        file.write_bytes(file.read_bytes()[:-3])
        again = prepared(recipes["sft"], "eval=null")
        assert "reused" not in again.checks["tokenised"]
        assert list(again.rendered.trees) == first
        assert "reused" in prepared(recipes["sft"], "eval=null").checks["tokenised"]

    def test_one_that_was_broken_off(
        self, recipes: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What a killed run left of it is no store, and goes when it is written again."""
        prepared(recipes["sft"], "eval=null")
        (place,) = cache.iterdir()
        (place / TREES).rename(place / f".{TREES}.tmp")
        (place / f".{TREES}.tmp" / CARD).unlink()
        assert "reused" not in prepared(recipes["sft"], "eval=null").checks["tokenised"]
        assert [file.name for file in place.iterdir()] == [TREES]

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
    def test_a_disk_that_takes_no_more(
        self, recipes: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        def full(*_: Any, **__: Any) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(StoreWriter, "finish", full)
        with pytest.raises(OutputError, match=f"{os.strerror(code)}\n  fix: .*STROP_CACHE") as told:
            prepared(recipes["sft"])
        assert str(cache) in str(told.value)
        assert not list(cache.rglob("*.bin"))

    def test_data_that_is_refused_leaves_nothing(
        self, recipes: dict[str, Path], cache: Path, tmp_path: Path
    ) -> None:
        data = write_jsonl(tmp_path / "none.jsonl", [{"prompt": "2x = 6", "completion": " "}] * 9)
        with pytest.raises(DataError, match="empty"):
            prepared(recipes["sft"], "eval=null", f"data={data}")
        assert not list(cache.rglob("*.bin"))


class TestWhere:
    def test_a_dry_run_keeps_nothing(self, recipes: dict[str, Path], cache: Path) -> None:
        """Its trees can be read all the same, and what is there already is used."""
        with pytest.warns(UserWarning, match="which a dry run does not keep"):
            dry = prepared(recipes["sft"], "eval=null", dry_run=True)
        assert not list(cache.iterdir())
        kept = prepared(recipes["sft"], "eval=null")
        assert list(dry.rendered.trees) == list(kept.rendered.trees)
        assert list(dry.rendered.records) == list(kept.rendered.records)
        again = prepared(recipes["sft"], "eval=null", dry_run=True)
        assert "reused" in again.checks["tokenised"]

    def test_the_folder(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        assert cache_folder() == tmp_path / "cache"
        monkeypatch.delenv("STROP_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
        assert cache_folder() == Path("/caches/strop")
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", "/home/ada")
        assert cache_folder() == Path("/home/ada/.cache/strop")
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
        with pytest.raises(OutputError, match="no home folder"):
            cache_folder()

    def test_two_runs_at_once_tokenise_once(
        self, recipes: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The second waits until the first has written its folder."""
        monkeypatch.setattr(tokenised, "WAIT", 0.01)
        prepared(recipes["sft"], "eval=null")
        (place,) = cache.iterdir()
        (place / TREES).rename(cache.parent / "aside")
        found: list[PreparedOffline] = []
        other = threading.Thread(target=lambda: found.append(prepared(recipes["sft"], "eval=null")))
        with locked(place):
            other.start()
            other.join(0.5)
            assert other.is_alive()
            (cache.parent / "aside").rename(place / TREES)
        other.join(60)
        assert "reused" in found[0].checks["tokenised"]

    def test_what_nobody_used_for_long_goes(self, recipes: dict[str, Path], cache: Path) -> None:
        """When another source is written; what was reused since stays."""
        for limit in (5, 6, 7):
            prepared(recipes["sft"], "eval=null", f"data={{path: sft.jsonl, limit: {limit}}}")
        long_ago = time.time() - (KEPT_DAYS + 1) * 86400
        for place in cache.iterdir():
            os.utime(place / TREES / CARD, (long_ago, long_ago))
        kept = prepared(recipes["sft"], "eval=null", "data={path: sft.jsonl, limit: 6}")
        prepared(recipes["sft"], "eval=null", "data={path: sft.jsonl, limit: 8}")
        assert len(list(cache.iterdir())) == 2
        again = prepared(recipes["sft"], "eval=null", "data={path: sft.jsonl, limit: 6}")
        assert "reused" in again.checks["tokenised"]
        assert len(kept.rendered.trees) == 6


def peak(prepare_it: Callable[[], PreparedOffline]) -> tuple[int, int]:
    """Bytes that Python holds at most while a run is prepared and every tree is read, and the
    number of trees."""
    gc.collect()
    tracemalloc.start()
    try:
        found = prepare_it()
        read = sum(1 for tree in found.rendered.trees if tree.branches)
        return tracemalloc.get_traced_memory()[1], read
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_text(
    recipes: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight times the text costs as much as once, where in memory it costs several times more."""
    monkeypatch.setattr("strop.text.render.AT_ONCE", 32)
    monkeypatch.setattr("strop.text.render.REMEMBERED", 1 << 12)
    monkeypatch.setattr("strop.text.store.AT_ONCE", 1 << 10)
    grown: dict[str, list[int]] = {}
    for where in ("always", "never"):
        for times in (1, 8):
            rows = (
                {"prompt": f"{n}x = 6", "completion": f"x = {n}" * 8} for n in range(500 * times)
            )
            data = write_jsonl(tmp_path / f"{times}.jsonl", list(rows))
            options = ["eval=null", f"data={data}", f"text.cache={where}"]
            held, read = peak(lambda: prepared(recipes["sft"], *options))  # noqa: B023
            assert read == 500 * times
            grown.setdefault(where, []).append(held)
    small, large = grown["always"]
    assert large - small < 300_000
    small, large = grown["never"]
    assert large - small > 3_000_000
