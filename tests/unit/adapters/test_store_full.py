"""A disk that takes nothing: what is in force goes on from memory, orders are refused, and a start is possible."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from federation.adapters.manifest import ManifestFile
from federation.adapters.records import Book
from federation.adapters.store import Store, StoreError, StoreFull
from federation.control.plan import Plan, Routes
from federation.state.reduce import Note
from federation.state.world import Cordon
from tests.unit.adapters.test_store import SCHEMA_1, a_plan


def no_space(*_: Any, **__: Any) -> None:
    """What SQLite says of a full disk."""
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    raise error


def failed(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


@contextmanager
def full(moment: str = "finish") -> Iterator[None]:
    """No transaction finds space, from its first row or at its end."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Book, moment, no_space)
        yield


class Watched:
    """A store and what it told."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path)
        self.notes: list[Note] = []
        self.store.tell = self.notes.append

    def told(self) -> list[str]:
        return [one.reason for one in self.notes]


ORDERS: dict[str, Callable[[Store], Awaitable[object]]] = {
    "policy": lambda store: store.add_policy("b.yaml", b"two", at_s=1.0, actor="test"),
    "withdraw": lambda store: store.withdraw_policy("a.yaml", at_s=1.0, actor="test"),
    "drain": lambda store: store.set_cordon("fra", Cordon(reason="x", drain=True), at_s=1.0, actor="test"),
}


@pytest.mark.parametrize("moment", ["put", "finish"])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
async def test_what_people_order_is_stored_or_refused(
    tmp_path: Path, order: Callable[[Store], Awaitable[object]], moment: str
) -> None:
    """What was acknowledged would be gone after a restart."""
    path = tmp_path / "isochrone.sqlite"
    watched = Watched(path)
    await watched.store.open()
    await watched.store.add_policy("a.yaml", b"one", at_s=1.0, actor="test")
    with full(moment):
        for _ in range(2):
            with pytest.raises(StoreFull, match="no space"):
                await order(watched.store)
    assert watched.told() == ["StoreFull"], "once"
    await watched.store.keep_up()
    assert watched.told() == ["StoreFull", "StoreBack"]
    await watched.store.close()
    store = Store(path)
    found = await store.open()
    assert [(one.name, one.payload) for one in found.policies] == [("a.yaml", b"one")]
    assert found.cordons == {}
    assert found.losses == ()
    await store.close()


@pytest.mark.parametrize("moment", ["put", "finish"])
async def test_routes_and_plans_go_on_and_are_stored_when_there_is_space(tmp_path: Path, moment: str) -> None:
    """A cluster that is lost would keep its users until somebody frees the disk."""
    path = tmp_path / "isochrone.sqlite"
    watched = Watched(path)
    await watched.store.open()
    await watched.store.commit(a_plan(1, 1), Routes(version=1))
    with full(moment):
        await watched.store.save_routes(Routes(version=2))
        await watched.store.commit(a_plan(1, 2), Routes(version=3))
        await watched.store.commit(a_plan(1, 3), Routes(version=4))
        await watched.store.save_routes(Routes(version=5))
        await watched.store.keep_up()
        assert [one.generation for one in await watched.store.plans(10)] == [3, 1]
    await watched.store.keep_up()
    assert watched.told() == ["StoreFull", "StoreBack"]
    await watched.store.close()
    store = Store(path)
    found = await store.open()
    assert (found.plan, found.routes.version, found.is_incomplete) == (a_plan(1, 3), 5, False)
    await store.close()


async def test_a_restart_knows_that_agents_were_told_more_than_is_stored(tmp_path: Path) -> None:
    """It would give the orders of the plan before, and stop what was started meanwhile."""
    path = tmp_path / "isochrone.sqlite"
    watched = Watched(path)
    await watched.store.open()
    await watched.store.commit(a_plan(1, 1), Routes(version=1))
    with full():
        await watched.store.commit(a_plan(1, 2), Routes(version=2))
        await watched.store.close()
        again = Watched(path)
        found = await again.store.open()
        assert found.epoch == 2, "durable though there is no space: in the manifest"
        assert found.is_incomplete
        assert found.is_epoch_known
        assert found.plan == Plan(**{**plain(a_plan(1, 1)), "generation": 2, "desired": (), "generations": {}})
        await again.store.commit(a_plan(2, 3), Routes(version=3))
        await again.store.close()
        third = Watched(path)
        assert (await third.store.open()).epoch == 3
    await third.store.commit(a_plan(3, 4), Routes(version=4))
    assert third.told() == ["StoreFull", "StoreBack"]
    await third.store.close()
    store = Store(path)
    found = await store.open()
    assert (found.epoch, found.plan, found.is_incomplete, found.losses) == (4, a_plan(3, 4), False, ())
    await store.close()


async def test_an_upgrade_on_a_full_disk_waits_for_space(tmp_path: Path) -> None:
    """The controller would not start, and nobody steer, until somebody frees the disk."""
    path = tmp_path / "isochrone.sqlite"
    with sqlite3.connect(path) as db:
        db.executescript(SCHEMA_1)
        db.execute("INSERT INTO meta VALUES ('epoch', '6')")
        db.execute("INSERT INTO policies VALUES (1, '..2026/a.yaml', x'31', 5, 'test')")
        db.execute("INSERT INTO plans VALUES (6, 1, 1.5, ?)", (msgspec.json.encode(a_plan(6, 1)),))
    db.close()
    watched = Watched(path)
    with full("put"):
        found = await watched.store.open()
        assert (found.epoch, found.plan, found.losses) == (7, a_plan(6, 1), ())
        assert [one.name for one in found.policies] == ["a.yaml"]
        await watched.store.commit(a_plan(7, 2), Routes(version=2))
    await watched.store.keep_up()
    assert watched.told() == ["StoreFull", "StoreBack"]
    await watched.store.close()
    store = Store(path)
    found = await store.open()
    assert (found.epoch, found.plan, found.is_incomplete) == (8, a_plan(7, 2), False)
    assert [one.name for one in found.policies] == ["a.yaml"]
    await store.close()


async def test_a_loss_that_was_found_on_a_full_disk_is_told_once(tmp_path: Path) -> None:
    """Each start would tell it again, and forget the plan of the one before."""
    path = tmp_path / "isochrone.sqlite"
    store = Store(path)
    await store.open()
    for generation in range(1, 6):
        await store.commit(a_plan(1, generation), Routes(version=generation))
    await store.close()
    path.write_bytes(b"")
    watched = Watched(path)
    with pytest.MonkeyPatch.context() as patched, full("finish"):
        patched.setattr(Store, "_connect", no_space)
        assert "has 0 of" in (await watched.store.open()).losses[0]
    await watched.store.commit(a_plan(2, 6), Routes(version=6))
    await watched.store.close()
    store = Store(path)
    found = await store.open()
    assert (found.epoch, found.plan, found.losses, found.is_incomplete) == (3, a_plan(2, 6), (), False)
    await store.close()


async def test_agents_are_told_nothing_that_a_restart_could_not_know_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, on a file system where not even the manifest can be written."""
    watched = Watched(tmp_path / "isochrone.sqlite")
    await watched.store.open()
    monkeypatch.setattr(ManifestFile, "reach", failed)
    with full():
        with pytest.raises(StoreError):
            await watched.store.commit(a_plan(1, 1), Routes(version=2))
        await watched.store.save_routes(Routes(version=2))
    monkeypatch.undo()
    await watched.store.commit(a_plan(1, 1), Routes(version=3))
    await watched.store.close()


