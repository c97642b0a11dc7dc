"""An asynchronous run that is killed twenty times: every prompt is accounted for once."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from strop.tracking.runlog import read_rows
from tests.support.engine_processes import process
from tests.support.runs import WriteRows

STEPS, BATCH, KILLS = 60, 4, 20

REWARD = '''
def even(prompts, completions, **columns):
    """Differs within a group."""
    return [float(len(str(one)) % 7) for one in completions]
'''


@pytest.mark.slow
def test_twenty_kills(model_folder: Path, write_rows: WriteRows, tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text(REWARD)
    tasks = [{"prompt": f"Solve {n}x = {2 * n}"} for n in range(1, STEPS * BATCH + 1)]
    output = tmp_path / "run"
    recipe: dict[str, Any] = {
        "method": "grpo", "output": str(output), "model": {"path": str(model_folder)},
        "data": str(write_rows("tasks.jsonl", tasks)), "text": {"max_length": 96},
        "rollout": {"group_size": 2, "max_tokens": 12,
                    "source": {"kind": "async", "max_staleness": 2}},
        "reward": [{"file": str(tmp_path / "reward.py"), "function": "even"}],
        "optim": {"learning_rate": 1e-4},
        "run": {"steps": STEPS, "batch_size": BATCH, "save_every": 2},
    }  # fmt: skip
    draw, kills = random.Random(5), 0
    with process(model_folder) as url:
        recipe["rollout"]["engine"] = {"kind": "vllm", "url": url}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        command = [sys.executable, "-m", "strop", "train", str(tmp_path / "recipe.yaml"),
                   "--resume", "--json"]  # fmt: skip
        while not (output / "final").exists():
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            assert child.stdout is not None
            if kills < KILLS:
                for _ in range(draw.randrange(1, 7)):  # so many steps are logged first
                    child.stdout.readline()
                time.sleep(draw.random() / 4)
                child.send_signal(signal.SIGKILL)
                kills += 1
            said = child.communicate()[0].decode()
            assert child.returncode in (0, -signal.SIGKILL), said
    assert kills == KILLS
    rows = list(read_rows(output / "metrics.jsonl"))
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    for row in rows:
        assert row["async/learnt"] == BATCH * row["step"]
        assert row["async/dropped"] == 0
        assert row["async/drawn"] == row["async/learnt"] + row["async/pending"]
        assert row["async/staleness_max"] <= 2
    last = json.loads((output / f"checkpoint-{STEPS}/trainer.json").read_text())["parts"]
    tickets = last["rollouts"]["tickets"]
    assert tickets["drawn"] == tickets["learnt"] == STEPS * BATCH
    assert tickets["outstanding"] == []
