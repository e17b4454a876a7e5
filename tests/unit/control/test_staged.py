"""What a person forced goes in steps, and halts when users suffer more than was foretold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from federation.control import staged
from federation.control.plan import Forced, Plan, Replicas
from federation.policy.documents import Disruption, Documents
from federation.state.keys import PlacementKey
from federation.state.world import World
from federation.wire import messages
from tests.builders import L4, a_model, a_policy, a_report, a_world, heard

KEY = PlacementKey("chat", "fra", L4)
PACE = staged.Pace(stops_fraction=0.25, step_s=30.0)


def an_order(**fields: Any) -> Forced:
    return Forced(object="policy/chat.yaml", actor="api", reason="retired", at_s=0.0, **fields)


def a_situation(
    world: World, *forced: Forced, before: int = 8, after: int = 0, **fields: Any
) -> staged.StagedSituation:
    plan = Plan(desired=(Replicas(model="chat", cluster="fra", pool=L4, replicas=before),), forced=forced)
    values: dict[str, Any] = {
        "placed": frozenset(),
        "stops": {KEY: "the model is withdrawn"},
        "target": {},
        "asked_rps": {},
        "unserved_rps": {},
        "last_step_s": float("-inf"),
        "now_s": 100.0,
        "thought_s": 50.0,
    }
    return staged.StagedSituation(world=world, plan=plan, after={KEY: after}, **(values | fields))


def test_a_withdrawn_model_stops_by_a_part_of_its_replicas() -> None:
    """Who forced it by mistake would have no time to undo it."""
    order = an_order(models=("chat",), withdrawn=(a_model("chat"),))
    step = staged.step(PACE, a_situation(a_world("fra"), order))
    assert step.desired == {KEY: 6} and step.has_stopped
    assert step.stops == {KEY: "withdrawn by api: retired"}
    assert step.forced[0].stopped == 2
    waits = staged.step(PACE, a_situation(a_world("fra"), order, last_step_s=80.0))
    assert waits.desired == {KEY: 8} and not waits.has_stopped and not waits.stops
    last = staged.step(PACE, a_situation(a_world("fra"), order, before=1))
    assert last.desired == {KEY: 0} and last.forced == () and [one.reason for one in last.notes] == ["ForcedChangeDone"]


def test_a_withdrawn_model_is_told_and_served_by_its_last_documents() -> None:
    """Its users would be sent away at once, and its agents be told nothing, while replicas stop in steps."""
    before = a_world("fra", models=(a_model("chat"), a_model("code")), policies=(a_policy("chat", "code"),)).documents
    chat, code = before.models
    order = an_order(models=("chat",), withdrawn=(chat,), policies=staged.last_policies(before, (chat,)))
    gone = Documents(models=(code,), policies=(a_policy("code"),), clusters=before.clusters)
    told = staged.in_force(gone, (order,))
    last = told.policy_of("chat")
    assert told.is_placed("chat") and last is not None and last.spec.residency == before.policies[0].spec.residency
    assert told.policy_of("code") is gone.policies[0], "who is not withdrawn obeys what is in force"
    unruled = Documents(models=before.models, policies=(), clusters=before.clusters)
    assert staged.in_force(unruled, (order,)).is_placed("chat"), "a policy may go alone"
    assert staged.in_force(before, (order,)) is before, "handed in again, it is as it says now"


def test_a_model_that_is_withdrawn_without_an_order_goes_in_steps_too() -> None:
    """A restart between the order and the first step would let all of it go at once."""
    known = a_world("fra", models=(a_model("chat"),))
    assert staged.step(PACE, a_situation(known)).desired == {KEY: 6}
    unknown = staged.step(PACE, a_situation(a_world("fra")))
    assert unknown.desired == {KEY: 0}, "agents can only be told to delete what has no document"


def test_what_nobody_forced_is_not_held_back() -> None:
    """Every move to a cheaper cluster would take minutes."""
    world = a_world("fra", models=(a_model("chat"),), policies=(a_policy("chat"),))
    step = staged.step(PACE, a_situation(world, placed=frozenset({"chat"}), after=2))
    assert step.desired == {KEY: 2}


def test_it_halts_when_more_goes_unserved_than_was_foretold() -> None:
    """The rest of the fleet would follow what turned out to be wrong."""
    world = a_world("fra", models=(a_model("chat"),), policies=(a_policy("chat"),))
    order = an_order(models=("chat",), unserved_rps={"chat": 10.0})
    asked: dict[str, Any] = {"placed": frozenset({"chat"}), "asked_rps": {"chat": 100.0}}
    fine = staged.step(PACE, a_situation(world, order, unserved_rps={"chat": 14.0}, **asked))
    assert fine.desired == {KEY: 6} and not fine.notes
    bad = staged.step(PACE, a_situation(world, order, unserved_rps={"chat": 16.0}, **asked))
    assert bad.desired == {KEY: 8} and not bad.stops
    assert [one.reason for one in bad.notes] == ["ForcedChangeHalted"]
    assert bad.forced[0].state == (
        "halted: 16.0 of 100.0 requests per second for chat are unserved, 10.0 were foretold"
    )
    again = staged.step(PACE, a_situation(world, bad.forced[0], unserved_rps={}, **asked))
    assert again.desired == {KEY: 8} and not again.notes, "a person has to say that it goes on"


def test_it_halts_when_more_fails_than_before() -> None:
    """Users whose requests fail are counted as served by those who plan."""
    world = a_world("fra", models=(a_model("chat"),), policies=(a_policy("chat"),))
    failing = messages.ServedSample(model="chat", requests_per_second=5.0, error_share=0.2)
    world = heard(world, a_report("fra", served=(failing,)))
    order = an_order(models=("chat",), error_share={"chat": 0.02})
    step = staged.step(PACE, a_situation(world, order, placed=frozenset({"chat"})))
    assert step.desired == {KEY: 8}
    assert "20.0 % of requests for chat fail" in step.forced[0].halted
    same = staged.step(PACE, a_situation(world, replace(order, error_share={"chat": 0.19}), placed=frozenset({"chat"})))
    assert same.desired == {KEY: 6}, "it was so before"


def test_an_order_is_not_done_by_a_plan_that_hysteresis_held_back() -> None:
    """What a person forced would be carried out at once by the next plan, as if nobody had asked for steps."""
    policy = a_policy("chat", disruption=Disruption(dwell_seconds=60))
    world = a_world("fra", models=(a_model("chat"),), policies=(policy,))
    order = an_order(models=("chat",))
    going = staged.step(PACE, a_situation(world, order, after=8, target={KEY: 8}, placed=frozenset({"chat"})))
    assert going.forced == (order,), "that plan was made of what was known 50 s after the order"
    done = a_situation(world, order, after=8, target={KEY: 8}, placed=frozenset({"chat"}), thought_s=61.0)
    assert staged.step(PACE, done).forced == ()


def test_users_leave_by_steps_what_a_person_ordered_away() -> None:
    """A forced budget would send everybody away at once, while replicas that could serve them stop one by one."""
    plan = Plan(
        desired=(Replicas(model="chat", cluster="fra", pool=L4, replicas=8),), forced=(an_order(models=("chat",)),)
    )
    left = staged.next_counts(PACE, plan, {KEY: 3}, {KEY: 8}, {"chat"})
    assert left == {KEY: 6}, "a quarter a step"
    assert staged.next_counts(PACE, plan, {KEY: 7}, {KEY: 8}, {"chat"}) == {KEY: 7}
    halted = replace(plan, forced=(an_order(models=("chat",), halted="errors"),))
    assert staged.next_counts(PACE, halted, {KEY: 3}, {KEY: 8}, {"chat"}) == {KEY: 8}
    moves = {KEY: 0, PlacementKey("chat", "iad", L4): 8}
    assert staged.next_counts(PACE, plan, moves, {KEY: 8}, {"chat"}) == {}, "what replaces it is not ready yet"
    assert staged.next_counts(PACE, replace(plan, forced=()), {KEY: 3}, {KEY: 8}, {"chat"}) == {}


def test_a_withdrawal_is_not_done_while_something_of_it_runs() -> None:
    """Its users would be sent away at once by whichever plan is older than the order."""
    order = an_order(models=("chat",), withdrawn=(a_model("chat"),))
    step = staged.step(PACE, a_situation(a_world("fra"), order, target={KEY: 8}))
    assert step.desired == {KEY: 6} and step.forced


def test_an_order_that_goes_on_may_do_the_harm_that_is_there() -> None:
    """It would halt again at once for what the person has just accepted, or another person's order go on with it."""
    halted = an_order(models=("chat",), halted="too many unserved")
    other = replace(halted, object="policy/code.yaml")
    going, waiting = staged.resume(
        (halted, other), halted.object, a_world("fra"), {"chat": 7.0}, actor="ada", reason="meant"
    )
    assert (going.halted, going.actor, going.reason, going.unserved_rps) == ("", "ada", "meant", {"chat": 7.0})
    assert waiting is other
