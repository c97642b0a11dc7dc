"""The benchmark itself: equal work is checked, unequal work stops it, and its counts are right."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks import __main__ as bench
from benchmarks.cases import (
    CASES,
    REAL,
    REAL_VOCABULARY,
    SHAPES,
    STROP,
    TRL_VERSION,
    Case,
    Entrant,
    Run,
    rivals,
)
from benchmarks.duel import (
    Absent,
    Fighter,
    Result,
    Unfair,
    _agree,
    _keep,
    _round,
    _round_one,
    _same_losses,
    fight,
)
from benchmarks.growth import slope
from benchmarks.limit import sampling_flops, training_flops, work_of
from benchmarks.make import make_here
from benchmarks.ours import StropSampler, StropTrainer, recipe_of
from benchmarks.shares import KINDS, Share, share_of, spent_by_kind
from benchmarks.shares import markdown as share_table
from benchmarks.sides import Batch, Place, Step
from benchmarks.table import cells, fill, markdown_table, remember, row_of, text_table
from benchmarks.worker import Order, Told
from benchmarks.world import even_words, word_tokenizer
from strop.data.records import preference as pair
from strop.engines.local.engine import LocalEngine
from strop.text.render import preference_tree
from strop.types import Branch, Origin, Tree

SHORT = Case("short", "dpo", (5, 9), (3, 8), 4)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES, "1m", replace(SHAPES["1m"], hidden=32, layers=2, intermediate=48))


def made(run: Run, folder: Path) -> Place:
    folder.mkdir(parents=True, exist_ok=True)
    make_here(run, folder)
    place = Place(folder, folder / "scratch")
    place.scratch.mkdir(exist_ok=True)
    return place


def test_a_text_is_as_many_tokens_as_it_was_asked_for(tmp_path: Path) -> None:
    run = Run(SHORT, "1m", 300, 3)
    place = made(run, tmp_path / "run")
    side = StropTrainer(run, STROP, place)
    side.load()
    assert side.prepared.rendered is not None
    trees = side.prepared.rendered.trees
    assert len(trees) == 3 * 4
    assert {len(t.trunk) for t in trees} <= set(range(5, 10))
    lengths = {len(b.ids) for t in trees for b in t.branches}
    assert lengths <= set(range(3, 9))
    assert len(lengths) > 3
    end = word_tokenizer(300).eos_token_id
    assert all(b.ids[-1] == end for t in trees for b in t.branches)


def test_random_answers_end_by_themselves(tmp_path: Path) -> None:
    run = Run(Case("ends", "sampler", (5, 9), (1, 100), 200, 2), "1m", 500, 1)
    place = made(run, tmp_path / "run")
    seen: list[Step] = []
    side = StropSampler(run, STROP, place)
    side.load()
    side.run(lambda describe: seen.append(describe()))
    # geometric with mean 40, cut at 100: (1 - (1 - 1/40)^100) / (1/40) = 36.8
    assert seen[0].tokens / 400 == pytest.approx(36.8, rel=0.12)


def test_flops_of_a_pair_by_hand(tmp_path: Path) -> None:
    run = Run(SHORT, "1m", 300, 1)
    place = made(run, tmp_path / "run")
    model = AutoModelForCausalLM.from_pretrained(place.model)
    work = work_of(model)
    shape = SHAPES["1m"]
    wide, narrow = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    a_layer = 32 * wide + 2 * 32 * narrow + wide * 32 + 3 * 32 * 48
    assert work.linear == 2 * 2 * a_layer
    assert work.head == 2 * 32 * 300
    # scores and weighted values: two products of two operations for each head and layer
    assert work.attention == 4 * wide * 2
    tree = Tree((1, 2, 3), (Branch((4, 5), (True, True)), Branch((6,), (True,))))
    # pairs: trunk 1+2+3, first branch 4+5, second 4
    forward = work.linear * 6 + work.head * 3 + work.attention * (6 + 9 + 4)
    assert training_flops(work, [tree]) == 3 * forward
    # the prompt once, and every token of the two answers
    sampled = work.linear * 6 + work.head * 4 + work.attention * (6 + 9 + 4)
    assert sampling_flops(work, [(3, [2, 1])]) == sampled


def test_both_sides_are_told_the_same_records(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    from benchmarks.theirs import TrlTrainer

    run = Run(SHORT, "1m", 300, 3)
    place = made(run, tmp_path / "run")
    side = StropTrainer(run, STROP, place)
    side.load()
    assert side.prepared.rendered is not None
    tokenizer = AutoTokenizer.from_pretrained(place.model)
    rows = TrlTrainer(run, rivals(run.case)[0], place).rows()
    for step in range(3):
        drawn = side.prepared.mixture.draw(step).own
        for row, i in zip(rows[4 * step : 4 * step + 4], drawn, strict=True):
            answer = row["chosen"][0]["content"]
            ids = tokenizer(answer)["input_ids"]
            assert (*ids, tokenizer.eos_token_id) == side.prepared.rendered.trees[i].branches[0].ids


def test_the_reward_of_random_answers() -> None:
    assert even_words(["w3 w5", "w3 w4 <|end|>", ""]) == [1.0, 0.0, 1.0]
    assert even_words([[{"role": "assistant", "content": "w1"}]]) == [0.0]


def told(name: str, seconds: list[float], losses: list[float]) -> Fighter:
    """A side that has done these steps."""
    steps = [
        Told(Step(loss=loss, grad_norm=2.0, tokens=10, flops=4e9), spent, 2**30)
        for loss, spent in zip(losses, seconds, strict=True)
    ]
    system: Any = "strop" if name == "strop" else "trl"
    link: Any = None
    process: Any = type("Dead", (), {"is_alive": lambda self: False})()
    fighter = Fighter(Entrant(name, system), link, process, Path("none"))
    fighter.link = type("Link", (), {"close": lambda self: None})()  # type: ignore[assignment]
    fighter.told = steps
    return fighter


def test_unequal_first_steps_are_unfair() -> None:
    ours = Step(loss=0.693, grad_norm=4.0)
    assert "0.693" in _agree("plain", ours, Step(loss=0.693, grad_norm=4.0))
    with pytest.raises(Unfair, match="do not compute the same step"):
        _agree("plain", ours, Step(loss=0.695, grad_norm=4.0))
    # at step 1 DPO's loss is log 2 whatever the data: the gradient tells
    with pytest.raises(Unfair, match="gradient norm 4"):
        _agree("plain", ours, Step(loss=0.693, grad_norm=3.9))
    with pytest.raises(Unfair):
        _agree("plain", Step(loss=float("nan"), grad_norm=4.0), ours)


def test_losses_that_part_later_are_unfair() -> None:
    run = Run(SHORT, "1m", 300, 3)
    ours = told("strop", [1, 1, 1], [0.7, 0.6, 0.5])
    _same_losses(run, [ours, told("plain", [2, 2, 2], [0.7, 0.601, 0.5])])
    with pytest.raises(Unfair, match="losses of strop and TRL"):
        _same_losses(run, [ours, told("plain", [2, 2, 2], [0.7, 0.6, 0.55])])


def test_only_the_fastest_setting_goes_on() -> None:
    sides = [
        told("strop", [9, 9, 1, 1], [1.0] * 4),
        told("defaults", [9, 9, 3, 3], [1.0] * 4),
        told("plain", [1, 1, 4, 4], [1.0] * 4),
        told("4 forwards", [9, 9, 2, 2], [1.0] * 4),
    ]
    _keep(sides, 2.0)  # 8 s are within twice 4
    assert [f.entrant.name for f in sides] == ["strop", "defaults", "plain", "4 forwards"]
    _keep(sides, 1.0)
    assert [f.entrant.name for f in sides] == ["strop", "defaults", "4 forwards"]
    early = [told("strop", [9], [1.0]), told("defaults", [1], [1.0]), told("plain", [3], [1.0])]
    _keep(early, 2.0)
    assert [f.entrant.name for f in early] == ["strop", "defaults"]


def result(**more: Any) -> Result:
    seconds = {"strop": [1.0, 2.0, 1.0], "defaults": [4.0, 6.0, 5.0], "plain": [2.0, 6.0, 2.5]}
    usual: dict[str, Any] = {
        "run": Run(CASES["dpo"], "1m", 4096, 5), "best": "plain", "seconds": seconds,
        "tokens": {}, "peaks": {"strop": 1000, "defaults": 4000, "plain": 2000}, "loaded": {},
        "absent": {}, "utilisation": {"strop": 0.4, "plain": 0.2, "defaults": 0.1}, "rate": 1e11,
        "checked": "",
    }  # fmt: skip
    return Result(**{**usual, **more})


def test_ratios_are_taken_round_by_round() -> None:
    found = result()
    assert found.ratios("plain") == [2.0, 3.0, 2.5]
    assert found.ratio("plain") == 2.5  # the ratio of the medians would be 2.5 / 1
    assert result(seconds={**found.seconds, "plain": [8.0, 2.0, 3.0]}).ratio("plain") == 3.0
    assert found.memory == 0.5


def test_the_table_fits_and_the_page_is_filled(tmp_path: Path) -> None:
    row = row_of(result())
    assert "2.50 (2.00-3.00)" in cells(row)
    assert "0.40/0.20" in cells(row)
    long = row_of(result(run=Run(CASES["sampler-short"], "60m", 151936, 5), best="plain"))
    assert max(map(len, text_table([row, long]).splitlines())) <= 100
    page = tmp_path / "page.md"
    page.write_text("# Title\n<!-- cpu -->\nold\n<!-- end -->\nrest\n")
    fill(page, "cpu", markdown_table([row]))
    assert "old" not in page.read_text()
    assert "| dpo-1m-4k |" in page.read_text()
    assert page.read_text().endswith("rest\n")
    with pytest.raises(ValueError, match="no block"):
        fill(page, "gpu", "")


def test_results_of_a_run_take_the_place_of_earlier_ones(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    path = tmp_path / "results.json"
    remember(path, [row_of(result())])
    other = row_of(result(run=Run(CASES["sft"], "1m", 4096, 5)))
    remember(path, [other])
    rows = remember(path, [row_of(result(best="defaults"))])
    assert [(r["run"]["name"], r["best"]) for r in rows] == [
        ("dpo-1m-4k", "defaults"), ("sft-1m-4k", "plain")
    ]  # fmt: skip
    assert json.loads(path.read_text())["machine"]["torch"] == torch.__version__


def test_slope_of_a_line() -> None:
    assert slope([1, 2, 4], [5, 8, 14]) == pytest.approx(3.0)


def test_another_trl_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "version", lambda name: "1.15.0")
    monkeypatch.setattr("sys.argv", ["bench"])
    with pytest.raises(SystemExit) as stopped:
        bench.main()
    assert "1.15.0 is installed" in str(stopped.value)
    assert TRL_VERSION in str(stopped.value)


def test_recipes_are_what_a_user_would_write(tmp_path: Path) -> None:
    run = Run(CASES["grpo-algebra"], "demo", 325, 5)
    recipe = recipe_of(run, Place(tmp_path, tmp_path))
    assert recipe["rollout"] == {"group_size": 8, "max_tokens": 48}
    assert recipe["run"] == {"steps": 5, "batch_size": 16}
    assert [r["function"] for r in recipe["reward"]] == ["exact_answer", "format_tags"]


def example_of(folder: Path, model_folder: Path) -> Path:
    """What the bench reads of `make real`, with a tiny model."""
    for place in ("base", "runs/sums-sft/final"):
        shutil.copytree(model_folder, folder / place)
    said = {
        name: [{"role": role, "content": text}]
        for name, role, text in (
            ("prompt", "user", "7 + 5"), ("chosen", "assistant", "12"),
            ("rejected", "assistant", "I think 12 or so"),
        )
    }  # fmt: skip
    for path, row in (
        ("data/pairs/preferences.jsonl", {**said, "meta": {}}),
        ("data/sums_tasks.jsonl", {"prompt": said["prompt"], "answer": "12", "digits": 1}),
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(row) + "\n")
    return folder


def test_a_real_model_reads_the_files_of_the_example(tmp_path: Path, model_folder: Path) -> None:
    """As strop trains on the example's own rows: the same ids, and as many rows as steps need."""
    example = example_of(tmp_path / "example", model_folder)
    rows = {}
    for kind in ("dpo", "grpo"):
        run = Run(CASES[f"real-{kind}"], REAL, REAL_VOCABULARY, 3)
        folder = tmp_path / kind
        folder.mkdir()
        make_here(run, folder, example)
        rows[kind] = [json.loads(line) for line in (folder / "data.jsonl").open()]
        assert len(rows[kind]) == 24
        assert AutoModelForCausalLM.from_pretrained(folder / "model").config.num_hidden_layers == 3
    assert rows["grpo"][0] == {"prompt": [{"role": "user", "content": "7 + 5"}], "answer": "12"}
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    messages, text = (
        preference_tree(tokenizer, pair(row, Origin("f", 1)))
        for row in (
            json.loads((example / "data/pairs/preferences.jsonl").read_text()), rows["dpo"][0],
        )
    )  # fmt: skip
    assert messages == text


