"""What a cluster's gateways are told in the objects of Gateway API, without an API server."""

from __future__ import annotations

from typing import Any

import pytest

from agents.gateway.objects import EXPORT, HTTP_ROUTE, IMPORT, POOL, POOL_IMPORT, Kind, service_name, wanted
from federation.wire import messages


def route(installed: tuple[Kind, ...], **weights: int) -> list[dict[str, Any]]:
    """The references of the rule for a cluster's own users; the cluster is fra."""
    backends = tuple(
        messages.BackendShare(cluster=name, weight=weight, address="192.0.2.1", port=443)
        for name, weight in weights.items()
    )
    model = messages.ModelTraffic(model="chat", port=8000, backends=backends, remote="ServiceImport")
    traffic = messages.Traffic(cluster="fra", address="192.0.2.1", port=443, lat=50.1, lon=8.7, models=(model,))
    made = dict(wanted(traffic, "models", (HTTP_ROUTE, EXPORT, IMPORT, *installed)).objects)
    refs: list[dict[str, Any]] = made[HTTP_ROUTE]["spec"]["rules"][1]["backendRefs"]
    return refs


@pytest.mark.parametrize("installed", [(), (POOL, POOL_IMPORT)], ids=["services", "pools"])
def test_who_is_sent_nothing_is_not_named(installed: tuple[Kind, ...]) -> None:
    """A gateway fails all requests of a rule for one pool that is empty or not there (istio/istio#61594)."""
    assert [one["name"] for one in route(installed, fra=700, mad=300, iad=0)] == [
        service_name("chat", "fra"),
        service_name("chat", "mad"),
    ]
    assert [one["weight"] for one in route(installed, fra=0, mad=1000)] == [1000]


def test_where_nobody_is_sent_anything_the_rule_stays() -> None:
    """A rule without references is refused by gateways, and the one before it would go on."""
    assert [one["weight"] for one in route((), fra=0, mad=0)] == [0, 0]
