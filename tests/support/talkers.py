"""A tiny model that has learnt a dialogue by heart."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from strop.demo.model import raw_model

SURE = 0.02
"""Nats a token that are left."""
MOST_STEPS = 600

Dialogue = Sequence[dict[str, Any]]


def talker(
    tokenizer: Any, dialogues: Sequence[Dialogue], folder: Path, *, tools: Any = None
) -> Path:
    """A saved model that goes on as these dialogues do after their first message, more often than
    not; its tokenizer has the template that wrote them."""
    tokenizer.model_max_length = 1024
    model = raw_model(tokenizer, seed=0, width=64, positions=1024)
    model.resize_token_embeddings(len(tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    write = partial(tokenizer.apply_chat_template, tools=tools, return_dict=False)
    rows = [(write(d), len(write(d[:1], add_generation_prompt=True))) for d in dialogues]
    for _ in range(MOST_STEPS):
        optimizer.zero_grad()
        worst = 0.0
        for row, read in rows:
            ids_BT = torch.tensor([row])
            labels_BT = ids_BT.clone()
            labels_BT[:, :read] = -100
            loss = model(input_ids=ids_BT, labels=labels_BT).loss
            loss.backward()
            worst = max(worst, loss.item())
        if worst < SURE:
            break
        optimizer.step()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