def test_without_the_example_it_says_what_to_run(tmp_path: Path) -> None:
    run = Run(CASES["real-grpo"], REAL, REAL_VOCABULARY, 3)
    with pytest.raises(SystemExit, match="make real first"):
        make_here(run, tmp_path, tmp_path / "nothing")


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["dpo", "sft", "kto", "grpo", "sampler"])
def test_a_fight_of_every_kind(kind: Any, tmp_path: Path) -> None:
    """Both sides do the same first step, and all that a row needs is measured."""
    group = 4 if kind in ("grpo", "sampler") else 1
    # of the real size: processes of their own do not see a patched shape
    run = Run(Case("tiny", kind, (10, 20), (4, 12), 4, group), "1m", 300, 4)
    folder = tmp_path / "run"
    made(run, folder)
    found = fight(run, folder, [STROP, *rivals(run.case)])
    row = row_of(found)
    assert row["ratio"] > 0
    assert len(found.seconds["strop"]) == 2
    assert 0 < row["utilisation"]["strop"] < 1
    assert found.peaks["strop"] > 2**27


def test_a_fight_over_different_records_is_stopped(tmp_path: Path) -> None:
    """Planted: a batch in which TRL's first answers are not those that strop learns."""
    run = Run(Case("tiny", "grpo", (10, 20), (4, 12), 4, 4), "1m", 300, 1)
    side = StropTrainer(run, STROP, made(run, tmp_path / "run"))
    side.load()
    batch = Batch([[5, 6]] * 16, [[7, 8 + i, 1] for i in range(16)], [0.0, 1.0] * 8, [])
    theirs = side.answers["check"](batch)
    assert "gradient norm" in _agree("plain", side.answers["check"](batch), theirs)
    other = replace(batch, completions=[[9, 8 + i, 1] for i in range(16)])
    with pytest.raises(Unfair):
        _agree("plain", side.answers["check"](other), theirs)


