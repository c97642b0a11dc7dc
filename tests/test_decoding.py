"""The decoding study: estimators against all subsets, planted answers, interruptions, mistakes."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import pytest
import typer
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from typer.testing import CliRunner

from conftest import EQUATIONS, WriteRows
from strop.cli.evals.decode import decode, table
from strop.demo.model import raw_model
from strop.demo.world import user
from strop.engines.engine import Request
from strop.engines.local import engine as local
from strop.engines.local.engine import LocalEngine
from strop.engines.local.sampler import LocalSampler
from strop.errors import (
    DataError,
    MissingEvidenceError,
    ModelError,
    OutputError,
    RecipeError,
    UnscoredError,
    UsageError,
)
from strop.evals.decode import draws
from strop.evals.decode.draws import revision_prompt
from strop.evals.decode.estimators import affordable, best_at, majority_at, pass_at, share
from strop.evals.decode.frontier import Row
from strop.evals.decode.grading import votes_of
from strop.evals.decode.page import figure
from strop.evals.decode.study import check_study, run_study
from strop.model.network import Policy
from strop.recipe.loading.load import load
from strop.recipe.study import Refine, Study
from strop.rewards.exact import exact_answer
from strop.types import Completion

DRAWN = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", None]), st.booleans(), st.sampled_from([0, 1, None])),
    min_size=1,
    max_size=8,
)


def over_subsets(n: int, k: int, value: Callable[[tuple[int, ...]], float]) -> float:
    """The definition: the mean over all k of n."""
    return fmean(value(subset) for subset in combinations(range(n), k))


class TestEstimators:
    @given(st.lists(st.booleans(), min_size=1, max_size=9))
    def test_pass_at_k(self, right: list[bool]) -> None:
        for k in range(1, len(right) + 1):
            oracle = over_subsets(len(right), k, lambda s: any(right[i] for i in s))
            assert pass_at(right, k) == pytest.approx(oracle, abs=1e-12)

    @settings(max_examples=150)
    @given(DRAWN)
    def test_majority(self, drawn: list[tuple[str | None, bool, Any]]) -> None:
        votes, right, _ = zip(*drawn, strict=True)

        def elected(subset: tuple[int, ...]) -> float:
            cast = Counter(votes[i] for i in subset if votes[i] is not None)
            first = [v for v, count in cast.items() if count == max(cast.values())]
            ok = [fmean(right[i] for i in subset if votes[i] == v) for v in first]
            return fmean(ok) if ok else 0.0

        ks = list(range(1, len(drawn) + 1))
        oracle = [over_subsets(len(drawn), k, elected) for k in ks]
        assert majority_at(votes, right, ks) == pytest.approx(oracle, abs=1e-12)

    @settings(max_examples=150)
    @given(DRAWN)
    def test_best_by_reward(self, drawn: list[tuple[Any, bool, int | None]]) -> None:
        _, right, rewards = zip(*drawn, strict=True)
        rank = [-math.inf if reward is None else reward for reward in rewards]

        def picked(subset: tuple[int, ...]) -> float:
            top = max(rank[i] for i in subset)
            return fmean(right[i] for i in subset if rank[i] == top)

        for k in range(1, len(drawn) + 1):
            oracle = over_subsets(len(drawn), k, picked)
            assert best_at(rewards, right, k) == pytest.approx(oracle, abs=1e-12)

    def test_by_hand(self) -> None:
        assert pass_at([True, False, False, False], 2) == 0.5
        votes, right = ["7", "7", "8"], [True, True, False]
        assert majority_at(votes, right, [1, 2, 3]) == pytest.approx(
            [2 / 3, (1 + 0.5 + 0.5) / 3, 1]
        )
        assert majority_at(["7", None, None], [True, False, False], [1, 2]) == pytest.approx(
            [1 / 3, 2 / 3]
        )
        assert majority_at([None, None], [True, True], [2]) == [0.0]
        assert best_at([0.1, 0.9, None], [True, False, True], 3) == 0.0
        assert best_at([0.1, 0.9, None], [True, False, True], 2) == pytest.approx(1 / 3)

    def test_a_picker_that_knows_is_pass_at_k(self) -> None:
        right = [True] * 3 + [False] * 9
        for k in range(1, 13):
            assert best_at([float(ok) for ok in right], right, k) == pytest.approx(
                pass_at(right, k)
            )

    def test_many_answers_against_drawn_subsets(self) -> None:
        """Too many subsets to list: 64 answers in 20 classes, 20,000 subsets drawn."""
        draw = random.Random(5)
        votes = [draw.choice("abcdefghijklmnopqrst") for _ in range(48)] + ["a"] * 6 + [None] * 10
        right = [vote == "a" for vote in votes]
        for k, exact in zip((8, 24), majority_at(votes, right, [8, 24]), strict=True):
            seen = []
            for _ in range(20_000):
                cast = Counter(v for v in draw.sample(votes, k) if v is not None)
                first = [v for v, count in cast.items() if count == max(cast.values())]
                seen.append(("a" in first) / len(first))
            error = math.sqrt(fmean((x - exact) ** 2 for x in seen) / len(seen))
            assert abs(fmean(seen) - exact) < 4 * error
            assert 0.05 < exact < 0.95

    def test_many_different_answers(self) -> None:
        """All tie: one of 300 is drawn with chance k / 300 and then wins one time in k."""
        right = [True] + [False] * 299
        assert majority_at(range(300), right, [2, 40, 300]) == pytest.approx([1 / 300] * 3)

    @pytest.mark.parametrize("k", [0, 4])
    def test_k_outside_the_draws(self, k: int) -> None:
        for refused in (
            lambda: pass_at([True] * 3, k),
            lambda: best_at([1.0] * 3, [True] * 3, k),
            lambda: majority_at(["a"] * 3, [True] * 3, [k]),
        ):
            with pytest.raises(ValueError, match="between 1 and the 3 answers"):
                refused()


class TestIntervals:
    @pytest.mark.parametrize(("right", "n"), [(0, 12), (7, 12), (12, 12)])
    def test_binary_items_get_wilsons_interval(self, right: int, n: int) -> None:
        found = share([1.0] * right + [0.0] * (n - right), range(n))
        expected = stats.binomtest(right, n).proportion_ci(method="wilson")
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))

    def test_chances_get_the_t_interval(self) -> None:
        values = [0.1, 0.5, 0.5, 0.9, 0.3, 0.4]
        low, high = stats.t.interval(0.95, 5, fmean(values), stats.sem(values))
        found = share(values, "abcdef")
        assert (found.low, found.high) == pytest.approx((low, high))

    def test_items_of_one_cluster_are_not_news(self) -> None:
        """Every item ten times over says as much as once; as if independent it would say more."""
        values, clusters = [0.1, 0.5, 0.5, 0.9, 0.3, 0.4], list("abcdef")
        once, repeated = share(values, clusters), share(values * 10, clusters * 10)
        assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high))
        assert share(values * 10, range(60)).low > repeated.low + 0.1

    def test_nothing_varies(self) -> None:
        """Four clusters that agree are four, however many items they hold; one is one."""
        assert share([1.0] * 40, [i // 10 for i in range(40)]).low == share([1.0] * 4, range(4)).low
        assert share([0.5] * 40, [0] * 40).high - 0.5 > 0.3

    def test_affordable(self) -> None:
        curve = [(40.0, 0.4), (10.0, 0.2), (160.0, 0.5)]
        assert affordable(curve, 20) == pytest.approx(0.3)
        assert affordable(curve, 10) == pytest.approx(0.2)
        assert affordable(curve, 9.9) is None
        assert affordable(curve, 1000) == pytest.approx(0.5)


def test_votes_are_equal_where_the_grader_says_equal() -> None:
    texts = ["<answer>1,000.0</answer>", "so 1e3", "x is big", "\\boxed{Paris}", "#### paris.",
             "<think>7</think>", "</answer>", "<answer></answer>", "$1,000"]  # fmt: skip
    said = ["1,000.0", "1,000.0", None, "Paris", "Paris", "7", None, None, "1,000.0"]
    assert votes_of(texts, "answer", "answer") == said
    for gold in ("1000", "Paris"):
        scores = exact_answer([""] * 9, texts, answer=[gold] * 9)
        voted = {vote for vote, score in zip(said, scores, strict=True) if score}
        assert len(voted) == 1
    assert votes_of(["Yes.", " yes ", "no", ""], "text", "answer") == ["Yes.", "Yes.", "no", None]


STUDY: dict[str, Any] = {
    "data": "tasks.jsonl",
    "scores": [{"function": "exact_answer"}],
    "serving_temperature": 0.7,
    "temperatures": [0, 0.7],
    "samples": 4,
    "sampling": {"max_tokens": 12},
    "seed": 5,
}


@pytest.fixture(scope="session")
def base_folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model than `model_folder`, of the same make."""
    folder = tmp_path_factory.mktemp("base")
    raw_model(tokenizer, seed=1, width=32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def study(tmp_path: Path, write_rows: WriteRows) -> Callable[..., Study]:
    """`STUDY` with changes, over six equations."""
    write_rows(
        "tasks.jsonl",
        [
            {"prompt": user(e), "answer": str(e.x), "id": str(i)}
            for i, e in enumerate(EQUATIONS[:6])
        ],
    )
    (tmp_path / "rewards.py").write_text(
        "def even(prompts, completions, **columns):\n"
        "    return [float(len(c[-1]['content']) % 2 == 0) for c in completions]\n"
        "def opens(prompts, completions, **columns):\n"
        "    return [float(c[-1]['content'].startswith(('so', 'then'))) for c in completions]\n"
        "def digits(prompts, completions, **columns):\n"
        "    return [float(sum(x.isdigit() for x in c[-1]['content'])) for c in completions]\n"
        "def no_sevens(prompts, completions, **columns):\n"
        "    return [None if '7' in c[-1]['content'] else 1.0 for c in completions]\n"
    )

    def make(**changes: Any) -> Study:
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({**STUDY, **changes}))
        return load(Study, path)

    return make


