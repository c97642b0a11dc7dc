"""Matrices of which every process of a tensor group computes a part (Shoeybi et al. 2019, arXiv
1909.08053), by the plan that transformers has for the model.

A plan says of each linear layer whether its outputs (`colwise`) or its inputs (`rowwise`) are cut.
Between cut outputs and the next cut inputs (attention heads; the MLP's inner width) nothing is
exchanged. The embedding and the head are cut by rows of the vocabulary where it can be divided. All
other weights are whole on every process. All are DTensors of one mesh, so that norms, optimizers
and checkpoints see one kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from strop.errors import ModelError
from strop.model.logprobs import TreeScorer, bare, eval_mode
from strop.model.network import Network, Policy, ScalarNetwork
from strop.model.probe import probe_of
from strop.model.sharding import TENSOR, own_part, shard
from strop.recipe.train.run import DistributedRecipe

dist: Any = torch.distributed
"""Its type stubs leave out what is used here."""

INSTEAD = "set run.distributed.tensor to 1, or cut the model by run.distributed.shard"


class Copied(torch.autograd.Function):
    """The same tensor on every process, each of which uses it for another part of the result: its
    gradients are added up."""

    @staticmethod
    def forward(ctx: Any, whole: torch.Tensor, mesh: DeviceMesh) -> torch.Tensor:
        ctx.mesh = mesh
        return whole.view_as(whole)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _added(grad, ctx.mesh), None


class Summed(torch.autograd.Function):
    """The sum of what every process has; its gradient is that of each summand."""

    @staticmethod
    def forward(ctx: Any, part: torch.Tensor, mesh: DeviceMesh) -> torch.Tensor:
        return _added(part, mesh)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grad, None


class Joined(torch.autograd.Function):
    """The last dimension, of which every process has an equal part, as a whole."""

    @staticmethod
    def forward(ctx: Any, part: torch.Tensor, mesh: DeviceMesh) -> torch.Tensor:
        ctx.mesh = mesh
        return _joined(part, mesh)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _own_columns(grad, ctx.mesh), None


class Divided(torch.autograd.Function):
    """This process's part of the last dimension, of which all have the whole."""

    @staticmethod
    def forward(ctx: Any, whole: torch.Tensor, mesh: DeviceMesh) -> torch.Tensor:
        ctx.mesh = mesh
        return _own_columns(whole, mesh)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _joined(grad, ctx.mesh), None


def _added(part: torch.Tensor, mesh: DeviceMesh) -> torch.Tensor:
    total = part.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=mesh.get_group())
    return total


def _joined(part: torch.Tensor, mesh: DeviceMesh) -> torch.Tensor:
    own = part.contiguous()
    parts = [torch.empty_like(own) for _ in range(mesh.size())]
    dist.all_gather(parts, own, group=mesh.get_group())
    return torch.cat(parts, -1)


def _own_columns(whole: torch.Tensor, mesh: DeviceMesh) -> torch.Tensor:
    return whole.chunk(mesh.size(), -1)[mesh.get_local_rank()].contiguous()


Exchange = type[Copied] | type[Summed] | type[Joined] | type[Divided]


@dataclass(frozen=True, slots=True)
class Style:
    """How a module is computed in parts: the dimension along which its weight is cut (`None`: not
    at all), what is done to its input, its output and its weights."""

    cut: int | None = None
    before: Exchange | None = None
    after: Exchange | None = None
    weights: Exchange | None = None


WHOLE = Style()
ROWS = Style(cut=0, before=Copied, after=Joined)
OF_VOCABULARY = Style(cut=0, after=Summed)

STYLES: Mapping[str, Style] = {
    "colwise": Style(cut=0, before=Copied),
    "colwise_gather_output": ROWS,
    "colwise_rep": ROWS,
    "rowwise": Style(cut=1, after=Summed),
    "rowwise_split_input": Style(cut=1, before=Divided, after=Summed),
    "rowwise_rep": Style(cut=1, before=Divided, after=Summed),
    "replicated_with_grad_allreduce": Style(weights=Copied),
    "replicate": WHOLE,
}
"""What the names in transformers' plans mean, those of embeddings and of experts left out."""


def expect_plan(model: Any, tensor: int, where: str) -> None:
    """Raise `ModelError` for a transformers model (weights are not looked at) that `tensor`
    processes cannot compute in parts."""
    try:
        styles_of(model, tensor)
    except ModelError as error:
        raise ModelError(error.problem, where=where, fix=INSTEAD) from None


