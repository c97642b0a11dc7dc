"""LoRA in place: the numbers of peft, with fewer buffers."""

from __future__ import annotations

from typing import Any

import bitsandbytes
import pytest
import torch
from peft import LoraConfig, get_peft_model

from strop.model.adapters import computed_in_place
from tests.support.held import Held


def _one_layer(outputs: int, *, by_peft: bool, quantize: bool = False) -> Any:
    """A model that is one linear layer of 64 inputs under an adapter of rank 4 with known values,
    with peft's forward or with ours."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, outputs, bias=True)
    if quantize:
        whole = layer.weight.data
        layer = bitsandbytes.nn.Linear4bit(64, outputs, compute_dtype=torch.float32)
        layer.weight = bitsandbytes.nn.Params4bit(whole, requires_grad=False, quant_type="nf4")
        layer = layer.to("cpu")
    config = LoraConfig(r=4, lora_alpha=12, target_modules=["0"])
    model = get_peft_model(torch.nn.Sequential(layer).requires_grad_(False), config)  # type: ignore[arg-type]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    return model if by_peft else computed_in_place(model)


class TestInPlace:
    """LoRA added to a layer's output in place."""

    @pytest.mark.parametrize("quantize", [False, True])
    def test_numbers_and_gradients_are_those_of_peft(self, quantize: bool) -> None:
        read: list[list[torch.Tensor]] = []
        for by_peft in (True, False):
            model = _one_layer(128, by_peft=by_peft, quantize=quantize)
            x = torch.randn(1, 10, 64, generator=torch.Generator().manual_seed(1))
            x.requires_grad_()
            out = model(x)
            out.square().sum().backward()
            trained = [p.grad for p in model.parameters() if p.requires_grad]
            read.append([out.detach(), x.grad, *trained])  # type: ignore[list-item]
        assert len(read[0]) == 4
        assert all(torch.equal(*pair) for pair in zip(*read, strict=True))

    @pytest.mark.parametrize(("by_peft", "buffers"), [(True, 3), (False, 2)])
    def test_buffers_as_large_as_the_output(self, by_peft: bool, buffers: int) -> None:
        """By hand: the layer's output and what is added to it; peft makes the scaled one and the
        sum beside them, of which three are alive at once."""
        model = _one_layer(8192, by_peft=by_peft)
        x = torch.zeros(1, 16, 64)
        with Held() as held:
            out = model(x)
        size = 4 * 16 * 8192
        assert out.nbytes == size
        assert size * buffers <= held.peak <= size * buffers + 4 * 16 * (64 + 4)

    def test_switched_off_or_merged_it_is_peft_that_answers(self) -> None:
        model = _one_layer(128, by_peft=False)
        x = torch.randn(3, 64)
        plain, base = model(x), model.get_base_model()[0].get_base_layer()
        with model.disable_adapter():
            assert torch.equal(model(x), base(x))
        assert not torch.allclose(plain, base(x))
        model.merge_adapter()
        assert torch.allclose(model(x), plain, atol=1e-5)
        model.unmerge_adapter()
        assert torch.allclose(model(x), plain, atol=1e-5)

    def test_other_precisions_are_left_to_peft(self) -> None:
        """An adapter of float32 over bfloat16 weights: the sum is rounded as peft rounds it."""
        x = torch.randn(3, 64, dtype=torch.bfloat16)
        out = []
        for by_peft in (True, False):
            model = _one_layer(128, by_peft=by_peft)
            model.get_base_model()[0].get_base_layer().bfloat16()
            out.append(model(x))
        assert torch.equal(*out)