class Planted:
    """A sampler with known answers: what one side says greedily, sampled, and when asked again."""

    says: ClassVar[dict[str, tuple[list[str], list[str], list[str]]]] = {}

    def __init__(self, policy: Policy) -> None:
        self.side = Path(policy.model.name_or_path).name.rstrip("0123456789")
        self.tokenizer = policy.tokenizer

    def sample(self, requests: Sequence[Request], version: int) -> list[Completion]:
        made = []
        for request in requests:
            which = 2 if request.key.round else 1 if request.sampling.temperature else 0
            asked = self.tokenizer.decode(request.prompt.prompt_ids)
            x = next(e.x for e in EQUATIONS if e.question in asked)
            said = self.says[self.side][which]
            text = said[request.key.index % len(said)].replace("X", str(x))
            # as many tokens as a planted answer has words
            made.append(Completion.one_turn((1,) * len(text.split()), text, None, "stop"))
        return made


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> type[Planted]:
    monkeypatch.setattr(local, "LocalSampler", Planted)
    Planted.says = {
        "base": (["no 0"], ["so X", "then X", "so 99", "oh 98"], ["now really X"]),
        "model": (["it is surely X"], ["so X"] * 4, ["but 0"]),
    }
    return Planted


class TestPlanted:
    """Two right answers that agree, two wrong ones that do not, for every item."""

    def run(self, study: Study, model: Path, base: Path, output: Path) -> dict[Any, Row]:
        checked = check_study(study, model=str(model), base=str(base))
        self.result = run_study(checked, output)
        return {(r.model, r.temperature, r.method, r.k): r for r in self.result.rows}

    def test_table(
        self, study: Callable[..., Study], planted: type[Planted], model_folder: Path,
        base_folder: Path, tmp_path: Path,
    ) -> None:  # fmt: skip
        opens = {"function": "opens", "file": str(tmp_path / "rewards.py")}
        recipe = study(
            best_of={"reward": [opens]}, refine={"instruction": "Check it.", "answers": 2}
        )
        rows = self.run(recipe, model_folder, base_folder, tmp_path / "out")
        accuracy = {key[1:]: row.accuracy for key, row in rows.items() if key[0] == "base"}
        assert accuracy == pytest.approx({
            (0.0, "greedy", 1): 0.0, (0.0, "refine", 1): 1.0, (0.7, "sample", 1): 0.5,
            (0.7, "pass", 2): 5 / 6, (0.7, "pass", 4): 1.0,
            (0.7, "maj", 2): (1 + 4 / 2) / 6, (0.7, "maj", 4): 1.0,
            (0.7, "best", 2): 4 / 6, (0.7, "best", 4): 2 / 3,
            (0.7, "refine", 1): 1.0,
        })  # fmt: skip
        tokens = {key[1:]: row.tokens for key, row in rows.items() if key[0] == "base"}
        assert tokens[0.7, "maj", 4] == tokens[0.7, "pass", 4] == 8
        assert tokens[0.0, "refine", 1] == tokens[0.7, "refine", 1] == 2 + 3
        assert rows["model", 0.0, "greedy", 1].tokens == 4

    def test_the_base_catches_up_by_sampling(
        self, study: Callable[..., Study], planted: type[Planted], model_folder: Path,
        base_folder: Path, tmp_path: Path,
    ) -> None:  # fmt: skip
        rows = self.run(study(), model_folder, base_folder, tmp_path / "out")
        said = self.result.sentences
        assert said[1].startswith(
            "To match the trained model's greedy accuracy the base needs maj@4 at temperature 0.7, "
            "i.e. k = 4 and 8.0 tokens a question, 2 times as many (its accuracy is 1.000, +0.000"
        )
        assert said[2] == (
            "A picker that knows the right answer would do it with pass@4 at temperature 0.7, "
            "i.e. k = 4 and 8.0 tokens a question."
        )
        # 4 tokens are two samples of the base: maj@2
        assert said[3].endswith("greedy answer the base reaches 0.500: training more wins there.")
        assert rows["model", 0.0, "greedy", 1].base_at_tokens == pytest.approx(0.5)
        assert rows["model", 0.7, "maj", 4].base_at_tokens == pytest.approx(1.0)
        assert rows["model", 0.7, "pass", 2].base_at_tokens == pytest.approx(5 / 6)
        assert rows["base", 0.7, "maj", 4].base_at_tokens is None

    def test_no_k_is_enough(
        self, study: Callable[..., Study], planted: type[Planted], model_folder: Path,
        base_folder: Path, tmp_path: Path,
    ) -> None:  # fmt: skip
        planted.says["base"] = (["no 0"], ["so X", "so 99", "so 99", "so 99"], [])
        self.run(study(), model_folder, base_folder, tmp_path / "out")
        assert self.result.sentences[1] == (
            "No k <= 4 of the base reaches the trained model's greedy accuracy; its best is 0.250, "
            "by one sample at temperature 0.7 for 2.0 tokens a question: here training more beats "
            "sampling more."
        )
        planted.says["base"] = (["no 0 but very very long"] * 2, ["so long and 99"] * 4, [])
        self.run(study(), model_folder, base_folder, tmp_path / "other")
        assert "gets it there" in self.result.sentences[2]

    def test_one_sample_an_item_is_a_sweep_of_temperatures(
        self, study: Callable[..., Study], planted: type[Planted], model_folder: Path,
        base_folder: Path, tmp_path: Path,
    ) -> None:  # fmt: skip
        recipe = study(samples=1, temperatures=[0.7, 1.0])
        rows = self.run(recipe, model_folder, base_folder, tmp_path / "out")
        swept = [(0.0, "greedy", 1), (0.7, "sample", 1), (1.0, "sample", 1)]
        assert list(rows) == [(side, *way) for way in swept for side in ("base", "model")]
        assert "needs one sample at temperature 0.7, i.e. k = 1" in self.result.sentences[1]
        assert not any("picker" in sentence for sentence in self.result.sentences)

    def test_dear_answers_are_not_affordable(
        self, study: Callable[..., Study], planted: type[Planted], model_folder: Path,
        base_folder: Path, tmp_path: Path,
    ) -> None:  # fmt: skip
        planted.says["model"] = (["it is surely X"], ["so X", "X"] * 2, [])
        rows = self.run(study(), model_folder, base_folder, tmp_path / "between")
        # two answers of 1.5 tokens: between one sample of the base (2 tokens) and pass@2 (4)
        between = 0.5 + (5 / 6 - 0.5) * math.log2(3 / 2)
        assert rows["model", 0.7, "pass", 2].base_at_tokens == pytest.approx(between)
        planted.says["base"] = (["a b c d e f X"], ["a b c d e X"] * 4, [])
        rows = self.run(study(), model_folder, base_folder, tmp_path / "out")
        assert rows["model", 0.0, "greedy", 1].base_at_tokens is None
        assert "cannot answer at all" in self.result.sentences[3]

    def test_a_picker_that_knows_counts_as_pass_at_k(
        self, study: Callable[..., Study], planted: type[Planted], model_folder: Path,
        base_folder: Path, tmp_path: Path,
    ) -> None:  # fmt: skip
        planted.says["base"] = (["no 0"], ["so X", "so 99", "so 99", "so 99"], [])
        best_of = {"reward": STUDY["scores"], "oracle": True}
        rows = self.run(study(best_of=best_of), model_folder, base_folder, tmp_path / "out")
        for k in (2, 4):
            best, passed = rows["base", 0.7, "best", k], rows["base", 0.7, "pass", k]
            assert best.accuracy == pytest.approx(passed.accuracy)
        assert self.result.sentences[1].startswith("No k <= 4 of the base reaches")
        assert rows["model", 0.7, "maj", 4].base_at_tokens == pytest.approx(0.25)
        assert rows["model", 0.7, "best", 4].base_at_tokens == pytest.approx(1.0)

    def test_items_of_one_cluster_widen_the_interval(
        self, study: Callable[..., Study], planted: type[Planted], model_folder: Path,
        base_folder: Path, tmp_path: Path, write_rows: WriteRows,
    ) -> None:  # fmt: skip
        recipe = study()
        tasks = [{"prompt": user(e), "answer": str(e.x), "cluster": str(i % 5)}
                 for i, e in enumerate(EQUATIONS[:6])]  # fmt: skip
        write_rows("tasks.jsonl", tasks)
        rows = self.run(recipe, model_folder, base_folder, tmp_path / "out")
        wilson = stats.binomtest(0, 5).proportion_ci(method="wilson")
        assert rows["base", 0.0, "greedy", 1].high == pytest.approx(wilson.high)

    def test_refinement_is_graded_by_its_last_answer(
        self, study: Callable[..., Study], planted: type[Planted], model_folder: Path,
        base_folder: Path, tmp_path: Path,
    ) -> None:  # fmt: skip
        rows = self.run(
            study(refine={"instruction": "Check it.", "rounds": 2}),
            model_folder,
            base_folder,
            tmp_path / "out",
        )
        assert rows["model", 0.0, "greedy", 1].accuracy == 1.0
        assert rows["model", 0.0, "refine", 1].accuracy == 0.0
        assert [rows["model", 0.0, "refine", r].tokens for r in (1, 2)] == [4 + 2, 4 + 2 + 2]
        lines = (tmp_path / "out/samples.jsonl").read_text().splitlines()
        kept = [json.loads(line) for line in lines]
        assert len(kept) == 2 * 6 * (1 + 4 + 2 * 2)
        revised = [r for r in kept if r["model"] == "base" and r["round"] == 1]
        assert {r["right"] for r in revised} == {True}
        assert {r["tokens"] for r in revised} == {3}

    def test_items_that_cannot_be_judged_are_left_out_on_both_sides(
        self, study: Callable[..., Study], planted: type[Planted], model_folder: Path,
        base_folder: Path, tmp_path: Path,
    ) -> None:  # fmt: skip
        scores = [{"function": "no_sevens", "file": str(tmp_path / "rewards.py")}]
        sevens = sum("7" in str(e.x) for e in EQUATIONS[:6])
        planted.says = {"base": (["a 0"], ["a X"] * 4, []), "model": (["a 1"], ["a 1"] * 4, [])}
        self.run(study(scores=scores), model_folder, base_folder, tmp_path / "out")
        assert 0 < sevens < 5
        assert self.result.items == 6 - sevens
        assert self.result.notes[0].startswith(f"{sevens} of 6 items are left out")
        assert "No maj@k" in self.result.notes[1]
        planted.says["model"] = (["a 7"], ["a 7"] * 4, [])
        with pytest.raises(UnscoredError, match="no_sevens: no answer could be scored"):
            self.run(study(scores=scores), model_folder, base_folder, tmp_path / "out")


