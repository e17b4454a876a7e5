"""Prometheus metrics. Names follow its conventions: base units, `_total` for counters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Door(Protocol):
    """An entrance for connections: API, embedded broker or xDS."""

    refused: int
    gave_way: int

    @property
    def count(self) -> int: ...


class Doors(Collector):
    """Counts of the doors, read at each scrape."""

    def __init__(self, doors: Mapping[str, Door]) -> None:
        self._doors = doors

    def collect(self) -> Iterator[Metric]:
        """The metrics of every door."""
        open_now = GaugeMetricFamily("isochrone_connections", "Open connections", labels=["door"])
        refused = CounterMetricFamily(
            "isochrone_connections_refused", "Connections refused because all places were taken", labels=["door"]
        )
        gave_way = CounterMetricFamily(
            "isochrone_connections_gave_way", "Idle connections closed in favour of new ones", labels=["door"]
        )
        for name, door in self._doors.items():
            open_now.add_metric([name], door.count)
            refused.add_metric([name], door.refused)
            gave_way.add_metric([name], door.gave_way)
        yield from (open_now, refused, gave_way)


class _Ages(Collector):
    """Ages of the newest report of each cluster, computed at each scrape."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """One series for each cluster that was heard."""
        family = GaugeMetricFamily(
            "isochrone_cluster_report_age_seconds", "Age of the newest report", labels=["cluster"]
        )
        for name, age_s in self._metrics.ages_s().items():
            family.add_metric([name], age_s)
        yield family


Labels = TypeVar("Labels", bound=tuple[str, ...])


class Metrics:
    """The metrics of one controller, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.clusters = Gauge("isochrone_clusters", "Clusters by phase", ["state"], registry=registry)
        self.ages_s: Callable[[], Mapping[str, float]] = dict
        """Cluster -> age of its newest report; called at each scrape, as there may be thousands."""
        registry.register(_Ages(self))
        self._series: dict[Gauge, set[tuple[str, ...]]] = {}
        self.model_replicas = Gauge(
            "isochrone_model_replicas",
            "Replicas by model and state (desired, ready)",
            ["model", "state"],
            registry=registry,
        )
        self.plan_generation = Gauge("isochrone_plan_generation", "Generation of the plan in force", registry=registry)
        self.plan_epoch = Gauge("isochrone_plan_epoch", "Epoch of this controller", registry=registry)
        self.plan_duration_seconds = Histogram(
            "isochrone_plan_duration_seconds",
            "Duration of one cycle, from snapshot to commit",
            ["loop"],
            registry=registry,
        )
        self.moves_total = Counter(
            "isochrone_plan_moves_total", "Replicas moved, by the rule that allowed it", ["reason"], registry=registry
        )
        self.reports_total = Counter(
            "isochrone_messages_total", "Messages from agents by result", ["result"], registry=registry
        )
        self.cluster_changes_total = Counter(
            "isochrone_cluster_changes_total",
            "Clusters that became ready, unreachable or lost",
            ["to"],
            registry=registry,
        )
        self.gateways = Gauge("isochrone_gateways", "Gateways by state", ["state"], registry=registry)
        self.gateway_resources_total = Counter(
            "isochrone_gateway_resources_total", "Resources sent to gateways", ["kind"], registry=registry
        )
        self.gateway_refusals_total = Counter(
            "isochrone_gateway_refusals_total", "Updates that gateways refused (NACK)", ["kind"], registry=registry
        )
        self.brake_active = Gauge("isochrone_brake_active", "1 while moves are frozen", registry=registry)
        self.plan_cost_usd_per_hour = Gauge(
            "isochrone_plan_cost_usd_per_hour",
            "Cost of the plan in force by cause; proximity is the price that policy puts on latency, paid to nobody; "
            "risk is the expected cost of spot losses",
            ["cause"],
            registry=registry,
        )
        self.plan_round_trip_seconds = Gauge(
            "isochrone_plan_round_trip_seconds",
            "Round trips of served requests in the plan in force: mean, p95, and excess, which is the mean beyond "
            "the nearest cluster that could serve them, full or not",
            ["model", "figure"],
            registry=registry,
        )
        self.price_feed_age_seconds = Gauge(
            "isochrone_price_feed_age_seconds",
            "Since a price feed was read and could be used",
            ["feed"],
            registry=registry,
        )
        self.solver_failures_total = Counter(
            "isochrone_solver_failures_total", "Solves without a usable answer", registry=registry
        )

    def set_all(self, gauge: Gauge, values: Mapping[Labels, float]) -> None:
        """Set exactly these series, by their label values. A series that stays is present in every scrape."""
        for labels, value in values.items():
            gauge.labels(*labels).set(value)
        for gone in self._series.get(gauge, set()) - values.keys():
            gauge.remove(*gone)
        self._series[gauge] = set(values)