def test_the_sampler_side_uses_the_embedded_sampler(tmp_path: Path) -> None:
    run = Run(Case("one", "sampler", (5, 9), (1, 12), 2, 2), "1m", 300, 1)
    side = StropSampler(run, STROP, made(run, tmp_path / "run"))
    side.load()
    assert isinstance(side.engine, LocalEngine)


def test_a_setting_that_falls_in_the_first_round_of_grpo_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Planted: a process that dies during its first step."""
    run = Run(Case("tiny", "grpo", (10, 20), (4, 12), 4, 4), "1m", 300, 3)
    sides = [told(name, [], []) for name in ("strop", "defaults", "continuous")]
    done = told("any", [1.0], [0.5]).told[0]

    def ask(fighter: Fighter, order: Order, seconds: float | None = None) -> Any:
        if fighter.entrant.name == "continuous":
            raise Absent("out of pages")
        return done.step if order.what == "check" else done

    monkeypatch.setattr(Fighter, "ask", ask)
    absent: dict[str, str] = {}
    _round_one(run, sides, absent)
    assert absent == {"continuous": "out of pages"}
    assert [f.entrant.name for f in sides] == ["strop", "defaults"]
    assert [len(f.told) for f in sides] == [1, 1]


def test_a_setting_that_is_stuck_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a side whose answer never comes, in a round whose fastest step took 9 s."""
    sides = [told(name, [], []) for name in ("strop", "defaults", "continuous")]
    waited: dict[str, float | None] = {}
    done = replace(told("any", [1.0], [0.5]).told[0], seconds=9.0)

    class Link:
        def __init__(self, name: str) -> None:
            self.name = name

        def send(self, order: Order) -> None: ...

        def poll(self, seconds: float) -> bool:
            waited[self.name] = seconds
            return False

        def recv(self) -> tuple[str, Told]:
            return "step", done

        def close(self) -> None: ...

    for side in sides:
        monkeypatch.setattr(side, "link", Link(side.entrant.name))
    absent: dict[str, str] = {}
    _round(0, sides, absent)
    assert waited == {"continuous": 90.0}
    assert absent == {"continuous": "no step within 90 s"}


