"""Chat templates as people have them: tools, thoughts, ends of turn, dates, forms of content."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest

from strop.errors import TextError, UsageError
from strop.recipe.template import TemplateRecipe
from strop.text.chat.clock import dated, written_on
from strop.text.chat.named import with_template
from strop.text.ends import ends_of, set_end_of_turn, set_stops
from strop.text.render import demonstration_tree, opening, preference_tree, prompt_ids, prompts_ids
from strop.text.script import asked_of
from strop.text.trees import render
from strop.types import (
    Branch,
    Demonstration,
    Feedback,
    Message,
    Origin,
    Preference,
    Task,
    Text,
    Tree,
)
from tests.support.templates import (
    CLOSED_AT_THE_END,
    DATED,
    NO_END,
    NULL_CONTENT,
    OPENS_THOUGHT,
    PARTS,
    PLAIN,
    THINKING,
    TOOLS,
    speaking,
)

HERE = Origin("data.jsonl", 3)
USER: Message = {"role": "user", "content": "Solve 2x = 6"}
SURE: Message = {"role": "user", "content": "Sure?"}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def said(text: str | None, **fields: Any) -> Message:
    return {"role": "assistant", "content": text, **fields}


def call(arguments: Any, name: str = "weather") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": "call_1", "type": "function", "function": function}


def demo(prompt: Text, completion: Text, **columns: Any) -> Demonstration:
    return Demonstration(prompt, completion, columns, HERE)


def chatml(tokenizer: Any, template: str) -> Any:
    """A tokenizer that knows that `<|im_end|>` ends a turn, from the model's generation config."""
    changed = speaking(tokenizer, template)
    set_stops(changed, [changed.convert_tokens_to_ids("<|im_end|>")])
    return changed


def read(tokenizer: Any, tree: Tree) -> str:
    return str(tokenizer.decode(tree.trunk))


def learnt(tokenizer: Any, branch: Branch) -> str:
    ids = [i for i, learn in zip(branch.ids, branch.supervised, strict=True) if learn]
    return str(tokenizer.decode(ids))


class TestTools:
    def test_reach_every_prompt(self, tokenizer: Any) -> None:
        """SFT, pairs, thumbs and tasks: the same tools stand in the same place."""
        speaker = chatml(tokenizer, TOOLS)
        columns = {"tools": [WEATHER]}
        head = f"<|im_start|>tools\n{json.dumps(WEATHER)}<|im_end|>\n<|im_start|>user\n"
        answers = (said("x = 3"), said("x = 4"))
        for record in (
            Demonstration([USER], [answers[0]], columns, HERE),
            Preference([USER], [answers[0]], [answers[1]], columns, HERE),
            Feedback([USER], [answers[0]], True, columns, HERE),
        ):
            (tree,) = render(speaker, [record], max_length=999, cut_overlong=False).trees
            assert read(speaker, tree).startswith(head)
        (ids,) = prompts_ids(speaker, [Task([USER], columns, HERE)])
        assert speaker.decode(ids).startswith(head)

    def test_two_prompts_with_other_tools_are_two_prompts(self, tokenizer: Any) -> None:
        speaker = chatml(tokenizer, TOOLS)
        other = {"type": "function", "function": {"name": "clock", "parameters": {}}}
        tasks = [Task([USER], {"tools": [tool]}, HERE) for tool in (WEATHER, other)]
        one, two = (speaker.decode(ids) for ids in prompts_ids(speaker, tasks))
        assert "weather" in one
        assert "clock" in two
        assert "weather" not in two

    def test_arguments_as_json_text_are_not_encoded_twice(self, tokenizer: Any) -> None:
        speaker = chatml(tokenizer, TOOLS)
        expected = (
            '<tool_call>{"name": "weather", "arguments": {"city": "Bern"}}</tool_call><|im_end|>'
        )
        for arguments in ({"city": "Bern"}, '{"city": "Bern"}'):
            record = demo([USER], [said(None, tool_calls=[call(arguments)])], tools=[WEATHER])
            (branch,) = demonstration_tree(speaker, record).branches
            assert learnt(speaker, branch) == expected

    def test_arguments_as_text_where_the_template_adds_text(self, tokenizer: Any) -> None:
        """And null content stays a key: that is how this template knows a turn of calls."""
        speaker = chatml(tokenizer, NULL_CONTENT)
        for arguments in ({"city": "Bern"}, '{"city": "Bern"}'):
            record = demo([USER], [said(None, tool_calls=[call(arguments)])])
            (branch,) = demonstration_tree(speaker, record).branches
            assert learnt(speaker, branch) == 'weather|{"city": "Bern"}<|im_end|>'

    def test_arguments_that_are_no_object(self, tokenizer: Any) -> None:
        record = demo([USER], [said(None, tool_calls=[call("Bern")])], tools=[WEATHER])
        with pytest.raises(
            TextError, match=r"data.jsonl:3: the arguments of the call of 'weather'"
        ):
            demonstration_tree(chatml(tokenizer, TOOLS), record)

    def test_a_result_is_read_and_not_learnt(self, tokenizer: Any) -> None:
        speaker = chatml(tokenizer, TOOLS)
        turns = [
            said(None, tool_calls=[call({})]),
            {"role": "tool", "tool_call_id": "call_1", "name": "weather", "content": "sunny"},
            said("It is sunny"),
        ]
        (branch,) = demonstration_tree(speaker, demo([USER], turns, tools=[WEATHER])).branches
        assert "sunny<|im_end|>\n<|im_start|>assistant" in speaker.decode(branch.ids)
        assert learnt(speaker, branch) == (
            '<tool_call>{"name": "weather", "arguments": {}}</tool_call><|im_end|>'
            "It is sunny<|im_end|>"
        )