def styles_of(model: Any, tensor: int) -> dict[str, Style]:
    """The styles of a transformers model's modules, by name; modules that are left out are whole.

    Raises `ModelError` where there is no plan, where it says what strop cannot do, or where the
    sizes cannot be divided by `tensor`.
    """
    named = {module: name for name, module in model.named_modules()}
    decoder, config = model.get_decoder(), model.config.get_text_config()
    plan: Mapping[str, str] = getattr(config, "base_model_tp_plan", None) or {}
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    styles: dict[str, Style] = {}
    for name, module in decoder.named_modules():
        said = plan.get(_any_layer(name))
        if said is not None and module is not embedding:
            styles[named[module]] = _style(said, named[module], module)
    bare_parameters = {_any_layer(name) for name, _ in decoder.named_parameters()} & plan.keys()
    if bare_parameters:
        raise ModelError(
            f"transformers' plan for {type(model).__name__} cuts {min(bare_parameters)}, which is "
            "no linear layer (experts of a mixture are one tensor)"
        )
    if not any(style.cut is not None for style in styles.values()):
        raise ModelError(f"transformers has no tensor parallel plan for {type(model).__name__}")
    if int(embedding.weight.shape[0]) % tensor == 0:
        styles[named[embedding]] = OF_VOCABULARY
        if isinstance(head, torch.nn.Linear):
            styles[named[head]] = ROWS
    _expect_divisible(model, styles, tensor)
    return styles


def _any_layer(name: str) -> str:
    """`"layers.*.mlp"` of `"layers.3.mlp"`."""
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name)


def _style(said: str, name: str, module: torch.nn.Module) -> Style:
    style = STYLES.get(said)
    if style is None:
        raise ModelError(f"transformers' plan calls {name} {said!r}, which strop cannot compute")
    if style.cut is not None and not isinstance(module, torch.nn.Linear):
        raise ModelError(f"transformers' plan cuts {name}, a {type(module).__name__}")
    return style


def _expect_divisible(model: Any, styles: Mapping[str, Style], tensor: int) -> None:
    sizes = {
        f"{name}.weight": int(model.get_submodule(name).weight.shape[style.cut])
        for name, style in styles.items()
        if style.cut is not None
    }
    if STYLES["colwise"] in styles.values():
        config = model.config.get_text_config()
        for name in ("num_attention_heads", "num_key_value_heads"):
            sizes[name] = int(getattr(config, name, None) or tensor)
    for name, size in sizes.items():
        if size % tensor:
            raise ModelError(
                f"run.distributed.tensor {tensor} does not divide {name} of "
                f"{type(model).__name__}, {size}"
            )


def divide(network: Policy | ScalarNetwork, recipe: DistributedRecipe, mesh: DeviceMesh) -> None:
    """Leave this process its part of the weights: of the matrices that its tensor group computes
    together, and of what is sharded. Every process makes this call with the same weights, before
    the optimizer is built; raises `ModelError` for a model that cannot be divided so."""
    if recipe.tensor > 1:
        cut(network, mesh[TENSOR])
    if recipe.shard != "none":
        over = tuple(name for name in mesh.mesh_dim_names or () if name != TENSOR)
        shard(network, mesh[over], cpu_offload=recipe.cpu_offload)
    elif mesh.device_type != "cpu":
        network.score.find_way(bfloat16=network.bfloat16)  # the model was read on a CPU
    if recipe.tensor > 1:
        _expect_one_gradient(network, mesh[TENSOR])


def _expect_one_gradient(network: Policy | ScalarNetwork, mesh: DeviceMesh) -> None:
    """Raise `ModelError` where the processes of a tensor group find other gradients of a weight
    that each of them has as a whole: the plan then leaves out a module that sees a part of the
    heads, as some do in older versions of transformers."""
    trees = probe_of(bare(network.model))
    with eval_mode(network.model), network.arithmetic():
        scores = network.score
        found = scores(trees).logprobs_N if isinstance(scores, TreeScorer) else scores.finals(trees)
        found.sum().backward()
    named = [(n, p) for n, p in network.model.named_parameters() if _is_whole(p)]
    own = [own_part(p if p.grad is None else p.grad).float() for _, p in named]
    own_W2 = torch.stack([torch.stack([g.sum(), g.abs().sum()]) for g in own]).to(mesh.device_type)
    every_TW2 = _joined(own_W2[None].movedim(0, -1), mesh).movedim(-1, 0)
    for parameter in network.model.parameters():
        parameter.grad = None
    apart_W = (every_TW2 - own_W2).abs().amax((0, 2)) > 1e-3 * every_TW2[:, :, 1].amax(0)
    if apart_W.any():
        name = named[int(apart_W.nonzero()[0])][0]
        raise ModelError(
            f"transformers' plan for {type(bare(network.model)).__name__} leaves the gradient of "
            f"{name} in parts",
            fix=f"upgrade transformers, or {INSTEAD}",
        )


