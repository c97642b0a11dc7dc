"""Models blended from folders: exact at the ends, as the formula says, refused if they differ."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from strop.errors import ModelError, OutputError, UsageError
from strop.files import sha256_of
from strop.model.blend.formulas import linear, slerp, ties
from strop.model.blend.make import checked_blend, write_blend
from strop.model.blend.settings import Settings, settle
from strop.model.blend.tensors import Tensors
from strop.model.blend.trim import threshold
from strop.model.load import load_for_inference, weights_hash
from strop.registry.lineage import ancestry, generations
from strop.registry.tree import drawn

HERE = Path("no-registry.db")
Weights = dict[str, torch.Tensor]


def moved(source: Path, target: Path, seed: int, **changes: Any) -> Path:
    """A copy of a model with noise on its weights, as if it had been trained on."""
    shutil.copytree(source, target)
    draw = torch.Generator().manual_seed(seed)
    held = load_file(source / "model.safetensors")
    noisy = {n: t + 0.05 * torch.randn(t.shape, generator=draw) for n, t in held.items()}
    save_file(noisy, target / "model.safetensors", metadata={"format": "pt"})
    if changes:
        told = json.loads((target / "config.json").read_text())
        (target / "config.json").write_text(json.dumps({**told, **changes}))
    return target


@pytest.fixture
def two(model_folder: Path, tmp_path: Path) -> tuple[str, str]:
    return tuple(str(moved(model_folder, tmp_path / f"m{n}", n)) for n in (1, 2))  # type: ignore[return-value]


@pytest.fixture
def blend(tmp_path: Path) -> Callable[..., Path]:
    """Blend models into a folder under the test's own."""

    def made(models: Sequence[str], settings: Settings, **options: Any) -> Path:
        output = tmp_path / f"blend-{len(list(tmp_path.glob('blend-*')))}"
        with checked_blend(models, settings, registry=HERE, **options) as checked:
            write_blend(checked, output)
        return output

    return made


def held(folder: str | Path) -> Weights:
    return load_file(Path(folder) / "model.safetensors")


def test_at_its_ends_a_line_is_the_models_themselves(
    two: tuple[str, str], blend: Callable[..., Path]
) -> None:
    for share, name in ((0.0, two[0]), (1.0, two[1])):
        made = blend(two, settle("linear", [share], 2))
        assert sha256_of(made / "model.safetensors") == sha256_of(Path(name) / "model.safetensors")
    assert weights_hash(blend(two, settle("slerp", [0.0], 2))) == weights_hash(two[0])


def test_every_weight_is_what_the_formula_says(
    two: tuple[str, str], blend: Callable[..., Path]
) -> None:
    one, other = held(two[0]), held(two[1])
    half = held(blend(two, settle("linear", [1.0, 3.0], 2)))
    turned = held(blend(two, settle("slerp", [0.25], 2)))
    for name in one:
        assert torch.equal(half[name], linear([one[name], other[name]], [0.25, 0.75]))
        assert torch.equal(turned[name], slerp(one[name], other[name], 0.25))


def test_ties_trims_over_the_whole_model(
    two: tuple[str, str], model_folder: Path, blend: Callable[..., Path]
) -> None:
    settings = settle("ties", [0.5], 2, density=0.1)
    made = held(blend(two, settings, base=str(model_folder)))
    base, sides = held(model_folder), [held(name) for name in two]
    vectors = [{name: side[name] - base[name] for name in base} for side in sides]
    lows = [threshold(lambda v=v: v.values(), 0.1) for v in vectors]  # type: ignore[misc]
    for name, weight in base.items():
        wanted = ties(weight, [v[name] for v in vectors], [0.5, 0.5], lows)
        assert torch.equal(made[name], wanted)
    changed = sum(int((made[name] != base[name]).sum()) for name in base)
    count = sum(weight.numel() for weight in base.values())
    assert 0.1 < changed / count < 0.2  # a tenth of each, some of it at the same places


