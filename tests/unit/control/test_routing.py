"""Shares: off what cannot serve at once, towards the plan by steps, never more than all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import placement as engine
from federation.control import routing
from federation.control.plan import Route, Share
from federation.control.routing import next_routes, step
from federation.policy.documents import Traffic
from federation.state.keys import ModelCell

ALL = frozenset({"fra", "iad", "nrt"})


@pytest.mark.parametrize(
    ("present", "target", "serving", "limit", "expected"),
    [
        pytest.param({}, {"fra": 1.0}, ALL, 0.0, {"fra": 1.0}, id="what-was-unserved-is-served-at-once"),
        pytest.param({"fra": 1.0}, {"iad": 1.0}, ALL, 0.2, {"fra": 0.8, "iad": 0.2}, id="by-the-policy's-step"),
        pytest.param({"fra": 1.0}, {"iad": 1.0}, ALL, 0.0, {"fra": 1.0}, id="not-before-the-step-is-due"),
        pytest.param({"fra": 1.0}, {"iad": 1.0}, ALL - {"fra"}, 0.2, {"iad": 1.0}, id="off-a-lost-cluster-at-once"),
        pytest.param({"fra": 0.6, "iad": 0.4}, {"iad": 1.0}, ALL - {"fra"}, 0.0, {"iad": 1.0}, id="its-part-alone"),
        pytest.param(
            {"iad": 1.0}, {"fra": 1.0}, ALL, 0.1, {"iad": 0.9, "fra": 0.1}, id="back-to-a-returned-one-gradually"
        ),
        pytest.param({"fra": 1.0}, {"fra": 0.5}, ALL, 0.2, {"fra": 0.5}, id="what-nothing-can-serve-is-shed"),
        pytest.param({"fra": 0.004, "iad": 0.996}, {"iad": 1.0}, ALL, 0.0, {"iad": 1.0}, id="dust-is-swept"),
    ],
)
def test_one_step(
    present: dict[str, float],
    target: dict[str, float],
    serving: frozenset[str],
    limit: float,
    expected: dict[str, float],
) -> None:
    """Users would be sent to a dead cluster, or all at once to one whose caches are cold."""
    assert step(present, target, serving=serving, limit=limit) == pytest.approx(expected)


shares = st.dictionaries(st.sampled_from(sorted(ALL)), st.floats(0.01, 1.0), min_size=1, max_size=3).map(
    lambda parts: {name: part / sum(parts.values()) for name, part in parts.items()}
)


@given(present=shares, target=shares, serving=st.frozensets(st.sampled_from(sorted(ALL))), limit=st.floats(0, 1))
def test_shares_stay_shares(
    present: dict[str, float], target: dict[str, float], serving: frozenset[str], limit: float
) -> None:
    """Requests would be lost, or be sent to a cluster that does not serve."""
    target = {name: part for name, part in target.items() if name in serving}
    after = step(present, target, serving=serving, limit=limit)
    assert sum(after.values()) == pytest.approx(sum(target.values()), abs=1e-5)
    assert set(after) <= serving
    kept = {name: part for name, part in present.items() if name in serving}
    moved = sum(max(0.0, kept.get(name, 0.0) - after.get(name, 0.0)) for name in kept)
    shed = max(0.0, sum(kept.values()) - sum(target.values()))
    assert moved <= max(limit, 0.005) + shed + 1e-6


def test_users_of_whom_nothing_is_known_keep_their_shares() -> None:
    """A controller that restarts while a front door is silent would turn its users away."""
    halves = (Share(cluster="fra", share=0.5), Share(cluster="iad", share=0.5))
    now = {
        ModelCell((model, "Berlin")): Route(model=model, cell="Berlin", now=halves, target=halves)
        for model in ("chat", "gone")
    }
    routes = next_routes(now, {}, serving={"chat": frozenset({"fra"})}, traffic={"chat": Traffic()}, steps={})
    assert [(route.model, route.now) for route in routes] == [("chat", halves[:1])]


def test_a_table_that_has_arrived_stays_the_same_rows() -> None:
    """Every step of a quiet day would be stored, and told to every gateway."""
    third = {"fra": 1 / 3, "iad": 2 / 3}
    targets = {
        ModelCell(("chat", "Berlin")): routing.Target(third),
        ModelCell(("chat", "Paris")): routing.Target({}, "no room"),
    }
    given = {"serving": {"chat": ALL}, "traffic": {"chat": Traffic()}, "steps": {"chat": 1}}
    first = next_routes({}, targets, **given)  # type: ignore[arg-type]
    now = {row.key: row for row in first}
    again = next_routes(now, targets, **given)  # type: ignore[arg-type]
    assert all(one is other for one, other in zip(first, again, strict=True))
    moved = next_routes(now, {**targets, ModelCell(("chat", "Berlin")): routing.Target({"iad": 1.0})}, **given)  # type: ignore[arg-type]
    assert moved[0].target == (Share(cluster="iad", share=1.0),)


def test_rows_of_users_of_whom_nothing_is_known_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that names five hundred new cells in each report would fill the disk and every gateway with them."""
    monkeypatch.setattr(routing, "MOST_KEPT", 3)
    here = (Share(cluster="fra", share=1.0),)
    now = {
        ModelCell(("chat", name)): Route(model="chat", cell=name, now=here, target=here)
        for name in ("a", "b", "c", "d", "Paris")
    }
    rows = next_routes(
        now,
        {ModelCell(("chat", "Paris")): routing.Target({"fra": 1.0})},
        serving={"chat": ALL},
        traffic={"chat": Traffic()},
        steps={"chat": 1},
    )
    assert [row.cell for row in rows] == ["Paris", "a", "b", "c"]


def test_who_serves_more_than_plans_count_on_is_told_once_and_not_every_second() -> None:
    """Operators would not know that a cluster has nothing left for a loss, or not see it among its repetitions."""
    over = tuple(
        engine.Over(model="chat", cluster=name, requests_per_second=rps, reason="else 3 would go unserved")
        for name, rps in (("fra", 1.0), ("nyc", 2.0))
    )
    cost = engine.Cost(accelerators=0.0, egress=0.0, late=0.0, unserved=0.0, moves=0.0, proximity=0.0)
    routed = engine.Routing(flows=(), unserved=(), cost=cost, over=over)
    notes, told_s = routing.over_target(routed, {}, 100.0)
    assert [(note.reason, note.object) for note in notes] == [("OverTarget", "model/chat")]
    assert notes[0].message == (
        "nyc serves 2 requests per second of chat above the target utilisation (2 clusters do): "
        "else 3 would go unserved"
    )
    notes, told_s = routing.over_target(routed, told_s, 101.0)
    assert notes == ()
    notes, _ = routing.over_target(routed, told_s, 100.0 + routing.TOLD_AGAIN_S)
    assert len(notes) == 1
