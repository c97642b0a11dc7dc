"""The rules of the example worlds: what environments answer, and that records agree with it."""

from __future__ import annotations

import json
import random
import re
import sqlite3

import pytest

from examples.worlds.calculator import make as calculator
from examples.worlds.calculator.env import Calculator
from examples.worlds.database import make as database
from examples.worlds.database.env import Database
from examples.worlds.support import make as support
from examples.worlds.support.customer import NEEDS, Customer
from strop.recipe.train.environment import OwnEnvironmentRecipe
from strop.rollout.own.toolbox import OwnToolboxes
from tests.support import ROOT

WORLDS = ROOT / "examples/worlds"
TABLES = {
    "shop": {"columns": ["name", "price"], "rows": [["kiwi", 31], ["plum", 12]]},
    "farm": {"columns": ["name", "age"], "rows": [["kiwi", 77]]},
}


@pytest.mark.parametrize(("op", "result"), [("+", "46"), ("-", "-22"), ("*", "408")])
def test_the_calculator_is_right(op: str, result: str) -> None:
    assert Calculator().calculate(12, op, 34) == result


def test_the_calculator_knows_three_signs() -> None:
    with pytest.raises(KeyError):
        Calculator().calculate(12, "/", 34)


@pytest.fixture
def shop() -> Database:
    world = Database()
    world.reset(tables=TABLES)
    return world


def test_the_database_shows_its_schema_and_answers(shop: Database) -> None:
    assert shop.list_tables() == "shop, farm"
    assert shop.show_columns("farm") == "name, age"
    assert shop.query("select age from farm where name = 'kiwi'") == "77"
    assert shop.query("select name, price from shop order by price") == "plum, 12; kiwi, 31"
    assert shop.query("select age from farm where name = 'fig'") == "no rows"


def test_the_database_refuses_what_it_has_not(shop: Database) -> None:
    with pytest.raises(ValueError, match="no table barn"):
        shop.show_columns("barn")
    with pytest.raises(sqlite3.OperationalError, match="no such column: age"):
        shop.query("select age from shop")


def test_the_database_is_only_read(shop: Database) -> None:
    for sql in ("delete from shop", "drop table shop"):
        with pytest.raises(ValueError, match="only SELECT"):
            shop.query(sql)
    with pytest.raises(sqlite3.OperationalError):
        shop._file.execute("delete from shop")
    assert shop.query("select count(*) from shop") == "2"


def test_a_database_is_its_task_s_own(shop: Database) -> None:
    other = Database()
    other.reset(tables={"barn": TABLES["farm"]})
    assert (shop.list_tables(), other.list_tables()) == ("shop, farm", "barn")


def dialogue(*said: str) -> tuple[list[str], float]:
    customer = Customer()
    customer.reset(need="broken", unread="column")
    return [customer.reply(text) for text in said], customer.get_reward()


def test_the_need_is_told_only_when_asked() -> None:
    replies, reward = dialogue("I see.", "What is it?")
    assert replies == ["And now?", "It came in pieces."]
    assert reward == 0.0


@pytest.mark.parametrize(
    ("said", "reward"),
    [
        (("What is it?", "I will send a new one."), 0.75),
        (("What is it?", "I am sorry. I will send a new one."), 1.0),
        (("I will send a new one.",), 0.75),
        (("Hm.", "What is it?", "I will send a new one."), 0.625),
        (("Hm.", "Hm.", "What is it, please?", "I will send a new one."), 0.75),
        (("I am sorry. I will cancel the order.",), 0.0),
    ],
)
def test_the_reward_is_for_help_in_few_turns_politely(said: tuple[str, ...], reward: float) -> None:
    assert dialogue(*said)[1] == reward


def test_to_offer_everything_at_once_is_no_help() -> None:
    everything = " ".join(f"I will {help_}." for _, help_ in NEEDS.values())
    assert dialogue(everything) == (["That does not help me."], 0.0)


@pytest.mark.parametrize(
    ("file", "name", "shown"),
    [("calculator/env.py", "Calculator", [calculator.TOOL]),
     ("database/env.py", "Database", database.TOOLS)],
)  # fmt: skip
def test_demonstrations_show_the_tools_that_the_environment_has(
    file: str, name: str, shown: list[object]
) -> None:
    recipe = OwnEnvironmentRecipe.model_validate({"file": str(WORLDS / file), "class": name})
    assert list(OwnToolboxes(recipe).tools or ()) == shown


@pytest.mark.parametrize("world", [calculator, database, support], ids=lambda w: w.__name__)
def test_records_follow_from_the_seed(world: object) -> None:
    first, again, other = (json.dumps(world.tables(seed)) for seed in (3, 3, 4))  # type: ignore[attr-defined]
    assert first == again != other


def test_no_problem_of_the_calculator_is_both_shown_and_held_out() -> None:
    tables = calculator.tables(0)
    asked = [{row["prompt"][0]["content"] for row in tables[n]} for n in ("sft", "tasks", "held")]
    assert [len(a) for a in asked] == [4000, 400, 100]
    assert len(set.union(*asked)) == 4500


def test_answers_of_the_database_stand_in_one_table_only() -> None:
    for task in database.tables(0)["held"]:
        column, thing = re.findall(r"the (\w+) of (\w+)\?", task["prompt"][0]["content"])[0]
        having = [n for n, t in task["tables"].items() if column in t["columns"]]
        world = Database()
        world.reset(tables=task["tables"])
        assert len(having) == 1
        sql = f"select {column} from {having[0]} where name = '{thing}'"
        assert world.query(sql) == task["answer"]


def test_a_patient_demonstration_finds_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "HASTY", 0.0)
    shown = database.demonstration({"tables": TABLES}, "age", "kiwi", random.Random(0))
    called = [c["function"]["name"] for turn in shown for c in turn.get("tool_calls", [])]
    assert called == ["list_tables", "show_columns", "show_columns", "query"]
    assert shown[-1]["content"] == "<answer>77</answer>"


def test_a_hasty_demonstration_gives_up_at_the_wrong_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "HASTY", 1.0)
    endings = {
        database.demonstration({"tables": TABLES}, "age", "kiwi", random.Random(n))[-1]["content"]
        for n in range(20)
    }
    assert endings == {"<answer>77</answer>", "<answer>unknown</answer>"}


def test_an_opening_of_support_does_not_tell_the_need() -> None:
    told = [words for pair in NEEDS.values() for words in pair]
    for task in support.tables(0)["held"]:
        assert not any(words in task["prompt"][0]["content"] for words in told)
