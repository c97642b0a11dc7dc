"""Adapters merged into their base: the same logits, or nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from strop.demo.model import raw_model
from strop.errors import ModelError, OutputError
from strop.model.load import load_for_inference, stops_of, weights_hash
from strop.model.merge import check_merge, merge
from strop.model.stored import stored
from strop.recipe.loading.load import load_recipe
from strop.registry.lineage import ancestry, generations
from strop.registry.store import Registry
from strop.registry.tree import drawn
from strop.train.run import train
from tests.support.registries import promote

HERE = Path("no-registry.db")
IDS = torch.arange(5, 45)[None]


def adapter_on(base: Path, folder: Path, **options: Any) -> Path:
    """An adapter with random factors."""
    torch.manual_seed(1)
    given = {"r": 3, "target_modules": "all-linear", "init_lora_weights": False, **options}
    config = LoraConfig(task_type="CAUSAL_LM", lora_alpha=6, **given)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def merged(adapter: Path, output: Path, **options: Any) -> Any:
    with stored(str(adapter), HERE) as found:
        return merge(check_merge(found, **options), output)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(IDS).logits
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["embed_tokens", "v_proj"]},
    ],
    ids=["lora", "rslora", "dora", "a head of its own", "tied embeddings"],
)
def test_the_merged_model_has_the_adapters_logits(
    options: dict[str, Any], model_folder: Path, tmp_path: Path
) -> None:
    adapter = adapter_on(model_folder, tmp_path / "adapter", **options)
    found = merged(adapter, tmp_path / "merged")
    base = AutoModelForCausalLM.from_pretrained(model_folder)
    plain = logits(base)
    wanted = logits(PeftModel.from_pretrained(base, adapter))
    made = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"))
    torch.testing.assert_close(made, wanted, atol=1e-3, rtol=1e-4)
    assert (wanted - plain).abs().max() > 0.1  # the adapter does something
    assert found.share < 1e-4
    assert found.same == found.places > 100


def test_a_merge_that_changes_the_model_is_refused_and_nothing_is_written(
    model_folder: Path, tmp_path: Path
) -> None:
    adapter = adapter_on(model_folder, tmp_path / "adapter")
    with pytest.raises(ModelError, match=r"not the adapter's: logits differ .* 1e-07 is allowed"):
        merged(adapter, tmp_path / "merged", dtype="bfloat16", tolerance=1e-7)
    assert {path.name for path in tmp_path.iterdir()} == {"adapter"}
    found = merged(adapter, tmp_path / "merged", dtype="bfloat16")
    assert 1e-7 < found.share <= 0.05
    kinds = {t.dtype for t in load_file(tmp_path / "merged/model.safetensors").values()}
    assert kinds == {torch.bfloat16}
    with pytest.raises(OutputError, match="exists already"):
        merged(adapter, tmp_path / "merged")


def test_the_precision_is_the_bases(model_folder: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16).save_pretrained(base)
    AutoTokenizer.from_pretrained(model_folder).save_pretrained(base)
    adapter = adapter_on(base, tmp_path / "adapter")
    merged(adapter, tmp_path / "merged")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged").dtype == torch.bfloat16


def test_tokenizer_template_and_stops_are_the_adapters(model_folder: Path, tmp_path: Path) -> None:
    adapter = adapter_on(model_folder, tmp_path / "adapter")
    (adapter / "chat_template.jinja").write_text("{{ messages[0]['content'] }} of the adapter")
    (adapter / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 3]}))
    merged(adapter, tmp_path / "merged")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "merged" / name).read_bytes() == (adapter / name).read_bytes()
    assert set(stops_of(str(tmp_path / "merged"))) == {1, 3}
    tokenizer = load_for_inference(str(tmp_path / "merged")).tokenizer
    assert tokenizer.chat_template.endswith("of the adapter")


def test_the_base_has_to_be_the_one_it_was_trained_on(
    recipes: dict[str, Path], model_folder: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(model_folder, tmp_path / "base")
    options = ["model.lora={rank: 4}", "optim.learning_rate=1e-2", f"model.path={base}"]
    final = train(load_recipe(recipes["sft"], options))
    with stored(str(final), HERE) as found:
        assert check_merge(found).notes == ()
    elsewhere = base.rename(tmp_path / "elsewhere")
    with stored(str(final), HERE) as found:
        with pytest.raises(ModelError, match="is not there"):
            check_merge(found)
        assert check_merge(found, base=str(elsewhere)).base == elsewhere
    weights = load_file(elsewhere / "model.safetensors")
    name = next(iter(weights))
    save_file({**weights, name: weights[name] + 1}, elsewhere / "model.safetensors")
    with stored(str(final), HERE) as found, pytest.raises(ModelError, match="holds other weights"):
        check_merge(found, base=str(elsewhere))


def test_an_adapter_without_a_history_is_merged_and_this_is_said(
    model_folder: Path, tmp_path: Path
) -> None:
    adapter = adapter_on(model_folder, tmp_path / "adapter")
    with stored(str(adapter), HERE) as found:
        (note,) = check_merge(found).notes
    assert "not proven" in note


def test_a_merged_model_knows_its_whole_history(recipes: dict[str, Path], tmp_path: Path) -> None:
    """Also when the adapter is gone: what it was trained on stays known."""
    options = ["model.lora={rank: 4}", "optim.learning_rate=1e-2"]
    final = train(load_recipe(recipes["sft"], options))
    before = weights_hash(final)
    merged(final, tmp_path / "merged")
    shutil.rmtree(final.parent)
    told = ancestry(tmp_path / "merged")
    assert told["parent"]["sha256"] == before
    assert [made.get("method") for made in generations(told)] == [None, "sft", "merge"]
    assert len(generations(told)[1]["data"]) == 1
    assert drawn(told)[0].startswith("merge  ")


def test_an_entry_of_the_registry_is_merged(
    recipes: dict[str, Path], model_folder: Path, tmp_path: Path
) -> None:
    adapter = adapter_on(model_folder, tmp_path / "adapter")
    registry = Registry(tmp_path / "registry.db")
    promote(registry, adapter, "mine")
    shutil.rmtree(adapter)
    with stored("mine", registry.path) as found:
        merge(check_merge(found), tmp_path / "merged")
        folder = found.folder
    assert not folder.exists()
    assert ancestry(tmp_path / "merged")["parent"]["parent"]["model"] == str(model_folder)


def test_what_is_no_adapter_is_refused(model_folder: Path) -> None:
    with stored(str(model_folder), HERE) as found, pytest.raises(ModelError, match="no adapter"):
        check_merge(found)
    with pytest.raises(ModelError, match="no registry to look"), stored("nothing", HERE):
        pass


class TestFourBits:
    @pytest.fixture
    def base(self, tokenizer: Any, tmp_path: Path) -> Path:
        """A model whose rows are whole blocks of 64."""
        folder = tmp_path / "base"
        model = raw_model(tokenizer, seed=0, width=64)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.1)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    def test_it_is_merged_into_the_weights_that_training_saw(
        self, base: Path, recipes: dict[str, Path], tmp_path: Path
    ) -> None:
        pytest.importorskip("bitsandbytes")
        options = ["model={path: %s, lora: {rank: 4}, quantize: nf4}" % base,  # noqa: UP031
                   "optim.learning_rate=1e-2", "run.steps=3"]  # fmt: skip
        final = train(load_recipe(recipes["sft"], options))
        with stored(str(final), HERE) as found:
            plan = check_merge(found)
            assert plan.quantised
            assert "4-bit" in plan.notes[0]
            agreement = merge(plan, tmp_path / "merged")
        assert agreement.share < 1e-4
        told = json.loads((tmp_path / "merged/config.json").read_text())
        assert "quantization_config" not in told
        kinds = {t.dtype for t in load_file(tmp_path / "merged/model.safetensors").values()}
        assert kinds == {torch.float32}
        whole = AutoModelForCausalLM.from_pretrained(base)
        onto_16_bits = logits(PeftModel.from_pretrained(whole, final))
        made = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"))
        # what 4 bits cost is far more than what merging does
        assert (made - onto_16_bits).abs().max() > 100 * agreement.difference

    def test_a_base_that_is_stored_quantised_another_way_is_refused(
        self, base: Path, tmp_path: Path
    ) -> None:
        adapter = adapter_on(base, tmp_path / "adapter")
        path = base / "config.json"
        told = {**json.loads(path.read_text()), "quantization_config": {"quant_method": "gptq"}}
        path.write_text(json.dumps(told))
        with stored(str(adapter), HERE) as found, pytest.raises(ModelError, match="gptq"):
            check_merge(found)
