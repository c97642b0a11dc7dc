"""A folder that has something for every page of the studio."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from strop.files import write_whole

TOKEN = "the-token-of-this-studio"


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_run(
    folder: Path,
    *,
    steps: int = 40,
    seed: int = 0,
    beta: float = 0.1,
    finished: bool = True,
    said: str = "x = 3",
) -> Path:
    """A run of GRPO whose reward rises, with an alarm in its middle."""
    rows: list[dict[str, Any]] = []
    for n in range(1, steps + 1):
        wave = 0.05 * math.sin(n + seed)
        rows.append({
            "step": n, "reward": 0.2 + 0.6 * n / steps + wave, "entropy": 2.0 - 1.5 * n / steps,
            "completions/mean_length": 30 + 10 * n / steps, "kl": 0.2 * n / steps, "loss": 1e-9,
            "grad_norm": 1 + wave, "learning_rate": 1e-5, "hack/empty": 0.0,
            "epoch": n / steps, "step_time": 1.0,
        })  # fmt: skip
        if n % 10 == 0:
            rows[-1]["eval_reward"] = 0.2 + 0.4 * n / steps
    middle = rows[steps // 2 - 1]
    middle["alarms"] = [
        ["warn", f"entropy_collapse at step {steps // 2}: entropy fell to 0.1 of its start"]
    ]
    recipe = {"method": "grpo", "seed": seed, "output": str(folder), "run": {"steps": steps},
              "objective": {"beta": beta}, "optim": {"learning_rate": 1e-5}}  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "recipe.resolved.yaml").write_text(yaml.safe_dump(recipe))
    pairs = folder.parent.parent / "data" / "pairs.jsonl"
    lineage = {
        "method": "grpo", "parent": {"path": "base", "sha256": "9b1c0d2e"},
        "data": [{"path": str(pairs), "sha256": "2f34abcd"}],
        "rows": [50], "resumed": [{"step": 5}],
        "manifests": [{"path": "data/pairs.manifest.json", "sha256": "77aa12cd",
                       "made_by": "strop data balance", "unchanged": True}],
    }  # fmt: skip
    (folder / "lineage.json").write_text(json.dumps(lineage))
    write_jsonl(folder / "metrics.jsonl", rows)
    write_jsonl(folder / "samples.jsonl", [
        {"step": n, "prompt": [{"role": "user", "content": f"Solve {n % 3}x = 6"}],
         "completion": f"{said} ({n})", "reward": n / steps, "exact": n / steps,
         **({"habit": "no_work"} if n % 7 == 0 else {})}
        for n in range(1, steps + 1)
    ])  # fmt: skip
    (folder / "profile").mkdir()
    (folder / "profile" / "profile.md").write_text("seconds of a step: 1.5")
    if finished:
        (folder / "final").mkdir()
    return folder


def write_gate(root: Path, said: str = "x = 3") -> Path:
    """A verdict with the evals that it compares."""
    evals: dict[str, Any] = {}
    for side, right in (("base", 6), ("candidate", 9)):
        folder = root / "evals" / side
        rows = [{"item": str(n), "score": float(n < right), "task": "exact", "output": said,
                 "prompt": f"Solve {n}"} for n in range(12)]  # fmt: skip
        evals[side] = {"folder": str(write_jsonl(folder / "scores.jsonl", rows)), "records": 12}
    check = {
        "name": "exact", "kind": "target", "estimate": 0.25, "low": 0.05, "high": 0.45,
        "bound": 0.0, "verdict": "pass", "n": 12, "n_needed": None, "detectable": 0.3,
        "method": "tango", "base": 0.5, "candidate": 0.75, "lost": 0, "gained": 3,
    }  # fmt: skip
    verdict = {"name": "pass", "sentence": "Pass: exact rose from 0.5 to 0.75.",
               "checks": [check], "slices": [], "remarks": [], "policy": {"name": "small"},
               "evals": evals}  # fmt: skip
    path = root / "gates" / "candidate.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(verdict))
    write_whole(path.with_suffix(".html"), "<p>the gate's own page</p>")
    return path


def write_traffic(folder: Path, said: str = "x = 3") -> Path:
    """Answers of two sides of a trial, the canary's liked less."""
    rows: list[dict[str, Any]] = []
    for n in range(60):
        arm = "canary" if n % 3 == 0 else "stable"
        rows.append({
            "id": f"chatcmpl-{n}", "model": "support", "trial": "trial-1", "arm": arm,
            "session": f"s{n}", "messages": [{"role": "user", "content": f"Help {n}"}],
            "answer": said, "time": "2026-01-02T03:04:05+00:00",
        })  # fmt: skip
        liked = n % 2 == 0 if arm == "canary" else n % 5 != 0
        rows.append({"id": f"chatcmpl-{n}", "digest": f"d{n}", "label": liked})
    called = [{"role": "user", "content": None, "tool_calls": [{"x": 1}]}]
    rows.append({"id": "chatcmpl-60", "model": "support", "session": "s60",
                 "answers": ["a", "b"], "messages": called})  # fmt: skip
    rows.insert(0, {"event": "trial_begun", "trial": "trial-1", "share": 0.3, "alpha": 0.05,
                    "signal": "thumb", "scale": [0.0, 1.0]})  # fmt: skip
    rows.insert(0, {"event": "version", "model": "support", "version": "support@1a2b"})
    rows.append({"event": "shadow", "answer_id": "chatcmpl-3"})
    rows.append({"event": "trial_ended", "trial": "trial-1", "state": "taken back",
                 "why": "worse by thumbs"})  # fmt: skip
    return write_jsonl(folder / "traffic-000001-20260102.jsonl", rows)


def write_root(root: Path, said: str = "x = 3") -> Path:
    """Runs (of one recipe over two seeds, another one, one that was stopped), a gate, a check,
    pairs, traffic."""
    write_run(root / "runs" / "seed-0", said=said)
    write_run(root / "runs" / "seed-1", seed=1, said=said)
    write_run(root / "runs" / "candidate", beta=0.0, said=said)
    write_run(root / "runs" / "stopped", steps=20, finished=False, said=said)
    write_gate(root, said)
    write_traffic(root / "traffic", said)
    write_jsonl(root / "data" / "pairs.jsonl", [
        {"prompt": f"Name river {n}.", "chosen": f"The Rhine flows {n}. {said}",
         "rejected": f"The Rhone flows {n}.", "topic": "rivers"}
        for n in range(50)
    ])  # fmt: skip
    finding = {"code": "length_bias", "severity": "warn", "said": f"chosen are longer {said}",
               "count": 3, "methods": "dpo", "fix": "balance", "examples": []}  # fmt: skip
    report = {"files": ["data/pairs.jsonl"], "findings": [finding], "lengths": {"median": 4}}
    check = root / "checks" / "pairs.json"
    check.parent.mkdir(parents=True)
    check.write_text(json.dumps(report))
    check.with_suffix(".html").write_text("<p>the check's own page</p>")
    return root
