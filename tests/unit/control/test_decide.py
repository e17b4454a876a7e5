"""Hysteresis: what changes at once, what has to be worth it, and who has to make room."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
from msgspec import structs

import placement as engine
from federation.control import decide
from federation.control.plan import History
from federation.policy.documents import Disruption

RULES = Disruption(min_gain_percent=5.0, dwell_seconds=600.0, max_moves_per_hour=2)
Counts = dict[tuple[str, str], int]


def pool(cluster: str, usd: float = 1.0, devices: int = 10, market: Any = "on-demand") -> engine.Pool:
    return engine.Pool(
        cluster=cluster,
        product="L4",
        market=market,
        vram_gib=24,
        devices=devices,
        usd_per_device_hour=usd,
    )


def a_model(name: str = "chat", **rules: Any) -> engine.Model:
    return engine.Model(
        name=name,
        shapes=(engine.Shape(product="L4", devices=1, requests_per_second=10.0),),
        objective_ms=200.0,
        late_usd_per_1000=0.5,
        unserved_usd_per_1000=20.0,
        target_utilisation=1.0,
        **rules,
    )


def placed(counts: Counts) -> tuple[engine.Placed, ...]:
    return tuple(engine.Placed(model=m, pool=f"{c}/L4/on-demand", replicas=n) for (m, c), n in counts.items())


NOTHING = engine.Cost(accelerators=0, egress=0, late=0, unserved=0, moves=0, proximity=0)


def a_question(
    present: Counts,
    answer: Counts,
    *,
    pools: tuple[engine.Pool, ...],
    models: tuple[engine.Model, ...] = (a_model(),),
    unserved_now: float = 0.0,
    history: History | None = None,
    draining: str = "",
    demand_rps: float = 10.0,
    budgets: tuple[engine.Budget, ...] = (),
    rtt_ms: float | None = None,
) -> decide.Question:
    clusters = tuple(
        engine.Cluster(
            name=one.cluster,
            provider="test",
            region=one.cluster,
            intake=engine.Intake.DRAINING if one.cluster == draining else engine.Intake.OPEN,
        )
        for one in pools
    )
    problem = engine.Problem(
        clusters=clusters,
        pools=pools,
        models=models,
        cells=(engine.Cell(name="berlin", country="DE"),),
        demands=tuple(engine.Demand(model=m.name, cell="berlin", requests_per_second=demand_rps) for m in models),
        paths=tuple(engine.Path(cell="berlin", cluster=one.name, rtt_ms=rtt_ms) for one in clusters if rtt_ms),
        current=placed(present),
        budgets=budgets,
    )
    missing = engine.Unserved(
        model="chat", cell="berlin", requests_per_second=unserved_now, code=engine.UnservedCode.CAPACITY, reason="full"
    )
    return decide.Question(
        problem=problem,
        present=placed(present),
        solution=engine.Solution(
            replicas=placed(answer), flows=(), unserved=(), shortfalls=(), cost=NOTHING, bound_usd_per_hour=0, gap=0
        ),
        kept=engine.Routing(flows=(), unserved=(missing,) if unserved_now else (), cost=NOTHING),
        disruption={one.name: RULES for one in models},
        history=history or History(),
        now_s=10_000.0,
    )


@pytest.mark.parametrize(
    ("usd", "history", "code", "accepted"),
    [
        pytest.param(0.5, History(), "Gain", True, id="half-the-price"),
        pytest.param(0.96, History(), "GainTooSmall", False, id="four-percent"),
        pytest.param(1.2, History(), "GainTooSmall", False, id="dearer"),
        pytest.param(0.5, History(changed_s={"chat": 9_500.0}), "Dwell", False, id="changed-eight-minutes-ago"),
        pytest.param(0.5, History(changed_s={"chat": 9_300.0}), "Gain", True, id="changed-twelve-minutes-ago"),
        pytest.param(
            0.5, History(moved_s={"chat": (9_000.0, 9_100.0)}), "MovesPerHour", False, id="moved-twice-this-hour"
        ),
        pytest.param(0.5, History(moved_s={"chat": (6_000.0, 6_300.0)}), "Gain", True, id="moved-twice-before"),
    ],
)
def test_a_voluntary_change_must_be_worth_it(usd: float, history: History, code: str, accepted: bool) -> None:
    """Replicas would follow every twitch of a price, each move with a cold start."""
    pools = (pool("fra"), pool("par", usd))
    decision = decide.decide(a_question({("chat", "fra"): 1}, {("chat", "par"): 1}, pools=pools, history=history))
    assert [(v.code, v.accepted) for v in decision.verdicts] == [(code, accepted)]
    where = "par" if accepted else "fra"
    assert decision.target == {("chat", f"{where}/L4/on-demand"): 1}
    postponed = {("chat", "par/L4/on-demand")} if code == "Dwell" else set()
    assert decision.postponed == postponed, "only what has to wait is about to be started"


def test_users_left_unserved_wait_for_no_hysteresis() -> None:
    """Users would be turned away until the dwell is over."""
    history = History(changed_s={"chat": 9_999.0}, moved_s={"chat": (9_999.0,) * 9})
    question = a_question(
        {("chat", "fra"): 1}, {("chat", "fra"): 2}, pools=(pool("fra"),), unserved_now=5.0, history=history
    )
    decision = decide.decide(question)
    assert decision.verdicts[0].code == "HardRule"
    assert decision.target == {("chat", "fra/L4/on-demand"): 2}


@pytest.mark.parametrize(
    ("present", "kwargs", "reason"),
    [
        pytest.param({}, {}, "not placed yet", id="first"),
        pytest.param({("chat", "fra"): 1}, {"draining": "fra"}, "draining", id="drain"),
        pytest.param({("chat", "fra"): 1}, {"models": (a_model(min_replicas=2),)}, "policy asks 2", id="floor"),
        pytest.param({("chat", "fra"): 1}, {"models": (a_model(min_regions=2),)}, "1 regions", id="regions"),
        pytest.param({("chat", "fra"): 11}, {}, "10 devices left", id="devices-gone"),
    ],
)
def test_a_broken_hard_rule_waits_for_nothing(present: Counts, kwargs: dict[str, Any], reason: str) -> None:
    """A rule of the policy would stay broken as long as the new placement is dearer."""
    pools = (pool("fra"), pool("par", usd=9.0))
    decision = decide.decide(a_question(present, {("chat", "fra"): 1, ("chat", "par"): 2}, pools=pools, **kwargs))
    assert decision.verdicts[0].accepted
    assert reason in decision.verdicts[0].reason


def test_more_moves_than_the_hour_allows_are_asked_for_again_within_it() -> None:
    """A large gain would wait for ever behind a small limit."""
    pools = (pool("fra"), pool("par", 0.5))
    decision = decide.decide(a_question({("chat", "fra"): 5}, {("chat", "par"): 6}, pools=pools))
    assert [(verdict.code, verdict.accepted) for verdict in decision.verdicts] == [("MovesPerHour", False)]
    assert decision.budgets == {"chat": 3}, "two moves, and one start that no stop pays for"
    assert decision.target == {("chat", "fra/L4/on-demand"): 5}


def test_who_stands_in_the_way_of_a_must_makes_room() -> None:
    """A model with unserved users would wait for devices that another one merely prefers."""
    pools = (pool("fra", devices=2), pool("par", 1.01, devices=2))
    models = (a_model("chat"), a_model("rank"))
    question = a_question(
        {("chat", "fra"): 1, ("rank", "fra"): 1},
        {("chat", "fra"): 2, ("rank", "par"): 1},
        pools=pools,
        models=models,
        unserved_now=9.0,
    )
    decision = decide.decide(question)
    assert {v.model: v.code for v in decision.verdicts} == {"chat": "HardRule", "rank": "MakesRoom"}
    assert decision.target[("rank", "par/L4/on-demand")] == 1


def test_an_unchanged_answer_is_no_change() -> None:
    """A quiet world would make a new plan every minute."""
    same: Counts = {("chat", "fra"): 1}
    decision = decide.decide(a_question(same, same, pools=(pool("fra"),)))
    assert decision.verdicts == ()
    assert decision.history == History()


def test_a_plan_is_priced_as_it_is_and_not_as_it_was_asked_for() -> None:
    """People would read a cost, and a distance from the best, of a placement that hysteresis did not let happen."""
    pools = (pool("fra", devices=4), pool("par", usd=0.98, devices=4))
    question = a_question(
        {("chat", "fra"): 2, ("rank", "fra"): 1},
        {("chat", "par"): 2, ("rank", "par"): 1},
        pools=pools,
        models=(a_model("chat"), a_model("rank", min_regions=1, pins=(engine.Pin(cluster="par", replicas=1),))),
        demand_rps=1000.0,
    )
    flow = engine.Flow(
        model="chat", cell="berlin", cluster="fra", requests_per_second=25.0, latency_ms=50.0, within_objective=True
    )
    moved = structs.replace(flow, cluster="par")
    cost = engine.Cost(accelerators=2.94, egress=0, late=0, unserved=0, moves=0, proximity=0)
    question = replace(
        question,
        solution=replace(question.solution, flows=(moved,), cost=cost, bound_usd_per_hour=2.9),
        kept=replace(question.kept, flows=(flow,)),
    )
    decision = decide.decide(question)
    assert {one.model: one.accepted for one in decision.verdicts} == {"chat": False, "rank": True}
    planned = decide.appraise(question, decision)
    assert planned.flows == (flow,)
    assert planned.cost.accelerators == pytest.approx(2 * 1.0 + 0.98)
    assert planned.cost.late == pytest.approx(3.6 * 5.0 * 0.5), "what is served beyond what plans count on"
    assert planned.gap == pytest.approx(1 - 2.9 / planned.cost.total)


def test_a_plan_that_overloads_is_not_called_the_best() -> None:
    """What was kept serves more than plans count on, for less than any plan may cost: the map would say 0.00 %."""
    question = a_question({("chat", "fra"): 1}, {("chat", "par"): 1}, pools=(pool("fra"), pool("par", usd=0.98)))
    question = replace(question, solution=replace(question.solution, bound_usd_per_hour=5.0))
    decision = decide.decide(question)
    assert not decision.verdicts[0].accepted
    planned = decide.appraise(question, decision)
    assert planned.gap == 0 and planned.is_loose


def test_what_is_taken_whole_is_priced_as_it_was_answered() -> None:
    """Rounding would make a plan's cost another one than the engine's."""
    question = a_question({}, {("chat", "fra"): 1}, pools=(pool("fra"),))
    assert decide.appraise(question, decide.decide(question)) is question.solution


def test_a_clock_that_was_wrong_once_forbids_no_change_for_years() -> None:
    """No model would move by choice until the year that the clock had said, over restarts too."""
    history = History(changed_s={"chat": 4e9, "other": 5.0}, moved_s={"chat": (4e9, 4e9), "other": (5.0,)})
    now = decide.without_future(history, 1000.0)
    assert now == History(changed_s={"chat": 1000.0, "other": 5.0}, moved_s={"chat": (1000.0, 1000.0), "other": (5.0,)})
    assert decide.without_future(now, 1000.0) is now


def test_a_placement_beyond_its_limit_does_not_wait_for_hysteresis() -> None:
    """A policy would go on spending more than it may until the dwell is over."""
    history = History(changed_s={"chat": 9_999.0})
    now, less = {("chat", "fra"): 3}, {("chat", "fra"): 2}
    few = a_question(now, less, pools=(pool("fra"),), models=(a_model(max_replicas=2),), history=history)
    money = engine.Budget(name="money", models=("chat",), usd_per_hour=2.5)
    poor = a_question(now, less, pools=(pool("fra"),), budgets=(money,), history=history)
    for question, says in ((few, "3 replicas, policy allows 2"), (poor, "cost 3.00 USD/h, its budget is 2.50")):
        decision = decide.decide(question)
        assert [(one.code, one.accepted) for one in decision.verdicts] == [("HardRule", True)]
        assert says in decision.verdicts[0].reason
        assert decision.target == {("chat", "fra/L4/on-demand"): 2}


def test_who_stands_in_the_way_of_a_budget_changes_too() -> None:
    """One model would take its part of the answer, another keep what it had, and both together cost too much."""
    models = (a_model("chat"), a_model("other"))
    money = engine.Budget(name="money", models=("chat", "other"), usd_per_hour=4.0)
    decision = decide.decide(
        a_question(
            {("chat", "fra"): 1, ("other", "fra"): 3},
            {("chat", "fra"): 2, ("other", "fra"): 2},
            pools=(pool("fra"),),
            models=models,
            budgets=(money,),
            unserved_now=9.0,
            history=History(changed_s={"other": 9_999.0}),
        )
    )
    assert {one.model: one.code for one in decision.verdicts} == {"chat": "HardRule", "other": "MakesRoom"}
    assert sum(decision.target.values()) == 4


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        pytest.param({}, "GainTooSmall", id="no-rule"),
        pytest.param({"survive": "region", "survive_within_fraction": 0.9}, "HardRule", id="in-time"),
        pytest.param({"max_part": engine.MaxPart(domain="region", fraction=0.6)}, "HardRule", id="part"),
    ],
)
def test_a_placement_that_a_loss_takes_too_much_of_changes_at_once(rules: dict[str, Any], code: str) -> None:
    """What an owner asked to survive would wait until surviving it saves money."""
    two = {("chat", "fra"): 2}
    both = {("chat", "fra"): 1, ("chat", "iad"): 1}
    question = a_question(
        two,
        both,
        pools=(pool("fra"), pool("iad", 1.1)),
        models=(a_model(**{"survive_fraction": 0.0, **rules}),),
        rtt_ms=20,
    )
    [verdict] = decide.decide(question).verdicts
    assert verdict.code == code, verdict


def test_every_floor_has_words_for_its_breach() -> None:
    """A placement that breaks a new floor would end the planning cycle instead of being changed."""
    by_count_of_regions = {"min_regions"}
    assert set(decide._WHY) == set(get_args(engine.Floor)) - by_count_of_regions
