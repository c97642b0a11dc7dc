"""Converts rows of data files to typed records; every error names file, line and fix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from strop.data.forms import Row, form_of, label_of, own_columns
from strop.data.messages import answer_of, messages_of, text_of, tools_of
from strop.errors import DataError
from strop.recipe.loading.yaml_text import short, shown
from strop.types import (
    Demonstration,
    Document,
    Feedback,
    Message,
    Origin,
    Preference,
    Record,
    RecordKind,
    Task,
    Text,
)

RecordT = TypeVar("RecordT")

COLUMNS: dict[RecordKind, tuple[tuple[str, ...], ...]] = {
    "document": (("text",),),
    "preference": (
        ("prompt", "chosen", "rejected"),
        ("chosen", "rejected"),
        ("input", "preferred_output", "non_preferred_output"),
    ),
    "feedback": (("prompt", "completion", "label"), ("messages", "label")),
    "demonstration": (("prompt", "completion"), ("messages",)),
    "task": (("prompt",), ("messages",)),
}
"""Columns of each kind of record, the most demanding first."""

USED_BY: dict[RecordKind, str] = {
    "document": "method cpt",
    "preference": "preference methods (dpo and its family, reward_model)",
    "feedback": "methods kto and apo_zero_unpaired",
    "demonstration": "methods sft and dft",
    "task": "methods that learn from rewards (grpo and its family) and evals",
}

OTHER_NAMES = {
    "question": "prompt", "query": "prompt", "problem": "prompt", "instruction": "prompt",
    "output": "completion", "response": "completion", "answer": "completion",
    "solution": "completion", "conversation": "messages", "dialog": "messages",
    "preferred": "chosen", "dispreferred": "rejected", "content": "text",
}  # fmt: skip
"""Frequent other names of strop's columns, for the fix in a message."""


def document(row: Row, origin: Origin) -> Document:
    """`{"text"}`."""
    _columns("document", row, origin)
    text = row["text"]
    if not isinstance(text, str) or not text.strip():
        raise DataError(
            "`text` is empty or not a string", where=str(origin), fix="drop the line", kind="empty"
        )
    columns = {name: value for name, value in row.items() if name != "text"}
    return Document(text, columns, origin)


def demonstration(row: Row, origin: Origin) -> Demonstration:
    """`{"prompt", "completion"}` or `{"messages"}`."""
    row = own_columns(row, "demonstration", origin)
    form = _columns("demonstration", row, origin)
    columns = _others(row, form, origin)
    if form == ("messages",):
        before, spoken = _split_conversation(row["messages"], origin)
        return Demonstration(_with_system(before, row, origin), spoken, columns, origin)
    if row.get("label") is False:
        raise DataError(
            "the answer has `label` false: a disliked answer would be trained on",
            where=str(origin),
            fix="use method kto, or keep only the liked answers",
            kind="disliked",
        )
    completion = answer_of(row["completion"], "completion", origin)
    return Demonstration(_prompt(row, origin), completion, columns, origin)


def preference(row: Row, origin: Origin) -> Preference:
    """`{"prompt", "chosen", "rejected"}`, the same with the prompt inside, or OpenAI's form."""
    row = own_columns(row, "preference", origin)
    form = _columns("preference", row, origin)
    if form[0] == "input":
        prompt = _openai_prompt(row["input"], origin)
        chosen = answer_of(row["preferred_output"], "preferred_output", origin)
        rejected = answer_of(row["non_preferred_output"], "non_preferred_output", origin)
    else:
        chosen = text_of(row["chosen"], "chosen", origin)
        rejected = text_of(row["rejected"], "rejected", origin)
        prompt, chosen, rejected = _prompt_of_pair(row.get("prompt"), chosen, rejected, origin)
    if chosen == rejected:
        raise DataError(
            "chosen equals rejected, so the pair says nothing",
            where=str(origin),
            fix="drop the line",
            kind="chosen_equals_rejected",
        )
    columns = _others(row, form, origin)
    return Preference(_with_system(prompt, row, origin), chosen, rejected, columns, origin)


def feedback(row: Row, origin: Origin) -> Feedback:
    """`{"prompt", "completion", "label"}` or `{"messages", "label"}`; the label is of the last
    turn."""
    row = own_columns(row, "feedback", origin)
    form = _columns("feedback", row, origin)
    columns = _others(row, form, origin)
    label = label_of(row["label"], origin)
    if form[0] == "messages":
        before, said = _last_answer(row["messages"], origin)
        return Feedback(_with_system(before, row, origin), said, label, columns, origin)
    completion = answer_of(row["completion"], "completion", origin)
    return Feedback(_prompt(row, origin), completion, label, columns, origin)


