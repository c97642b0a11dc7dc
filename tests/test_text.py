"""Rendering: assistant tokens only, EOS learnt, no double BOS, templates prefix-stable."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tokenizers import processors

from strop.errors import DataError, TextError
from strop.text.parse import last_boxed, last_tag
from strop.text.render import (
    demonstration_tree,
    document_trees,
    preference_tree,
    prompt_ids,
)
from strop.text.trees import render
from strop.types import Demonstration, Document, Message, Origin, Preference, Text

HERE = Origin("data.jsonl", 3)
USER = {"role": "user", "content": "Solve 2x = 6"}


def said(text: str) -> Message:
    return {"role": "assistant", "content": text}


def demo(prompt: Text, completion: Text) -> Demonstration:
    return Demonstration(prompt, completion, {}, HERE)


def learnt(tokenizer: Any, record: Demonstration) -> list[str]:
    """Runs of supervised text, in order."""
    branch = demonstration_tree(tokenizer, record).branches[0]
    runs: list[list[int]] = []
    before = False
    for token, on in zip(branch.ids, branch.supervised, strict=True):
        if on:
            runs = runs if before else [*runs, []]
            runs[-1].append(token)
        before = on
    return [tokenizer.decode(run) for run in runs]


@pytest.fixture
def with_bos(tokenizer: Any) -> Any:
    """The same tokenizer, putting a BOS before and an EOS after plain text."""
    changed = copy.deepcopy(tokenizer)
    changed.bos_token = "<|user|>"
    eos, bos = changed.eos_token, changed.bos_token
    changed.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}",
        special_tokens=[(bos, changed.bos_token_id), (eos, changed.eos_token_id)],
    )
    return changed


class TestChat:
    def test_assistant_and_eos_are_learnt_and_nothing_else(self, tokenizer: Any) -> None:
        record = demo([USER], [said("x = 3")])
        assert learnt(tokenizer, record) == ["x = 3<|end|>"]
        trunk = demonstration_tree(tokenizer, record).trunk
        assert tokenizer.decode(trunk) == "<|user|>Solve 2x = 6<|assistant|>"

    def test_training_prompt_is_the_sampling_prompt(self, tokenizer: Any) -> None:
        tree = demonstration_tree(tokenizer, demo([USER], [said("x = 3")]))
        assert tree.trunk == prompt_ids(tokenizer, [USER])

    def test_later_user_turns_are_read_not_learnt(self, tokenizer: Any) -> None:
        turns = [said("x = 3"), {"role": "user", "content": "Sure?"}, said("Yes")]
        assert learnt(tokenizer, demo([USER], turns)) == ["x = 3<|end|>", "Yes<|end|>"]
        tree = demonstration_tree(tokenizer, demo([USER], turns))
        whole = tokenizer.apply_chat_template([USER, *turns], tokenize=False)
        assert tokenizer.decode(tree.trunk + tree.branches[0].ids) == whole

    def test_what_follows_eos_is_not_learnt(self, tokenizer: Any) -> None:
        changed = copy.deepcopy(tokenizer)
        changed.chat_template = tokenizer.chat_template.replace("<|end|>", "<|end|>\\n")
        changed.chat_template = changed.chat_template.replace("<|end|>\\n", "<|end|>{{ '\\n' }}")
        assert learnt(changed, demo([USER], [said("x = 3")])) == ["x = 3<|end|>"]

    def test_template_without_eos_is_refused(self, tokenizer: Any) -> None:
        changed = copy.deepcopy(tokenizer)
        changed.chat_template = tokenizer.chat_template.replace("<|end|>", "")
        with pytest.raises(TextError, match=r"data.jsonl:3: .*never learn to stop"):
            demonstration_tree(changed, demo([USER], [said("x = 3")]))

    def test_unstable_template_is_refused(self, tokenizer: Any) -> None:
        changed = copy.deepcopy(tokenizer)
        changed.chat_template = "{{ messages | length }}" + tokenizer.chat_template
        with pytest.raises(TextError, match=r"data.jsonl:3: .*not prefix-stable"):
            demonstration_tree(changed, demo([USER], [said("x = 3")]))

    def test_no_template_is_refused(self, tokenizer: Any) -> None:
        changed = copy.deepcopy(tokenizer)
        changed.chat_template = None
        with pytest.raises(TextError, match="no chat template"):
            demonstration_tree(changed, demo([USER], [said("x = 3")]))

    def test_mixed_forms_become_messages(self, tokenizer: Any) -> None:
        expected = demonstration_tree(tokenizer, demo([USER], [said("x = 3")]))
        assert demonstration_tree(tokenizer, demo([USER], "x = 3")) == expected
        assert demonstration_tree(tokenizer, demo("Solve 2x = 6", [said("x = 3")])) == expected


class TestPlainText:
    def test_eos_is_appended_and_learnt(self, tokenizer: Any) -> None:
        assert learnt(tokenizer, demo("Solve 2x = 6", "x = 3")) == ["x = 3<|end|>"]

    def test_bos_once_and_no_eos_between(self, with_bos: Any) -> None:
        trunk = demonstration_tree(with_bos, demo("Solve", "x")).trunk
        assert trunk[0] == with_bos.bos_token_id
        assert with_bos.eos_token_id not in trunk
        written = demonstration_tree(with_bos, demo(f"{with_bos.bos_token}Solve", "x")).trunk
        assert written == trunk

    def test_a_pair_shares_its_trunk(self, tokenizer: Any) -> None:
        tree = preference_tree(tokenizer, Preference("Solve", "x = 3", "x = 4", {}, HERE))
        texts = [tokenizer.decode(branch.ids) for branch in tree.branches]
        assert texts == ["x = 3<|end|>", "x = 4<|end|>"]


class TestDocuments:
    def test_every_token_is_learnt_once(self, tokenizer: Any) -> None:
        document = Document("Solve 2x + 11 = 21 and 3x = 12 and 4x = 16", HERE)
        whole = [*tokenizer(document.text)["input_ids"], tokenizer.eos_token_id]
        for length in (2, 3, 7, 100):
            trees = document_trees(tokenizer, document, max_length=length)
            assert all(len(tree) <= length for tree in trees)
            again = [token for tree in trees for token in tree.branches[0].ids]
            assert [trees[0].trunk[0], *again] == whole


class TestLimits:
    RECORDS = (demo("Solve", "x = 3"), demo("Solve", "x = 12345678"))

    def test_overlong_is_dropped_and_counted(self, tokenizer: Any) -> None:
        rendered = render(tokenizer, self.RECORDS, max_length=7, cut_overlong=False)
        assert (len(rendered.trees), rendered.dropped, rendered.cut) == (1, 1, 0)

    def test_or_cut_and_counted(self, tokenizer: Any) -> None:
        rendered = render(tokenizer, self.RECORDS, max_length=7, cut_overlong=True)
        assert (len(rendered.trees), rendered.dropped, rendered.cut) == (2, 0, 1)
        assert max(map(len, rendered.trees)) == 7

    def test_nothing_left_is_an_error(self, tokenizer: Any) -> None:
        with pytest.raises(DataError, match="all 2 records are longer than 3 tokens"):
            render(tokenizer, self.RECORDS, max_length=3, cut_overlong=False)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<a>1</a> and <a> 2 </a>", "2"),
        ("<a>1</a> and <a>2", "1"),
        ("<a>1 <a>2</a>", "2"),
        ("no tag", None),
    ],
)
def test_last_tag(text: str, answer: str | None) -> None:
    assert last_tag(text, "a") == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{1} then \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{ 7 }.", "7"),
        (r"\boxed{7", None),
        ("7", None),
    ],
)
def test_last_boxed(text: str, answer: str | None) -> None:
    assert last_boxed(text) == answer
