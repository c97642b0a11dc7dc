"""The words in which an engine is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from strop.curate.synthetic.templates import FILES, NEEDED, template_of
from strop.errors import RecipeError
from strop.files import sha256_of
from strop.recipe.loading.load import load
from strop.recipe.synthetic import Principles
from strop.text.templates import conversation


class TestOwnFiles:
    def test_strop_has_a_template_of_every_name(self) -> None:
        for name in NEEDED:
            template = template_of(name)
            assert template.sha256 == sha256_of(FILES / f"{name}.txt")[:16]
        assert {file.stem for file in FILES.glob("*.txt")} == set(NEEDED)

    def test_self_instruct_numbers_what_it_shows_and_asks_for_the_next(self) -> None:
        said = template_of("self_instruct").render(
            instructions=["Name a river.", "Add 2."], asked=8
        )
        assert "\n1. Name a river.\n2. Add 2.\n\nWrite 8 more, numbered from 3." in said

    def test_the_principles_are_a_file_that_loads(self) -> None:
        names = [one.name for one in load(Principles, FILES / "principles.yaml").principles]
        assert len(set(names)) == len(names) >= 4


class TestFilling:
    def test_an_answer_may_hold_braces(self) -> None:
        said = template_of("critique").render(
            prompt="{{ answer }}", answer="{% if %} {{ x }}",
            principle={"critique": "Name it."},
        )  # fmt: skip
        assert "{{ answer }}" in said
        assert "{% if %} {{ x }}" in said

    def test_around_a_conversation_it_words_the_last_turn_of_the_user(self) -> None:
        template = template_of("think")
        system, asked = (
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "1?"},
        )
        prefill = {"role": "assistant", "content": "It is"}
        worded = template.around([system, asked, prefill])
        assert worded[0] == system
        assert worded[2] == prefill
        assert worded[1] == {"role": "user", "content": template.render(prompt="1?")}
        assert template.around("1?") == worded[1]["content"]
        assert asked["content"] == "1?"

    def test_a_conversation_is_shown_with_its_roles(self) -> None:
        turns = [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "1"}]
        assert conversation("1?") == conversation(turns[:1]) == "1?"
        assert conversation(turns) == "User: 1?\n\nAssistant: 1"


class TestMistakes:
    @pytest.mark.parametrize(
        ("text", "where", "problem"),
        [
            ("say\n{{ promt }} {{ prompt }}", ":2", "shows {{ promt }}, which it is not given"),
            ("say it", "", "does not show {{ prompt }}"),
            ("say\n\n{{ prompt", ":3", "cannot be read"),
        ],
    )
    def test_a_template_that_cannot_work(
        self, tmp_path: Path, text: str, where: str, problem: str
    ) -> None:
        path = tmp_path / "own.txt"
        path.write_text(text)
        with pytest.raises(RecipeError) as told:
            template_of("think", str(path))
        assert f"{path}{where}: " in str(told.value)
        assert problem in str(told.value)

    def test_the_clean_case_beside_them(self, tmp_path: Path) -> None:
        path = tmp_path / "own.txt"
        path.write_text("Think: {{ prompt }}\n")
        assert template_of("think", str(path)).render(prompt="1?") == "Think: 1?"

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="cannot read the file"):
            template_of("think", str(tmp_path / "nowhere.txt"))

    def test_what_it_reaches_for_is_refused(self, tmp_path: Path) -> None:
        """Templates are text to fill, no programs: the sandbox gives no attributes of Python's."""
        path = tmp_path / "own.txt"
        path.write_text("{{ prompt.__class__.__mro__ }}")
        with pytest.raises(RecipeError, match="cannot be filled"):
            template_of("think", str(path)).render(prompt="1?")

    def test_principles(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.yaml"
        one = "  - {name: a, critique: Name it., revision: Mend it.}\n"
        path.write_text("principles:\n" + one)
        assert load(Principles, path).principles[0].revision == "Mend it."
        path.write_text("principles:\n" + one + one)
        with pytest.raises(RecipeError, match="two principles have one name"):
            load(Principles, path)
        path.write_text("principles:\n" + one.replace("revision", "revison"))
        with pytest.raises(RecipeError, match=r"mine\.yaml:2.*revis"):
            load(Principles, path)
