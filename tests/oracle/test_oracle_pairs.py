"""strop against TRL 1.16 on records: one step's loss and gradient, whole vectors compared.

Each side goes its own way from the same rows to the same gradient: strop through recipe, loop and
micro-batches of a few trees, TRL through its trainer's tokenisation, collator and one padded batch.
The policy is the stored model with noise on its weights, the reference the stored model itself, so
that no log-ratio is 0. Where TRL means something else, the difference is asserted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from strop.demo.world import Equation, assistant, solution, user
from strop.recipe.loading.load import load_recipe
from strop.train.build import build_loop, build_state
from strop.train.methods.unpaired import other_answers
from strop.train.preflight.prepare import Prepared, prepare
from strop.types import Branch, Tree
from tests.oracle.steps import (
    EQUATIONS,
    TRL_OPTIONS,
    Step,
    agree,
    combined,
    differ,
    shake,
    shaken,
    step_of,
    stored,
)
from tests.support.models import Recorder
from tests.support.runs import WriteRows

pytestmark = pytest.mark.oracle


def strop_step(
    folder: Path, method: str, data: Path,
    objective: Mapping[str, Any] | None = None, trees: Sequence[Tree] | None = None,
) -> tuple[Step, Prepared]:  # fmt: skip
    """The first step of a recipe over all records of `data`, with the policy shaken before it;
    `trees` take the place of those that the records render to."""
    rows = data.read_text().count("\n")
    recipe_path = data.parent / f"{method}.yaml"
    plain: dict[str, Any] = {
        "method": method,
        "output": f"runs/{method}",
        "model": {"path": str(folder)},
        "data": data.name,
        "optim": {"learning_rate": 1e-6, "max_grad_norm": 1e9},
        "run": {"steps": 1, "batch_size": rows, "micro_batch_tokens": 100},
    }
    if objective:
        plain["objective"] = dict(objective)
    recipe_path.write_text(yaml.safe_dump(plain))
    recipe = load_recipe(recipe_path, [])
    prepared = prepare(recipe, resume=False, overwrite=True, force=True)
    prepared.folder.mkdir(parents=True, exist_ok=True)
    if trees is not None:
        assert prepared.rendered is not None
        prepared = replace(prepared, rendered=replace(prepared.rendered, trees=tuple(trees)))
    state = build_state(recipe, recipe.model)
    recorder = Recorder(state.network.trainable())
    state.optimizer = recorder
    steps, _ = build_loop(state, prepared)
    shake(state.network.model)
    row = next(steps).metrics
    (gradient,) = recorder.seen
    return Step(row["loss"], gradient), prepared


def branch_ids(trees: Sequence[Tree], number: int) -> list[list[int]]:
    """Prompt and answer of every tree's branch of that number."""
    return [[*tree.trunk, *tree.branches[number].ids] for tree in trees]


def padded_ids(tokens_BT: torch.Tensor, mask_BT: torch.Tensor) -> list[list[int]]:
    rows = zip(tokens_BT, mask_BT.bool(), strict=True)
    return [tokens[mask].tolist() for tokens, mask in rows]


MARGINS = [0.5, 1.0, 0.0, 2.0, 0.25, 1.5]


def answer(equation: Equation, *, slip: bool = False, filler: bool = False) -> list[dict[str, str]]:
    """The last line of a solution, with or without an opening. Short, so that float32's rounding
    of an answer's log-prob (1e-7 of its size) stays below what is compared."""
    lines = solution(equation, slip=slip, filler=filler).split("\n")
    return assistant("\n".join(([lines[0]] if filler else []) + lines[-1:]))


def pair_rows() -> list[dict[str, Any]]:
    """Pairs in which now the chosen, now the rejected answer is the longer one."""
    return [
        {
            "prompt": user(e),
            "chosen": answer(e, filler=n % 2 == 0),
            "rejected": answer(e, slip=True, filler=n % 3 == 1),
            "margin": MARGINS[n],
        }
        for n, e in enumerate(EQUATIONS)
    ]


def even_rows() -> list[dict[str, Any]]:
    """The same with one chosen answer throughout, so that all are equally long."""
    return [{**row, "chosen": answer(EQUATIONS[0])} for row in pair_rows()]


