"""Messages -> token ids and supervision masks.

A prompt is tokenised alone, exactly as at sampling time. The rest is tokenised separately and
appended, so training and sampling see the same boundary. Only assistant tokens are supervised,
including the token that ends a turn, but not what a template writes after it.

A record is first written as text (`strop.text.script`), and the texts of many records are tokenised
together, batch by batch, so that records are streamed and never all held in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from threading import Thread

from strop.errors import StropError, TextError
from strop.text.chat.template import Tools
from strop.text.encode import Encoder, Tokenizer
from strop.text.parse import decode
from strop.text.script import PromptAndAnswers, Script, Turn, asked_of, opened_by, script_of
from strop.types import (
    Branch,
    Demonstration,
    Document,
    Feedback,
    Preference,
    Record,
    Task,
    Text,
    Tree,
)

AT_ONCE = 1024
"""Most records whose texts are tokenised together."""

AT_ONCE_SIZE = 1 << 22
"""Most characters of records that are tokenised together, unless one record alone has more."""

TEMPLATE_SECONDS = 5.0
"""Seconds that a chat template may take for one record."""

REMEMBERED = 1 << 23
"""Characters of records in the cache of rendered records; a full cache is emptied."""

OPENING = 16
"""Tokens at a prompt's end that are searched for the opening of a thought."""


def prompt_ids(tokenizer: Tokenizer, prompt: Text, *, where: str = "") -> tuple[int, ...]:
    """Ids of a prompt, ready to be continued by the model.

    Text gets the tokenizer's own BOS (once); messages go through the chat template with the
    generation prompt. Raises `TextError` when messages meet a tokenizer without a template.
    """
    return _tree(tokenizer, PromptAndAnswers(prompt, (), where)).trunk


def prompt_of(encoder: Encoder, task: Task) -> tuple[int, ...]:
    """`prompt_ids` of a task with the tools it offers, by an encoder that is used again."""
    found = next(_new_trees(encoder, [asked_of(task)]))
    if isinstance(found, StropError):
        raise found
    return found.trunk


def prompts_ids(tokenizer: Tokenizer, tasks: Sequence[Task]) -> list[tuple[int, ...]]:
    """`prompt_ids` of every task, with the tools it offers."""
    return [tree.trunk for tree in trees(tokenizer, [asked_of(task) for task in tasks])]


def prompt_texts(tokenizer: Tokenizer, records: Sequence[Record]) -> list[str]:
    """The prompt of every record as text, as the model reads it."""
    encoder = Encoder(tokenizer)
    scripts = [script_of(encoder, asked_of(one)._replace(answers=())) for one in records]
    for script in scripts:
        if script.fault is not None:
            raise script.fault
    return [script.prompt for script in scripts]


def opening(tokenizer: Tokenizer, prompt: Text, ids: Sequence[int]) -> str:
    """The part of the answer that a prompt (its ids) already contains: `"<think>\\n"`, or an
    assistant message."""
    return opened_by(prompt, decode(tokenizer, ids[-OPENING:], special=True))


def demonstration_tree(tokenizer: Tokenizer, record: Demonstration) -> Tree:
    """A trunk (everything before the first supervised token) with one branch, or with a branch for
    every assistant turn if the template rewrites earlier turns."""
    return _tree(tokenizer, asked_of(record))


def preference_tree(tokenizer: Tokenizer, record: Preference) -> Tree:
    """A trunk with two branches: chosen, then rejected."""
    return _tree(tokenizer, asked_of(record))


def feedback_tree(tokenizer: Tokenizer, record: Feedback) -> Tree:
    """A trunk with one branch, the labelled answer."""
    return _tree(tokenizer, asked_of(record))


def answer_tree(tokenizer: Tokenizer, prompt: Text, completion: Text, tools: Tools = None) -> Tree:
    """A prompt with one answer, rendered as in training, for a reward model to score."""
    return _tree(tokenizer, PromptAndAnswers(prompt, (completion,), "", tools))