def test_what_dare_draws_depends_on_seed_and_name_alone(
    two: tuple[str, str], model_folder: Path, blend: Callable[..., Path]
) -> None:
    def made(seed: int) -> str:
        settings = settle("dare", [1.0], 2, density=0.5, seed=seed)
        return weights_hash(blend(two, settings, base=str(model_folder)))

    assert made(0) == made(0) != made(1)


def test_the_base_is_the_nearest_model_that_all_came_from(
    two: tuple[str, str], model_folder: Path, tmp_path: Path, blend: Callable[..., Path]
) -> None:
    middle = weights_hash(model_folder)
    for name in two:
        told = {"method": "sft", "data": [],
                "parent": {"model": str(model_folder), "sha256": middle}}  # fmt: skip
        (Path(name) / "lineage.json").write_text(json.dumps(told))
    with checked_blend(two, settle("ties", [], 2), registry=HERE) as checked:
        assert checked.base is not None
        assert checked.base.sha256 == middle
        assert "nearest model" in checked.notes[0]
    family = generations(ancestry(blend(two, settle("linear", [], 2))))
    assert [Path(made["model"]).name for made in family][:2] == [model_folder.name, "m1"]
    assert [made.get("method") for made in family] == [None, "sft", "sft", "blend"]


def test_without_a_known_ancestor_the_first_model_is_the_base_and_this_is_said(
    two: tuple[str, str], blend: Callable[..., Path]
) -> None:
    settings = settle("task_arithmetic", [0.5], 2)
    with checked_blend(two, settings, registry=HERE) as checked:
        assert checked.base is not None
        assert checked.base.name == two[0]
        assert any("--base names one" in note for note in checked.notes)
    made, (one, other) = held(blend(two, settings)), map(held, two)
    for name in made:
        torch.testing.assert_close(made[name], (one[name] + other[name]) / 2)


def test_the_blend_answers_and_its_lineage_names_both(
    two: tuple[str, str], model_folder: Path, blend: Callable[..., Path]
) -> None:
    made = blend(two, settle("linear", [0.3], 2))
    assert load_for_inference(str(made)).tokenizer.chat_template
    names = {p.name for p in model_folder.iterdir()} | {"lineage.json"}
    assert {p.name for p in made.iterdir()} == names
    told = ancestry(made)
    assert [p["sha256"] for p in told["parents"]] == [weights_hash(name) for name in two]
    picture = "\n".join(drawn(told))
    assert "settings     blend linear, weights [0.7, 0.3]" in picture
    assert picture.count("parent") == 2


def test_a_stored_precision_is_kept(
    two: tuple[str, str], tmp_path: Path, blend: Callable[..., Path]
) -> None:
    """Sums are made in float32 and rounded once, to the precision of the first model."""
    path = Path(two[0]) / "model.safetensors"
    halves = {name: tensor.bfloat16() for name, tensor in load_file(path).items()}
    save_file(halves, path, metadata={"format": "pt"})
    made, other = held(blend(two, settle("linear", [0.5], 2))), held(two[1])
    for name, half in halves.items():
        assert torch.equal(made[name], (0.5 * half.float() + 0.5 * other[name]).bfloat16())


def test_shards_and_their_index_are_those_of_the_first_model(
    model_folder: Path, tmp_path: Path, blend: Callable[..., Path]
) -> None:
    whole = AutoModelForCausalLM.from_pretrained(model_folder)
    names = []
    for number in (1, 2):
        folder = moved(model_folder, tmp_path / f"s{number}", number)
        noisy = AutoModelForCausalLM.from_pretrained(folder)
        (folder / "model.safetensors").unlink()
        noisy.save_pretrained(folder, max_shard_size="40KB")
        names.append(str(folder))
    assert len(list(Path(names[0]).glob("*.safetensors"))) > 1
    made = AutoModelForCausalLM.from_pretrained(blend(names, settle("soup", [], 2)))
    sides = [AutoModelForCausalLM.from_pretrained(name) for name in names]
    for name, tensor in made.state_dict().items():
        mean = (sides[0].state_dict()[name] + sides[1].state_dict()[name]) / 2
        torch.testing.assert_close(tensor, mean)
    assert len(made.state_dict()) == len(whole.state_dict())


