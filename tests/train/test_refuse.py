"""Options that are inert, contradictory or reckless get one message that names the fix."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from strop.errors import DataError, RecipeError, UsageError
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.methods import METHODS
from strop.train.preflight.prepare import prepare
from tests.support.runs import WriteRows

NOT_READ = [
    ("grpo", "objective.gamma=0.9"),
    ("cispo", "objective.epsilon_low=0.2"),
    ("sapo", "objective.epsilon_high=0.2"),
    ("rloo", "objective.num_iterations=2"),
    ("raft", "objective.beta=0.1"),
    ("simpo", "objective.label_smoothing=0.1"),
    ("simpo", "objective.length_normalized=true"),
    ("orpo", "objective.nll_weight=1"),
    ("kto", "objective.label_smoothing=0.1"),
    ("dpop", "objective.label_smoothing=0.1"),
    ("hinge", "objective.label_smoothing=0.1"),
    ("sft", "objective.beta=0.1"),
    ("dft", "rollout.group_size=4"),
    ("dpo", "value.path=m"),
    ("reward_model", "objective.beta=0.1"),
    ("grpo", "alarms.displacement={threshold: 0.1, patience: 1}"),
    ("sft", "alarms.entropy_collapse={threshold: 0.1, patience: 1}"),
]


@pytest.mark.parametrize(("method", "override"), NOT_READ)
def test_an_option_that_the_method_does_not_read(
    method: str, override: str, recipes: dict[str, Path]
) -> None:
    section = override.split("=")[0].split(".")[0]
    with pytest.raises(RecipeError, match=rf"unknown key `{section}[\w.]*`"):
        load_recipe(recipes[method], [override])


CONTRADICTIONS = [
    ("ipo", "objective.length_normalized=false", "ipo with summed log-probs"),
    ("dpo", "objective={divergence: js, label_smoothing: 0.1}", "label_smoothing is not read"),
    ("dpo", "objective={alpha: 0.3}", "alpha is only read with divergence: alpha"),
    ("dpo", "objective={length_normalized: true, ld_alpha: 0.5}", "choose one"),
    ("aot", "objective={wpo: true}", "no pair to weigh"),
    ("mpo", "objective={losses: {dpo: 1, hinge: 0}}", "has to be above 0"),
    ("grpo", "objective={beta: 0, kl: k1}", "kl is set but beta is 0"),
    ("grpo", "objective={beta: 0, refresh_every: 5}", "refresh_every is set but beta is 0"),
    ("grpo", "rollout.mismatch={cap: 3}", "level is none"),
    ("grpo", "rollout.mismatch={level: token, floor: 0.5}", "only read with bound: mask"),
    ("sft", "data=[{path: a.jsonl, weight: 1}, b.jsonl]", r"b\.jsonl has none"),
    ("sft", "data={path: a.jsonl, weight: 1}", "drop it from the only one"),
    ("grpo", "reward=[{function: reward_model}]", "goes with function: reward_model"),
    ("grpo", "reward=[{function: exact_answer, model: m}]", "goes with function: reward_model"),
]


@pytest.mark.parametrize(("method", "override", "message"), CONTRADICTIONS)
def test_a_contradiction_in_the_recipe(
    method: str, override: str, message: str, recipes: dict[str, Path]
) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipes[method], [override])


BEFORE_COMPUTE = [
    ("grpo", "objective={beta: 0.1, kl_in: reward, kl_weighted: true}", "choice of the loss term"),
    ("rloo", "objective={kl_weighted: true}", "choice of the loss term"),
    ("grpo", "model.lora={dropout: 0.1}", "which dropout would make noise of"),
    ("dpo", "model.lora={dropout: 0.1}", "which dropout would make noise of"),
    ("raft", "alarms.hacking=stop", "no held-out reward"),
    ("grpo", "alarms.proxy_gap=stop", "no held-out reward"),
    ("ppo", "alarms.slopes=off", "no held-out reward"),
    ("grpo", "alarms.dominance=stop", "one reward drives the whole advantage"),
    ("ppo", "alarms.zero_variance=stop", "learns from equal groups as well"),
    ("raft", "alarms.zero_variance=stop", "learns from equal groups as well"),
    ("dpo", "alarms.capability_regression=stop", "no general score"),
    ("dapo", "alarms.kl_runaway=stop", "no KL is measured"),
    ("grpo", "rollout.group_size=1", "takes its baseline from the group"),
    ("rloo", "rollout.group_size=1", "takes its baseline from the group"),
    ("online_dpo", "rollout.group_size=1", "compares the answers to one prompt"),
    ("raft", "rollout.group_size=1", "compares the answers to one prompt"),
    ("raft", "rollout.resample=2", "learns from equal groups"),
    ("reinforce_pp", "rollout.resample=2", "no group baseline"),
    ("ppo", "value=null", "no value model"),
    ("grpo", "objective={mini_batches: 5}", "cannot hold one group each"),
    ("kto", "run.batch_size=1", "compares the records of a step"),
    ("aot", "run.batch_size=1", "compares the records of a step"),
    ("grpo", "rollout.max_tokens=5000", "leaves no room for a prompt"),
    ("grpo", "rollout.overlong_buffer=12", "covers every answer"),
    (
        "dapo",
        "reward=[{function: exact_answer}, {function: overlong, options: {most: 12, buffer: 4}}]",
        "punished twice",
    ),
    ("grpo", "objective={epsilon_low: 0.3, epsilon_high: 0.2}", "epsilon_high >="),
    ("raft", "rollout.mismatch={level: token}", "does not read it"),
    ("grpo", "text.overlong=cut", "does not read it"),
    ("grpo", "text.cache=always", "does not read it"),
]


@pytest.mark.parametrize(("method", "override", "message"), BEFORE_COMPUTE)
def test_refused_before_any_compute_even_with_force(
    method: str, override: str, message: str, recipes: dict[str, Path]
) -> None:
    recipe = load_recipe(recipes[method], [override])
    with pytest.raises(UsageError, match=message) as caught:
        prepare(recipe, resume=False, overwrite=False, force=True)
    assert "fix:" in str(caught.value)
    assert not Path(recipe.output).exists()


FED = [
    ("raft", ["alarms.hacking=stop", "eval.data=tasks.jsonl"]),
    ("grpo", ["alarms.proxy_gap=stop", "eval.data=tasks.jsonl"]),
    ("ppo", ["alarms.slopes=off", "eval.data=tasks.jsonl"]),
    ("grpo", ["alarms.dominance=stop", "rollout.overlong_buffer=4"]),
    ("grpo", ["alarms.zero_variance=stop"]),
    ("online_dpo", ["alarms.zero_variance=stop"]),
    ("grpo", ["alarms.kl_runaway=stop", "objective.beta=0.1"]),
    ("raft", ["alarms.habits=stop", "alarms.length_drift=stop", "alarms.entropy_collapse=stop"]),
]


@pytest.mark.parametrize(("method", "overrides"), FED)
def test_an_alarm_that_is_fed_is_accepted(
    method: str, overrides: list[str], recipes: dict[str, Path]
) -> None:
    recipe = load_recipe(recipes[method], overrides)
    assert recipe.alarms != type(recipe.alarms)()
    assert prepare(recipe, resume=False, overwrite=False, force=False).total_steps == 6


@pytest.mark.parametrize("method", ["dpo", "simpo", "kto", "apo_zero", "cpo"])
def test_a_rate_known_to_displace_needs_force_or_an_adapter(
    method: str, recipes: dict[str, Path]
) -> None:
    fast = "optim.learning_rate=1e-3"
    with pytest.raises(RecipeError, match="--force"):
        prepare(load_recipe(recipes[method], [fast]), resume=False, overwrite=False, force=False)
    for options, force in (([fast], True), ([fast, "model.lora={rank: 2}"], False)):
        recipe = load_recipe(recipes[method], options)
        assert prepare(recipe, resume=False, overwrite=False, force=force).total_steps == 6


@pytest.mark.parametrize(
    ("component", "problem"),
    [
        ("{function: exact_answer, weight: 0}", "weight 0 never counts"),
        ("{function: exact_answer, gate: true, weight: 2}", "its weight is never read"),
        ("{function: exact_answer, gate: true, normalize: true}", "centring would make negative"),
        ("{function: exact_answer, clip: [1, 1]}", "leaves one value"),
        ("{function: f, file: a.py, url: 'http://127.0.0.1:1'}", "not both"),
    ],
)
def test_a_component_that_cannot_count_is_refused(
    component: str, problem: str, recipes: dict[str, Path]
) -> None:
    with pytest.raises(RecipeError, match=rf"--set reward: `reward.0`: .*{problem}"):
        load_recipe(recipes["grpo"], [f"reward=[{component}]"])


def test_a_column_that_a_reward_reads_has_to_be_there(
    recipes: dict[str, Path], write_rows: WriteRows
) -> None:
    write_rows("tasks.jsonl", [{"prompt": "p", "answer": "1"}, {"prompt": "q", "gold": "1"}])
    recipe = load_recipe(recipes["grpo"], ["reward=[{function: exact_answer}]"])
    with pytest.raises(DataError, match=r"tasks\.jsonl:2: reward exact_answer reads .*`answer`"):
        prepare(recipe, resume=False, overwrite=False, force=False)


def test_disliked_answers_are_not_demonstrations(
    recipes: dict[str, Path], write_rows: WriteRows
) -> None:
    rows = [{"prompt": "p", "completion": "c", "label": label} for label in (True, False)]
    write_rows("sft.jsonl", rows)
    with pytest.raises(DataError, match=r"sft\.jsonl:2: the answer has `label` false"):
        prepare(load_recipe(recipes["sft"]), resume=False, overwrite=False, force=False)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_resolved_recipe_can_be_trained_from(method: str, recipes: dict[str, Path]) -> None:
    recipe = load_recipe(recipes[method])
    again = recipes[method].with_suffix(".again.yaml")
    again.write_text(yaml.safe_dump(recipe.plain()))
    assert load_recipe(again) == recipe
    prepare(load_recipe(again), resume=False, overwrite=False, force=False)


def test_thumbs_of_one_kind_are_refused(recipes: dict[str, Path], write_rows: WriteRows) -> None:
    rows = [{"prompt": "p", "completion": f"answer {n}", "label": True} for n in range(4)]
    write_rows("thumbs.jsonl", rows)
    with pytest.raises(DataError, match=r"all 4 records have label true[\s\S]*fix: add records"):
        prepare(load_recipe(recipes["kto"]), resume=False, overwrite=False, force=False)


def test_a_margin_that_is_not_a_number_is_named(
    recipes: dict[str, Path], write_rows: WriteRows
) -> None:
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b", "gap": gap} for gap in (1, "much")]
    write_rows("pairs.jsonl", rows)
    recipe = load_recipe(recipes["reward_model"], ["objective.margin=gap", "eval=null"])
    with pytest.raises(DataError, match=r"pairs\.jsonl:2: `gap` is 'much', but objective"):
        prepare(recipe, resume=False, overwrite=False, force=False)


def test_a_folder_without_a_head_is_no_reward_model(
    recipes: dict[str, Path], model_folder: Path
) -> None:
    reward = f"reward=[{{function: reward_model, model: {model_folder}}}]"
    with pytest.raises(UsageError, match="holds no reward model"):
        prepare(load_recipe(recipes["grpo"], [reward]), resume=False, overwrite=False, force=False)


class TestMixtures:
    def prepared(self, recipes: dict[str, Path], method: str, *sources: str) -> object:
        listed = ", ".join(f"{{path: {s}.jsonl, weight: 1}}" for s in sources)
        recipe = load_recipe(recipes[method], [f"data=[{listed}]"])
        return prepare(recipe, resume=False, overwrite=False, force=False).checks.get("replayed")

    @pytest.mark.parametrize(
        ("method", "own", "replayed"),
        [
            ("dpo", "pairs", "sft"),
            ("kto", "thumbs", "sft"),
            ("grpo", "tasks", "sft"),
            ("sft", "sft", "text"),
            ("dpo", "pairs", "text"),
        ],
    )
    def test_demonstrations_beside_other_records_are_replayed(
        self, method: str, own: str, replayed: str, recipes: dict[str, Path]
    ) -> None:
        assert self.prepared(recipes, method, own, replayed) == self.count(recipes, replayed)

    def count(self, recipes: dict[str, Path], name: str) -> int:
        return len((recipes["sft"].parent / f"{name}.jsonl").read_text().splitlines())

    def test_two_sources_of_the_methods_own_records_are_both_its_own(
        self, recipes: dict[str, Path]
    ) -> None:
        assert self.prepared(recipes, "dpo", "pairs", "pairs") is None

    def test_a_reward_model_cannot_replay_text(self, recipes: dict[str, Path]) -> None:
        with pytest.raises(DataError, match=r"sft\.jsonl: a reward model writes no text"):
            self.prepared(recipes, "reward_model", "pairs", "sft")

    def test_nothing_but_demonstrations_is_refused(self, recipes: dict[str, Path]) -> None:
        with pytest.raises(DataError, match="every source holds demonstrations"):
            self.prepared(recipes, "dpo", "sft", "sft")

    def test_without_weights_other_records_are_a_mistake(self, recipes: dict[str, Path]) -> None:
        recipe = load_recipe(recipes["dpo"], ["data=[pairs.jsonl, sft.jsonl]"])
        with pytest.raises(DataError, match=r"sft\.jsonl:1: wrong columns for preference methods"):
            prepare(recipe, resume=False, overwrite=False, force=False)
