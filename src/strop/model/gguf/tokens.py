"""A byte-level BPE tokenizer as llama.cpp holds it.

llama.cpp knows the rules that split a text before its merges by name, not by expression
(`tokenizer.ggml.pre`), so a rule that it has no name for cannot be carried.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from strop.data.json_text import parsed
from strop.errors import ModelError
from strop.files import read_text
from strop.model.blend.alike import TEXTS

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
REST = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
GPT_2 = {**BYTES, "use_regex": True}


def _split(digits: str) -> dict[str, Any]:
    pattern = {"Regex": CONTRACTIONS + digits + REST}
    return {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}


RULES: Mapping[str, tuple[list[dict[str, Any]], bool]] = {
    "gpt-2": ([GPT_2], False),
    "smollm": ([{"type": "Digits", "individual_digits": True}, GPT_2], False),
    "qwen2": ([_split("\\p{N}"), BYTES], False),
    "llama-bpe": ([_split("\\p{N}{1,3}"), BYTES], True),
    "dbrx": ([_split("\\p{N}{1,3}"), BYTES], False),
}
"""llama.cpp's name of a rule -> the pre-tokenizers that it stands for in tokenizer.json, one after
the other, and whether words that are a token are taken whole (`ignore_merges`). From llama.cpp's
src/llama-vocab.cpp (version of llama-cpp-python 0.3.36)."""

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Kinds of tokens in GGUF."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`Vocabulary(rule="gpt-2", tokens=("!", ...), kinds=(1, ...), merges=("h e", ...), notes=())`,
    with one token for each row of the embeddings."""

    rule: str
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...]
    notes: tuple[str, ...]


def vocabulary(folder: Path, rows: int, chosen: str | None) -> Vocabulary:
    """The vocabulary of a model with so many rows of embeddings.

    `chosen` names a rule where llama.cpp has none that is the tokenizer's. Raises `ModelError` for
    a tokenizer that is no byte-level BPE, and for a rule that cannot be carried.
    """
    path = folder / "tokenizer.json"
    if not path.exists():
        raise _not_carried(folder, "there is no tokenizer.json (a SentencePiece model, it may be)")
    told = parsed(read_text(path, ModelError), str(path), fix="save the tokenizer again")
    model = told["model"]
    _expect_bytes(folder, told, model)
    rule, notes = _rule(folder, told, chosen)
    names: dict[int, str] = {number: token for token, number in model["vocab"].items()}
    kinds = dict.fromkeys(names, NORMAL)
    for added in told.get("added_tokens", ()):
        names[added["id"]] = added["content"]
        kinds[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    if max(names) >= rows:
        raise _not_carried(folder, f"it has the id {max(names)}, and the model {rows} embeddings")
    return Vocabulary(
        rule,
        tuple(names.get(number, f"[PAD{number}]") for number in range(rows)),
        tuple(kinds.get(number, UNUSED) for number in range(rows)),
        tuple(pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]),
        notes,
    )


def _expect_bytes(folder: Path, told: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Raise `ModelError` unless it is a byte-level BPE without what llama.cpp would leave out."""
    decoder = (told.get("decoder") or {}).get("type")
    if model.get("type") != "BPE" or model.get("byte_fallback") or decoder != "ByteLevel":
        kind = model.get("type", "unknown")
        raise _not_carried(folder, f"it is no byte-level BPE (a {kind} with decoder {decoder})")
    for option in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(option):
            raise _not_carried(folder, f"its {option} is {model[option]!r}")
    normalizer = (told.get("normalizer") or {}).get("type")
    if normalizer not in (None, "NFC"):
        raise _not_carried(folder, f"it normalises texts ({normalizer})")


def _rule(folder: Path, told: Mapping[str, Any], chosen: str | None) -> tuple[str, tuple[str, ...]]:
    """The rule's name, and what is to be said of it."""
    steps = [_plain(step) for step in _steps(told.get("pre_tokenizer"))]
    merges = bool(told["model"].get("ignore_merges"))
    known = next((name for name, rule in RULES.items() if rule == (steps, merges)), None)
    if known is not None:
        if chosen is not None:
            raise ModelError(f"texts are split by the rule {known!r}, which llama.cpp has",
                             where=str(folder), fix="drop --pretokenizer")  # fmt: skip
        said = ("texts are composed (NFC) before they are split, which llama.cpp leaves out",)
        return known, said if told.get("normalizer") else ()
    if chosen is None:
        found = " + ".join(_short(step) for step in steps) or "no pre-tokenizer"
        raise ModelError(
            f"its tokenizer is not carried: llama.cpp has no name for the rule that splits its "
            f"texts ({found}{', merges ignored' if merges else ''})",
            where=str(folder),
            fix=f"--pretokenizer {'|'.join(RULES)} takes one of llama.cpp's; texts are then split "
            "by that one, and token ids given to llama.cpp mean the same",
        )
    if chosen not in RULES:
        raise ModelError(f"there is no rule {chosen!r}", where=str(folder),
                         fix=f"choose one of {', '.join(RULES)}")  # fmt: skip
    differ = _differ(told, chosen)
    return chosen, (
        f"llama.cpp splits texts by {chosen}, the tokenizer by a rule of its own: {differ} of "
        f"{len(TEXTS)} fixed texts become other tokens. Give it token ids, or measure there",
    )


def _differ(told: Mapping[str, Any], chosen: str) -> int:
    """How many of the fixed texts another rule splits into other tokens."""
    rule, merges = RULES[chosen]
    steps = [{"trim_offsets": True, **step} for step in rule]
    other = {**told, "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
             "model": {**told["model"], "ignore_merges": merges}}  # fmt: skip
    own, theirs = (Tokenizer.from_str(json.dumps(one)) for one in (told, other))
    return sum(own.encode(text).ids != theirs.encode(text).ids for text in TEXTS)


def _steps(found: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    if found is None:
        return
    if found["type"] == "Sequence":
        for step in found["pretokenizers"]:
            yield from _steps(step)
    else:
        yield found


def _plain(step: Mapping[str, Any]) -> dict[str, Any]:
    """A step without what does not change the split; absent options at their defaults."""
    found = {key: value for key, value in step.items() if key != "trim_offsets"}
    return {**GPT_2, **found} if step["type"] == "ByteLevel" else found


def _short(step: Mapping[str, Any]) -> str:
    """`Digits(individual_digits)`."""
    on = [key for key, value in step.items() if value is True]
    return f"{step['type']}({', '.join(on)})" if on else str(step["type"])


def _not_carried(folder: Path, why: str) -> ModelError:
    return ModelError(
        f"its tokenizer is not carried: {why}",
        where=str(folder),
        fix="use llama.cpp's own converter, which knows more kinds",
    )