def document_trees(tokenizer: Tokenizer, record: Document, *, max_length: int) -> list[Tree]:
    """A document cut into pieces of at most `max_length` tokens, every token supervised once.

    The trunk of the first piece is BOS (or the first token where there is no BOS); a later piece
    starts from the last token of the piece before. The document ends in EOS.
    """
    ids = _tree(tokenizer, asked_of(record)).trunk
    return pieces((*ids, tokenizer.eos_token_id), max_length)


def pieces(ids: tuple[int, ...], max_length: int) -> list[Tree]:
    """A document with its EOS as trees: the first of `pieces((4, 5, 6, 2), 3)` supervises 5 and 6
    after 4."""
    cut = []
    for start in range(0, len(ids) - 1, max_length - 1):
        piece = ids[start + 1 : start + max_length]
        cut.append(Tree((ids[start],), (Branch(piece, (True,) * len(piece)),)))
    return cut


def trees(tokenizer: Tokenizer, asked: Iterable[PromptAndAnswers]) -> Iterator[Tree]:
    """A tree for each, in order: the prompt as trunk, a branch for each answer.

    Equal records share a tree. The first record that cannot be rendered raises, as if each were
    rendered alone.
    """
    for found in tried(tokenizer, asked):
        if isinstance(found, StropError):
            raise found
        yield found


def tried(tokenizer: Tokenizer, asked: Iterable[PromptAndAnswers]) -> Iterator[Tree | StropError]:
    """Like `trees`, but with the error in place of a tree that cannot be rendered.

    Raises `TextError` for a record that the template does not finish in time: its thread cannot be
    stopped, and every further one would slow the run.
    """
    encoder, known, size = Encoder(tokenizer), dict[str, Tree | StropError](), 0
    for batch in _batches(asked):
        if size > REMEMBERED:
            encoder, known, size = Encoder(tokenizer), {}, 0
        new: dict[str, PromptAndAnswers] = {}
        for key, one in batch:
            if key not in known:
                new.setdefault(key, one)
        # after a template that did not end in time there are fewer trees than records
        known |= zip(new, _new_trees(encoder, list(new.values())), strict=False)
        size += sum(map(len, new))
        for key, _ in batch:
            found = known[key]
            if isinstance(found, _EndlessError):
                raise found
            yield found


def _batches(asked: Iterable[PromptAndAnswers]) -> Iterator[list[tuple[str, PromptAndAnswers]]]:
    """Records with their keys, in batches of at most `AT_ONCE` records and `AT_ONCE_SIZE`
    characters."""
    batch: list[tuple[str, PromptAndAnswers]] = []
    size = 0
    for one in asked:
        key = one.key()
        if batch and (len(batch) == AT_ONCE or size + len(key) > AT_ONCE_SIZE):
            yield batch
            batch, size = [], 0
        batch.append((key, one))
        size += len(key)
    if batch:
        yield batch


def _new_trees(encoder: Encoder, asked: Sequence[PromptAndAnswers]) -> Iterator[Tree | StropError]:
    scripts = scripts_in_time(encoder, asked)
    encoder.encode((script.prompt for script in scripts if script.plain), special=True)
    encoder.encode((text for script in scripts for text in script.stretches()), special=False)
    for script in scripts:
        try:
            yield _as_ids(encoder, script)
        except StropError as error:
            yield error.with_traceback(None)


def _tree(tokenizer: Tokenizer, asked: PromptAndAnswers) -> Tree:
    return next(trees(tokenizer, [asked]))


class _EndlessError(TextError):
    """A chat template did not end in time."""

    def __init__(self, where: str) -> None:
        super().__init__(
            f"the chat template did not end within {TEMPLATE_SECONDS:g} s",
            where=where,
            fix="use a template without loops in loops, or shorten the record",
        )


def scripts_in_time(encoder: Encoder, asked: Sequence[PromptAndAnswers]) -> list[Script]:
    """The scripts of these records, up to the first that is not finished in time.

    A chat template is a program that comes with a model, possibly with nested loops. It runs in a
    thread; if it does not finish a record in `TEMPLATE_SECONDS`, the last script gets that fault
    and the thread is abandoned.
    """
    scripts: list[Script] = []
    if all(one.is_plain() for one in asked):
        _write_scripts(encoder, asked, scripts)
        return scripts
    beside = Thread(target=_write_scripts, args=(encoder, asked, scripts), daemon=True)
    beside.start()
    while beside.is_alive():
        before = len(scripts)
        beside.join(TEMPLATE_SECONDS)
        if beside.is_alive() and len(scripts) == before:
            where = asked[before].where
            return [*scripts[:before], Script(False, "", [], where, _EndlessError(where))]
    return scripts


