"""The reward of a recipe as a Python file with the signature that another system calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pprint import pformat
from typing import Any

from strop.advise.elsewhere.carried import Keys
from strop.errors import UsageError
from strop.recipe.train.reward import RewardComponent

NAME = "reward.py"

HEAD = '''"""The reward of a strop recipe: one number for each completion.

{needs}
"""

import importlib.util
import inspect
{json}from pathlib import Path

HERE = Path(__file__).resolve().parent

COMPONENTS = {components}


def _own(component):
    """The function of a user's own file."""
    path = HERE / component["file"]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, component["function"])
    if "solution_str" not in inspect.signature(function).parameters:
        return function

    def one_by_one(prompts, completions, **columns):
        """A function of one sample, as verl calls it."""
        made = []
        for place, said in enumerate(completions):
            row = {{name: values[place] for name, values in columns.items()
                   if isinstance(values, list) and len(values) == len(completions)}}
            made.append(function(
                data_source=row.get("data_source"),
                solution_str=said if isinstance(said, str) else said[-1]["content"],
                ground_truth=row.get("ground_truth", row.get("answer")),
                extra_info=row.get("extra_info"),
            ))
        return [value["score"] if isinstance(value, dict) else value for value in made]

    return one_by_one
{strop}

def _function(component):
    return _own(component) if component.get("own") else _strop(component)


FUNCTIONS = [_function(component) for component in COMPONENTS]


def _value(component, value):
    if value is not None and component["clip"]:
        low, high = component["clip"]
        value = min(max(value, low), high)
    return value


def _total(values):
    """Product of the gates times the weighted sum of the rest; None where one is missing."""
    gates, added = 1.0, None
    for component, value in zip(COMPONENTS, values):
        if value is None:
            if not component["optional"]:
                return None
            value = 1.0 if component["gate"] else 0.0
        if component["gate"]:
            gates *= value
        else:
            added = (added or 0.0) + component["weight"] * value
    return gates * (1.0 if added is None else added)


def totals(prompts, completions, columns):
    """The reward of every completion; None for one that could not be judged."""
    made = []
    for component, function in zip(COMPONENTS, FUNCTIONS):
        given = {{**columns, **component["options"]}}
        values = list(function(prompts=prompts, completions=completions, **given))
        made.append([_value(component, value) for value in values])
    return [_total(values) for values in zip(*made)]
'''

STROP = '''

def _strop(component):
    """A reward that strop has; the package `strop` has to be installed."""
    from strop.recipe.train.reward import RewardComponent
    from strop.rewards.find import find_function

    said = {
        name: str(HERE / value) if name == "file" else value
        for name, value in component.items()
        if name in ("function", "url", "model", "judge", "rubric", "file")
    }
    return find_function(RewardComponent(**said))
'''

NO_STROP = """

def _strop(component):
    raise LookupError(component["function"])
"""

TRL = '''

def reward(prompts, completions, **columns):
    """For GRPOTrainer and RLOOTrainer: `reward_funcs=[reward]`."""
    made = totals(prompts, completions, columns)
{penalty}    return made
'''

PENALTY = """    for place, ids in enumerate(columns.get("completion_ids", [])):
        beyond = len(ids) - ({most} - {buffer})
        if made[place] is not None and beyond > 0:
            made[place] -= min(beyond / {buffer}, 1.0)
"""

SAID = '''

def _said(prompt, text):
    """An answer in the form of its prompt: a text, or a message."""
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
'''

VERL = '''

def compute_score(data_source, solution_str, ground_truth, extra_info=None, **more):
    """For verl: `custom_reward_function`; what cannot be judged counts 0."""
    said = json.loads(extra_info["task"])
    columns = {name: [value] for name, value in said["columns"].items()}
    answer = _said(said["prompt"], solution_str)
    (total,) = totals([said["prompt"]], [answer], columns)
    return 0.0 if total is None else total
'''

OPENRLHF = '''