def thumb_rows() -> list[dict[str, Any]]:
    judged = ["chosen", "rejected", "rejected", "chosen", "rejected", "rejected"]
    return [
        {"prompt": row["prompt"], "completion": row[name], "label": name == "chosen"}
        for row, name in zip(pair_rows(), judged, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Sides:
    """One test's two trainers over the same rows."""

    folder: Path
    scratch: Path
    write_rows: WriteRows

    def strop(
        self, method: str, objective: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
    ) -> Step:
        return strop_step(self.folder, method, self.write_rows("rows.jsonl", rows), objective)[0]

    def trl(
        self, classes: tuple[Any, Any], options: Mapping[str, Any],
        rows: Sequence[Mapping[str, Any]], **more: Any,
    ) -> Any:  # fmt: skip
        """A trainer of TRL over these rows with the shaken policy."""
        config, trainer = classes
        args = config(
            output_dir=str(self.scratch / "trl"),
            per_device_train_batch_size=len(rows),
            **TRL_OPTIONS,
            **options,
        )
        model = more.pop("model", None) or shaken(self.folder)
        model.train()
        return trainer(
            model=model,
            args=args,
            train_dataset=datasets.Dataset.from_list([dict(row) for row in rows]),
            processing_class=AutoTokenizer.from_pretrained(self.folder),
            **more,
        )

    def trl_step(self, trainer: Any, examples: Sequence[Any] | None = None) -> Step:
        """The trainer's loss over its data, or over other tokenised examples."""
        inputs = trainer.data_collator(list(examples or trainer.train_dataset))
        return step_of(trainer.model, trainer.compute_loss(trainer.model, inputs))

    def trl_dpo(self, options: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Step:
        trl = pytest.importorskip("trl")
        classes = (trl.DPOConfig, trl.DPOTrainer)
        options = {"max_length": None, **options}
        return self.trl_step(self.trl(classes, options, rows, ref_model=stored(self.folder)))


@pytest.fixture
def sides(model_folder: Path, tmp_path: Path, write_rows: WriteRows) -> Sides:
    return Sides(model_folder, tmp_path, write_rows)


def test_both_read_the_same_tokens(sides: Sides) -> None:
    trl = pytest.importorskip("trl")
    rows = pair_rows()
    _, prepared = strop_step(sides.folder, "dpo", sides.write_rows("rows.jsonl", rows))
    assert prepared.rendered is not None
    trees = prepared.rendered.trees
    trainer = sides.trl((trl.DPOConfig, trl.DPOTrainer), {"max_length": None}, rows)
    inputs = trainer.data_collator(list(trainer.train_dataset))
    assert padded_ids(inputs["input_ids"], inputs["attention_mask"]) == [
        *branch_ids(trees, 0), *branch_ids(trees, 1)
    ]  # fmt: skip
    supervised = [list(tree.branches[n].ids) for n in (0, 1) for tree in trees]
    assert padded_ids(inputs["input_ids"], inputs["completion_mask"]) == supervised
    for n in (0, 1):
        assert len({len(tree.branches[n].ids) for tree in trees}) > 2


SAME: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "sigmoid": ("dpo", {"beta": 0.1}, {"beta": 0.1}),
    "sigmoid, sharp": ("dpo", {"beta": 0.7}, {"beta": 0.7}),
    "sigmoid_norm": ("dpo", {"beta": 2.0, "length_normalized": True}, {"beta": 2.0}),
    "hinge": ("hinge", {"beta": 0.2}, {"beta": 0.2}),
    "ipo": ("ipo", {"beta": 0.1}, {"beta": 0.1}),
    "exo_pair": ("exo_pair", {"beta": 0.1, "label_smoothing": 1e-3},
                 {"beta": 0.1, "label_smoothing": 1e-3}),
    "nca_pair": ("nca_pair", {"beta": 0.1}, {"beta": 0.1}),
    "robust": ("robust_dpo", {"beta": 0.1, "label_smoothing": 0.2},
               {"beta": 0.1, "label_smoothing": 0.2}),
    "bco_pair": ("bco_pair", {"beta": 0.1}, {"beta": 0.1}),  # at step 1: no shift yet
    "sppo_hard": ("sppo_hard", {"beta": 0.01}, {"beta": 0.01}),
    "aot": ("aot", {"beta": 0.1, "label_smoothing": 0.1}, {"beta": 0.1, "label_smoothing": 0.1}),
    "aot_unpaired": ("aot_unpaired", {"beta": 0.1, "label_smoothing": 0.1},
                     {"beta": 0.1, "label_smoothing": 0.1}),
    "apo_zero": ("apo_zero", {"beta": 0.1}, {"beta": 0.1}),
    "apo_down": ("apo_down", {"beta": 0.1}, {"beta": 0.1}),
    "discopop": ("discopop", {"beta": 0.05, "temperature": 0.05},
                 {"beta": 0.05, "discopop_tau": 0.05}),
    "sigmoid, LD-DPO": ("dpo", {"ld_alpha": 0.3}, {"ld_alpha": 0.3}),
    "apo_zero, LD-DPO": ("apo_zero", {"ld_alpha": 0.6}, {"ld_alpha": 0.6}),
    "sigmoid, forward KL": ("dpo", {"divergence": "forward_kl"},
                            {"f_divergence_type": "forward_kl"}),
    "sigmoid, JS": ("dpo", {"divergence": "js"}, {"f_divergence_type": "js_divergence"}),
    # TRL's coefficient is 1 - alpha of the paper
    "sigmoid, alpha": ("dpo", {"divergence": "alpha", "alpha": 0.3},
                       {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.7}),
    "sigmoid, WPO": ("dpo", {"wpo": True}, {"use_weighting": True}),
    "nca_pair, WPO": ("nca_pair", {"wpo": True}, {"use_weighting": True}),
}  # fmt: skip
"""strop's method and options beside TRL's options; the loss type is the key's first word."""


@pytest.mark.parametrize("name", SAME)
def test_dpo_family(name: str, sides: Sides) -> None:
    method, ours, theirs = SAME[name]
    options = {"loss_type": name.split(",")[0], "beta": 0.1, **theirs}
    agree(sides.strop(method, ours, pair_rows()), sides.trl_dpo(options, pair_rows()))


MIXED: dict[str, tuple[str, dict[str, Any], list[str], list[float]]] = {
    "RPO": ("dpo", {"nll_weight": 0.5}, ["sigmoid", "sft"], [1.0, 0.5]),
    "IPO and NLL": ("ipo", {"nll_weight": 0.2}, ["ipo", "sft"], [1.0, 0.2]),
    "MPO": ("mpo", {"losses": {"dpo": 0.8, "bco_pair": 0.2}, "nll_weight": 1.0},
            ["sigmoid", "bco_pair", "sft"], [0.8, 0.2, 1.0]),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXED)
def test_mixtures_where_all_chosen_answers_are_equally_long(name: str, sides: Sides) -> None:
    method, ours, losses, weights = MIXED[name]
    options = {"loss_type": losses, "loss_weights": weights, "beta": 0.1}
    agree(sides.strop(method, ours, even_rows()), sides.trl_dpo(options, even_rows()))


def test_nll_beside_a_preference_loss_counts_pairs_not_tokens(sides: Sides) -> None:
    """RPO (arXiv 2404.19733, equation 2) divides each pair's NLL by its own answer's length; TRL
    divides by the tokens of the micro-batch, so long answers count more there."""
    options = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 20.0], "beta": 0.1}
    differ(
        sides.strop("dpo", {"nll_weight": 20.0}, pair_rows()), sides.trl_dpo(options, pair_rows())
    )


