"""One model's fault, or one member's lie, is not everybody's."""

from __future__ import annotations

from pathlib import Path

from msgspec import structs

import placement as words
from federation.control.placement_cycle import Proposal
from federation.state import levels
from tests.builders import L4, a_model, a_policy, some_demand
from tests.sim.engine import Engine
from tests.sim.fleet import SimFleet

SETTLE_S = 900.0
USERS = ("Berlin", "New York", "Tokyo")


class Poisoned(Engine):
    """Fails on one model, as a fault of ours would."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self.model = model

    def _look(self, problem: words.Problem) -> None:
        if any(one.name == self.model for one in problem.models):
            raise ZeroDivisionError("float division by zero")

    async def solve(self, problem: words.Problem, present: tuple[words.Placed, ...]) -> Proposal:
        self._look(problem)
        return await super().solve(problem, present)

    async def route(self, problem: words.Problem, ready: words.Ready) -> words.Routing:
        self._look(problem)
        return await super().route(problem, ready)


def served(fleet: SimFleet, cell: str, model: str = "chat") -> float:
    """The part of a cell's requests that goes somewhere."""
    return sum(
        share.share
        for route in fleet.hub.routes.routes
        if (route.model, route.cell) == (model, cell)
        for share in route.now
    )


def berlin(fleet: SimFleet) -> list[str]:
    """Clusters that Berlin's users are sent to."""
    return [share.cluster for route in fleet.hub.routes.routes if route.cell == "Berlin" for share in route.now]


def told(fleet: SimFleet) -> list[str]:
    return [one.reason for one in fleet.hub.events]


async def test_a_model_that_planning_fails_on_stays_and_the_others_are_planned(tmp_path: Path) -> None:
    """One model's bad number would stop the planning of all, for as long as it lasts."""
    fleet = SimFleet(3, tmp_path)
    fleet.documents = structs.replace(
        fleet.documents,
        models=(*fleet.documents.models, a_model("other", rps=10, objective_ms=400)),
        policies=tuple(sorted((*fleet.documents.policies, a_policy("other")), key=lambda one: one.metadata.name)),
    )
    fleet.agents["par"].cells = (some_demand("other", "Paris", 8.0, country="FR", at="par"),)
    await fleet.start_controller()
    await fleet.run(SETTLE_S)
    assert served(fleet, "Paris", "other") > 0.99
    before = {key: n for key, n in fleet.hub.plan.desired_by_key().items() if key[0] == "other"}
    assert sum(before.values()) > 0
    healthy = fleet.planner._solver
    fleet.planner._solver = fleet.steer._solver = Poisoned("other")  # type: ignore[assignment]
    lost = max(name for name, count in fleet.wanted().items() if count and name.startswith("fra"))
    fleet.cut(lost, will=True)
    await fleet.run(SETTLE_S)
    after = {key: n for key, n in fleet.hub.plan.desired_by_key().items() if key[0] == "other"}
    assert after == before, "it stays where it is"
    assert served(fleet, "Paris", "other") > 0.99
    assert all(served(fleet, cell) > 0.99 for cell in USERS), "the others are planned around the loss"
    assert lost not in berlin(fleet), "and sent elsewhere"
    assert told(fleet).count("ModelSetAside") == 1
    assert set(fleet.hub.aside) == {"other"}
    fleet.planner._solver = fleet.steer._solver = healthy
    await fleet.run(SETTLE_S)
    assert not fleet.hub.aside
    assert told(fleet).count("ModelPlannedAgain") == 1