def plain(plan: Plan) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in Plan.__dataclass_fields__}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.real
@pytest.mark.parametrize("index", ["kept", "gone"])
async def test_a_disk_that_is_really_full(small_disk: Path, index: str) -> None:
    """What SQLite and the kernel do there is theirs: routes go on, orders are refused, the next start is possible."""
    path = small_disk / "data" / "isochrone.sqlite"
    watched = Watched(path)
    await watched.store.open()
    await watched.store.add_policy("a.yaml", b"one", at_s=1.0, actor="test")
    await watched.store.commit(a_plan(1, 1), Routes(version=1))
    fill(small_disk)
    names = {"a.yaml"}
    with pytest.raises(StoreFull):
        for number in range(100):
            await watched.store.add_policy(f"{number}.yaml", bytes([1]) * 40_000, at_s=1.0, actor="test")
            names.add(f"{number}.yaml")
    generation = 1
    for _ in range(40):
        generation += 1
        await watched.store.commit(a_plan(1, generation), Routes(version=generation))
    assert watched.told() == ["StoreFull"]
    await watched.store.close()
    for epoch in (2, 3):
        if index == "gone":  # after a restart of the machine SQLite has to make it anew, for which there is no space
            path.with_name("isochrone.sqlite-shm").unlink(missing_ok=True)
        fill(small_disk)
        again = Watched(path)
        found = await again.store.open()
        assert (found.epoch, found.is_epoch_known) == (epoch, True)
        assert {one.name for one in found.policies} == names
        assert found.plan.generation == generation
        generation += 1
        await again.store.commit(a_plan(epoch, generation), Routes(version=generation))
        if epoch == 3:
            (small_disk / "filler").unlink()
            await again.store.keep_up()
            assert again.told() == ["StoreFull", "StoreBack"]
        await again.store.close()
    last = Watched(path)
    found = await last.store.open()
    assert (found.epoch, found.plan, found.is_incomplete) == (4, a_plan(3, generation), False)
    await last.store.close()


def fill(disk: Path) -> None:
    """Take all the space that is left."""
    with (disk / "filler").open("ab") as file:
        for size in (65536, 4096, 1):
            while True:
                try:
                    os.write(file.fileno(), bytes(size))
                except OSError:
                    break
