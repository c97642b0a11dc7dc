"""Advice followed and checked: twelve situations of the algebra world, each with three other ways.

    python evidence/advised.py --seeds 0 1 2 --out DIR     # two hours on one core
    python evidence/advised.py --report DIR                # the table of docs/evidence.md

Every situation is data, a model and its eval as a user would have them. `strop advise` reads them,
its verdict is done, and so are three alternatives of the same length. Rates are the world's (the
advisor's are of models a thousand times as large), objectives are the advisor's. What counts is the
share of 400 held-out equations that are solved, greedily, without filler.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import runs
import yaml

from strop.advise.known.evals import Target
from strop.advise.recipes import starting_points
from strop.advise.run import Question, answer
from strop.cli.show import setup
from strop.demo.world import Equation, assistant, demonstration, solution, split, user
from strop.demo.write import HELD_OUT, edit, write_demo
from strop.evals.run import run_suite
from strop.evals.summary import read_summary
from strop.files import write_json, write_rows, write_whole
from strop.recipe.loading.load import load, load_recipe
from strop.recipe.suite import Suite
from strop.train.run import train
from strop.train.rundir.directory import is_finished

Row = dict[str, Any]
Way = Sequence[Row]
"""Recipes, each from where the one before ended; none is the model as it is."""

BOUND = 0.03
COUNT = 1000
"""Records of a file of preferences."""
SCORE = "greedy/right_without_filler"
CLEAN = '''\
from strop.rewards.exact import exact_answer


def right_without_filler(prompts, completions, answer, **columns):
    """1.0 for a right answer that starts with the work."""
    right = exact_answer(prompts, completions, answer=answer)
    said = [one if isinstance(one, str) else one[-1]["content"] for one in completions]
    return [a * (not text.startswith("Sure")) for a, text in zip(right, said, strict=True)]
'''
SUITES = {
    "measured": {"name": "measured", "seed": 1, "tasks": [
        {"kind": "generate", "name": "greedy", "data": "data/test.jsonl",
         "sampling": {"temperature": 0.0, "max_tokens": 48},
         "scores": [{"file": "clean.py", "function": "right_without_filler"}]}]},
    "known": {"name": "known", "seed": 1, "tasks": [
        {"kind": "generate", "name": "sampled", "data": "data/test_100.jsonl", "samples": 8,
         "sampling": {"temperature": 1.0, "max_tokens": 48},
         "scores": [{"function": "exact_answer", "name": "accuracy"},
                    {"function": "format_tags"}]}]},
}  # fmt: skip
"""What every way is measured by, and what the advisor sees of the model."""

PAIRS: Row = {"optim": {"learning_rate": 1e-4, "schedule": "constant"},
              "run": {"steps": 40, "batch_size": 25}}  # fmt: skip
THUMBS: Row = {**PAIRS, "run": {"steps": 40, "batch_size": 50}}
TAUGHT: Row = {"optim": {"learning_rate": 1e-4, "schedule": "constant"},
               "run": {"steps": 40, "batch_size": 50}}  # fmt: skip
FIRST: Row = {"optim": {"optimizer": "muon", "learning_rate": 5e-3, "warmup_ratio": 0.1,
                        "final_ratio": 0.01, "betas": [0.9, 0.95]},
              "run": {"steps": 300, "batch_size": 64}}  # fmt: skip
"""From random weights: as in the demo, a third as long."""
POLICY: Row = {name: part for name, part in runs.POLICY.items() if name != "eval"}


def preferring(point: str, data: str, **objective: Any) -> Way:
    """A method on records, with the advisor's objective."""
    known = starting_points().get(point, {})
    lengths = THUMBS if "thumbs" in data else PAIRS
    told = {**known.get("objective", {}), **objective}
    return [{"method": known.get("method", point), "data": f"data/{data}.jsonl", **lengths,
             **({"objective": told} if told else {})}]  # fmt: skip


def imitating(data: str, lengths: Row = TAUGHT) -> Way:
    return [{"method": "sft", "data": f"data/{data}.jsonl", **lengths}]


