"""Distillation through the real recipe, loop and files: exact, resumable, and refused in time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from strop.demo.model import train_tokenizer
from strop.demo.world import all_equations, assistant, solution, user
from strop.distributed.world import World
from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, Request, Sampling
from strop.engines.local.engine import LocalEngine
from strop.errors import DataError, ModelError, OutputError, RecipeError
from strop.losses.distillation import forward_kl, generalized_js, lumped
from strop.model.load import load_for_inference
from strop.model.network import Policy
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.alarm import DistilAlarms, GkdAlarms
from strop.recipe.train.teacher import View
from strop.text.render import prompts_ids
from strop.train.monitor.alarms import AlarmWatch
from strop.train.preflight.prepare import prepare
from strop.train.run import train
from strop.train.teachers.build import tokens_hash
from strop.train.teachers.recorded import read_recorded, tree_number
from strop.train.teachers.view import Informed, InformedTrees
from strop.types import Task, Tree
from tests.support.gloo import in_processes
from tests.support.models import sharp_model
from tests.support.runs import (
    EQUATIONS,
    TAUGHT,
    Finished,
    WriteRows,
    break_off,
    final_weights,
    metrics,
    same,
    write_jsonl,
)

STEPS = "run.steps=4"
MIX = "objective.mix=0.4"
OWN = "teacher={own: current, prompt: hinted}"


@pytest.fixture
def hinted(write_rows: WriteRows) -> tuple[str, str]:
    """Demonstrations and tasks with a column that tells the teacher more."""
    rows = [
        {
            "prompt": user(e),
            "completion": assistant(solution(e)),
            "hinted": [{"role": "user", "content": f"{e.question}. x = {e.x}"}],
        }
        for e in EQUATIONS
    ]
    tasks = [{k: v for k, v in row.items() if k != "completion"} for row in rows]
    files = (write_rows("hinted.jsonl", rows), write_rows("hinted_tasks.jsonl", tasks))
    return f"data={files[0]}", f"data={files[1]}"


def teacher_of(recipes: dict[str, Path]) -> Policy:
    return load_for_inference(str(recipes["distil"].parent / "teacher"))


def dense_loss(policy: Policy, teacher: Policy, trees: Sequence[Tree], loss: Any) -> float:
    """The mean divergence by whole distributions."""
    with torch.no_grad():
        student, other = (p.score.distributions(trees) for p in (policy, teacher))
    vocabulary = len(policy.tokenizer)
    rows = (torch.log_softmax(x[:, :vocabulary], -1) for x in (student, other))
    return float(loss(*rows).mean())


class TestDistil:
    def test_the_first_loss_is_the_mean_divergence_of_the_batch(
        self, finished: Finished, recipes: dict[str, Path], model_folder: Path
    ) -> None:
        recipe = load_recipe(recipes["distil"], [STEPS])
        prepared = prepare(recipe, resume=False, overwrite=True, force=False)
        drawn = prepared.mixture.draw(0).own
        trees = [prepared.rendered.trees[i] for i in drawn]
        student = load_for_inference(str(model_folder))
        expected = dense_loss(student, teacher_of(recipes), trees, forward_kl)
        row = metrics(finished("distil", STEPS))[0]
        assert row["loss"] == pytest.approx(expected, rel=1e-4)
        assert row["teacher/divergence"] == pytest.approx(expected, rel=1e-4)
        assert row["num_tokens"] == sum(sum(tree.branches[0].supervised) for tree in trees)

    def test_a_student_comes_nearer_to_its_teacher_on_answers_it_did_not_see(
        self, finished: Finished
    ) -> None:
        options = ("run.steps=40", "optim.learning_rate=3e-3", "run.batch_size=8")
        rows = metrics(finished("distil", *options))
        assert rows[-1]["eval_loss"] < 0.5 * rows[0]["loss"]

    @pytest.mark.parametrize("name", ["generalized_js", "skewed_forward_kl", "skewed_reverse_kl"])
    def test_every_divergence_is_the_one_that_is_named(self, name: str, finished: Finished) -> None:
        first = metrics(finished("distil", STEPS, f"objective.divergence={name}"))[0]["loss"]
        plain = metrics(finished("distil", STEPS))[0]["loss"]
        assert 0 < first < plain  # mixtures are nearer to both than these are to each other


class TestTopK:
    K = "objective.top_k=8"

    def test_the_loss_is_that_of_lumped_distributions(
        self, finished: Finished, recipes: dict[str, Path], model_folder: Path
    ) -> None:
        prepared = prepare(load_recipe(recipes["distil"], [STEPS]), resume=False, overwrite=True,
                           force=False)  # fmt: skip
        trees = [prepared.rendered.trees[i] for i in prepared.mixture.draw(0).own]

        def loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
            ids = teacher.topk(8, -1).indices
            return forward_kl(lumped(student, ids), lumped(teacher, ids))

        student = load_for_inference(str(model_folder))
        expected = dense_loss(student, teacher_of(recipes), trees, loss)
        found = metrics(finished("distil", STEPS, self.K))[0]["loss"]
        assert found == pytest.approx(expected, rel=1e-4)
        assert found < metrics(finished("distil", STEPS))[0]["loss"]

    def test_is_kept_and_not_asked_again(
        self, finished: Finished, recipes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = finished("distil", STEPS, self.K)
        recipe = load_recipe(recipes["distil"], [STEPS, self.K])
        kept = break_off(recipe, 3) / "teacher.safetensors"
        content = kept.read_bytes()
        monkeypatch.setattr("strop.train.teachers.keep.record", None)
        parts = train(recipe, resume=True).parent
        assert same(final_weights(whole), final_weights(parts))
        assert kept.read_bytes() == content

    def test_a_damaged_file_is_made_again(
        self, finished: Finished, recipes: dict[str, Path]
    ) -> None:
        recipe = load_recipe(recipes["distil"], [STEPS, self.K])
        kept = break_off(recipe, 3) / "teacher.safetensors"
        content = kept.read_bytes()
        kept.write_bytes(content[:-7])
        with pytest.warns(UserWarning, match=r"teacher\.safetensors is damaged"):
            parts = train(recipe, resume=True).parent
        assert kept.read_bytes() == content
        assert same(final_weights(finished("distil", STEPS, self.K)), final_weights(parts))

    def test_another_run_learns_from_the_record_without_the_teacher(
        self, finished: Finished, recipes: dict[str, Path], tmp_path: Path
    ) -> None:
        first = finished("distil", STEPS, self.K)
        options = [STEPS, f"teacher={{recorded: {first}/teacher.safetensors}}"]
        recipe = load_recipe(recipes["distil"], [*options, f"output={tmp_path}/again"])
        again = train(recipe).parent
        assert same(final_weights(first), final_weights(again))

    def test_a_record_of_other_data_is_refused(
        self, finished: Finished, recipes: dict[str, Path], tmp_path: Path
    ) -> None:
        first = finished("distil", STEPS, self.K)
        rows = [
            {"prompt": user(e), "completion": assistant(solution(e, filler=True))}
            for e in EQUATIONS
        ]
        other = write_jsonl(tmp_path / "other.jsonl", rows)
        recorded = f"teacher={{recorded: {first}/teacher.safetensors}}"
        recipe = load_recipe(
            recipes["distil"], [STEPS, recorded, f"data={other}", f"output={tmp_path}/run"]
        )
        with pytest.raises(DataError, match="are of other data") as caught:
            train(recipe)
        assert "other.jsonl:" in caught.value.problem
        assert caught.value.where.endswith("teacher.safetensors")

    def test_the_record_says_who_said_it(
        self, finished: Finished, recipes: dict[str, Path]
    ) -> None:
        file = finished("distil", STEPS, self.K) / "teacher.safetensors"
        with safe_open(file, framework="pt") as opened:
            about = json.loads(opened.metadata()["about"])
        policy = teacher_of(recipes)
        assert about["tokenizer"] == tokens_hash(policy.tokenizer)
        recorded = read_recorded(file, about["tokenizer"])
        prepared = prepare(load_recipe(recipes["distil"], [STEPS]), resume=False, overwrite=True,
                           force=False)  # fmt: skip
        tree = prepared.rendered.trees[prepared.mixture.draw(0).own[0]]
        place = recorded.places[tree_number(tree)]
        with torch.no_grad():
            whole = policy.score.distributions([tree])[:, : recorded.vocabulary]
        best = torch.log_softmax(whole, -1).topk(8, -1)
        assert torch.equal(recorded.said.ids_NK[place].long(), best.indices)
        found = recorded.said.logprobs_NK1[place]
        torch.testing.assert_close(found[:, :8], best.values, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found.exp().sum(-1), torch.ones(len(found)))


class TestGkd:
    def test_without_own_samples_it_is_distil_with_the_same_divergence(
        self, finished: Finished
    ) -> None:
        none = ("objective={own_samples: 0, beta: 0.3}", "rollout={}")
        gkd = finished("gkd", STEPS, *none)
        js = finished("distil", STEPS, "objective={divergence: generalized_js, beta: 0.3}")
        assert same(final_weights(gkd), final_weights(js))

    def test_the_share_of_own_samples_is_the_recipes(self, finished: Finished) -> None:
        options = ("run.steps=8", "run.batch_size=16")
        for share in (0.25, 1.0):
            rows = metrics(finished("gkd", *options, f"objective.own_samples={share}"))
            found = sum(row["own_samples"] for row in rows) / len(rows)
            spread = (share * (1 - share) / (8 * 16)) ** 0.5
            assert abs(found - share) <= 4 * spread + 1e-12
        assert all(row["completions/mean_length"] > 1 for row in rows)

    def test_own_samples_are_those_of_the_student_as_it_is(
        self, finished: Finished, recipes: dict[str, Path], model_folder: Path
    ) -> None:
        """All answers its own: the first loss, over the same draws asked of an engine."""
        row = metrics(finished("gkd", STEPS, "objective.own_samples=1"))[0]
        recipe = load_recipe(recipes["gkd"], [STEPS])
        prepared = prepare(recipe, resume=False, overwrite=True, force=False)
        engine = LocalEngine(str(model_folder))
        requests, trunks = [], []
        for i in prepared.mixture.draw(0).own:
            trunk = prepared.rendered.trees[i].trunk
            task = Task("", {}, prepared.rendered.records[i].origin)
            key = DrawKey(3, "training", 0, prompt=",".join(map(str, trunk)), index=int(i))
            requests.append(Request(PromptedTask(task, trunk), Sampling(max_tokens=12), key))
            trunks.append(trunk)
        answers = dict(engine.generate(requests))
        trees = [Tree(trunk, answers[n].branches()) for n, trunk in enumerate(trunks)]
        student = load_for_inference(str(model_folder))
        expected = dense_loss(student, teacher_of(recipes), trees, generalized_js)
        assert row["loss"] == pytest.approx(expected, rel=1e-4)
        lengths = [len(answer.ids) for answer in answers.values()]
        assert row["completions/mean_length"] == sum(lengths) / len(lengths)

    def test_two_processes_end_as_one(self, recipes: dict[str, Path], tmp_path: Path) -> None:
        expect_processes_equal("gkd", recipes, tmp_path)


def one_of_several(world: World, path: Path, options: Sequence[str]) -> None:
    train(load_recipe(path, options), world=world)


def expect_processes_equal(
    method: str, recipes: dict[str, Path], tmp_path: Path, *options: str
) -> None:
    shared = [STEPS, "run.batch_size=5", *options]
    alone = train(load_recipe(recipes[method], [*shared, f"output={tmp_path}/one"])).parent
    every = in_processes(2, one_of_several, recipes[method], [*shared, f"output={tmp_path}/two"])
    assert every == [None, None]
    one, two = final_weights(alone), final_weights(tmp_path / "two")
    assert max(float((one[n] - two[n]).abs().max()) for n in one) <= 2e-5
    for left, right in zip(metrics(alone), metrics(tmp_path / "two"), strict=True):
        assert left["loss"] == pytest.approx(right["loss"], rel=1e-4)


class TestOnPolicy:
    def test_divergence_is_that_of_the_samples(self, finished: Finished) -> None:
        rows = metrics(finished("on_policy_distil", STEPS))
        assert all("reward" not in row for row in rows)
        assert all(row["teacher/divergence"] > 0 for row in rows)
        assert rows[0]["skipped/groups"] == 0  # equal groups teach as well

    def test_it_comes_nearer_to_its_teacher(self, finished: Finished) -> None:
        options = ("run.steps=60", "optim.learning_rate=3e-3", "run.batch_size=8")
        rows = metrics(finished("on_policy_distil", *options))
        ends = [sum(row["teacher/divergence"] for row in part) for part in (rows[:3], rows[-3:])]
        assert ends[1] < 0.6 * ends[0]

    def test_a_reward_beside_the_teacher_changes_what_is_learnt(
        self, finished: Finished, recipes: dict[str, Path]
    ) -> None:
        reward = f"reward=[{{function: shorter, file: {recipes['grpo'].parent}/rewards.py}}]"
        mixed = finished("on_policy_distil", STEPS, reward)
        row = metrics(mixed)[0]
        assert row["reward"] < 0
        assert "frac_reward_zero_std" not in row
        alone = finished("on_policy_distil", STEPS)
        assert row["teacher/divergence"] == metrics(alone)[0]["teacher/divergence"]
        assert not same(final_weights(mixed), final_weights(alone))

    def test_several_updates_keep_the_advantages_of_the_samples(self, finished: Finished) -> None:
        """The ratio moves from 1 in the second pass, and the clip sees it."""
        options = ("objective.num_iterations=3", "optim.learning_rate=3e-2")
        rows = metrics(finished("on_policy_distil", STEPS, *options))
        assert max(row["clip_ratio/high_mean"] + row["clip_ratio/low_mean"] for row in rows) > 0

    def test_stale_samples_need_no_older_forward_for_their_advantages(
        self, finished: Finished
    ) -> None:
        """With the sampler's correction the run has old log-probs; both ways the same numbers."""
        plain = finished("on_policy_distil", STEPS)
        weighed = finished("on_policy_distil", STEPS, "rollout.mismatch={level: token}")
        left, right = final_weights(plain), final_weights(weighed)
        assert max(float((left[n] - right[n]).abs().max()) for n in left) <= 1e-5

    def test_two_processes_end_as_one(self, recipes: dict[str, Path], tmp_path: Path) -> None:
        expect_processes_equal("on_policy_distil", recipes, tmp_path)


