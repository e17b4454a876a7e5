"""What a controller must still know after it was killed."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from federation.adapters.store import Remembered, Stale, Store, StoreError, Superseded
from federation.control.plan import History, Plan, Replicas, Route, Routes, Share
from federation.state.reduce import Note
from federation.state.world import Cordon
from tests.builders import L4

SCHEMA_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE policies (
    revision INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, payload BLOB NOT NULL,
    accepted_at_s REAL NOT NULL, actor TEXT NOT NULL);
CREATE INDEX policies_by_name ON policies (name, revision);
CREATE TABLE plans (
    epoch INTEGER NOT NULL, generation INTEGER NOT NULL, at_s REAL NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (epoch, generation));
CREATE TABLE routes (id INTEGER PRIMARY KEY CHECK (id = 1), body BLOB NOT NULL);
CREATE TABLE cordons (cluster TEXT PRIMARY KEY, reason TEXT NOT NULL, drain INTEGER NOT NULL);
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at_s REAL NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
    object TEXT NOT NULL, reason TEXT NOT NULL);
PRAGMA user_version = 1;
"""


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


async def test_a_word_is_in_the_audit(tmp_path: Path) -> None:
    """Nobody could say who vouched for what a member claimed."""
    path = tmp_path / "isochrone.sqlite"
    store = Store(path)
    await store.open()
    await store.keep_word("confirm", "cluster/fra", "a launch", at_s=4.0, actor="test")
    await store.close()
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT at_s, actor, action, object, reason FROM audit").fetchall()
    db.close()
    assert rows == [(4.0, "test", "confirm", "cluster/fra", "a launch")]


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


async def test_one_plan_is_read_without_the_others(tmp_path: Path) -> None:
    """A plan of a large fleet has megabytes and a thousand are kept: looking at one would take the memory of all."""
    path = tmp_path / "isochrone.sqlite"
    store = Store(path)
    await store.open()
    for generation in range(1, 6):
        await store.commit(a_plan(1, generation), Routes())
    with sqlite3.connect(path) as db:
        db.execute("UPDATE plans SET body = 'no plan' WHERE generation <> 3")
    db.close()
    told: list[Note] = []
    store.tell = told.append
    assert await store.plan(3) == a_plan(1, 3)
    assert await store.plan(9) is None
    assert not told, "others were decoded"
    assert await store.plan(4) is None
    assert [one.reason for one in told] == ["StoreDamaged"]
    await store.close()


async def test_plans_can_be_listed_by_the_page(tmp_path: Path) -> None:
    """A list of a thousand plans would have all of them in memory at once."""
    store = Store(tmp_path / "isochrone.sqlite")
    await store.open()
    for generation in range(1, 6):
        await store.commit(a_plan(1, generation), Routes())
    assert [plan.generation for plan in await store.plans(2)] == [5, 4]
    assert [plan.generation for plan in await store.plans(9, before=4)] == [3, 2, 1]
    assert await store.plans(9, before=1) == ()
    await store.close()


