"""Metrics of a process, in Prometheus' text format."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

Labels = Mapping[str, str]

FAULTS = "Calls that met a fault in this program, which is a bug, by method."
"""The description of `faults_total` of gateways and superlinks."""

OF_CALLS = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 30.0, 60.0)
"""Seconds: the upper bounds of the buckets for durations of calls. There are few, because each
method has its own."""


class Durations:
    """A histogram of durations, in seconds."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...] = OF_CALLS) -> None:
        """`bounds` are the upper bounds of buckets, in seconds, the same for a whole metric."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def note(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


@dataclass(frozen=True)
class Metric:
    """One metric: its name, and its current values."""

    name: str
    """The name after `flower_nats_`; it ends in `_total` if the value only rises while a process
    lives."""

    meaning: str
    """One line of description."""

    samples: tuple[tuple[Labels, float], ...] = ()
    """Values, each with its labels."""

    durations: tuple[tuple[Labels, Durations], ...] = ()
    """The histograms with their labels, in place of values."""


def gauge(name: str, meaning: str, value: float, **labels: str) -> Metric:
    """Return a metric that has one value."""
    return Metric(name, meaning, ((labels, value),))


def by_label(name: str, meaning: str, label: str, values: Mapping[str, float]) -> Metric:
    """Return a metric that has one value for each value of one label."""
    return Metric(name, meaning, tuple(({label: key}, value) for key, value in values.items()))


class _Collected:
    """Metrics as prometheus_client asks for them."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._families = [_family(metric) for metric in metrics]

    def collect(self) -> Iterable[Family]:
        """Return them."""
        return self._families


def exposition(metrics: Iterable[Metric]) -> str:
    """Return the metrics as Prometheus reads them."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(metrics))
    return "".join(map(_with_plain_number, generate_latest(registry).decode().splitlines(True)))


def _with_plain_number(line: str) -> str:
    """Write a whole number without a point, for people and for tools that count."""
    if line.startswith("#"):
        return line
    name, _, value = line.rpartition(" ")
    number = float(value)
    return f"{name} {int(number)}\n" if number.is_integer() else line


def _family(metric: Metric) -> Family:
    name = f"flower_nats_{metric.name}"
    labels = [*(next((given for given, _ in (*metric.samples, *metric.durations)), {}))]
    if metric.durations:
        histogram = HistogramMetricFamily(name, metric.meaning, labels=labels)
        for given, durations in metric.durations:
            ends = [*map(str, durations.bounds), "+Inf"]
            buckets = list(zip(ends, accumulate(durations.counts), strict=True))
            histogram.add_metric([given[one] for one in labels], buckets, durations.sum)
        return histogram
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    family = kind(name, metric.meaning, labels=labels)
    for given, value in metric.samples:
        family.add_metric([given[one] for one in labels], value)
    return family