async def test_a_member_that_lies_of_users_takes_nobodys_place(tmp_path: Path) -> None:
    """Ten seconds of 500 ghost cells and of Berlin in the United States, then honest: as if nothing had been said."""
    fleet = SimFleet(4, tmp_path)
    await fleet.start_controller()
    await fleet.run(SETTLE_S)
    before = fleet.wanted()
    assert all(served(fleet, cell) > 0.99 for cell in USERS)
    liar = fleet.agents["nrt"]
    honest = liar.cells
    ghosts = tuple(some_demand("chat", f"ghost-{n}", 1_000.0, country="JP", at="nrt") for n in range(500))
    liar.cells = (
        *honest,
        *ghosts,
        some_demand("chat", "Berlin", 0.0, country="US", at="iad"),
        some_demand("chat", "Endless", 1e308, country="JP", at="nrt"),
    )
    worst = 1.0

    def look() -> None:
        nonlocal worst
        worst = min(worst, served(fleet, "Berlin"))
        assert fleet.hub.world.cells["Berlin"].country == "DE"
        assert all(name[:3] in ("fra", "par") for name in berlin(fleet))

    await fleet.run(30.0, look)
    assert {one.type for one in fleet.hub.world.clusters["nrt"].findings} == {"ImplausibleCell", "DemandDoubted"}
    liar.cells = honest
    await fleet.run(SETTLE_S, look)
    assert worst > 0.99, "the ghosts take nobody's place meanwhile"
    assert all(served(fleet, cell) > 0.99 for cell in USERS)
    assert {key[1] for key in fleet.hub.world.demand} == set(USERS)
    assert fleet.wanted() == before


async def test_a_lie_that_lasts_is_not_believed_by_a_controller_that_starts(tmp_path: Path) -> None:
    """A member that goes on lying would have everybody's capacity with the next restart."""
    fleet = SimFleet(6, tmp_path)
    await fleet.start_controller()
    await fleet.run(SETTLE_S)
    liar = fleet.agents["nrt"]
    liar.cells = tuple(structs.replace(one, requests_per_second=1e6) for one in liar.cells)
    most = 0.0

    def look() -> None:
        nonlocal most
        most = max(most, sum(one.requests_per_second for one in fleet.hub.world.clusters["nrt"].counted))

    await fleet.run(SETTLE_S, look)
    await fleet.stop_controller()
    await fleet.start_controller()
    await fleet.run(SETTLE_S, look)
    assert most <= levels.DAY_FACTOR * 30.0 + 1e-6, "sixteen times what was known"
    assert "DemandDoubted" in {one.type for one in fleet.hub.world.clusters["nrt"].findings}


async def test_a_lie_that_lasts_takes_no_replica_from_honest_users(tmp_path: Path) -> None:
    """Step by step one member would have every replica that it may, as its growth lasts and no document bounds it."""
    fleet = SimFleet(6, tmp_path)
    await fleet.start_controller()
    await fleet.run(SETTLE_S)
    liar = fleet.agents["nrt"]
    liar.cells = tuple(structs.replace(one, requests_per_second=1e6) for one in liar.cells)
    worst = dict.fromkeys(USERS, 1.0)
    short = False

    def look() -> None:
        nonlocal short
        for cell in ("Berlin", "New York"):
            worst[cell] = min(worst[cell], served(fleet, cell))
        short = short or served(fleet, "Tokyo") < 0.9

    await fleet.run(2 * SETTLE_S, look)
    assert short, "there is not enough for what is claimed"
    assert min(worst.values()) > 0.99, worst


async def test_a_member_that_lies_of_devices_draws_what_is_declared(tmp_path: Path) -> None:
    """A thousand devices at a cent, a millisecond away, all ready: it had everybody's users within eleven seconds."""
    fleet = SimFleet(5, tmp_path)
    await fleet.start_controller()
    await fleet.run(SETTLE_S)
    liar = fleet.agents["par"].backend
    liar.set_pools((structs.replace(fleet.pool(1_000), usd_per_device_hour=0.01),))
    liar._rtt_ms = lambda peer, chance: 1.0
    await fleet.run(SETTLE_S)
    assert fleet.wanted()["par"] <= 16, "twice what the catalogue declares"
    pools = {one.cluster: one for one in (await fleet.hub.formulate(fleet.hub.world, 0.0)).problem.pools}
    assert pools["par"].usd_per_device_hour == 1.0, "the catalogue's price"
    found = {one.type for one in fleet.hub.world.clusters["par"].findings}
    assert {"DevicesDoubted", "ImplausiblePrice"} <= found
    assert all(served(fleet, cell) > 0.99 for cell in USERS)
    assert L4 in {pool.key for pool in liar.offered}