class TestUnread:
    """What a template leaves out is refused by name; what it writes passes."""

    @pytest.mark.parametrize(
        ("template", "prompt", "answer", "tools", "field"),
        [
            (PLAIN, [USER], said("", tool_calls=[call({"x": 1})]), None, "`tool_calls`"),
            (PLAIN, [USER], said("x = 3"), [WEATHER], "column `tools`"),
            (PLAIN, [USER], said("x = 3", reasoning_content="halve"), None, "`reasoning_content`"),
            (PLAIN, [USER | {"name": "Ann"}], said("x = 3"), None, "`name`"),
            (TOOLS.replace("c.function.arguments", "{}"), [USER],
             said("", tool_calls=[call({"x": 1})]), None, "`tool_calls`"),
            (PLAIN.replace("{{ '<", "{{ '' if m.role == 'developer' else '<", 1),
             [{"role": "developer", "content": "Be terse"}, USER], said("x = 3"), None,
             "`content` of a message of role 'developer'"),
        ],
    )  # fmt: skip
    def test_is_refused(
        self,
        tokenizer: Any,
        template: str,
        prompt: list[Message],
        answer: Message,
        tools: Any,
        field: str,
    ) -> None:
        record = demo(prompt, [answer], **({"tools": tools} if tools else {}))
        with pytest.raises(TextError, match=rf"data.jsonl:3: .*leaves out.*{field}"):
            demonstration_tree(chatml(tokenizer, template), record)

    def test_what_is_written_passes(self, tokenizer: Any) -> None:
        thought = demo([USER], [said("x = 3", reasoning_content="halve")])
        (branch,) = demonstration_tree(chatml(tokenizer, THINKING), thought).branches
        assert "halve\n</think>\n\nx = 3" in tokenizer.decode(branch.ids)

    def test_a_thought_that_history_forgets_is_no_fault(self, tokenizer: Any) -> None:
        """An assistant turn of the prompt is looked at as the last one."""
        before = said("x = 3", reasoning_content="halve")
        ids = prompt_ids(chatml(tokenizer, THINKING), [USER, before, SURE])
        assert "halve" not in tokenizer.decode(ids)

    def test_every_shape_is_looked_at(self, tokenizer: Any) -> None:
        """A field that appears in a later record for the first time."""
        records = [demo([USER], [said("1")]), demo([USER], [said("2", reasoning_content="so")])]
        with pytest.raises(TextError, match="`reasoning_content`"):
            render(chatml(tokenizer, PLAIN), records, max_length=99, cut_overlong=False)


