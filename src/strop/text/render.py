"""Messages -> token ids and supervision masks.

A prompt is tokenised exactly as it will be at sampling time: alone. What follows is tokenised
separately and appended, so training and sampling see the same boundary. Only assistant tokens are
supervised, the end-of-sequence token among them; what a template writes after it is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from strop.errors import TextError
from strop.types import (
    Branch,
    Demonstration,
    Document,
    Feedback,
    Message,
    Preference,
    Text,
    Tree,
)

Tokenizer = Any
"""A transformers `PreTrainedTokenizerBase` (the library ships no types)."""


def prompt_ids(tokenizer: Tokenizer, prompt: Text, *, where: str = "") -> tuple[int, ...]:
    """Ids of a prompt, ready to be continued by the model.

    Text gets the tokenizer's own BOS (once); messages go through the chat template with the
    generation prompt. Raises `TextError` when messages meet a tokenizer without a template.
    """
    if isinstance(prompt, str):
        return _text_ids(tokenizer, prompt)
    return _ids(tokenizer, _template(tokenizer, prompt, generation=True, where=where))


def demonstration_tree(tokenizer: Tokenizer, record: Demonstration) -> Tree:
    """A trunk (all that precedes the first supervised token) with one branch."""
    return _one_prompt(tokenizer, record.prompt, [record.completion], str(record.origin))


def preference_tree(tokenizer: Tokenizer, record: Preference) -> Tree:
    """A trunk with two branches: chosen, then rejected."""
    answers = [record.chosen, record.rejected]
    return _one_prompt(tokenizer, record.prompt, answers, str(record.origin))


def feedback_tree(tokenizer: Tokenizer, record: Feedback) -> Tree:
    """A trunk with the one branch that was judged."""
    return _one_prompt(tokenizer, record.prompt, [record.completion], str(record.origin))


def answer_tree(tokenizer: Tokenizer, prompt: Text, completion: Text) -> Tree:
    """A prompt with one answer, as training would read it: what a reward model judges."""
    return _one_prompt(tokenizer, prompt, [completion], "")


def document_trees(tokenizer: Tokenizer, record: Document, *, max_length: int) -> list[Tree]:
    """A document cut into pieces of at most `max_length` tokens, every token learnt once.

    The trunk of the first piece is BOS (or the first token where there is no BOS); a later piece
    starts from the last token of the piece before. The document ends in EOS.
    """
    ids = [*_text_ids(tokenizer, record.text), tokenizer.eos_token_id]
    trees = []
    for start in range(0, len(ids) - 1, max_length - 1):
        piece = ids[start + 1 : start + max_length]
        trees.append(Tree((ids[start],), (Branch(tuple(piece), (True,) * len(piece)),)))
    return trees


def _one_prompt(tokenizer: Tokenizer, prompt: Text, answers: Sequence[Text], where: str) -> Tree:
    if isinstance(prompt, str) and all(isinstance(answer, str) for answer in answers):
        texts = cast("Sequence[str]", answers)
        branches = tuple(_text_branch(tokenizer, text) for text in texts)
        return Tree(_text_ids(tokenizer, prompt), branches)
    messages = as_messages(prompt, role="user")
    turns = [as_messages(answer, role="assistant") for answer in answers]
    asked = _template(tokenizer, messages, generation=True, where=where)
    branches = tuple(_chat_branch(tokenizer, messages, asked, turn, where) for turn in turns)
    return Tree(_ids(tokenizer, asked), branches)


def as_messages(text: Text, *, role: str) -> list[Message]:
    """Plain text as one message of the given role; messages unchanged."""
    return [{"role": role, "content": text}] if isinstance(text, str) else text


def _text_branch(tokenizer: Tokenizer, text: str) -> Branch:
    ids = (*_ids(tokenizer, text), tokenizer.eos_token_id)
    return Branch(ids, (True,) * len(ids))


def _chat_branch(
    tokenizer: Tokenizer, prompt: list[Message], asked: str, turns: list[Message], where: str
) -> Branch:
    """Every turn after the prompt (rendered: `asked`); assistant turns supervised up to and
    including their EOS."""
    done = asked
    ids: list[int] = []
    supervised: list[bool] = []
    for count, turn in enumerate(turns, start=1):
        messages = prompt + turns[:count]
        spoken = turn["role"] == "assistant"
        if spoken and count > 1:
            opened = _template(tokenizer, prompt + turns[: count - 1], generation=True, where=where)
            read = _ids(tokenizer, _continuation(opened, done, where))
            ids += read
            supervised += [False] * len(read)
            done = opened
        text = _template(tokenizer, messages, generation=False, where=where)
        said = _ids(tokenizer, _continuation(text, done, where))
        learnt = _through_eos(tokenizer, said, where) if spoken else 0
        ids += said
        supervised += [True] * learnt + [False] * (len(said) - learnt)
        done = text
    end = len(supervised) - supervised[::-1].index(True) if any(supervised) else 0
    return Branch(tuple(ids[:end]), tuple(supervised[:end]))


def _through_eos(tokenizer: Tokenizer, ids: Sequence[int], where: str) -> int:
    """How many ids of an assistant turn are learnt: up to and including the first EOS."""
    if tokenizer.eos_token_id not in ids:
        raise TextError(
            "the chat template ends an assistant turn without the end-of-sequence token "
            f"{tokenizer.eos_token!r}, so the model would never learn to stop",
            where=where,
            fix="set the tokenizer's eos_token to the token its template ends a turn with",
        )
    return list(ids).index(tokenizer.eos_token_id) + 1


def _continuation(text: str, prefix: str, where: str) -> str:
    if not text.startswith(prefix):
        raise TextError(
            "the chat template is not prefix-stable: adding a turn changes what was rendered before"
            " it, so training would see other text than sampling",
            where=where,
            fix="train on single-turn records, or use a template that leaves earlier turns alone",
        )
    return text[len(prefix) :]


def _template(
    tokenizer: Tokenizer, messages: list[Message], *, generation: bool, where: str
) -> str:
    if tokenizer.chat_template is None:
        raise TextError(
            "the data holds chat messages but the tokenizer has no chat template",
            where=where,
            fix="use plain text prompts and completions, or a tokenizer with a chat_template",
        )
    rendered = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=generation
    )
    return cast(str, rendered)


def _text_ids(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    """Ids with the tokenizer's special tokens, without a second BOS and without a closing EOS."""
    ids = tokenizer(text, add_special_tokens=True)["input_ids"]
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    if bos is not None and ids[:2] == [bos, bos]:
        ids = ids[1:]
    if len(ids) > 1 and ids[-1] == eos and not text.endswith(str(tokenizer.eos_token)):
        ids = ids[:-1]
    return tuple(ids)


def _ids(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
