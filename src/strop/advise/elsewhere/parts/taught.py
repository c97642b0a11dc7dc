"""What GKDTrainer of TRL 1.16 reads of a recipe with a teacher (`trl/experimental/gkd`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strop.advise.elsewhere.carried import Keys
from strop.advise.elsewhere.parts.hf import Arguments
from strop.advise.elsewhere.rows import Records, expect_one_answer
from strop.errors import DataError

BETAS: Mapping[str, float] = {"forward_kl": 0.0, "reverse_kl": 1.0}
"""Divergences that are an end of the generalised Jensen-Shannon divergence."""

JS = 0.5
"""The usual beta of `generalized_js`."""


def unfit(keys: Keys) -> str:
    """Why a recipe with a teacher has no counterpart; nothing where it has one."""
    if keys.at("teacher") is None:
        return ""
    if keys.at("teacher.path") is None:
        return "TRL's GKD learns from a model, and this teacher is the student or a record"
    if keys.at("teacher.prompt") or keys.at("teacher.system"):
        return "a teacher reads the student's own prompt in TRL's GKD, and this one is told more"
    if keys.recipe.method == "gkd" and keys.at("rollout.temperature") == 0:
        return "TRL's GKD samples at a temperature above 0, and this recipe takes it greedily"
    divergence = keys.at("objective.divergence")
    if keys.recipe.method == "distil" and divergence not in (*BETAS, "generalized_js"):
        return f"TRL's GKD has no {divergence}: it has the two KLs and the Jensen-Shannon ones"
    return ""


def expect_messages(records: Records) -> None:
    """Raise `DataError` for records that GKD's collator does not read: it takes all messages but
    the last one for the prompt."""
    if not records.chat:
        raise DataError(
            "the records are plain texts, and TRL's GKD reads messages only",
            fix="write prompts and answers as messages",
        )
    expect_one_answer(records, "TRL's GKD")


def gkd_arguments(keys: Keys) -> Arguments:
    """GKDConfig's own arguments. `lmbda` 0 learns from given answers alone."""
    own = keys.take("objective.own_samples") or 0.0
    keys.lose("objective.temperature", "the loss is at temperature 1 there, whatever the samples "
              "are drawn at: this changes the loss")  # fmt: skip
    keys.lose("objective.top_k", "whole distributions are compared there, at every step")
    keys.lose("rollout.stop", "an answer ends at the model's own end there")
    arguments: Arguments = {
        "beta": _beta(keys),
        "lmbda": own,
        "disable_dropout": False,
        "max_length": _length(keys),
        **_teacher(keys),
    }
    if own:
        keys.say("one draw decides for a whole micro-batch there whether the student answers; here "
                 "every record draws for itself")  # fmt: skip
        keys.say("the loss of own samples is divided by the tokens of the given answers there")
        arguments |= {
            "temperature": keys.take("rollout.temperature"),
            "max_new_tokens": keys.take("rollout.max_tokens"),
        }
    keys.say("what the template writes after the end of an answer is learnt there, too")
    keys.say("both models' logits of whole sequences are in memory there")
    return arguments


def _beta(keys: Keys) -> float:
    beta: float | None = keys.take("objective.beta")
    if keys.recipe.method == "gkd":
        assert beta is not None
        return beta
    divergence: str = keys.take("objective.divergence")
    return BETAS.get(divergence, JS if beta is None else beta)


def _length(keys: Keys) -> int:
    keys.lose("text.overlong", "what is too long loses its beginning there")
    keys.say("records that are too long lose their beginning there")
    length: int = keys.take("text.max_length")
    return length


def _teacher(keys: Keys) -> Arguments:
    """A text as the teacher's name is loaded with these arguments, of which `dtype` has to be."""
    keys.lose("teacher.quantize", "the teacher's weights are not quantised there")
    keys.lose("teacher.engine", "the teacher reads in the trainer's own process there")
    how: dict[str, Any] = {
        "dtype": keys.take("teacher.dtype") or "auto",
        "trust_remote_code": keys.take("teacher.trust_remote_code"),
        **keys.taken("teacher.revision", "revision"),
    }
    name = keys.take("teacher.path")
    return {"teacher_model_name_or_path": name, "teacher_model_init_kwargs": how}
