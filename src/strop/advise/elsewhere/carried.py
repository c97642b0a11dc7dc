"""What an export or import carries over, and what it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strop.recipe.loading.load import flat
from strop.recipe.train.methods import Recipe

Row = dict[str, Any]
"""A row of a data file that is written."""


@dataclass(frozen=True, slots=True)
class Export:
    """A run in the form of another system.

    `Export({"config.yaml": "..."}, {"train.jsonl": [{"prompt": "2 + 2?", "completion": "4"}]},
    {"own_short.py": "/home/ada/short.py"}, ("`alarms.spike.action`: ...",), "python train.py")`:
    texts and rows by the name of their file, copies of the user's own files, what is lost, and the
    command that starts the run.
    """

    files: Mapping[str, str]
    rows: Mapping[str, Sequence[Row]]
    copies: Mapping[str, str]
    lost: tuple[str, ...]
    command: str


@dataclass(frozen=True, slots=True)
class Import:
    """A recipe from another system's config: `Import({"method": "dpo", ...}, ("`packing`: ...",))`.

    `recipe` is what the YAML file will hold, `lost` the keys of the foreign file that no key of the
    recipe stands for.
    """

    recipe: Mapping[str, Any]
    lost: tuple[str, ...]


WHY: Mapping[str, str] = {
    "alarms": "nothing watches the run there: strop's alarms stay here",
    "probes": "the reward is not attacked before step 1 there: strop reward probe does it apart",
    "dev": "no suite is measured during the run there: measure the checkpoints with strop eval",
    "eval": "held-out records are not measured during the run there",
    "model.revision": "which commit of a hub model is read is said in that system's own way",
    "value.revision": "which commit of a hub model is read is said in that system's own way",
    "model.device": "the device is chosen by the system itself",
    "model.offload_activations": "what checkpointing keeps stays on the device there",
    "model.router_aux_loss_coef": "a mixture's routers are balanced in that system's own way",
    "model.kernels": "which kernels compute a layer is said in that system's own way",
    "optim.optimizer": "AdamW with float32 moments trains all weights there",
    "run.skip_nonfinite": "an update that is not finite is not left out there",
    "run.micro_batch_tokens": "a forward is counted in records there, not in tokens",
    "run.distributed.": "set that system's own launcher and sharding",
    "run.compile": "what is compiled is said in that system's own way",
    "run.sinks": "name the trackers in that system's own way",
    "run.notify": "nobody is told of alarms or the end there",
    "text.cache": "where tokens are kept is the system's own affair",
    "text.date": "the template writes the day on which the run is started",
    "text.end_of_turn": "that system ends an answer with the tokenizer's own end",
    "rollout.mismatch_limit": "sampler and trainer are not compared before step 1 there",
    "rollout.parity_every": "sampler and trainer are not compared during the run there",
    "rollout.source": "whether sampling waits for training is said in that system's own way",
    "rollout.routing_replay": "routes are replayed by an option of that system, where it has one",
    "rollout.environment": "episodes are played in that system's own way",
    "rollout.curriculum": "tasks are drawn one pass after another there",
    "rollout.engine": "who samples is said in that system's own way",
    "data": "the data files were read once, at the export",
}
"""Why a key is lost, by the beginning of its name; the longest beginning that fits counts."""


EXPERTS = "adapters on a mixture's experts are placed in that system's own way, where it has one"
"""Why this part of an adapter is lost in every system."""


class Keys:
    """A recipe whose keys are taken one by one; those that are set and not taken are lost.

    `keys.take("optim.learning_rate")` is the value of the key, which is carried over thereby;
    `keys.at(...)` only looks. A key that the method does not have is `None`.
    """

    def __init__(self, recipe: Recipe, system: str) -> None:
        self.recipe, self.system = recipe, system
        self._values = recipe.plain()
        self._set = flat(recipe.model_dump(mode="json", exclude_defaults=True))
        self._carried: set[str] = set()
        self._lost = {f"{network}.lora.experts": EXPERTS for network in ("model", "value")}
        self._said: list[str] = []

    def at(self, name: str) -> Any:
        """The value of a key; `None` if the method has no such key."""
        here: Any = self._values
        for part in name.split("."):
            if not isinstance(here, Mapping):
                return None
            here = here.get(part)
        return here

    def take(self, name: str) -> Any:
        """The value of a key that is carried over with all below it."""
        self._carried.add(name)
        return self.at(name)

    def taken(self, name: str, there: str) -> dict[str, Any]:
        """The value of a key under its name `there`; nothing where it is not set."""
        value = self.take(name)
        return {} if value is None else {there: value}

    def lose(self, name: str, why: str) -> None:
        """A key that is not carried over for this reason; said if it is set."""
        self._lost[name] = why

    def lose_on(self, name: str, why: str) -> None:
        """A key that is not carried over; said if it is on, also where the method turns it on."""
        self._carried.add(name)
        value = self.at(name)
        if value:
            self._said.append(f"`{name}` ({value}): {why}")

    def say(self, difference: str) -> None:
        """What is different there whatever the recipe sets."""
        self._said.append(difference)

    def say_what_stays(self) -> None:
        """What no other system has, whatever the recipe sets."""
        online = self.at("reward") is not None
        watched = "alarms, probes of the reward and" if online else "alarms and"
        self.say(f"strop's {watched} dev suites have no counterpart there: nothing stops a bad run")
        self.say("the order of the records is drawn by another generator from the same seed")
        self.say("a run that is killed goes on from its last checkpoint there, not bit for bit")

    def lost(self) -> tuple[str, ...]:
        """One line for each reason, with the keys that it stands for; then the differences."""
        reasons: dict[str, list[str]] = {}
        for key in self._set:
            lost = next((name for name in self._lost if _covers(name, key)), None)
            if lost is not None:
                reasons.setdefault(self._lost[lost], []).append(key)
            elif not any(_covers(name, key) for name in self._carried):
                reasons.setdefault(self._why(key), []).append(key)
        lines = [
            f"{', '.join(f'`{key}`' for key in sorted(keys))}: {why}"
            for why, keys in reasons.items()
        ]
        return (*lines, *dict.fromkeys(self._said))

    def _why(self, key: str) -> str:
        fitting = [name for name in WHY if _covers(name, key)]
        return WHY[max(fitting, key=len)] if fitting else f"{self.system} has no such setting"


def _covers(name: str, key: str) -> bool:
    return key == name or key.startswith(f"{name}.")
