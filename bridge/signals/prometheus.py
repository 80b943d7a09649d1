"""Measurements as Prometheus' text. Imported only where metrics are asked for: it needs the extra ``metrics``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from bridge.signals.meter import Meter, Reader
from bridge.signals.metrics import SECONDS, Metric

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_Family: TypeAlias = CounterMetricFamily | GaugeMetricFamily


class PrometheusMeter(Meter):
    """Keeps measurements in a registry of its own, so that nothing of another library's is among them."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._counters: dict[Metric, Counter] = {}
        self._histograms: dict[Metric, Histogram] = {}
        # What `labels` of a family does takes a lock and builds a key anew: half the cost of a measurement.
        self._counts: dict[tuple[Metric, tuple[str, ...]], Counter] = {}
        self._times: dict[tuple[Metric, tuple[str, ...]], Histogram] = {}
        self._readers: list[Reader] = []
        self._registry.register(_Readers(self._readers))

    def count(self, metric: Metric, *labels: str, by: float = 1.0) -> None:
        """See `Meter.count`."""
        series = self._counts.get((metric, labels))
        if series is None:
            family = self._counters.get(metric)
            if family is None:
                family = Counter(metric.name, metric.about, metric.labels, registry=self._registry)
                self._counters[metric] = family
            series = self._counts[metric, labels] = family.labels(*labels) if labels else family
        series.inc(by)

    def time(self, metric: Metric, seconds: float, *labels: str) -> None:
        """See `Meter.time`."""
        series = self._times.get((metric, labels))
        if series is None:
            family = self._histograms.get(metric)
            if family is None:
                family = Histogram(metric.name, metric.about, metric.labels, registry=self._registry, buckets=SECONDS)
                self._histograms[metric] = family
            series = self._times[metric, labels] = family.labels(*labels) if labels else family
        series.observe(seconds)

    def watch(self, reader: Reader) -> Callable[[], None]:
        """See `Meter.watch`."""
        self._readers.append(reader)

        def end() -> None:
            if reader in self._readers:
                self._readers.remove(reader)

        return end

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._registry)


class _Readers(Collector):
    """What readers say at the moment of the question; two that read one series are added up."""

    def __init__(self, readers: list[Reader]) -> None:
        self._readers = readers

    def collect(self) -> Iterable[_Family]:
        found: dict[Metric, dict[tuple[str, ...], float]] = {}
        for reader in tuple(self._readers):
            for metric, labels, value in reader():
                series = found.setdefault(metric, {})
                series[labels] = series.get(labels, 0.0) + value
        for metric, series in found.items():
            family = _family(metric)
            for labels, value in series.items():
                family.add_metric(labels, value)
            yield family


def _family(metric: Metric) -> _Family:
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    return kind(metric.name, metric.about, labels=metric.labels)