class TestMinillm:
    def test_draws_from_the_mixture_and_resumes_to_the_bit(
        self, finished: Finished, recipes: dict[str, Path]
    ) -> None:
        whole = finished("minillm", STEPS, MIX)
        recipe = load_recipe(recipes["minillm"], [STEPS, MIX])
        break_off(recipe, 3)
        parts = train(recipe, resume=True).parent
        assert same(final_weights(whole), final_weights(parts))
        assert metrics(whole) == metrics(parts)
        row = metrics(whole)[0]
        assert row["mixed/logprob_difference"] > 0.01
        assert row["mismatch/ess"] < 0.999

    def test_two_processes_end_as_one(self, recipes: dict[str, Path], tmp_path: Path) -> None:
        expect_processes_equal("minillm", recipes, tmp_path, MIX)


class TestInformed:
    """The same model as its own teacher, which is told the answer."""

    def test_its_trunk_is_the_columns_prompt_and_its_rows_are_the_students(
        self, recipes: dict[str, Path], hinted: tuple[str, str], tokenizer: Any
    ) -> None:
        recipe = load_recipe(recipes["distil"], [hinted[0], "eval=null", OWN])
        prepared = prepare(recipe, resume=False, overwrite=True, force=False)
        informed = Informed(View(prompt="hinted"), tokenizer)
        rendered = prepared.rendered
        trees = InformedTrees(informed, rendered.trees, rendered.records)
        for place in range(3):
            record = rendered.records[place]
            told = Task(record.columns["hinted"], {}, record.origin)
            assert trees[place].trunk == prompts_ids(tokenizer, [told])[0]
            assert trees[place].trunk != rendered.trees[place].trunk
            assert trees[place].branches == rendered.trees[place].branches

    @pytest.mark.parametrize("method", TAUGHT)
    @pytest.mark.parametrize("own", ["start", "current"])
    def test_learns_and_resumes_to_the_bit(
        self, method: str, own: str, finished: Finished, recipes: dict[str, Path],
        hinted: tuple[str, str],
    ) -> None:  # fmt: skip
        data = hinted[method in ("on_policy_distil", "minillm")]
        options = [STEPS, data, "eval=null", f"teacher={{own: {own}, prompt: hinted}}"]
        whole = finished(method, *options)
        recipe = load_recipe(recipes[method], options)
        break_off(recipe, 3)
        parts = train(recipe, resume=True).parent
        assert same(final_weights(whole), final_weights(parts))
        assert abs(metrics(whole)[0]["teacher/divergence"]) > 1e-3

    def test_a_system_prompt_that_the_student_does_not_see(self, finished: Finished) -> None:
        run = finished("distil", STEPS, "teacher={own: start, system: Answer with the number.}")
        assert metrics(run)[0]["loss"] > 1e-3

    def test_lora_learns_from_the_model_below_it(
        self, finished: Finished, hinted: tuple[str, str]
    ) -> None:
        informed = "teacher={own: start, prompt: hinted}"
        options = ("model.lora.rank=4", hinted[0], "eval=null", informed)
        whole = finished("distil", STEPS, *options)
        full = finished("distil", STEPS, *options[1:])
        first, other = (metrics(run)[0]["loss"] for run in (whole, full))
        assert first == pytest.approx(other, rel=1e-5)  # a fresh adapter changes nothing


