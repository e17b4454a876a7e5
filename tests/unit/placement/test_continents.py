"""A continent that is asked for more than it can serve: who goes short, and how much of it other continents get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from placement import engine
from placement.check import check, check_routing
from placement.explain.cell import explain_cell
from placement.explain.model import explain_model
from placement.index import Index
from placement.large import plan as large
from placement.problem import Cell, Cluster, Demand, Model, Path, Pool, Problem, Residency, Shape
from placement.solution import Flow, Routing, Solution, UnservedCode

CONTINENTS = {"fra": "EU", "par": "EU", "iad": "NA", "nrt": "AS"}
DEVICES = {"fra": 100, "par": 100, "iad": 600, "nrt": 40}
"""One device serves five requests per second, so Europe serves 1,000."""
EUROPE_RPS = 1_300.0
READY = {name: f"{name}/L4/on-demand" for name in CONTINENTS}


def a_model(name: str = "chat", **rules: Any) -> Model:
    return Model(
        name=name,
        shapes=(Shape(product="L4", devices=1, requests_per_second=5.0),),
        objective_ms=100.0,
        late_usd_per_1000=0.5,
        unserved_usd_per_1000=20.0,
        target_utilisation=1.0,
        **rules,
    )


def overloaded(*models: Model, continents: dict[str, str] = CONTINENTS) -> Problem:
    """Europe asks for 30 % more than it can serve, in sum of all models; others for what they have. Cells are named as
    their cluster."""
    asked = {"fra": EUROPE_RPS / 2, "par": EUROPE_RPS / 2, "iad": 400.0, "nrt": 200.0}
    return Problem(
        clusters=tuple(
            Cluster(name=name, provider="test", region=name, continent=continents[name]) for name in CONTINENTS
        ),
        pools=tuple(
            Pool(cluster=name, product="L4", vram_gib=24, devices=DEVICES[name], usd_per_device_hour=1.0)
            for name in CONTINENTS
        ),
        models=models,
        cells=tuple(Cell(name=name, country=name[:2].upper(), continent=continents[name]) for name in CONTINENTS),
        demands=tuple(
            Demand(model=model.name, cell=name, requests_per_second=rps / len(models))
            for model in models
            for name, rps in asked.items()
        ),
        paths=tuple(
            Path(cell=users, cluster=name, rtt_ms=_rtt_ms(users, name)) for users in CONTINENTS for name in CONTINENTS
        ),
    )


def _rtt_ms(users: str, cluster: str) -> float:
    if users == cluster:
        return 10.0
    return 20.0 if CONTINENTS[users] == CONTINENTS[cluster] else 130.0


def exact(problem: Problem) -> Solution:
    return engine.solve(problem)


def as_large(problem: Problem) -> Solution:
    return engine.solution_of(Index(problem), large.solve(Index(problem)))


def leaving(answer: Solution | Routing, continent: str, model: str = "chat") -> float:
    """Requests per second of a continent's users that other continents serve."""
    return sum(
        flow.requests_per_second
        for flow in answer.flows
        if flow.model == model and CONTINENTS[flow.cell] == continent != CONTINENTS[flow.cluster]
    )


def unserved(answer: Solution | Routing, model: str = "chat") -> dict[str, float]:
    """Cell -> requests per second."""
    return {one.cell: one.requests_per_second for one in answer.unserved if one.model == model}


ENGINES = pytest.mark.parametrize("solve", [exact, as_large])


@ENGINES
@pytest.mark.parametrize(
    ("fraction", "expected_rps"),
    [
        pytest.param(1.0, 300.0, id="no cap: all that Europe has no room for"),
        pytest.param(0.3, 300.0, id="a cap above what is needed changes nothing"),
        pytest.param(0.1, 130.0, id="a cap: a tenth of what Europe asks"),
        pytest.param(0.0, 0.0, id="nobody leaves"),
    ],
)
def test_other_continents_get_what_policy_allows_and_no_more(
    solve: Callable[[Problem], Solution], fraction: float, expected_rps: float
) -> None:
    """One continent's rush would take the devices of the next, and its users would pay for it."""
    problem = overloaded(a_model(other_continents_max_fraction=fraction))
    solution = solve(problem)
    assert check(problem, solution) == ()
    assert leaving(solution, "EU") == pytest.approx(expected_rps, abs=1e-3)
    missing = unserved(solution)
    assert sum(missing.values()) == pytest.approx(300.0 - expected_rps, abs=1e-3)
    assert set(missing) <= {"fra", "par"}, "who has enough at home goes short of nothing"
    assert {one.code for one in solution.unserved} <= {UnservedCode.CONTINENT_CAP}
    assert solution.bound_usd_per_hour <= solution.cost.total + 1e-6