def test_trl_ignores_label_smoothing_of_dpo(sides: Sides) -> None:
    """Its sigmoid loss is the same with and without; cDPO follows from two of its other losses.

    With l and l' the logistic losses of the label and of its opposite: sigmoid = l and
    robust = ((1 - e) l - e l') / (1 - 2 e), so (1 - e) l + e l' = 2 (1 - e) l - (1 - 2 e) robust.
    """
    smooth = 0.2
    plain = sides.trl_dpo({"loss_type": "sigmoid", "beta": 0.1}, pair_rows())
    smoothed = sides.trl_dpo(
        {"loss_type": "sigmoid", "beta": 0.1, "label_smoothing": smooth}, pair_rows()
    )
    assert smoothed.loss == plain.loss
    assert torch.equal(smoothed.gradient, plain.gradient)
    robust = sides.trl_dpo(
        {"loss_type": "robust", "beta": 0.1, "label_smoothing": smooth}, pair_rows()
    )
    ours = sides.strop("dpo", {"beta": 0.1, "label_smoothing": smooth}, pair_rows())
    agree(ours, combined((2 * (1 - smooth), plain), (2 * smooth - 1, robust)))
    differ(ours, smoothed)


def test_trl_cannot_weigh_the_hinge_loss(sides: Sides) -> None:
    """WPO's weight is multiplied into the result of relu in place, which autograd refuses."""
    with pytest.raises(RuntimeError, match="inplace operation"):
        sides.trl_dpo({"loss_type": "hinge", "beta": 0.1, "use_weighting": True}, pair_rows())


