"""`strop merge`, `strop blend` and `strop export-gguf` as they are typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from strop.cli.app import app
from strop.demo.world import all_equations, solution, user
from strop.errors import ModelError, OutputError, UsageError
from strop.model.load import weights_hash
from tests.support.runs import write_jsonl


def strop(*args: object) -> str:
    """What a command prints; raises what it raises."""
    result = CliRunner().invoke(app, list(map(str, args)))
    if result.exception is not None:
        raise result.exception
    return result.stdout


@pytest.fixture
def other(model_folder: Path, tmp_path: Path) -> Path:
    """The tiny model, moved a little."""
    folder = tmp_path / "other"
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model_folder).save_pretrained(folder)
    return folder


@pytest.fixture
def adapter(model_folder: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    torch.manual_seed(0)
    config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"],
                        init_lora_weights=False)  # fmt: skip
    base = AutoModelForCausalLM.from_pretrained(model_folder)
    get_peft_model(base, config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model_folder).save_pretrained(folder)
    return folder


def test_merge(adapter: Path, model_folder: Path, tmp_path: Path) -> None:
    planned = strop("merge", adapter, "--output", tmp_path / "whole", "--dry-run")
    assert "would be merged" in planned
    assert not (tmp_path / "whole").exists()
    said = json.loads(strop("merge", adapter, "--output", tmp_path / "whole", "--json"))
    assert said["sha256"] == weights_hash(tmp_path / "whole")
    assert said["same"] == said["places"]
    assert said["base"] == str(model_folder)
    assert "not proven" in said["notes"][0]
    with pytest.raises(OutputError, match="exists already"):
        strop("merge", adapter, "--output", tmp_path / "whole")
    with pytest.raises(ModelError, match="no adapter"):
        strop("merge", model_folder, "--output", tmp_path / "again")
    printed = strop("merge", adapter, "--output", tmp_path / "second")
    assert "note: " in printed
    assert "the likeliest token is the same" in printed


def test_blend(model_folder: Path, other: Path, tmp_path: Path) -> None:
    two = ("blend", model_folder, other, "--output", tmp_path / "blend")
    planned = strop(*two, "--method", "ties", "--weights", "0.5", "--dry-run")
    assert "would be blended" in planned
    assert "ties, weights 0.5, 0.5, density 0.2, base " in planned
    assert not (tmp_path / "blend").exists()
    said = json.loads(strop(*two, "--method", "ties", "--weights", "0.5", "--json"))
    assert said["sha256"] == weights_hash(tmp_path / "blend")
    assert said["base"] == str(model_folder)
    AutoModelForCausalLM.from_pretrained(tmp_path / "blend")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--suite", "s.yaml"], "--suite is for the curve"),
        (["--target", "a"], "--target is for the curve"),
        (["--curve", "0,1"], "say on what: --suite"),
        (["--curve", "0,1", "--suite", "s.yaml", "--weights", "0.5"], "drop --weights"),
        (["--curve", "0,1", "--suite", "s.yaml", "--as", "adapter"], "drop --as"),
        (["--curve", "0,1", "--suite", "s.yaml", "--method", "soup"], "reads no --weights"),
        (["--base", "x"], "linear reads no --base"),
        (["--as", "adapter"], "a whole model"),
    ],
)
def test_what_would_change_nothing_is_refused(
    options: list[str], said: str, model_folder: Path, other: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        strop("blend", model_folder, other, "--output", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_the_curve(model_folder: Path, other: Path, tmp_path: Path) -> None:
    pairs: list[dict[str, Any]] = [
        {"prompt": user(e), "chosen": solution(e), "rejected": solution(e, filler=True)}
        for e in all_equations()[:9]
    ]
    write_jsonl(tmp_path / "pairs.jsonl", pairs)
    suite = tmp_path / "suite.yaml"
    task = {"kind": "preference", "name": "edits", "data": "pairs.jsonl"}
    suite.write_text(yaml.safe_dump({"name": "small", "tasks": [task]}))
    policy = tmp_path / "policy.yaml"
    policy.write_text(yaml.safe_dump({"guardrails": [{"score": "edits", "margin": 0.5}]}))
    typed = ("blend", model_folder, other, "--curve", "0,0.5,...,1", "--suite", suite, "--gate",
             policy, "--registry", tmp_path / "r.db", "--output", tmp_path / "curve")  # fmt: skip
    assert "would measure edits at 3 weights: 9 items" in strop(*typed, "--dry-run")
    assert not (tmp_path / "curve").exists()
    said = strop(*typed)
    rows = [line.split() for line in said.splitlines() if line.startswith(("0 ", "0.5 ", "1 "))]
    assert [row[0] for row in rows] == ["0", "0.5", "1"]
    assert f"saved {tmp_path / 'curve/curve.json'}" in said
    again = json.loads(strop(*typed, "--json"))
    assert [point["weight"] for point in again["points"]] == [0.0, 0.5, 1.0]
    assert [f"{point['scores']['edits']:.3f}" for point in again["points"]] == [r[1] for r in rows]


def test_export_gguf(model_folder: Path, adapter: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    file = tmp_path / "m.gguf"
    with pytest.raises(ModelError, match="no name for the rule"):
        strop("export-gguf", model_folder, "--output", file)
    with pytest.raises(ModelError, match="merge it first"):
        strop("export-gguf", adapter, "--output", file)
    options = ("--pretokenizer", "smollm", "--dtype", "float32")
    assert "would be written" in strop(
        "export-gguf", model_folder, "--output", file, "--dry-run", *options
    )
    assert not file.exists()
    said = json.loads(strop("export-gguf", model_folder, "--output", file, "--json", *options))
    assert said["architecture"] == "qwen3"
    assert file.read_bytes()[:4] == b"GGUF"
