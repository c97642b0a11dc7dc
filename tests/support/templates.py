"""Small chat templates of our own, each with one property of those of released models."""

from __future__ import annotations

import copy
from typing import Any

TURN = "'<|im_start|>' + m.role + '\\n'"

PLAIN = (
    "{% for m in messages %}{{ " + TURN + " + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""ChatML without tools, thoughts or a date."""

TOOLS = (
    "{% if tools %}{{ '<|im_start|>tools\\n' }}{% for t in tools %}{{ t | tojson }}{% endfor %}"
    "{{ '<|im_end|>\\n' }}{% endif %}"
    "{% for m in messages %}{{ " + TURN + " + (m.content or '') }}"
    "{% for c in m.tool_calls or [] %}"
    "{{ '<tool_call>' + ({'name': c.function.name, 'arguments': c.function.arguments} | tojson)"
    " + '</tool_call>' }}{% endfor %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""Tools before the conversation, calls as JSON in tags."""

NULL_CONTENT = (
    "{% for m in messages %}{{ " + TURN + " }}"
    "{% if m.role == 'assistant' and m['content'] is none %}"
    "{% for c in m.tool_calls %}{{ c.function.name + '|' + c.function.arguments }}{% endfor %}"
    "{% else %}{{ m['content'] }}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""Knows a turn of calls by its null content, and adds arguments as text."""

THINKING = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}"
    "{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{{ " + TURN + " }}"
    "{% if m.role == 'assistant' and loop.index0 > ns.last %}"
    "{{ '<think>\\n' + (m.reasoning_content or '') + '\\n</think>\\n\\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"
)
"""Writes thoughts in the last turn and forgets those of earlier ones."""

OPENS_THOUGHT = PLAIN.replace(
    "'<|im_start|>assistant\\n' }}{% endif %}", "'<|im_start|>assistant\\n<think>\\n' }}{% endif %}"
)
"""Opens a thought in the prompt and never writes one in a turn."""

CLOSED_AT_THE_END = PLAIN + "{% if not add_generation_prompt %}{{ '<|endoftext|>' }}{% endif %}"
"""Closes a conversation after the token that ended its last turn."""

NO_END = PLAIN.replace("<|im_end|>", "")
"""Ends a turn with a line break alone."""

PARTS = (
    "{% for m in messages %}{{ " + TURN + " }}{% for p in m.content %}"
    "{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""Reads content in parts only."""

DATED = (
    "{{ '<|im_start|>system\\nToday is ' + strftime_now('%d %b %Y') + '<|im_end|>\\n' }}" + PLAIN
)
"""Writes the day."""

MARKS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|bos|>")


def speaking(tokenizer: Any, template: str) -> Any:
    """A copy of a tokenizer with this template and EOS `<|endoftext|>`; nothing says that
    `<|im_end|>` ends a turn."""
    changed = copy.deepcopy(tokenizer)
    changed.add_special_tokens({"extra_special_tokens": list(MARKS)})
    changed.eos_token = "<|endoftext|>"
    changed.chat_template = template
    return changed
