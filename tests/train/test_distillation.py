"""Distillation through the real recipe, loop and files: exact and resumable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from strop.demo.world import assistant, solution, user
from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, Request, Sampling
from strop.engines.local.engine import LocalEngine
from strop.errors import DataError
from strop.losses.distillation import forward_kl, generalized_js, lumped
from strop.model.load import load_for_inference
from strop.recipe.loading.load import load_recipe
from strop.train.preflight.prepare import prepare
from strop.train.run import train
from strop.train.teachers.build import tokens_hash
from strop.train.teachers.recorded import read_recorded, tree_number
from strop.types import Task, Tree
from tests.support.gloo import in_processes
from tests.support.resumed import SHARDED
from tests.support.runs import (
    EQUATIONS,
    Finished,
    break_off,
    final_weights,
    metrics,
    same,
    write_jsonl,
)
from tests.support.teaching import dense_loss, one_of_several, teacher_of

STEPS = "run.steps=4"
MIX = "objective.mix=0.4"
NOT_CUT = "run.distributed.shard=none"


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

    @pytest.mark.parametrize("cut", [NOT_CUT, SHARDED])
    def test_two_processes_end_as_one(
        self, cut: str, recipes: dict[str, Path], tmp_path: Path
    ) -> None:
        expect_processes_equal("gkd", recipes, tmp_path, cut=cut)


def expect_processes_equal(
    method: str, recipes: dict[str, Path], tmp_path: Path, *options: str, cut: str = NOT_CUT
) -> None:
    shared = [STEPS, "run.batch_size=5", *options]
    alone = train(load_recipe(recipes[method], [*shared, f"output={tmp_path}/one"])).parent
    together = [*shared, cut, f"output={tmp_path}/two"]
    every = in_processes(2, one_of_several, recipes[method], together)
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

    @pytest.mark.parametrize("cut", [NOT_CUT, SHARDED])
    def test_two_processes_end_as_one(
        self, cut: str, recipes: dict[str, Path], tmp_path: Path
    ) -> None:
        expect_processes_equal("minillm", recipes, tmp_path, MIX, cut=cut)