class TestRewrittenHistory:
    TURNS = (said("x = 3", reasoning_content="halve"), SURE, said("Yes"), SURE, said("Yes!"))

    def test_every_turn_is_a_branch_after_its_history_as_sampled(self, tokenizer: Any) -> None:
        speaker = chatml(tokenizer, THINKING)
        tree = demonstration_tree(speaker, demo([USER], list(self.TURNS)))
        answers = ["<think>\nhalve\n</think>\n\nx = 3<|im_end|>",
                   "<think>\n\n</think>\n\nYes<|im_end|>",
                   "<think>\n\n</think>\n\nYes!<|im_end|>"]  # fmt: skip
        assert [learnt(speaker, branch) for branch in tree.branches] == answers
        for count, branch in zip((0, 2, 4), tree.branches, strict=True):
            learns = branch.supervised.index(True)
            history = tree.trunk + branch.ids[:learns]
            assert history == prompt_ids(speaker, [USER, *self.TURNS[:count]])
            assert all(branch.supervised[learns:])

    def test_the_trunk_is_what_all_share(self, tokenizer: Any) -> None:
        speaker = chatml(tokenizer, THINKING)
        tree = demonstration_tree(speaker, demo([USER], list(self.TURNS)))
        rows = sum(len(tree.trunk) + len(branch.ids) for branch in tree.branches)
        shared = len(tree.trunk)
        histories = [prompt_ids(speaker, [USER, *self.TURNS[:count]]) for count in (0, 2, 4)]
        assert {ids[:shared] for ids in histories} == {tree.trunk}
        assert len({ids[: shared + 1] for ids in histories}) > 1
        assert len(tree) == rows - 2 * len(tree.trunk)

    def test_a_comparison_is_refused(self, tokenizer: Any) -> None:
        """A pair has two branches, whatever its turns."""
        pair = Preference([USER], list(self.TURNS), [said("no")], {}, HERE)
        with pytest.raises(TextError, match=r"data.jsonl:3: .*not prefix-stable"):
            preference_tree(chatml(tokenizer, THINKING), pair)

    def test_the_last_turn_of_a_pair_is_compared(self, tokenizer: Any) -> None:
        speaker = chatml(tokenizer, THINKING)
        pair = Preference([USER, *self.TURNS[:2]], [said("Yes")], [said("No")], {}, HERE)
        tree = preference_tree(speaker, pair)
        assert tree.trunk == prompt_ids(speaker, [USER, *self.TURNS[:2]])
        texts = [learnt(speaker, branch) for branch in tree.branches]
        thought = "<think>\n\n</think>\n\n"
        assert texts == [f"{thought}Yes<|im_end|>", f"{thought}No<|im_end|>"]

    def test_what_closes_a_conversation_is_no_rewriting(self, tokenizer: Any) -> None:
        """One branch of three turns, as the template writes all of them."""
        speaker = chatml(tokenizer, CLOSED_AT_THE_END)
        turns = [said("x = 3"), SURE, said("Yes"), SURE, said("Yes!")]
        tree = demonstration_tree(speaker, demo([USER], turns))
        (branch,) = tree.branches
        whole = speaker.apply_chat_template([USER, *turns], tokenize=False)
        assert whole.startswith(speaker.decode(tree.trunk + branch.ids))
        assert learnt(speaker, branch) == "x = 3<|im_end|>Yes<|im_end|>Yes!<|im_end|>"


class TestEnds:
    def test_any_stop_of_the_generation_config_ends_a_turn(self, tokenizer: Any) -> None:
        speaker = chatml(tokenizer, PLAIN)
        (branch,) = demonstration_tree(speaker, demo([USER], [said("x = 3")])).branches
        assert branch.ids[-1] == speaker.convert_tokens_to_ids("<|im_end|>")
        assert learnt(speaker, branch) == "x = 3<|im_end|>"

    def test_else_the_message_says_what_ends_a_turn(self, tokenizer: Any) -> None:
        speaker = speaking(tokenizer, PLAIN)
        with pytest.raises(TextError) as caught:
            demonstration_tree(speaker, demo([USER], [said("x = 3")]))
        assert "ends this assistant turn with '<|im_end|>\\n'" in str(caught.value)
        assert "text.end_of_turn" in str(caught.value)

    def test_or_the_recipe_names_it(self, tokenizer: Any) -> None:
        recipe = TemplateRecipe(end_of_turn="<|im_end|>")
        speaker = with_template(speaking(tokenizer, PLAIN), recipe)
        (branch,) = demonstration_tree(speaker, demo([USER], [said("x = 3")])).branches
        assert learnt(speaker, branch) == "x = 3<|im_end|>"
        assert ends_of(speaker) == (speaker.eos_token_id, branch.ids[-1])

    def test_where_a_template_ends_a_turn_with_nothing_it_is_appended(self, tokenizer: Any) -> None:
        """Every turn is then a branch: the history does not hold what we appended."""
        speaker = speaking(tokenizer, NO_END)
        turns = [said("x = 3"), SURE, said("Yes")]
        with pytest.raises(TextError, match="never learn to stop"):
            demonstration_tree(speaker, demo([USER], turns))
        set_end_of_turn(speaker, ["<|im_end|>"])
        tree = demonstration_tree(speaker, demo([USER], turns))
        assert [learnt(speaker, b) for b in tree.branches] == ["x = 3\n<|im_end|>",
                                                               "Yes\n<|im_end|>"]  # fmt: skip
        (last,) = tree.branches[1:]
        history = tree.trunk + last.ids[: last.supervised.index(True)]
        assert history == prompt_ids(speaker, [USER, *turns[:2]])

    def test_a_token_that_is_none(self, tokenizer: Any) -> None:
        with pytest.raises(UsageError, match=r"'<\|no\|>'.*no single token"):
            with_template(speaking(tokenizer, PLAIN), TemplateRecipe(end_of_turn="<|no|>"))


