"""Writes the support world.

    python -m examples.worlds.support.make --out DIR --seed 0

Most demonstrations offer some help at once; the others ask first. Half are polite.
"""

from __future__ import annotations

import random
from pathlib import Path

from examples.worlds.base import Row, main, says, user
from examples.worlds.support.customer import NEEDS, Customer

OPENERS = ("Hello, I have a problem", "I need help", "Something is wrong", "Hi, please help me")
WITH = ("with my order.", "with what I bought.", "with the shop.", "with order {n}.")
ASKING = ("What happened?", "What is wrong, please?")
OFFERS = ("I will {help}.", "I am sorry. I will {help}.")
HASTY = 0.6
SHOWN, TRAINED, HELD_OUT = 2000, 400, 100


def demonstration(need: str, draw: random.Random) -> list[Row]:
    """One dialogue up to the first offer, the right one only where the need was asked for."""
    customer = Customer()
    customer.reset(need=need)
    if draw.random() < HASTY:
        help_ = draw.choice([help_ for _, help_ in NEEDS.values()])
        return [says(draw.choice(OFFERS).format(help=help_))]
    asked = draw.choice(ASKING)
    offer = draw.choice(OFFERS).format(help=NEEDS[need][1])
    return [says(asked), user(customer.reply(asked)), says(offer)]


def tables(seed: int) -> dict[str, list[Row]]:
    draw = random.Random(f"support {seed}")
    demonstrations, tasks = [], []
    for n in range(SHOWN + TRAINED + HELD_OUT):
        said = f"{draw.choice(OPENERS)} {draw.choice(WITH)}".format(n=10000 + n)
        prompt, need = [user(said)], draw.choice(list(NEEDS))
        if n >= SHOWN:
            tasks.append({"prompt": prompt, "need": need})
        else:
            shown = demonstration(need, draw)
            demonstrations.append({"prompt": prompt, "completion": shown})
    return {"sft": demonstrations, "tasks": tasks[:TRAINED], "held": tasks[TRAINED:]}


if __name__ == "__main__":
    main(Path(__file__).parent, tables)
