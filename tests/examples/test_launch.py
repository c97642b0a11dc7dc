"""The launch examples end in the command that they promise; nothing is started but stand-ins."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support import ROOT

LAUNCH = ROOT / "examples/launch"
RAY = LAUNCH / "ray_launch.py"

ECHO = '#!/bin/bash\nprintf "%s\\n" "$(basename "$0")" "$@"\n'
SRUN = '#!/bin/bash\n[ "$1" = --kill-on-bad-exit=1 ] && shift && exec "$@"\nexit 9\n'
SCONTROL = '#!/bin/bash\n[ "$*" = "show hostnames gpu[3-4]" ] && printf "gpu3\\ngpu4\\n"\n'

JOB = {"SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "8", "SLURM_JOB_ID": "40123",
       "SLURM_JOB_NODELIST": "gpu[3-4]"}  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH on which torchrun prints its arguments, one a line."""
    for name, text in (("torchrun", ECHO), ("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return f"{tmp_path}:/usr/bin:/bin"


def bash(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", *args], env=environment, capture_output=True, text=True,
                          check=False, timeout=60)  # fmt: skip


def torchrun(nodes: str, processes: str, run: str, endpoint: str, *given: str) -> list[str]:
    return ["torchrun", "--nnodes", nodes, "--nproc-per-node", processes, "--rdzv-id", run,
            "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint,
            "-m", "strop", "train", *given]  # fmt: skip


class TestSlurm:
    SCRIPT = str(LAUNCH / "slurm.sbatch")

    def test_is_a_script(self) -> None:
        assert bash("-n", self.SCRIPT).returncode == 0

    def test_starts_torchrun_on_every_node(self, path: str) -> None:
        done = bash(self.SCRIPT, "a b.yaml", "--resume", PATH=path, **JOB)
        expected = torchrun("2", "8", "40123", "gpu3:20123", "a b.yaml", "--resume")
        assert done.stdout.splitlines() == expected

    def test_says_what_is_missing(self, path: str) -> None:
        none = bash(self.SCRIPT, PATH=path, **JOB)
        assert (none.returncode, "no recipe" in none.stderr) == (2, True)
        without = {k: v for k, v in JOB.items() if k != "SLURM_GPUS_ON_NODE"}
        gpus = bash(self.SCRIPT, "a.yaml", PATH=path, **without)
        assert gpus.returncode != 0
        assert "ask for GPUs" in gpus.stderr
        assert gpus.stdout == ""

    def test_asks_for_one_task_a_node(self) -> None:
        """Torchrun starts the processes of its node itself."""
        options = re.findall(r"^#SBATCH (.*)$", Path(self.SCRIPT).read_text(), flags=re.M)
        assert "--ntasks-per-node=1" in options
        assert "--signal=TERM@120" in options  # not B:TERM: srun is to get it


class TestSky:
    TASK = yaml.safe_load((LAUNCH / "sky.yaml").read_text())

    def test_starts_torchrun_on_every_node(self, path: str, tmp_path: Path) -> None:
        script = tmp_path / "run.sh"
        script.write_text(self.TASK["run"].replace(".venv/bin/torchrun", "torchrun"))
        given = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_NODES": "2",
                 "SKYPILOT_NUM_GPUS_PER_NODE": "8", "SKYPILOT_TASK_ID": "sky-1",
                 "RECIPE": "a.yaml"}  # fmt: skip
        done = bash(str(script), PATH=path, **given)
        assert done.stdout.splitlines() == torchrun("2", "8", "sky-1", "10.0.0.1:29500", "a.yaml")

    def test_has_a_recipe_and_sets_itself_up(self) -> None:
        assert self.TASK["envs"] == {"RECIPE": "recipe.yaml"}
        assert self.TASK["num_nodes"] == 2
        assert self.TASK["setup"] == "make setup\n"

    def test_skypilot_reads_it(self) -> None:
        sky = pytest.importorskip("sky")
        task = sky.Task.from_yaml(str(LAUNCH / "sky.yaml"))
        assert task.num_nodes == 2
        assert [str(r.accelerators) for r in task.resources] == ["{'H100': 8}"]


class TestRay:
    def launch(self, *args: str, folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, str(RAY), *args], cwd=folder, capture_output=True,
                              text=True, check=False, timeout=120)  # fmt: skip

    def test_a_dry_run_shows_every_rank(self, tmp_path: Path) -> None:
        done = self.launch("--ranks", "2", "--dry-run", "--", "-m", "strop", "train", "a.yaml",
                           folder=tmp_path)  # fmt: skip
        first, second = map(shlex.split, done.stdout.splitlines())
        assert first[:4] == ["RANK=0", "WORLD_SIZE=2", "LOCAL_RANK=0", "LOCAL_WORLD_SIZE=2"]
        assert second[:4] == ["RANK=1", "WORLD_SIZE=2", "LOCAL_RANK=1", "LOCAL_WORLD_SIZE=2"]
        assert second[-5:] == ["python", "-m", "strop", "train", "a.yaml"]
        assert list(tmp_path.iterdir()) == []

    def test_ranks_of_a_node_are_counted_apart(self) -> None:
        code = (
            "import runpy, sys; p = runpy.run_path(sys.argv[1])['places'](list('abab'));"
            "print([(q.rank, q.node, q.local_rank, q.local_world_size) for q in p])"
        )
        said = subprocess.check_output([sys.executable, "-c", code, str(RAY)], text=True)
        expected = [(0, "a", 0, 2), (1, "b", 0, 2), (2, "a", 1, 2), (3, "b", 1, 2)]
        assert said.strip() == str(expected)

    def test_two_actors_run_and_the_first_failure_is_shown(self, tmp_path: Path) -> None:
        pytest.importorskip("ray")
        code = (
            "import os, sys; print('rank', os.environ['RANK'], 'of', os.environ['WORLD_SIZE'],"
            "os.environ['LOCAL_RANK'], flush=True);"
            "sys.exit('no such recipe' if os.environ['RANK'] == sys.argv[1] else 0)"
        )
        common = ("--ranks", "2", "--cpus", "0.5", "--")
        good = self.launch(*common, "-c", code, "9", folder=tmp_path)
        assert good.returncode == 0, good.stderr
        logs = [(tmp_path / f"ray-logs/rank-{rank}.log").read_text() for rank in range(2)]
        assert logs == ["rank 0 of 2 0\n", "rank 1 of 2 1\n"]
        bad = self.launch(*common, "-c", code, "1", folder=tmp_path)
        assert bad.returncode == 1
        assert "rank 1 failed with exit code 1:\n  rank 1 of 2 1\n  no such recipe" in bad.stderr

    def test_without_ray_the_extra_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "ray.py").write_text("raise ModuleNotFoundError('no ray', name='ray')")
        done = subprocess.run(
            [sys.executable, str(RAY), "--ranks", "1", "--", "-c", "0"], capture_output=True,
            text=True, check=False, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        )  # fmt: skip
        assert (done.returncode, "pip install 'strop[ray]'" in done.stderr) == (2, True)

    def test_the_others_are_not_waited_for_once_a_rank_has_failed(self, tmp_path: Path) -> None:
        """With stand-ins for Ray's actors: one fails, the other neither ends nor heeds SIGTERM."""
        (tmp_path / "ray.py").write_text(STAND_IN)
        code = (
            "import os, signal, sys, time\n"
            "if os.environ['RANK'] == '1': sys.exit('planted')\n"
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "time.sleep(100)"
        )
        done = self.with_stand_in(tmp_path, "--ranks", "2", "--", "-c", code, ends_within="0.2")
        assert done.returncode == 1
        assert "rank 1 failed with exit code 1:\n  planted" in done.stderr

    def test_a_cluster_without_room_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "ray.py").write_text(STAND_IN)
        done = self.with_stand_in(tmp_path, "--ranks", "3", "--", "-c", "0")
        assert done.returncode == 1
        assert "no place for 3 ranks of 1 CPUs and 0 GPUs" in done.stderr
        assert "the cluster has CPU 2" in done.stderr

    def with_stand_in(
        self, folder: Path, *args: str, ends_within: str = "10"
    ) -> subprocess.CompletedProcess[str]:
        """The launcher with another patience, so that a test can wait for its end."""
        text = RAY.read_text().replace("ENDS_WITHIN = 10.0", f"ENDS_WITHIN = {ends_within}")
        (folder / "launch.py").write_text(text)
        return subprocess.run([sys.executable, "launch.py", *args], cwd=folder, check=False,
                              capture_output=True, text=True, timeout=60)  # fmt: skip


STAND_IN = '''
"""Actors in the launcher's own process, and room for two of them."""

from types import SimpleNamespace

class GetTimeoutError(Exception):
    pass

exceptions = SimpleNamespace(GetTimeoutError=GetTimeoutError)
util = SimpleNamespace(get_node_ip_address=lambda: "127.0.0.1")
made = []

class Actor:
    def __init__(self, rank):
        self.rank = rank
        made.append(self)

    def __getattr__(self, name):
        return SimpleNamespace(remote=lambda *args: getattr(self.rank, name)(*args))

def init(**options):
    pass

def shutdown():
    pass

def remote(**options):
    return lambda kind: SimpleNamespace(remote=lambda: Actor(kind()))

def get(found, timeout=None):
    if timeout is not None and len(made) > 2:
        raise GetTimeoutError
    return found

def cluster_resources():
    return {"CPU": 2.0}
'''