def reinforcing(method: str = "grpo", steps: int = 40, **changed: Any) -> Way:
    return [{"method": method, **POLICY, "run": {**POLICY["run"], "steps": steps}, **changed}]


@dataclass(frozen=True, slots=True)
class Situation:
    """What a user has, and what could be done: `ways` by name, those of verdicts by their id."""

    name: str
    data: Sequence[str]
    ways: Mapping[str, Way]
    model: str = "sft"
    target: float = 0.97


def noisy(name: str, data: str, smoothing: float) -> Situation:
    smooth = {"label_smoothing": smoothing}
    return Situation(name, [data], {
        "dpo": preferring("dpo", data), "cdpo": preferring("cdpo", data, **smooth),
        "robust_dpo": preferring("robust_dpo", data, **smooth), "ipo": preferring("ipo", data),
    })  # fmt: skip


SITUATIONS = (
    Situation("thumbs alone", ["thumbs"], {
        "kto": preferring("kto", "thumbs"), "sft of the liked": imitating("liked"),
        "apo_zero_unpaired": preferring("apo_zero_unpaired", "thumbs"), "as it is": []}),
    Situation("right and slipped answers", ["corrections"], {
        "dpo": preferring("dpo", "corrections"), "ipo": preferring("ipo", "corrections"),
        "simpo": preferring("simpo", "corrections"), "sft of the chosen": imitating("corrected")}),
    Situation("the rejected answer is longer", ["edits"], {
        "simpo": preferring("simpo", "edits"), "dpo": preferring("dpo", "edits"),
        "ipo": preferring("ipo", "edits"), "sft of the chosen": imitating("edited")}),
    noisy("one label in ten is wrong", "wrong_10", 0.1),
    noisy("one label in five is wrong", "wrong_20", 0.2),
    noisy("wrong labels, hardly measured", "wrong_10_hardly", 0.1),
    Situation("labels are chance", ["wrong_45"], {
        "as it is": [], "dpo": preferring("dpo", "wrong_45"), "ipo": preferring("ipo", "wrong_45"),
        "simpo": preferring("simpo", "wrong_45")}),
    Situation("a verifier", ["tasks"], {
        "grpo": reinforcing(), "raft": reinforcing("raft"),
        "online_dpo": reinforcing("online_dpo"), "sft": imitating("demonstrations")}),
    Situation("tasks and a model without form", ["tasks", "demonstrations_300"], {
        "cold_start": [*imitating("demonstrations_300", FIRST), *reinforcing()],
        "sft": imitating("demonstrations_300", FIRST), "grpo": reinforcing(),
        "dapo": reinforcing("dapo")}, model="raw"),
    Situation("never right, in the right form", ["tasks"], {
        "stronger_base": [], "grpo": reinforcing(), "dapo": reinforcing("dapo"),
        "raft": reinforcing("raft")}, model="wrong"),
    Situation("solved already", ["edits"], {
        "as it is": [], "dpo": preferring("dpo", "edits"), "simpo": preferring("simpo", "edits"),
        "sft of the chosen": imitating("edited")}, model="solved", target=0.9),
    Situation("half of the tasks can be checked", ["half_tasks", "edits"], {
        "grpo_then_dpo": [*reinforcing(data="data/checkable.jsonl"), *preferring("dpo", "edits")],
        "grpo": reinforcing(data="data/checkable.jsonl", steps=60),
        "dpo": preferring("dpo", "edits"), "sft of the chosen": imitating("edited")}),
)  # fmt: skip
NOT_TRAINED = ("at_the_bar", "gap_within_noise", "collect_more", "no_eval")
"""Verdicts that leave the model as it is."""


def done(verdict: str, method: str | None) -> str:
    """The way that a verdict is; where its ready recipe is of another method, that one."""
    if verdict in NOT_TRAINED:
        return "as it is"
    return "dapo" if verdict == "grpo" and method == "dapo" else verdict


def told_of(found: Row) -> str:
    """`"grpo, by dapo"` where the recipe of a verdict is another method's."""
    verdict, way = found["verdict"], found["way"]
    return verdict if way in (verdict, "as it is") else f"{verdict}, by {way}"


