"""Who leads: what agents obey, and what controllers hear of each other, without any clock."""

from __future__ import annotations

import pytest

from agents import fence
from federation.control import leadership
from federation.control.leadership import Rival
from federation.control.plan import Plan, Replicas
from federation.wire import messages
from tests.builders import L4, a_model, a_policy, a_report, a_world, heard, replicas

NAMES = ("fra-1", "fra-2", "iad-1", "iad-2", "nrt-1")


@pytest.mark.parametrize(
    ("claims", "by_itself", "ordered"),
    [
        pytest.param((7, 7, 7, 5, 5), 7, 7, id="some lag behind"),
        pytest.param((0, 0, 0, 0, 900_000), 0, 900_000, id="one claims what nobody else obeys"),
        pytest.param((9, 9, 9, 9, 2**53 - 1), 9, 9, id="absurd"),
        pytest.param((2**33, 2**33, 2**33, 2**33, 3), 2**33, 2**33, id="most obey a forged one"),
        pytest.param((9, 9, 9, 9, 9 + 2**33), 9, 9 + 2**33, id="one obeys a forged one"),
        pytest.param((9, 9, 9, 9, 9 + 2**34), 9, 9 + 2**33, id="one obeys two forged ones: the first of two leaps"),
        pytest.param((), 0, 0, id="nobody is heard"),
    ],
)
def test_what_one_agent_claims_locks_nobody_out(claims: tuple[int, ...], by_itself: int, ordered: int) -> None:
    """After the loss of its disk a controller would be refused by all of its agents, and --take-over with it."""
    reports = (a_report(name, epoch=epoch) for name, epoch in zip(NAMES, claims, strict=False))
    world = heard(a_world(*NAMES), *reports)
    assert leadership.highest_epoch(world) == by_itself
    assert leadership.highest_epoch(world, ordered=True) == ordered


@pytest.mark.parametrize("accepted", [0, 7, 2**40])
def test_a_take_over_always_has_a_way_beyond_a_forged_epoch(accepted: int) -> None:
    """One forged order would lock the true controller out of the cluster for ever."""
    held = fence.AcceptedOrder(epoch=accepted, generation=1, checksum="x")

    def judged(epoch: int) -> fence.Code:
        order = messages.seal(messages.Desired(cluster="fra", epoch=epoch, generation=1))
        return fence.judge(order, cluster="fra", accepted=held, devices={}).code

    assert judged(2**53 - 1) is fence.Code.NOT_VALID
    forged = accepted + messages.MOST_EPOCH_LEAP
    assert judged(forged + 1) is fence.Code.NOT_VALID
    assert judged(forged) is fence.Code.ACCEPT
    world = heard(a_world("fra"), a_report("fra", epoch=forged))
    held = fence.AcceptedOrder(epoch=forged, generation=2**53 - 1, checksum="x")
    assert judged(leadership.highest_epoch(world, ordered=True) + 1) is fence.Code.ACCEPT


@pytest.mark.parametrize("obeyed", [0, 7, 2**33 + 7])
def test_agents_are_led_beyond_a_forged_epoch_by_leaps_that_each_follows(obeyed: int) -> None:
    """The way beyond one agent's forged epoch would lock out all others, and every agent that joins later."""
    epoch, held, orders = 2**34 + 8, fence.AcceptedOrder(epoch=obeyed), 0
    while held.epoch < epoch:
        state = heard(a_world("fra"), a_report("fra", epoch=held.epoch)).clusters["fra"]
        told = leadership.told_epoch(epoch, state)
        order = messages.seal(messages.Desired(cluster="fra", epoch=told, generation=5))
        assert fence.judge(order, cluster="fra", accepted=held, devices={}).code is fence.Code.ACCEPT
        held = fence.AcceptedOrder(epoch=told, generation=5, checksum=order.checksum)
        orders += 1
    assert orders <= 3
    assert leadership.told_epoch(8, state) == 8


