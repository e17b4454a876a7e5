"""Who counts users where no file says how many there are."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from federation.state.reduce import DocumentsAccepted, Heard
from federation.state.world import World
from federation.wire import messages
from tests.builders import a_model, a_policy, a_report, a_world, hear, heard, replicas, some_demand, told

MODELS: dict[str, Any] = {"models": (a_model("chat"),), "policies": (a_policy("chat"),)}


def counted(cell: str, rps: float, model: str = "chat") -> messages.CountedSample:
    return messages.CountedSample(model=model, cell=cell, requests_per_second=rps)


def engine(rps: float | None, model: str = "chat") -> messages.EngineSample:
    return messages.EngineSample(model=model, replicas=1, requests_per_second=rps)


def rates(world: World) -> dict[tuple[str, str], float]:
    return {key: one.requests_per_second for key, one in world.demand.items()}


def test_what_a_gateway_counts_is_demand_without_a_file() -> None:
    """Whoever installs agent and gateway as shipped would have no users."""
    world = heard(a_world("fra", **MODELS), a_report("fra", counted=(counted("", 12.0),)))
    assert rates(world) == {("chat", "near-fra"): 12.0}
    assert world.cells["near-fra"].country == "DE"
    assert world.clusters["fra"].sources == {"chat": "gateway"}
    assert world.doors["chat"] == 1


def test_a_cell_that_the_catalogue_names_is_where_it_says() -> None:
    """Users would be taken to be at the front door that they come in by, whatever their country's rules."""
    world = heard(a_world("fra", "par", **MODELS), a_report("par", demand=(some_demand("chat", "Bonn", 1.0),)))
    world = heard(world, a_report("fra", counted=(counted("Bonn", 5.0), counted("Nowhere", 2.0), counted("", 1.0))))
    assert rates(world) == {("chat", "Bonn"): 6.0, ("chat", "near-fra"): 3.0}


def test_a_file_of_the_front_door_goes_before_its_gateway() -> None:
    """Users would count twice."""
    report = a_report("fra", demand=(some_demand("chat", "Bonn", 4.0),), counted=(counted("Bonn", 5.0),))
    world = heard(a_world("fra", **MODELS), report)
    assert rates(world) == {("chat", "Bonn"): 4.0}
    assert world.clusters["fra"].sources == {"chat": "file"}


def test_engines_count_only_where_no_front_door_does() -> None:
    """What one cluster's users ask of another's replicas would count at both."""
    world = heard(a_world("fra", "par", **MODELS), a_report("par", engines=(engine(8.0),)))
    assert rates(world) == {("chat", "near-par"): 8.0}
    assert not world.doors.get("chat", 0)
    world = heard(world, a_report("fra", counted=(counted("", 9.0),)), a_report("par", 2, engines=(engine(8.0),)))
    assert rates(world)["chat", "near-fra"] == 9.0
    world = heard(
        world,
        a_report("par", 3, engines=(engine(8.0), engine(1.0, "other")), demand=(some_demand("other", "Bonn", 1.0),)),
    )
    assert ("chat", "near-par") not in rates(world)


def test_users_who_stop_asking_are_no_users() -> None:
    """Replicas would be paid for whom nobody asks, as long as the gateway lives."""
    world = heard(a_world("fra", **MODELS), a_report("fra", counted=(counted("", 12.0),)))
    world = heard(world, a_report("fra", 2, counted=(counted("", 0.0),)))
    assert rates(world) == {("chat", "near-fra"): 0.0}


@pytest.mark.parametrize("who", ["file", "gateway", "engine", "other"])
def test_a_model_whose_users_nobody_counts_is_told_with_the_next_step(who: str) -> None:
    """It would be planned as if nobody used it, and nobody would know why."""
    world = a_world("fra", "par", **MODELS)
    serving = a_report("fra", replicas=(replicas("chat", 1, 1),))
    (finding,) = heard(world, serving).clusters["fra"].findings
    assert finding.type == "NoDemandSource"
    assert finding.message.startswith("no source of demand for chat in fra: ")
    fields: dict[str, dict[str, Any]] = {
        "file": {"demand": (some_demand("chat", "Bonn", 4.0),)},
        "gateway": {"counted": (counted("", 0.0),)},
        "engine": {"engines": (engine(0.0),)},
        "other": {},
    }
    if who == "other":
        world = heard(world, a_report("par", counted=(counted("", 1.0),)))
    world = heard(world, msgspec.structs.replace(serving, **fields[who]))
    assert world.clusters["fra"].findings == ()


def test_a_cluster_that_leaves_the_catalogue_counts_no_more() -> None:
    """Engines would be ignored for a front door that is gone for good."""
    world = heard(a_world("fra", "par", **MODELS), a_report("fra", counted=(counted("", 12.0),)))
    left = msgspec.structs.replace(world.documents, clusters=world.documents.clusters[1:])
    world = told(world, DocumentsAccepted(documents=left, now_s=1.0))
    assert not world.doors.get("chat", 0)


def test_a_report_of_an_older_agent_is_the_same_object_for_all_that_concerns_it() -> None:
    """Ten thousand agents' reports would each be copied for what they do not say."""
    report = a_report("fra", demand=(some_demand("chat", "Bonn", 4.0),))
    reduced = hear(a_world("fra", **MODELS), Heard(message=report, now_s=0.0))
    assert reduced.world.clusters["fra"].report is report
