"""What a service counts and times, as Prometheus reads it."""

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

STAGES = ("decode", "queue", "network", "total")
CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)


class Metrics:
    """The numbers of one server, in a registry of their own."""

    def __init__(self, waiting: Callable[[], int], accepted: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        own = {"registry": self.registry}
        self._stages = Histogram(
            "vovnet_stage_seconds",
            "Time of a picture in each stage, and of a whole request.",
            ["stage"],
            buckets=_SECONDS,
            **own,
        )
        for stage in STAGES:  # shown from the start, as zeros
            self._stages.labels(stage)
        self.batches = Histogram(
            "vovnet_batch_pictures",
            "Pictures that the network saw at once.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            **own,
        )
        self.images = Counter("vovnet_images", "Pictures in which was detected.", **own)
        self._refused = Counter("vovnet_refused", "Requests refused, by reason.", ["reason"], **own)
        gauge = Gauge("vovnet_queue_length", "Pictures that wait for the network.", **own)
        gauge.set_function(waiting)
        gauge = Gauge("vovnet_accepted", "Pictures accepted and not yet answered.", **own)
        gauge.set_function(accepted)
        ProcessCollector(**own)
        PlatformCollector(**own)

    def observe(self, stage: str, seconds: float) -> None:
        """Count one time of a stage."""
        self._stages.labels(stage).observe(seconds)

    def refuse(self, reason: str) -> None:
        """Count one refused request."""
        self._refused.labels(reason).inc()

    def text(self) -> bytes:
        """All of them in Prometheus's text format."""
        return generate_latest(self.registry)
