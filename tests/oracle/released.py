"""The chat templates of released models, as the trl package carries them, and what strop makes of
each: `python -m tests.oracle.released` prints the table of docs/templates.md."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from strop.errors import StropError, TextError
from strop.recipe.template import TemplateRecipe
from strop.text.chat.named import with_template
from strop.text.chat.template import ChatTemplate
from strop.text.ends import set_stops
from strop.text.render import demonstration_tree, opening, prompt_ids
from strop.types import Demonstration, Message, Origin

ENDS: Mapping[str, tuple[str, ...]] = {
    "cohere": ("<|END_OF_TURN_TOKEN|>",),
    "deepseek": ("<｜end▁of▁sentence｜>",),  # noqa: RUF001 - as the model writes it
    "diffusion_gemma": ("<turn|>", "<|tool_response>"),
    "gemma4": ("<turn|>", "<|tool_response>"),
    "gemma": ("<end_of_turn>",),
    "gptoss": ("<|return|>", "<|call|>"),
    "idefics3": ("<end_of_utterance>",),
    "lfm2": ("<|im_end|>",),
    "llama3": ("<|eot_id|>", "<|eom_id|>"),
    "llava_next": ("</s>",),
    "muse": ("<|eot|>",),
    "nemotron": ("<|im_end|>",),
    "phi3": ("<|end|>",),
    "qwen": ("<|im_end|>",),
    "smolvlm": ("<end_of_utterance>",),
}
"""What the released models' generation configs stop at, by the beginning of a template's name."""

END_OF_TURN: Mapping[str, tuple[str, ...]] = {"glm4moe": ("<|user|>", "<|observation|>")}
"""What a recipe has to name, where the template itself ends a turn with nothing."""

_MARKS = re.compile(r"<[|｜]?[A-Za-z_/▁|｜.0-9]+[|｜]?>|<[a-z_]+\|>|\[/?[A-Z_]+\]")  # noqa: RUF001
_WORDS = frozenset({"<think>", "</think>", "<tool_call>", "</tool_call>"})

HERE = Origin("data.jsonl", 1)
USER: Message = {"role": "user", "content": "Solve 2x = 6"}
SAID: Message = {"role": "assistant", "content": "x = 3"}
CALL = {
    "id": "abcdefghi",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Bern"}'},
}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "where"}},
            "required": ["city"],
        },
    },
}
CALLED: list[Message] = [
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "abcdefghi", "name": "get_weather", "content": "sunny"},
    {"role": "assistant", "content": "It is sunny"},
]

CASES: Mapping[str, tuple[list[Message], list[Message], dict[str, Any]]] = {
    "one turn": ([USER], [SAID], {}),
    "turns": ([USER], [SAID, {"role": "user", "content": "Sure?"}, SAID], {}),
    "system": ([{"role": "system", "content": "Be terse"}, USER], [SAID], {}),
    "developer": ([{"role": "developer", "content": "Be terse"}, USER], [SAID], {}),
    "thought": ([USER], [{**SAID, "reasoning_content": "halve it"}], {}),
    "tools": ([USER], CALLED, {"tools": [TOOL]}),
    "prefill": ([USER, {"role": "assistant", "content": "x ="}], [{**SAID, "content": " 3"}], {}),
}


def folder() -> Path | None:
    """Where the installed trl keeps its templates; the package itself is not imported."""
    found = importlib.util.find_spec("trl")
    places = found.submodule_search_locations if found else None
    return Path(places[0]) / "chat_templates" if places else None


def names() -> list[str]:
    place = folder()
    return sorted(file.stem for file in place.glob("*.jinja")) if place else []


def speaker(name: str) -> Any:
    """A tokenizer of bytes with this template, the marks it writes, and the ends of its model."""
    place = folder()
    assert place is not None
    source = (place / f"{name}.jinja").read_text(encoding="utf-8")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    ends = next((tokens for start, tokens in ENDS.items() if name.startswith(start)), ())
    turn = next((tokens for start, tokens in END_OF_TURN.items() if name.startswith(start)), ())
    marks = ({*_MARKS.findall(source), *ends, *turn}) - _WORDS
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        chat_template=source,
        extra_special_tokens=sorted(marks),
    )
    set_stops(made, made.convert_tokens_to_ids(list(ends)))
    return with_template(made, TemplateRecipe(end_of_turn=turn))


def told(tokenizer: Any, case: str) -> str:
    """`yes`, how many branches where there are several, or why it is refused, short."""
    prompt, answer, columns = CASES[case]
    try:
        tree = demonstration_tree(tokenizer, Demonstration(prompt, answer, columns, HERE))
    except TextError as error:
        return _why(error)
    return "yes" if len(tree.branches) == 1 else "yes, apart"


def _why(error: StropError) -> str:
    if "leaves out" in error.problem:
        return "not written"
    if "cannot render" in error.problem:
        return "not allowed"
    return "rewritten" if "prefix-stable" in error.problem else "no end"


def row(name: str) -> str:
    """A line of the table."""
    tokenizer = speaker(name)
    closing = ChatTemplate(tokenizer).closing.strip().replace("\n", " ") or "nothing"
    opens = "yes" if opening(tokenizer, [USER], prompt_ids(tokenizer, [USER])) else ""
    cells = [name, f"`{_escaped(closing)}`" if closing != "nothing" else closing, opens]
    return "| " + " | ".join([*cells, *(told(tokenizer, case) for case in CASES)]) + " |"


def _escaped(text: str) -> str:
    """A `|` would end a table's cell, in code too."""
    return text.replace("|", "\\|")


def table() -> str:
    """All of them; a template patched for training that behaves as its original is left out."""
    rows = {name: row(name) for name in names()}
    originals = {name: line.split(" | ")[1:] for name, line in rows.items()}
    kept = [
        line
        for name, line in rows.items()
        if originals.get(name.removesuffix("_training")) != originals[name]
        or not name.endswith("_training")
    ]
    head = ["template", "ends a turn with", "opens `<think>`", *CASES]
    return "\n".join(["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *kept])


if __name__ == "__main__":
    print(table())
