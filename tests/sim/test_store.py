"""The store fails while the fleet serves: users leave what is lost, and nothing is stopped for what was forgotten."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agents.backend import Observation
from federation.adapters.manifest import ManifestFile
from federation.control.plan import Routes
from tests.builders import replicas
from tests.sim.controller import PLAN_S
from tests.sim.fleet import FLOOR, SimFleet
from tests.unit.adapters.test_store_full import failed, full

SETTLE_S = 900.0
MINUTES_S = 600.0


async def settled(tmp_path: Path) -> SimFleet:
    fleet = SimFleet(5, tmp_path)
    await fleet.start_controller()
    await fleet.run(SETTLE_S, fleet.check)
    assert sum(fleet.ready().values()) >= FLOOR
    return fleet


def serving(fleet: SimFleet) -> set[str]:
    """Clusters that users are sent to."""
    return {share.cluster for route in fleet.hub.routes.routes for share in route.now}


def told(fleet: SimFleet) -> list[str]:
    return [one.reason for one in fleet.hub.events if one.reason.startswith("Store")]


async def test_users_leave_a_lost_cluster_though_the_disk_is_full(tmp_path: Path) -> None:
    """Its users would be sent to a dead cluster until somebody frees the disk, and nothing would replace it."""
    fleet = await settled(tmp_path)
    lost = max(serving(fleet))
    with full():
        fleet.cut(lost, will=True)
        await fleet.run(30.0, fleet.check)
        assert lost not in serving(fleet)
        await fleet.run(SETTLE_S, fleet.check)
        others = sum(count for name, count in fleet.ready().items() if name != lost)
        assert others >= FLOOR, "what it had is replaced"
        assert all(sum(one.share for one in route.now) > 0.99 for route in fleet.hub.routes.routes)
        assert told(fleet) == ["StoreFull"]
        generation = fleet.hub.plan.generation
        before = fleet.ready()
        await fleet.stop_controller()
        await fleet.start_controller()
        await fleet.run(MINUTES_S, fleet.check)
        assert {name: count for name, count in fleet.ready().items() if name != lost} == {
            name: count for name, count in before.items() if name != lost
        }, "a start on the full disk moves nothing"
    await fleet.store.keep_up()
    assert "StoreBack" in told(fleet)
    assert (await fleet.store.plans(1))[0].generation >= generation
    await fleet.stop_controller()


async def test_users_leave_a_lost_cluster_though_nothing_at_all_can_be_written(tmp_path: Path) -> None:
    """As above where not even the manifest takes anything; agents are then told nothing that a restart would forget."""
    fleet = await settled(tmp_path)
    lost = max(serving(fleet))
    plan = fleet.hub.plan
    with pytest.MonkeyPatch.context() as patched, full():
        patched.setattr(ManifestFile, "reach", failed)
        fleet.cut(lost, will=True)
        await fleet.run(SETTLE_S, fleet.check)
        assert lost not in serving(fleet)
        assert fleet.hub.plan.generation == plan.generation
        reasons = [one.reason for one in fleet.hub.events if one.reason in ("StoreFull", "PlanNotKept")]
        assert reasons == ["StoreFull", "PlanNotKept"], "each told once"
    await fleet.run(SETTLE_S, fleet.check)
    assert fleet.hub.plan.generation > plan.generation
    assert sum(count for name, count in fleet.ready().items() if name != lost) >= FLOOR
    await fleet.stop_controller()


@pytest.mark.parametrize("damage", ["emptied", "removed", "garbage", "half-a-log"])
@pytest.mark.parametrize("is_one_silent", [False, True], ids=["all-heard", "one-silent"])
async def test_nothing_is_stopped_for_what_was_forgotten(tmp_path: Path, damage: str, is_one_silent: bool) -> None:
    """Missing data would be an order to delete: an older plan's zeros, or no plan at all."""
    fleet = await settled(tmp_path)
    file = fleet._database
    log = file.with_name(f"{file.name}-wal")
    contents = file.read_bytes(), log.read_bytes()
    await fleet.stop_controller()
    if damage == "half-a-log":
        file.write_bytes(contents[0])
        log.write_bytes(contents[1][: len(contents[1]) // 3])
    if damage == "emptied":
        file.write_bytes(b"")
    elif damage == "removed":
        file.unlink()
    elif damage == "garbage":
        file.write_bytes(b"no database" * 1000)
    before = fleet.ready()
    silent = max(name for name, count in before.items() if count)
    if is_one_silent:
        fleet.cut(silent)
        fleet._retained = {topic: text for topic, text in fleet._retained.items() if f"/{silent}/" not in topic}
    least = dict(before)

    def look() -> None:
        for name, count in fleet.ready().items():
            least[name] = min(least.get(name, 0), count)

    await fleet.start_controller()
    assert fleet.hub.adopts
    await fleet.run(MINUTES_S / 2, look)
    if is_one_silent:
        await fleet.heal(silent)
        assert fleet.ready()[silent] == before[silent]
        await fleet.run(30.0, look)
        assert fleet.ready()[silent] == before[silent], "it comes back to a controller that never heard of it"
    assert least == before
    await fleet.run(SETTLE_S, fleet.check)
    assert fleet.hub.routes != Routes()
    assert sum(fleet.ready().values()) >= FLOOR
    await fleet.stop_controller()


def files_of(directory: Path) -> list[Path]:
    return list(directory.glob("0.*"))


def restore(directory: Path, backup: dict[str, bytes]) -> None:
    for file in files_of(directory):
        file.unlink()
    for name, content in backup.items():
        (directory / name).write_bytes(content)


async def test_a_database_from_a_backup_is_found_out_by_what_agents_obey(tmp_path: Path) -> None:
    """Agents would refuse every order for good, and nobody be told; or what came since would be stopped."""
    fleet = await settled(tmp_path)
    await fleet.stop_controller()
    backup = {file.name: file.read_bytes() for file in files_of(tmp_path)}
    await fleet.start_controller()
    for name, rps in (("fra-1", 95.0), ("iad", 75.0)):
        fleet.ask(name, rps)
    await fleet.run(SETTLE_S, fleet.check)
    assert (fleet.hub.epoch, fleet.hub.plan.generation) > (2, 0)
    await fleet.stop_controller()
    restore(tmp_path, backup)
    before, least = fleet.ready(), fleet.ready()
    await fleet.start_controller()

    def look() -> None:
        for name, count in fleet.ready().items():
            least[name] = min(least[name], count)

    await fleet.run(MINUTES_S, look)
    assert "StoreOutdated" in told(fleet)
    assert fleet.hub.epoch == 3
    for agent in fleet.agents.values():
        assert agent.accepted.epoch == 3, "it is obeyed again"
    assert least == before
    await fleet.run(SETTLE_S, fleet.check)
    assert fleet.hub.plan.epoch == 3
    await fleet.stop_controller()


async def test_what_a_member_claims_to_run_later_is_not_taken_into_the_plan(tmp_path: Path) -> None:
    """A controller that lost its disk once would plan for ever what nobody ordered."""
    fleet = SimFleet(5, tmp_path)
    await fleet.start_controller()
    assert fleet.hub.adopts
    await fleet.run(SETTLE_S, fleet.check)
    wanted = fleet.wanted()
    idle = min(wanted, key=lambda name: wanted[name])
    assert wanted[idle] == 0
    backend = fleet.agents[idle].backend
    seen = backend.observe

    def claims() -> Observation:
        return replace(seen(), replicas=(replicas("chat", 5, 5),))

    backend.observe = claims  # type: ignore[method-assign]
    await fleet.run(MINUTES_S, fleet.check)
    assert fleet.wanted() == wanted
    await fleet.stop_controller()


async def test_while_a_plan_cannot_be_kept_nothing_is_stopped_by_the_one_before(tmp_path: Path) -> None:
    """Users that came since would lose replicas that the plan before had no need of, the moment the disk is back."""
    fleet = await settled(tmp_path)
    fleet.disk = "takes nothing"
    for name in fleet.USERS:
        fleet.ask(name, 70.0)
    await fleet.run(2 * PLAN_S, fleet.check)
    assert "PlanNotKept" in [one.reason for one in fleet.hub.events]
    assert fleet.hub.planned_s == float("-inf")
    fleet.disk = ""
    await fleet.run(2 * PLAN_S, fleet.check)
    assert fleet.hub.planned_s > 0
    assert sum(fleet.wanted().values()) >= 21
    await fleet.stop_controller()