class TestBesideTheRest:
    def test_demonstrations_are_replayed_beside_it(
        self, finished: Finished, recipes: dict[str, Path]
    ) -> None:
        folder = recipes["distil"].parent
        data = (
            f"data=[{{path: {folder}/tasks.jsonl, weight: 3}}, "
            f"{{path: {folder}/sft.jsonl, weight: 1}}]"
        )
        row = metrics(finished("minillm", STEPS, data))[0]
        assert row["replay/loss"] > 0

    def test_lora_students_of_a_larger_teacher(self, finished: Finished) -> None:
        for method in TAUGHT:
            rows = metrics(finished(method, STEPS, "model.lora.rank=4"))
            assert rows[-1]["grad_norm"] > 0


def checked(path: Path, *options: str) -> None:
    """Everything that is looked at before a run."""
    prepare(load_recipe(path, options), resume=False, overwrite=True, force=False)


SERVED = ", engine: {kind: vllm, url: 'http://127.0.0.1:1'}"
REFUSED = [
    ("distil", "objective={divergence: forward_kl, beta: 0.3}", "forward_kl does not read beta"),
    ("distil", "objective={beta: 0.3}", "set divergence to generalized_js"),
    ("distil", "objective={divergence: generalized_js, alpha: 0.3}", "does not read alpha"),
    ("distil", "objective={top_k: 8, temperature: 2}", "no temperature can be taken of"),
    ("distil", "teacher={recorded: a.safetensors}", "no recorded log-probs can be read"),
    ("distil", "teacher={own: start}", "nothing to teach"),
    ("distil", "teacher={own: start, prompt: a, system: b}", "drop system"),
    ("distil", "teacher={size: 7}", "a teacher is a folder"),
    ("gkd", "teacher={recorded: a.safetensors}", "not written yet"),
    ("gkd", "objective={own_samples: 0}", "rollout is not read"),
    ("on_policy_distil", "objective={teacher_weight: 2}", "there is none"),
    ("on_policy_distil", "rollout.resample=2", "equal groups teach as well"),
    ("on_policy_distil", "rollout.overlong_buffer=4", "works on a reward, and there is none"),
    ("on_policy_distil", "rollout.curriculum={}", "works on a reward, and there is none"),
    ("on_policy_distil", "alarms.length_pay={threshold: 0.4}", "could pay for length"),
    ("on_policy_distil", "alarms.zero_variance={threshold: 0.4}", "learns from equal groups"),
    ("minillm", "reward=[{function: exact_answer}]", "learns from its teacher alone"),
]