class InterruptedStudyError(Exception):
    pass


def ran(study: Study, model: Path, base: Path, output: Path, **options: Any) -> dict[str, bytes]:
    """Bytes of what a run wrote, the page aside (its figure has a name of its own each time)."""
    run_study(check_study(study, model=str(model), base=str(base)), output, **options)
    assert {file.name for file in output.iterdir()} == {
        "decode.html",
        "decode.json",
        "samples.jsonl",
    }
    return {name: (output / name).read_bytes() for name in ("decode.json", "samples.jsonl")}


class TestRuns:
    """The real sampler, on random models graded by the length of what they say."""

    CHANGES: ClassVar[dict[str, Any]] = {
        "refine": {"instruction": "Check it."},
        "temperatures": [0.7, 1.0],
    }

    def recipe(self, study: Callable[..., Study], tmp_path: Path, **changes: Any) -> Study:
        own = {"file": str(tmp_path / "rewards.py")}
        return study(scores=[{"function": "even", **own}],
                     best_of={"reward": [{"function": "digits", **own}]},
                     **{**self.CHANGES, **changes})  # fmt: skip

    def test_interrupted_and_resumed(
        self, study: Callable[..., Study], model_folder: Path, base_folder: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        recipe = self.recipe(study, tmp_path)
        whole = ran(recipe, model_folder, base_folder, tmp_path / "whole")
        asked: list[int] = []
        sample = LocalSampler.sample

        def counted(self: Any, requests: Any, version: int) -> Any:
            asked.append(len(requests))
            return sample(self, requests, version)

        monkeypatch.setattr(LocalSampler, "sample", counted)
        told = []

        def stop(count: int) -> None:
            told.append(count)
            if len(told) == 5:  # amid the third part: greedy and 0.7 of the base are kept
                raise InterruptedStudyError

        output = tmp_path / "out"
        with pytest.raises(InterruptedStudyError):
            ran(recipe, model_folder, base_folder, output, advance=stop)
        assert not output.exists()
        assert sum(asked) == (6 + 6) + (24 + 6) + 24
        asked.clear()
        told.clear()
        again = ran(recipe, model_folder, base_folder, output, advance=told.append)
        assert sum(asked) == (24 + 6) + (6 + 6) + 2 * (24 + 6)
        assert sum(told) == check_study(
            recipe, model=str(model_folder), base=str(base_folder)
        ).answers  # fmt: skip
        assert again == whole
        assert not list(tmp_path.glob(".out*"))

    def test_other_inputs_are_sampled_anew(
        self, study: Callable[..., Study], model_folder: Path, base_folder: Path, tmp_path: Path
    ) -> None:
        """Parts of an interrupted study with another seed are not taken for this one's."""
        recipe = self.recipe(study, tmp_path, seed=6)
        whole = ran(recipe, model_folder, base_folder, tmp_path / "whole")

        def stop(count: int) -> None:
            raise InterruptedStudyError

        checked = check_study(
            self.recipe(study, tmp_path), model=str(model_folder), base=str(base_folder)
        )
        parts = tmp_path / ".out.parts"
        for _ in draws.draws_of(
            checked.study, checked.tasks, checked.models, parts, lambda n: None
        ):
            pass
        assert len(list(parts.iterdir())) == 6
        assert ran(recipe, model_folder, base_folder, tmp_path / "out") == whole

    def test_how_many_prompts_a_call_takes_changes_nothing(
        self, study: Callable[..., Study], model_folder: Path, base_folder: Path, tmp_path: Path,
        write_rows: WriteRows, monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        """Two items ask the same: their samples differ, in one call or in several."""
        recipe = self.recipe(study, tmp_path)
        rows = [{"prompt": user(EQUATIONS[i % 4]), "id": str(i)} for i in range(6)]
        write_rows("tasks.jsonl", rows)
        together = ran(recipe, model_folder, base_folder, tmp_path / "together")
        monkeypatch.setattr(draws, "AT_ONCE", 1)
        assert ran(recipe, model_folder, base_folder, tmp_path / "apart") == together
        kept = [json.loads(line) for line in together["samples.jsonl"].splitlines()]
        said = {
            item: [r["text"] for r in kept
                   if r["item"] == item and r["temperature"] == 1.0 and r["round"] == 0]
            for item in ("0", "4")
        }  # fmt: skip
        assert said["0"] != said["4"]

    def test_page_draws_the_table(
        self, study: Callable[..., Study], model_folder: Path, base_folder: Path, tmp_path: Path
    ) -> None:
        recipe = self.recipe(study, tmp_path)
        files = ran(recipe, model_folder, base_folder, tmp_path / "out")
        found = json.loads(files["decode.json"])
        rows = [Row(**row) for row in found["rows"]]
        drawn = figure(recipe, rows)
        names = {note.text for note in drawn.layout.annotations}
        assert {"temperature 0.7 (serving)", "temperature 1", "base best", "trained pass",
                "base greedy refine"} <= names  # fmt: skip
        line = next(trace for trace in drawn.data if trace.name == "trained best")
        best = [r for r in rows if r.model == "model" and r.temperature == 0.7
                and r.method in ("sample", "best")]  # fmt: skip
        assert list(line.x) == [row.tokens for row in best]
        assert list(line.y) == [row.accuracy for row in best]
        assert [row.k for row in best] == [1, 2, 4]
        assert drawn.layout.xaxis.type == "log"
        for name in drawn.layout.annotations:
            if name.yref == "y":  # inside the axes, or plotly hides it
                assert drawn.layout.yaxis.range[0] < name.y < drawn.layout.yaxis.range[1]
                assert drawn.layout.xaxis.range[0] < name.x < drawn.layout.xaxis.range[1]
        page = (tmp_path / "out/decode.html").read_text()
        assert found["sentences"][1].split(";")[0][:60] in page.replace("&#x27;", "'")
        assert page.count("<tr>") == len(rows) + 1


class TestRefining:
    def test_a_chat_gets_the_answer_as_a_turn(self) -> None:
        asked = revision_prompt(Refine(instruction="Check."), user(EQUATIONS[0]), "x = 3")
        assert [m["role"] for m in asked] == ["user", "assistant", "user"]
        assert [m["content"] for m in asked][1:] == ["x = 3", "Check."]  # type: ignore[index]

    def test_a_text_gets_the_template_filled_once(self) -> None:
        refine = Refine(instruction="Check.", template="{prompt}|{completion}|{instruction}")
        asked = revision_prompt(refine, "Say {completion}", "\\boxed{prompt} {prompt}")
        assert asked == "Say {completion}|\\boxed{prompt} {prompt}|Check."

    def test_the_models_read_what_was_refined(
        self, study: Callable[..., Study], model_folder: Path, base_folder: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        seen: list[str] = []
        generate = LocalEngine.generate

        def heard(self: LocalEngine, requests: Sequence[Request]) -> Any:
            for one in requests:
                if one.key.round == 1:
                    seen.append(self.tokenizer().decode(one.prompt.prompt_ids))
            return generate(self, requests)

        monkeypatch.setattr(LocalEngine, "generate", heard)
        recipe = study(refine={"instruction": "Check it."}, temperatures=[0.7])
        files = ran(recipe, model_folder, base_folder, tmp_path / "out")
        first = [json.loads(line) for line in files["samples.jsonl"].splitlines()]
        greedy = [
            r["text"]
            for r in first
            if r["model"] == "model" and r["temperature"] == 0 and r["round"] == 0
        ]
        assert len(seen) == 2 * 2 * 6
        assert len(set(greedy)) > 1
        for asked, e, text in zip(seen[12:18], EQUATIONS[:6], greedy, strict=True):
            turns = f"<|user|>{e.question}<|assistant|>{text}<|end|><|user|>Check it.<|assistant|>"
            assert asked == turns


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"serving_temperature": 0.5}, "add serving_temperature 0.5"),
    ({"temperatures": [0], "serving_temperature": 0}, "nothing to sample: add one above 0"),
    ({"temperatures": [0.7, 0.7]}, "a temperature appears twice"),
    ({"temperatures": [0.7, -1]}, "greater than or equal to 0"),
    ({"ks": [2, 8]}, "k = 8 needs as many samples, there are 4: raise samples or drop that k"),
    ({"ks": [2, 2]}, "a k appears twice"),
    ({"scores": []}, "at least 1 item"),
    ({"sampling": {"temperature": 0.7}}, "drop sampling.temperature"),
    ({"best_of": {"reward": [{"function": "exact_answer", "name": "again"}]}},
     "picking by it is pass@k"),
    ({"best_of": {"reward": [{"function": "length"}], "oracle": True}}, "drop oracle"),
    ({"samples": 1, "vote": "text"}, "vote chooses among several answers"),
    ({"ks": [1], "best_of": {"reward": [{"function": "length"}]}}, "best_of chooses among several"),
    ({"refine": {"answers": 5}}, "only 4 samples are drawn"),
    ({"refine": {"template": "{prompt} {question}"}}, "lacks {completion} and {instruction}"),
    ({"temperature": [0.7]}, "did you mean `temperatures`?"),
]  # fmt: skip


