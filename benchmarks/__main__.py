"""strop and TRL on the same work, side by side on this machine: `make bench`.

make bench                                    # every case, 1 to 60 M parameters: some hours
make bench ARGS="--shapes 1m"                 # the table of docs/speed.md, about half an hour
make bench ARGS="--cases dpo sft --shapes 8m --rounds 7"
make bench ARGS="--growth"                    # the picture of docs/speed.md
make bench ARGS="--shares"                    # strop's share of bare matrix products, by cause
make bench ARGS="--real"                      # SmolLM2-135M on the files of `make real`
make gpu                                      # Qwen3's own sizes in bfloat16, on a CUDA device
"""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks import gpu, shares
from benchmarks.cases import (
    CASES,
    LARGE_VOCABULARY,
    ON_CPU,
    REAL,
    REAL_VOCABULARY,
    SMALL_VOCABULARY,
    STROP,
    TRL_VERSION,
    Entrant,
    Run,
    model_scale,
    rivals,
)
from benchmarks.duel import WARM_UP, Unfair, fight
from benchmarks.goals import markdown
from benchmarks.growth import GROWTH, draw
from benchmarks.make import make
from benchmarks.table import Row, fill, markdown_table, remember, row_of, text_table

ROOT = Path(__file__).parents[1]
PAGE, PICTURE = ROOT / "docs/speed.md", ROOT / "docs/growth.png"
RESULTS = {
    name: ROOT / f"benchmarks/results/{name}.json" for name in ("cpu", "growth", "real", "shares")
}

HEADLINE = [
    *((name, "1m", SMALL_VOCABULARY) for name, case in CASES.items() if case.data == "random"
      and not name.startswith("gpu-")),
    ("grpo-algebra", "demo", SMALL_VOCABULARY),
    ("sampler-algebra", "demo", SMALL_VOCABULARY),
    *((name, shape, SMALL_VOCABULARY) for shape in ("8m", "60m")
      for name in ("dpo", "sft", "grpo-long", "sampler-short", "sampler-long")),
    *((name, "1m", LARGE_VOCABULARY) for name in ("dpo", "dpo-short", "sft", "sampler-short")),
    ("dpo", "8m", LARGE_VOCABULARY),
]  # fmt: skip
"""(case, shape, vocabulary) of the page's table."""


def main() -> None:
    options = _options()
    try:
        if options.gpu:
            _measure_gpu(options)
            return
        if options.shares:
            _measure_shares(options)
            return
        _expect_trl()
        if options.growth:
            runs = [run for axis in GROWTH.values() for _, run in axis]
            entrants = [STROP, Entrant("plain", "trl", allocator=True)]
            rows = _fight_all(runs, options.work, RESULTS["growth"], None, entrants)
            draw(rows, PICTURE)
            return
        kind = "real" if options.real else "cpu"
        rows = _fight_all(_runs(options), options.work, RESULTS[kind], options.real)
        fill(PAGE, kind, markdown_table(rows))
    except Unfair as reason:
        sys.exit(f"bench: {reason}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, help="default: those of the page")
    parser.add_argument("--shapes", nargs="+", choices=ON_CPU)
    parser.add_argument("--vocabularies", nargs="+", type=int, default=[SMALL_VOCABULARY])
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds (default 7)")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/bench")
    parser.add_argument("--growth", action="store_true", help="only docs/growth.png")
    parser.add_argument("--shares", action="store_true", help="share of bare matrix products")
    parser.add_argument("--gpu", action="store_true", help="bfloat16 at Qwen3's sizes, on CUDA")
    parser.add_argument("--tiny", action="store_true", help="--gpu in small, on a processor, too")
    parser.add_argument("--minutes", type=float, default=6.5, help="of --gpu (default 6.5)")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "benchmarks/results",
        help="where --gpu writes gpu.json, gpu.md and profiles (default benchmarks/results)",
    )  # fmt: skip
    parser.add_argument(
        "--real", nargs="?", type=Path, const=ROOT / "build/real", metavar="FOLDER",
        help="a real model, on what `make real` left (default build/real)",
    )  # fmt: skip
    parser.add_argument("--lora", action="store_true", help="adapters instead of all weights")
    return parser.parse_args()


def _measure_gpu(options: argparse.Namespace) -> None:
    """What is still missing on this card, the table, and the page's block."""
    if not torch.cuda.is_available() and not options.tiny:
        raise Unfair("--gpu needs a CUDA device\n  fix: --gpu --tiny runs the same in small here")
    record = gpu.Record.of(options.results / "gpu.json")
    wanted = gpu.parts(tiny=options.tiny)
    for line in gpu.measure(wanted, options.work, record, 60 * options.minutes):
        print(line, flush=True)
    table = markdown(record.found)
    (options.results / "gpu.md").write_text(f"{table}\n")
    print(table)
    if not options.tiny:
        fill(PAGE, "gpu", table)


def _measure_shares(options: argparse.Namespace) -> None:
    """Each row printed and written as soon as it is measured."""
    cases = options.cases or shares.COUNTED
    if not set(cases) <= set(shares.COUNTED):
        raise Unfair(f"shares are measured of {', '.join(shares.COUNTED)}")
    for run in shares.runs_of(options.shapes or ON_CPU, options.rounds, cases):
        row = shares.measured(run, options.work / "shares")
        print(shares.markdown([row]).splitlines()[-1], flush=True)
        rows = remember(RESULTS["shares"], [row], shares.LIBRARIES)
        fill(PAGE, "shares", shares.markdown(rows))


def _expect_trl() -> None:
    try:
        found = version("trl")
    except PackageNotFoundError:
        found = "none"
    if found != TRL_VERSION:
        raise Unfair(
            f"the comparison is with TRL {TRL_VERSION}, and {found} is installed\n"
            f"  fix: pip install trl=={TRL_VERSION}"
        )


def _runs(options: argparse.Namespace) -> list[Run]:
    steps = options.rounds + WARM_UP
    if options.real:
        names = options.cases or [name for name, case in CASES.items() if case.data == "real"]
        return [Run(CASES[name], REAL, REAL_VOCABULARY, steps, lora=options.lora) for name in names]
    chosen = HEADLINE
    if options.cases or options.shapes:
        chosen = [
            (name, "demo" if CASES[name].data == "algebra" else shape, vocabulary)
            for name in options.cases or [n for n in CASES if not n.startswith(("gpu-", "real-"))]
            for shape in options.shapes or ["1m"]
            for vocabulary in options.vocabularies
        ]
    return [
        Run(model_scale(CASES[name], shape), shape, vocabulary, steps, lora=options.lora)
        for name, shape, vocabulary in chosen
    ]


def _fight_all(
    runs: list[Run],
    work: Path,
    results: Path,
    example: Path | None,
    entrants: list[Entrant] | None = None,
) -> list[Row]:
    """Every run, its line printed and its row written as soon as it is done; all rows on file."""
    rows: list[Row] = []
    for number, run in enumerate(runs, start=1):
        print(f"[{number}/{len(runs)}] {run.name}", flush=True)
        folder = (work / run.name).resolve()
        make(run, folder, example)
        result = fight(run, folder, entrants or [STROP, *rivals(run.case)])
        for name, reason in result.absent.items():
            print(f"  TRL with {name} cannot run here: {reason}")
        print(f"  same work: {result.checked}")
        row = row_of(result)
        print(text_table([row]), flush=True)
        rows = remember(results, [row])
    return rows


if __name__ == "__main__":
    main()
