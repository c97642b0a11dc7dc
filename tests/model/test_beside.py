"""A teacher's adapter beside the student's, over one base: the merged teacher's numbers, and no
second base."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from strop.demo.model import raw_model
from strop.errors import ModelError
from strop.losses.distillation import reverse_kl
from strop.model.load import load_policy, load_transformer
from strop.model.logprobs import Head, TreeScorer
from strop.model.network import Policy
from strop.model.save import save_network
from strop.model.teacher import LocalTeacher, beside, in_common, load_teacher
from strop.recipe.train.model import LoraRecipe, ModelRecipe
from strop.recipe.train.teacher import ModelTeacher
from strop.types import Branch, Tree

TREES = [
    Tree((1, 2, 3 + n), (Branch(tuple(range(9, 39)), (True,) * 30), Branch((7, 8), (True, False))))
    for n in range(3)
]
WAYS: dict[str, dict[str, Any]] = {
    "all": {"target_modules": "all-linear"},
    "few": {"target_modules": ["v_proj"], "r": 8, "use_rslora": True},
    "dora": {"target_modules": ["q_proj", "down_proj"], "use_dora": True},
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "whole_head": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
}
"""What a teacher's adapter may change, beside a student whose adapter is on other layers."""


@pytest.fixture(scope="module")
def base(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose head has weights of its own, in rows of whole blocks of 64."""
    folder = tmp_path_factory.mktemp("base")
    model = raw_model(tokenizer, seed=0, width=64)
    model.config.tie_word_embeddings = False
    torch.manual_seed(0)
    type(model)(model.config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_adapter(base: Path, tokenizer: Any, folder: Path, **options: Any) -> Path:
    torch.manual_seed(4)
    config = LoraConfig(task_type="CAUSAL_LM", **{"r": 4, "lora_dropout": 0.3, **options})
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name or "magnitude" in name or "modules_to_save" in name:
                weight += 0.1 * torch.randn(weight.shape)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(params=WAYS)
def adapter(request: pytest.FixtureRequest, base: Path, tokenizer: Any, tmp_path: Path) -> Path:
    return write_adapter(base, tokenizer, tmp_path / "adapter", **WAYS[request.param])


def student(base: Path, targets: Any = ("q_proj", "up_proj"), **options: Any) -> Policy:
    """A policy whose adapter was trained a little."""
    lora = LoraRecipe(rank=4, targets=targets if isinstance(targets, str) else list(targets))
    policy = load_policy(ModelRecipe(path=str(base), lora=lora, **options))
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in policy.trainable():
            weight.add_(0.1 * torch.randn(weight.shape, generator=draw))
    return policy


def apart(folder: Path, policy: Policy, **options: Any) -> LocalTeacher:
    """The same teacher as a model of its own."""
    loaded = load_teacher(ModelTeacher(path=str(folder), **options), "cpu")
    return LocalTeacher(loaded, in_common(policy, loaded))


def whole(teacher: LocalTeacher) -> torch.Tensor:
    return teacher.rows(TREES).logprobs(slice(None), 1.0)


def test_reads_as_the_merged_teacher_does(base: Path, adapter: Path) -> None:
    policy = student(base)
    own = policy.score(TREES).logprobs_N.detach()
    shared = LocalTeacher(policy, in_common(policy), beside(policy, str(adapter)))
    merged = apart(adapter, policy)
    torch.testing.assert_close(whole(shared), whole(merged), rtol=0, atol=1e-5)
    sampled = shared.logprobs(TREES)
    torch.testing.assert_close(sampled, merged.logprobs(TREES), rtol=0, atol=1e-5)
    assert float((sampled - own).abs().mean()) > 0.01
    torch.testing.assert_close(policy.score(TREES).logprobs_N, own, rtol=0, atol=1e-6)


def test_in_float64_its_hidden_states_are_the_merged_ones(base: Path, tokenizer: Any,
                                                          tmp_path: Path) -> None:  # fmt: skip
    adapter = write_adapter(base, tokenizer, tmp_path / "adapter", **WAYS["all"])
    policy = student(base)
    weights = beside(policy, str(adapter))
    policy.model.double()
    merged = load_transformer(str(adapter), torch.float64).eval()
    found = LocalTeacher(policy, in_common(policy), weights).rows(TREES).hidden_ND
    wanted = LocalTeacher(Policy(merged, None, False, TreeScorer(merged)), 1).rows(TREES).hidden_ND
    assert found.dtype == torch.float64
    assert float((found - wanted).abs().max()) <= 1e-10


def test_the_student_has_the_gradient_that_another_model_as_teacher_gives(
    base: Path, adapter: Path
) -> None:
    policy = student(base)
    merged = apart(adapter, policy)
    trained = policy.trainable()
    shared = LocalTeacher(policy, in_common(policy), beside(policy, str(adapter)))
    assert policy.model.training
    assert all(one is other for one, other in zip(policy.trainable(), trained, strict=True))
    teachers = {n: p for n, p in policy.model.named_parameters() if ".teacher." in n}
    before = {name: p.detach().clone() for name, p in teachers.items()}
    found = []
    for teacher in (shared, merged):
        rows = teacher.rows(TREES)
        loss_N = policy.score(TREES, Head(against=rows.against(reverse_kl, 1.0))).divergence_N
        assert loss_N is not None
        loss_N.sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in trained if p.grad is not None]))
        policy.model.zero_grad()
    assert float((found[0] - found[1]).norm()) <= 1e-5 * float(found[1].norm())
    assert found[0].count_nonzero() > 0.9 * found[0].numel()
    assert teachers
    for name, parameter in teachers.items():
        assert parameter.grad is None
        assert not parameter.requires_grad
        assert torch.equal(parameter, before[name])


def test_there_is_one_base_and_only_the_students_adapter_is_saved(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    policy = student(base)
    save_network(policy, tmp_path / "before")
    held = storages(policy)
    beside(policy, str(adapter))
    file = adapter / "adapter_model.safetensors"
    assert storages(policy) - held <= file.stat().st_size
    save_network(policy, tmp_path / "after")
    names = [sorted(p.name for p in (tmp_path / at).rglob("*")) for at in ("before", "after")]
    assert names[0] == names[1]
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        one, other = ((tmp_path / at / name).read_bytes() for at in ("before", "after"))
        assert one == other


def storages(policy: Policy) -> int:
    """Bytes of all different memory that parameters are in."""
    found = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes()
             for p in policy.model.parameters()}  # fmt: skip
    return sum(found.values())


def test_no_random_number_of_the_run_is_drawn(base: Path, adapter: Path) -> None:
    policy = student(base)
    state = torch.get_rng_state()
    beside(policy, str(adapter))
    assert torch.equal(torch.get_rng_state(), state)


def test_four_bit_weights_are_shared_as_well(base: Path, tokenizer: Any, tmp_path: Path) -> None:
    adapter = write_adapter(base, tokenizer, tmp_path / "adapter", **WAYS["all"])
    policy = student(base, "all-linear", quantize="nf4")
    shared = LocalTeacher(policy, in_common(policy), beside(policy, str(adapter)))
    own = apart(adapter, policy, quantize="nf4")
    torch.testing.assert_close(whole(shared), whole(own), rtol=0, atol=1e-5)
    exact = apart(adapter, policy)
    assert float((whole(shared) - whole(exact)).abs().max()) > 1e-3  # 4 bits are not 32


def test_an_adapter_of_another_model_is_refused_and_leaves_no_trace(
    base: Path, model_folder: Path, tokenizer: Any, tmp_path: Path
) -> None:
    adapter = write_adapter(model_folder, tokenizer, tmp_path / "a", target_modules=["q_proj"])
    copied = Path(shutil.copytree(base, tmp_path / "copy"))
    policy = student(copied)
    names = [name for name, _ in policy.model.named_parameters()]
    own = policy.score(TREES).logprobs_N.detach()
    with pytest.raises(ModelError, match="the adapter does not fit the model"):
        beside(policy, str(adapter))
    assert [name for name, _ in policy.model.named_parameters()] == names
    assert torch.equal(policy.score(TREES).logprobs_N, own)
