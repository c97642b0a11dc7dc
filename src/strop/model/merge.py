"""An adapter into the weights of its base, proven by logits before anything is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import GenerationConfig

import strop
from strop.errors import ModelError
from strop.files import write_json, writing_folder
from strop.model.adapters import (
    TaskType,
    adapted,
    adapter_task,
    dequantised,
    is_adapter_folder,
    nf4,
    without_adapter,
)
from strop.model.blend.alike import TEXTS, config_of
from strop.model.blend.tensors import Tensors
from strop.model.load import TOKENIZERS, load_tokenizer, load_transformer, stop_at, stops_of
from strop.model.stored import Stored, base_of, carry, expect_new
from strop.registry.lineage import MADE

Precision = Literal["float32", "float16", "bfloat16"]

ALLOWED: dict[torch.dtype, float] = {
    torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2,
}  # fmt: skip
"""The largest difference of a logit, as a share of the largest logit, by the precision that the
merged weights are stored in: what rounding them costs, with room. The base's own weights were
rounded as far."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Logits of the merged model against those of the adapter over its base, on fixed texts.

    `Agreement(difference=3.1e-06, largest=14.2, same=160, places=160)`: the largest difference of a
    logit, the largest logit, and at how many of all places both have the same likeliest token.
    """

    difference: float
    largest: float
    same: int
    places: int

    @property
    def share(self) -> float:
        """The difference as a share of the largest logit."""
        return self.difference / self.largest if self.largest else self.difference

    def __str__(self) -> str:
        return (
            f"logits differ by at most {self.difference:.2g} (the largest is {self.largest:.3g}: a "
            f"share of {self.share:.2g}), the likeliest token is the same at {self.same} of "
            f"{self.places} places"
        )


@dataclass(frozen=True, slots=True)
class Merge:
    """A merge that can be made: `Merge(adapter, base=Path("model"), task="CAUSAL_LM",
    dtype=torch.bfloat16, quantised=False, tolerance=0.05, notes=())`. `quantised` says that the
    adapter was trained over weights in 4 bits."""

    adapter: Stored
    base: Path
    task: TaskType
    dtype: torch.dtype
    quantised: bool
    tolerance: float
    notes: tuple[str, ...]


def check_merge(
    adapter: Stored,
    *,
    base: str | None = None,
    dtype: Precision | None = None,
    tolerance: float | None = None,
) -> Merge:
    """Everything that can be checked before weights are read. Raises `ModelError` for what is no
    adapter, or an adapter without its base."""
    if not is_adapter_folder(str(adapter.folder)):
        raise ModelError("is no adapter, so there is nothing to merge", where=adapter.name,
                         fix="give the folder of an adapter (adapter_config.json)")  # fmt: skip
    folder, notes = base_of(adapter, base)
    quantised = _is_quantised(adapter, folder)
    stored = _stored_dtype(folder)
    kind = stored if dtype is None else getattr(torch, dtype)
    if quantised:
        notes = (*notes, _about_4_bits(folder, kind))
    if kind not in ALLOWED:
        raise ModelError(f"the base is stored in {kind}", where=str(folder),
                         fix="choose the precision of the merged model with --dtype")  # fmt: skip
    allowed = ALLOWED[kind] if tolerance is None else tolerance
    return Merge(
        adapter, folder, adapter_task(str(adapter.folder)), kind, quantised, allowed, notes
    )


def merge(plan: Merge, output: Path) -> Agreement:
    """Merge in float32, save in the plan's precision, read that again, and compare its logits with
    the adapter's over its base. Raises `ModelError` where they differ by more than the tolerance;
    nothing is written then."""
    expect_new(output)
    adapter = str(plan.adapter.folder)
    config = nf4(torch.float32) if plan.quantised else None
    model = load_transformer(str(plan.base), torch.float32, task=plan.task, quantized=config)
    ids = _texts(plan)
    model = adapted(model, adapter)
    wanted = _logits(model, ids)
    if plan.quantised:
        model = adapted(dequantised(without_adapter(model)), adapter)
    merged = model.merge_and_unload().to(plan.dtype)
    del model
    with writing_folder(output) as folder:
        _save(plan, merged, folder)
        del merged  # before it is read again: one model at a time
        again = load_transformer(str(folder), torch.float32, task=plan.task)
        agreement = _compare(wanted, _logits(again, ids))
        if not agreement.share <= plan.tolerance:
            raise ModelError(
                f"the merged model is not the adapter's: {agreement}; {plan.tolerance:g} is "
                "allowed",
                where=plan.adapter.name,
                fix="store it in --dtype float32, or allow more with --tolerance",
            )
        write_json(folder / MADE, _lineage(plan, agreement))
    return agreement


def _save(plan: Merge, merged: Any, folder: Path) -> None:
    """Weights and config as transformers writes them; tokenizer, chat template and generation
    config of the adapter, where it has them, byte for byte."""
    adapter = plan.adapter.folder
    if plan.task == "CAUSAL_LM":
        if (adapter / "generation_config.json").exists():
            merged.generation_config = GenerationConfig.from_pretrained(adapter)
        stop_at(merged, stops_of(str(adapter)))
    carry(plan.base, folder)
    carry(adapter, folder)
    merged.save_pretrained(folder, safe_serialization=True)  # its configs, over the base's


def _lineage(plan: Merge, agreement: Agreement) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "dtype": str(plan.dtype).removeprefix("torch."),
        "base_in_4_bits": plan.quantised,
        "largest_difference_of_a_logit": agreement.difference,
    }
    return {"method": "merge", "settings": settings, "code": {"strop": strop.__version__},
            "data": [], "parent": plan.adapter.as_parent()}  # fmt: skip


def _is_quantised(adapter: Stored, base: Path) -> bool:
    """Whether the adapter was trained over 4-bit weights: its run's recipe says so, or the base is
    stored that way. Raises `ModelError` for a base that is stored quantised in another way."""
    stored = config_of(base).get("quantization_config")
    if stored and not stored.get("load_in_4bit"):
        raise ModelError(
            f"the base is stored quantised ({stored.get('quant_method', 'in a way of its own')})",
            where=str(base),
            fix="merge into the model before it was quantised: name it with --base",
        )
    recipe = adapter.lineage.get("resolved", {}).get("model", {})
    return bool(stored) or bool(recipe.get("quantize"))


def _about_4_bits(base: Path, kind: torch.dtype) -> str:
    name = str(kind).removeprefix("torch.")
    return (
        f"the adapter was trained over a 4-bit base. It is merged into those 4-bit weights as "
        f"training saw them, de-quantised and stored in {name}: the result does what the run "
        f"measured, is as large as any {name} model, and is not the sum of the adapter and the "
        f"weights in {base}, from which the 4-bit ones differ. Quantised again it is rounded "
        "again: measure that model before you serve it"
    )


def _stored_dtype(base: Path) -> torch.dtype:
    """The precision of the base's weights; of quantised ones that of its config."""
    if config_of(base).get("quantization_config"):
        told = config_of(base)
        return getattr(torch, str(told.get("dtype") or told.get("torch_dtype") or "float32"))  # type: ignore[no-any-return]
    return Tensors(base).dtype()


def _texts(plan: Merge) -> list[list[int]]:
    """The fixed texts as tokens, of at most 256 each."""
    own = any(next(plan.adapter.folder.glob(kind), None) for kind in TOKENIZERS)
    tokenizer = load_tokenizer(str(plan.adapter.folder if own else plan.base))
    return [tokenizer(text)["input_ids"][:256] for text in TEXTS]


@torch.no_grad()
def _logits(model: Any, texts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Logits of each text, [tokens, vocabulary] (of a reward model its score), in float32."""
    model.eval()
    return [model(input_ids=torch.tensor([list(ids)])).logits[0].float() for ids in texts]


def _compare(wanted: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> Agreement:
    pairs = list(zip(wanted, found, strict=True))
    return Agreement(
        difference=max(float((one - other).abs().max()) for one, other in pairs),
        largest=max(float(one.abs().max()) for one in wanted),
        same=sum(int((one.argmax(-1) == other.argmax(-1)).sum()) for one, other in pairs),
        places=sum(one.argmax(-1).numel() for one in wanted),
    )
