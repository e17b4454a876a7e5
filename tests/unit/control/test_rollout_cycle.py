"""What a plan goes on to tell, and what it may forget."""

from __future__ import annotations

from dataclasses import replace

from federation.control.plan import Plan, Replicas
from federation.control.rollout_cycle import forget_gone
from federation.state.reduce import Heard
from federation.wire import messages
from tests.builders import L4, a_report, a_world, heard, told

KEY = ("chat", "fra", L4)


def test_an_order_to_delete_is_told_until_the_agent_has_carried_it_out() -> None:
    """Who deletes replicas by hand would have them back for good: the agent starts anew what it was told before, and
    the plan that has no need of them does not say so."""
    before = Plan(epoch=1, generation=3, generations={"fra": 3}, desired=(replicas(2),))
    world = heard(a_world("fra"), a_report("fra"), now_s=10.0)
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
