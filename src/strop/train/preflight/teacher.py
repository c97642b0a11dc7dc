"""Teachers that a run could not learn from, refused before any weights are loaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from strop.engines.served.fixed import FixedEngine
from strop.errors import ModelError, RecipeError
from strop.model.load import expect_weights, load_config, load_tokenizer, positions_of
from strop.recipe.train.distillation import DistilRecipe, TaughtRecipe
from strop.recipe.train.methods import Recipe
from strop.recipe.train.online import OnlineRecipe
from strop.recipe.train.reward import ProbesRecipe
from strop.recipe.train.teacher import ModelTeacher, OwnTeacher, Teacher, View
from strop.train.teachers.build import method_reads_rows, same_weights, tokens_hash
from strop.train.teachers.recorded import read_recorded
from strop.train.teachers.view import Informed
from strop.types import Record, Tree


def refuse_teacher(recipe: Recipe) -> None:
    """Raise `RecipeError` for a teacher that cannot give what the method reads."""
    named = recipe.taught_by
    if named is None:
        return
    if isinstance(named, ModelTeacher):
        _refuse_model(named, recipe)
    cuts = recipe.run.distributed
    if isinstance(named, OwnTeacher) and cuts.cuts:
        raise RecipeError(
            "teacher.own reads the student's weights, of which run.distributed leaves every "
            "process a part",
            fix="name the model by its path (teacher: {path: ...}), or set run.distributed.shard "
            "to none and tensor to 1",
        )
    if isinstance(recipe, TaughtRecipe):
        _refuse_sampling(recipe)


def _refuse_model(named: ModelTeacher, recipe: Recipe) -> None:
    if not named.is_informed and same_weights(named.path, recipe.model.path):
        raise RecipeError(
            "the teacher is the model that the run starts from, and reads the same prompt: the "
            "student has nothing to learn",
            fix="name a stronger model, or let this one read more (teacher.prompt or "
            "teacher.system)",
        )
    if not named.is_served:
        return
    if method_reads_rows(recipe):
        raise RecipeError(
            f"method {recipe.method} compares whole distributions, and servers give log-probs of "
            "given tokens alone",
            fix="set method: on_policy_distil, which needs no more, or drop teacher.engine",
        )
    temperature = recipe.rollout.temperature if isinstance(recipe, OnlineRecipe) else 1.0
    if temperature != 1:
        raise RecipeError(
            f"rollout.temperature is {temperature:g}, at which the student's log-probs are read, "
            "and servers score at temperature 1",
            fix="set rollout.temperature to 1, or drop teacher.engine",
        )


def _refuse_sampling(recipe: TaughtRecipe) -> None:
    """Options of sampling that would have no effect."""
    rollout, rewarded = recipe.rollout, bool(recipe.reward)
    if rollout.resample:
        raise RecipeError(
            f"rollout.resample is set, but with method {recipe.method} equal groups teach as well: "
            "the teacher judges their tokens",
            fix="drop rollout.resample",
        )
    unread = {
        "rollout.curriculum": rollout.curriculum is not None,
        "rollout.overlong_buffer": bool(rollout.overlong_buffer),
        "probes": recipe.probes != ProbesRecipe(),
    }
    for name, is_set in unread.items():
        if is_set and not rewarded:
            raise RecipeError(
                f"{name} works on a reward, and there is none",
                fix=f"drop {name}, or add reward",
            )
    if recipe.sampler_mix and rollout.mismatch.level == "none":
        raise RecipeError(
            "objective.mix draws answers that are not the student's own, which rollout.mismatch."
            "level none does not weigh",
            fix="drop rollout.mismatch.level, or set objective.mix to 0",
        )
    if recipe.eval is not None and not (recipe.eval.reward or rewarded):
        raise RecipeError(
            "eval has no reward to score held-out answers by",
            fix="add eval.reward, or measure a suite (`dev`)",
        )
    if rewarded and rollout.group_size == 1:
        raise RecipeError(
            f"method {recipe.method} takes the reward's baseline from the group, but "
            "rollout.group_size is 1: the reward's advantage would be 0",
            fix="raise rollout.group_size (8 is usual), or drop reward",
        )
    view = recipe.teacher
    if recipe.sampler_mix and (view.is_informed or rollout.environment is not None):
        what = "a teacher that reads another prompt" if view.is_informed else "episodes"
        raise RecipeError(
            f"objective.mix draws from student and teacher after the same prompt, which {what} "
            "cannot have",
            fix="set objective.mix to 0",
        )
    if recipe.sampler_mix and rollout.engine.kind != "local":
        raise RecipeError(
            "objective.mix draws from student and teacher together, token by token, which servers "
            "cannot do",
            fix="set objective.mix to 0, or drop rollout.engine",
        )


def expect_teacher(recipe: Recipe, tokenizer: Any) -> None:
    """Raise unless the teacher's folder holds weights for the student's tokens, its servers answer
    and read the same tokens, or the file that it recorded can be read."""
    named = recipe.taught_by
    if isinstance(named, ModelTeacher):
        expect_weights(named.path)
        _expect_tokens(named, tokenizer)
        _expect_head(named, recipe, tokenizer)
        if named.engine is not None:
            FixedEngine(named.path, named.engine, samples=False).expect()
    elif named is not None and not isinstance(named, OwnTeacher):
        read_recorded(Path(named.recorded), tokens_hash(tokenizer))
    if isinstance(recipe, DistilRecipe) and recipe.objective.top_k is not None:
        _expect_tail(recipe.objective.top_k, recipe)


def _expect_tokens(named: ModelTeacher, tokenizer: Any) -> None:
    theirs = load_tokenizer(named.path, named.trust_remote_code)
    if tokens_hash(theirs) == tokens_hash(tokenizer):
        return
    mine, other = tokenizer.get_vocab(), theirs.get_vocab()
    apart = [token for token in mine | other if mine.get(token) != other.get(token)]
    raise ModelError(
        f"the teacher has another tokenizer than the student: {len(apart)} tokens (one is "
        f"{apart[0]!r}) have other ids, or only one of the two has them, so log-probs of tokens "
        "cannot be compared",
        where=named.path,
        fix="take a teacher of the student's family; or learn from its texts: let it write answers "
        "(`strop data sample`) and train on them with method: sft",
    )


def _expect_head(named: ModelTeacher, recipe: Recipe, tokenizer: Any) -> None:
    """Raise `ModelError` for a teacher that does not know every token that it may be asked of."""
    theirs = _head(named.path, named.trust_remote_code)
    if theirs < len(tokenizer):
        raise ModelError(
            f"the teacher knows {theirs} tokens, and its tokenizer has {len(tokenizer)}",
            where=named.path,
            fix="take the tokenizer that belongs to these weights, or other weights",
        )
    own = _head(recipe.model.path, recipe.model.trust_remote_code)
    if own > theirs and recipe.answer_tokens:
        raise ModelError(
            f"the student's head has {own} rows and the teacher's {theirs} (its tokenizer has "
            f"{len(tokenizer)} tokens): the student can sample ids that the teacher cannot read",
            where=recipe.model.path,
            fix="cut the student to the teacher's size (transformers: "
            f"model.resize_token_embeddings({theirs})), or learn from given answers (method: "
            "distil)",
        )


def _expect_tail(top_k: int, recipe: Recipe) -> None:
    named, model = recipe.taught_by, recipe.model
    heads = [_head(model.path, model.trust_remote_code)]
    if isinstance(named, ModelTeacher):
        heads.append(_head(named.path, named.trust_remote_code))
    if top_k >= min(heads):
        raise RecipeError(
            f"objective.top_k {top_k} leaves no tail of a vocabulary of {min(heads)}",
            fix="lower it (64 is usual), or drop it to compare whole distributions",
        )


def _head(path: str, trust_remote_code: bool) -> int:
    """How many tokens a model's head has."""
    return int(load_config(path, trust_remote_code).get_text_config().vocab_size)


def expect_informed(
    recipe: Recipe, tokenizer: Any, records: Iterable[Record], answers: Iterable[int]
) -> None:
    """Look at what an informed teacher will read; so many tokens may follow each prompt."""
    named = recipe.taught_by
    if isinstance(named, View) and named.is_informed:
        Informed(named, tokenizer).expect(records, answers, _positions(named, recipe))


def longest_answers(recipe: Recipe, trees: Iterable[Tree]) -> Iterator[int]:
    """Tokens that may follow the prompt of each record: its own answers, or a sampled one."""
    for tree in trees:
        room = recipe.text.max_length - len(tree.trunk)
        given = max(len(branch.ids) for branch in tree.branches)
        yield max(given, min(room, recipe.answer_tokens))


def _positions(named: Teacher, recipe: Recipe) -> int | None:
    path = named.path if isinstance(named, ModelTeacher) else recipe.model.path
    return positions_of(load_config(path, recipe.model.trust_remote_code))
