"""What a process says of itself as numbers, in Prometheus' text format (0.0.4)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Metric:
    """One metric: the name by which it is found, and its values right now."""

    name: str
    """What follows `flower_nats_`; ends in `_total` if the value only ever rises in a process's life."""

    meaning: str
    """One line for who reads it."""

    samples: tuple[tuple[Labels, float], ...]
    """Values, each with the labels that tell it from the others."""


def gauge(name: str, meaning: str, value: float, **labels: str) -> Metric:
    """Return a metric that has one value."""
    return Metric(name, meaning, ((labels, value),))


def by_label(name: str, meaning: str, label: str, values: Mapping[str, float]) -> Metric:
    """Return a metric that has one value for each value of one label."""
    return Metric(name, meaning, tuple(({label: key}, value) for key, value in values.items()))


def exposition(metrics: Iterable[Metric]) -> str:
    """Return the metrics as Prometheus reads them."""
    return "".join(line + "\n" for metric in metrics for line in _lines(metric))


def _lines(metric: Metric) -> list[str]:
    name = f"flower_nats_{metric.name}"
    kind = "counter" if name.endswith("_total") else "gauge"
    samples = [f"{name}{_labels(labels)} {_number(value)}" for labels, value in metric.samples]
    return [f"# HELP {name} {metric.meaning}", f"# TYPE {name} {kind}", *samples]


def _labels(labels: Labels) -> str:
    pairs = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
