"""A database that is not as it was written: nothing of it is used silently, and what is good is not lost."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from federation.adapters import records
from federation.adapters.manifest import Manifest, ManifestFile
from federation.adapters.store import Remembered, Store, StoreError
from federation.control.plan import Plan, Route, Routes, Share
from federation.state.reduce import Note
from federation.state.world import Cordon
from tests.unit.adapters.test_store import a_plan

EPOCH = 2
FLIPS = 600


def a_table(version: int) -> Routes:
    shares = tuple(Share(cluster=name, share=0.5) for name in ("fra", "par"))
    return Routes(version=version, routes=(Route(model="chat", cell="Berlin", now=shares, target=shares),))


def payload(number: int) -> bytes:
    return f"policy {number} ".encode() * (60 + number)


@dataclass(frozen=True)
class Written:
    """Files of a store that was written to, and all that may be read from it."""

    directory: Path
    policies: dict[str, list[bytes]]
    plans: list[Plan]
    newest: Remembered

    def copy(self, to: Path, *, copies: bool = False) -> Path:
        """The database as it was written; with `copies` also those of policies that lie beside it."""
        to.mkdir()
        for file in self.directory.iterdir():
            if file.is_file():
                shutil.copyfile(file, to / file.name)
            elif copies:
                shutil.copytree(file, to / file.name)
        return to / "isochrone.sqlite"


async def written(directory: Path, *, closed: bool) -> Written:
    """Two starts, some of everything; with `closed` the log is in the file, else the process was killed."""
    live = directory.with_name(f"{directory.name}-live")
    path = live / "isochrone.sqlite"
    policies: dict[str, list[bytes]] = {}
    plans: list[Plan] = []
    for epoch in (1, EPOCH):
        store = Store(path)
        await store.open()
        for number in range(6):
            name = f"{'abc'[number % 3]}.yaml"
            policies.setdefault(name, []).append(payload(10 * epoch + number))
            await store.add_policy(name, policies[name][-1], at_s=float(number), actor="test")
            plans.append(a_plan(epoch, len(plans) + 1))
            await store.commit(plans[-1], a_table(len(plans)))
        await store.set_cordon("fra", Cordon(reason="smoke", drain=True), at_s=epoch, actor="test")
        if epoch == 1 or closed:
            await store.close()
    shutil.copytree(live, directory)
    if not closed:
        await store.close()
    probe = Written(directory, policies, plans, None)  # type: ignore[arg-type]
    newest = await opened(probe.copy(directory.with_name(f"{directory.name}-probe")))
    assert newest.losses == ()
    return Written(directory, policies, plans, newest)


async def opened(path: Path) -> Remembered:
    """What a start remembers. Raises: StoreError."""
    store = Store(path)
    try:
        return await store.open()
    finally:
        await store.close()


def same(one: Remembered, other: Remembered) -> bool:
    return (one.plan, one.routes, one.policies, one.cordons) == (
        other.plan,
        other.routes,
        other.policies,
        other.cordons,
    )


async def judge(world: Written, path: Path) -> str:
    """What became of a damaged database: refused, told, or as it was. Anything else is an assertion."""
    try:
        found = await opened(path)
    except StoreError:
        return "refused"
    assert found.epoch > EPOCH, "agents would refuse this start"
    for one in found.policies:
        assert one.payload in world.policies[one.name], "a policy that nobody wrote is used"
    assert found.routes == Routes() or found.routes in [a_table(number) for number in range(1, 13)]
    if found.is_incomplete:
        assert not found.plan.desired, "old orders would be given again"
    else:
        assert found.plan in (world.plans[-1], Plan())
    if not found.losses:
        assert same(found, world.newest), "a loss is not told"
        return "as it was"
    assert not (await opened(path)).losses or found.is_incomplete, "told at every start"
    return "told"


@pytest.fixture(params=["closed", "killed"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> Written:
    return await written(tmp_path / "written", closed=request.param == "closed")


def damages(world: Written, rng: random.Random, count: int, tmp_path: Path) -> Iterator[Path]:
    """Copies with one flipped bit, or cut off somewhere, in one of the files."""
    names = sorted(file.name for file in world.directory.iterdir() if file.is_file() and not file.name.endswith("-shm"))
    for number in range(count):
        path = world.copy(tmp_path / f"damaged-{number}")
        file = path.with_name(rng.choice([names[0], *names[1:]]) if rng.random() < 0.5 else "isochrone.sqlite")
        content = bytearray(file.read_bytes())
        if rng.random() < 0.15:
            del content[rng.randrange(len(content)) :]
        else:
            where = rng.randrange(len(content))
            content[where] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
        yield path
        shutil.rmtree(path.parent)


async def many(world: Written, seed: int, count: int, tmp_path: Path) -> dict[str, int]:
    outcomes: dict[str, int] = {}
    for path in damages(world, random.Random(seed), count, tmp_path):
        outcome = await judge(world, path)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes


@pytest.mark.parametrize(
    ("seed", "count"),
    [pytest.param(7, 30, id="some"), pytest.param(20, FLIPS // 2, id="many", marks=[pytest.mark.slow])],
)
@pytest.mark.timeout(400)
async def test_flipped_bits_and_cut_files_are_never_used_silently(
    world: Written, tmp_path: Path, seed: int, count: int
) -> None:
    """Users would be served by a policy, a plan or shares that nobody decided."""
    outcomes = await many(world, seed, count, tmp_path)
    assert outcomes.get("told", 0) > count // 5
    assert outcomes.get("as it was", 0) > count // 5, "not every bit matters"
    assert outcomes.get("refused", 0) < count // 10, "a start is possible"


async def test_each_row_is_missed(tmp_path: Path) -> None:
    """A row that is gone without a trace would be taken for one that was never written."""
    world = await written(tmp_path / "written", closed=True)
    for number, table in enumerate(records.RECORDS):
        path = world.copy(tmp_path / str(number))
        with sqlite3.connect(path) as db:
            db.execute(f"DELETE FROM {table.name} WHERE {table.key} = (SELECT max({table.key}) FROM {table.name})")
        db.close()
        assert await judge(world, path) == "told", table.name


async def test_the_last_good_revision_of_a_policy_is_used(tmp_path: Path) -> None:
    """A damaged policy would be put in force, or its model be taken for withdrawn and stopped everywhere."""
    world = await written(tmp_path / "written", closed=True)
    path = world.copy(tmp_path / "damaged")
    content = path.read_bytes()
    newest = world.policies["b.yaml"][-1]
    path.write_bytes(content.replace(newest, newest[:-1] + b"X"))
    found = await opened(path)
    in_force = {one.name: one.payload for one in found.policies}
    assert in_force["b.yaml"] == world.policies["b.yaml"][-2]
    assert in_force["a.yaml"] == world.policies["a.yaml"][-1]
    assert any("'b.yaml' revision 11 is damaged; its revision 8 is used" in loss for loss in found.losses)
    assert found.is_incomplete
    assert found.is_epoch_known
    kept = path.with_name("isochrone.sqlite.damaged-1")
    assert any(kept.name in loss for loss in found.losses)
    assert kept.stat().st_mode & 0o777 == 0o600
    assert newest[:-1] + b"X" in kept.read_bytes(), "people may want to look at it"
    assert (await opened(path)).losses == (), "what was mended is whole"


async def test_a_damaged_policy_is_taken_from_its_copy_and_nothing_is_forgotten(tmp_path: Path) -> None:
    """One flipped bit would take a policy, and with it all users of its models, out of force."""
    world = await written(tmp_path / "written", closed=True)
    path = world.copy(tmp_path / "damaged", copies=True)
    newest = world.policies["b.yaml"][-1]
    path.write_bytes(path.read_bytes().replace(newest, newest[:-1] + b"X"))
    found = await opened(path)
    assert {one.name: one.payload for one in found.policies} == {n: all_[-1] for n, all_ in world.policies.items()}
    assert found.plan == world.plans[-1] and not found.is_incomplete, "what agents were told is known"
    assert any("'b.yaml' revision 11 is damaged; its copy is used" in loss for loss in found.losses)
    assert (await opened(path)).losses == ()


async def test_a_damaged_copy_is_not_used(tmp_path: Path) -> None:
    """A policy that nobody wrote would be in force."""
    world = await written(tmp_path / "written", closed=True)
    path = world.copy(tmp_path / "damaged", copies=True)
    newest = world.policies["b.yaml"][-1]
    path.write_bytes(path.read_bytes().replace(newest, newest[:-1] + b"X"))
    for copy in path.with_suffix(".policies").iterdir():
        content = bytearray(copy.read_bytes())
        content[len(content) // 2] ^= 1
        copy.write_bytes(content)
    found = await opened(path)
    assert {one.name: one.payload for one in found.policies}["b.yaml"] == world.policies["b.yaml"][-2]
    assert found.is_incomplete


async def test_copies_are_of_what_is_in_force(tmp_path: Path) -> None:
    """A policy that was withdrawn would come back, or the disk fill with old ones."""
    path = tmp_path / "isochrone.sqlite"
    store = Store(path)
    await store.open()
    for payload_ in (b"one", b"two"):
        await store.add_policies({"a.yaml": payload_, "b.yaml": payload_}, at_s=1.0, actor="test")
    await store.withdraw_policy("b.yaml", at_s=2.0, actor="test")
    await store.close()
    assert [file.name for file in sorted(path.with_suffix(".policies").iterdir())] == [
        f"{number:016d}.json" for number in (3, 5)
    ]
    path.write_bytes(b"")
    found = await opened(path)
    assert [(one.name, one.payload) for one in found.policies] == [("a.yaml", b"two")]


async def test_the_newest_good_plan_is_used_and_its_orders_are_not(tmp_path: Path) -> None:
    """The orders of an older plan would stop what a newer one has started."""
    world = await written(tmp_path / "written", closed=True)
    path = world.copy(tmp_path / "damaged")
    newest = msgspec.json.encode(world.plans[-1])
    path.write_bytes(path.read_bytes().replace(newest, newest.replace(b'"near"', b'"nein"')))
    found = await opened(path)
    assert found.is_incomplete
    assert (found.plan.generation, found.plan.desired, found.plan.digests) == (12, (), {})
    assert any("plan 12 is not in it, plan 11 is" in loss for loss in found.losses)


@pytest.mark.parametrize("act", ["emptied", "removed"])
async def test_policies_of_a_database_that_is_gone_come_back_from_their_copies(tmp_path: Path, act: str) -> None:
    """All models would be without a policy until somebody hands all files in again."""
    world = await written(tmp_path / "written", closed=True)
    path = world.copy(tmp_path / "damaged", copies=True)
    path.write_bytes(b"") if act == "emptied" else path.unlink()
    found = await opened(path)
    assert {one.name: one.payload for one in found.policies} == {n: all_[-1] for n, all_ in world.policies.items()}
    assert found.is_incomplete
    assert "3 policy files come back from their copies" in found.losses[0]


@pytest.mark.parametrize("act", ["emptied", "removed"])
async def test_a_database_that_is_gone_is_not_taken_for_a_new_one(tmp_path: Path, act: str) -> None:
    """The next start would have epoch 1, which agents refuse, and nobody would know that policies are lost."""
    world = await written(tmp_path / "written", closed=True)
    path = world.copy(tmp_path / "damaged")
    path.write_bytes(b"") if act == "emptied" else path.unlink()
    found = await opened(path)
    assert found.epoch == EPOCH + 1
    assert found.is_incomplete
    assert found.plan == Plan(generation=12), "generations go on"
    assert len(found.losses) == 1
    assert "plans up to 12 and policies up to revision 12 are lost" in found.losses[0]
    assert (await opened(path)).epoch == EPOCH + 2


async def test_half_a_log_is_told(tmp_path: Path) -> None:
    """A disk that lied about what it had written would take accepted policies back, and the epoch."""
    world = await written(tmp_path / "written", closed=False)
    path = world.copy(tmp_path / "damaged")
    log = path.with_name("isochrone.sqlite-wal")
    log.write_bytes(log.read_bytes()[: log.stat().st_size // 2])
    found = await opened(path)
    assert found.epoch == EPOCH + 1
    assert found.is_incomplete
    assert "is older than its manifest" in found.losses[0]
    assert not (await opened(path)).is_incomplete or not found.plan.desired


async def test_what_sqlite_cannot_open_is_read_row_by_row(tmp_path: Path) -> None:
    """One bad sector in the head would lose every policy."""
    world = await written(tmp_path / "written", closed=True)
    path = world.copy(tmp_path / "damaged")
    content = bytearray(path.read_bytes())
    content[:100] = random.Random(1).randbytes(100)
    path.write_bytes(content)
    found = await opened(path)
    assert same(found, world.newest)
    assert len(found.losses) == 1


async def test_a_file_that_is_no_database_costs_what_was_in_it_and_no_more(tmp_path: Path) -> None:
    """The controller would plan from garbage, stop with a stack trace, or start again at epoch 1."""
    world = await written(tmp_path / "written", closed=True)
    path = world.copy(tmp_path / "damaged")
    path.write_bytes(b"this is no database, " * 400)
    found = await opened(path)
    assert found.epoch == EPOCH + 1
    assert found.policies == ()
    assert found.is_incomplete
    assert found.is_epoch_known
    assert path.with_name("isochrone.sqlite.damaged-1").read_bytes().startswith(b"this is no database")


async def test_a_manifest_that_is_lost_or_damaged_is_told(tmp_path: Path) -> None:
    """Nobody would know that the next loss of the database cannot be found."""
    world = await written(tmp_path / "written", closed=True)
    for number, content in enumerate((None, b"", b"{}" * 5000)):
        path = world.copy(tmp_path / str(number))
        manifest = path.with_name("isochrone.manifest.json")
        manifest.unlink() if content is None else manifest.write_bytes(content)
        found = await opened(path)
        assert same(found, world.newest)
        assert len(found.losses) == 1
        assert not found.is_incomplete
        assert ManifestFile(manifest).read() == Manifest(epoch=3, generation=12, revision=12, change=30)
        assert (await opened(path)).losses == ()


async def test_a_plan_damaged_while_the_controller_runs_is_left_out_of_its_history(tmp_path: Path) -> None:
    """One damaged row would make the list of plans unreadable."""
    world = await written(tmp_path / "written", closed=True)
    path = world.copy(tmp_path / "damaged")
    store = Store(path)
    told: list[Note] = []
    store.tell = told.append
    await store.open()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE plans SET at_s = 9 WHERE generation = 11")
    db.close()
    assert [one.generation for one in await store.plans(3)] == [12, 10]
    await store.plans(3)
    assert [one.reason for one in told] == ["StoreDamaged"]
    await store.close()


async def test_a_file_that_vanished_under_the_controller_is_written_again(tmp_path: Path) -> None:
    """What is accepted from then on would be gone with the process."""
    path = tmp_path / "isochrone.sqlite"
    store = Store(path)
    told: list[Note] = []
    store.tell = told.append
    await store.open()
    await store.add_policy("a.yaml", b"one", at_s=1.0, actor="test")
    path.unlink()
    await store.add_policy("b.yaml", b"two", at_s=1.0, actor="test")
    assert [one.reason for one in told] == ["StoreVanished"]
    await store.close()
    found = await opened(path)
    assert [one.name for one in found.policies] == ["a.yaml", "b.yaml"]
    assert found.losses == ()
