"""Plans that an earlier version stored."""

from __future__ import annotations

from pathlib import Path

import msgspec

from federation.control import stored
from federation.control.plan import Placement, Plan, Replicas
from placement import Unserved, UnservedCode
from tests.builders import L4

SCHEMA_3 = Path(__file__).parent.parent / "adapters" / "stored" / "plan_schema_3.json"
KEY = ("chat", "fra", L4)


def test_a_plan_of_schema_3_is_read_with_its_placement() -> None:
    """A controller that is upgraded would believe that nothing is placed anywhere, and stop what serves."""
    plan = stored.decode(SCHEMA_3.read_bytes())
    placement = plan.placement
    assert (plan.epoch, plan.generation, plan.moves) == (3, 41, 1)
    assert plan.target_by_key() == placement.by_key() == {KEY: 2}
    assert plan.desired_by_key() == {KEY: 2, ("chat", "iad", L4): 0}
    assert plan.history.changed_s == {"chat": 1699999000.0} and plan.versions["chat"].trial == ("fra", L4)
    assert placement.cost.total == 4.0 + 0.5 + 0.25 + 1.5 + 0.125 + 2.0 + 0.0625
    assert (placement.bound_usd_per_hour, placement.gap, placement.bound_is_loose) == (8.0, 0.0515, True)
    assert placement.near is not None and placement.near == placement.near_by_model["chat"]
    (shortfall,) = placement.shortfalls
    assert (shortfall.model, shortfall.rule, shortfall.reason) == ("chat", "min_replicas", "chat: 2 of 3 replicas")
    assert placement.summary == plan.summary and placement.moves == 1


def test_limits_of_a_plan_of_schema_3_say_the_same_sentences() -> None:
    """People would read that a model has no replicas left where it has all that its policy allows."""
    stored_before = msgspec.json.decode(SCHEMA_3.read_bytes())["reached_limits"]
    placement = stored.decode(SCHEMA_3.read_bytes()).placement
    assert [one.says for one in placement.reached] == [one["reason"] for one in stored_before]
    assert [one.limit for one in placement.limits_of("chat", "interactive")] == ["max_replicas", "budget"]


def test_a_plan_comes_back_as_it_was_stored() -> None:
    """A restart would forget why users are unserved, or start from another placement."""
    unserved = Unserved(model="chat", cell="de", requests_per_second=1.5, code=UnservedCode.CAPACITY, reason="taken")
    placement = Placement(
        replicas=(Replicas(model="chat", cluster="fra", pool=L4, replicas=2),), summary="x", unserved=(unserved,)
    )
    plan = Plan(epoch=1, generation=2, placement=placement)
    again = stored.decode(msgspec.json.encode(plan))
    assert again == plan and again.placement.unserved[0].code is UnservedCode.CAPACITY
