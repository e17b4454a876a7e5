"""What a placement cycle decides of the engine's proposal."""

from __future__ import annotations

from dataclasses import replace

import placement as engine
from federation.adapters.solver import solve_and_check
from federation.control import placement_cycle
from federation.control.placement_cycle import Outcome, Proposal, conclude, give_up, set_aside_notes, why_not_now
from federation.control.plan import Placement, Plan, Replicas
from federation.control.problem import Formulated, formulate
from federation.control.replacement import Loss
from federation.policy.documents import Disruption
from federation.state.keys import ModelCluster
from federation.state.reduce import BrokerLost
from federation.state.world import World
from tests.builders import L4, a_model, a_policy, a_report, a_world, heard, some_demand, told

KEY = ("chat", "fra", L4)


def asking(rps: float = 40.0) -> World:
    """Users in Berlin ask for chat; fra is near to them and has eight devices."""
    world = a_world("fra", "iad", models=(a_model("chat"),), policies=(a_policy("chat"),))
    demand = (some_demand("chat", "Berlin", rps),)
    return heard(world, a_report("fra", demand=demand), a_report("iad"), now_s=1.0)


def asked(world: World, plan: Plan) -> tuple[Formulated, Proposal]:
    formulated = formulate(world, target=plan.target_by_key(), desired=plan.desired_by_key(), now_s=1.0)
    return formulated, solve_and_check(formulated.problem, formulated.present)


def concluded(world: World, plan: Plan, *, wall_s: float = 1000.0, aside: tuple[str, ...] = ()) -> Outcome:
    return conclude(world, *asked(world, plan), plan, wall_s, aside)


def placed(count: int, reason: str = "") -> Plan:
    row = Replicas(model="chat", cluster="fra", pool=L4, replicas=count, reason=reason)
    return Plan(generation=1, placement=Placement(replicas=(row,)), desired=(row,))


def test_a_new_placement_says_what_the_engine_knows_of_it_in_its_own_values() -> None:
    """People would read a sentence where a programme needs the code, or a cost that is not the plan's."""
    world = asking(rps=400.0)
    formulated, proposal = asked(world, Plan())
    outcome = conclude(world, formulated, proposal, Plan(), 1000.0)
    assert outcome.new is not None
    placement, solution = outcome.new.placement, proposal.solution
    assert placement.by_key() == formulated.ours(solution.replicas)
    assert (placement.cost, placement.bound_usd_per_hour) == (solution.cost, solution.bound_usd_per_hour)
    assert (placement.unserved, placement.shortfalls) == (solution.unserved, solution.shortfalls)
    assert {one.code for one in placement.unserved} == {engine.UnservedCode.CAPACITY}
    assert placement.near is not None and placement.near_by_model["chat"] == placement.near
    assert all(one.reason for one in placement.replicas) and placement.summary == outcome.summary
    assert outcome.new.history.changed_s == {"chat": 1000.0}


def test_a_placement_that_is_the_one_in_force_is_none() -> None:
    """Every cycle would commit a plan, and agents be told the same again and again."""
    world = asking()
    first = concluded(world, Plan())
    assert first.new is not None
    plan = replace(Plan(generation=1), placement=first.new.placement, desired=first.new.placement.replicas)
    again = concluded(world, plan)
    assert again.new is None and again.decision.verdicts == ()
    assert again.summary == "placement stays: it is the best for what is known"


def test_what_stays_keeps_its_reason_and_what_waits_is_postponed() -> None:
    """`explain` would lose why a replica is where it is, or a rollout stop what is to be started again soon."""
    policy = a_policy("chat", disruption=Disruption(min_gain_percent=0.0, dwell_seconds=900.0))
    world = a_world("fra", "iad", models=(a_model("chat"),), policies=(policy,))
    world = heard(world, a_report("fra", demand=(some_demand("chat", "Berlin", 40.0),)), a_report("iad"), now_s=1.0)
    far = Replicas(model="chat", cluster="iad", pool=L4, replicas=6, reason="placed there once")
    plan = Plan(generation=1, placement=Placement(replicas=(far,)), desired=(far,))
    plan = replace(plan, history=replace(plan.history, changed_s={"chat": 990.0}))
    outcome = concluded(world, plan)
    (verdict,) = outcome.decision.verdicts
    assert verdict.code == "Dwell" and outcome.new is None
    assert outcome.kept_because("chat") == verdict.reason and outcome.kept_because("other") == ""
    assert KEY in outcome.postponed and outcome.accepted_moves() == {}


def test_a_model_that_is_set_aside_keeps_its_placement() -> None:
    """The replicas of a model that planning fails on would be stopped."""
    world, plan = asking(), placed(3, "as it was")
    formulated = formulate(world, target=plan.target_by_key(), desired={}, now_s=1.0, aside={"chat": "a fault"})
    proposal = solve_and_check(formulated.problem, formulated.present)
    outcome = conclude(world, formulated, proposal, plan, 1000.0, ("chat",))
    assert outcome.new is None
    without = conclude(world, formulated, proposal, plan, 1000.0, ())
    assert without.new is not None and without.new.placement.by_key() == {}


def test_nothing_is_decided_without_knowledge() -> None:
    """A controller that has just started would stop what it has not heard of yet."""
    world = asking()
    assert why_not_now(world, 1.0) == ""
    assert why_not_now(told(world, BrokerLost(now_s=2.0)), 2.0) == "nothing is decided without a broker"
    assert why_not_now(told(a_world()), 1.0).startswith("no clusters")
    assert why_not_now(a_world("fra", "iad"), 0.0).startswith("waiting to hear 2 of 2 clusters")


def test_a_budget_of_starts_binds_only_the_models_that_it_names() -> None:
    """A change that may be made in part this hour would not be made at all, or be made whole."""
    world, plan = asking(), placed(1)
    formulated, _ = asked(world, plan)
    (model,) = placement_cycle.within_budgets(formulated, {"chat": 2}).problem.models
    assert model.max_starts == 2
    assert placement_cycle.within_budgets(formulated, {"code": 2}).problem.models == formulated.problem.models


def test_silent_replicas_are_given_up_when_their_loss_is_due() -> None:
    """Users would be lost for as long as a silent cluster is waited for, or replicas be started at each hiccup."""
    world = asking()
    losses = (
        Loss(model="chat", usd_per_hour=5.0, start_usd=0.1, due_s={"fra": 40.0, "iad": 90.0}),
        Loss(model="code", usd_per_hour=1.0, start_usd=0.1, due_s={"iad": 70.0}),
    )
    found = give_up(world, losses, {ModelCluster("old", "fra"): 3.0}, 50.0)
    assert found.given_up == {("old", "fra"): 3.0, ("chat", "fra"): world.clusters["fra"].since_s}
    assert found.next_s == 70.0
    assert [(one.reason, one.object) for one in found.notes] == [("Replaced", "model/chat")]
    assert give_up(world, losses[:1], {}, 100.0).next_s == float("inf")


def test_people_are_told_once_that_a_model_is_set_aside_and_that_it_is_planned_again() -> None:
    """A model that is planned no more would look as if it were, or the same be told at each cycle."""
    begun = set_aside_notes((), {"chat": "planning fails on it"})
    assert [(one.type, one.reason) for one in begun] == [("Warning", "ModelSetAside")]
    assert "planning fails on it" in begun[0].message
    assert set_aside_notes(("chat",), {"chat": "planning fails on it"}) == ()
    assert [one.reason for one in set_aside_notes(("chat",), {})] == ["ModelPlannedAgain"]