class TestMistakes:
    @pytest.mark.parametrize(("changes", "said"), MISTAKES)
    def test_in_the_study(
        self, study: Callable[..., Study], changes: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(RecipeError) as refused:
            study(**changes)
        assert said in str(refused.value)
        assert "study.yaml:" in str(refused.value)

    def test_no_scores(self, study: Callable[..., Study], tmp_path: Path) -> None:
        study()
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in STUDY.items() if k != "scores"}))
        with pytest.raises(RecipeError, match="missing key `scores`"):
            load(Study, path)

    def test_before_anything_is_sampled(
        self, study: Callable[..., Study], model_folder: Path, base_folder: Path, tmp_path: Path,
        write_rows: WriteRows,
    ) -> None:  # fmt: skip
        both = {"model": str(model_folder), "base": str(base_folder)}
        with pytest.raises(ModelError, match="same weights as the model"):
            check_study(study(), model=str(model_folder), base=str(model_folder))
        with pytest.raises(ModelError, match="no such model folder"):
            check_study(study(), model=str(tmp_path / "none"), base=str(base_folder))
        template = {"refine": {"template": "{prompt}{completion}{instruction}"}}
        with pytest.raises(RecipeError, match="every prompt of the data is a chat"):
            check_study(study(**template), **both)
        (tmp_path / "full").mkdir()
        (tmp_path / "full/mine").write_text("")
        with pytest.raises(OutputError, match="holds no decoding study"):
            run_study(check_study(study(), **both), tmp_path / "full")
        long = check_study(study(sampling={"max_tokens": 120}), **both)
        with pytest.raises(UsageError, match="the model reads 128"):
            run_study(long, tmp_path / "out")
        tasks = [{"prompt": "Solve", "answer": "1", "id": i} for i in (1, 2, 1)]
        recipe = study()
        write_rows("tasks.jsonl", tasks)
        with pytest.raises(DataError, match=r"tasks.jsonl:1: the item '1' appears 2 times"):
            check_study(recipe, **both)
        write_rows("tasks.jsonl", [{"prompt": "Solve"}])
        with pytest.raises(DataError, match="reads the column `answer`"):
            check_study(recipe, **both)
        few = [{"prompt": f"Solve {i}", "answer": "1", "cluster": i % 4} for i in range(8)]
        write_rows("tasks.jsonl", few)
        with pytest.raises(MissingEvidenceError, match="8 items stand in 4 clusters"):
            check_study(recipe, **both)
        write_rows("tasks.jsonl", tasks[:1])
        with pytest.raises(UnscoredError, match="two are the least"):
            run_study(check_study(recipe, **both), tmp_path / "out")
        assert not (tmp_path / "out").exists()


