"""What a drawing of the whole world costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from federation.api import render
from federation.control import latency
from federation.control.plan import Plan, Replicas, Route, Routes, Share
from federation.wire import messages
from tests.builders import L4, a_model, a_policy, a_report, a_world, heard, renamed, replicas, some_demand

NAMES = tuple(f"fra-{number:03}" for number in range(300))


def a_scene() -> render.Scene:
    """Three hundred clusters with a replica and users each, who are served where they come in."""
    world = a_world(*NAMES, models=(a_model(),), policies=(a_policy("chat"),))
    reports = [
        a_report(name, replicas=(replicas("chat", 1, 1),), demand=(some_demand("chat", f"cell {name}", 3.0),))
        for name in NAMES
    ]
    plan = Plan(
        desired=tuple(Replicas(model="chat", cluster=name, pool=L4, replicas=1, reason="near") for name in NAMES)
    )
    rows = (
        Route(model="chat", cell=f"cell {name}", now=(Share(cluster=name, share=1.0),), target=()) for name in NAMES
    )
    return render.Scene(
        world=heard(world, *reports),
        plan=plan,
        routes=Routes(version=1, routes=tuple(rows)),
        epoch=1,
        now_s=2.0,
        at_s=2.0,
        speed=1.0,
        message="quiet",
    )


def test_a_drawing_estimates_the_pairs_that_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each drawing of ten thousand clusters would take a gigabyte, and seconds of a core."""

    def all_pairs(*_: object) -> None:
        raise AssertionError("every cell to every cluster")

    monkeypatch.setattr(latency, "estimate", all_pairs)
    drawn = render.overview(a_scene())
    assert all(one.routes[0].latency_ms > 0 for cell in drawn.cells for one in cell.demand)
    assert {one.reason for one in drawn.clusters[7].replicas} == {"near"}


def test_a_drawing_looks_at_each_replica_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With each cluster all replicas of all would be looked through: ten open maps held the controller for seconds."""
    scene, looks = a_scene(), []
    drawing = render._Drawing(scene)

    class Counted(dict[Any, int]):
        def __iter__(self):  # type: ignore[no-untyped-def]  # of a test
            looks.append(1)
            return super().__iter__()

    drawing.desired, drawing.ready = Counted(drawing.desired), Counted(drawing.ready)
    assert len(drawing.clusters()) == len(NAMES)
    assert len(looks) <= 2


def test_a_route_says_how_its_latency_is_known() -> None:
    """Whoever looks would take a guess for a measurement, and an old measurement for a new one."""
    scene = a_scene()
    routes = [route for cell in render.overview(scene).cells for one in cell.demand for route in one.routes]
    assert {one.latency_basis for one in routes} == {"prior"}
    assert {one.latency_age_s for one in routes} == {None}
    peers = (messages.PeerRtt(cluster="iad", rtt_ms_p50=90.0, rtt_ms_p95=95.0, samples=3),)
    report = renamed(a_report("fra", demand=(some_demand("chat", "here", 3.0),)), peers=peers)
    world = heard(a_world("fra", "iad", models=(a_model(),), policies=(a_policy("chat"),)), report)
    route = Route(model="chat", cell="here", now=(Share(cluster="iad", share=1.0),), target=())
    routed = Routes(version=2, routes=(route,))
    drawn = render.overview(replace(scene, world=world, plan=Plan(desired=()), routes=routed, now_s=9.0))
    (shown,) = drawn.cells[0].demand[0].routes
    assert (shown.latency_basis, shown.latency_age_s) == ("inferred", 9.0 - (world.clusters["fra"].heard_s or 0.0))
    assert shown.latency_ms - next(one.service_ms for one in drawn.models) >= 90.0


def test_isochrones_are_of_the_replicas_that_are_ready() -> None:
    """The map would call users near to replicas that do not run yet."""
    scene = a_scene()
    view = render.isochrones_view(scene, "chat")
    assert view is not None
    assert len(view.latency_ms) == len(view.cluster) == len(view.basis) == view.columns * view.rows
    assert min(view.latency_ms) >= view.service_ms
    assert set(view.basis) <= set("mip")
    assert len(msgspec.json.encode(view)) < 100_000
    waiting = heard(a_world("fra", models=(a_model(),)), a_report("fra", replicas=(replicas("chat", 2, 0),)))
    empty = render.isochrones_view(replace(scene, world=waiting), "chat")
    assert empty is not None
    assert (empty.clusters, empty.latency_ms, empty.basis) == ((), (), "")
    assert render.isochrones_view(scene, "nobody") is None


def test_a_place_says_where_each_latency_comes_from() -> None:
    """Whoever opens a place on the map would have a figure without a source."""
    scene = a_scene()
    view = render.place_view(scene, "chat", 50.1, 8.7)
    assert view is not None
    assert len(view.clusters) == 8, "as many as are worth to be told"
    best = view.clusters[0]
    assert best.latency_ms == min(one.latency_ms for one in view.clusters) >= view.service_ms
    assert (best.latency_basis, best.latency_age_s) == ("prior", None)
    assert best.latency_source
    assert best.rtt_ms_p95 is not None
    assert best.rtt_ms_p95 >= best.latency_ms - view.service_ms - 0.1
    assert best.within_objective is (best.latency_ms <= view.objective_ms)
    assert render.place_view(scene, "nobody", 0.0, 0.0) is None


def test_what_is_observed_of_answers_stands_beside_what_is_declared() -> None:
    """A map of estimates would hide that replicas answer late, or that requests wait in their engines."""
    served = messages.ServedSample(model="chat", requests_per_second=4.0, error_share=0.25, latency_ms_p95=180.0)
    idle = messages.ServedSample(model="rank", requests_per_second=0.0)
    engine = messages.EngineSample(model="chat", replicas=2, running=3.0, waiting=9.0, kv_cache_used=0.5)
    report = renamed(a_report("fra"), served=(served, idle), engines=(engine,))
    scene = replace(a_scene(), world=heard(a_world("fra", "iad"), report), plan=Plan(), routes=Routes())
    chat, rank = render.overview(scene).clusters[0].observed
    assert (chat.latency_ms_p95, chat.error_share, chat.waiting, chat.kv_cache_used) == (180.0, 0.25, 9.0, 0.5)
    assert (rank.latency_ms_p95, rank.error_share, rank.waiting) == (None, None, None), "nobody asked: nothing is known"
    assert render.overview(scene).clusters[1].observed == ()


def test_latencies_are_told_the_nearest_first_and_unknown_names_are_none() -> None:
    """Who asks where users are near would have to read ten thousand rows; a mistyped name would look like no users."""
    scene = a_scene()
    rows = render.latencies(scene, f"cell {NAMES[0]}", None)
    assert rows is not None and len(rows) == len(NAMES)
    assert [one.rtt_ms_p50 for one in rows] == sorted(one.rtt_ms_p50 for one in rows)
    assert render.latencies(scene, "nowhere", None) is None
    assert render.latencies(scene, None, "nobody") is None
    one = render.latencies(scene, f"cell {NAMES[0]}", NAMES[1])
    assert one is not None and len(one) == 1
    assert (one[0].basis, one[0].age_s) == ("prior", None)
