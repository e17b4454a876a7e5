"""What the controller itself finds wrong with a cluster, as people see it."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from msgspec import structs

from federation.api import render, views
from federation.control.plan import Placement, Plan, Replicas, Route, Routes, Share
from placement import Reached, Shortfall, Unserved, UnservedCode
from tests.builders import L4, a_model, a_policy, a_report, a_world, heard, replicas, some_demand


def test_what_somebody_else_ordered_is_shown() -> None:
    """A forged order would hold accelerators that are paid for, or keep its agent from obeying, and nobody know why."""
    rows = (replicas("chat", 2, 2), replicas("withdrawn", 1, 1), replicas("miner", 8, 3), replicas("wanted", 4, 0))
    world = heard(
        a_world("fra", "iad", models=(a_model("chat"),)),
        a_report("fra", replicas=rows, epoch=2**33 + 1),
        a_report("iad", replicas=rows[:1], epoch=1),
    )
    plan = Plan(desired=(Replicas(model="withdrawn", cluster="fra", pool=L4, replicas=1),))
    scene = render.Scene(
        world=world, plan=plan, routes=Routes(), epoch=1, now_s=0.0, at_s=0.0, speed=1.0, message="quiet"
    )
    fra, iad = render.overview(scene).clusters
    assert [(one.type, one.object) for one in fra.conditions] == [
        ("ObeysAnother", "cluster/fra"),
        ("NotOrdered", "model/miner"),
    ]
    assert str(2**33 + 1) in fra.conditions[0].message
    assert fra.conditions[1].message.startswith("3 replicas of miner")
    assert iad.conditions == ()


def test_a_model_is_not_bad_for_what_another_misses() -> None:
    """`chat` would be shown bad, and somebody woken, for a floor of `chat-8b`; and a limit would be told of neither."""
    policies = (a_policy("chat"), a_policy("chat-8b"))
    world = a_world("fra", models=(a_model("chat"), a_model("chat-8b")), policies=policies)
    plan = Plan(
        placement=Placement(
            shortfalls=(
                Shortfall(
                    model="chat-8b", rule="min_replicas", wanted=2.0, placed=1.0, reason="chat-8b: 1 of 2 replicas"
                ),
            ),
            reached=(
                Reached(limit="max_replicas", subject="chat", used=4.0, most=4.0, usd_per_hour=0.0),
                Reached(limit="budget", subject=policies[1].metadata.name, used=5.0, most=5.0, usd_per_hour=0.0),
            ),
        )
    )
    scene = render.Scene(
        world=world, plan=plan, routes=Routes(), epoch=1, now_s=0.0, at_s=0.0, speed=1.0, message="quiet"
    )
    said = {one.name: one.reasons for one in render.overview(scene).models}
    assert "chat-8b: 1 of 2 replicas" in said["chat-8b"] and "chat-8b: 1 of 2 replicas" not in said["chat"]
    limit = "chat has 4 replicas, and maxReplicas 4 allows no more"
    assert limit in said["chat"] and limit not in said["chat-8b"]
    assert any(" spends 5.00 of its" in text for text in said["chat-8b"])


def test_why_requests_are_unserved_is_a_code_in_cells_and_in_plans() -> None:
    """A script would compare sentences, and be wrong with the next release's wording."""
    world = a_world("fra", models=(a_model("chat"),), policies=(a_policy("chat"),))
    world = heard(world, a_report("fra", demand=(some_demand("chat", "Berlin", 10.0),)), now_s=1.0)
    short = Unserved(model="chat", cell="Berlin", requests_per_second=4.0, code=UnservedCode.CAPACITY, reason="taken")
    plan = Plan(placement=Placement(unserved=(short, structs.replace(short, cell="Paris")), shortfalls=()))
    some = (Share(cluster="fra", share=0.6),)
    row = Route(
        model="chat",
        cell="Berlin",
        now=some,
        target=some,
        unserved_reason="all taken",
        unserved_code=UnservedCode.CAPACITY,
    )

    def causes(*routes: Route) -> list[tuple[str, str]]:
        scene = render.Scene(
            world=world, plan=plan, routes=Routes(routes=routes), epoch=1, now_s=1.0, at_s=0.0, speed=1.0, message=""
        )
        return [(one.code, one.reason) for cell in render.overview(scene).cells for one in cell.demand]

    assert causes(row) == [("capacity", "all taken")]
    moving = replace(row, unserved_reason="", unserved_code=None)
    assert causes(moving) == [("on-the-way", "shares are moving to their targets")]
    assert causes() == [("not-routed", "not routed yet")]
    whole = (Share(cluster="fra", share=1.0),)
    assert causes(replace(moving, now=whole)) == [("", "")]
    (left,) = render.plan_view(plan).unserved
    assert (left.model, left.code, left.requests_per_second, left.cells) == ("chat", "capacity", 8.0, 2)


def test_the_codes_of_the_api_are_those_of_the_engine() -> None:
    """A cause that the engine learns would be no code of the API, and a client's check of the answer fail."""
    assert {code.value for code in UnservedCode} <= set(get_args(views.UnservedCode))
