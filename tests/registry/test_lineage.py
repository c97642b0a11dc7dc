"""Where an entry comes from, how two differ, and the card that says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from strop.errors import RegistryError
from strop.model.load import weights_hash
from strop.recipe.loading.load import load_recipe
from strop.registry.card import card, front_matter
from strop.registry.diff import Difference, differences
from strop.registry.lineage import ancestry
from strop.registry.objects import manifest_of
from strop.registry.records import Entry
from strop.registry.store import Registry
from strop.registry.tree import drawn, fitted
from strop.train.run import train
from tests.support.registries import CHECK, invoke, model, passed, promote, run

MANIFEST = {"path": "/data/pairs.manifest.json", "sha256": "77aa12cd" * 8,
            "made_by": "strop data balance", "unchanged": True}  # fmt: skip


class TestLineage:
    def test_everything_a_run_wrote_is_carried(self, chain: Path) -> None:
        made = ancestry(chain)
        assert made["data"] == [
            {"path": "/data/pairs.jsonl", "sha256": "2f34abcd00000000", "rows": 896}
        ]
        assert made["resolved"]["optim"] == {"learning_rate": 1e-6}
        assert made["environment"]["torch"] == "2.13.0"
        assert made["parent"]["method"] == "sft"
        assert made["parent"]["parent"] == {"model": "base", "sha256": weights_hash("base")}

    def test_a_parent_that_was_replaced_is_not_mistaken(self, chain: Path) -> None:
        sha256 = weights_hash("sft/final")
        run(Path("sft"), Path("base"), "sft", seed=1)
        assert ancestry(chain)["parent"] == {
            "model": "sft/final", "changed": True, "sha256": sha256
        }  # fmt: skip
        assert "(other weights lie there now)" in "\n".join(drawn(ancestry(chain)))

    def test_an_adapter_from_elsewhere_names_its_base(self, tmp_path: Path) -> None:
        config = json.dumps({"base_model_name_or_path": "hub/base"}).encode()
        folder = model(tmp_path / "adapter", "lora", **{"adapter_config.json": config})
        assert ancestry(folder) == {"model": str(folder), "parent": {"model": "hub/base"}}

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("lineage.json", "{", "lineage.json: cannot be read"),
            ("lineage.json", "{}", "lineage.json: is no lineage"),
            ("env.json", "[]", "env.json: holds no object"),
            ("recipe.resolved.yaml", "a: [", "recipe.resolved.yaml: cannot be read"),
        ],
    )
    def test_broken_files_of_a_run(
        self, chain: Path, name: str, content: str, message: str
    ) -> None:
        (chain.parent / name).write_text(content)
        with pytest.raises(RegistryError, match=message.replace(".", r"\.")):
            ancestry(chain)

    def test_a_checkpoint_has_the_history_of_its_run(self, chain: Path) -> None:
        checkpoint = model(Path("dpo/checkpoint-10"), "half way")
        assert ancestry(checkpoint)["method"] == "dpo"
        assert ancestry(Path("dpo")) == {"model": "dpo"}

    def test_the_picture(self, chain: Path) -> None:
        assert drawn(ancestry(chain)) == [
            "dpo  dpo/final",
            "├─ data         pairs.jsonl  2f34abcd  896 rows",
            "├─ rewards      aa11bb22",
            "├─ recipe       5d2c8e120000",
            "├─ code         strop 0.1.0, commit 1a2b3c4d5e6f",
            "├─ environment  python 3.11.9, torch 2.13.0, Linux",
            f"└─ parent       sft  sft/final  {weights_hash('sft/final')[:8]}",
            "   ├─ data         pairs.jsonl  2f34abcd  896 rows",
            "   ├─ rewards      aa11bb22",
            "   ├─ recipe       5d2c8e120000",
            "   ├─ code         strop 0.1.0, commit 1a2b3c4d5e6f",
            "   ├─ environment  python 3.11.9, torch 2.13.0, Linux",
            f"   └─ parent       base  {weights_hash('base')[:8]}  (no record)",
        ]

    def test_the_manifest_of_the_data_is_shown(self, chain: Path, registry: Registry) -> None:
        """By `registry show` and on the card; a file that is another by then is said to be."""
        file = Path("dpo/lineage.json")
        lineage = json.loads(file.read_text())
        file.write_text(json.dumps(lineage | {"manifests": [MANIFEST]}))
        assert ancestry(chain)["data"][0]["manifest"] == MANIFEST
        assert "manifest" not in ancestry(chain)["parent"]["data"][0], "an older run names none"
        line = "├─ made by      strop data balance  pairs.manifest.json  77aa12cd"
        assert drawn(ancestry(chain))[2] == line
        entry = promote(registry, chain)
        assert line in invoke("show", entry.id, "--registry", registry.path)
        row = "| 896 | strop data balance  pairs.manifest.json  77aa12cd |"
        assert row in card(entry)
        changed = MANIFEST | {"unchanged": False}
        file.write_text(json.dumps(lineage | {"manifests": [changed]}))
        assert drawn(ancestry(chain))[2] == f"{line}  (the file was changed since)"

    def test_it_fits(self) -> None:
        deep = {"model": "/very/long" * 30 + "/dpo/final"}
        for _ in range(12):
            deep = {"model": deep["model"], "parent": {**deep, "sha256": "0" * 16}}  # type: ignore[dict-item]
        assert max(map(len, drawn(deep))) <= 100
        assert fitted("a " + "x" * 50 + "/final", 30) == "a xxxxxxxxx…xxxxxxxxxxxx/final"

    def test_a_real_run(self, recipes: dict[str, Path], registry: Registry) -> None:
        final = train(load_recipe(recipes["sft"]))
        entry = promote(registry, final)
        rows = len((recipes["sft"].parent / "sft.jsonl").read_text().splitlines())
        assert [source["rows"] for source in entry.lineage["data"]] == [rows]
        assert entry.lineage["resolved"] == load_recipe(recipes["sft"]).plain()
        assert entry.lineage["environment"]["strop"] == entry.lineage["code"]["strop"]
        assert entry.manifest == manifest_of(final)


class TestDiff:
    def test_only_what_differs(self, chain: Path, registry: Registry) -> None:
        first = promote(registry, chain)
        assert differences(first, first) == []
        other = run(Path("again"), Path("sft/final"), "dpo", seed=1)
        env = json.loads(Path("again/env.json").read_text())
        Path("again/env.json").write_text(json.dumps({**env, "torch": "2.14.0"}))
        weights = weights_hash(other)
        checks = [{**CHECK, "candidate": 0.5}]
        second = promote(registry, other, verdict={**passed(weights), "checks": checks})
        assert differences(first, second) == [
            Difference("weights", "sha256", first.weights, second.weights),
            Difference("recipe", "seed", 0, 1),
            Difference("environment", "torch", "2.13.0", "2.14.0"),
            Difference("scores", "greedy/accuracy", 0.97, 0.5),
        ]

    def test_parents_data_and_code(self, chain: Path, registry: Registry) -> None:
        first = promote(registry, chain)
        lineage = json.loads(Path("dpo/lineage.json").read_text())
        lineage["data"].append({"path": "/b.jsonl", "sha256": "1" * 16})
        lineage |= {"rows": [896, None], "code": {"strop": "0.2.0", "commit": None}}
        lineage["parent"] = {"path": "base", "sha256": weights_hash("base")}
        Path("dpo/lineage.json").write_text(json.dumps(lineage))
        second = promote(registry, chain)
        sft, base = weights_hash("sft/final"), weights_hash("base")
        assert differences(first, second) == [
            Difference("data", "2", None, "b.jsonl  11111111"),
            Difference("code", "strop", "0.1.0", "0.2.0"),
            Difference("code", "commit", "1a2b3c4d5e6f7a8b", None),
            Difference("parents", "1 up", f"sft {sft}", f"model {base}"),
            Difference("parents", "2 up", f"model {base}", None),
        ]

    def test_the_command(self, chain: Path, registry: Registry) -> None:
        first = promote(registry, chain)
        here = ("--registry", registry.path)
        assert invoke("diff", first.id, "algebra", *here) == (
            f"{first.id} and {first.id} do not differ\n"
        )
        second = promote(registry, run(Path("again"), Path("sft/final"), "dpo", seed=1))
        said = invoke("diff", first.id, second.id, *here).splitlines()
        assert said[0].split() == [first.id, second.id]
        assert said[2].split() == ["recipe", "seed", "0", "1"]
        rows = invoke("diff", first.id, second.id, "--json", *here).splitlines()
        assert json.loads(rows[1]) == {"part": "recipe", "key": "seed", "a": 0, "b": 1}

    def test_all_scores_of_the_evals_are_compared(
        self, registry: Registry, entry: Entry, tmp_path: Path
    ) -> None:
        evals = {
            "base": {"folder": "/b", "records": 400, "scores": {"greedy/accuracy": 0.44}},
            "candidate": {"folder": "/c", "records": 400, "scores": {"slow": 0.2}},
        }
        verdict = {**passed(entry.weights), "evals": evals, "remarks": ["2 items were lost"]}
        second = promote(registry, tmp_path / "one", verdict=verdict)
        assert differences(entry, second) == [Difference("scores", "slow", None, 0.2)]
        shown = invoke("show", second.id, "--registry", registry.path)
        assert "evals     base: /b, 400 records" in shown
        assert "remark    2 items were lost" in shown
        assert "\n- 2 items were lost\n" in card(second)


class TestCard:
    def test_the_hub_reads_it(self, chain: Path, registry: Registry) -> None:
        entry = promote(registry, chain)
        read = ModelCard(card(entry), ignore_metadata_errors=False)
        assert read.data.base_model == "base"
        assert read.data.library_name == "transformers"
        assert read.data.tags == ["strop", "sft", "dpo"]
        assert read.data.datasets == ["pairs.jsonl"]
        assert read.data.license is None
        (result,) = read.data.eval_results
        assert (result.task_type, result.dataset_name) == ("text-generation", "greedy")
        assert (result.metric_type, result.metric_value) == ("accuracy", 0.97)
        assert front_matter(entry)["base_model_relation"] == "finetune"

    def test_the_body(self, chain: Path, registry: Registry) -> None:
        text = ModelCard(card(promote(registry, chain))).text
        lines = [line for line in text.splitlines() if line]
        assert lines[:2] == ["# dpo", "**Pass: better.**"]
        assert (
            "| greedy/accuracy | target | 0.44 | 0.97 | +0.53 | +0.48 to +0.58 | 400 | pass |"
            in lines
        )
        assert "| sft | /data/pairs.jsonl | 2f34abcd00000000 | 896 |" in lines
        assert "  learning_rate: 1.0e-06" in lines
        assert 'model = AutoModelForCausalLM.from_pretrained("model")' in lines

    def test_a_band_is_a_ratio(self, registry: Registry, tmp_path: Path) -> None:
        folder = model(tmp_path / "one", "first")
        band = {**CHECK, "kind": "band", "estimate": 1.02, "low": 0.97, "high": 1.07}
        entry = promote(
            registry, folder, verdict={**passed(weights_hash(folder)), "checks": [band]}
        )
        assert "| band | 0.44 | 0.97 | x 1.02 | 0.97 to 1.07 | 400 | pass |" in card(entry)

    def test_adapters_and_hub_names(self, registry: Registry, tmp_path: Path) -> None:
        config = json.dumps({"base_model_name_or_path": "hub/base"}).encode()
        folder = model(tmp_path / "adapter", "lora", **{"adapter_config.json": config})
        entry = promote(registry, folder, verdict=None, override="a trial")
        found = front_matter(entry)
        assert (found["library_name"], found["base_model"]) == ("peft", "hub/base")
        assert found["base_model_relation"] == "adapter"
        assert "model-index" not in found
        assert "**Promoted without a passing verdict**" in card(entry)
        assert "AutoPeftModelForCausalLM" in card(entry)

    def test_nothing_breaks_out_of_the_header(self, registry: Registry, tmp_path: Path) -> None:
        folder = model(tmp_path / "one", "first")
        odd = {"model": str(folder), "method": "dpo", "parent": {"model": "a\n---\nlicense: mit"}}
        entry = promote(registry, folder, lineage=odd)
        assert ModelCard(card(entry)).data.license is None

    def test_the_command(self, chain: Path, registry: Registry, tmp_path: Path) -> None:
        entry = promote(registry, chain)
        here = ("--registry", registry.path)
        assert invoke("card", "algebra", *here) == card(entry)
        output = tmp_path / "README.md"
        assert "would write" in invoke("card", "algebra", "--output", output, "--dry-run", *here)
        assert not output.exists()
        invoke("card", "algebra", "--output", output, *here)
        assert output.read_text() == card(entry)