def test_who_is_left_is_told_that_the_cap_is_why() -> None:
    """A platform team would buy devices where a line of policy is what is in the way."""
    problem = overloaded(a_model(other_continents_max_fraction=0.1))
    solution = engine.solve(problem)
    first, *_ = solution.unserved
    assert first.reason.startswith("policy lets other continents serve at most 10 % of the requests from EU; ")
    assert first.reason.endswith(" has room")
    told = explain_model(problem, solution, "chat")
    assert "at most 10 % of a continent's requests, which leaves some of EU unserved" in told.summary
    ways = {way.cluster: way for way in explain_cell(problem, solution, "chat", "fra").ways}
    assert {way.code for way in ways.values()} <= {"Serves", "Even", "ContinentCap", "NoReplicas", "Full"}
    away = [way for way in ways.values() if CONTINENTS[way.cluster] != "EU" and way.usd_per_hour is not None]
    assert away and all("continent" in {term.name for term in way.terms} for way in away)


def test_a_cluster_that_no_user_may_leave_for_is_told_apart_from_residency() -> None:
    """An owner would look for a missing jurisdiction that is not missing."""
    problem = overloaded(a_model(other_continents_max_fraction=0.0))
    quiet = replace(problem, demands=tuple(one for one in problem.demands if one.cell in ("fra", "par")))
    solution = engine.solve(quiet)
    assert check(quiet, solution) == ()
    verdicts = {one.cluster: one for one in explain_model(quiet, solution, "chat").clusters}
    assert verdicts["iad"].code == "OtherContinent"
    ways = {way.cluster: way for way in explain_cell(quiet, solution, "chat", "fra").ways}
    assert ways["iad"].code == "OtherContinent"


@ENGINES
def test_priorities_hold_under_a_cap(solve: Callable[[Problem], Solution]) -> None:
    """What a business lives on would be turned away, because of a cap on something else."""
    gold = a_model("gold", priority=5, other_continents_max_fraction=0.1)
    problem = overloaded(a_model(other_continents_max_fraction=0.1), gold)
    solution = solve(problem)
    assert check(problem, solution) == ()
    assert unserved(solution, "gold") == {}
    assert sum(unserved(solution).values()) > 150.0
    assert leaving(solution, "EU") == pytest.approx(65.0, abs=1e-3)


