"""What was drawn for every answer that is not finished."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import pad

from strop.engines.draws import uniforms
from strop.engines.engine import Request


class Ledger:
    """Random numbers, tokens, log-probs and entropies: a row per answer, a column per token. Rows
    of answers that ended are given to later ones."""

    def __init__(self, device: torch.device) -> None:
        self.uniforms_RT = torch.empty(0, 0, dtype=torch.float64, device=device)
        self.ids_RT = torch.empty(0, 0, dtype=torch.long, device=device)
        self.logprobs_RT = torch.empty(0, 0, device=device)
        self.entropies_RT = torch.empty(0, 0, device=device)
        self._free: list[int] = []

    def take(self, requests: Sequence[Request]) -> torch.Tensor:
        """A row for each request, with the random numbers of its draw key, [R]."""
        rows, columns = self.ids_RT.shape
        wider = max(columns, *(one.sampling.max_tokens for one in requests)) - columns
        more = max(len(requests) - len(self._free), 0)
        if wider or more:
            room = (0, wider, 0, more)
            self.uniforms_RT = pad(self.uniforms_RT, room)
            self.ids_RT = pad(self.ids_RT, room)
            self.logprobs_RT = pad(self.logprobs_RT, room)
            self.entropies_RT = pad(self.entropies_RT, room)
        self._free += range(rows + more - 1, rows - 1, -1)
        taken = [self._free.pop() for _ in requests]
        row_R = torch.tensor(taken, device=self.ids_RT.device)
        numbers = np.zeros((len(requests), columns + wider))
        for own, one in zip(numbers, requests, strict=True):
            own[: one.sampling.max_tokens] = uniforms(one.key, one.sampling.max_tokens)
        self.uniforms_RT[row_R] = torch.from_numpy(numbers).to(row_R.device)
        return row_R

    def free(self, row: int) -> None:
        self._free.append(row)

    def drawn(
        self, row: int, length: int, begin: int = 0
    ) -> tuple[list[int], list[float], list[float]]:
        """Ids, log-probs and entropies of an answer's first tokens, from `begin` on."""
        part = slice(begin, length)
        return (
            self.ids_RT[row, part].tolist(),
            self.logprobs_RT[row, part].tolist(),
            self.entropies_RT[row, part].tolist(),
        )
