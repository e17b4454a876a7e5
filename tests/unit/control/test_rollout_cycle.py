"""What one step of the rollout decides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import placement as engine
from federation.adapters.solver import route_and_check
from federation.control import rollout_cycle, routing, shift, versions
from federation.control.placement_cycle import NewPlacement
from federation.control.plan import Forced, History, Placement, Plan, Replicas, Route, Routes, Share
from federation.control.problem import formulate
from federation.control.rollout_cycle import Beliefs, Decided, TableMemory, forget_gone
from federation.state.keys import PlacementKey
from federation.state.reduce import Heard
from federation.state.world import World
from federation.wire import messages
from tests import builders
from tests.builders import L4, a_model, a_policy, a_report, a_world, heard, some_demand, told

KEY = PlacementKey("chat", "fra", L4)
FAR = PlacementKey("chat", "iad", L4)


def rows(*counts: tuple[str, int]) -> tuple[Replicas, ...]:
    return tuple(Replicas(model="chat", cluster=name, pool=L4, replicas=count) for name, count in counts)


def believed(*, ready: dict[str, int], wanted: dict[str, int], rps: float = 40.0, **fields: Any) -> Beliefs:
    """Users in Berlin ask for chat, of which so many replicas are ready and wanted in each cluster."""
    world = a_world("fra", "iad", models=(a_model("chat"),), policies=(a_policy("chat"),))
    reports = (
        a_report(name, replicas=(builders.replicas("chat", count, count),) if (count := ready.get(name, 0)) else ())
        for name in ("fra", "iad")
    )
    fra, iad = reports
    fra = builders.renamed(fra, demand=(some_demand("chat", "Berlin", rps),))
    world = heard(world, fra, iad, now_s=1.0)
    placed = rows(*wanted.items())
    plan = Plan(epoch=1, generation=1, placement=Placement(replicas=placed), desired=rows(*{**ready, **wanted}.items()))
    formulated = formulate(world, target=plan.target_by_key(), desired=plan.desired_by_key(), now_s=1.0)
    values: dict[str, Any] = {
        "routes": Routes(),
        "traffic": rollout_cycle.traffic_of(world, formulated),
        "demand_rps": {("chat", "Berlin"): rps},
        "epoch": 1,
        "planned_s": 1.0,
        "postponed": frozenset(),
        "aside": (),
        "now_s": 1.0,
        "wall_s": 1000.0,
    }
    return Beliefs(world=world, plan=plan, formulated=formulated, target=plan.target_by_key(), **(values | fields))


def answered(
    beliefs: Beliefs, serve_less: tuple[str, ...] = (), barred: bool = False
) -> tuple[list[dict[tuple[str, str], int]], engine.Routing]:
    """What was asked of the engine, question by question, and the routing that was chosen."""
    replicas = rollout_cycle.serving(beliefs, shift.ShiftMemory())
    if barred:
        replicas = replace(replicas, trusted={})
    asking = rollout_cycle.choose_routing(beliefs, replicas, beliefs.target, serve_less)
    asked = []
    found = rollout_cycle.answer(asking, None)
    while not isinstance(found, engine.Routing):
        asked.append(dict(found))
        found = rollout_cycle.answer(asking, route_and_check(beliefs.formulated.problem, found))
    return asked, found


def test_the_engine_is_asked_once_where_the_target_serves_all() -> None:
    """Each step would ask twice, and rerouting after a loss take twice as long."""
    asked, routed = answered(believed(ready={"fra": 6}, wanted={"fra": 6}))
    assert asked == [{("chat", f"fra/{L4.text}"): 6}] and routed.unserved == ()


def test_what_the_target_gives_up_serves_until_others_can() -> None:
    """Users would be left unserved beside replicas that are ready, until a rollout has stopped them."""
    beliefs = believed(ready={"fra": 2, "iad": 6}, wanted={"fra": 2})
    given_up = ("chat", f"iad/{L4.text}")
    asked, routed = answered(beliefs)
    assert given_up not in asked[0] and asked[-1][given_up] == 6 and routed.unserved == ()
    asked, routed = answered(beliefs, serve_less=("chat",))
    assert all(given_up not in used for used in asked) and routed.unserved


def test_replicas_that_are_not_trusted_serve_before_users_are_left_unserved() -> None:
    """A cluster that a shift held back would serve nobody though nothing else can."""
    asked, routed = answered(believed(ready={"fra": 6}, wanted={"fra": 6}), barred=True)
    assert len(asked) == 2 and asked[0] == {} and routed.unserved == ()


def test_models_are_short_by_choice_only_for_a_limit_or_their_price() -> None:
    """Replicas that the target gives up would go on to serve users whom a budget leaves out; or not those of a loss."""
    problem = believed(ready={}, wanted={"fra": 6}).formulated.problem
    assert rollout_cycle.short_by_choice(problem, None) == frozenset()
    limited = replace(problem, models=tuple(replace(one, max_replicas=2) for one in problem.models))
    assert rollout_cycle.short_by_choice(limited, None) == {"chat"}


def table(beliefs: Beliefs, memory: TableMemory) -> tuple[Routes, TableMemory]:
    replicas = rollout_cycle.serving(beliefs, shift.ShiftMemory())
    _, routed = answered(beliefs)
    targets = routing.target_shares(beliefs.formulated.problem, routed)
    return rollout_cycle.next_routes(beliefs, memory, replicas, targets)


def test_a_routing_table_has_a_new_version_only_when_a_share_changes() -> None:
    """Gateways would be told the same table again and again, each time as a new one."""
    beliefs = believed(ready={"fra": 6}, wanted={"fra": 6})
    routes, memory = table(beliefs, TableMemory())
    assert (routes.version, routes.at_s) == (1, 1000.0)
    (route,) = routes.routes
    assert route.now == route.target == (Share(cluster="fra", share=1.0),)
    later = replace(beliefs, routes=routes, now_s=30.0, wall_s=1030.0)
    again, memory = table(later, memory)
    assert again is routes and memory.arrived is not None
    assert table(later, memory)[0] is routes


def test_a_late_step_moves_shares_by_no_more_than_one() -> None:
    """A controller that was busy for a minute would move all users at once, and nobody see what the first step did."""
    shares = (Share(cluster="iad", share=1.0),)
    before = Routes(version=4, routes=(Route(model="chat", cell="Berlin", now=shares, target=shares),))
    beliefs = believed(ready={"fra": 6, "iad": 6}, wanted={"fra": 6}, routes=before)
    rules = beliefs.traffic["chat"]
    memory = TableMemory(stepped_s={"chat": 1.0})
    late = replace(beliefs, now_s=1.0 + 100 * rules.step_seconds)
    routes, memory = table(late, memory)
    moved = {share.cluster: share.share for share in routes.routes[0].now}
    most = max(1, int(beliefs.world.timing.tick_s // rules.step_seconds))
    assert 0 < moved["fra"] <= most * rules.step_percent / 100.0 + 1e-9
    assert memory.stepped_s == {"chat": late.now_s}


def test_a_model_that_is_set_aside_keeps_its_routes_and_its_replicas() -> None:
    """The users of a model that planning fails on would be sent nowhere."""
    shares = (Share(cluster="iad", share=1.0),)
    before = Routes(version=4, routes=(Route(model="chat", cell="Berlin", now=shares, target=shares),))
    beliefs = believed(ready={"iad": 6}, wanted={"iad": 6}, routes=before, aside=("chat",))
    assert table(beliefs, TableMemory())[0].routes == before.routes
    step = rollout_cycle.next_step(beliefs, rollout_cycle.serving(beliefs, shift.ShiftMemory()), {}, {})
    assert step.desired == beliefs.plan.desired_by_key()


def decided(**fields: Any) -> Decided:
    values: dict[str, Any] = {
        "desired": {KEY: 2},
        "stops": {},
        "digests": {"fra": "b", "iad": "a"},
        "advanced": versions.Advance(settled={}, versions={}),
        "forced": (),
    }
    return Decided(**(values | fields))


def following(plan: Plan, done: Decided) -> Plan:
    return rollout_cycle.next_plan(plan, done, epoch=7, wall_s=2000.0, why="", waiting=("a device",), known=plan.known)


BEFORE = Plan(
    epoch=6,
    generation=4,
    placement=Placement(replicas=rows(("fra", 2)), summary="as placed"),
    desired=rows(("fra", 1), ("iad", 1)),
    digests={"fra": "a", "iad": "a"},
    generations={"fra": 3, "iad": 2},
)


def test_a_step_numbers_only_the_clusters_that_are_told_something_else() -> None:
    """Every agent would be sent, and acknowledge, each plan though nothing changes for it."""
    plan = following(BEFORE, decided())
    assert (plan.epoch, plan.generation, plan.trigger) == (7, 5, "rollout")
    assert plan.generations == {"fra": 5, "iad": 2}
    assert plan.placement is BEFORE.placement and plan.moves == 0
    assert plan.summary == "replicas: 1 start and 1 stop in fra, iad; a device"
    assert [(one.cluster, one.before, one.after) for one in plan.changes] == [("fra", 1, 2), ("iad", 1, 0)]


def test_a_new_placement_is_in_force_with_the_step_that_commits_it() -> None:
    """The costs and the reasons of one placement would be shown beside the replicas of another."""
    placement = Placement(replicas=rows(("iad", 1)), summary="moves to iad", moves=1)
    history = History(changed_s={"chat": 1999.0})
    done = decided(new=NewPlacement(placement=placement, history=history), desired={KEY: 0, FAR: 1}, stops={KEY: "far"})
    plan = following(BEFORE, done)
    assert plan.placement is placement and plan.history is history
    assert (plan.summary, plan.moves) == ("moves to iad", 1)
    assert [(one.reason, one.stop_reason) for one in plan.desired] == [("leaving", "far"), ("", "")]


def test_a_plan_is_committed_only_when_something_is_decided() -> None:
    """The store would grow with each step, or a restart forget what a person ordered."""
    same = decided(desired=BEFORE.desired_by_key(), digests=BEFORE.digests)
    assert not same.changes(BEFORE, frozenset())
    assert replace(same, desired={KEY: 2}).changes(BEFORE, frozenset())
    order = Forced(object="policy/chat.yaml", actor="api", reason="retired", at_s=5.0)
    forced = replace(same, forced=(order,))
    assert forced.changes(BEFORE, frozenset())
    assert not forced.changes(BEFORE, rollout_cycle.orders((order,)))


def test_a_count_that_stays_low_keeps_the_reason_that_it_was_lowered_for() -> None:
    """An agent stops nothing without a reason: one that restarts would not stop what was ordered before."""
    lowered = replace(BEFORE, desired=(replace(BEFORE.desired[0], stop_reason="served by iad"), BEFORE.desired[1]))
    assert rollout_cycle.stop_reasons(lowered, {KEY: 1, FAR: 0}, {FAR: "nobody asks"}) == {
        KEY: "served by iad",
        FAR: "nobody asks",
    }
    assert rollout_cycle.stop_reasons(lowered, {KEY: 2, FAR: 1}, {}) == {}, "it is raised again"


def test_an_order_to_delete_is_told_until_the_agent_has_carried_it_out() -> None:
    """Who deletes replicas by hand would have them back for good: the agent starts anew what it was told before, and
    the plan that has no need of them does not say so."""
    before = Plan(epoch=1, generation=3, generations={"fra": 3}, desired=(replicas(2),))
    world: World = heard(a_world("fra"), a_report("fra"), now_s=10.0)
    assert forget_gone({KEY: 0}, world, before, {}) == {KEY: 0}, "it was not told yet"
    plan = replace(before, generation=4, generations={"fra": 4}, desired=(replicas(0),))
    assert forget_gone({KEY: 0}, world, plan, {}) == {KEY: 0}, "nor acknowledged"
    ack = messages.Ack(
        cluster="fra",
        boot_id="boot-0001",
        epoch=1,
        generation=4,
        checksum="",
        ok=True,
        accepted_epoch=1,
        accepted_generation=4,
    )
    world = told(world, Heard(message=ack, now_s=20.0))
    assert forget_gone({KEY: 0}, world, plan, {}) == {KEY: 0}, "what was reported is from before"
    world = heard(world, a_report("fra", 2), now_s=30.0)
    assert forget_gone({KEY: 0}, world, plan, {}) == {}
    assert forget_gone({KEY: 0}, world, plan, {KEY: 1}) == {KEY: 0}, "it is wanted again"


def replicas(count: int) -> Replicas:
    return Replicas(model="chat", cluster="fra", pool=L4, replicas=count)