@ENGINES
def test_one_model_is_capped_and_another_is_not(solve: Callable[[Problem], Solution]) -> None:
    """The cap of one team's model would bind another's, or neither."""
    problem = overloaded(a_model(other_continents_max_fraction=0.0), a_model("rank"))
    solution = solve(problem)
    assert check(problem, solution) == ()
    assert not solution.unserved, "who may leave makes room for who may not"
    assert leaving(solution, "EU") == 0.0
    assert leaving(solution, "EU", "rank") == pytest.approx(300.0, abs=1e-3)


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize(("fraction", "expected_rps"), [(1.0, 800.0), (0.2, 260.0), (0.0, 0.0)])
def test_the_cap_holds_when_a_region_is_lost(
    is_large: bool, fraction: float, expected_rps: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failover would do what the plan may not, on the day that other continents need their own devices most."""
    if is_large:
        monkeypatch.setattr(engine, "LARGE_PAIRS", -1)
    problem = overloaded(a_model(other_continents_max_fraction=fraction))
    ready = {("chat", READY[name]): DEVICES[name] for name in ("par", "iad", "nrt")}
    routing = engine.route(problem, ready)
    assert check_routing(problem, ready, routing) == ()
    assert leaving(routing, "EU") == pytest.approx(expected_rps, abs=1e-3)
    missing = unserved(routing)
    assert sum(missing.values()) == pytest.approx(800.0 - expected_rps, abs=1e-3)
    assert set(missing) <= {"fra", "par"}
    assert {one.code for one in routing.unserved} <= {UnservedCode.CONTINENT_CAP}
    if missing and not is_large:
        assert missing["fra"] == pytest.approx(missing["par"], abs=1e-3), "a continent's users go short alike"


@ENGINES
@pytest.mark.parametrize("fraction", [0.25, 0.0])
def test_who_is_on_no_known_continent_is_capped_everywhere(
    solve: Callable[[Problem], Solution], fraction: float
) -> None:
    """A country that the table lacks would be a way around the cap."""
    problem = overloaded(a_model(other_continents_max_fraction=fraction), continents={**CONTINENTS, "nrt": ""})
    solution = solve(problem)
    assert check(problem, solution) == ()
    served = sum(flow.requests_per_second for flow in solution.flows if flow.cell == "nrt")
    assert served == pytest.approx(fraction * 200.0, abs=1e-3)
    [reason] = [one.reason for one in solution.unserved if one.cell == "nrt"]
    assert "nobody knows the continent of NR" in reason


def test_residency_and_the_cap_hold_together() -> None:
    """Users whose data may not leave would fill what others of their continent may send away, or the other way."""
    rule = Residency(countries=("FR",), jurisdictions=("EU",))
    problem = overloaded(a_model(other_continents_max_fraction=0.1, residency=(rule,)))
    inside = replace(
        problem,
        clusters=tuple(
            replace(one, jurisdictions=("EU",)) if one.continent == "EU" else one for one in problem.clusters
        ),
    )
    solution = engine.solve(inside)
    assert check(inside, solution) == ()
    assert {flow.cell for flow in solution.flows if flow.cluster in ("iad", "nrt")} <= {"iad", "nrt", "par"}
    assert leaving(solution, "EU") == pytest.approx(130.0, abs=1e-3)


def test_the_verifier_sees_what_leaves_beyond_the_cap() -> None:
    """A fault of the solver would be committed."""
    problem = overloaded(a_model(other_continents_max_fraction=0.1))
    solution = engine.solve(replace(problem, models=(a_model(),)))
    assert {one.rule for one in check(problem, solution)} == {"continents"}
    ready = {(one.model, one.pool): one.replicas for one in solution.replicas}
    routing = Routing(flows=solution.flows, unserved=(), cost=solution.cost)
    assert {one.rule for one in check_routing(problem, ready, routing)} == {"continents"}
    assert check_routing(replace(problem, models=(a_model(),)), ready, routing) == ()


def test_the_verifier_holds_users_of_an_unknown_continent_to_the_cap() -> None:
    """Where the solver takes unknown for the same, nobody would see it."""
    problem = overloaded(a_model(other_continents_max_fraction=0.0), continents=dict.fromkeys(CONTINENTS, ""))
    flow = Flow(
        model="chat", cell="iad", cluster="iad", requests_per_second=400.0, latency_ms=10.0, within_objective=True
    )
    solution = engine.solve(problem)
    assert not solution.flows
    routing = Routing(flows=(flow,), unserved=solution.unserved, cost=solution.cost)
    found = {one.rule for one in check_routing(problem, {("chat", READY["iad"]): DEVICES["iad"]}, routing)}
    assert "continents" in found


def test_where_nobody_may_leave_survive_counts_on_the_continent_alone() -> None:
    """The insurance would count on clusters that may not help."""
    model = a_model(other_continents_max_fraction=0.0, survive="region", survive_fraction=0.5)
    problem = overloaded(model)
    calm = replace(
        problem,
        demands=tuple(structs.replace(one, requests_per_second=100.0) for one in problem.demands if one.cell != "nrt"),
    )
    solution = engine.solve(calm)
    assert check(calm, solution) == ()
    missed = {one.subject for one in solution.shortfalls}
    assert missed == {"iad"}, "Europe has two regions, North America one"