@pytest.mark.parametrize(("method", "override", "message"), REFUSED)
def test_what_would_have_no_effect(
    method: str, override: str, message: str, recipes: dict[str, Path]
) -> None:
    with pytest.raises((RecipeError, DataError), match=message):
        checked(recipes[method], override)


@pytest.mark.parametrize(
    ("method", "more", "options", "message"),
    [
        ("distil", SERVED, (), "servers give log-probs of given tokens alone"),
        ("gkd", SERVED, (), "servers give log-probs of given tokens alone"),
        ("minillm", SERVED, (), "servers give log-probs of given tokens alone"),
        ("on_policy_distil", SERVED, ("rollout.temperature=0.7",), "score at temperature 1"),
        ("on_policy_distil", f", quantize: nf4{SERVED}", (), "the servers' own"),
        ("minillm", ", system: Think", ("objective.mix=0.2",), "after the same prompt"),
    ],
)
def test_a_teacher_that_cannot_give_what_the_method_reads(
    method: str, more: str, options: Sequence[str], message: str, recipes: dict[str, Path]
) -> None:
    teacher = recipes["distil"].parent / "teacher"
    named = f"teacher={{path: {teacher}{more}}}"
    with pytest.raises(RecipeError, match=message):
        checked(recipes[method], named, *options)