class TestWeights:
    TURNS = (said("x = 4", weight=0), SURE, said("x = 3", weight=1))

    @pytest.mark.parametrize("off", [{"weight": 0}, {"train": False}, {"weight": 0.0}])
    def test_a_turn_that_is_not_learnt(self, tokenizer: Any, off: dict[str, Any]) -> None:
        speaker = chatml(tokenizer, PLAIN)
        turns = [said("x = 4", **off), SURE, said("x = 3", weight=1)]
        tree = demonstration_tree(speaker, demo([USER], turns))
        (branch,) = tree.branches
        assert learnt(speaker, branch) == "x = 3<|im_end|>"
        assert speaker.decode(branch.ids).startswith("x = 4<|im_end|>")
        assert tree.trunk == prompt_ids(speaker, [USER])

    def test_in_a_branch_a_turn(self, tokenizer: Any) -> None:
        speaker = chatml(tokenizer, THINKING)
        turns = [said("1", weight=0), SURE, said("2"), SURE, said("3")]
        tree = demonstration_tree(speaker, demo([USER], turns))
        texts = [learnt(speaker, branch)[-11:] for branch in tree.branches]
        assert texts == ["2<|im_end|>", "3<|im_end|>"]

    def test_only_the_last_turn_where_history_is_rewritten(self, tokenizer: Any) -> None:
        """The commonest use of `weight`; a pair has one branch each then."""
        speaker = chatml(tokenizer, THINKING)
        turns = [said("x = 4", weight=0), SURE, said("x = 3")]
        tree = demonstration_tree(speaker, demo([USER], turns))
        (branch,) = tree.branches
        assert learnt(speaker, branch).endswith("x = 3<|im_end|>")
        history = tree.trunk + branch.ids[: branch.supervised.index(True)]
        assert history == prompt_ids(speaker, [USER, *turns[:2]])
        other = [*turns[:2], said("x = 2")]
        assert (
            len(preference_tree(speaker, Preference([USER], turns, other, {}, HERE)).branches) == 2
        )

    def test_of_a_prefill_is_not_the_answers(self, tokenizer: Any) -> None:
        prompt = [USER, said("x =", weight=0)]
        tree = demonstration_tree(chatml(tokenizer, PLAIN), demo(prompt, " 3"))
        assert learnt(tokenizer=chatml(tokenizer, PLAIN), branch=tree.branches[0]) == " 3<|im_end|>"

    def test_nothing_learnt_is_refused(self, tokenizer: Any) -> None:
        with pytest.raises(TextError, match=r"data.jsonl:3: no assistant turn .* is learnt"):
            demonstration_tree(chatml(tokenizer, PLAIN), demo([USER], [said("4", weight=0)]))

    @pytest.mark.parametrize("odd", [{"weight": 0.5}, {"train": "no"}, {"weight": 2}])
    def test_a_share_is_refused(self, tokenizer: Any, odd: dict[str, Any]) -> None:
        with pytest.raises(TextError, match=r"data.jsonl:3: `(weight|train)` of an assistant turn"):
            demonstration_tree(chatml(tokenizer, PLAIN), demo([USER], [said("4", **odd)]))