WRITES: dict[str, Callable[[Store], Awaitable[object]]] = {
    "commit": lambda store: store.commit(a_plan(1, 1), Routes(version=3)),
    "routes": lambda store: store.save_routes(Routes(version=3)),
    "policy": lambda store: store.add_policy("a.yaml", b"old", at_s=1.0, actor="test"),
    "withdraw": lambda store: store.withdraw_policy("a.yaml", at_s=1.0, actor="test"),
    "cordon": lambda store: store.set_cordon("fra", Cordon(reason="old", drain=True), at_s=1.0, actor="test"),
    "word": lambda store: store.keep_word("confirm", "cluster/fra", "a launch", at_s=1.0, actor="test"),
    "epoch": lambda store: store.take_epoch(7),
    "look": lambda store: store.keep_up(),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
async def test_an_older_controller_writes_nothing_after_a_newer_one_started(
    tmp_path: Path, write: Callable[[Store], Awaitable[object]]
) -> None:
    """A controller that was paused would wake, overwrite its successor's routes, and take policies that nobody sees."""
    path = tmp_path / "isochrone.sqlite"
    old, new = Store(path), Store(path)
    await old.open()
    await new.open()
    await new.add_policy("a.yaml", b"new", at_s=1.0, actor="test")
    await new.save_routes(Routes(version=9))
    with pytest.raises(Superseded, match="another controller, epoch 2, uses this database; this one has epoch 1"):
        await write(old)
    await new.commit(a_plan(2, 1), Routes(version=10))
    await old.close()
    await new.close()
    store = Store(path)
    found = await store.open()
    assert (found.epoch, found.plan, found.routes.version, found.cordons) == (3, a_plan(2, 1), 10, {})
    assert [(one.revision, one.payload) for one in found.policies] == [(1, b"new")]
    await store.close()


async def test_two_that_start_at_once_get_epochs_of_their_own(tmp_path: Path) -> None:
    """Agents could not tell whose order is newer."""
    before = os.umask(0o022)
    stores = [Store(tmp_path / "isochrone.sqlite") for _ in range(4)]
    found = await asyncio.gather(*(store.open() for store in stores), return_exceptions=True)
    epochs = [one.epoch for one in found if isinstance(one, Remembered)]
    assert len(epochs) >= 1
    assert len(set(epochs)) == len(epochs)
    assert os.umask(before) == 0o022, "other files of the process would get other rights"
    for store in stores:
        await store.close()


@pytest.mark.parametrize("is_old", [False, True], ids=["new", "of-before"])
async def test_nobody_else_reads_what_is_stored(tmp_path: Path, is_old: bool) -> None:
    """Policies and plans of a company would be open to every user of the machine, by the log beside the database."""
    directory = tmp_path / "data"
    path = directory / "isochrone.sqlite"
    if is_old:
        directory.mkdir(mode=0o755)
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(SCHEMA_1)
            path.chmod(0o644)
    before = os.umask(0o022)
    try:
        store = Store(path)
        await store.open()
        await store.add_policy("a.yaml", b"one", at_s=1.0, actor="test")
        modes = {file.name: file.stat().st_mode & 0o777 for file in directory.rglob("*") if file.is_file()}
        ours = ("isochrone.sqlite", "isochrone.sqlite-wal", "isochrone.sqlite-shm", "isochrone.manifest.json")
        assert {*ours, f"{1:016d}.json"} == {*modes}
        assert set(modes.values()) == {0o600}
        assert (directory / "isochrone.policies").stat().st_mode & 0o777 == 0o700
        assert directory.stat().st_mode & 0o777 == (0o755 if is_old else 0o700)
        await store.close()
    finally:
        os.umask(before)
        if is_old:
            db.close()


def many_routes(version: int, share: float) -> Routes:
    """As of a large fleet: five thousand rows."""
    return Routes(
        version=version,
        routes=tuple(
            Route(model="chat", cell=f"cell-{number:05}", now=(Share(cluster="fra", share=share),), target=())
            for number in range(5_000)
        ),
    )


async def test_a_large_fleet_writes_a_part_of_what_its_tables_are(tmp_path: Path) -> None:
    """Ten thousand clusters would write seven megabytes at each step of the shares."""
    path = tmp_path / "isochrone.sqlite"
    store = Store(path)
    await store.open()
    routes = many_routes(1, 0.5)
    await store.save_routes(routes)
    await store.commit(a_plan(1, 1), routes)
    await store.commit(a_plan(1, 2), routes)
    await store.close()
    with closing(sqlite3.connect(path)) as db:
        sizes = [size for (size,) in db.execute("SELECT length(body) FROM routes")]
    assert len(sizes) == 1, "what has not changed is not written again"
    assert sizes[0] < len(msgspec.json.encode(routes)) / 8
    store = Store(path)
    assert (await store.open()).routes == routes
    await store.save_routes(many_routes(2, 1.0))
    await store.close()
    store = Store(path)
    assert (await store.open()).routes == many_routes(2, 1.0)
    await store.close()


async def test_a_database_of_schema_2_goes_on_and_the_version_before_leaves_it_alone(tmp_path: Path) -> None:
    """An upgrade would begin without a plan, or a version that is put back would take packed rows for damage."""
    path = tmp_path / "isochrone.sqlite"
    store = Store(path)
    await store.open()
    await store.commit(a_plan(1, 1), Routes(version=7))
    await store.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 2")
    store = Store(path)
    again = await store.open()
    assert (again.plan, again.routes, again.losses) == (a_plan(1, 1), Routes(version=7), ())
    await store.close()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (4,)


async def test_a_database_of_schema_1_goes_on(tmp_path: Path) -> None:
    """An upgrade would lose policies, or give replicas that run to nobody."""
    path = tmp_path / "isochrone.sqlite"
    with sqlite3.connect(path) as db:
        db.executescript(SCHEMA_1)
        db.execute("INSERT INTO meta VALUES ('epoch', '42')")
        for name, payload in (("a.yaml", b"1"), ("..2026_01/b.yaml", b"2"), ("a.yaml", b"3"), ("gone.yaml", b"4")):
            db.execute(
                "INSERT INTO policies (name, payload, accepted_at_s, actor) VALUES (?, ?, 5, 't')", (name, payload)
            )
        db.execute("INSERT INTO policies (name, payload, accepted_at_s, actor) VALUES ('gone.yaml', x'', 5, 't')")
        for generation in (1, 2):
            body = msgspec.json.encode(a_plan(40 + generation, generation))
            db.execute("INSERT INTO plans VALUES (?, ?, 1.5, ?)", (40 + generation, generation, body))
        db.execute("INSERT INTO routes VALUES (1, ?)", (msgspec.json.encode(Routes(version=7)),))
        db.execute("INSERT INTO cordons VALUES ('fra', 'smoke', 1)")
        db.execute("INSERT INTO audit (at_s, actor, action, object, reason) VALUES (1, 't', 'drain', 'fra', 'smoke')")
    db.close()
    for epoch in (43, 44):
        store = Store(path)
        found = await store.open()
        assert found.losses == ()
        assert not found.is_incomplete
        assert (found.epoch, found.plan, found.routes) == (epoch, a_plan(42, 2), Routes(version=7))
        assert [(one.name, one.payload) for one in found.policies] == [("a.yaml", b"3"), ("b.yaml", b"2")]
        assert found.cordons == {"fra": Cordon(reason="smoke", drain=True)}
        await store.withdraw_policy("none.yaml", at_s=1.0, actor="test")
        await store.close()
    store = Store(path)
    await store.open()
    await store.withdraw_policy("b.yaml", at_s=1.0, actor="test")
    await store.close()
    store = Store(path)
    assert [one.name for one in (await store.open()).policies] == ["a.yaml"], "what had a hidden name can be withdrawn"
    assert len(await store.plans(10)) == 2
    await store.close()


async def test_a_manifest_never_claims_more_than_a_killed_process_has_stored(tmp_path: Path) -> None:
    """Every crash at the wrong moment would be told as a loss, and make the controller forget its plan."""
    path = tmp_path / "isochrone.sqlite"
    for moment in range(1, 8):
        store = Store(path)
        found = await store.open()
        assert found.losses == (), moment
        assert not found.is_incomplete
        await store.commit(a_plan(found.epoch, found.plan.generation + 1), Routes())
        saved = path.with_name("isochrone.manifest.json").read_bytes()
        await store.commit(a_plan(found.epoch, found.plan.generation + 2), Routes())
        await store.close()
        if moment % 2:
            path.with_name("isochrone.manifest.json").write_bytes(saved)  # killed between the two


async def test_a_newer_database_is_not_touched(tmp_path: Path) -> None:
    """A downgrade would ruin what the newer version wrote."""
    path = tmp_path / "isochrone.sqlite"
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="newer version"):
        await Store(path).open()
