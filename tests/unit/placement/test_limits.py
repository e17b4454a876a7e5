"""Policy's own limits: who goes without because of them, who is told what, and what they are stronger than."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from placement import engine
from placement.check import check
from placement.explain.model import explain_model
from placement.problem import Budget, Intake, Model, Placed, Problem
from placement.solution import Solution, UnservedCode
from tests.unit.placement.test_shortage import a_model, a_problem, unserved_rps

pytestmark = pytest.mark.timeout(400)  # the first call compiles, for most of a minute
SIZES = pytest.mark.parametrize("pairs", [engine.LARGE_PAIRS, -1], ids=["small", "large"])


def a_limited(
    *models: Model, usd_per_hour: float | None = None, devices: int = 9, rps: float = 50.0, **more: Any
) -> Problem:
    """Each model is asked for as much in fra; one replica costs a dollar an hour and serves ten requests per second."""
    names = tuple(model.name for model in models)
    budgets = (Budget(name="money", models=names, usd_per_hour=usd_per_hour),) if usd_per_hour is not None else ()
    demand = {(name, "fra"): rps for name in names}
    return a_problem(models, {"fra": devices, "par": devices}, demand, budgets=budgets, **more)


def solved(problem: Problem, pairs: int, monkeypatch: pytest.MonkeyPatch) -> Solution:
    monkeypatch.setattr(engine, "LARGE_PAIRS", pairs)
    solution = engine.solve(problem)
    assert check(problem, solution) == ()
    return solution


def total(solution: Solution) -> int:
    return sum(one.replicas for one in solution.replicas)


@SIZES
def test_what_a_limit_leaves_unserved_says_what_to_raise(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A platform team would look for devices that are there, where it had forbidden itself to use them."""
    most = solved(a_limited(a_model("chat", max_replicas=3)), pairs, monkeypatch)
    assert total(most) == 3 and unserved_rps(most) == pytest.approx({"chat": 20.0})
    [missing] = most.unserved
    assert missing.code is UnservedCode.MAX_REPLICAS
    assert "maxReplicas 3 allows no more; one more would save up to 719.00 USD an hour" in missing.reason
    assert "raise availability.maxReplicas of the policy of chat" in missing.reason

    money = solved(a_limited(a_model("chat"), usd_per_hour=3.5), pairs, monkeypatch)
    assert total(money) == 3
    [missing] = money.unserved
    assert missing.code is UnservedCode.BUDGET
    assert "policy money spends 3.00 of its maxUsdPerHour 3.50" in missing.reason
    assert "raise budget.maxUsdPerHour of money" in missing.reason


@SIZES
def test_what_is_not_worth_its_price_is_not_the_limits_doing(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody would raise a limit, and nothing would be served for it."""
    cheap = a_model("chat", max_replicas=0, unserved_usd_per_1000=0.02)
    solution = solved(a_limited(cheap), pairs, monkeypatch)
    assert {one.code for one in solution.unserved} == {UnservedCode.PRICE}


@SIZES
def test_limits_that_are_not_reached_change_nothing(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit for the worst day would cost something on all the others."""
    free = solved(a_limited(a_model("chat")), pairs, monkeypatch)
    solution = solved(a_limited(a_model("chat", max_replicas=6), usd_per_hour=6.0), pairs, monkeypatch)
    assert solution == free and not solution.reached


@SIZES
def test_models_share_their_budget_by_priority_and_then_by_what_they_are_worth(
    pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a business lives on would be turned away for what merely came first."""
    dear, cheap = a_model("dear"), a_model("cheap", unserved_usd_per_1000=5.0)
    by_price = solved(a_limited(dear, cheap, usd_per_hour=6.0), pairs, monkeypatch)
    assert unserved_rps(by_price) == pytest.approx({"cheap": 40.0})
    first = replace(cheap, priority=5)
    by_priority = solved(a_limited(dear, first, usd_per_hour=6.0), pairs, monkeypatch)
    assert unserved_rps(by_priority) == pytest.approx({"dear": 40.0})


@SIZES
@pytest.mark.parametrize(
    ("floor", "rule"),
    [
        ({"min_replicas": 5}, "min_replicas"),
        ({"min_replicas": 2, "min_regions": 2}, "min_regions"),
        ({"survive": "region"}, "survive"),
    ],
)
def test_a_limit_is_stronger_than_a_floor_and_says_so(
    floor: dict[str, Any], rule: str, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A floor that somebody mistyped would spend without end."""
    most = 1.0 if rule == "min_regions" else 3.0
    solution = solved(a_limited(a_model("chat", **floor), usd_per_hour=most, rps=15.0), pairs, monkeypatch)
    assert total(solution) == most
    missed: dict[str, str] = {one.rule: one.reason for one in solution.shortfalls}
    assert f"policy money spends {most:.2f} of its maxUsdPerHour {most:.2f}" in missed[rule]


@SIZES
def test_what_is_held_stays_and_nothing_else_runs_beside_it(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent cluster would make every plan impossible, or the fleet spend as if it cost nothing."""
    problem = a_limited(
        a_model("chat", max_replicas=2),
        usd_per_hour=2.0,
        current=(Placed(model="chat", pool="par/L4/on-demand", replicas=4),),
    )
    held = tuple(replace(one, intake=Intake.HELD) if one.name == "par" else one for one in problem.clusters)
    solution = solved(replace(problem, clusters=held), pairs, monkeypatch)
    assert [(one.pool, one.replicas) for one in solution.replicas] == [("par/L4/on-demand", 4)]


def test_the_checker_sees_what_is_beyond_a_limit() -> None:
    """A solver's error would be committed, and paid for."""
    problem = a_limited(a_model("chat"))
    solution = engine.solve(problem)
    assert total(solution) == 5
    few = replace(problem, models=(replace(problem.models[0], max_replicas=4),))
    assert [one.rule for one in check(few, solution)] == ["max_replicas"]
    poor = replace(problem, budgets=(Budget(name="money", models=("chat",), usd_per_hour=4.99),))
    assert [one.rule for one in check(poor, solution)] == ["budget"]


@pytest.mark.parametrize(("limit", "code"), [({"max_replicas": 3}, "MaxReplicas"), ({}, "Budget")])
def test_an_explanation_says_that_the_limit_is_why_not(limit: dict[str, Any], code: str) -> None:
    """Nobody could tell why a cluster with free devices is not used while users are turned away."""
    problem = a_limited(a_model("chat", **limit), usd_per_hour=None if limit else 3.0)
    told = explain_model(problem, engine.solve(problem), "chat")
    assert {one.code for one in told.clusters if not one.replicas} == {code}
    assert ("maxReplicas 3" if limit else "maxUsdPerHour 3.00") in told.summary


def test_routing_uses_what_runs_whatever_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users would be turned away in front of replicas that run, because a price rose."""
    ready = {("chat", "fra/L4/on-demand"): 5}
    for pairs in (engine.LARGE_PAIRS, -1):
        monkeypatch.setattr(engine, "LARGE_PAIRS", pairs)
        assert not engine.route(a_limited(a_model("chat", max_replicas=1), usd_per_hour=1.0), ready).unserved
