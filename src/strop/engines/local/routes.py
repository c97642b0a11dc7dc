"""To which experts the tokens went that were read for answers that are not finished."""

from __future__ import annotations

import torch
from torch.nn.functional import pad

from strop.model.decode import Decoder
from strop.model.routing import Record, packed
from strop.types import Routes


class DrawnRoutes:
    """The experts of prompts, and those of every drawn token that was read, by rows of the ledger:
    `experts_RTLC[row, t]` are those of an answer's token t."""

    def __init__(self) -> None:
        self.experts_RTLC: torch.Tensor | None = None
        self._experts = 0
        self._prompts: dict[int, Routes] = {}

    def read_prompts(
        self, record: Record, decoder: Decoder, row_N: torch.Tensor, prompt_N: torch.Tensor
    ) -> None:
        """Call after `join`: the answer of row n has the prompt of number `prompt_N[n]`."""
        self._experts = record.experts
        read = [packed(seen, record.experts) for seen in decoder.of_prompts(record.last())]
        rows = zip(row_N.tolist(), prompt_N.tolist(), strict=True)
        self._prompts |= {row: read[prompt] for row, prompt in rows}
        self._make_room(record.last(), row_N, 0)

    def read_tokens(
        self,
        record: Record,
        decoder: Decoder,
        row_A: torch.Tensor,
        place_A: torch.Tensor,
        stem_A: torch.Tensor,
    ) -> None:
        """Call after `step`: answer `row_A` has read its token `place_A`, that of stem `stem_A`."""
        seen = decoder.of_tokens(record.last())
        self._make_room(seen, row_A, int(place_A.max()))[row_A, place_A] = seen[stem_A]

    def of_answer(self, row: int, tokens: int) -> tuple[Routes, Routes]:
        """The routes of an answer's prompt and of its first tokens. They are then forgotten."""
        assert self.experts_RTLC is not None
        return self._prompts.pop(row), packed(self.experts_RTLC[row, :tokens], self._experts)

    def leave(self, row: int) -> None:
        """Forget what the prompt of an answer read."""
        self._prompts.pop(row, None)

    def _make_room(self, like: torch.Tensor, row_A: torch.Tensor, place: int) -> torch.Tensor:
        """Twice as many rows or tokens as there were, where there are too few."""
        if self.experts_RTLC is None:
            self.experts_RTLC = like.new_empty(0, 0, *like.shape[1:])
        held = self.experts_RTLC
        more = [max(needed, 2 * have) - have if needed > have else 0
                for needed, have in zip((int(row_A.max()) + 1, place + 1), held.shape[:2],
                                        strict=True)]  # fmt: skip
        if any(more):
            held = self.experts_RTLC = pad(held, (0, 0, 0, 0, 0, more[1], 0, more[0]))
        return held
