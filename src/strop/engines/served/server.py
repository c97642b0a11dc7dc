"""One server that speaks vLLM's protocol."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.engines.served.wire import Body
from strop.errors import HttpError
from strop.http import HttpClient, RequestLimits

CONTROL_SECONDS = 300.0
"""Within so many seconds a server has to have taken new weights."""
SIGN_SECONDS = 5.0
"""Within so many seconds a server gives a sign of life."""


@dataclass(frozen=True, slots=True)
class About:
    """What a server holds: `About(model="/models/base", context=4096, adapters=("a1b2-7",))`;
    `context` is `None` where its model sets no bound."""

    model: str
    context: int | None
    adapters: tuple[str, ...]


class Server:
    """Asks one server; every call has an end. Raises `HttpError` for what fails.

    A sample that takes longer than `seconds` is not asked for again: its server is still at work.
    """

    def __init__(self, url: str, *, seconds: float) -> None:
        self.url = url.rstrip("/")
        self._asking = HttpClient(RequestLimits(seconds=seconds, retries=1, slow_again=False))
        self._control = HttpClient(RequestLimits(seconds=CONTROL_SECONDS, retries=0))
        self._sign = HttpClient(RequestLimits(seconds=SIGN_SECONDS, retries=0))

    def about(self) -> About:
        """Also a sign of life."""
        address = f"{self.url}/v1/models"
        said = self._sign.get(address)
        try:
            base = next(one for one in said["data"] if one.get("parent") is None)
            adapters = tuple(str(one["id"]) for one in said["data"] if one.get("parent"))
            most = base["max_model_len"]
            return About(str(base["id"]), None if most is None else int(most), adapters)
        except (KeyError, TypeError, ValueError, StopIteration):
            raise HttpError("the list of models is of another form", where=address,
                            status=200) from None  # fmt: skip

    def encoded(self, body: Body) -> list[int] | None:
        """The ids of a `prompt` or of `messages`; `None` where the server has no tokenizer."""
        address = f"{self.url}/tokenize"
        try:
            return [int(i) for i in self._asking.post(address, body)["tokens"]]
        except HttpError as error:
            if error.status in (404, 405, 501):
                return None
            raise
        except (KeyError, TypeError, ValueError):
            raise HttpError("the answer has no tokens", where=address) from None

    def generate(self, body: Body) -> Any:
        return self._asking.post(f"{self.url}/inference/v1/generate", body)

    def load_adapter(self, name: str, folder: Path) -> None:
        body = {"lora_name": name, "lora_path": str(folder)}
        self._control.tell(f"{self.url}/v1/load_lora_adapter", body)

    def unload_adapter(self, name: str, *, leaving: bool = False) -> None:
        """One who is `leaving` waits for a sign of life alone."""
        ask = self._sign if leaving else self._control
        ask.tell(f"{self.url}/v1/unload_lora_adapter", {"lora_name": name})

    def reload(self, folder: Path) -> None:
        """Read all weights again, from this folder, whose name is theirs from now on, and forget
        what the old ones computed.

        The name comes first: a server that is restarted in between has lost it, whereas the other
        way round its first weights would get it.
        """
        how = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        self._control.tell(f"{self.url}/update_weight_version", {"new_version": folder.name})
        self._control.tell(f"{self.url}/collective_rpc", how)
        self._control.tell(f"{self.url}/reset_prefix_cache", {})