def event(name: str, spent: float, above: Any = None) -> Any:
    """An operation in a trace."""
    return SimpleNamespace(name=name, self_cpu_time_total=spent, cpu_parent=above)


def test_a_traced_step_by_kind_of_work() -> None:
    """Whatever is inside of the optimizer or of reading the vocabulary is theirs; what is done to
    sample answers is not counted; what no operation accounts for is Python's."""
    forward, sampling = event("forward", 10.0), event("sampling", 100.0)
    reading = event("ReadVocabulary", 1.0, forward)
    events = [
        forward, sampling, reading,
        event("aten::mm", 40.0, event("aten::linear", 0.0, forward)),
        event("aten::mm", 500.0, sampling),
        event("aten::copy_", 4.0, reading),
        event("aten::copy_", 5.0, forward),
        event("aten::bmm", 20.0, event("attend", 0.0, forward)),
        event("aten::mul", 15.0, forward),
        event("aten::_fused_adamw_", 5.0, event("optimizer", 0.0)),
    ]  # fmt: skip
    assert spent_by_kind(events) == {
        "products": 0.40, "attention": 0.20, "vocabulary": 0.05, "elementwise": 0.15,
        "copies": 0.05, "optimizer": 0.05, "python": 0.10,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["dpo", "grpo", "sampler"])
