"""What a server counts, in Prometheus' form."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters of one server; `text` is what `/metrics` answers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.requests = Counter(
            "strop_requests",
            "Requests by route and status.",
            ["route", "status"],
            registry=own,
        )
        self.answers = Counter(
            "strop_answers", "Choices by model, version and how they ended.",
            ["model", "version", "finish"], registry=own,
        )  # fmt: skip
        self.tokens = Counter(
            "strop_tokens",
            "Tokens by kind: prompt, completion, hidden.",
            ["kind"],
            registry=own,
        )
        self.first = Histogram(
            "strop_first_token_seconds",
            "Until the first token.",
            buckets=SECONDS,
            registry=own,
        )
        self.total = Histogram(
            "strop_answer_seconds", "Until an answer was whole.", buckets=SECONDS, registry=own
        )
        self.running = Gauge(
            "strop_requests_running", "Requests that are answered now.", registry=own
        )
        self.waiting = Gauge("strop_requests_waiting", "Requests that wait.", registry=own)
        self.feedback = Counter("strop_feedback", "Feedback by kind.", ["kind"], registry=own)
        self.lost = Gauge(
            "strop_traffic_lost",
            "Exchanges that the traffic log could not keep.",
            registry=own,
        )
        self.swaps = Counter("strop_swaps", "New versions by model.", ["model"], registry=own)
        self.canary = Gauge(
            "strop_canary", "Of the canary's trial: bounds on the difference, ratings.",
            ["what"], registry=own,
        )  # fmt: skip

    def text(self) -> bytes:
        return generate_latest(self.registry)