@pytest.mark.parametrize(
    ("said", "epoch"),
    [
        pytest.param(9, 10, id="another controller"),
        pytest.param(2**40, 8, id="beyond what agents accept"),
        pytest.param(messages.MOST_EPOCH, 8, id="absurd"),
    ],
)
def test_a_take_over_does_not_follow_a_forged_heartbeat_to_where_no_agent_follows(said: int, epoch: int) -> None:
    """One forged heartbeat would lead the controller to an epoch that it keeps, and that all agents refuse for ever."""
    world = heard(a_world(*NAMES), *(a_report(name, epoch=7) for name in NAMES))
    rival = Rival(controller="a-controller", epoch=said, uptime_s=1.0, heard_s=0.0)
    taken = leadership.highest_epoch(world, ordered=True, rivals=(rival,)) + 1
    assert taken == epoch
    order = messages.seal(messages.Desired(cluster=NAMES[0], epoch=taken, generation=1))
    held = fence.AcceptedOrder(epoch=7, generation=1, checksum="x")
    assert fence.judge(order, cluster=NAMES[0], accepted=held, devices={}).code is fence.Code.ACCEPT


@pytest.mark.parametrize(
    ("ours", "theirs", "who_leads"),
    [
        pytest.param((2, 5.0), (1, 500.0), "ours", id="a later start on the same database"),
        pytest.param((1, 500.0), (1, 20.0), "ours", id="two databases: who was there first"),
        pytest.param((1, 100.0), (1, 101.0), "ours", id="together: by name"),
        pytest.param((1, 500.0), (2, 1.0), "theirs", id="agents obey the higher epoch"),
    ],
)
def test_of_two_controllers_exactly_one_is_quiet(
    ours: tuple[int, float], theirs: tuple[int, float], who_leads: str
) -> None:
    """Two would order every cluster to and fro, or none would decide anything."""

    def quiet(me: str, mine: tuple[int, float], other: str, others: tuple[int, float]) -> str:
        rival = Rival(controller=other, epoch=others[0], uptime_s=others[1], heard_s=990.0)
        return leadership.yields_to([rival], controller=me, epoch=mine[0], uptime_s=mine[1] + 2.0, now_s=992.0)

    assert bool(quiet("a-controller", ours, "b-controller", theirs)) == (who_leads == "theirs")
    assert bool(quiet("b-controller", theirs, "a-controller", ours)) == (who_leads == "ours")


def test_a_controller_that_is_gone_silences_nobody() -> None:
    """The one that is left would wait for ever for a controller that was ended."""
    rival = Rival(controller="gone", epoch=9, uptime_s=1.0, heard_s=0.0)
    waits = [
        bool(leadership.yields_to([rival], controller="left", epoch=1, uptime_s=1.0, now_s=now_s)) for now_s in (14, 16)
    ]
    assert waits == [True, False]


def test_only_what_is_known_to_be_placed_is_taken_over() -> None:
    """A model whose policy was lost would be in the plan without a place in it, and its replicas be stopped."""
    models = (a_model("chat"), a_model("unplaced"))
    world = heard(
        a_world("fra", "par", models=models, policies=(a_policy("chat"),)),
        a_report(
            "fra", replicas=(replicas("chat", 3, 3), replicas("unplaced", 2, 2), replicas("unknown", 1, 1)), epoch=4
        ),
    )
    plan = leadership.adopted(Plan(generation=7), world)
    assert plan.generation == 7
    assert {one.key[:2]: one.replicas for one in plan.desired} == {("chat", "fra"): 3}
    assert plan.placement.replicas == plan.desired
    stopping = Plan(desired=(Replicas(model="chat", cluster="fra", pool=L4, replicas=0),))
    assert leadership.adopted(stopping, world) == stopping, "what is being stopped is named"
    later = heard(world, a_report("par", replicas=(replicas("chat", 2, 1),)))
    both = leadership.adopted(plan, later)
    assert {one.key[:2]: one.replicas for one in both.desired} == {("chat", "fra"): 3, ("chat", "par"): 2}
    assert leadership.adopted(both, later) is both


def test_no_more_is_adopted_than_there_can_be() -> None:
    """A member that says that it runs a million replicas would have them planned, and nothing else could be stopped."""
    world = a_world("fra", models=(a_model("chat"),), policies=(a_policy("chat"),))
    world = heard(world, a_report("fra", replicas=(replicas("chat", 1_000_000, 3),)))
    assert [one.replicas for one in leadership.adopted(Plan(), world).placement.replicas] == [8]
    without = heard(world, a_report("fra", 2, pools=(), replicas=(replicas("chat", 3, 3),)))
    assert [one.replicas for one in leadership.adopted(Plan(), without).placement.replicas] == [3], (
        "devices read none for a moment"
    )
