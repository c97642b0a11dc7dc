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
    feedback_tree,
    preference_tree,
    prompt_ids,
    prompts_ids,
)
from strop.text.trees import render
from strop.types import (
    Demonstration,
    Document,
    Feedback,
    Message,
    Origin,
    Preference,
    Record,
    Task,
    Text,
    Tree,
)

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
        document = Document("Solve 2x + 11 = 21 and 3x = 12 and 4x = 16", {}, HERE)
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


def call(value: Any) -> Message:
    """An assistant turn that is a tool call and no words."""
    called = {"type": "function", "function": {"name": "f", "arguments": {"x": value}}}
    return {"role": "assistant", "content": None, "tool_calls": [called]}


AWKWARD: list[tuple[Text, Text]] = [
    ([USER], [said("x = 3")]),
    ("Solve 2x = 6", "x = 3"),
    ("x = 3", "Solve 2x = 6"),
    ([USER], "x = 3"),
    ("Solve 2x = 6", [said("x = 3")]),
    ("<|user|>Solve 2x = 6<|assistant|>", "x = 3<|end|>"),
    ([USER], [said("x = 3")]),
    ("\n", " "),
    ([{"role": "user", "content": "\u200b"}], [said("\x00")]),
    ("é😀 中文 e\u0301", "\uff21\U0001d54f '\"\\ {{ x }}"),
    ([USER], [said("<|end|>"), USER, said("<|user|>"), USER]),
    ([USER], [call(1), {"role": "tool", "content": "6"}, said("x = 3"), said("Yes")]),
    ([USER], [call(True)]),
    ([USER], [call("1")]),
    ([USER, said("x"), USER], [said("3")]),
    ([{"role": "system", "content": "Be terse"}, USER, said("x"), USER], [said("3")]),
]
"""Prompts and answers that are easily confused with each other, or hard to tokenise."""


def awkward_records() -> list[Record]:
    records: list[Record] = []
    for line, (prompt, answer) in enumerate(AWKWARD):
        here = Origin("data.jsonl", line)
        records += [
            Demonstration(prompt, answer, {}, here),
            Preference(prompt, answer, "x = 4", {}, here),
            Feedback(prompt, answer, True, {}, here),
            Document(f"{prompt} {answer}", {}, here),
        ]
    return records


def one_by_one(tokenizer: Any, record: Record, max_length: int) -> list[Tree]:
    if isinstance(record, Document):
        return document_trees(tokenizer, record, max_length=max_length)
    if isinstance(record, Preference):
        return [preference_tree(tokenizer, record)]
    if isinstance(record, Feedback):
        return [feedback_tree(tokenizer, record)]
    assert isinstance(record, Demonstration)
    return [demonstration_tree(tokenizer, record)]


TOOLS = "{{ message.tool_calls | tojson if message.tool_calls }}{{ message['content'] or '' }}"


