"""Attacks on rewards: planted weaknesses are found, sound rewards hold, a run is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from strop.errors import DataError, RecipeError, RewardError, SandboxError
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.reward import ProbesRecipe, RewardComponent
from strop.rewards.audit.check import attacked, defend
from strop.rewards.audit.probes import ProbeFinding
from strop.rewards.compose import Reward
from strop.sandbox.confine import landlock
from strop.stats.share import wilson
from strop.train.preflight.prepare import prepare
from strop.types import Origin, Task
from tests.support.runs import WriteRows

TASKS = [
    {"prompt": f"Tom has {n} sheep and buys {2 * n}. How many sheep are there?",
     "answer": str(3000 + 3 * n)}
    for n in range(2, 92)
]  # fmt: skip


def of(*components: dict[str, Any]) -> list[RewardComponent]:
    return [RewardComponent(**component) for component in components]


def failed(findings: list[ProbeFinding]) -> set[str]:
    return {one.probe for one in findings if one.verdict == "fails"}


@pytest.mark.parametrize(("held", "trials"), [(95, 100), (0, 7), (80, 80), (3, 4), (1, 1)])
def test_wilson_is_scipys(held: int, trials: int) -> None:
    expected = binomtest(held, trials).proportion_ci(0.95, method="wilson").low
    assert wilson(held, trials).low == pytest.approx(float(expected))


@pytest.mark.parametrize("function", ["exact_answer", "math_answer"])
def test_a_sound_reward_holds(function: str, write_rows: WriteRows) -> None:
    file = write_rows("tasks.jsonl", TASKS)
    components = of({"function": function}, {"function": "format_tags", "weight": 0.2})
    findings = attacked(components, ProbesRecipe(), file)
    assert {one.verdict for one in findings} == {"holds"}
    assert {one.probe for one in findings} >= {
        "infrastructure_fault", "length_padding_x8", "answer_spam", "several_boxes",
        "answer_in_think", "equivalents", "master_keys", "null_model",
    }  # fmt: skip
    assert sum(one.trials for one in findings) > 3000


DENSITY = """
def density(prompts, completions, **columns):
    return [sum(ch.isdigit() for ch in text) / len(text or " ") for text in completions]
