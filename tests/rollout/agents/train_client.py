"""An agent that asks by the training client of verifiers: tokens in, tokens and log-probs out."""

from __future__ import annotations

from typing import Any

from verifiers.v1.clients.train import TrainClient  # type: ignore[import-not-found]
from verifiers.v1.configs.client import TrainClientConfig  # type: ignore[import-not-found]
from verifiers.v1.dialects import ChatDialect  # type: ignore[import-not-found]
from verifiers.v1.types import SamplingConfig  # type: ignore[import-not-found]


async def run(base_url: str, api_key: str, task: dict[str, Any]) -> float:
    """Two turns; the reward is the sum of the log-probs that it was told."""
    config = TrainClientConfig(
        base_url=base_url,
        api_key_var="OPENAI_API_KEY",
        renderer={"name": "default"},
        renderer_model_name=task["tokenizer"],
    )
    client = TrainClient(config)
    messages = list(task["prompt"])
    total = 0.0
    for _ in range(2):
        body = {"model": "policy", "messages": messages}
        response = await client.get_response(ChatDialect(), body, SamplingConfig(max_tokens=60))
        assert len(response.tokens.completion_logprobs) == len(response.tokens.completion_ids)
        total += sum(response.tokens.completion_logprobs)
        messages += [
            {"role": "assistant", "content": response.message.content},
            {"role": "user", "content": "Again?"},
        ]
    await client.close()
    return total