class TestManyAtOnce:
    @pytest.fixture(params=[(1, 0, 1), (3, 200, 40), (1024, 1 << 23, 1 << 20)])
    def batches(self, request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Batches of one record and text, of a few, and of all that a test has."""
        records, remembered, characters = request.param
        monkeypatch.setattr("strop.text.render.AT_ONCE", records)
        monkeypatch.setattr("strop.text.render.REMEMBERED", remembered)
        monkeypatch.setattr("strop.text.encode.AT_ONCE", characters)

    @pytest.fixture(params=["tokenizer", "with_bos"])
    def speaker(self, request: Any) -> Any:
        """A tokenizer whose template writes tool calls; with and without a BOS."""
        changed = copy.deepcopy(request.getfixturevalue(request.param))
        changed.chat_template = changed.chat_template.replace("{{ message['content'] }}", TOOLS)
        return changed

    @pytest.mark.usefixtures("batches")
    def test_as_if_one_by_one(self, speaker: Any) -> None:
        records = awkward_records()
        rendered = render(speaker, records, max_length=400, cut_overlong=False)
        alone = [(one_by_one(speaker, record, 400), record) for record in records]
        assert list(rendered.trees) == [tree for trees, _ in alone for tree in trees]
        assert list(rendered.records) == [record for trees, record in alone for _ in trees]

    @pytest.mark.usefixtures("batches")
    def test_prompts_as_if_one_by_one(self, speaker: Any) -> None:
        tasks = [Task(prompt, {}, HERE) for prompt, _ in AWKWARD]
        assert prompts_ids(speaker, tasks) == [prompt_ids(speaker, t.prompt) for t in tasks]

    @pytest.mark.usefixtures("batches")
    @pytest.mark.parametrize("cut", [False, True])
    def test_trees_stay_with_their_records(self, tokenizer: Any, cut: bool) -> None:
        """What is dropped or cut in the middle shifts nothing after it."""
        texts = ["1", "12345678", "2", "1", "12345678", "3"]
        records = [
            Demonstration("Solve", f"x = {text}", {}, Origin("data.jsonl", line))
            for line, text in enumerate(texts)
        ]
        rendered = render(tokenizer, records, max_length=7, cut_overlong=cut)
        for tree, record in zip(rendered.trees, rendered.records, strict=True):
            assert isinstance(record, Demonstration)
            whole = demonstration_tree(tokenizer, record)
            assert tree.trunk == whole.trunk
            assert tree.branches[0].ids == whole.branches[0].ids[: 7 - len(tree.trunk)]
        kept = [0, 1, 2, 3, 4, 5] if cut else [0, 2, 3, 5]
        assert [record.origin.line for record in rendered.records] == kept
        assert (rendered.dropped, rendered.cut) == ((0, 2) if cut else (2, 0))

    def test_what_repeats_is_rendered_once(self, tokenizer: Any) -> None:
        records = [demo([USER], [said(text)]) for text in ("x = 3", "x = 4", "x = 3")]
        first, other, again = render(tokenizer, records, max_length=99, cut_overlong=False).trees
        assert first is again
        assert first != other


class TestManyRefused:
    """The first record that cannot be rendered is the one that is named."""

    @pytest.fixture
    def strict(self, tokenizer: Any) -> Any:
        """A template that forgets EOS after "open", raises at "bad", is unstable after "long"."""
        changed = copy.deepcopy(tokenizer)
        end = "{% if message['content'] != 'open' %}<|end|>{% endif %}"
        changed.chat_template = (
            "{% if messages[-1]['content'] == 'long' %}!{% endif %}"
            "{% if messages[-1]['content'] == 'bad' %}{{ raise_exception('bad turn') }}{% endif %}"
            + tokenizer.chat_template.replace("<|end|>", end)
        )
        return changed

    @pytest.mark.parametrize("at_once", [1, 2, 1024])
    @pytest.mark.parametrize(
        ("answers", "message"),
        [
            (["fine", "fine", "open", "fine"], r"data.jsonl:3: .*never learn to stop"),
            (["fine", "long", "fine", "open"], r"data.jsonl:2: .*not prefix-stable"),
            (["fine", "open", "long", "bad"], r"data.jsonl:2: .*never learn to stop"),
            (["fine", "open", "open", "bad"], r"data.jsonl:2: .*never learn to stop"),
            (["fine", "bad", "open", "long"], r"data.jsonl:2: .*: bad turn\n"),
        ],
    )
    def test_by_its_own_line(
        self,
        strict: Any,
        monkeypatch: pytest.MonkeyPatch,
        answers: list[str],
        message: str,
        at_once: int,
    ) -> None:
        monkeypatch.setattr("strop.text.render.AT_ONCE", at_once)
        records = [
            Demonstration([USER], [said(answer)], {}, Origin("data.jsonl", line))
            for line, answer in enumerate(answers, start=1)
        ]
        with pytest.raises(Exception, match=message):
            render(strict, records, max_length=99, cut_overlong=False)

    def test_by_the_first_of_its_faults(self, strict: Any) -> None:
        """A chosen answer without EOS is refused before the rejected one is looked at."""
        pair = Preference([USER], [said("open")], [said("bad")], {}, HERE)
        with pytest.raises(TextError, match=r"data.jsonl:3: .*never learn to stop"):
            render(strict, [pair], max_length=99, cut_overlong=False)

    def test_a_prompt_without_template(self, tokenizer: Any) -> None:
        changed = copy.deepcopy(tokenizer)
        changed.chat_template = None
        tasks = [Task("Solve", {}, Origin("tasks.jsonl", 1)), Task([USER], {}, HERE)]
        with pytest.raises(TextError, match=r"data.jsonl:3: .*no chat template"):
            prompts_ids(changed, tasks)


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