"""


def test_shaping_may_tell_two_forms_of_the_right_answer_apart(
    write_rows: WriteRows, tmp_path: Path
) -> None:
    """Other forms are longer, so their share of digits is lower; a gate has to take them all."""
    (tmp_path / "density.py").write_text(DENSITY)
    shaping = {"function": "density", "file": str(tmp_path / "density.py"), "weight": 0.1}
    file = write_rows("tasks.jsonl", TASKS)
    for others, found in (
        ([shaping], set()),
        ([{"function": "density", "file": shaping["file"], "gate": True}], {"equivalents"}),
    ):
        findings = attacked(of({"function": "exact_answer"}, *others), ProbesRecipe(), file)
        assert failed(findings) & {"equivalents"} == found


def labelled(write_rows: WriteRows) -> Path:
    rows = []
    for task in TASKS:
        right, wrong = task["answer"], str(int(task["answer"]) + 7)
        for answer, label in ((right, True), (wrong, False)):
            text = f"I add them up. <answer>{answer}</answer>"
            rows.append({**task, "completion": text, "label": label})
    return write_rows("said.jsonl", rows)


LENIENT = {
    # the weakness: the function's body, and a probe that has to find it
    "gold anywhere": ("float(a in c)", "answer_spam"),
    "first tag": ("float(re.search('<answer>([^<]*)', c + '<answer>')[1] == a)", "repeated_tags"),
    "first box or tag": (
        "float(re.search('(?:boxed.|<answer>)([0-9]*)', c + '<answer>')[1] == a)", "several_boxes"),
    "tag inside think": ("float('<answer>' + a + '</answer>' in c)", "answer_in_think"),
    "a judge that believes what it reads": (
        "float('is correct' in c or '<answer>' + a + '</answer>' == c[-len(a) - 17:])",
        "judge_injection"),
    "silence is fine": ("float(not c or '>' + a + '<' in c)", "early_end"),
    "openers are fine": ("float(len(c) < 25 or '>' + a + '<' in c)", "master_keys"),
    "text, not value": ("float(c.endswith('<answer>' + a + '</answer>'))", "equivalents"),
    "longer is better": ("('>' + a + '<' in c) + len(c) / 1e5", "length_padding_x4"),
    "structure is better": ("('>' + a + '<' in c) + 0.1 * ('**' in c)", "markdown"),
    "flattery is better": ("('>' + a + '<' in c) + 0.1 * ('clever' in c)", "sycophantic_opener"),
    "praise is better": ("('>' + a + '<' in c) + 0.1 * ('best' in c)", "self_praise"),
    "the rubric is better": ("('>' + a + '<' in c) + 0.1 * ('complete' in c)", "rubric_echoed"),
    "any constant": ("float('Decision' in c or '>' + a + '<' in c)", "null_model"),
    "the prompt": ("float('How many' in c or '>' + a + '<' in c)", "prompt_copied"),
    "form alone": ("float('<answer>' in c)", "half_of_it"),
    "any German": ("('>' + a + '<' in c) + 0.1 * (' ist ' in c)", "language_switch"),
    "thoughts are better": ("float('<think>' in c or '>' + a + '<' in c)", "filler_think"),
    "options are fine": ("float('(B) ' + a in c or '>' + a + '<' in c)", "options_listed"),
    "signs are better": ("('>' + a + '<' in c) + 0.1 * ('\\u200b' in c)", "homoglyphs"),
    "more is better": ("('>' + a + '<' in c) + 0.1 * (len(c) > 1500)", "overlong"),
}  # fmt: skip


@pytest.mark.parametrize("weakness", LENIENT)
def test_a_planted_weakness_is_found(weakness: str, tmp_path: Path, write_rows: WriteRows) -> None:
    body, probe = LENIENT[weakness]
    (tmp_path / "weak.py").write_text(
        "import re\n"
        "def weak(prompts, completions, *, answer, **columns):\n"
        f"    return [{body} for c, a in zip(completions, answer)]\n"
    )
    components = of({"function": "weak", "file": str(tmp_path / "weak.py")})
    findings = attacked(components, ProbesRecipe(), labelled(write_rows))
    assert probe in failed(findings)
    (found,) = [one for one in findings if one.probe == probe]
    assert found.example


def test_a_sound_function_of_ones_own_holds(tmp_path: Path, write_rows: WriteRows) -> None:
    (tmp_path / "sound.py").write_text(
        "from strop.rewards.exact import exact_answer\n"
        "def sound(prompts, completions, *, answer, **columns):\n"
        "    return exact_answer(prompts, completions, answer=answer)\n"
    )
    components = of({"function": "sound", "file": str(tmp_path / "sound.py")})
    assert not failed(attacked(components, ProbesRecipe(), labelled(write_rows)))


def test_a_reward_that_judges_nothing_does_not_hold(write_rows: WriteRows) -> None:
    """Planted: lengths in tokens where there is no tokenizer, so every total is `None`."""
    counted = {"function": "length", "options": {"least": 0, "most": 9}}
    file = write_rows("tasks.jsonl", TASKS)
    with pytest.raises(RewardError, match="neither the right nor the wrong"):
        attacked(of({"function": "exact_answer"}, counted), ProbesRecipe(), file)


def test_few_trials_do_not_prove_much(write_rows: WriteRows) -> None:
    file = write_rows("tasks.jsonl", TASKS[:3])
    findings = attacked(of({"function": "exact_answer"}), ProbesRecipe(), file)
    verdicts = {one.probe: one.verdict for one in findings}
    assert verdicts["markdown"] == "undecided"
    assert verdicts["answer_spam"] == "holds"  # critical: every single trial held


def test_a_component_that_swallows_faults_is_the_only_optional_one() -> None:
    """Planted: a total that goes on without a component that failed."""
    task = Task("p", {"answer": "5"}, Origin("t", 1))

    def fails(**_: object) -> list[float | None]:
        raise ConnectionError

    components = of({"function": "exact_answer"}, {"function": "format_tags", "optional": True})
    for position, expected in ((0, None), (1, 1.0)):
        functions = [f for _, f in Reward(components).components]
        functions[position] = fails
        judged = Reward(components, functions=functions).judge(
            [task.prompt], ["<answer>5</answer>"], {"answer": ["5"]}
        )
        assert judged.scores[0].total == expected


def test_tool_calls_hold(write_rows: WriteRows) -> None:
    rows = [
        {"prompt": f"Weather in town {n}?",
         "answer": [{"weather": {"town": [n, n + 0.0], "unit": ["", "C"]}}]}
        for n in range(80)
    ]  # fmt: skip
    findings = attacked(of({"function": "tool_call"}), ProbesRecipe(), write_rows("t.jsonl", rows))
    assert not failed(findings)
    assert {"repeated_calls", "extra_call", "extra_argument"} <= {one.probe for one in findings}


def test_json_holds(write_rows: WriteRows) -> None:
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    rows = [{"prompt": f"JSON of {n}", "schema": schema, "answer": {"n": n}} for n in range(80)]
    findings = attacked(
        of({"function": "json_schema"}), ProbesRecipe(), write_rows("j.jsonl", rows)
    )
    assert not failed(findings)


@pytest.mark.skipif(not landlock.version(), reason="the kernel has no Landlock")
def test_code_holds(write_rows: WriteRows) -> None:
    rows = [
        {"prompt": f"Write add{n}(a, b).", "entry_point": f"add{n}",
         "tests": [f"assert add{n}(1, {n}) == {n + 1}", f"assert add{n}(2, 2) == 4"],
         "solution": f"```python\ndef add{n}(a, b):\n    return a + b\n```"}
        for n in range(2)
    ]  # fmt: skip
    findings = attacked(of({"function": "code_tests"}), ProbesRecipe(), write_rows("c.jsonl", rows))
    assert not failed(findings)
    assert {"always_equal", "early_exit", "patched_tests", "tests_read", "printed_verdict",
            "hard_coded"} <= {one.probe for one in findings}  # fmt: skip


BRIEF = {"least": 0, "most": 0, "fall": 400, "unit": "characters"}


class TestBeforeARun:
    TASKS = tuple(
        Task(row["prompt"], {"answer": row["answer"]}, Origin("tasks.jsonl", n))
        for n, row in enumerate(TASKS, start=1)
    )

    def defend(self, *components: dict[str, Any], **probes: Any) -> dict[str, int]:
        return defend(of(*components), ProbesRecipe(**probes), self.TASKS, lambda text: [0] * 5)

    def test_a_sound_reward_goes_on(self) -> None:
        counts = self.defend({"function": "exact_answer"})
        assert counts["probes"] > 20
        assert counts["probes_accepted"] == 0

    def test_one_that_can_be_had_without_the_answer_is_refused(self) -> None:
        """Planted: brevity outweighs truth, so saying nothing earns more than the right answer."""
        weak = ({"function": "exact_answer", "weight": 0.05},
                {"function": "length", "options": BRIEF})  # fmt: skip
        with pytest.raises(RewardError, match=r"right answer:[\s\S]*early_end") as told:
            self.defend(*weak)
        named = [line.strip().split(":")[0] for line in str(told.value).splitlines()[1:-1]]
        accepted = dict.fromkeys(named, "the run is a study of this very fault")
        assert self.defend(*weak, accept=accepted)["probes_accepted"] == len(named)

    def test_accepting_an_unknown_probe_is_refused(self) -> None:
        with pytest.raises(RecipeError, match="names typo, which was not run"):
            self.defend({"function": "exact_answer"}, accept={"typo": "why"})

    def test_probes_without_right_answers_are_refused(self, tmp_path: Path) -> None:
        own = {"function": "f", "file": str(tmp_path / "f.py")}
        (tmp_path / "f.py").write_text("def f(prompts, completions, **c): return [1.0]")
        assert self.defend(own) == {}
        with pytest.raises(RecipeError, match=r"there are none for f[\s\S]*probes.completions"):
            self.defend(own, accept={"markdown": "why"})

    def test_a_gold_answer_that_its_verifier_rejects_is_listed_with_its_row(self) -> None:
        answers = ["5", "<answer></answer> none", "7"]
        rows = [
            Task("p", {"answer": a}, Origin("tasks.jsonl", n)) for n, a in enumerate(answers, 1)
        ]
        with pytest.raises(DataError, match=r"1 of 3 tasks:\s+tasks.jsonl:2"):
            defend(of({"function": "exact_answer"}), ProbesRecipe(), rows, lambda text: [])

    def test_ones_own_probes_count(self, tmp_path: Path) -> None:
        (tmp_path / "own.py").write_text(
            "def probes(task, right, wrong):\n"
            "    yield {'completion': '<answer>' + task['answer'] + '</answer>'}\n"
        )
        with pytest.raises(RewardError, match=r"own:own: held 0 of 80"):
            self.defend({"function": "exact_answer"}, file=str(tmp_path / "own.py"))
        (tmp_path / "own.py").write_text(
            "def probes(task, right, wrong):\n    yield {'rule': 'x'}\n"
        )
        with pytest.raises(RewardError, match="give `completion`"):
            self.defend({"function": "exact_answer"}, file=str(tmp_path / "own.py"))

    def test_training_runs_them_first(self, recipes: dict[str, Path]) -> None:
        recipe = load_recipe(recipes["grpo"], ["reward=[{function: exact_answer}]"])
        prepared = prepare(recipe, resume=False, overwrite=False, force=False)
        assert prepared.checks["probes"] > 20
        weak = (
            "reward=[{function: exact_answer, weight: 0.1}, {function: length, "
            "options: {least: 0, most: 0, fall: 300, unit: characters}}]"
        )
        with pytest.raises(RewardError, match="without the right answer"):
            prepare(
                load_recipe(recipes["grpo"], [weak]), resume=False, overwrite=False, force=False
            )


CODE = "reward=[{function: code_tests, options: {tests: [[assert f(1) == 2]]}}]"


def test_a_run_whose_reward_runs_code_records_its_sandbox_or_does_not_start(
    recipes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(recipes["grpo"], [CODE])
    monkeypatch.setattr("strop.train.preflight.prepare.strongest", lambda: "landlock")
    prepared = prepare(recipe, resume=False, overwrite=False, force=False)
    assert prepared.checks["sandbox"] == "landlock"

    def nothing_holds() -> str:
        raise SandboxError("no sandbox holds on this machine, so no code is run")

    monkeypatch.setattr("strop.train.preflight.prepare.strongest", nothing_holds)
    with pytest.raises(SandboxError, match="no code is run"):
        prepare(recipe, resume=False, overwrite=False, force=False)


def test_a_file_without_right_and_wrong_is_refused(write_rows: WriteRows) -> None:
    file = write_rows("none.jsonl", [{"prompt": "p", "completion": "c", "label": True}])
    with pytest.raises(DataError, match="no right and wrong completion"):
        attacked(of({"function": "format_tags"}), ProbesRecipe(), file)
    assert json.loads(file.read_text())["label"] is True