def _is_whole(parameter: Any) -> bool:
    """Whether every process of a tensor group has this weight as a whole, or the same shard."""
    return bool(parameter.requires_grad and parameter.placements[-1].is_replicate())


def cut(network: Network, mesh: DeviceMesh) -> None:
    """Leave this process its part of the weights, on the mesh's device, and let it compute with
    the others of the mesh. Every process makes this call with the same weights, before they are
    sharded and before the optimizer is built.

    Raises `ModelError` where `expect_plan` does.
    """
    model = bare(network.model)
    styles = styles_of(model, mesh.size())
    made: dict[torch.nn.Parameter, torch.nn.Parameter] = {}  # tied weights stay one
    for name, module in model.named_modules():
        style = styles.get(name, WHOLE)
        own = dict(module.named_parameters(recurse=False))
        for place, parameter in own.items():
            if parameter not in made:
                made[parameter] = _part(parameter, style, mesh)
            module.register_parameter(place, made[parameter])
        if style is OF_VOCABULARY:
            _look_up_in_parts(module, mesh)
        elif own:
            _compute_in_parts(module, style, mesh)
    for buffer in model.buffers():
        buffer.data = buffer.data.to(mesh.device_type)


def _part(whole: torch.nn.Parameter, style: Style, mesh: DeviceMesh) -> torch.nn.Parameter:
    """This process's part of a parameter, as a DTensor of the mesh."""
    local = whole.detach().to(mesh.device_type)
    placement: Replicate | Shard = Replicate()
    if style.cut is not None and style.cut < local.dim():
        placement = Shard(style.cut)
        local = local.chunk(mesh.size(), style.cut)[mesh.get_local_rank()]
        local = local.clone(memory_format=torch.contiguous_format)  # lets go of the whole
    part: Any = DTensor.from_local(local, mesh, [placement], run_check=False)
    return torch.nn.Parameter(part, requires_grad=whole.requires_grad)


def _compute_in_parts(module: Any, style: Style, mesh: DeviceMesh) -> None:
    """Let a module compute its part with its own part of the weights."""
    whole_forward: Callable[..., Any] = module.forward

    def forward(*given: Any, **options: Any) -> Any:
        weights = _own_weights(module, style, mesh)
        # an output bias is added once, not by every process
        bias = weights.pop("bias", None) if style.after is Summed else None
        if style.before is not None:
            given = (style.before.apply(given[0], mesh), *given[1:])  # type: ignore[no-untyped-call]
        with _in_place(module, weights, without_bias=bias is not None):
            found = whole_forward(*given, **options)
        if style.after is not None:
            found = style.after.apply(found, mesh)  # type: ignore[no-untyped-call]
        return found if bias is None else found + bias

    module.forward = forward


def _look_up_in_parts(module: Any, mesh: DeviceMesh) -> None:
    """Let an embedding look up the tokens whose rows this process has; the others are zero, and
    the sum over the processes has all."""
    whole_forward: Callable[..., torch.Tensor] = module.forward
    rows = int(module.weight.to_local().shape[0])
    start = mesh.get_local_rank() * rows
    if module.padding_idx is not None:  # this row gets no gradient
        here = start <= module.padding_idx < start + rows
        module.padding_idx = module.padding_idx - start if here else None

    def forward(ids: torch.Tensor) -> torch.Tensor:
        elsewhere = (ids < start) | (ids >= start + rows)
        with _in_place(module, _own_weights(module, OF_VOCABULARY, mesh)):
            found = whole_forward((ids - start).masked_fill(elsewhere, 0))
        found = found.masked_fill(elsewhere[..., None], 0.0)
        summed: torch.Tensor = Summed.apply(found, mesh)  # type: ignore[no-untyped-call]
        return summed

    module.forward = forward


def _own_weights(module: torch.nn.Module, style: Style, mesh: DeviceMesh) -> dict[str, Any]:
    """What this process has of a module's own weights, with gradients to them."""
    weights: dict[str, Any] = {}
    for name, parameter in module.named_parameters(recurse=False):
        held: Any = parameter
        weights[name] = held.to_local()
        if style.weights is not None:
            weights[name] = style.weights.apply(weights[name], mesh)  # type: ignore[no-untyped-call]
    return weights


@contextmanager
def _in_place(
    module: Any, weights: Mapping[str, torch.Tensor], *, without_bias: bool = False
) -> Iterator[None]:
    """Put plain tensors in the place of a module's own parameters for the duration."""
    parameters = module._parameters
    before = dict(parameters)
    parameters.update(weights)
    if without_bias:
        parameters["bias"] = None
    try:
        yield
    finally:
        parameters.update(before)
