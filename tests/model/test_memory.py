"""What forwards, the vocabulary and the sampler may hold at once, counted in bytes of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from strop.engines.draws import DrawKey
from strop.engines.engine import Sampling, requests_of
from strop.engines.local import engine as local
from strop.engines.local.continuous import Needed, Room
from strop.model import activations, logprobs
from strop.model.activations import kept_by_a_token, tokens_at_once
from strop.model.decode import slot_bytes
from strop.model.logprobs import TreeScorer
from strop.model.network import Policy
from strop.recipe.train.run import RunRecipe
from strop.train.loop.micro_batches import forward_tokens, micro_batches, split_group
from strop.train.loop.optim import Optimizers
from strop.train.loop.state import TrainState
from strop.train.rundir.checkpoint import capture, random_states
from strop.types import Branch, Tree
from tests.support.held import Held
from tests.support.sampling import engine_of, prompted, sample

VOCABULARY = 4096


def policy_of_size(**sizes: int) -> Policy:
    torch.manual_seed(0)
    config = LlamaConfig(**{
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 96,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
        "tie_word_embeddings": True, **sizes,
    })  # fmt: skip
    model = LlamaForCausalLM(config)
    return Policy(model, None, False, TreeScorer(model))


def trees_of(count: int, trunk: int = 20, answer: int = 30) -> list[Tree]:
    draw = torch.Generator().manual_seed(1)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(4, VOCABULARY, (length,), generator=draw).tolist())

    return [Tree(ids(trunk), (Branch(ids(answer), (True,) * answer),)) for _ in range(count)]


def learnt(policy: Policy, trees: Sequence[Tree], max_tokens: int) -> tuple[torch.Tensor, Held]:
    """The gradient of the summed loss, and what was held for it."""
    policy.model.zero_grad(set_to_none=True)
    with Held() as held:
        for batch in micro_batches(trees, max_tokens):
            (-policy.score(batch.trees).logprobs_N.sum()).backward()
    return torch.cat([p.grad.flatten() for p in policy.trainable() if p.grad is not None]), held


def test_no_tensor_of_a_loss_holds_more_of_the_vocabulary_than_a_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy, trees = policy_of_size(), trees_of(16)  # 480 targets: 1.9 million logits
    whole, held = learnt(policy, trees, 10_000)
    assert held.largest >= 4 * 480 * VOCABULARY  # all logits at once, where they fit a chunk
    monkeypatch.setattr(logprobs, "CHUNK_ELEMENTS", 64 * VOCABULARY)
    in_chunks, held = learnt(policy, trees, 10_000)
    assert held.largest <= 4 * 64 * VOCABULARY
    torch.testing.assert_close(in_chunks, whole, rtol=1e-4, atol=1e-5)


def test_what_a_token_keeps_is_what_a_forward_holds() -> None:
    policy = policy_of_size(num_hidden_layers=6)
    with Held() as held:
        batch = logprobs.lay_out(trees_of(8, trunk=32, answer=32))
        hidden = logprobs.tree_hidden_rows(policy.model, batch, batch.predictor_N)
        alive = held.now()
    del hidden
    assert kept_by_a_token(policy) == pytest.approx(alive / (8 * 64), rel=0.2)
    with torch.no_grad():
        policy.model.requires_grad_(False)
        assert kept_by_a_token(policy) == 0  # nothing is kept where nothing is learnt


def test_forwards_keep_their_activations_within_their_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy, trees = policy_of_size(num_hidden_layers=6), trees_of(64)
    assert forward_tokens(RunRecipe(steps=1), policy) == activations.MOST_TOKENS  # a small model
    assert forward_tokens(RunRecipe(steps=1, micro_batch_tokens=77), policy) == 77
    monkeypatch.setattr(activations, "AT_LEAST", {"cpu": 0})
    held = 16 * sum(p.numel() for p in policy.model.parameters())
    tokens = tokens_at_once(policy)
    assert tokens == held // 3 // kept_by_a_token(policy) < 1000
    gradient, small = learnt(policy, trees, tokens)
    whole, large = learnt(policy, trees, 10_000)
    assert small.peak < 0.5 * large.peak
    torch.testing.assert_close(gradient, whole, rtol=1e-4, atol=1e-5)


def test_measuring_a_model_leaves_no_tensor_and_no_random_number_behind() -> None:
    policy = policy_of_size()
    before = torch.get_rng_state()
    with Held() as held:
        kept_by_a_token(policy)
        assert held.now() == 0
    assert torch.equal(torch.get_rng_state(), before)


def test_a_group_is_not_cut_so_small_that_its_prompt_is_read_over_and_over() -> None:
    answers = tuple(Branch((7,) * 50, (True,) * 50) for _ in range(16))
    tree = Tree((5,) * 100, answers)
    own, said = RunRecipe(steps=1), RunRecipe(steps=1, micro_batch_tokens=200)
    each = [1] * 16
    assert [count for _, count in split_group(tree, each, said, 200)] == [2] * 8
    parts = split_group(tree, each, own, 200)
    assert [len(part.branches) for part, _ in parts] == [14, 2]  # 8 times the trunk


def test_keys_bound_how_many_answers_are_decoded_at_once() -> None:
    policy = policy_of_size()
    assert slot_bytes(policy.model) == 2 * 3 * 2 * 8 * 4  # k and v, layers, heads, size, float32
    asked = requests_of(prompted([(5,) * 100]), Sampling(max_tokens=5), KEY, 4)
    needed = Needed(asked)
    assert needed.worth_sharing()
    assert needed.slots(shared=True) == 120  # a long prompt is kept once
    assert needed.slots(shared=False) == 420
    short = requests_of(prompted([(5,) * 10, (6,) * 12]), Sampling(max_tokens=5), KEY, 2)
    assert not Needed(short).worth_sharing()
    assert Needed(short).slots(shared=False) == 4 * 17  # all as wide as the longest
    bound = Room(max_rows=3, max_slots=34, least_rows=1)
    assert [bound.has(Needed(short[-n:]), shared=False) for n in (1, 2, 3)] == [True, True, False]
    assert not Room(max_rows=3).has(Needed(short), shared=False)
    assert Room(max_rows=3, max_slots=0, least_rows=3).has(Needed(short[:3]), shared=False)


KEY = DrawKey(0, "training", 0)


def test_answers_are_the_same_however_few_keys_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"group_size": 2, "sampling": Sampling(temperature=1.0, max_tokens=40),
             "seed": 3, "step": 1}  # fmt: skip
    prompts = [(5 + n % 30, 6 + n // 30, 7) for n in range(40)]
    model = policy_of_size(vocab_size=40).model
    wide = sample(engine_of(model), prompts, **asked)
    monkeypatch.setattr(local, "LEAST_ROWS", 4)
    monkeypatch.setattr(local, "KEYS_AT_LEAST", {"cpu": 0})
    few = engine_of(model)
    assert few._max_slots is not None
    assert few._max_slots < 40 * 43
    narrow = sample(few, prompts, **asked)
    assert [[c.ids for c in group] for group in narrow] == [[c.ids for c in g] for g in wide]


def test_the_last_checkpoint_is_no_copy() -> None:
    policy = policy_of_size()
    state = TrainState(policy, Optimizers([torch.optim.AdamW(policy.trainable(), lr=1e-3)]))
    learnt(policy, trees_of(1), 100)
    state.optimizer.step(1e-3)
    weight = policy.model.get_decoder().layers[0].mlp.up_proj.weight
    name = "model.layers.0.mlp.up_proj.weight"
    for copy in (True, False):
        taken = capture(state, random_states(), copy=copy).networks[""][1][name]
        assert torch.equal(taken, weight)
        assert (taken.data_ptr() == weight.data_ptr()) is not copy