class TestCommand:
    def invoke(self, *args: object) -> Any:
        app = typer.Typer(pretty_exceptions_enable=False)
        app.command("decode")(decode)
        return CliRunner().invoke(app, [str(arg) for arg in args])

    def test_table_json_and_dry_run(
        self, study: Callable[..., Study], planted: type[Planted], model_folder: Path,
        base_folder: Path, tmp_path: Path,
    ) -> None:  # fmt: skip
        study()
        said = [tmp_path / "study.yaml", "--model", model_folder, "--base", base_folder,
                "--output", tmp_path / "out"]  # fmt: skip
        dry = self.invoke(*said, "--dry-run")
        assert dry.output == "would sample 60 answers to 6 items\n"
        assert not (tmp_path / "out").exists()
        shown = self.invoke(*said)
        assert shown.exit_code == 0, shown.output
        lines = shown.output.splitlines()
        assert max(map(len, lines[:-1])) <= 100
        row = next(line for line in lines if "base" in line and " maj " in line)
        assert row.split() == ["base", "0.7", "maj", "2", "4.0", "0.500", "0.188", "-", "0.812"]
        found = json.loads(self.invoke(*said, "--json").output)
        assert found["items"] == 6
        assert len(found["rows"]) == 2 * (1 + 1 + 2 + 2)
        refused = self.invoke(*said, "--set", "ks=[64]")
        assert isinstance(refused.exception, RecipeError)
        assert refused.exception.exit_code == 2

    def test_the_widest_table_fits(self) -> None:
        row = Row("model", 0.75, "refine", 512, 1_234_567.8, 0.5, 0.4, 0.6, 0.4)
        from rich.console import Console

        console = Console(width=200)
        assert console.measure(table((row, row))).maximum <= 100


def test_the_documented_study_loads(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs/decoding.md").read_text()
    block = text.split("    # study.yaml\n")[1].split("\n\n")[0]
    path = tmp_path / "study.yaml"
    path.write_text("".join(line.removeprefix("    ") + "\n" for line in block.splitlines()))
    recipe = load(Study, path)
    assert recipe.counts == [2, 4, 8, 16]
    assert {*Study.model_fields} <= {word.strip("`:") for word in text.split()}