def reward_func(queries, prompts, labels, **more):
    """For OpenRLHF: `--reward.remote_url`; what cannot be judged counts 0."""
    import torch

    tasks = [json.loads(label) for label in labels]
    names = sorted({name for task in tasks for name in task["columns"]})
    columns = {name: [task["columns"].get(name) for task in tasks] for name in names}
    answers = [
        _said(task["prompt"], query[len(prompt) :])
        for task, query, prompt in zip(tasks, queries, prompts)
    ]
    made = totals([task["prompt"] for task in tasks], answers, columns)
    rewards = torch.tensor([0.0 if total is None else total for total in made])
    return {"rewards": rewards, "scores": rewards, "extra_logs": {"unscored": torch.tensor(
        [float(total is None) for total in made]
    )}}
'''


@dataclass(frozen=True, slots=True)
class RewardText:
    """`RewardText("...", {"own_short.py": "/home/ada/short.py"})`: the file's text, and the user's
    own files that stand beside it."""

    text: str
    copies: Mapping[str, str]


def trl_reward(keys: Keys) -> RewardText:
    """TRL's signature; the overlong penalty, which reads the completion's tokens, is part of it."""
    buffer = keys.take("rollout.overlong_buffer")
    most = keys.at("rollout.max_tokens")
    penalty = PENALTY.format(most=most, buffer=buffer) if buffer else ""
    return _file(keys, TRL.format(penalty=penalty), json=False)


def verl_reward(keys: Keys) -> RewardText:
    """verl's signature, which sees one completion at a time."""
    keys.say("a completion that could not be judged earns 0 there, and is left out here")
    return _file(keys, SAID + VERL, json=True)


def openrlhf_reward(keys: Keys) -> RewardText:
    """OpenRLHF's signature, which sees the prompt and the answer as one text."""
    keys.say("a completion that could not be judged earns 0 there, and is left out here")
    return _file(keys, SAID + OPENRLHF, json=True)


def _file(keys: Keys, signature: str, *, json: bool) -> RewardText:
    components: list[RewardComponent] = list(keys.recipe.all_rewards)
    held_out = (keys.at("eval.reward") or []) if keys.at("eval") else []
    components = components[: len(components) - len(held_out)]
    keys.take("reward")
    copies: dict[str, str] = {}
    described = [_described(keys, n, c, copies) for n, c in enumerate(components)]
    needed = [c.function for c, said in zip(components, described, strict=True)
              if not said.get("own")]  # fmt: skip
    needs = "Its functions are the user's own; nothing else is needed."
    if needed:
        needs = f"It needs the package strop: {', '.join(needed)} is a function of strop."
        keys.say(f"{NAME} imports strop, whose rewards it calls ({', '.join(needed)})")
    head = HEAD.format(
        needs=needs,
        json="import json\n" if json else "",
        components=pformat(described, sort_dicts=False),
        strop=STROP if needed else NO_STROP,
    )
    return RewardText(head + signature, copies)


def _described(
    keys: Keys, number: int, component: RewardComponent, copies: dict[str, str]
) -> dict[str, Any]:
    """A component as values of the written file."""
    if component.given is not None:
        raise UsageError(
            f"the reward {component.label} was given from Python, so no file can name it",
            fix="put it into a file, and name that with `file:` in the recipe",
        )
    for name, why in NOT_THERE.items():
        keys.lose(f"reward.{number}.{name}", why)
    own = component.file is not None and component.function != "grader"
    said: dict[str, Any] = {
        "function": component.function,
        "weight": component.weight,
        "gate": component.gate,
        "optional": component.optional,
        "clip": component.clip,
        "options": dict(component.options) | _model(component),
    }
    if component.file is not None:
        name = f"own_{Path(component.file).name}"
        if copies.get(name, component.file) != component.file:
            name = f"own_{number}_{Path(component.file).name}"
        copies[name] = component.file
        said |= {"file": name, "own": own}
    for name in ("url", "model", "judge", "rubric"):
        if getattr(component, name) is not None:
            said[name] = getattr(component, name)
    return said


def _model(component: RewardComponent) -> dict[str, Any]:
    return {} if component.model is None else {"model": component.model}


NOT_THERE: Mapping[str, str] = {
    "normalize": "no component is centred and scaled within its group there",
    "max_unscored": "a run there is not stopped by completions that could not be judged",
    "name": "the components are one reward there, logged under one name",
    "seconds": "a user's own function runs in the trainer's process there, without a time limit",
    "in_process": "a user's own function runs in the trainer's process there in any case",
}
"""Keys of a component that another system has no place for."""
