"""Linear layers laid out anew for few rows: the numbers of the layers, from a copy."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from strop.engines.engine import Sampling
from strop.model import packed, plain
from strop.model.decode import TreeDecoder
from strop.model.packed import PACKED_FROM, Packing, room_on
from strop.model.plain import PlainStep
from tests.support.families import model_of
from tests.support.rollouts import prompts
from tests.support.sampling import engine_of, sample

HERE = torch.device("cpu")
ABLE = (
    torch.backends.mkldnn.is_available()
    and torch.backends.cpu.get_cpu_capability() in packed.CAPABILITIES
)
able = pytest.mark.skipif(not ABLE, reason="this processor's weights are left as they are")


def layers(inner: int, outs: Sequence[int], *, bias: Sequence[bool]) -> list[torch.nn.Linear]:
    torch.manual_seed(0)
    return [torch.nn.Linear(inner, out, bias=b) for out, b in zip(outs, bias, strict=True)]


@pytest.mark.parametrize("inner", [24, 700])
@pytest.mark.parametrize("bias", [(False, False, False), (True, False, True)])
def test_groups_have_the_outputs_of_their_layers(inner: int, bias: tuple[bool, ...]) -> None:
    """A weight that is transposed, and one that is packed; a layer without bias beside others."""
    q, k, v = layers(inner, (64, 32, 32), bias=bias)
    assert (128 * inner < PACKED_FROM) == (inner == 24)
    x = torch.randn(5, inner, generator=torch.Generator().manual_seed(1))
    both, value = Packing(room_on(HERE)).of([q, k], [v])(x)
    assert both.shape == (5, 96)
    for mine, own in ((both[:, :64], q), (both[:, 64:], k), (value, v)):
        assert torch.allclose(mine, own(x), atol=1e-5)


@able
def test_a_row_has_the_same_bits_in_any_company() -> None:
    (layer,) = layers(700, (128,), bias=(False,))
    product = Packing(room_on(HERE)).of([layer])
    x = torch.randn(64, 700, generator=torch.Generator().manual_seed(1))
    (together,) = product(x)
    for rows in (1, 3, 17, 40):
        assert torch.equal(product(x[:rows])[0], together[:rows])


def is_copied(packing: Packing, layer: torch.nn.Module) -> bool:
    """Whether the product still is what it was after the layer changed."""
    product, x = packing.of([layer]), torch.ones(2, 700, dtype=next(layer.parameters()).dtype)
    before = product(x)[0].clone()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(1.0)
    return torch.equal(product(x)[0], before)


@able
def test_layers_are_copied_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "MOST_BYTES", 2 * 4 * 700 * 128)
    packing = Packing(room_on(HERE))
    found = [is_copied(packing, one) for one in layers(700, (128,) * 3, bias=(False,) * 3)]
    assert found == [True, True, False]


class Scaled(torch.nn.Linear):
    """A layer with a forward of its own, as those of adapters."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


@torch.no_grad()
def test_layers_of_other_kinds_are_called_as_they_are() -> None:
    packing = Packing(room_on(HERE))
    assert not is_copied(packing, Scaled(700, 128))
    assert not is_copied(packing, torch.nn.Linear(700, 128, dtype=torch.float64))
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        assert not is_copied(Packing(room_on(HERE)), torch.nn.Linear(700, 128))


@able
def test_each_sampling_reads_the_weights_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers after an update are those of a new model with these weights, packed or transposed."""
    monkeypatch.setattr(packed, "PACKED_FROM", 1500)
    changed, engine = model_of("qwen3"), engine_of(model := model_of("qwen3"))
    how = Sampling(max_tokens=12)
    first = sample(engine, prompts(), group_size=2, sampling=how, seed=0, step=0)
    with torch.no_grad():
        for one in (model, changed):
            for parameter in one.parameters():
                parameter.mul_(1.3)
    again, anew = (
        sample(e, prompts(), group_size=2, sampling=how, seed=0, step=0)
        for e in (engine, engine_of(changed))
    )
    assert list(again) == list(anew)
    assert list(again) != list(first)


@able
def test_a_layer_with_a_hook_is_called() -> None:
    """A copy would pass the hook over."""
    hooked = torch.nn.Linear(700, 128)
    hooked.register_forward_hook(lambda module, given, out: 2 * out)
    assert not is_copied(Packing(room_on(HERE)), hooked)
    assert is_copied(Packing(room_on(HERE)), torch.nn.Linear(700, 128))


@able
@pytest.mark.parametrize(("rows", "packs"), [(3, False), (4, True)])
def test_a_few_rows_are_not_worth_a_copy(
    rows: int, packs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    monkeypatch.setattr(plain, "room_on", lambda device: given.append(1) or 0)
    model = model_of("qwen3")
    decoder = TreeDecoder(model, plain=PlainStep(model), shared=False)
    with torch.no_grad():
        decoder.join([(1, 4), (3,), (5, 6), (7, 1)][:rows], rows)
        for _ in range(2):
            decoder.step(torch.arange(rows))
    assert given == [1] * packs
