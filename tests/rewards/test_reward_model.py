"""Reward models: trained, read back by transformers, used as a reward."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from strop.demo.world import assistant, solution, user
from strop.errors import ModelError, UsageError
from strop.judge.asking.question import Question
from strop.judge.asking.reward_model import RewardModelJudge
from strop.judge.pairwise import bias_of, compare
from strop.judge.ranking import rank
from strop.model.load import load_reward_model, load_scalar, load_tokenizer
from strop.model.logprobs import padded_hidden
from strop.model.scalar import ScalarScorer
from strop.model.tree import lay_out
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.model import ModelRecipe
from strop.rewards.reward_model import reward_model
from strop.text.render import answer_tree
from strop.train.methods.reward_model import expected_calibration_error
from strop.train.run import train
from strop.types import Branch, Tree
from tests.support.runs import EQUATIONS, Finished, WriteRows, metrics

FAST = ("optim.learning_rate=3e-3", "run.steps=30", "run.batch_size=16", "eval.every=30")


@pytest.fixture
def trained(finished: Finished) -> Path:
    return finished("reward_model", *FAST) / "final"


def test_learns_to_score_the_plain_answer_higher(trained: Path) -> None:
    rows = metrics(trained.parent)
    assert rows[0]["loss"] == pytest.approx(0.693, abs=0.2)
    assert rows[-1]["eval_rewards/accuracies"] == 1.0
    assert rows[-1]["eval_loss"] < 0.1
    assert rows[-1]["eval_calibration/ece"] < 0.1
    assert not [name for name in rows[-1] if "/bin" in name]


def test_transformers_reads_the_same_scores(trained: Path) -> None:
    """A padded batch through the library's own classifier, prompt and answer in one row."""
    tokenizer = load_tokenizer(str(trained))
    model = AutoModelForSequenceClassification.from_pretrained(trained).eval()
    answers = [solution(EQUATIONS[0]), solution(EQUATIONS[1], filler=True), "x"]
    prompts = [user(e) for e in EQUATIONS[:3]]
    mine = reward_model(prompts, [assistant(a) for a in answers], model=str(trained))
    rows = []
    for prompt, answer in zip(prompts, answers, strict=True):
        tree = answer_tree(tokenizer, prompt, assistant(answer))
        rows.append(torch.tensor(tree.trunk + tree.branches[0].ids))
    pad = tokenizer.pad_token_id
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
    with torch.no_grad():
        theirs = model(input_ids=ids, attention_mask=(ids != pad).long()).logits.squeeze(1)
    assert mine == pytest.approx(theirs.tolist(), abs=1e-4)
    assert len({round(score, 3) for score in mine if score is not None}) == 3


def test_a_policy_learns_from_it(trained: Path, recipes: dict[str, Path]) -> None:
    reward = f"reward=[{{function: reward_model, model: {trained}}}]"
    options = [reward, "run.steps=30", "optim.learning_rate=5e-3", "objective.beta=0",
               "rollout={max_tokens: 12, group_size: 16}"]  # fmt: skip
    rows = metrics(train(load_recipe(recipes["grpo"], options)).parent)
    first, last = (sum(r["reward"] for r in part) / 5 for part in (rows[:5], rows[-5:]))
    # both means are over 5 x 64 answers: a rise of six standard errors
    error = rows[0]["reward_std"] * (2 / 320) ** 0.5
    assert last > first + 6 * error, (first, last, error)
    assert rows[0]["rewards/reward_model/mean"] == pytest.approx(rows[0]["reward"])


def test_margins_ask_for_more_distance(recipes: dict[str, Path], write_rows: WriteRows) -> None:
    rows = [
        {"prompt": user(e), "chosen": solution(e), "rejected": solution(e, filler=True)}
        for e in EQUATIONS
    ]
    write_rows("wide.jsonl", [{**row, "margin": 4.0} for row in rows])
    options = [*FAST, "run.steps=60", "eval.every=60", "data=wide.jsonl"]
    far = train(load_recipe(recipes["reward_model"], [*options, "objective.margin=margin"]))
    near = train(load_recipe(recipes["reward_model"], [*options, "output=runs/near"]))
    wide, narrow = (metrics(f.parent)[-1]["eval_rewards/margins"] for f in (far, near))
    assert wide > narrow + 0.5


def test_centering_holds_the_mean_near_zero(trained: Path, finished: Finished) -> None:
    centred = finished("reward_model", *FAST, "objective.centering=1.0")
    mean, free = (abs(metrics(run)[-1]["rewards/mean"]) for run in (centred, trained.parent))
    assert mean < 0.5 * free + 0.05


def test_a_language_model_is_no_reward_model(model_folder: Path) -> None:
    with pytest.raises(ModelError, match="method: reward_model"):
        load_reward_model(str(model_folder))


def test_an_adapter_with_a_head_is_read_back(recipes: dict[str, Path]) -> None:
    options = [*FAST, "model.lora={rank: 4}", "optim.learning_rate=1e-2"]
    final = train(load_recipe(recipes["reward_model"], options))
    assert (final / "adapter_model.safetensors").exists()
    prompts = [user(e) for e in EQUATIONS[:4]]
    good = reward_model(prompts, [assistant(solution(e)) for e in EQUATIONS[:4]], model=str(final))
    filler = [assistant(solution(e, filler=True)) for e in EQUATIONS[:4]]
    bad = reward_model(prompts, filler, model=str(final))
    assert all(g > b for g, b in zip(good, bad, strict=True))  # type: ignore[operator]


