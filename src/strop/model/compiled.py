"""Decoder layers compiled by torch, once for rows of any length.

The layers of a model run the same code, so one compilation serves all that compute alike: one for
most models, one more where some layers have a window and others not, and one where the first
layer's input has no gradient (an adapter's). Only training forwards over trees are compiled.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch._dynamo import lookup_backend
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler

from strop.errors import ModelError
from strop.model.adapters import expert_parameters
from strop.model.opaque import opaque
from strop.model.ways import Way

logger = logging.getLogger(__name__)

MOST = 3
"""Compilations of a run; with more of them it would wait for the compiler instead of training."""


class CompiledLayers:
    """Compiles the decoder layers of a model in training; `way` is the attention that they use.

    `compilations` counts them. After `MOST` the forwards to come are not compiled, with a warning.
    """

    def __init__(
        self, model: Any, layers: Sequence[torch.nn.Module], way: Way, backend: str = "inductor"
    ) -> None:
        self.model, self.way, self.compilations = model, opaque(way), 0
        self._compile: Any = lookup_backend(backend)
        counted = self._counted  # one object, so that layers share what is compiled
        for layer in layers:
            layer.compile(dynamic=True, backend=counted)
            compiled = cast(Callable[..., Any], layer._compiled_call_impl)
            layer._compiled_call_impl = _for_trees(layer, compiled)

    def applies(self) -> bool:
        """Whether a forward that begins now is compiled."""
        return self.model.training and torch.is_grad_enabled() and self.compilations <= MOST

    def _counted(self, graph: Any, inputs: Sequence[Any]) -> Any:
        self.compilations += 1
        logger.info("%s: compilation %d of a decoder layer", type(self.model).__name__,
                    self.compilations)  # fmt: skip
        if self.compilations == MOST + 1:
            warnings.warn(
                f"the decoder layers of {type(self.model).__name__} were compiled more than {MOST} "
                "times: they are computed without the compiler from now on (drop run.compile)",
                stacklevel=2,
            )
        return self._compile(graph, inputs)


def _for_trees(layer: Any, compiled: Callable[..., Any]) -> Callable[..., Any]:
    """A layer's call: compiled for a row that comes with its spans, else as ever. Of a layer that
    is computed again in the backward, both times are compiled: the checkpoint is around them."""
    # where transformers checkpoints the call and not the forward, it did so before it comes here
    by_call = type(layer).__call__ is not torch.nn.Module.__call__

    def computed(*args: Any, **kwargs: Any) -> Any:
        again, layer.gradient_checkpointing = layer.gradient_checkpointing, False
        try:
            # as a symbol, the factor of the scores would have each layer compiled twice
            with torch._dynamo.config.patch(specialize_float=True):
                return compiled(*args, **kwargs)
        finally:
            layer.gradient_checkpointing = again

    def call(*args: Any, **kwargs: Any) -> Any:
        if not isinstance(kwargs.get("tree_plan"), torch.Tensor):
            return layer._call_impl(*args, **kwargs)
        if layer.gradient_checkpointing and not by_call:
            return layer._gradient_checkpointing_func(partial(computed, **kwargs), *args)
        return computed(*args, **kwargs)

    return call


def expect_compilable(model: Any) -> None:
    """Raise `ModelError` for a model whose layers cannot be compiled once for all rows."""
    config = model.config.get_text_config()
    problems = {
        "its experts read as many tokens as are sent to them": bool(expert_parameters(model)),
        "its attention has dropout, which would be drawn anew in the backward": bool(
            getattr(config, "attention_dropout", 0.0)
        ),
    }
    for problem, found in problems.items():
        if found:
            raise ModelError(
                f"run.compile is set, but {type(model).__name__} cannot be compiled: {problem}",
                fix="drop run.compile",
            )


def expect_compiler(device: str) -> None:
    """Raise `ModelError` where torch has nothing to compile with."""
    if device != "cpu":
        return
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise ModelError(
            "run.compile is set, but there is no C++ compiler for this processor",
            fix="install g++, or drop run.compile",
        ) from None
