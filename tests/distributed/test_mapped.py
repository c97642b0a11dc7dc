"""Models that are cut while they are read: the same weights as one that is read whole, out of files
of which each process looks at its part."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

from strop.distributed.world import World
from strop.model import load, sharding
from strop.model.load import load_policy, load_scalar
from strop.model.logprobs import bare
from strop.model.network import Network
from strop.model.sharding import Cut, gathered, mesh_of
from strop.recipe.train.model import LoraRecipe, ModelRecipe
from strop.recipe.train.run import DistributedRecipe
from strop.types import Branch, Tree
from tests.support.gloo import in_processes

FULL = DistributedRecipe(shard="full")
LORA = LoraRecipe(rank=4)
TREES = [Tree((1, 2, 3 + n), (Branch((5, 6, 7), (True,) * 3),)) for n in range(4)]


def gemma(tokenizer: Any) -> Any:
    """A model whose embeddings are tied, and scaled by a buffer that bfloat16 would round."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "head_dim": 16}
    heads = {"num_attention_heads": 3, "num_key_value_heads": 1, "sliding_window": 8}
    vocabulary = {"vocab_size": 2000, "tie_word_embeddings": True}
    return Gemma3ForCausalLM(Gemma3TextConfig(**sizes, **heads, **vocabulary))


def saved(model: Any, tokenizer: Any, folder: Path, **options: Any) -> str:
    """A folder with the model in bfloat16."""
    model.to(torch.bfloat16).save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    return str(folder)


def numbers(network: Network) -> dict[str, torch.Tensor]:
    """All weights and buffers, gathered."""
    named = [*network.model.named_parameters(), *network.model.named_buffers()]
    return {name: gathered(tensor.detach()) for name, tensor in named}


def cut(world: World, asked: list[tuple[ModelRecipe, bool]]) -> list[dict[str, Any]]:
    """Each model as this process reads it, with two processes gathered, and what it reads."""
    return [read(*one, Cut(mesh_of(FULL, world.size, "cpu"))) for one in asked]


def read(recipe: ModelRecipe, scalar: bool, cut: Cut | None) -> dict[str, Any]:
    network: Any = (load_scalar if scalar else load_policy)(recipe, seed=7, cut=cut)
    with torch.no_grad():
        read = network.score.finals(TREES) if scalar else network.score(TREES).logprobs_N
    config = bare(network.model).config.to_dict()
    return {
        "numbers": numbers(network),
        "drawn": torch.rand(3),
        "read": read,
        "by_tree": network.score.by_tree,
        "config": {name: value for name, value in config.items() if name != "eos_token_id"},
    }


def test_a_model_that_is_cut_has_the_weights_of_one_that_is_not(
    tokenizer: Any, model_folder: Path, tmp_path: Path
) -> None:
    """To the bit: bfloat16 files that are trained in float32, one file and several, tied weights,
    scaled embeddings, fresh heads and adapters, and what is drawn after them."""
    tied = saved(gemma(tokenizer), tokenizer, tmp_path / "tied", max_shard_size="100KB")
    assert len(list(Path(tied).glob("*.safetensors"))) > 1
    plain = str(model_folder)
    asked = [
        (ModelRecipe(path=tied), False),
        (ModelRecipe(path=tied, lora=LORA), False),
        (ModelRecipe(path=tied, lora=LORA, dtype="bfloat16"), False),
        (ModelRecipe(path=tied), True),
        (ModelRecipe(path=tied, lora=LORA), True),
        (ModelRecipe(path=plain), False),
        (ModelRecipe(path=plain, lora=LORA, dtype="bfloat16"), True),
    ]
    whole = [read(*one, None) for one in asked]
    scale = whole[0]["numbers"]["model.embed_tokens.embed_scale"]
    assert scale != scale.bfloat16()  # rounded, it would make another model
    for found in in_processes(2, cut, asked):
        assert isinstance(found, list), found
        for one, other in zip(whole, found, strict=True):
            assert one["numbers"].keys() == other["numbers"].keys()
            for name, tensor in one["numbers"].items():
                assert tensor.dtype == other["numbers"][name].dtype, name
                assert torch.equal(tensor, other["numbers"][name]), name
            assert torch.equal(one["drawn"], other["drawn"])
            assert torch.equal(one["read"], other["read"])
            assert (one["by_tree"], one["config"]) == (other["by_tree"], other["config"])


def memory() -> int:
    """Bytes of this process in memory at its highest since the count was begun anew."""
    rows = Path("/proc/self/status").read_text().splitlines()
    return next(int(row.split()[1]) * 1024 for row in rows if row.startswith("VmHWM:"))


def grown(world: World, small: str, large: str, at_once: bool) -> int:
    """By how much this process grows at the highest until it has its part of a model."""
    cut = Cut(mesh_of(FULL, world.size, "cpu"))
    load_policy(ModelRecipe(path=small), cut=cut)  # what reading any model takes
    if at_once:
        load.narrow_type = lambda recipe, template: None
    seen: list[int] = []
    forward = sharding.read
    sharding.read = lambda *first: (seen.append(memory()), forward(*first))[1]
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = memory()
    assert load_policy(ModelRecipe(path=large), cut=cut).is_sharded
    return seen[0] - before


def test_no_process_holds_the_whole_model(tokenizer: Any, tmp_path: Path) -> None:
    """16 million weights, 60 MiB in float32, over four processes. Planted: weights that are cast as
    they are read."""
    folders = []
    for width in (32, 256):
        sizes = {"vocab_size": 2048, "hidden_size": width, "intermediate_size": 8 * width}
        heads = {"num_hidden_layers": 8, "num_attention_heads": 4, "num_key_value_heads": 4}
        model = LlamaForCausalLM(LlamaConfig(**sizes, **heads))
        folders.append(saved(model, tokenizer, tmp_path / f"{width}"))
    whole = sum(p.numel() * 4 for p in model.parameters())
    for at_once in (False, True):
        for seen in in_processes(4, grown, *folders, at_once):
            assert isinstance(seen, int), seen
            # a quarter of the weights, as much of the file (half as large), and freed memory
            assert (seen / whole < 0.8) != at_once, seen / whole
            assert (seen / whole > 1.0) == at_once, seen / whole