class TestOpenedByThePrompt:
    def test_a_prefill_is_gone_on_with(self, tokenizer: Any) -> None:
        speaker = chatml(tokenizer, PLAIN)
        prompt = [USER, said("x =")]
        ids = prompt_ids(speaker, prompt)
        assert speaker.decode(ids).endswith("<|im_start|>assistant\nx =")
        for answer in ([said(" 3")], " 3"):
            tree = demonstration_tree(speaker, demo(prompt, answer))
            assert tree.trunk == ids
            assert learnt(speaker, tree.branches[0]) == " 3<|im_end|>"
        assert opening(speaker, prompt, ids) == "x ="

    def test_then_the_conversation_goes_on(self, tokenizer: Any) -> None:
        speaker = chatml(tokenizer, PLAIN)
        turns = [said(" 3"), SURE, said("Yes")]
        tree = demonstration_tree(speaker, demo([USER, said("x =")], turns))
        whole = [USER, said("x = 3"), SURE, said("Yes")]
        expected = speaker.apply_chat_template(whole, tokenize=False)
        assert expected.startswith(speaker.decode(tree.trunk + tree.branches[0].ids))
        assert learnt(speaker, tree.branches[0]) == " 3<|im_end|>Yes<|im_end|>"

    def test_a_thought(self, tokenizer: Any) -> None:
        speaker = chatml(tokenizer, OPENS_THOUGHT)
        assert opening(speaker, [USER], prompt_ids(speaker, [USER])) == "<think>\n"
        plain = chatml(tokenizer, PLAIN)
        assert opening(plain, [USER], prompt_ids(plain, [USER])) == ""
        closed = with_template(
            chatml(tokenizer, THINKING), TemplateRecipe(template_options={"enable_thinking": False})
        )
        assert opening(closed, [USER], prompt_ids(closed, [USER])) == ""

    @pytest.mark.parametrize(
        ("answer", "text"),
        [
            (said("x = 3"), "\n</think>\n\nx = 3"),
            (said("x = 3", reasoning_content="halve"), "halve\n</think>\n\nx = 3"),
            (said("<think>\nhalve\n</think>\n\nx = 3"), "halve\n</think>\n\nx = 3"),
            (said("halve\n</think>\n\nx = 3"), "halve\n</think>\n\nx = 3"),
            (
                said("</think> ends it", reasoning_content="halve"),
                "halve\n</think>\n\n</think> ends it",
            ),
            (said("A <think>, a </think>"), "\n</think>\n\nA <think>, a </think>"),
        ],
    )
    def test_an_answer_closes_the_thought(self, tokenizer: Any, answer: Message, text: str) -> None:
        speaker = chatml(tokenizer, OPENS_THOUGHT)
        tree = demonstration_tree(speaker, demo([USER], [answer]))
        assert tree.trunk == prompt_ids(speaker, [USER])
        assert learnt(speaker, tree.branches[0]) == f"{text}<|im_end|>"

    def test_thoughts_of_earlier_turns_are_forgotten(self, tokenizer: Any) -> None:
        speaker = chatml(tokenizer, OPENS_THOUGHT)
        before = said("x = 4", reasoning_content="guess")
        answer = said("x = 3", reasoning_content="halve")
        for record in (demo([USER, before, SURE], [answer]), demo([USER], [before, SURE, answer])):
            tree = demonstration_tree(speaker, record)
            assert learnt(speaker, tree.branches[-1]) == "halve\n</think>\n\nx = 3<|im_end|>"
            assert "guess" not in speaker.decode(tree.trunk)