def write_world(folder: Path, seed: int) -> None:
    """The demo's files, and further ones for these situations."""
    write_demo(folder, seed)
    training, _ = split(seed, HELD_OUT)
    draw = random.Random(f"advised {seed}")
    many = [training[n % len(training)] for n in range(COUNT)]
    shown = [json.loads(line) for line in (folder / "data/demonstrations.jsonl").open()]
    tasks = [json.loads(line) for line in (folder / "data/tasks.jsonl").open()]
    edits = [edit(one, draw) for one in many]
    corrections = [correction(one, draw) for one in many]
    thumbs = [thumb(one, draw) for one in many]
    half = [one if n % 2 else {"prompt": one["prompt"]} for n, one in enumerate(tasks)]
    tables: dict[str, Sequence[Row]] = {
        "edits": edits, "corrections": corrections, "thumbs": thumbs,
        "edited": [chosen(one) for one in edits],
        "corrected": [chosen(one) for one in corrections],
        "liked": [{"prompt": one["prompt"], "completion": one["completion"]}
                  for one in thumbs if one["label"]],
        "wrong_10": labelled(corrections, 0.1, draw, twice=300),
        "wrong_20": labelled(corrections, 0.2, draw, twice=300),
        "wrong_10_hardly": labelled(corrections, 0.15, draw, twice=15),
        "wrong_45": labelled(corrections, 0.45, draw, twice=300),
        "demonstrations_300": shown[:300],
        "never_right": [{"prompt": user(one), "completion": assistant(wrong(one))}
                        for one in training * 4],
        "half_tasks": half, "checkable": [one for one in half if "answer" in one],
        "test_100": [json.loads(line) for line in (folder / "data/test.jsonl").open()][:100],
    }  # fmt: skip
    for name, rows in tables.items():
        write_rows(folder / f"data/{name}.jsonl", rows)
    (folder / "clean.py").write_text(CLEAN)
    for name, suite in SUITES.items():
        write_whole(folder / f"{name}.yaml", yaml.safe_dump(suite, sort_keys=False))


def correction(equation: Equation, draw: random.Random) -> Row:
    """A right answer over one with a slip, both with filler or both without."""
    filler = draw.random() < 0.5
    right, slipped = (solution(equation, slip=slip, filler=filler) for slip in (False, True))
    return {"prompt": user(equation), "chosen": assistant(right), "rejected": assistant(slipped)}


def thumb(equation: Equation, draw: random.Random) -> Row:
    """Thumbs up for an answer that starts with the work."""
    told = demonstration(equation, draw)
    return {"prompt": user(equation), "completion": assistant(told),
            "label": not told.startswith("Sure")}  # fmt: skip


def wrong(equation: Equation) -> str:
    """In the right form, one too many."""
    return solution(Equation(equation.a, equation.b, equation.x + 1)).replace(
        f"= {equation.a * (equation.x + 1) + equation.b} ", f"= {equation.c} "
    )


def chosen(pair: Row) -> Row:
    return {"prompt": pair["prompt"], "completion": pair["chosen"]}


def labelled(pairs: Sequence[Row], share: float, draw: random.Random, *, twice: int) -> list[Row]:
    """Labels of which this share is wrong; so many pairs are labelled a second time."""

    def label(pair: Row) -> Row:
        if draw.random() >= share:
            return pair
        return {**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]}

    return [label(pair) for pair in (*pairs, *pairs[:twice])]


STARTS: Mapping[str, Callable[[], Way]] = {
    "raw": list,
    "sft": lambda: imitating("demonstrations", {**FIRST, "run": {"steps": 900, "batch_size": 64}}),
    "wrong": lambda: imitating("never_right", FIRST),
    "solved": lambda: [*STARTS["sft"](), *preferring("dpo", "edits"), *reinforcing(steps=120)],
}
"""How the models of the situations are made, from random weights."""