def test_the_starting_model_has_nothing_to_teach(
    recipes: dict[str, Path], model_folder: Path
) -> None:
    recipe = load_recipe(recipes["distil"], [f"teacher={model_folder}"])
    with pytest.raises(RecipeError, match="the student has nothing to learn"):
        prepare(recipe, resume=False, overwrite=True, force=False)


def test_another_tokenizer_is_refused_with_the_methods_that_need_none(
    recipes: dict[str, Path], tmp_path: Path
) -> None:
    other = train_tokenizer([e.question for e in all_equations()[::5]], vocabulary=310)
    sharp_model(other).save_pretrained(tmp_path / "other")
    other.save_pretrained(tmp_path / "other")
    recipe = load_recipe(recipes["distil"], [f"teacher={tmp_path}/other"])
    with pytest.raises(ModelError, match="another tokenizer than the student") as caught:
        prepare(recipe, resume=False, overwrite=True, force=False)
    assert "strop data sample" in str(caught.value.fix)
    assert "method: sft" in str(caught.value.fix)


def test_a_record_without_the_teachers_column_is_named(recipes: dict[str, Path]) -> None:
    recipe = load_recipe(recipes["distil"], ["teacher={own: start, prompt: hint}"])
    with pytest.raises(DataError, match="names the column 'hint'") as caught:
        prepare(recipe, resume=False, overwrite=True, force=False)
    assert caught.value.where.endswith("sft.jsonl:1")


