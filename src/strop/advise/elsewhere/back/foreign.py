"""A foreign config whose keys are taken one by one; those that are not taken are lost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from strop.recipe.loading.load import flat

Values = dict[str, Any]

ITS_OWN: Mapping[str, str] = {
    "logging_steps": "strop logs every step",
    "logging_first_step": "strop logs every step",
    "report_to": "trackers are named in `run.sinks`, as mlflow, wandb or trackio",
    "dataset_num_proc": "strop reads records in a stream",
    "overwrite_output_dir": "that is `--overwrite` of strop train",
    "adam_epsilon": "strop's is 1e-8",
    "packing": "strop packs without padding, and without joining records",
    "sample_packing": "strop packs without padding, and without joining records",
    "do_train": "",
    "attn_implementation": "strop's attention is its own",
}
"""What foreign keys are that a recipe does not need; those without a word go without saying."""


class Foreign:
    """`foreign.take("beta", 0.1)` is a value or, where the file leaves it out, what the system
    takes then."""

    def __init__(self, values: Mapping[str, Any], system: str, folder: Path) -> None:
        self.values, self.system, self.folder = dict(values), system, folder
        self._taken: set[str] = set()
        self._said: list[str] = []

    def at(self, name: str) -> Any:
        here: Any = self.values
        for part in name.split("."):
            here = here.get(part) if isinstance(here, Mapping) else None
        return here

    def take(self, name: str, usual: Any = None) -> Any:
        self._taken.add(name)
        value = self.at(name)
        return usual if value is None else value

    def taken(self, name: str, ours: str) -> Values:
        """The value under a recipe's name; nothing where the file leaves it out."""
        value = self.take(name)
        return {} if value is None else {ours: value}

    def number(self, name: str, usual: float) -> float:
        """A number; YAML 1.1 reads `1e-5` as text."""
        return float(self.take(name, usual))

    def has(self, *names: str) -> bool:
        return any(self.at(name) is not None for name in names)

    def beside(self, name: str) -> str | None:
        """The path of a file beside the config, if there is one."""
        path = self.folder / name
        return str(path) if path.is_file() else None

    def say(self, line: str) -> None:
        self._said.append(line)

    def lost(self) -> tuple[str, ...]:
        """A line for every key that was not taken, then what is different."""
        lines = []
        for key, value in flat(self.values).items():
            if any(key == name or key.startswith(f"{name}.") for name in self._taken):
                continue
            why = ITS_OWN.get(key, f"no key of a recipe stands for it (it is {value!r})")
            lines.append(f"`{key}`: {why}" if why else f"`{key}`: strop train does this anyway")
        return (*lines, *self._said)


def without_none(values: Mapping[str, Any]) -> Values:
    """The values that are set."""
    return {name: value for name, value in values.items() if value is not None}
