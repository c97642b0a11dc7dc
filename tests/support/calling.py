"""Small chat templates of our own that write calls as the model families do."""

from __future__ import annotations


def _turns(said: str) -> str:
    """A template whose assistant says `said`; its calls are `m.tool_calls`."""
    return (
        "{% if tools %}{{ '<|im_start|>tools\\n' + (tools | tojson) + '<|im_end|>\\n' }}{% endif %}"
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
        "{% if m.role == 'assistant' %}" + said + "{% else %}{{ m.content }}{% endif %}"
        "{{ '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )


WORDS = "{{ m.content or '' }}"
THOUGHT = (
    "{% if m.reasoning_content %}"
    "{{ '<think>\\n' + m.reasoning_content.strip('\\n') + '\\n</think>\\n\\n' }}{% endif %}"
)
EACH = "{% for c in m.tool_calls or [] %}{% set f = c.function %}"
OBJECT = "{{ {'name': f.name, 'arguments': f.arguments} | tojson }}"
LLAMA = EACH + (
    "{{ ';' if not loop.first }}{{ {'name': f.name, 'parameters': f.arguments} | tojson }}"
    "{% endfor %}"
)
PYTHONIC = (
    "{{ '[' }}" + EACH + "{{ ', ' if not loop.first }}{{ f.name + '(' }}"
    "{% for k, v in f.arguments.items() %}"
    "{{ ', ' if not loop.first }}{{ k + '=' + ([v] | string)[1:-1] }}{% endfor %}"
    "{{ ')' }}{% endfor %}{{ ']' }}"
)
"""The text of a list of one value is Python's, with brackets around it."""

LINE = "{{ '\\n' if m.content or not loop.first }}"
HERMES = EACH + LINE + "{{ '<tool_call>\\n' }}" + OBJECT + "{{ '\\n</tool_call>' }}{% endfor %}"

FAMILIES = {
    "Hermes": _turns(WORDS + HERMES),
    "Qwen 3": _turns(THOUGHT + WORDS + HERMES),
    "Qwen 3 Coder": _turns(
        WORDS + EACH + LINE + "{{ '<tool_call>\\n<function=' + f.name + '>\\n' }}"
        "{% for k, v in f.arguments.items() %}"
        "{% set said = v | string if v is string or v is not iterable else v | tojson %}"
        "{{ '<parameter=' + k + '>\\n' + said + '\\n</parameter>\\n' }}{% endfor %}"
        "{{ '</function>\\n</tool_call>' }}{% endfor %}"
    ),
    "GLM": _turns(
        THOUGHT + WORDS + EACH + LINE + "{{ '<tool_call>' + f.name }}"
        "{% for k, v in f.arguments.items() %}"
        "{{ '\\n<arg_key>' + k + '</arg_key>\\n<arg_value>' }}"
        "{{ v if v is string else v | tojson }}{{ '</arg_value>' }}{% endfor %}"
        "{{ '\\n</tool_call>' }}{% endfor %}"
    ),
    "Llama 3": _turns("{% if m.tool_calls %}" + LLAMA + "{% else %}" + WORDS + "{% endif %}"),
    "Llama 3, tagged": _turns(
        WORDS + "{% if m.tool_calls %}{{ '<|python_tag|>' }}" + LLAMA + "{% endif %}"
    ),
    "Mistral, v3": _turns(
        "{% if m.tool_calls %}{{ '[TOOL_CALLS][' }}" + EACH + "{{ ', ' if not loop.first }}"
        "{% if c.id | length != 9 %}{{ raise_exception('an id has nine letters') }}{% endif %}"
        "{{ {'name': f.name, 'arguments': f.arguments, 'id': c.id} | tojson }}{% endfor %}"
        "{{ ']' }}{% else %}" + WORDS + "{% endif %}"
    ),
    "Mistral, v11": _turns(
        WORDS + EACH + "{% if c.id | length != 9 %}{{ raise_exception('nine letters') }}{% endif %}"
        "{{ '[TOOL_CALLS]' + f.name + '[CALL_ID]' + c.id + '[ARGS]' + (f.arguments | tojson) }}"
        "{% endfor %}"
    ),
    "Mistral, v13": _turns(
        WORDS + EACH + "{{ '[TOOL_CALLS]' + f.name + '[ARGS]' + (f.arguments | tojson) }}"
        "{% endfor %}"
    ),
    "pythonic": _turns("{% if m.tool_calls %}" + PYTHONIC + "{% else %}" + WORDS + "{% endif %}"),
    "pythonic, marked": _turns(
        WORDS + "{% if m.tool_calls %}{{ '<|tool_call_start|>' }}" + PYTHONIC
        + "{{ '<|tool_call_end|>' }}{% endif %}"
    ),
}  # fmt: skip
"""By the names of the table in `strop.text.tools`."""

CALLS_ALONE = {"Llama 3", "Mistral, v3", "pythonic"}
"""Those whose turns of calls have no words."""
