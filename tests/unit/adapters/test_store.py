"""What a controller must still know after it was killed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from federation.adapters.store import Stale, Store, StoreError
from federation.control.plan import History, Plan, Replicas, Routes
from federation.state.world import Cordon
from tests.builders import L4


def a_plan(epoch: int, generation: int) -> Plan:
    return Plan(
        epoch=epoch,
        generation=generation,
        at_s=1.5,
        desired=(Replicas(model="chat", cluster="fra", pool=L4, replicas=2, reason="near"),),
        history=History(changed_s={"chat": 3.0}, moved_s={"chat": (1.0, 2.0)}),
        generations={"fra": generation},
    )


async def test_everything_comes_back_and_the_epoch_grows(tmp_path: Path) -> None:
    """After a crash, a policy would be missing, replicas would be forgotten, or agents would refuse the new start."""
    path = tmp_path / "isochrone.sqlite"
    store = Store(path)
    first = await store.open()
    assert (first.epoch, first.plan, first.policies) == (1, Plan(), ())
    await store.add_policy("a.yaml", b"one", at_s=1.0, actor="test")
    await store.add_policy("b.yaml", b"two", at_s=2.0, actor="test")
    await store.add_policy("a.yaml", b"three", at_s=3.0, actor="test")
    await store.commit(a_plan(1, 1), Routes(version=7))
    await store.set_cordon("fra", Cordon(reason="smoke", drain=True), at_s=4.0, actor="test")
    await store.close()
    store = Store(path)
    again = await store.open()
    assert again.epoch == 2
    assert again.plan == a_plan(1, 1)
    assert again.routes == Routes(version=7)
    assert [(p.revision, p.name, p.payload) for p in again.policies] == [(2, "b.yaml", b"two"), (3, "a.yaml", b"three")]
    assert again.cordons == {"fra": Cordon(reason="smoke", drain=True)}
    await store.close()


@pytest.mark.parametrize(
    ("epoch", "generation"),
    [pytest.param(1, 1, id="repeated"), pytest.param(1, 3, id="skipped"), pytest.param(2, 2, id="other-epoch")],
)
async def test_a_plan_commits_only_after_the_one_it_follows(tmp_path: Path, epoch: int, generation: int) -> None:
    """Two controllers, or a late cycle, would write over each other's plans."""
    store = Store(tmp_path / "isochrone.sqlite")
    await store.open()
    await store.commit(a_plan(1, 1), Routes())
    with pytest.raises(Stale):
        await store.commit(a_plan(epoch, generation), Routes())
    assert [plan.generation for plan in await store.plans(10)] == [1]
    await store.close()


async def test_an_older_controller_cannot_commit_after_a_newer_one_started(tmp_path: Path) -> None:
    """A controller that was paused would wake and publish over its successor."""
    path = tmp_path / "isochrone.sqlite"
    old, new = Store(path), Store(path)
    await old.open()
    await new.open()
    with pytest.raises(Stale):
        await old.commit(a_plan(1, 1), Routes())
    await old.close()
    await new.close()


async def test_a_damaged_database_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """The controller would plan from garbage, or stop with a stack trace."""
    path = tmp_path / "isochrone.sqlite"
    store = Store(path)
    await store.open()
    await store.close()
    path.write_bytes(b"this is no database, " * 400)
    with pytest.raises(StoreError, match="Move the file away"):
        await Store(path).open()


async def test_a_newer_database_is_not_touched(tmp_path: Path) -> None:
    """A downgrade would ruin what the newer version wrote."""
    path = tmp_path / "isochrone.sqlite"
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="newer version"):
        await Store(path).open()