def test_one_tensor_is_in_memory_at_a_time(
    two: tuple[str, str], blend: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is read after the one before was written."""
    order: list[str] = []
    read = Tensors.read

    def watched(self: Tensors, name: str) -> torch.Tensor:
        order.append(name)
        return read(self, name)

    monkeypatch.setattr(Tensors, "read", watched)
    blend(two, settle("linear", [0.5], 2))
    names = list(dict.fromkeys(order))
    # the layout's own, and one of each model
    assert order == [name for name in names for _ in range(3)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": 64}, "hidden_size"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}}, "rope_theta"),
        ({"architectures": ["LlamaForCausalLM"]}, "architectures"),
    ],
)
def test_another_architecture_is_refused(
    changes: dict[str, Any], said: str, two: tuple[str, str], tmp_path: Path
) -> None:
    other = moved(Path(two[0]), tmp_path / "other", 3, **changes)
    with (
        pytest.raises(ModelError, match=f"built differently.*{said}"),
        checked_blend([two[0], str(other)], settle("linear", [], 2), registry=HERE),
    ):
        pass


def test_what_an_older_version_wrote_of_the_same_model_is_no_difference(
    two: tuple[str, str],
) -> None:
    path = Path(two[1]) / "config.json"
    told = json.loads(path.read_text())
    theta = told.pop("rope_parameters")["rope_theta"]
    del told["attention_bias"]  # its default
    told |= {"rope_theta": theta, "transformers_version": "4.51.0", "torch_dtype": "float32"}
    path.write_text(json.dumps(told))
    with checked_blend(two, settle("linear", [], 2), registry=HERE) as checked:
        assert len(checked.sides) == 2


def test_other_weights_and_other_tokens_are_refused(two: tuple[str, str]) -> None:
    path = Path(two[1]) / "model.safetensors"
    weights = load_file(path)
    name, tensor = next(iter(weights.items()))
    settings = settle("linear", [], 2)
    save_file({n: t for n, t in weights.items() if n != name}, path)
    with (
        pytest.raises(ModelError, match=r"only .* has"),
        checked_blend(two, settings, registry=HERE),
    ):
        pass
    save_file({**weights, name: tensor[:-1].clone()}, path)
    with pytest.raises(ModelError, match="is \\["), checked_blend(two, settings, registry=HERE):
        pass
    save_file(weights, path)
    tokenizer = json.loads((Path(two[1]) / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:3]
    (Path(two[1]) / "tokenizer.json").write_text(json.dumps(tokenizer))
    with (
        pytest.raises(ModelError, match="splits texts into other tokens"),
        checked_blend(two, settings, registry=HERE),
    ):
        pass


def test_nothing_is_overwritten_and_equal_models_are_refused(
    two: tuple[str, str], tmp_path: Path
) -> None:
    with (
        checked_blend(two, settle("linear", [], 2), registry=HERE) as checked,
        pytest.raises(OutputError, match="exists already"),
    ):
        write_blend(checked, Path(two[1]))
    with (
        pytest.raises(ModelError, match="nothing to blend"),
        checked_blend([two[0], two[0]], settle("linear", [], 2), registry=HERE),
    ):
        pass


@pytest.mark.parametrize(
    ("method", "weights", "models", "options", "said"),
    [
        ("tise", [], 2, {}, "did you mean ties"),
        ("linear", [], 1, {}, "at least two"),
        ("slerp", [], 3, {}, "one model to one other"),
        ("soup", [0.5], 2, {}, "reads no --weights"),
        ("linear", [0.5], 2, {"density": 0.5}, "reads no --density"),
        ("ties", [], 2, {"density": 0.0}, "a share above 0"),
        ("ties", [], 2, {"seed": 1}, "reads no --seed"),
        ("linear", [1.0, -1.0], 2, {}, "sum to 0"),
        ("linear", [0.5], 3, {}, "1 numbers for 3 models"),
        ("ties", [float("nan")], 2, {}, "no number"),
    ],
)
def test_what_a_method_does_not_read_is_refused(
    method: str, weights: list[float], models: int, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        settle(method, weights, models, **options)


def test_weights_are_shares_or_scales() -> None:
    assert settle("linear", [0.25], 2).weights == (0.75, 0.25)
    assert settle("linear", [1, 3], 2).weights == (0.25, 0.75)
    assert settle("ties", [0.5], 3).weights == (0.5, 0.5, 0.5)
    assert settle("dare", [], 2) == Settings("dare", (1.0, 1.0), 0.1, 0)


class TestAdapters:
    @pytest.fixture
    def adapters(self, model_folder: Path, tmp_path: Path) -> list[str]:
        """Two adapters of ranks 2 and 3 on the same modules of one base, one of them rsLoRA."""
        names = []
        for rank in (2, 3):
            base = AutoModelForCausalLM.from_pretrained(model_folder)
            torch.manual_seed(rank)
            config = LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=4, use_rslora=rank == 3,
                                target_modules=["q_proj", "down_proj"],
                                init_lora_weights=False)  # fmt: skip
            folder = tmp_path / f"adapter-{rank}"
            get_peft_model(base, config).save_pretrained(folder)
            AutoTokenizer.from_pretrained(model_folder).save_pretrained(folder)
            names.append(str(folder))
        return names

    @staticmethod
    def merged(name: str, model_folder: Path) -> Weights:
        base = AutoModelForCausalLM.from_pretrained(model_folder)
        found: Weights = PeftModel.from_pretrained(base, name).merge_and_unload().state_dict()
        return found

    def test_a_blend_of_adapters_is_that_of_the_merged_models(
        self, adapters: list[str], model_folder: Path, blend: Callable[..., Path]
    ) -> None:
        made = held(blend(adapters, settle("linear", [0.25], 2)))
        one, other = (self.merged(name, model_folder) for name in adapters)
        for name in made:
            torch.testing.assert_close(made[name], 0.75 * one[name] + 0.25 * other[name])

    def test_as_an_adapter_the_ranks_add_up_and_it_is_the_same_model(
        self, adapters: list[str], model_folder: Path, blend: Callable[..., Path]
    ) -> None:
        for settings in (settle("linear", [0.25], 2), settle("task_arithmetic", [1.5, -1.0], 2)):
            whole = held(blend(adapters, settings))
            low = blend(adapters, settings, form="adapter")
            assert json.loads((low / "adapter_config.json").read_text())["r"] == 5
            again = self.merged(str(low), model_folder)
            for name, tensor in whole.items():
                torch.testing.assert_close(again[name], tensor, atol=1e-5, rtol=1e-5)

    def test_task_vectors_of_adapters_are_what_they_add(
        self, adapters: list[str], model_folder: Path, blend: Callable[..., Path]
    ) -> None:
        made = held(blend(adapters, settle("ties", [], 2, density=1.0)))
        base, one, other = held(model_folder), *(self.merged(n, model_folder) for n in adapters)
        name = "model.layers.1.self_attn.q_proj.weight"
        vectors = [one[name] - base[name], other[name] - base[name]]
        torch.testing.assert_close(made[name], ties(base[name], vectors, [1, 1], [0, 0]))
        untouched = "model.layers.1.self_attn.k_proj.weight"
        assert torch.equal(made[untouched], base[untouched])

    def test_what_has_no_low_rank_is_refused_as_an_adapter(
        self, adapters: list[str], model_folder: Path, two: tuple[str, str]
    ) -> None:
        cases: list[tuple[Sequence[str], str, str]] = [
            (adapters, "ties", "no weighted sum"),
            ((adapters[0], two[0]), "linear", "a whole model"),
        ]
        for models, method, said in cases:
            with (
                pytest.raises(UsageError, match=said),
                checked_blend(models, settle(method, [], 2), form="adapter", registry=HERE),
            ):
                pass

    def test_what_is_no_sum_of_two_factors_is_refused(
        self, adapters: list[str], two: tuple[str, str]
    ) -> None:
        path = Path(adapters[0]) / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "use_dora": True}))
        with (
            pytest.raises(ModelError, match="no plain LoRA \\(use_dora"),
            checked_blend(adapters, settle("linear", [], 2), registry=HERE),
        ):
            pass