def task(row: Row, origin: Origin) -> Task:
    """`{"prompt", ...columns}`; the columns go to the rewards.

    Of `{"messages"}` that end with an answer the turns before it are the prompt, and the answer is
    the column `completion`.
    """
    row = own_columns(row, "task", origin)
    form = _columns("task", row, origin)
    columns = _others(row, form, origin)
    if form == ("prompt",):
        return Task(_prompt(row, origin), columns, origin)
    messages = messages_of(row["messages"], "messages", origin)
    if messages[-1]["role"] == "assistant":
        messages, said = _last_answer(messages, origin)
        columns.setdefault("completion", said)
    return Task(_with_system(messages, row, origin), columns, origin)


PARSERS: dict[RecordKind, Callable[[Row, Origin], Record]] = {
    "document": document,
    "demonstration": demonstration,
    "preference": preference,
    "feedback": feedback,
    "task": task,
}


def row_of(record: Record) -> dict[str, Any]:
    """A record as a row in strop's own form, with its further columns last.

    `row_of(preference(...)) == {"prompt": ..., "chosen": ..., "rejected": ..., "meta": ...}`
    """
    names = [field.name for field in fields(record) if field.name not in ("columns", "origin")]
    return {**{name: getattr(record, name) for name in names}, **record.columns}


def renamed(row: Row, columns: Mapping[str, str], origin: Origin) -> Row:
    """A row whose columns have strop's names: `columns` is `{"prompt": "question"}`.

    Raises `DataError` if the file has no such column, or another column already has strop's name.
    """
    if not columns:
        return row
    for ours, theirs in columns.items():
        if theirs not in row:
            raise DataError(
                f"`columns` names `{theirs}`, but the row has {{{columns_in(row)}}}",
                where=str(origin), fix="correct `columns` of this source", kind="columns",
            )  # fmt: skip
        if ours in row and ours not in columns.values():
            raise DataError(
                f"`columns` makes `{theirs}` the column `{ours}`, but the row has a `{ours}`",
                where=str(origin), fix=f"rename `{ours}` in `columns`, too", kind="columns",
            )  # fmt: skip
    moved = {theirs: ours for ours, theirs in columns.items()}
    return {moved.get(name, name): value for name, value in row.items()}


def fits(kind: RecordKind, row: Row) -> bool:
    """Whether a row has all columns of some form of this kind."""
    form = form_of(row)
    if form is not None:
        try:
            row = form.convert(row, kind, Origin("", 0))
        except DataError:  # contradictory columns: parsing reports them later
            return False
    return any(all(row.get(name) is not None for name in form) for form in COLUMNS[kind])


KINDS: tuple[RecordKind, ...] = ("preference", "feedback", "demonstration", "document", "task")
"""Kinds of record, the most specific first, to guess the kind of a row."""


def kind_of_row(row: Row) -> RecordKind | None:
    """The kind of a row: the most specific one whose columns are all present."""
    return next((kind for kind in KINDS if fits(kind, row)), None)


def any_record(row: Row, origin: Origin) -> Record:
    """A row as a record of the guessed kind. Raises `DataError` if it fits none."""
    kind = kind_of_row(row)
    if kind is None:
        raise DataError(
            f"the row is no record of any kind: found {{{columns_in(row)}}}",
            where=str(origin),
            fix="name strop's columns with `columns`, as in {prompt: question}",
            kind="columns",
        )
    return PARSERS[kind](row, origin)


def _columns(kind: RecordKind, row: Row, origin: Origin) -> tuple[str, ...]:
    """The first form of this kind whose columns are all present."""
    for form in COLUMNS[kind]:
        if all(row.get(name) is not None for name in form):
            return form
    for form in COLUMNS[kind]:
        null = [name for name in form if row.get(name, "") is None]
        if null and all(name in row for name in form):
            raise DataError(
                f"`{null[0]}` is null",
                where=str(origin),
                fix="write what is missing, or drop the line",
                kind="null",
            )
    wanted = " or ".join("{" + ", ".join(form) + "}" for form in COLUMNS[kind])
    looks = next(
        (other for other in COLUMNS if other != kind and fits(other, row)),
        None,
    )
    advice = f"; a row like this fits {USED_BY[looks]}" if looks else _renamed(row)
    raise DataError(
        f"wrong columns for {USED_BY[kind]}: found {{{columns_in(row)}}}",
        where=str(origin),
        fix=f"give every line {wanted}{advice}",
        kind="columns",
    )


def _renamed(row: Row) -> str:
    """A hint to the recipe's `columns`, with likely names of this row."""
    known: dict[str, str] = {}
    for name in row:
        if name in OTHER_NAMES and OTHER_NAMES[name] not in row:
            known.setdefault(OTHER_NAMES[name], name)
    listed = ", ".join(f"{ours}: {theirs}" for ours, theirs in known.items())
    return f"; or say what they are called: columns: {{{listed}}}" if known else ""


