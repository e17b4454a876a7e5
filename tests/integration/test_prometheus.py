"""Demand, the load of engines and learnt capacity from a real Prometheus alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from federation.state.scraped import Prometheus as PrometheusSettings
from federation.state.world import World
from tests.testbed.fixtures import require_prometheus
from tests.testbed.fleet import Fleet
from tests.testbed.prometheus import Exporter, Prometheus
from tests.testbed.small_world import MODEL, PLACES, POLICY

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(300)]
ENGINE = "meta-llama/Llama-3.1-8B"
PATIENCE_S = 60.0


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    require_prometheus()
    with Exporter() as exporter:
        yield exporter


def users(cell: str, kind: str = "") -> str:
    """The series of Envoy that counts a cell's requests, or those that it refused."""
    if kind:
        prefix = f"{kind}|chat-8b|{cell}"
        return f'envoy_http_local_rate_limit_enabled{{envoy_local_http_ratelimit_prefix="{prefix}"}}'
    return f'envoy_cluster_upstream_rq_completed{{envoy_cluster_name="chat-8b|cell|{cell}"}}'


def vllm(name: str, replica: int, **labels: str) -> str:
    given = {"engine": "0", "model_name": ENGINE, "pod": f"chat-8b-{replica}", **labels}
    return f"vllm:{name}{{{','.join(f'{key}={value!r}' for key, value in given.items())}}}".replace("'", '"')


def say(exporter: Exporter, cluster: str, *, replicas: int, rps: float, waiting: float) -> None:
    """What a cluster's replicas say, each the same."""
    for replica in range(replicas):
        exporter.rates[cluster][vllm("request_success_total", replica, finished_reason="stop")] = rps
        exporter.rates[cluster][vllm("prompt_tokens_total", replica)] = 500 * rps
        exporter.rates[cluster][vllm("generation_tokens_total", replica)] = 200 * rps
        exporter.gauges[cluster][vllm("num_requests_running", replica)] = 8.0
        exporter.gauges[cluster][vllm("num_requests_waiting", replica)] = waiting
        exporter.gauges[cluster][vllm("kv_cache_usage_perc", replica)] = 0.7


def test_prometheus_alone_moves_the_plan_and_its_silence_moves_nothing(exporter: Exporter, tmp_path: Path) -> None:
    """Whoever has Prometheus would have to write files beside it; a monitoring that is down would move the fleet."""
    exporter.rates["fra"][users("Berlin")] = 20.0
    exporter.rates["fra"][users("Berlin", "refused")] = 5.0
    exporter.rates["iad"][users("New York")] = 20.0
    with Prometheus(exporter.port, PLACES) as prometheus:
        settings = PrometheusSettings(
            url=prometheus.url, models={ENGINE: "chat-8b"}, window_seconds=10, period_seconds=0.5
        )
        with Fleet(tmp_path, prometheus=settings) as fleet:
            assert fleet.apply("chat.yaml", MODEL, POLICY)[0] == 200

            def world() -> World:
                return fleet.do(lambda: fleet.controller.hub.world)

            def rps(cell: str) -> float:
                found = {key[1]: one.requests_per_second for key, one in world().demand.items()}
                return found.get(cell, 0.0)

            def replicas() -> int:
                return sum(one.replicas for one in fleet.do(lambda: fleet.controller.hub.plan.placement.replicas))

            def ready() -> dict[str, int]:
                found: dict[str, int] = dict.fromkeys(PLACES, 0)
                for key, count in world().ready_replicas().items():
                    found[key.cluster] += count
                return found

            fleet.until(lambda: abs(rps("Berlin") - 25) < 3, "users who were refused count too", timeout_s=PATIENCE_S)
            fleet.until(lambda: abs(rps("New York") - 20) < 3, "users of another gateway", timeout_s=PATIENCE_S)
            assert world().clusters["fra"].sources == {"chat-8b": "prometheus"}
            assert (world().cells["Berlin"].country, world().cells["Berlin"].lat) == ("DE", 52.5)
            fleet.until(lambda: replicas() >= 6, "a plan for 45 requests per second", timeout_s=PATIENCE_S)

            exporter.rates["fra"][users("Berlin")] = 55.0
            before = replicas()
            fleet.until(lambda: replicas() > before, "more replicas for more users", timeout_s=PATIENCE_S)

            planned = replicas()
            fleet.until(lambda: sum(ready().values()) == planned, "all of them ready", timeout_s=PATIENCE_S)
            for cluster, count in ready().items():
                say(exporter, cluster, replicas=count, rps=7.0, waiting=12.0)

            def engine_says() -> bool:
                reports = [state.report for state in world().clusters.values() if state.report is not None]
                engines = [one for report in reports for one in report.engines]
                tokens = [one for one in engines if (one.output_tokens_per_second or 0) > 1000]
                return bool(tokens) and all((one.waiting or 0) >= 12 for one in tokens)

            fleet.until(engine_says, "tokens and requests that wait", timeout_s=PATIENCE_S)

            def learnt() -> float:
                return min((one.factor for one in world().learnt.values()), default=1.0)

            fleet.until(lambda: learnt() < 0.93, "capacity below what is declared", timeout_s=PATIENCE_S)
            fleet.until(lambda: replicas() > planned, "more replicas, as each serves less", timeout_s=PATIENCE_S)

            (berlin,) = [one for one in fleet.get("/v1/demand")["items"] if one["cell"] == "Berlin"]
            assert (berlin["sources"], berlin["is_spread"]) == (["fra (prometheus)"], False)
            engines = fleet.get("/v1/engines")["items"]
            assert engines and all(0 < one["learnt_rps"] < one["declared_rps"] for one in engines)

            exporter.gauges.clear()
            prometheus.stop()
            fleet.until(lambda: world().scraped.error, "that Prometheus is away", timeout_s=PATIENCE_S)
            time.sleep(2.0)  # a plan that was being made
            known, placed, at_s = rps("Berlin"), replicas(), world().scraped.at_s
            time.sleep(4.0)  # of the product's clock 40 s: five stale times of its agents
            assert (rps("Berlin"), replicas()) == (known, placed)
            assert world().scraped.at_s == at_s
            assert any(one.reason == "PrometheusFailed" for one in fleet.do(lambda: list(fleet.controller.hub.events)))

            prometheus.start()
            fleet.until(lambda: not world().scraped.error, "that Prometheus is back", timeout_s=PATIENCE_S)
            assert world().scraped.at_s > at_s
