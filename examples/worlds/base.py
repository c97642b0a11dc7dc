"""What the worlds share: a tiny raw model whose template writes tools, and files of records."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from strop.demo.model import raw_model, train_tokenizer
from strop.files import write_rows

Row = dict[str, Any]

ROLES = ["<|user|>", "<|assistant|>", "<|tool|>", "<|tools|>"]
POSITIONS = 384
TEMPLATE = (
    "{% for t in tools or [] %}<|tools|>{{ t.function.name }}{% endfor %}"
    "{% for m in messages %}"
    "{% if m.role == 'assistant' %}<|assistant|>{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}<tool_call>"
    "{{ {'name': c.function.name, 'arguments': c.function.arguments} | tojson }}"
    "</tool_call>{% endfor %}<|end|>"
    "{% elif m.role == 'tool' %}<|tool|>{{ m.content }}"
    "{% else %}<|user|>{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Calls as Hermes and Qwen write them; of a tool only the name is shown, the model being tiny."""


def user(text: str) -> Row:
    return {"role": "user", "content": text}


def says(text: str) -> Row:
    return {"role": "assistant", "content": text}


def calls(name: str, result: object, **arguments: object) -> list[Row]:
    """A turn that calls a tool, and what it gave."""
    call = {"id": "call00000", "type": "function"}
    asked = {**call, "function": {"name": name, "arguments": arguments}}
    return [
        {"role": "assistant", "content": "", "tool_calls": [asked]},
        {"role": "tool", "content": str(result), "tool_call_id": "call00000"},
    ]


def tool(name: str, description: str, **arguments: tuple[str, str]) -> Row:
    """The description that strop makes of a method: argument -> (JSON type, meaning)."""
    properties = {key: {"type": kind, "description": d} for key, (kind, d) in arguments.items()}
    parameters: Row = {"type": "object", "properties": properties}
    if arguments:
        parameters["required"] = list(arguments)
    function: Row = {"name": name, "description": description, "parameters": parameters}
    function["return"] = {"type": "string"}
    return {"type": "function", "function": function}


def write_base(folder: Path, rows: Sequence[Row], seed: int) -> None:
    """A model with random weights, and a tokenizer trained on these demonstrations."""
    tokenizer = train_tokenizer([json.dumps(row) for row in rows[:600]], 400)
    tokenizer.add_special_tokens({"additional_special_tokens": ROLES})
    tokenizer.chat_template = TEMPLATE
    tokenizer.model_max_length = POSITIONS
    model = raw_model(tokenizer, seed, width=96, positions=POSITIONS)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_world(source: Path, out: Path, tables: dict[str, list[Row]], seed: int) -> None:
    """The records, a raw model, and the example's recipes and environment beside them.

    `tables` is file name -> rows; the first one's texts train the tokenizer.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        write_rows(out / f"{name}.jsonl", rows)
    write_base(out / "base", next(iter(tables.values())), seed)
    for path in sorted(source.iterdir()):
        if path.suffix in (".yaml", ".py") and path.name != "make.py":
            shutil.copy(path, out)


def main(source: Path, tables: Callable[[int], dict[str, list[Row]]]) -> None:
    """The command line of a world's make.py."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write_world(source, options.out, tables(options.seed), options.seed)