def test_a_teacher_that_reads_what_the_student_reads_is_named(
    recipes: dict[str, Path], write_rows: WriteRows
) -> None:
    rows = [
        {"prompt": user(e), "completion": assistant(solution(e)), "hinted": user(e)}
        for e in EQUATIONS
    ]
    data = write_rows("same.jsonl", rows)
    recipe = load_recipe(recipes["distil"], [OWN, f"data={data}"])
    with pytest.raises(DataError, match="the same prompt as the student"):
        prepare(recipe, resume=False, overwrite=True, force=False)


class TestTheDevSuite:
    @pytest.fixture
    def suite(self, tmp_path: Path, write_rows: WriteRows) -> str:
        """Whether right answers are likelier than wrong ones, on equations that nothing reads."""
        others = [e for e in all_equations()[7::53] if e not in EQUATIONS][:24]
        write_rows(
            "held.jsonl",
            [
                {"prompt": user(e), "chosen": solution(e), "rejected": solution(e, filler=True)}
                for e in others
            ],
        )
        tasks = [{"kind": "preference", "name": "pairs", "data": "held.jsonl", "per_token": True}]
        path = tmp_path / "dev.yaml"
        path.write_text(yaml.safe_dump({"name": "dev", "seed": 1, "tasks": tasks}))
        return f"dev={{suite: {path}, metric: pairs, every: 2}}"

    def test_a_worse_teacher_is_refused_and_force_goes_on(
        self, suite: str, recipes: dict[str, Path], tmp_path: Path, finished: Finished
    ) -> None:
        """The teacher is turned against the pairs: it was trained to prefer their wrong side."""
        held = (tmp_path / "held.jsonl").read_text().splitlines()
        turned = [
            json.dumps({**row, "chosen": row["rejected"], "rejected": row["chosen"]})
            for row in map(json.loads, held)
        ]
        (tmp_path / "turned.jsonl").write_text("\n".join(turned) + "\n")
        worse = train(
            load_recipe(recipes["dpo"], [f"data={tmp_path}/turned.jsonl", "run.steps=20",
                        "optim.learning_rate=1e-2", f"output={tmp_path}/worse"]), force=True,
        )  # fmt: skip
        better = train(
            load_recipe(recipes["dpo"], [f"data={tmp_path}/held.jsonl", "run.steps=20",
                        "optim.learning_rate=1e-2", f"output={tmp_path}/better"]), force=True,
        )  # fmt: skip
        options = [STEPS, suite, f"output={tmp_path}/run"]
        bad = load_recipe(recipes["distil"], [*options, f"teacher={worse}"])
        with pytest.raises(RecipeError, match="the teacher is worse than the student: pairs"):
            train(bad)
        train(bad, force=True)
        good = load_recipe(recipes["distil"], [*options, f"teacher={better}"])
        rows = metrics(train(good, overwrite=True).parent)
        assert rows[0]["step"] == 0
        assert rows[0]["teacher/pairs"] >= rows[0]["dev/pairs"]


