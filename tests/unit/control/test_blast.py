"""What a change of documents would do, by the engine's word and without it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from msgspec import structs

from federation.adapters.solver import solve_and_check
from federation.control import blast
from federation.control.placement_cycle import Solve, conclude
from federation.control.plan import Placement, Plan, Replicas, Route, Routes, Share
from federation.control.problem import formulate
from federation.policy import documents
from federation.state.keys import ModelCell
from federation.state.reduce import DocumentsAccepted
from federation.state.world import World
from placement import Unserved, UnservedCode
from tests.builders import L4, a_model, a_policy, a_report, a_world, heard, some_demand, told

LIMITS = blast.BlastLimits()


def serving() -> tuple[World, Plan]:
    """Forty requests per second from Berlin, served by five replicas in Frankfurt."""
    world = a_world("fra", "iad", models=(a_model("chat"),), policies=(a_policy("chat"),))
    demand = (some_demand("chat", "Berlin", 40.0),)
    world = heard(world, a_report("fra", demand=demand), a_report("iad"), now_s=1.0)
    placed = (Replicas(model="chat", cluster="fra", pool=L4, replicas=5),)
    return world, Plan(placement=Placement(replicas=placed), desired=placed)


def effect(unserved_rps: float = 0.0, *, asked: bool = True, **changed: Any) -> blast.Effect:
    """Of putting other documents in force."""
    world, plan = serving()
    after = with_documents(world.documents, **changed)
    following = told(world, DocumentsAccepted(documents=after, now_s=2.0))
    formulated = formulate(following, target=plan.target_by_key(), desired=plan.desired_by_key(), now_s=2.0)
    now = blast.Now(plan=plan, asked_rps={"chat": 40.0}, unserved_rps={"chat": unserved_rps})
    found = blast.at_once(world.documents, after, formulated, now)
    if not asked:
        return found
    answer = solve_and_check(formulated.problem, formulated.present)
    return blast.with_answer(found, formulated, answer.solution, now)


def with_documents(given: documents.Documents, **changed: Any) -> documents.Documents:
    return documents.Documents(
        models=changed.get("models", given.models),
        policies=changed.get("policies", given.policies),
        clusters=changed.get("clusters", given.clusters),
    )


def in_(*jurisdictions: str) -> documents.PlacementPolicy:
    rule = documents.ResidencyRule(clusters_in=documents.ClustersIn(jurisdictions=jurisdictions))
    return a_policy("chat", residency=(rule,))


def test_what_hurts_nobody_needs_nobody() -> None:
    """Every change would need a person's word, and nobody would read what a refusal says."""
    assert effect().refusals(LIMITS) == ()
    more: dict[str, Any] = {"models": (a_model("chat"), a_model("second")), "policies": (a_policy("chat", "second"),)}
    assert effect(**more).refusals(LIMITS) == ()
    assert effect(policies=(in_("EU"),)).refusals(LIMITS) == ()


def test_a_model_that_loses_its_policy_or_its_document_is_seen_without_the_engine() -> None:
    """Eight replicas and their users would be gone in seconds, the more so while the engine is busy."""
    wanted = ("chat would go to nothing: 5 replicas, which serve 40.0 requests per second",)
    for change in ({"policies": ()}, {"models": ()}, {"policies": (a_policy("chatt"),)}):
        assert effect(asked=False, **change).refusals(LIMITS) == wanted


def test_a_model_that_fits_nowhere_is_seen_without_the_engine() -> None:
    """A typo in a product would end the service."""
    model = a_model("chat")
    other = documents.Accelerator(product="NVIDIA-A10", requests_per_second=10)
    spec = documents.ModelSpec(
        runtime=model.spec.runtime, resources=model.spec.resources, accelerators=(other,), slo=model.spec.slo
    )
    changed = documents.Model(api_version=model.api_version, metadata=model.metadata, spec=spec)
    assert "would go to nothing" in effect(asked=False, models=(changed,)).refusals(LIMITS)[0]


def test_users_whom_nobody_may_serve_are_seen_without_the_engine() -> None:
    """A typo in a jurisdiction fails closed: at once, and for everybody."""
    for asked in (False, True):
        told_of = effect(asked=asked, policies=(in_("JP"),)).refusals(LIMITS)
        assert any("40.0" in one for one in told_of), told_of


def test_what_is_unserved_today_is_no_documents_fault() -> None:
    """In a shortage nothing could be changed, not even what ends it."""
    world, _ = serving()
    home = tuple(one for one in world.documents.clusters if one.metadata.name == "iad")
    assert home
    assert effect(unserved_rps=40.0, policies=(in_("JP"),), asked=False).refusals(LIMITS) == ()


def test_moving_half_the_fleet_at_once_is_told() -> None:
    """A mistake in a figure would start and stop everything."""
    moved = effect(policies=(in_("US"),))
    assert moved.refusals(LIMITS) == (f"it would start {moved.starts} and stop 5 replicas of a fleet of 5 at once",)
    assert moved.refusals(replace(LIMITS, replicas_least=100)) == ()
    assert moved.models == ("chat",)


def test_users_that_the_newest_solve_gives_up_count_as_unserved_today() -> None:
    """A document would be refused for a shortage that was there before it, until routing has got there."""
    world, plan = serving()
    formulated = formulate(world, target=plan.target_by_key(), desired=plan.desired_by_key(), now_s=2.0)
    proposal = solve_and_check(formulated.problem, formulated.present)
    lost = Unserved(
        model="chat", cell="Berlin", requests_per_second=12.0, code=UnservedCode.PRICE, reason="it costs too much"
    )
    proposal = replace(proposal, solution=replace(proposal.solution, unserved=(lost,)))
    newest = Solve(
        formulated=formulated, proposal=proposal, outcome=conclude(world, formulated, proposal, plan, 1000.0)
    )
    demand_rps = {ModelCell(("chat", "Berlin")): 40.0}
    shares = (Share(cluster="fra", share=1.0),)
    routes = Routes(routes=(Route(model="chat", cell="Berlin", now=shares, target=shares),))
    assert blast.now(plan, routes, demand_rps, None).unserved_rps == {"chat": 0.0}
    found = blast.now(plan, routes, demand_rps, newest)
    assert (found.asked_rps, found.unserved_rps) == ({"chat": 40.0}, {"chat": 12.0})
    assert found.alternative == formulated.ours(proposal.solution.replicas)


def test_a_cluster_leaves_the_catalogue_only_without_replicas() -> None:
    """Replicas would run on, and be paid for, in a cluster that nobody plans for any more."""
    _, plan = serving()
    assert blast.lost_in_use({"fra", "iad"}, plan) == {"fra": 5}
    assert blast.lost_in_use({"iad"}, plan) == {}


def test_what_nobody_acts_on_is_no_change() -> None:
    """An annotation would ask the engine about the whole fleet, and need a person's word in a shortage."""
    world, _ = serving()
    (model,) = world.documents.models
    noted = structs.replace(model, metadata=structs.replace(model.metadata, annotations={"team": "search"}))
    assert blast.say_the_same(world.documents, with_documents(world.documents, models=(noted,)))
    assert not blast.say_the_same(world.documents, with_documents(world.documents, models=()))