def test_trl_lets_the_weights_of_wpo_exceed_1(sides: Sides) -> None:
    """Answers likelier than what the policy samples itself: the paper caps the weight at 1 (WPO,
    arXiv 2406.11827, equation 2), so that such a pair counts once; TRL does not."""
    trl = pytest.importorskip("trl")
    classes, ref_model = (trl.DPOConfig, trl.DPOTrainer), stored(sides.folder)
    options = {"max_length": None, "beta": 0.1}
    weighted = sides.trl(
        classes, {**options, "use_weighting": True}, pair_rows(), ref_model=ref_model
    )
    plain = sides.trl(classes, options, pair_rows(), ref_model=stored(sides.folder))
    trees, examples = [], []
    for row in plain.train_dataset:
        ids = list(row["prompt_ids"])
        for _ in range(5):
            ids.append(int(plain.model(torch.tensor([ids])).logits[0, -1].argmax()))
        greedy = ids[len(row["prompt_ids"]) :]
        answers = {"chosen_ids": greedy, "rejected_ids": greedy[:3]}
        examples.append({"prompt_ids": row["prompt_ids"], **answers})
        branches = (Branch(tuple(a), (True,) * len(a)) for a in answers.values())
        trees.append(Tree(tuple(row["prompt_ids"]), tuple(branches)))
    data = sides.write_rows("rows.jsonl", pair_rows())
    ours, _ = strop_step(sides.folder, "dpo", data, {"wpo": True}, trees)
    agree(ours, sides.trl_step(plain, examples))
    theirs = sides.trl_step(weighted, examples)
    differ(ours, theirs)
    assert theirs.loss > 1.01 * ours.loss