def _write_scripts(
    encoder: Encoder, asked: Sequence[PromptAndAnswers], scripts: list[Script]
) -> None:
    for one in asked:
        scripts.append(script_of(encoder, one))


def _as_ids(encoder: Encoder, script: Script) -> Tree:
    """The tree of a script. Raises the script's first error."""
    if script.plain:
        if script.fault is not None:
            raise script.fault
        trunk = encoder.ids(script.prompt, special=True, where=script.where)
        answers = (answer.turns[0] for answer in script.answers)
        return Tree(trunk, tuple(_text_branch(encoder, turn, script.where) for turn in answers))
    branches = [_chat_branch(encoder, answer.turns, script.where) for answer in script.answers]
    if script.fault is not None:
        raise script.fault
    contexts = [encoder.ids(text, special=False, where=script.where) for text in _contexts(script)]
    trunk = contexts[0][: min(_shared(contexts[0], other) for other in contexts)]
    read = [context[len(trunk) :] for context in contexts]
    return Tree(trunk, tuple(map(_after, read, branches)))


def _contexts(script: Script) -> list[str]:
    """The contexts: the prompt, or the text before each answer."""
    return [answer.context for answer in script.answers] or [script.prompt]


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of the common prefix."""
    if one == other:
        return len(one)
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _after(read: tuple[int, ...], branch: Branch) -> Branch:
    """A branch with more of its context in front, which is not supervised."""
    return Branch((*read, *branch.ids), ((False,) * len(read)) + branch.supervised)


def _text_branch(encoder: Encoder, turn: Turn, where: str) -> Branch:
    ids = (*encoder.ids(turn.text, special=False, where=where), encoder.eos)
    return Branch(ids, (True,) * len(ids))


def _chat_branch(encoder: Encoder, turns: Sequence[Turn], where: str) -> Branch:
    """A branch whose learnt turns are supervised through the token that ends them; the rest after
    the last one is cut."""
    ids: list[int] = []
    supervised: list[bool] = []
    end = 0
    for turn in turns:
        said = encoder.ids(turn.text, special=False, where=where)
        learnt = 0
        if turn.learnt:
            said, learnt = _through_end(encoder, said, where)
            end = len(ids) + learnt
        ids += said
        supervised += [True] * learnt + [False] * (len(said) - learnt)
    return Branch(tuple(ids[:end]), tuple(supervised[:end]))


def _through_end(encoder: Encoder, ids: tuple[int, ...], where: str) -> tuple[tuple[int, ...], int]:
    """The ids of a learnt turn, and how many of them are supervised: through the first that ends
    it."""
    for place, token in enumerate(ids):
        if token in encoder.ends:
            return ids, place + 1
    if encoder.appended is not None and encoder.through_end(encoder.chat.closing) == "":
        return (*ids, encoder.appended), len(ids) + 1
    known = ", ".join(map(repr, encoder.tokenizer.convert_ids_to_tokens(list(encoder.ends))))
    raise TextError(
        f"the chat template ends this assistant turn with {_last_of(encoder, ids)!r}, in which "
        f"there is no end-of-sequence token ({known}), so the model would never learn to stop",
        where=where,
        fix="set text.end_of_turn in the recipe to the token that ends a turn; it is then written "
        "into the saved model",
    )


def _last_of(encoder: Encoder, ids: Sequence[int]) -> str:
    """The last special token of a turn and the text after it, or the turn's last few tokens."""
    special = set(encoder.tokenizer.all_special_ids)
    last = max((place for place, token in enumerate(ids) if token in special), default=0)
    return decode(encoder.tokenizer, ids[max(last, len(ids) - 8) :], special=True)