class TestScorer:
    trees = (
        Tree((3, 1, 4), (Branch((1, 5, 9), (True,) * 3), Branch((2, 6), (True, False)))),
        Tree((5, 3), (Branch((5, 8, 9, 7), (True,) * 4),)),
    )

    def test_values_stand_before_their_tokens(self, model_folder: Path) -> None:
        network = load_scalar(ModelRecipe(path=str(model_folder)))
        assert network.score.by_tree
        with torch.no_grad():
            values = network.score.values(self.trees)
            model = network.model
            rows = [(3, 1, 4, 1, 5, 9), (3, 1, 4, 2, 6), (5, 3, 5, 8, 9, 7)]
            expected = []
            for row, places in zip(rows, [(2, 3, 4), (2,), (1, 2, 3, 4)], strict=True):
                hidden = model.model(input_ids=torch.tensor([row])).last_hidden_state[0]
                expected += [float(model.score(hidden[place])) for place in places]
        assert values.tolist() == pytest.approx(expected, abs=1e-5)

    def test_finals_are_the_librarys_own_logits(self, model_folder: Path) -> None:
        network = load_scalar(ModelRecipe(path=str(model_folder)))
        with torch.no_grad():
            finals = network.score.finals(self.trees)
            rows = [(3, 1, 4, 1, 5, 9), (3, 1, 4, 2, 6), (5, 3, 5, 8, 9, 7)]
            expected = [float(network.model(torch.tensor([row])).logits) for row in rows]
        assert finals.tolist() == pytest.approx(expected, abs=1e-5)

    def test_padded_rows_give_the_same(self, model_folder: Path) -> None:
        network = load_scalar(ModelRecipe(path=str(model_folder)))
        with torch.no_grad():
            by_tree = network.score.values(self.trees)
            network.score.by_tree = False
            by_rows = network.score.values(self.trees)
            finals = network.score.finals(self.trees)
            network.score.by_tree = True
            assert torch.allclose(finals, network.score.finals(self.trees), atol=1e-5)
        assert torch.allclose(by_tree, by_rows, atol=1e-5)

    def test_a_model_that_ignores_the_interface_falls_back(self) -> None:
        config = LlamaConfig(
            vocab_size=40, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, num_labels=1, pad_token_id=0,
        )  # fmt: skip
        model = LlamaForSequenceClassification(config)
        forward = model.model.forward

        def deaf(*args: object, tree_plan: object = None, **kwargs: object) -> object:
            model.config._attn_implementation = "eager"
            return forward(*args, **{k: v for k, v in kwargs.items() if k != "tree_observer"})

        model.model.forward = deaf  # type: ignore[method-assign,assignment]
        with pytest.warns(UserWarning, match="falling back to padded rows"):
            scorer = ScalarScorer(model)
        assert not scorer.by_tree
        batch = lay_out(self.trees)
        hidden = padded_hidden(model, batch, batch.predictor_N, batch.branch_N)
        assert torch.allclose(scorer.values(self.trees), model.score(hidden).squeeze(-1))


def test_calibration_error_by_hand() -> None:
    """Two bins: 3/4 of the pairs at confidence 0.9 and all right, 1/4 at 0.6 and never right."""
    row = {
        "calibration/bin8/share": 0.75,
        "calibration/bin8/confidence": 0.9,
        "calibration/bin8/accuracy": 1.0,
        "calibration/bin2/share": 0.25,
        "calibration/bin2/confidence": 0.6,
        "calibration/bin2/accuracy": 0.0,
    }
    assert expected_calibration_error(row) == pytest.approx(0.75 * 0.1 + 0.25 * 0.6)


def test_judges_pairs_and_rankings(trained: Path) -> None:
    """The same numbers as the reward, and the plain answer wins in both orders."""
    equation = EQUATIONS[0]
    plain, padded = solution(equation), solution(equation, filler=True)
    judge = RewardModelJudge(str(trained))
    pair = Question("1", user(equation), (padded, plain))
    (found,) = compare(judge, [pair])
    assert found.verdict == 0.0
    scores = reward_model([user(equation)] * 2, [assistant(padded), assistant(plain)],
                          model=str(trained))  # fmt: skip
    gap = abs(scores[0] - scores[1])
    assert found.straight.confidence == pytest.approx(1 / (1 + math.exp(-gap)), abs=1e-5)
    assert bias_of([found]).consistency.mean == 1.0
    assert rank(judge, [Question("1", user(equation), (plain, padded, plain))]) == [(1.0, 0.0, 1.0)]
    assert judge.identity()["verdicts"] == "reward model"
    with pytest.raises(UsageError, match="no scale for a score"):
        judge.rule("score", [Question("1", "p", ("a",))])
    with pytest.raises(UsageError, match="cannot be told what counts"):
        judge.rule("pairwise", [Question("1", "p", ("a", "b"), "politeness")])
