"""One run over a Ray cluster: an actor a rank, with the environment that torchrun would set.

    python examples/launch/ray_launch.py --ranks 16 --gpus 1 -- -m strop train recipe.yaml

What stands after `--` are the arguments of Python on every rank. Each rank's output goes to
`<logs>/rank-<n>.log`. The first rank that fails ends the others; its last lines are shown, and its
exit code is that of the launch. `--dry-run` prints what every rank would be started with.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHOWN = 20
"""Lines of the log of the rank that failed."""
STARTS_WITHIN = 120.0
"""Seconds within which Ray has to find a place for every rank."""
SAVES_WITHIN = 120.0
"""Seconds that ranks have to save their state after Ctrl-C."""
ENDS_WITHIN = 10.0
"""Seconds that the others have to end once a rank has failed: what they wait for never comes."""
POLL = 0.2


@dataclass(frozen=True)
class Place:
    """Where a rank runs: `Place(rank=9, node="10.0.0.2", local_rank=1, local_world_size=8)`."""

    rank: int
    node: str
    local_rank: int
    local_world_size: int


def places(nodes: Sequence[str]) -> list[Place]:
    """The place of every rank; `nodes[rank]` is the node on which Ray put it."""
    sizes, seen, found = Counter(nodes), Counter[str](), []
    for rank, node in enumerate(nodes):
        found.append(Place(rank, node, seen[node], sizes[node]))
        seen[node] += 1
    return found


def environment(place: Place, world_size: int, address: str, port: int) -> dict[str, str]:
    """What torchrun sets for a process, as far as strop and torch.distributed read it."""
    return {
        "RANK": str(place.rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_RANK": str(place.local_rank),
        "LOCAL_WORLD_SIZE": str(place.local_world_size),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
    }


class Rank:
    """The process of one rank; Ray makes an actor of it on some node."""

    def where(self) -> tuple[str, int]:
        """This node's address, and a port that is free on it."""
        import ray

        with socket.socket() as found:
            found.bind(("", 0))
            return ray.util.get_node_ip_address(), found.getsockname()[1]

    def start(self, arguments: list[str], given: dict[str, str], folder: str) -> None:
        # the ranks of a node share all its GPUs, as torchrun's do: LOCAL_RANK chooses
        inherited = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env={**inherited, **given},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)

    def look(self) -> tuple[bytes, int | None]:
        """What was written since the last look, and the exit code once the process has ended."""
        assert self.process.stdout is not None
        code = self.process.poll()  # first: what it wrote before its end is read below
        return self.process.stdout.read() or b"", code

    def stop(self, patience: float) -> None:
        """SIGTERM, on which strop saves; SIGKILL for what does not end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                self.process.kill()


def launch(arguments: list[str], ranks: int, cpus: float, gpus: float, logs: Path) -> int:
    """Run Python with these arguments on every rank; the first failure's exit code, or 0."""
    import ray

    ray.init(log_to_driver=False)
    kind = ray.remote(num_cpus=cpus, num_gpus=gpus)(Rank)
    actors = [kind.remote() for _ in range(ranks)]
    try:
        found = ray.get([actor.where.remote() for actor in actors], timeout=STARTS_WITHIN)
    except ray.exceptions.GetTimeoutError:
        has = ", ".join(f"{name} {n:g}" for name, n in sorted(ray.cluster_resources().items()))
        ray.shutdown()
        print(
            f"Ray found no place for {ranks} ranks of {cpus:g} CPUs and {gpus:g} GPUs within "
            f"{STARTS_WITHIN:.0f} s; the cluster has {has}\n  fix: lower --ranks, --cpus or --gpus",
            file=sys.stderr,
        )
        return 1
    address, port = found[0]
    for actor, place in zip(actors, places([node for node, _ in found]), strict=True):
        given = environment(place, ranks, address, port)
        ray.get(actor.start.remote(arguments, given, os.getcwd()))
    logs.mkdir(parents=True, exist_ok=True)
    files = [logs / f"rank-{rank}.log" for rank in range(ranks)]
    patience = SAVES_WITHIN
    try:
        code = watch(ray, actors, files)
        patience = ENDS_WITHIN
        return code
    finally:
        ray.get([actor.stop.remote(patience) for actor in actors])
        ray.shutdown()


def watch(ray: Any, actors: Sequence[Any], files: Sequence[Path]) -> int:
    """Collect the logs until all ranks have ended or one has failed."""
    for file in files:
        file.write_bytes(b"")
    while True:
        looks = ray.get([actor.look.remote() for actor in actors])
        for file, (written, _) in zip(files, looks, strict=True):
            with file.open("ab") as stream:
                stream.write(written)
        codes = [code for _, code in looks]
        failed = next((rank for rank, code in enumerate(codes) if code), None)
        if failed is not None:
            lines = files[failed].read_text(errors="replace").splitlines()[-SHOWN:]
            said = "\n".join(f"  {line}" for line in lines)
            print(f"rank {failed} failed with exit code {codes[failed]}:\n{said}", file=sys.stderr)
            return int(codes[failed])
        if all(code == 0 for code in codes):
            return 0
        time.sleep(POLL)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run strop on the nodes of a Ray cluster.")
    parser.add_argument("--ranks", type=int, required=True, help="processes in all")
    parser.add_argument("--cpus", type=float, default=1, help="CPU cores of a rank")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of a rank: 1, or 0 on CPU")
    parser.add_argument("--logs", type=Path, default=Path("ray-logs"), help="folder of the logs")
    parser.add_argument("--dry-run", action="store_true", help="print, start nothing")
    parser.add_argument("arguments", nargs="+", help="after --: -m strop train recipe.yaml")
    given = parser.parse_args()
    if given.ranks < 1:
        parser.error("--ranks: at least 1")
    if given.dry_run:
        for place in places(["HEAD"] * given.ranks):
            told = environment(place, given.ranks, "HEAD", 0)
            shown = " ".join(f"{name}={value}" for name, value in told.items())
            print(f"{shown} python {shlex.join(given.arguments)}")
        return 0
    try:
        return launch(given.arguments, given.ranks, given.cpus, given.gpus, given.logs)
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        print("ray is not installed\n  fix: pip install 'strop[ray]'", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