class TestAlarms:
    def test_rings_where_the_student_moves_away(self) -> None:
        def rings(distances: Sequence[float]) -> list[str]:
            watch = AlarmWatch(DistilAlarms())
            rows = [
                {"step": n, "teacher/divergence": x, "entropy": 0.5, "grad_norm": 1.0}
                for n, x in enumerate(distances, 1)
            ]
            return [alarm.name for row in rows for alarm in watch.see(row)]

        assert rings([1.0] * 3 + [0.9, 0.7, 0.5, 0.4, 0.3, 0.2]) == []
        assert rings([1.0] * 3 + [1.4] * 9) == []
        assert rings([1.0] * 3 + [1.6] * 5) == ["teacher_divergence"]

    def test_entropy_that_collapses_far_from_the_teacher_rings(self) -> None:
        def rings(left: float) -> list[str]:
            watch = AlarmWatch(GkdAlarms())
            rows = [
                {"step": n, "teacher/divergence": 1.0 if n < 4 else left,
                 "entropy": 0.5 if n < 4 else 0.01, "grad_norm": 1.0}
                for n in range(1, 12)
            ]  # fmt: skip
            return [alarm.name for row in rows for alarm in watch.see(row)]

        assert rings(0.8) == ["entropy_collapse"]
        assert rings(0.05) == []  # the teacher itself is as sure


def test_the_teacher_is_part_of_what_a_run_is_made_of(
    finished: Finished, recipes: dict[str, Path], tmp_path: Path
) -> None:
    """A run cannot be resumed with a teacher whose weights changed."""
    teacher = tmp_path / "teacher"
    source = recipes["distil"].parent / "teacher"
    AutoModelForCausalLM.from_pretrained(source).save_pretrained(teacher)
    AutoTokenizer.from_pretrained(source).save_pretrained(teacher)
    options = [STEPS, f"teacher={teacher}", f"output={tmp_path}/run"]
    recipe = load_recipe(recipes["distil"], options)
    break_off(recipe, 3)
    model = AutoModelForCausalLM.from_pretrained(teacher)
    with torch.no_grad():
        next(model.parameters()).add_(0.01)
    model.save_pretrained(teacher)
    with pytest.raises(OutputError, match="the run began with other teacher"):
        train(recipe, resume=True)
