"""Fused kernels of a GPU in place of a layer's small operations: Liger's RMSNorm, rotary embedding
and SwiGLU (Hsu et al. 2024, arXiv 2410.10989).

Its fused head gives a loss and no log-prob of each token, so strop's own head, which does not keep
the logits either, stays.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from inspect import signature
from types import ModuleType
from typing import Any

from strop.errors import ModelError

ROTARY = "apply_rotary_pos_emb"
HEADS = ("cross_entropy", "fused_linear_cross_entropy")
"""What is left as it is."""

Patch = Callable[..., None]


def _patches() -> Mapping[str, Patch]:
    """Liger's patch for each `model_type`; raises `ModelError` where it is not installed."""
    try:
        from liger_kernel.transformers import monkey_patch  # an extra
    except ImportError:
        raise ModelError(
            "model.kernels liger needs liger-kernel", fix="pip install 'strop[kernels]'"
        ) from None
    found: Mapping[str, Patch] = monkey_patch.MODEL_TYPE_TO_APPLY_LIGER_FN
    return found


def expect_kernels(device: str) -> None:
    """Raise `ModelError` where there is no GPU for the kernels, or no library."""
    if device != "cuda":
        raise ModelError(
            f"model.kernels liger runs on a GPU, and this run computes on {device}",
            fix="drop model.kernels",
        )
    _patches()


def use_kernels(model: Any) -> None:
    """Have this transformers model compute with Liger's kernels.

    Raises `ModelError` for a model that Liger does not know.
    """
    patches, kind = _patches(), model.config.get_text_config().model_type
    if kind not in patches:
        raise ModelError(
            f"model.kernels is set, but Liger has no kernels for a model of type {kind} (it has "
            f"some for {', '.join(sorted(patches))})",
            fix="drop model.kernels",
        )
    modeling = sys.modules[type(model).__module__]
    before = dict(vars(modeling))
    has = signature(patches[kind]).parameters
    patches[kind](model=model, **{name: False for name in HEADS if name in has})
    _only_for(modeling, before)


def _only_for(modeling: ModuleType, before: Mapping[str, Any]) -> None:
    """Leave other models of this kind alone, which may be on a CPU: Liger also changes the module
    that they come from. The rotary embedding is a function of it, so that chooses by device."""
    for name, value in list(vars(modeling).items()):
        own = before.get(name, value)
        if value is not own:
            setattr(modeling, name, _on_cuda(value, own) if name == ROTARY else own)


def _on_cuda(kernel: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    def rotate(query: Any, *given: Any, **named: Any) -> Any:
        return (kernel if query.is_cuda else plain)(query, *given, **named)

    return rotate