def trl_cpo(sides: Sides, options: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Step:
    pytest.importorskip("trl")
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    return sides.trl_step(sides.trl((CPOConfig, CPOTrainer), options, rows))


def test_cpo(sides: Sides) -> None:
    """With its NLL, a token mean in TRL: chosen answers of one length."""
    ours = sides.strop("cpo", {"beta": 0.2, "label_smoothing": 0.1}, even_rows())
    options = {"loss_type": "sigmoid", "beta": 0.2, "label_smoothing": 0.1}
    agree(ours, trl_cpo(sides, options, even_rows()))


def test_simpo(sides: Sides) -> None:
    """Alike with cpo_alpha 0; left at its default of 1, TRL adds an NLL term that is not in the
    paper (arXiv 2405.14734, equation 6) and that ours adds only when asked."""
    options = {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.5}
    plain = {"beta": 2.0, "gamma": 0.5}
    agree(
        sides.strop("simpo", plain, pair_rows()),
        trl_cpo(sides, {**options, "cpo_alpha": 0.0}, pair_rows()),
    )
    default = trl_cpo(sides, options, even_rows())
    agree(sides.strop("simpo", {**plain, "nll_weight": 1.0}, even_rows()), default)
    differ(sides.strop("simpo", plain, even_rows()), default)


def test_orpo(sides: Sides) -> None:
    """The odds-ratio terms are alike; the NLL is the answer's here, the prompt's too in TRL.

    Both losses are linear in beta: two betas give the odds-ratio term alone, and TRL at beta 0 is
    its NLL, which equals continued pretraining on prompt and chosen answer. The paper's L_SFT
    (arXiv 2403.07691, equation 6) is the likelihood of the answer given the prompt.
    """
    pytest.importorskip("trl")
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    def theirs(beta: float) -> Step:
        classes = (ORPOConfig, ORPOTrainer)
        return sides.trl_step(sides.trl(classes, {"beta": beta}, pair_rows()))

    low, high = (sides.strop("orpo", {"beta": beta}, pair_rows()) for beta in (1.0, 11.0))
    odds_ratio = combined((0.1, high), (-0.1, low))
    nll = theirs(0.0)
    agree(odds_ratio, combined((0.1, theirs(10.0)), (-0.1, nll)))
    tokenizer = AutoTokenizer.from_pretrained(sides.folder)
    texts = [
        tokenizer.apply_chat_template(row["prompt"] + row["chosen"], tokenize=False)
        for row in pair_rows()
    ]
    documents = [{"text": text.removesuffix(tokenizer.eos_token)} for text in texts]
    agree(sides.strop("cpt", {}, documents), nll)
    differ(combined((1.0, low), (-1.0, odds_ratio)), nll)


@pytest.mark.parametrize("method", ["kto", "apo_zero_unpaired"])
def test_thumbs(method: str, sides: Sides) -> None:
    """TRL rotates the answers within a micro-batch, ours are shifted along a seeded order over all
    records: TRL is given our answers of other records and the whole step as one micro-batch."""
    trl = pytest.importorskip("trl")
    objective = {"beta": 0.2, "desirable_weight": 1.3, "undesirable_weight": 0.7}
    rows = thumb_rows()
    ours, prepared = strop_step(sides.folder, method, sides.write_rows("t.jsonl", rows), objective)
    options = {"loss_type": method, **objective, "max_length": None}
    classes = (trl.KTOConfig, trl.KTOTrainer)
    trainer = sides.trl(classes, options, rows, ref_model=stored(sides.folder))
    assert prepared.rendered is not None
    trees = prepared.rendered.trees
    examples = list(trainer.train_dataset)
    if method == "kto":
        others = [
            list(other.branches[0].ids) for other in other_answers(trees, seed=0, max_length=1024)
        ]
        assert others != [example["KL_completion_ids"] for example in examples]
        examples = [
            {**example, "KL_completion_ids": other}
            for example, other in zip(examples, others, strict=True)
        ]
    inputs = trainer.data_collator(examples)
    assert padded_ids(inputs["input_ids"], inputs["attention_mask"]) == branch_ids(trees, 0)
    theirs = step_of(trainer.model, trainer.compute_loss(trainer.model, inputs))
    agree(ours, theirs)
    assert (trainer._metrics["train"]["kl"][-1] > 0.1) == (method == "kto")


@pytest.mark.parametrize("margin", [False, True])
@pytest.mark.parametrize("centering", [0.0, 0.1])
def test_reward_model(margin: bool, centering: float, sides: Sides) -> None:
    trl = pytest.importorskip("trl")
    rows = pair_rows()
    if not margin:
        rows = [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in rows]
    objective = {"centering": centering, "margin": "margin" if margin else None}
    ours = sides.strop("reward_model", objective, rows)
    torch.manual_seed(0)  # the recipe's seed: the same fresh head
    model = AutoModelForSequenceClassification.from_pretrained(
        sides.folder, num_labels=1, dtype=torch.float32
    )
    shake(model)
    options = {"center_rewards_coefficient": centering or None, "max_length": None}
    classes = (trl.RewardConfig, trl.RewardTrainer)
    agree(ours, sides.trl_step(sides.trl(classes, options, rows, model=model)))


@pytest.mark.parametrize(("method", "loss_type"), [("sft", "nll"), ("dft", "dft")])
def test_supervised(method: str, loss_type: str, sides: Sides) -> None:
    trl = pytest.importorskip("trl")
    rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in pair_rows()]
    options = {"loss_type": loss_type, "max_length": None}
    trainer = sides.trl((trl.SFTConfig, trl.SFTTrainer), options, rows)
    agree(sides.strop(method, {}, rows), sides.trl_step(trainer))