def _others(row: Row, form: tuple[str, ...], origin: Origin) -> dict[str, Any]:
    """The columns beside a record's own, `tools` among them as a list of objects."""
    columns = {name: value for name, value in row.items() if name not in form}
    given = {name: row[name] for name in ("tools",) if name in row}
    if "input" in form and isinstance(row["input"], Mapping) and "tools" in row["input"]:
        given["input.tools"] = row["input"]["tools"]
    if given:
        read = [tools_of(value, name, origin) for name, value in given.items()]
        columns["tools"] = next((tools for tools in read if tools), [])
        if any(tools and tools != columns["tools"] for tools in read):
            raise DataError(
                "`tools` and `input.tools` name different tools",
                where=str(origin),
                fix="keep one of them",
                kind="tools",
            )
    return columns


def columns_in(row: Row) -> str:
    """Names of columns for a message: `prompt, answer`."""
    names = [short(str(name)) for name in row]
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")


def _prompt(row: Row, origin: Origin) -> Text:
    return _with_system(text_of(row["prompt"], "prompt", origin), row, origin)


def _with_system(prompt: Text, row: Row, origin: Origin) -> Text:
    """The prompt after the system message of a `system` column, if the row has one.

    A plain prompt becomes a user turn. A conversation that already begins with that message stays
    as it is; one that begins with another raises `DataError`.
    """
    system = row.get("system")
    if system is None or (isinstance(system, str) and not system.strip()):
        return prompt
    if not isinstance(system, str):
        raise DataError(
            f"`system` is {shown(system)}, not the text of a system message",
            where=str(origin),
            fix="write a text, or give the column another name",
            kind="system",
        )
    turns: list[Message] = (
        [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    )
    if turns[0]["role"] not in ("system", "developer"):
        return [{"role": "system", "content": system}, *turns]
    if turns[0].get("content") != system:
        raise DataError(
            "`system` says something else than the system turn of the messages",
            where=str(origin),
            fix="keep one of the two",
            kind="system",
        )
    return turns


def _openai_prompt(given: Any, origin: Origin) -> Text:
    if not isinstance(given, Mapping):
        return text_of(given, "input", origin)
    if given.get("messages") is None:
        raise DataError(
            "`input` holds no messages",
            where=str(origin),
            fix='write {"messages": [...], "tools": [...]}',
            kind="no_messages",
        )
    return messages_of(given["messages"], "input.messages", origin)


def _split_conversation(value: Any, origin: Origin) -> tuple[list[Message], list[Message]]:
    """(up to the first assistant turn, from there on)."""
    messages = messages_of(value, "messages", origin)
    spoken = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not spoken:
        raise DataError(
            "`messages` holds no assistant turn, so there is nothing to learn",
            where=str(origin),
            fix="add the assistant's answer or drop the line",
            kind="no_answer",
        )
    if spoken[0] == 0:
        raise DataError(
            "`messages` starts with the assistant, so there is nothing that its turn answers",
            where=str(origin),
            fix="put a system or user turn before it, or drop that turn",
            kind="no_prompt",
        )
    return messages[: spoken[0]], messages[spoken[0] :]


def _last_answer(value: Any, origin: Origin) -> tuple[list[Message], list[Message]]:
    """(all turns before the last one, the last one, which is the assistant's)."""
    messages = messages_of(value, "messages", origin)
    if messages[-1]["role"] != "assistant" or len(messages) < 2:
        raise DataError(
            f"`messages` ends with a {short(messages[-1]['role'])} turn, so it holds no answer"
            if len(messages) > 1
            else "`messages` is a single turn, so it holds no prompt with its answer",
            where=str(origin),
            fix="end the conversation with the assistant's answer, or drop the line",
            kind="no_answer",
        )
    return messages[:-1], messages[-1:]


def _prompt_of_pair(
    given: Any, chosen: Text, rejected: Text, origin: Origin
) -> tuple[Text, Text, Text]:
    """Extract the shared conversation from answers that repeat it."""
    whole = isinstance(chosen, list) and chosen[0]["role"] != "assistant"
    if not whole:
        if given is None:
            raise DataError(
                "the pair has no prompt",
                where=str(origin),
                fix="add `prompt`, or put the whole conversation into chosen and rejected",
                kind="no_prompt",
            )
        prompt = text_of(given, "prompt", origin)
        return prompt, chosen, answer_of(rejected, "rejected", origin)
    assert isinstance(chosen, list)
    for name, turns in (("chosen", chosen), ("rejected", rejected)):
        if isinstance(turns, list) and turns[-1]["role"] != "assistant":
            raise DataError(
                f"`{name}` ends with a {short(turns[-1]['role'])} turn, so it holds no answer",
                where=str(origin),
                fix="end both conversations with the assistant's answer, or drop the line",
                kind="no_answer",
            )
    shared = chosen[:-1]
    if not isinstance(rejected, list) or rejected[:-1] != shared or len(rejected) < 2:
        raise DataError(
            "chosen and rejected hold different conversations before the last turn",
            where=str(origin),
            fix="make all turns but the last identical, or give `prompt` apart",
            kind="different_prompts",
        )
    return shared, chosen[-1:], rejected[-1:]
