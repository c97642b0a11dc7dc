"""What a server counts, in Prometheus' form."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters of one server; `text` is what `/metrics` answers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        named = {"registry": self.registry}
        self.requests = Counter(
            "strop_requests", "Requests by route and status.", ["route", "status"], **named
        )
        self.answers = Counter(
            "strop_answers", "Choices by model, version and how they ended.",
            ["model", "version", "finish"], **named,
        )  # fmt: skip
        self.tokens = Counter(
            "strop_tokens", "Tokens by kind: prompt, completion, hidden.", ["kind"], **named
        )
        self.first = Histogram(
            "strop_first_token_seconds", "Until the first token.", buckets=SECONDS, **named
        )
        self.total = Histogram(
            "strop_answer_seconds", "Until an answer was whole.", buckets=SECONDS, **named
        )
        self.running = Gauge("strop_requests_running", "Requests that are answered now.", **named)
        self.waiting = Gauge("strop_requests_waiting", "Requests that wait.", **named)
        self.feedback = Counter("strop_feedback", "Feedback by kind.", ["kind"], **named)
        self.lost = Gauge(
            "strop_traffic_lost", "Exchanges that the traffic log could not keep.", **named
        )
        self.swaps = Counter("strop_swaps", "New versions by model.", ["model"], **named)
        self.canary = Gauge(
            "strop_canary", "Of the canary's trial: bounds on the difference, ratings.",
            ["what"], **named,
        )  # fmt: skip

    def text(self) -> bytes:
        return generate_latest(self.registry)