class TestOptions:
    def test_are_saved_with_the_template(self, tokenizer: Any, tmp_path: Any) -> None:
        """Whoever loads the folder, without us, writes the same prompt."""
        import transformers

        recipe = TemplateRecipe(template_options={"enable_thinking": False})
        speaker = with_template(chatml(tokenizer, THINKING), recipe)
        mine = speaker.decode(prompt_ids(speaker, [USER]))
        assert mine.endswith("assistant\n<think>\n\n</think>\n\n")
        speaker.save_pretrained(tmp_path)
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        asked = theirs.apply_chat_template([USER], tokenize=False, add_generation_prompt=True)
        assert asked == mine
        other = theirs.apply_chat_template(
            [USER], tokenize=False, add_generation_prompt=True, enable_thinking=True
        )
        assert other.endswith("assistant\n")

    def test_of_every_kind(self, tokenizer: Any) -> None:
        template = "{{ [a, b, c, d] | string }}" + PLAIN
        options = {"a": True, "b": 'it\'s "so"\n', "c": 1.5, "d": None}
        speaker = with_template(
            speaking(tokenizer, template), TemplateRecipe(template_options=options)
        )
        written = speaker.apply_chat_template([USER], tokenize=False)
        assert written.startswith(str([True, 'it\'s "so"\n', 1.5, None]))

    def test_that_no_template_reads(self, tokenizer: Any) -> None:
        recipe = TemplateRecipe(template_options={"enable_thinking": False})
        with pytest.raises(UsageError, match="'enable_thinking', which the chat template never"):
            with_template(speaking(tokenizer, PLAIN), recipe)

    def test_that_are_set_elsewhere(self, tokenizer: Any) -> None:
        with pytest.raises(UsageError, match="'messages', which every conversation sets"):
            with_template(
                speaking(tokenizer, PLAIN), TemplateRecipe(template_options={"messages": "x"})
            )

    def test_leave_the_templates_first_line_alone(self, tokenizer: Any) -> None:
        template = "\n\n  hi {{ who }}" + PLAIN
        recipe = TemplateRecipe(template_options={"who": "\U0001f600"})
        speaker = with_template(speaking(tokenizer, template), recipe)
        written = speaker.apply_chat_template([USER], tokenize=False)
        assert written.startswith("\n\n  hi \U0001f600<|im_start|>")

    def test_a_name_that_is_none(self, tokenizer: Any) -> None:
        with pytest.raises(UsageError, match=r"'alpacca', which is neither a file.*\n.*chatml"):
            with_template(speaking(tokenizer, PLAIN), TemplateRecipe(chat_template="alpacca"))

    def test_a_file(self, tokenizer: Any, tmp_path: Any) -> None:
        (tmp_path / "mine.jinja").write_text(PARTS)
        recipe = TemplateRecipe(chat_template=str(tmp_path / "mine.jinja"))
        assert with_template(speaking(tokenizer, PLAIN), recipe).chat_template == PARTS


def test_content_in_parts_where_the_template_reads_parts(tokenizer: Any) -> None:
    records = demo([USER], [said("x = 3"), SURE, said("Yes")])
    parts, plain = (
        demonstration_tree(chatml(tokenizer, template), records) for template in (PARTS, PLAIN)
    )
    assert parts == plain


class TestDate:
    def test_is_the_same_every_day(self, tokenizer: Any) -> None:
        speaker = chatml(tokenizer, DATED)
        text = speaker.decode(prompt_ids(speaker, [USER]))
        assert text.startswith("<|im_start|>system\nToday is 01 Jan 2026<|im_end|>")

    def test_or_the_one_that_is_asked_for(self, tokenizer: Any) -> None:
        speaker = chatml(tokenizer, DATED)
        with written_on(date(2031, 12, 24)):
            tree = demonstration_tree(speaker, demo([USER], [said("x = 3")]))
        assert "Today is 24 Dec 2031" in speaker.decode(tree.trunk)
        assert "01 Jan 2026" in speaker.decode(prompt_ids(speaker, [USER]))

    @pytest.mark.parametrize(
        "form", ["%Y-%m-%d", "%A, %B %-d", "%d/%m/%y %H:%M", "%j %% %p", "%F %e %D"]
    )
    def test_in_every_form(self, form: str) -> None:
        from datetime import datetime

        import jinja2

        moment = datetime(2026, 3, 4)
        written = jinja2.Template(
            dated("{{ strftime_now('" + form + "') }}", moment.date())
        ).render()
        assert written == moment.strftime(form)


def test_tools_beside_plain_text_are_refused(tokenizer: Any) -> None:
    record = demo("Weather?", "sunny", tools=[WEATHER])
    with pytest.raises(TextError, match=r"data.jsonl:3: the column `tools` is not read beside"):
        render(tokenizer, [record], max_length=99, cut_overlong=False)


def test_an_asked_prompt_keeps_its_tools_apart_from_rewards(tokenizer: Any) -> None:
    """A `tools` column that is no list of objects is for rewards; so is that of plain text."""
    assert asked_of(Task([USER], {"tools": "a hammer"}, HERE)).tools is None
    ids = prompt_ids(tokenizer, "Solve")
    assert prompts_ids(tokenizer, [Task("Solve", {"tools": [WEATHER]}, HERE)]) == [ids]
