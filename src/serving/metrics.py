"""What the service counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
PICTURES = (1, 2, 4, 8, 16, 32)


class Metrics:
    """Counters of one service; several in one process do not meet."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = Counter(
            "dfine_requests", "Requests answered", ("path", "status"), registry=self._registry
        )
        self.seconds = Histogram(
            "dfine_request_seconds",
            "From the first byte of a prediction's request to the last of its answer",
            buckets=SECONDS,
            registry=self._registry,
        )
        self.batches = Histogram(
            "dfine_batch_pictures", "Pictures in one call", buckets=PICTURES, registry=self._registry
        )
        self.waiting = Gauge(
            "dfine_waiting_pictures", "Pictures received and not answered", registry=self._registry
        )
        self.pictures = Counter("dfine_pictures", "Pictures looked at", registry=self._registry)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self._registry)
