"""Messages -> token ids and supervision masks.

A prompt is tokenised exactly as it will be at sampling time: alone. What follows is tokenised
separately and appended, so training and sampling see the same boundary. Only assistant tokens are
supervised, the end-of-sequence token among them; what a template writes after it is not.

A record is written down as text first (`_Script`) and the texts of many records are tokenised
together. The first record that cannot be rendered raises, as it would if each were rendered alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import NamedTuple

from strop.errors import TextError
from strop.text.encode import Encoder, Tokenizer
from strop.types import (
    Branch,
    Demonstration,
    Document,
    Feedback,
    Message,
    Preference,
    Record,
    Task,
    Text,
    Tree,
)

AT_ONCE = 1024
"""Records whose texts are tokenised together."""

TEMPLATE_SECONDS = 5.0
"""What a chat template may take for one record."""

REMEMBERED = 1 << 23
"""Characters of records that are remembered, to be known again, before all are forgotten."""


class Asked(NamedTuple):
    """A prompt and what answers it: `Asked("Solve 2x = 6", ("x = 3",), "sft.jsonl:1")`."""

    prompt: Text
    answers: tuple[Text, ...]
    where: str


class _Turn(NamedTuple):
    """A stretch of a branch; one `spoken` by the assistant is learnt through its EOS."""

    text: str
    spoken: bool


@dataclass(frozen=True, slots=True)
class _Script:
    """A record as text, in the stretches that are tokenised alone.

    `fault` is what its template could not do after the last of these turns.
    """

    plain: bool
    trunk: str
    branches: Sequence[Sequence[_Turn]]
    where: str
    fault: Exception | None = None

    def stretches(self) -> Iterator[str]:
        """All texts but a plain trunk, which is tokenised with special tokens."""
        if not self.plain:
            yield self.trunk
        for turns in self.branches:
            yield from (turn.text for turn in turns)


def prompt_ids(tokenizer: Tokenizer, prompt: Text, *, where: str = "") -> tuple[int, ...]:
    """Ids of a prompt, ready to be continued by the model.

    Text gets the tokenizer's own BOS (once); messages go through the chat template with the
    generation prompt. Raises `TextError` when messages meet a tokenizer without a template.
    """
    return _tree(tokenizer, Asked(prompt, (), where)).trunk


def prompts_ids(tokenizer: Tokenizer, tasks: Sequence[Task]) -> list[tuple[int, ...]]:
    """`prompt_ids` of every task."""
    return [tree.trunk for tree in trees(tokenizer, [asked_of(task) for task in tasks])]


def demonstration_tree(tokenizer: Tokenizer, record: Demonstration) -> Tree:
    """A trunk (all that precedes the first supervised token) with one branch."""
    return _tree(tokenizer, asked_of(record))


def preference_tree(tokenizer: Tokenizer, record: Preference) -> Tree:
    """A trunk with two branches: chosen, then rejected."""
    return _tree(tokenizer, asked_of(record))


def feedback_tree(tokenizer: Tokenizer, record: Feedback) -> Tree:
    """A trunk with the one branch that was judged."""
    return _tree(tokenizer, asked_of(record))


def answer_tree(tokenizer: Tokenizer, prompt: Text, completion: Text) -> Tree:
    """A prompt with one answer, as training would read it: what a reward model judges."""
    return _tree(tokenizer, Asked(prompt, (completion,), ""))


def document_trees(tokenizer: Tokenizer, record: Document, *, max_length: int) -> list[Tree]:
    """A document cut into pieces of at most `max_length` tokens, every token learnt once.

    The trunk of the first piece is BOS (or the first token where there is no BOS); a later piece
    starts from the last token of the piece before. The document ends in EOS.
    """
    ids = _tree(tokenizer, asked_of(record)).trunk
    return pieces((*ids, tokenizer.eos_token_id), max_length)


def pieces(ids: tuple[int, ...], max_length: int) -> list[Tree]:
    """A closed document as trees: of `pieces((4, 5, 6, 2), 3)` the first learns 5 and 6 after 4."""
    cut = []
    for start in range(0, len(ids) - 1, max_length - 1):
        piece = ids[start + 1 : start + max_length]
        cut.append(Tree((ids[start],), (Branch(piece, (True,) * len(piece)),)))
    return cut


def asked_of(record: Record) -> Asked:
    """What a record asks; a document is a prompt without an answer, as a task is."""
    where = str(record.origin)
    if isinstance(record, Document):
        return Asked(record.text, (), where)
    if isinstance(record, Preference):
        return Asked(record.prompt, (record.chosen, record.rejected), where)
    if isinstance(record, Task):
        return Asked(record.prompt, (), where)
    return Asked(record.prompt, (record.completion,), where)


def trees(tokenizer: Tokenizer, asked: Sequence[Asked]) -> Iterator[Tree]:
    """A tree for each, in order: the prompt as trunk, a branch for each answer.

    What was asked before gets the tree it got before.
    """
    encoder, known, size = Encoder(tokenizer), dict[str, Tree](), 0
    for start in range(0, len(asked), AT_ONCE):
        if size > REMEMBERED:
            encoder, known, size = Encoder(tokenizer), {}, 0
        batch = asked[start : start + AT_ONCE]
        keys = [repr((one.prompt, one.answers)) for one in batch]
        new: dict[str, Asked] = {}
        for key, one in zip(keys, batch, strict=True):
            if key not in known:
                new.setdefault(key, one)
        known |= zip(new, _new_trees(encoder, list(new.values())), strict=True)
        size += sum(map(len, new))
        yield from (known[key] for key in keys)


def _new_trees(encoder: Encoder, asked: Sequence[Asked]) -> Iterator[Tree]:
    scripts = _scripts_in_time(encoder, asked)
    encoder.encode((script.trunk for script in scripts if script.plain), special=True)
    encoder.encode((text for script in scripts for text in script.stretches()), special=False)
    for script in scripts:
        yield _spoken(encoder, script)


def _tree(tokenizer: Tokenizer, asked: Asked) -> Tree:
    return next(trees(tokenizer, [asked]))


def as_messages(text: Text, *, role: str) -> list[Message]:
    """Plain text as one message of the given role; messages unchanged."""
    return [{"role": role, "content": text}] if isinstance(text, str) else text


def _scripts_in_time(encoder: Encoder, asked: Sequence[Asked]) -> list[_Script]:
    """Scripts up to the first that has a fault.

    A chat template comes with a model and is a program, with loops in loops if it likes. It runs
    beside us, and a record that it does not finish in `TEMPLATE_SECONDS` raises `TextError`; the
    thread is then left behind.
    """
    scripts: list[_Script] = []
    if all(_is_plain(one) for one in asked):
        _scripts(encoder, asked, scripts)
        return scripts
    beside = Thread(target=_scripts, args=(encoder, asked, scripts), daemon=True)
    beside.start()
    while beside.is_alive():
        before = len(scripts)
        beside.join(TEMPLATE_SECONDS)
        if beside.is_alive() and len(scripts) == before:
            raise TextError(
                f"the chat template did not end within {TEMPLATE_SECONDS:g} s",
                where=asked[before].where,
                fix="use a template without loops in loops, or shorten the record",
            )
    return scripts


def _scripts(encoder: Encoder, asked: Sequence[Asked], scripts: list[_Script]) -> None:
    for one in asked:
        scripts.append(_script(encoder, one))
        if scripts[-1].fault is not None:
            return


def _is_plain(asked: Asked) -> bool:
    return all(isinstance(text, str) for text in (asked.prompt, *asked.answers))


def _script(encoder: Encoder, asked: Asked) -> _Script:
    texts = [answer for answer in asked.answers if isinstance(answer, str)]
    if isinstance(asked.prompt, str) and _is_plain(asked):
        return _Script(True, asked.prompt, [[_Turn(text, True)] for text in texts], asked.where)
    prompt = as_messages(asked.prompt, role="user")
    opened = ""
    branches: list[list[_Turn]] = []
    fault: Exception | None = None
    try:
        opened = encoder.prompt(prompt, asked.where)
        for answer in asked.answers:
            branches.append([])
            turns = as_messages(answer, role="assistant")
            for turn in _turns(encoder, prompt, opened, turns, asked.where):
                branches[-1].append(turn)
    except Exception as error:  # noqa: BLE001 - raised after what is wrong before it
        fault = error
    return _Script(False, opened, branches, asked.where, fault)


def _turns(
    encoder: Encoder, prompt: list[Message], opened: str, turns: list[Message], where: str
) -> Iterator[_Turn]:
    """Every turn after the prompt (rendered: `opened`) as the text it adds."""
    done = opened
    for count, turn in enumerate(turns):
        spoken = turn["role"] == "assistant"
        before = prompt + turns[:count]
        if spoken and count > 0:
            opened = encoder.template(before, generation=True, where=where)
            yield _Turn(_continuation(opened, done, where), False)
            done = opened
        text = encoder.template([*before, turn], generation=False, where=where)
        yield _Turn(_continuation(text, done, where), spoken)
        done = text


def _continuation(text: str, prefix: str, where: str) -> str:
    if not text.startswith(prefix):
        raise TextError(
            "the chat template is not prefix-stable: adding a turn changes what was rendered before"
            " it, so training would see other text than sampling",
            where=where,
            fix="train on single-turn records, or use a template that leaves earlier turns alone",
        )
    return text[len(prefix) :]


def _spoken(encoder: Encoder, script: _Script) -> Tree:
    """A script as ids. Raises what is wrong with it, the first thing first."""
    if script.plain:
        where = script.where
        trunk = encoder.ids(script.trunk, special=True, where=where)
        return Tree(trunk, tuple(_text_branch(encoder, turn, where) for (turn,) in script.branches))
    branches = tuple(_chat_branch(encoder, turns, script.where) for turns in script.branches)
    if script.fault is not None:
        raise script.fault
    return Tree(encoder.ids(script.trunk, special=False, where=script.where), branches)


def _text_branch(encoder: Encoder, turn: _Turn, where: str) -> Branch:
    ids = (*encoder.ids(turn.text, special=False, where=where), encoder.eos)
    return Branch(ids, (True,) * len(ids))


def _chat_branch(encoder: Encoder, turns: Sequence[_Turn], where: str) -> Branch:
    """Assistant turns supervised up to and including their EOS; what follows the last is cut."""
    ids: list[int] = []
    supervised: list[bool] = []
    end = 0
    for turn in turns:
        said = encoder.ids(turn.text, special=False, where=where)
        learnt = _through_eos(encoder, said, where) if turn.spoken else 0
        end = len(ids) + learnt if learnt else end
        ids += said
        supervised += [True] * learnt + [False] * (len(said) - learnt)
    return Branch(tuple(ids[:end]), tuple(supervised[:end]))


def _through_eos(encoder: Encoder, ids: Sequence[int], where: str) -> int:
    """How many ids of an assistant turn are learnt: up to and including the first EOS."""
    if encoder.eos not in ids:
        raise TextError(
            "the chat template ends an assistant turn without the end-of-sequence token "
            f"{encoder.tokenizer.eos_token!r}, so the model would never learn to stop",
            where=where,
            fix="set the tokenizer's eos_token to the token its template ends a turn with",
        )
    return ids.index(encoder.eos) + 1
