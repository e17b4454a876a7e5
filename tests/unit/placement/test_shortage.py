"""What happens when there is not enough: who goes short, who is told what, and what was kept for the worst."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from placement import engine
from placement.check import check, check_routing
from placement.problem import Cell, Cluster, Demand, Model, Path, Placed, Pool, Problem, Shape

FAR_MS, NEAR_MS = 90.0, 10.0


def a_model(name: str, **rules: Any) -> Model:
    return Model(
        name=name,
        shapes=(Shape(product="L4", devices=1, requests_per_second=10.0),),
        objective_ms=200.0,
        late_usd_per_1000=rules.pop("late_usd_per_1000", 0.5),
        unserved_usd_per_1000=rules.pop("unserved_usd_per_1000", 20.0),
        target_utilisation=1.0,
        **rules,
    )


def a_problem(
    models: tuple[Model, ...], devices: dict[str, int], demand: dict[tuple[str, str], float], **kwargs: Any
) -> Problem:
    """One pool of L4 in each cluster, which is a region of its own; cells and clusters of the same name are near."""
    cells = sorted({cell for _, cell in demand})
    return Problem(
        clusters=tuple(Cluster(name=name, provider="test", region=name) for name in devices),
        pools=tuple(
            Pool(cluster=name, product="L4", vram_gib=24, devices=count, usd_per_device_hour=1.0)
            for name, count in devices.items()
        ),
        models=models,
        cells=tuple(Cell(name=cell, country="DE") for cell in cells),
        demands=tuple(Demand(model=m, cell=c, requests_per_second=rps) for (m, c), rps in demand.items()),
        paths=tuple(
            Path(cell=cell, cluster=name, rtt_ms=NEAR_MS if cell == name else FAR_MS)
            for cell in cells
            for name in devices
        ),
        **kwargs,
    )


def unserved_rps(solution: Any) -> dict[str, float]:
    found: dict[str, float] = {}
    for one in solution.unserved:
        found[one.model] = found.get(one.model, 0.0) + one.requests_per_second
    return found


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        pytest.param(0, {"chat": 30.0}, id="by-price-when-equal"),
        pytest.param(5, {"rank": 30.0}, id="by-priority-before-price"),
    ],
)
def test_the_higher_priority_is_served_first(first: int, expected: dict[str, float]) -> None:
    """In a shortage what a business lives on would be turned away for what merely pays more."""
    models = (a_model("chat", priority=first, unserved_usd_per_1000=1.0), a_model("rank"))
    problem = a_problem(models, {"fra": 3}, {("chat", "fra"): 30.0, ("rank", "fra"): 30.0})
    solution = engine.solve(problem)
    assert check(problem, solution) == ()
    assert unserved_rps(solution) == pytest.approx(expected)


def test_a_shortage_says_what_one_more_device_would_save() -> None:
    """A platform team could not tell which device to buy first."""
    problem = a_problem((a_model("chat"),), {"fra": 2}, {("chat", "fra"): 35.0})
    solution = engine.solve(problem)
    [missing] = solution.unserved
    more = replace(problem, pools=(replace(problem.pools[0], devices=3),))
    saved = solution.cost.total - engine.solve(more).cost.total
    assert solution.scarce[0].pool == "fra/L4/on-demand"
    assert solution.scarce[0].usd_per_hour == pytest.approx(saved, rel=1e-4)
    assert f"one more L4 in fra would save up to {saved:.2f} USD an hour" in missing.reason


def test_users_of_one_model_go_short_alike() -> None:
    """One town would be served whole and the next not at all, for a millisecond between them."""
    demand = {("chat", "fra"): 20.0, ("chat", "par"): 20.0}
    problem = a_problem((a_model("chat"),), {"fra": 2}, demand)
    ready = {("chat", "fra/L4/on-demand"): 2}
    routing = engine.route(problem, ready)
    assert check_routing(problem, ready, routing) == ()
    assert sorted((one.cell, round(one.requests_per_second, 3)) for one in routing.unserved) == [
        ("fra", 10.0),
        ("par", 10.0),
    ]


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_whatever_region_is_lost_the_protected_users_are_served(fraction: float) -> None:
    """The insurance that policy pays for would not pay out on the day of the loss."""
    demand = {("chat", "fra"): 40.0, ("chat", "par"): 20.0, ("chat", "iad"): 30.0}
    model = a_model("chat", survive="region", survive_fraction=fraction)
    problem = a_problem((model,), {"fra": 9, "par": 9, "iad": 9}, demand)
    plain = engine.solve(replace(problem, models=(replace(model, survive=None),)))
    solution = engine.solve(problem)
    assert check(problem, solution) == () and not solution.shortfalls
    assert solution.cost.total > plain.cost.total or fraction < 1.0
    for lost in ("fra", "par", "iad"):
        ready = {(one.model, one.pool): one.replicas for one in solution.replicas if not one.pool.startswith(lost)}
        routing = engine.route(problem, ready)
        assert sum(one.requests_per_second for one in routing.unserved) <= (1 - fraction) * 90.0 + 1e-3, lost


def test_a_loss_that_cannot_be_survived_is_told_and_the_plan_is_loose() -> None:
    """A policy that cannot be kept would be kept in silence, or stop every plan."""
    model = a_model("chat", survive="provider")
    problem = a_problem((model,), {"fra": 9, "par": 9}, {("chat", "fra"): 40.0})
    solution = engine.solve(problem)
    assert check(problem, solution) == ()
    assert not solution.unserved
    [missed] = solution.shortfalls
    assert (missed.rule, missed.subject, missed.wanted, missed.placed) == ("survive", "test", 40.0, 0.0)


@pytest.mark.parametrize("engines", [engine.LARGE_PAIRS, -1], ids=["small", "large"])
def test_who_cannot_be_protected_costs_no_other_its_protection(engines: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One model with a policy that cannot be kept would leave all cheap ones unprotected on the day of a loss."""
    monkeypatch.setattr(engine, "LARGE_PAIRS", engines)
    models = (
        a_model("cheap", survive="region", unserved_usd_per_1000=0.035, late_usd_per_1000=0.01),
        a_model("stuck", survive="provider"),
    )
    demand = {("cheap", "fra"): 40.0, ("stuck", "fra"): 40.0}
    problem = a_problem(models, {"fra": 12, "par": 12}, demand)
    solution = engine.solve(problem)
    assert check(problem, solution) == ()
    assert not solution.unserved
    assert {one.model for one in solution.shortfalls} == {"stuck"}


