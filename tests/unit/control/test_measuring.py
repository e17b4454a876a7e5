"""Which clusters browsers are asked to measure."""

from __future__ import annotations

import msgspec

from federation.control import measuring
from federation.policy import documents
from federation.state.measured import Window
from federation.state.phases import Phase
from federation.state.reduce import DocumentsAccepted, RoundTripsMeasured
from federation.state.world import World
from tests.builders import a_cluster, a_report, a_world, heard, renamed, some_demand, told
from tests.unit.control.test_latency import peers


def a_fleet(par_ms: float, iad_ms: float = 100.0) -> World:
    """Users at Frankfurt, and four clusters that browsers can measure."""
    names = ("fra", "par", "iad", "nrt")
    world = a_world(*names)
    clusters = tuple(
        a_cluster(name, gateway=documents.Gateway(address="192.0.2.1", measure_url=f"https://{name}.example/measure"))
        for name in sorted(names)
    )
    given = msgspec.structs.replace(world.documents, clusters=clusters)
    world = told(world, DocumentsAccepted(documents=given, now_s=0.0))
    reports = [
        renamed(
            a_report(name, demand=(some_demand("chat", "Berlin", 1.0),) if name == "fra" else ()),
            peers=peers(**{"nrt": 230.0, "iad": iad_ms, "par": par_ms}) if name == "fra" else (),
        )
        for name in names
    ]
    return heard(world, *reports)


def test_browsers_measure_what_may_be_the_nearest() -> None:
    """A near cluster behind a slow way would be asked for first, and the one that serves best never."""
    world = a_fleet(par_ms=12.0)
    assert all(state.phase is Phase.READY for state in world.clusters.values())
    assert [one.cluster for one in measuring.targets(world, "Berlin", 10.0)] == ["fra", "par", "iad"]
    slow = a_fleet(par_ms=12.0, iad_ms=280.0)
    assert [one.cluster for one in measuring.targets(slow, "Berlin", 10.0)] == ["fra", "par", "nrt"]


def test_what_was_measured_lately_is_asked_for_after_the_others() -> None:
    """The nearest would be measured for ever, and of no other cluster anything be known."""
    window = Window("Berlin", "fra", (9.0,) * 5, 5)
    world = told(a_fleet(par_ms=12.0), RoundTripsMeasured(windows=(window,), now_s=5.0))
    assert [one.cluster for one in measuring.targets(world, "Berlin", 10.0)] == ["par", "iad", "nrt"]
