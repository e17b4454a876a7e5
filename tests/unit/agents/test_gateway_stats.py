"""What a gateway's counters say of how a cluster serves, and what they do not say yet."""

from __future__ import annotations

import re
from typing import Any

import pytest

from agents.gateway.stats import FILTER, Served, Speed, difference, parse, together, users
from federation.wire import messages

FAST, SLOW = (10.0, 11.0), (350.0, 360.0)


def stats(requests: int, failed: int, bins: dict[tuple[float, float], int]) -> list[dict[str, Any]]:
    """As Envoy's `/stats?format=json&histogram_buckets=detailed` has it."""
    rows = [{"lower_bound": low, "width": high - low, "count": count} for (low, high), count in bins.items()]
    return [
        {"name": "cluster.chat|local.zone.fra-1.fra-1.upstream_rq_completed", "value": requests - 1},
        {"name": "cluster.chat|cell|St. Gallen.zone.fra-1.fra-1.upstream_rq_completed", "value": 1},
        {"name": "cluster.chat|local.zone.fra-1.fra-1.upstream_rq_5xx", "value": failed},
        {"name": "cluster.chat|any.zone.fra-1.iad-1.upstream_rq_completed", "value": 99},
        {
            "histograms": {
                "supported_percentiles": [50, 95],
                "details": [
                    {"name": "cluster.chat|any.zone.fra-1.fra-1.upstream_rq_time", "totals": rows, "intervals": []}
                ],
            }
        },
    ]


def test_counters_are_read_by_model() -> None:
    """Requests sent on to other clusters would count as this one's own, or its own users' would not."""
    assert parse(stats(5, 1, {FAST: 4, SLOW: 1})) == {
        "chat": Served(requests=5, failed=1, answers={FAST: 4, SLOW: 1}),
    }


def test_the_first_few_answers_say_nothing_of_speed() -> None:
    """A good cluster would be refused for minutes because its first connections were slow."""
    speed = Speed(since={}).later({SLOW: 12})
    assert speed.p95_ms is None
    speed = speed.later({SLOW: 12, FAST: 400})
    assert speed.p95_ms == FAST[1]


@pytest.mark.parametrize(
    ("bins", "p95_ms"),
    [
        pytest.param({FAST: 19, SLOW: 1}, FAST[1], id="one of twenty is slow"),
        pytest.param({FAST: 18, SLOW: 2}, SLOW[1], id="two of twenty are slow"),
        pytest.param({SLOW: 40}, SLOW[1], id="all are slow"),
        pytest.param({FAST: 19}, None, id="too few"),
    ],
)
def test_the_95th_percentile(bins: dict[tuple[float, float], int], p95_ms: float | None) -> None:
    """A degraded receiver would look fast, and the shift to it would go on."""
    assert Speed(since={}).later(bins).p95_ms == p95_ms


def test_what_is_told_is_of_the_newest_answers() -> None:
    """A cluster that has been fast for a week would need another week to show that it is slow."""
    speed = Speed(since={}).later({FAST: 100_000}).later({FAST: 100_000, SLOW: 15})
    assert speed.p95_ms == FAST[1], "not enough is new"
    assert speed.later({FAST: 100_000, SLOW: 30}).p95_ms == SLOW[1]


def test_a_gateway_that_started_anew_counts_from_zero() -> None:
    """Negative counts would be refused, and with them the whole report."""
    speed = Speed(since={}).later({FAST: 30, SLOW: 30}).later({FAST: 25})
    assert speed.p95_ms is None
    (sample,) = difference(
        {"chat": Served(requests=60, failed=30)}, {"chat": Served(requests=25)}, {"chat": speed}, 5.0
    )
    assert (sample.requests_per_second, sample.error_share, sample.latency_ms_p95) == (5.0, 0.0, None)


def test_nobody_who_asked_nothing_has_a_latency() -> None:
    """An idle model would keep the latency of its last burst, and a shift would wait for nothing."""
    same = {"chat": Served(requests=30, answers={FAST: 30})}
    (sample,) = difference(same, same, {"chat": Speed(since={}).later({FAST: 30})}, 5.0)
    assert (sample.requests_per_second, sample.latency_ms_p95) == (0.0, None)


def test_users_are_counted_by_the_cell_that_they_name() -> None:
    """Demand would be what gateways send each other, or miss those who are turned away, who need replicas most."""
    counted = {
        "cluster.chat|cell|St. Gallen.upstream_rq_completed": 40,
        "cluster.chat|cell|St. Gallen.external.upstream_rq_completed": 40,
        "cluster.chat|cell|St. Gallen.zone.fra-1.fra-1.upstream_rq_completed": 40,
        "cluster.chat|any.upstream_rq_completed": 25,
        "cluster.chat|others.upstream_rq_completed": 7,
        "cluster.chat|local.upstream_rq_completed": 1000,
        "refused|chat|St. Gallen.http_local_rate_limit.enabled": 2,
        "refused|chat|.http_local_rate_limit.enabled": 1,
        "refused|chat|.http_local_rate_limit.ok": 1,
        "sent|chat|Bern.http_local_rate_limit.enabled": 5,
        "cluster.isochrone.upstream_rq_completed": 9,
    }
    assert users([{"name": name, "value": value} for name, value in counted.items()]) == {
        ("chat", "St. Gallen"): 42,
        ("chat", "Bern"): 5,
        ("chat", ""): 28,
    }
    read = [name for name in counted if re.search(FILTER, name)]
    assert len(read) == len(counted) - 2


def test_several_gateways_are_one_front_door() -> None:
    """A cluster with two gateways would have half of its users, and the faster one's latency."""
    one = messages.ServedSample(model="chat", requests_per_second=30.0, error_share=0.1, latency_ms_p95=40.0)
    other = messages.ServedSample(model="chat", requests_per_second=10.0, error_share=0.5, latency_ms_p95=90.0)
    assert together([(one,), (other,), ()]) == (
        messages.ServedSample(model="chat", requests_per_second=40.0, error_share=0.2, latency_ms_p95=90.0),
    )
