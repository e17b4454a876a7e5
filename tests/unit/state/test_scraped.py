"""Prometheus' answers in the words of an agent's report."""

from __future__ import annotations

from typing import Any

import pytest

from federation.state.reduce import PrometheusRead
from federation.state.scraped import Prometheus, Query, queries, read
from federation.state.world import OfCluster, Scraped, World
from federation.wire import messages
from tests.builders import a_model, a_policy, a_report, a_world, heard, some_demand, told

SETTINGS = Prometheus(url="http://prometheus:9090", models={"org/llama": "chat"})
COUNTED = messages.CountedSample(model="chat", cell="", requests_per_second=9.0)


def test_gateways_tell_cells_and_those_who_were_refused() -> None:
    """Users whom nobody can serve would ask for nothing."""
    found = read(
        SETTINGS,
        [
            (
                Query("users", ""),
                [
                    ({"cluster": "fra", "envoy_cluster_name": "chat|cell|St. Gallen"}, 4.0),
                    ({"cluster": "fra", "envoy_cluster_name": "chat|any"}, 3.0),
                    ({"cluster": "fra", "envoy_cluster_name": "chat|others"}, 2.0),
                    ({"envoy_cluster_name": "chat|any"}, 99.0),
                    ({"cluster": "fra", "envoy_cluster_name": "chat|any"}, float("nan")),
                ],
            ),
            (
                Query("users_by_name", ""),
                [
                    ({"cluster": "fra", "envoy_local_http_ratelimit_prefix": "refused|chat|St. Gallen"}, 1.0),
                    ({"cluster": "fra", "envoy_local_http_ratelimit_prefix": "sent|chat|Bern"}, 1.5),
                ],
            ),
            (Query("", ""), [({"cluster": "iad", "model": "chat", "cell": "Bonn"}, 6.0)]),
        ],
    )
    assert {(name, one.cell): one.requests_per_second for name, of in found.items() for one in of.counted} == {
        ("fra", ""): 3.5,
        ("fra", "Bern"): 1.5,
        ("fra", "St. Gallen"): 5.0,
        ("iad", "Bonn"): 6.0,
    }


def test_engines_are_known_by_our_names() -> None:
    """A model would have two names, and no demand under ours."""
    labels = {"cluster": "fra", "model_name": "org/llama"}
    kinds = {"replicas": 2.0, "requests_per_second": 7.0, "waiting": 3.0, "kv_cache_used": 1.2}
    (engine,) = read(SETTINGS, [(Query(kind, ""), [(labels, value)]) for kind, value in kinds.items()])["fra"].engines
    assert (engine.model, engine.replicas, engine.requests_per_second) == ("chat", 2, 7.0)
    assert (engine.waiting, engine.kv_cache_used, engine.running) == (3.0, 1.0, None)


def test_labels_and_window_are_the_operators() -> None:
    """Whoever labels otherwise would see nothing."""
    asked = queries(Prometheus(url="http://p", cluster_label="k8s", window_seconds=300, queries={"mine": "sum(x)"}))
    assert all("k8s" in one.expression for one in asked[:-1])
    assert any("[300s]" in one.expression for one in asked)
    assert asked[-1] == Query("", "sum(x)")


@pytest.mark.parametrize(
    ("by_agent", "age_s", "source", "rps"),
    [
        ({}, 10.0, "prometheus", 9.0),
        ({}, 1000.0, None, None),
        ({"counted": (messages.CountedSample(model="chat", requests_per_second=4.0),)}, 10.0, "gateway", 4.0),
        ({"demand": (some_demand("chat", "Bonn", 2.0),)}, 10.0, "file", None),
    ],
)
def test_what_is_nearer_to_the_users_goes_first(
    by_agent: dict[str, Any], age_s: float, source: str | None, rps: float | None
) -> None:
    """Users would count twice, or for ever after Prometheus is gone."""
    world = a_world("fra", models=(a_model("chat"),), policies=(a_policy("chat"),))
    world = world_with(world, Scraped(at_s=0.0, by_cluster={"fra": OfCluster(counted=(COUNTED,))}))
    world = heard(world, a_report("fra", **by_agent), now_s=age_s)
    assert world.clusters["fra"].sources.get("chat") == source
    found = {key[1]: one.requests_per_second for key, one in world.demand.items()}
    assert found.get("near-fra") == rps


def test_figures_of_a_prometheus_that_is_away_teach_nothing() -> None:
    """Capacity would go on falling by what engines said an hour ago."""
    engine = messages.EngineSample(model="chat", replicas=1, requests_per_second=3.0, waiting=9.0)
    world = a_world("fra", models=(a_model("chat"),), policies=(a_policy("chat"),))
    for error, known in (("", (engine,)), ("connection refused", ())):
        by_cluster = {"fra": OfCluster(counted=(COUNTED,), engines=(engine,))}
        world = world_with(world, Scraped(at_s=0.0, by_cluster=by_cluster, error=error))
        world = heard(world, a_report("fra", 2 if error else 1), now_s=1.0)
        report = world.clusters["fra"].report
        assert report is not None and report.engines == known
        assert report.counted == (COUNTED,)


def world_with(world: World, scraped: Scraped) -> World:
    return told(world, PrometheusRead(scraped=scraped))
