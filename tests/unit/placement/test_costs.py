"""Every derivation of money."""

from __future__ import annotations

from dataclasses import replace

import pytest

from placement import costs
from placement.index import Index
from placement.problem import Cell, Cluster, Demand, Model, Path, Placed, Pool, Problem, Shape
from placement.solution import Flow, Unserved, UnservedCode

CLUSTER = Cluster(name="c", provider="p", region="r", egress_usd_per_gib=0.1)
POOL = Pool(cluster="c", product="A", vram_gib=24.0, devices=8, usd_per_device_hour=2.0)
MODEL = Model(
    name="m",
    shapes=(Shape(product="A", devices=2, requests_per_second=10.0),),
    objective_ms=100.0,
    late_usd_per_1000=1.0,
    unserved_usd_per_1000=5.0,
    latency_usd_per_1000_per_ms=0.01,
    warmup_s=1800.0,
    move_usd=0.5,
    response_kib=1024.0,
)
PROBLEM = Problem(
    clusters=(CLUSTER,),
    pools=(POOL,),
    models=(MODEL,),
    cells=(Cell(name="u", country="DE"),),
    demands=(Demand(model="m", cell="u", requests_per_second=4.0),),
    paths=(Path(cell="u", cluster="c", rtt_ms=10.0),),
    current=(Placed(model="m", pool=POOL.name, replicas=1),),
    move_horizon_h=10.0,
)
KEY = ("m", POOL.name)


def flow(rps: float, latency_ms: float) -> Flow:
    return Flow(
        model="m",
        cell="u",
        cluster="c",
        requests_per_second=rps,
        latency_ms=latency_ms,
        within_objective=latency_ms <= MODEL.objective_ms,
    )


def test_a_request_costs_its_distance_its_lateness_and_its_egress() -> None:
    """Plans would send users far or late for what looks free."""
    egress_usd = 3600.0 / 1024 * 0.1
    assert costs.egress_usd_per_rps(MODEL, CLUSTER) == pytest.approx(egress_usd)
    assert costs.served_usd_per_rps(MODEL, CLUSTER, 50.0) == pytest.approx(3.6 * 0.01 * 50.0 + egress_usd)
    assert costs.served_usd_per_rps(MODEL, CLUSTER, 150.0) == pytest.approx(3.6 * (1.0 + 0.01 * 150.0) + egress_usd)


def test_a_start_costs_its_warm_up_once() -> None:
    """Replicas would move for savings smaller than the warm-up that nobody is served in."""
    assert costs.start_usd(MODEL, POOL, 2) == pytest.approx(0.5 * 2 * 2.0 + 0.5)
    [option] = Index(PROBLEM).options(MODEL)
    assert costs.start_usd_per_hour(PROBLEM, MODEL, option) == pytest.approx(2.5 / 10.0)


@pytest.mark.parametrize("losses_per_hour", [0.0, 0.2])
def test_hysteresis_and_the_engine_price_a_placement_alike(losses_per_hour: float) -> None:
    """A plan that the engine finds cheaper would be rejected, or a dearer one adopted, by other arithmetic."""
    pool = replace(POOL, market="spot", losses_per_hour=losses_per_hour)
    key = ("m", pool.name)
    running = (Placed(model="m", pool=pool.name, replicas=1),)
    index = Index(replace(PROBLEM, pools=(pool,), current=running))
    flows, counts = (flow(2.0, 60.0), flow(1.0, 130.0)), {key: 3}
    unserved = Unserved(model="m", cell="u", requests_per_second=1.0, code=UnservedCode.CAPACITY, reason="")
    whole = costs.placement_cost(index, counts, flows, (unserved,))
    mine = costs.model_usd_per_hour(
        index, MODEL, counts, flows, unserved_rps=1.0, overload_rps=0.0, started_from={key: 1}
    )
    assert mine == pytest.approx(whole.total)
    assert (whole.risk > 0.0) == (losses_per_hour > 0.0)


def test_no_starts_are_charged_for_what_is_kept() -> None:
    """Keeping a placement would look as dear as moving it."""
    index = Index(PROBLEM)
    kept = costs.model_usd_per_hour(index, MODEL, {KEY: 3}, (), unserved_rps=0.0, overload_rps=0.0)
    assert kept == pytest.approx(3 * 2 * 2.0)


def test_a_floor_that_yields_is_missed_before_users_go_unserved() -> None:
    """An even spread would be held at the price of users whom nobody serves."""
    unserved_usd = costs.THOUSANDS_PER_HOUR * MODEL.unserved_usd_per_1000
    assert costs.missed_usd_per_hour(MODEL, "max_part") < costs.missed_usd_per_hour(MODEL, "survive") < unserved_usd
    assert costs.missed_usd_per_hour(MODEL, "min_replicas") > 1e3 * unserved_usd
