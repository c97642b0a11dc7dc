"""A run's teacher: loaded, found in the student itself, asked of servers, or read from a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.engines.served.fixed import FixedEngine
from strop.errors import TrainingError
from strop.files import SHORT, sha256_hex
from strop.model.adapters import (
    adapted_base,
    adapter_base,
    adapter_task,
    is_adapter_folder,
)
from strop.model.load import weights_hash
from strop.model.network import Policy
from strop.model.reference import Reference
from strop.model.sharding import whole_weights
from strop.model.teacher import (
    LocalTeacher,
    StandIn,
    beside,
    expect_readable_head,
    in_common,
    load_teacher,
)
from strop.recipe.train.methods import Recipe
from strop.recipe.train.teacher import ModelTeacher, OwnTeacher, RecordedTeacher, Teacher, View
from strop.train.teachers.recorded import Recorded, read_recorded
from strop.train.teachers.served import ServedTeacher
from strop.train.teachers.view import Informed
from strop.types import Record, Tree

AnyTeacher = LocalTeacher | ServedTeacher | Recorded


@dataclass(frozen=True, slots=True)
class Teaching:
    """Who teaches a run, what it reads, and the hash of both."""

    teacher: AnyTeacher
    informed: Informed | None
    key: str

    def whole(self) -> LocalTeacher | Recorded:
        """A teacher of distributions; a recipe that names another one was refused before."""
        assert not isinstance(self.teacher, ServedTeacher)
        return self.teacher

    def asked(self) -> LocalTeacher | ServedTeacher:
        """A teacher that scores new answers."""
        assert not isinstance(self.teacher, Recorded)
        return self.teacher

    def trees(self, trees: Sequence[Tree], asked: Sequence[Record]) -> Sequence[Tree]:
        """These trees as the teacher reads them."""
        if self.informed is None:
            return trees
        pairs = zip(trees, asked, strict=True)
        return [self.informed.tree(tree, record) for tree, record in pairs]


def teaching_of(recipe: Recipe, policy: Policy) -> Teaching | None:
    """The teacher of a recipe, if it has one. Call it while the policy has its first weights."""
    named = recipe.taught_by
    if named is None:
        return None
    teacher = _OF[type(named)](named, recipe, policy)
    if isinstance(teacher, LocalTeacher) and method_reads_rows(recipe):
        with whole_weights(policy):
            expect_readable_head(policy, "student")
        with teacher.weights():
            expect_readable_head(teacher.policy, "teacher")
    informed = None
    if isinstance(named, View) and named.is_informed:
        informed = Informed(named, policy.tokenizer)
    return Teaching(teacher, informed, teacher_key(recipe))


def method_reads_rows(recipe: Recipe) -> bool:
    """Whether the loss compares whole distributions, and not only log-probs of sampled tokens."""
    return recipe.taught_by is not None and recipe.method != "on_policy_distil"


def is_the_start(named: Teacher, recipe: Recipe) -> bool:
    """Whether a teacher is the model that the run starts from, which is there already."""
    if isinstance(named, OwnTeacher):
        return named.own == "start"
    if not isinstance(named, ModelTeacher) or not _held_alike(named, recipe):
        return False
    return same_weights(named.path, recipe.model.path)


def shares_base(named: ModelTeacher, recipe: Recipe, base: str) -> bool:
    """Whether a teacher is an adapter over `base`, the frozen weights below the student's own
    adapter; it then needs no base of its own."""
    if recipe.model.lora is None or not _held_alike(named, recipe):
        return False
    if not is_adapter_folder(named.path) or adapter_task(named.path) != "CAUSAL_LM":
        return False
    return same_weights(adapter_base(named.path), base)


def same_weights(one: str, other: str) -> bool:
    """Whether two folders hold the same model; weights are read only where their files have the
    same names and sizes."""
    sizes, others = (
        {file.name: file.stat().st_size for file in Path(path).glob("*.safetensors")}
        for path in (one, other)
    )
    return one == other or (sizes == others and weights_hash(one) == weights_hash(other))


def _held_alike(named: ModelTeacher, recipe: Recipe) -> bool:
    """Whether a teacher may have the student's weights in the form in which this process holds
    them: whole, and in the precision that the teacher is to have, if one is named."""
    model = recipe.model
    if named.is_served or recipe.run.distributed.cuts:
        return False
    if named.dtype is None and named.quantize is None:
        return True
    asked = (named.dtype or model.dtype, named.quantize)
    return model.lora is not None and asked == (model.dtype, model.quantize)


def teacher_key(recipe: Recipe) -> str:
    """What a teacher's log-probs depend on beside the data: `9a..../None/None/float32/None/{...}`.
    One that shares the student's weights has them in the student's precision."""
    named, model = recipe.taught_by, recipe.model
    about = f"{model.dtype}/{model.quantize}"
    if isinstance(named, ModelTeacher):
        about = f"{weights_hash(named.path)}/{named.dtype}/{named.quantize}/{about}"
    else:
        about = f"{weights_hash(model.path)}/{about}"
    view = {"prompt": named.prompt, "system": named.system} if isinstance(named, View) else {}
    return f"{about}/{view}"


def tokens_hash(tokenizer: Any) -> str:
    """Hash of which token each id is: equal for tokenizers whose log-probs can be compared."""
    pairs = sorted(tokenizer.get_vocab().items(), key=lambda pair: (pair[1], pair[0]))
    return sha256_hex(repr(pairs), SHORT)


def _loaded(named: ModelTeacher, recipe: Recipe, policy: Policy) -> AnyTeacher:
    if named.engine is not None:
        asked = recipe.dev is not None  # a suite may have it write answers, too
        engine = FixedEngine(named.path, named.engine, samples=asked)
        engine.prove()
        return ServedTeacher(engine)
    if is_the_start(named, recipe):
        return LocalTeacher(policy, in_common(policy), Reference(policy).in_place)
    if policy.is_adapter and shares_base(named, recipe, adapted_base(policy.model)):
        return LocalTeacher(policy, in_common(policy), beside(policy, named.path))
    loaded = load_teacher(named, recipe.model.device)
    if tokens_hash(loaded.tokenizer) != tokens_hash(policy.tokenizer):
        raise TrainingError(
            "the teacher's tokenizer changed since it was looked at",
            where=named.path,
            fix="run it again",
        )
    return LocalTeacher(loaded, in_common(policy, loaded))


def _own(named: OwnTeacher, recipe: Recipe, policy: Policy) -> AnyTeacher:
    stand_in: StandIn = Reference(policy).in_place if named.own == "start" else nullcontext
    return LocalTeacher(policy, in_common(policy), stand_in)


def _from_file(named: RecordedTeacher, recipe: Recipe, policy: Policy) -> AnyTeacher:
    return read_recorded(Path(named.recorded), tokens_hash(policy.tokenizer))


_OF: Mapping[type[Any], Callable[[Any, Recipe, Policy], AnyTeacher]] = {
    ModelTeacher: _loaded,
    OwnTeacher: _own,
    RecordedTeacher: _from_file,
}