def follow(way: Way, start: str, name: str, folder: Path) -> str:
    """Train a way from a model; the model's folder, relative to the world's."""
    model = start
    for number, recipe in enumerate(way):
        output = f"runs/{slug(name)}-{number}"
        told = {"seed": int((folder / "seed").read_text()), "text": {"max_length": 96}, **recipe,
                "model": {"path": model}, "output": output}  # fmt: skip
        path = folder / f"{slug(name)}-{number}.yaml"
        path.write_text(yaml.safe_dump(told, sort_keys=False))
        if not is_finished(folder / output):
            train(load_recipe(path), overwrite=(folder / output).exists(), force=True)
        model = f"{output}/final"
    return model


def measured(suite: str, model: str, folder: Path) -> Path:
    """The eval of a model by one of the suites, made once."""
    output = folder / "evals" / suite / slug(model)
    if not read_summary(output):
        run_suite(load(Suite, folder / f"{suite}.yaml"), str(folder / model), output)
    return output


def slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name).split())


def situation_of(situation: Situation, folder: Path) -> Row:
    """The verdict, and the score of every way."""
    model = start_of(situation.model, folder)
    advised = answer(Question(
        data=tuple(folder / f"data/{name}.jsonl" for name in situation.data),
        model=folder / model, eval=measured("known", model, folder),
        target=Target("sampled/accuracy", situation.target),
    ))  # fmt: skip
    scores = {}
    for name, way in situation.ways.items():
        start = start_of("sft", folder) if name == "stronger_base" else model
        end = follow(way, start, f"{situation.name}-{name}", folder)
        summary = read_summary(measured("measured", end, folder))
        scores[name] = summary["scores"][SCORE]
        print(f"{folder.name} {situation.name}: {name} {scores[name]:.3f}", flush=True)
    method = None if advised.recipe is None else str(advised.recipe["method"])
    verdict = advised.advice.verdict
    return {"verdict": verdict, "way": done(verdict, method), "scores": scores}


def start_of(kind: str, folder: Path) -> str:
    return follow(STARTS[kind](), "model", f"start-{kind}", folder)


def report(out: Path) -> str:
    """Advised against the best of the others, mean of the seeds."""
    lines = ["| situation | advised | score | best of the others | score | behind |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    within = told = 0
    for situation in SITUATIONS:
        files = sorted(out.glob(f"seed-*/advised/{slug(situation.name)}.json"))
        found = [json.loads(path.read_text()) for path in files]
        if not found:
            continue
        means = {
            name: statistics.fmean(one["scores"][name] for one in found) for name in situation.ways
        }
        advised = statistics.fmean(one["scores"][one["way"]] for one in found)
        verdicts = sorted({told_of(one) for one in found})
        others = {name: mean for name, mean in means.items()
                  if name not in {one["way"] for one in found}}  # fmt: skip
        best = max(others, key=lambda name: others[name])
        behind = others[best] - advised
        told, within = told + 1, within + (behind <= BOUND)
        lines.append(f"| {situation.name} | {', '.join(verdicts)} | {advised:.3f} | {best} | "
                     f"{others[best]:.3f} | {max(behind, 0):.3f} |")  # fmt: skip
    return "\n".join([*lines, "", f"Within {BOUND} of the best in {within} of {told}."])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*", choices=[one.name for one in SITUATIONS])
    parser.add_argument("--report", type=Path, metavar="DIR")
    options = parser.parse_args()
    if options.report:
        print(report(options.report))
        return
    if options.out is None:
        parser.error("--out or --report is needed")
    setup()
    for seed in options.seeds:
        folder = options.out.resolve() / f"seed-{seed}"
        if not (folder / "seed").exists():
            write_world(folder, seed)
            (folder / "seed").write_text(str(seed))
        (folder / "advised").mkdir(exist_ok=True)
        for situation in SITUATIONS:
            path = folder / "advised" / f"{slug(situation.name)}.json"
            if not path.exists() and (not options.only or situation.name in options.only):
                write_json(path, situation_of(situation, folder))
    print(report(options.out))


if __name__ == "__main__":
    main()
