"""What the server counts, in the form that Prometheus reads."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from .worker import TokenStream


SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters of one server.

    Attributes:
        registry: what `render` writes out.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        model = ["model"]
        self.responses = Counter(
            "smalldoge_http_responses", "HTTP responses sent", ["route", "status"], registry=self.registry
        )
        self.finished = Counter(
            "smalldoge_requests", "Generations finished, by reason", ["model", "reason"], registry=self.registry
        )
        self.prompt_tokens = Counter("smalldoge_prompt_tokens", "Tokens of prompts", model, registry=self.registry)
        self.cached_tokens = Counter(
            "smalldoge_cached_tokens", "Prompt tokens taken from the prefix cache", model, registry=self.registry
        )
        self.output_tokens = Counter("smalldoge_output_tokens", "Tokens generated", model, registry=self.registry)
        self.first_token = Histogram(
            "smalldoge_first_token_seconds",
            "Seconds to the first token",
            model,
            buckets=SECONDS,
            registry=self.registry,
        )
        self.duration = Histogram(
            "smalldoge_request_seconds", "Seconds of a generation", model, buckets=SECONDS, registry=self.registry
        )
        self.unfinished = Gauge("smalldoge_requests_unfinished", "Running or waiting", model, registry=self.registry)
        self.waiting = Gauge("smalldoge_requests_waiting", "Waiting for a slot", model, registry=self.registry)
        self.memory = Gauge("smalldoge_model_bytes", "Memory of a loaded model", model, registry=self.registry)

    def observe(self, model: str, stream: TokenStream) -> None:
        """Count a generation that ended."""
        request = stream.request
        self.finished.labels(model, stream.finish_reason or "cancelled").inc()
        self.prompt_tokens.labels(model).inc(len(request.prompt_ids))
        self.cached_tokens.labels(model).inc(request.num_cached_tokens)
        self.output_tokens.labels(model).inc(len(stream.tokens))
        if stream.first_token is not None:
            self.first_token.labels(model).observe(stream.first_token - stream.created)
        self.duration.labels(model).observe(time.monotonic() - stream.created)

    def render(self) -> bytes:
        """Return all metrics as text."""
        return generate_latest(self.registry)
