"""Writes the database world.

    python -m examples.worlds.database.make --out DIR --seed 0

Every task has a database of its own: two tables, of which one has the column that is asked for.
Half of the demonstrations ask a table that they have not looked at, and give up if it is the wrong
one.
"""

from __future__ import annotations

import random
from pathlib import Path

from examples.worlds.base import Row, calls, main, says, tool, user
from examples.worlds.database.env import Database

TOOLS = [
    tool("list_tables", "Give the names of all tables."),
    tool("query", "Run a query that only reads.", sql=("string", "One SELECT statement.")),
    tool(
        "show_columns",
        "Give the names of a table's columns.",
        table=("string", "The table's name."),
    ),
]
TABLES = ["shop", "farm", "mill", "barn", "dock", "yard", "mine", "port", "inn", "camp"]
COLUMNS = ["buyer", "seller", "grower", "packer", "driver", "owner"]
THINGS = ["kiwi", "plum", "fig", "pear", "lime", "date", "leek", "bean", "corn", "rice"]
PEOPLE = ["Ada", "Ben", "Cora", "Dan", "Eva", "Finn", "Gus", "Hanna", "Ida", "Jon", "Kira", "Lars"]
PEOPLE += ["Mia", "Nils", "Olga", "Paul", "Rosa", "Sven", "Tom", "Vera"]
HASTY = 0.5
SHOWN, TRAINED, HELD_OUT = 12000, 400, 100


def database(draw: random.Random) -> dict[str, Row]:
    columns, things = draw.sample(COLUMNS, 2), draw.sample(THINGS, 4)
    return {
        name: {
            "columns": ["name", columns[n]],
            "rows": [[thing, draw.choice(PEOPLE)] for thing in things],
        }
        for n, name in enumerate(draw.sample(TABLES, 2))
    }


def demonstration(task: Row, column: str, thing: str, draw: random.Random) -> list[Row]:
    """List the tables, look until one has the column (or do not look), query it, answer."""
    world = Database()
    world.reset(tables=task["tables"])
    shown = calls("list_tables", world.list_tables())
    names = list(task["tables"])
    if draw.random() < HASTY:
        chosen = draw.choice(names)
    else:
        for chosen in names:
            shown += calls("show_columns", world.show_columns(chosen), table=chosen)
            if column in task["tables"][chosen]["columns"]:
                break
    sql = f"select {column} from {chosen} where name = '{thing}'"
    if column in task["tables"][chosen]["columns"]:
        result = world.query(sql)
        return [*shown, *calls("query", result, sql=sql), says(f"<answer>{result}</answer>")]
    failed = {"error": f"no such column: {column}"}
    return [*shown, *calls("query", failed, sql=sql), says("<answer>unknown</answer>")]


def tables(seed: int) -> dict[str, list[Row]]:
    draw = random.Random(f"database {seed}")
    demonstrations, tasks = [], []
    for n in range(SHOWN + TRAINED + HELD_OUT):
        made = database(draw)
        chosen = draw.choice(list(made.values()))
        row = draw.choice(chosen["rows"])
        column, (thing, person) = chosen["columns"][1], row
        prompt = [user(f"Who is the {column} of {thing}?")]
        task = {"prompt": prompt, "answer": person, "tables": made}
        if n >= SHOWN:
            tasks.append(task)
            continue
        shown = demonstration(task, column, thing, draw)
        demonstrations.append({"prompt": prompt, "completion": shown, "tools": TOOLS})
    return {"sft": demonstrations, "tasks": tasks[:TRAINED], "held": tasks[TRAINED:]}


if __name__ == "__main__":
    main(Path(__file__).parent, tables)
