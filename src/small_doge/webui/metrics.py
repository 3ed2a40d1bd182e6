"""What the server counts, in the form that Prometheus reads."""

import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.registry import Collector

from .worker import TokenStream


SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters of one server.

    Attributes:
        registry: what holds them.
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


class _Collected(Collector):
    """Metrics that were collected already, as `generate_latest` takes them."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self.metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        return self.metrics


def render(metrics: Iterable[Metric]) -> bytes:
    """Write metrics as the text that Prometheus reads."""
    return generate_latest(_Collected(metrics))


def label_replicas(parts: Iterable[tuple[str, Iterable[Metric]]]) -> list[Metric]:
    """Put the metrics of replicas together; the label `replica` names where each was counted.

    They are not added up: a counter of a replica that was started again begins at 0, which Prometheus takes into account for
    each of its own.
    """
    families: dict[str, Metric] = {}
    for replica, metrics in parts:
        for metric in metrics:
            family = families.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
            for sample in metric.samples:
                family.add_sample(sample.name, {**sample.labels, "replica": replica}, sample.value)
    return list(families.values())
