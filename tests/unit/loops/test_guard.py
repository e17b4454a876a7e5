"""The guard at the desk: the engine may be dead, and a controller may restart with an order half carried out."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml

from federation.adapters.solver import SolverError
from federation.adapters.store import Store
from federation.aiokit.clock import Clock
from federation.control.placement_cycle import Proposal
from federation.control.plan import Placement, Plan, Replicas, Routes
from federation.loops.hub import Hub
from federation.loops.policies import NeedsForce, PolicyIntake
from federation.metrics import Metrics
from federation.state.reduce import BrokerFound
from federation.state.world import Timing, World
from federation.wire.messages import PoolKey
from tests.testbed.small_world import MODEL, POLICY, PRODUCT, cluster_document

PLACED = (Replicas(model="chat-8b", cluster="fra", pool=PoolKey(product=PRODUCT), replicas=8),)


class NoEngine:
    """Whose process died."""

    async def solve(self, problem: object, present: object) -> Proposal:
        raise SolverError("the solver's process died")


def text(*documents: dict[str, Any]) -> bytes:
    return yaml.safe_dump_all(list(documents)).encode()


async def desk_at(database: Path) -> tuple[PolicyIntake, Hub, Store]:
    """A desk whose controller remembers eight replicas in Frankfurt."""
    store = Store(database)
    remembered = await store.open()
    hub = Hub(
        world=World(timing=Timing(), started_s=-1000.0),
        plan=remembered.plan,
        routes=remembered.routes,
        epoch=remembered.epoch,
        clock=Clock(),
        metrics=Metrics(),
    )
    desk = PolicyIntake(hub, store, NoEngine())
    desk.restore(remembered.policies)
    if not remembered.policies:
        await desk.accept("clusters.yaml", text(cluster_document("fra")), actor="api")
        await desk.accept("chat.yaml", text(MODEL, POLICY), actor="api")
    if hub.plan.generation == 0:
        hub.plan = Plan(epoch=hub.epoch, generation=1, placement=Placement(replicas=PLACED), desired=PLACED)
    hub.apply(BrokerFound(now_s=hub.clock.monotonic_s() - 1000.0))
    return desk, hub, store


async def test_without_the_engine_nobody_is_locked_out_and_nothing_goes_to_nothing(tmp_path: Path) -> None:
    """A dead solver would stop every change, or let the worst of them pass."""
    desk, hub, store = await desk_at(tmp_path / "db")
    slower = {**MODEL, "spec": {**MODEL["spec"], "warmupSeconds": 9}}
    assert (await desk.accept("chat.yaml", text(slower, POLICY), actor="api")).changed
    assert [one.message for one in hub.events if one.reason == "PolicyNotForeseen"] == [
        "what chat.yaml does to users could only be foreseen in part: the solver's process died"
    ]
    for change in (text(MODEL), text(POLICY)):
        with pytest.raises(NeedsForce, match="chat-8b would go to nothing: 8 replicas"):
            await desk.accept("chat.yaml", change, actor="api")
    with pytest.raises(NeedsForce, match="chat-8b would go to nothing"):
        await desk.withdraw("chat.yaml", actor="api")
    await store.close()


async def test_who_forced_what_and_why_is_kept(tmp_path: Path) -> None:
    """The next engineer would find a model gone and nobody to ask; a restart would forget the pace and the reason."""
    desk, hub, store = await desk_at(tmp_path / "db")
    await desk.withdraw("chat.yaml", actor="api", force="the model is retired")
    assert [one.words("chat-8b") for one in hub.plan.forced] == ["withdrawn by api: the model is retired"]
    await store.commit(hub.plan, Routes())
    await store.close()
    with sqlite3.connect(tmp_path / "db") as database:
        rows = database.execute("SELECT actor, action, object, reason FROM audit ORDER BY id DESC LIMIT 1").fetchall()
    assert rows == [("api", "delete", "policy/chat.yaml", "the model is retired")]
    desk, hub, store = await desk_at(tmp_path / "db")
    assert [one.words("chat-8b") for one in hub.plan.forced] == ["withdrawn by api: the model is retired"]
    assert [one.carrying_out for one in desk.files() if one.name == "chat.yaml"] == [
        "carried out in steps: 0 replicas stopped"
    ]
    await store.close()


async def test_a_file_goes_back_to_what_it_was(tmp_path: Path) -> None:
    """Who has made a mistake at night would have to find out first what was in force before."""
    desk, hub, store = await desk_at(tmp_path / "db")
    good = text(MODEL, POLICY)
    slower = {**MODEL, "spec": {**MODEL["spec"], "warmupSeconds": 9}}
    await desk.accept("chat.yaml", text(slower, POLICY), actor="api")
    assert (await desk.roll_back("chat.yaml", None, actor="api")).changed
    assert hub.world.documents.models[0].spec.warmup_seconds == MODEL["spec"]["warmupSeconds"]
    assert (await desk.roll_back("chat.yaml", 3, actor="api")).changed
    assert hub.world.documents.models[0].spec.warmup_seconds == 9
    await desk.withdraw("chat.yaml", actor="api", force="a mistake")
    assert not hub.world.documents.models
    assert (await desk.roll_back("chat.yaml", None, actor="api")).changed
    assert [one.metadata.name for one in hub.world.documents.models] == ["chat-8b"]
    assert (await desk.accept("chat.yaml", good, actor="api")).changed
    for name, revision in (("none.yaml", None), ("chat.yaml", 999)):
        with pytest.raises(KeyError):
            await desk.roll_back(name, revision, actor="api")
    await store.close()
