"""Answers that keep to a grammar: everything that needs xgrammar (arXiv 2411.15100).

xgrammar is an extra, imported when the first grammar is used.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from strop.engines.grammar import Grammar, expect_enforced
from strop.errors import UsageError

COMPILED_BYTES = 2**28
"""Of grammars that are kept for later requests: 256 MiB."""

SPACES = 32
"""White space between two parts of JSON at most: a weak model might write nothing else."""

SPACES_OF_CALLS = 2
"""The same in a call of a tool, which templates write on one line."""

NEVER = frozenset(range(32)) - frozenset(b"\r\n")
"""Bytes that JSON can do without, and that xgrammar 0.2.9 lets into strings of bounded length,
where they are forbidden."""

ANY_OBJECT = '{"type": "object"}'


class Matcher:
    """How far an answer has come in its grammar; tokens `never_F` are not allowed anywhere."""

    def __init__(self, held: Any, never_F: torch.Tensor) -> None:
        self.held, self.never_F = held, never_F

    def reads(self, token: int) -> bool:
        """Take the answer's next token; whether the answer is complete with it."""
        if not self.held.accept_token(token):
            raise RuntimeError(f"token {token} was drawn where the grammar forbids it")
        return bool(self.held.is_terminated())


def forbid(matchers: Sequence[Matcher], logits_NV: torch.Tensor) -> None:
    """Set the logits of tokens that do not go on with row n's grammar to -inf, in place. An end is
    allowed only where the grammar is complete."""
    xgrammar = _xgrammar()
    mask_NW = xgrammar.allocate_token_bitmask(*logits_NV.shape)
    for row, matcher in enumerate(matchers):
        matcher.held.fill_next_token_bitmask(mask_NW, row)
    xgrammar.apply_token_bitmask_inplace(logits_NV, mask_NW.to(logits_NV.device))
    logits_NV.index_fill_(1, matchers[0].never_F.to(logits_NV.device), float("-inf"))


class Grammars:
    """The grammars of one tokenizer; each is compiled once. Several threads may ask."""

    def __init__(self, tokenizer: Any, vocabulary: int, ends: Collection[int]) -> None:
        self.tokenizer, self.vocabulary, self.ends = tokenizer, vocabulary, sorted(ends)
        self._lock = threading.Lock()

    def matcher(self, grammar: Grammar) -> Matcher:
        """The beginning of a text of this grammar.

        Raises `UsageError` where xgrammar is missing or cannot read the tokenizer, and for a schema
        that is none or that it cannot enforce.
        """
        if grammar.kind == "json_schema":
            expect_enforced(grammar.schema)
        with self._lock:
            compiler = self._compiler
            try:
                compiled = _compiled(compiler, grammar)
            except RuntimeError as error:
                said = str(error).strip().splitlines()[0].partition(": ")[2]
                raise UsageError(f"no answer can be of this schema: {said}",
                                 where="json_schema") from None  # fmt: skip
            held = _xgrammar().GrammarMatcher(compiled, terminate_without_stop_token=not self.ends)
            return Matcher(held, self._never_F)

    @cached_property
    def _compiler(self) -> Any:
        return _xgrammar().GrammarCompiler(self._about, cache_limit_bytes=COMPILED_BYTES)

    @cached_property
    def _never_F(self) -> torch.Tensor:
        texts = enumerate(self._about.decoded_vocab)
        return torch.tensor([token for token, text in texts if NEVER & {*text}], dtype=torch.long)

    @cached_property
    def _about(self) -> Any:
        xgrammar = _xgrammar()
        try:
            return xgrammar.TokenizerInfo.from_huggingface(
                self.tokenizer, vocab_size=self.vocabulary, stop_token_ids=self.ends or None
            )
        except (ValueError, RuntimeError) as error:
            raise UsageError(
                f"xgrammar cannot read this tokenizer: {str(error).splitlines()[0]}",
                fix="ask without response_format",
            ) from None


def _compiled(compiler: Any, grammar: Grammar) -> Any:
    if grammar.kind == "call":
        forms = json.loads(grammar.schema)
        return compiler.compile_grammar(_xgrammar().Grammar.union(*map(_form, forms)))
    any_object = grammar.kind == "json_object"
    return compiler.compile_json_schema(
        ANY_OBJECT if any_object else grammar.schema,
        strict_mode=not any_object, max_whitespace_cnt=SPACES,
    )  # fmt: skip


def _form(form: Mapping[str, Any]) -> Any:
    """JSON of a schema between two texts."""
    own = _xgrammar().Grammar
    schema = own.from_json_schema(json.dumps(form["schema"]), max_whitespace_cnt=SPACES_OF_CALLS)
    texts = [own.from_ebnf(f"root ::= {json.dumps(form[name])}") for name in ("before", "after")]
    return own.concat(texts[0], schema, texts[1])


def _xgrammar() -> Any:
    try:
        import xgrammar  # an extra
    except ImportError:
        raise UsageError(
            "answers that keep to a grammar need xgrammar", fix="pip install 'strop[grammar]'"
        ) from None
    return xgrammar