def test_a_share_is_needed_work_over_what_products_do_in_that_time(
    kind: Any, tmp_path: Path
) -> None:
    """Of GRPO the update alone: needed are forward and backward of groups with a gradient, and the
    time in which answers are sampled is left out."""
    run = Run(Case("short", kind, (5, 5), (3, 8), 4, 2 if kind == "grpo" else 1), "1m", 300, 4)
    (tmp_path / "run").mkdir()
    row = share_of(run, tmp_path / "run").row()
    assert len(row["shares"]) == len(row["cpu"]) == 2  # of four steps one warms up, one is traced
    for share, flops, cpu, rate in zip(
        row["shares"], row["flops"], row["cpu"], row["rate"], strict=True
    ):
        assert share == flops / (cpu * rate)
    assert sum(row["spent"].values()) == pytest.approx(1.0)
    assert row["spent"]["products"] > 0
    assert (row["spent"]["optimizer"] > 0) == (kind != "sampler")


def test_shares_as_a_table() -> None:
    share = Share("dpo-8m-4k", "dpo", [2.0, 1.0, 4.0], [10.0, 10.0, 10.0], [12.0, 6.0, 12.0],
                  dict.fromkeys(KINDS, 0.1) | {"products": 0.4})  # fmt: skip
    line = share_table([share.row()]).splitlines()[-1]
    assert line == (
        "| dpo-8m-4k | 0.60 (0.30-0.60) | 0.55 | 40 % | 10 % | 10 % | 10 % | 10 % | 10 % | 10 % |"
    )