@pytest.mark.parametrize("second_priority", [0, 9])
def test_who_cannot_be_protected_in_whole_replicas_costs_no_other_its_protection(second_priority: int) -> None:
    """Two models that fit in fractions and not in whole would leave everybody unprotected."""
    tight: dict[str, Any] = {
        "survive": "region",
        "shapes": (Shape(product="H100", devices=1, requests_per_second=10.0),),
    }
    models = (
        a_model("cheap", survive="region", unserved_usd_per_1000=0.035, late_usd_per_1000=0.01),
        replace(a_model("first"), **tight),
        replace(a_model("second", priority=second_priority), **tight),
    )
    demand = {("cheap", "fra"): 40.0, ("first", "fra"): 15.0, ("second", "fra"): 15.0}
    problem = a_problem(models, {"fra": 12, "par": 12}, demand)
    few = tuple(replace(pool, product="H100", devices=3) for pool in problem.pools)
    solution = engine.solve(replace(problem, pools=problem.pools + few))
    assert not solution.unserved
    expected = "first" if second_priority else "second"
    assert {one.model for one in solution.shortfalls} == {expected}


@pytest.mark.parametrize("engines", [engine.LARGE_PAIRS, -1], ids=["small", "large"])
def test_where_not_all_can_be_protected_those_of_high_priority_are(
    engines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch work would survive the loss of a region, and the users of the product would not."""
    monkeypatch.setattr(engine, "LARGE_PAIRS", engines)
    models = (
        a_model("batch", survive="region", unserved_usd_per_1000=40.0),
        a_model("chat", survive="region", priority=9),
    )
    demand = {("batch", "fra"): 30.0, ("chat", "fra"): 30.0}
    solution = engine.solve(a_problem(models, {"fra": 6, "par": 3}, demand))
    assert not solution.unserved
    assert {one.model for one in solution.shortfalls} == {"batch"}


def test_a_pin_holds_where_it_costs_more_and_a_budget_holds_the_rest_back() -> None:
    """A contract to serve from one place would be broken for a cent; or one cycle would restart the whole fleet."""
    model = a_model("chat", pins=())
    problem = a_problem(
        (model,),
        {"fra": 9, "par": 9},
        {("chat", "fra"): 40.0},
        current=(Placed(model="chat", pool="fra/L4/on-demand", replicas=4),),
    )
    cheap = replace(
        problem,
        pools=tuple(replace(one, usd_per_device_hour=0.1) if one.cluster == "par" else one for one in problem.pools),
    )
    assert counts(engine.solve(cheap)) == {"par": 4}
    budget = replace(cheap, models=(replace(model, max_starts=1),))
    assert counts(engine.solve(budget)) == {"fra": 3, "par": 1}


def counts(solution: Any) -> dict[str, int]:
    return {one.pool.split("/")[0]: one.replicas for one in solution.replicas}
