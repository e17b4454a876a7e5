"""The policy directory as ConfigMaps, git-sync and people leave it: what may be in it, and what an edit does."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from federation.adapters.directory import PolicyDirectory
from federation.adapters.store import Store, StoreFull
from federation.aiokit.clock import Clock
from federation.control.plan import Placement, Plan, Replicas, Routes
from federation.loops.hub import Hub
from federation.loops.policies import PolicyIntake
from federation.metrics import Metrics
from federation.state.reduce import BrokerFound, Heard
from federation.state.world import Timing, World
from tests.builders import L4, a_report
from tests.testbed.processes import Process, free_ports
from tests.testbed.small_world import MODEL, cluster_document


def documents(*names: str, **spec: Any) -> bytes:
    """A file of models with these names."""
    return yaml.safe_dump_all(
        [{**MODEL, "metadata": {"name": name}, "spec": {**MODEL["spec"], **spec}} for name in names]
    ).encode()


class Office:
    """A desk with its store, and what it told."""

    def __init__(self, database: Path | None) -> None:
        self.store = Store(database)

    async def open(self) -> Office:
        remembered = await self.store.open()
        world = World(timing=Timing(), started_s=0.0)
        self.hub = Hub(
            world=world, plan=Plan(), routes=Routes(), epoch=remembered.epoch, clock=Clock(), metrics=Metrics()
        )
        self.desk = PolicyIntake(self.hub, self.store)
        self.desk.restore(remembered.policies)
        return self

    def told(self, reason: str) -> list[str]:
        return [one.object for one in self.hub.events if one.reason == reason]

    def in_force(self) -> dict[str, tuple[str, ...]]:
        return {one.name: one.documents for one in self.desk.files() if one.documents}

    def models(self) -> set[str]:
        return {one.metadata.name for one in self.hub.world.documents.models}

    async def until(self, ask: Callable[[], bool]) -> None:
        for _ in range(300):
            if ask():
                return
            await asyncio.sleep(0.05)
        raise AssertionError([one.message for one in self.hub.events])


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    made = await Office(None).open()
    yield made
    await made.store.close()


async def watching(office: Office, directory: Path, act: Callable[[], Awaitable[None]]) -> None:
    """Act while the directory is watched by the real watcher."""
    await office.desk.read(directory)
    task = asyncio.create_task(office.desk.watch(directory))
    try:
        await asyncio.sleep(0.3)
        await act()
        assert not task.done()
    finally:
        task.cancel()
        started_s = time.monotonic()
        await asyncio.wait({task})
        assert time.monotonic() - started_s < 3.0, "SIGTERM would wait for it"


class ConfigMap:
    """A volume as the kubelet writes it: real files in `..<timestamp>`, exchanged by renaming the link `..data`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self._number = 0

    def write(self, **files: bytes) -> None:
        self._number += 1
        inside = self.root / f"..2026_11_30_0{self._number}"
        inside.mkdir()
        for name, payload in files.items():
            (inside / f"{name}.yaml").write_bytes(payload)
        old = (self.root / "..data").resolve() if (self.root / "..data").exists() else None
        (self.root / "..data_tmp").symlink_to(inside.name)
        (self.root / "..data_tmp").rename(self.root / "..data")
        for name in files:
            if not (self.root / f"{name}.yaml").is_symlink():
                (self.root / f"{name}.yaml").symlink_to(f"..data/{name}.yaml")
        for link in self.root.glob("*.yaml"):
            if link.stem not in files:
                link.unlink()
        if old is not None:
            for one in old.iterdir():
                one.unlink()
            old.rmdir()


async def test_a_config_map_is_read_once_by_the_names_that_people_gave(office: Office, tmp_path: Path) -> None:
    """Every edit of a ConfigMap would be refused as defined already; removing the old name would stop all replicas."""
    volume = ConfigMap(tmp_path / "volume")
    volume.write(a=documents("one"), b=documents("two"))

    async def edits() -> None:
        assert office.in_force() == {"a.yaml": ("Model/one",), "b.yaml": ("Model/two",)}
        volume.write(a=documents("one", warmupSeconds=7), b=documents("two"))
        await office.until(lambda: office.told("PolicyAccepted").count("policy/a.yaml") == 2)
        volume.write(a=documents("one", warmupSeconds=7), b=documents("two"), c=documents("three"))
        await office.until(lambda: "c.yaml" in office.in_force())
        volume.write(a=documents("one", warmupSeconds=7), c=documents("three"))
        await office.until(lambda: office.told("PolicyFileGone") == ["policy/b.yaml"])
        assert office.models() == {"one", "two", "three"}, "what is gone stays in force"
        assert await office.desk.withdraw("b.yaml", actor="test") == ("Model/two",)

    await watching(office, volume.root, edits)
    assert not office.told("PolicyRefused")
    assert office.told("PolicyFileGone") == ["policy/b.yaml"], "told once"


async def test_documents_move_between_files_of_one_edit(office: Office, tmp_path: Path) -> None:
    """Renaming a key of a ConfigMap would be refused, or stop the replicas of what moved."""
    volume = ConfigMap(tmp_path / "volume")
    volume.write(a=documents("one", "two"), b=documents("three"))
    seen: list[set[str]] = []

    async def edits() -> None:
        volume.write(a=documents("one"), b=documents("two", "three"))
        await office.until(lambda: office.in_force().get("b.yaml") == ("Model/two", "Model/three"))
        seen.append(office.models())
        volume.write(renamed=documents("one"), b=documents("two", "three"))
        await office.until(lambda: "renamed.yaml" in office.in_force())
        seen.append(office.models())

    believed = office.desk._believe

    def believe() -> None:
        believed()
        seen.append(office.models())

    office.desk._believe = believe  # type: ignore[method-assign]
    await watching(office, volume.root, edits)
    assert seen
    assert all(one == {"one", "two", "three"} for one in seen), "no moment without one of them"
    assert office.in_force() == {"renamed.yaml": ("Model/one",), "b.yaml": ("Model/two", "Model/three")}
    assert not office.told("PolicyRefused")


async def test_a_rename_while_nobody_looked_is_one_too(tmp_path: Path) -> None:
    """After a restart a renamed file would be refused for ever."""
    (tmp_path / "policies").mkdir()
    file = tmp_path / "policies" / "old.yaml"
    file.write_bytes(documents("one"))
    for name in ("old.yaml", "new.yaml", "new.yaml"):
        office = await Office(tmp_path / "isochrone.sqlite").open()
        if file.name != name:
            file = file.rename(file.with_name(name))
        await office.desk.read(file.parent)
        assert office.in_force() == {name: ("Model/one",)}
        assert not office.told("PolicyRefused")
        await office.store.close()


async def test_a_file_that_holds_only_some_of_what_is_gone_replaces_nothing(office: Office, tmp_path: Path) -> None:
    """Half a rename would stop the replicas of the other half."""
    (tmp_path / "a.yaml").write_bytes(documents("one", "two"))
    await office.desk.read(tmp_path)
    (tmp_path / "a.yaml").unlink()
    (tmp_path / "b.yaml").write_bytes(documents("one"))
    await office.desk.read(tmp_path)
    assert office.in_force() == {"a.yaml": ("Model/one", "Model/two")}
    assert office.told("PolicyRefused") == ["policy/b.yaml"]
    assert office.told("PolicyFileGone") == ["policy/a.yaml"]
    assert await office.desk.withdraw("a.yaml", actor="test")
    await office.desk.read(tmp_path)
    assert office.in_force() == {"b.yaml": ("Model/one",)}, "what was refused is judged again"


async def test_git_sync_is_followed_from_either_end(office: Office, tmp_path: Path) -> None:
    """A commit would never arrive, as the directory that was watched is the one of the old commit."""

    def checkout(commit: str, payload: bytes) -> None:
        (tmp_path / ".worktrees" / commit).mkdir(parents=True)
        (tmp_path / ".worktrees" / commit / "a.yaml").write_bytes(payload)
        (tmp_path / "new").symlink_to(Path(".worktrees") / commit)
        (tmp_path / "new").rename(tmp_path / "current")

    checkout("1a", documents("one"))
    assert PolicyDirectory(tmp_path).read().files.keys() == {"current/a.yaml"}

    async def edits() -> None:
        checkout("2b", documents("one", warmupSeconds=9))
        await office.until(lambda: office.told("PolicyAccepted") == ["policy/a.yaml"] * 2)

    await watching(office, tmp_path / "current", edits)


async def test_what_is_no_file_is_refused_alone(office: Office, tmp_path: Path) -> None:
    """A pipe among the files would end hot reload and keep the process from ending; a directory would lose the rest."""
    (tmp_path / "good.yaml").write_bytes(documents("good"))
    (tmp_path / "dir.yaml").mkdir()
    (tmp_path / "dir.yaml" / "inner.yaml").write_bytes(documents("inner"))

    async def edits() -> None:
        os.mkfifo(tmp_path / "pipe.yaml")
        (tmp_path / "loop.yaml").symlink_to("loop.yaml")
        (tmp_path / "broken.yaml").symlink_to("nowhere")
        (tmp_path / "null.yaml").symlink_to("/dev/null")
        (tmp_path / "up.yaml").symlink_to(tmp_path)
        (tmp_path / "again.yaml").symlink_to("good.yaml")
        (tmp_path / "long.yaml").write_bytes(b"#" * 3_000_000)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "socket.yaml"))
        (tmp_path / "later.yaml").write_bytes(documents("later"))
        await office.until(lambda: "later.yaml" in office.in_force())

    await watching(office, tmp_path, edits)
    assert office.models() == {"good", "inner", "later"}
    files = ("pipe", "socket", "loop", "broken", "null", "up", "long", "dir")
    assert sorted(office.told("PolicyRefused")) == sorted(f"policy/{name}.yaml" for name in files), "each told once"
    problems = {one.name: one.problems[0].message for one in office.desk.files() if one.problems}
    assert problems["pipe.yaml"] == "it is a pipe, not a file"
    assert "symbolic links" in problems["loop.yaml"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_a_file_that_may_not_be_read_is_told(office: Office, tmp_path: Path) -> None:
    """A policy with wrong rights would be ignored without a word."""
    (tmp_path / "secret.yaml").write_bytes(documents("one"))
    (tmp_path / "secret.yaml").chmod(0)
    await office.desk.read(tmp_path)
    assert office.told("PolicyRefused") == ["policy/secret.yaml"]


async def test_a_file_that_is_still_written_is_not_read_by_halves(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The documents that are not written yet would be taken for removed, and their replicas stopped."""
    file = tmp_path / "a.yaml"
    whole = documents("one", "two")
    half = whole[: whole.index(b"---") + 4]
    file.write_bytes(half)
    fstat = os.fstat
    calls = 0

    def growing(handle: int) -> os.stat_result:
        nonlocal calls
        calls += 1
        with file.open("ab") as writer:
            writer.write(b"#\n")
        return fstat(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", growing)
        await office.desk.read(tmp_path)
    assert calls
    assert not office.models()
    file.write_bytes(whole)
    await office.desk.read(tmp_path)
    assert office.models() == {"one", "two"}


async def test_a_directory_that_vanished_takes_nothing_away(office: Office, tmp_path: Path) -> None:
    """A volume that is not mounted would flood the events, or delete every model."""
    directory = tmp_path / "policies"
    directory.mkdir()
    (directory / "a.yaml").write_bytes(documents("one"))
    await office.desk.read(directory)
    (directory / "a.yaml").rename(tmp_path / "kept")
    directory.rmdir()
    await office.desk.read(directory)
    assert office.models() == {"one"}
    assert office.told("PolicyDirectoryLost") == ["controller"]
    assert not office.told("PolicyFileGone")


async def test_what_could_not_be_stored_is_tried_again(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edit on a full disk would be lost until somebody saves the file again, or the controller not start."""
    (tmp_path / "a.yaml").write_bytes(documents("one"))

    async def full(*_: Any, **__: Any) -> None:
        raise StoreFull("no space")

    with monkeypatch.context() as patched:
        patched.setattr(office.store, "add_policies", full)
        await office.desk.read(tmp_path)
        await office.desk.read(tmp_path)
    assert office.told("PolicyNotStored") == ["controller"], "told once"
    assert not office.models()
    await office.desk._look(office.desk._reader)  # type: ignore[arg-type]
    assert office.models() == {"one"}


@pytest.mark.slow
def test_the_process_ends_though_a_pipe_lies_among_its_policies(tmp_path: Path) -> None:
    """SIGTERM would not end it, and Kubernetes would kill it in the middle of something."""
    directory = tmp_path / "policies"
    directory.mkdir()
    os.mkfifo(directory / "pipe.yaml")
    command = [sys.executable, "-m", "federation.cli", "controller", "--policies", str(directory), "--broker-port", "0"]
    command += ["--data", str(tmp_path / "data"), "--listen", f"127.0.0.1:{free_ports(1)[0]}"]
    environment = {**os.environ, "ISOCHRONE_CONFIG": "/proc/none/config.json"}
    process = Process("controller", command, log_file=tmp_path / "log", environment=environment)
    process.start()
    deadline_s = time.monotonic() + 60
    while "map: " not in (tmp_path / "log").read_text() and time.monotonic() < deadline_s:
        time.sleep(0.1)
    log = (tmp_path / "log").read_text()
    assert "pipe.yaml" in log
    assert "cannot be kept" in log, "a configuration directory that cannot be written is told, and ends nothing"
    (directory / "more.yaml").write_bytes(documents("one"))
    while "more.yaml: revision" not in (tmp_path / "log").read_text() and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert process.running
    os.kill(process.pid, signal.SIGTERM)
    started_s = time.monotonic()
    while process.running and time.monotonic() - started_s < 15:
        time.sleep(0.05)
    assert not process.running
    assert "more.yaml: revision" in (tmp_path / "log").read_text()


async def test_an_edit_while_the_controller_was_away_waits_until_clusters_are_heard(tmp_path: Path) -> None:
    """A harmful edit that is refused while the controller runs would pass whenever it starts, as in each upgrade."""
    directory = tmp_path / "policies"
    directory.mkdir()
    (directory / "a.yaml").write_bytes(documents("one"))
    (directory / "fra.yaml").write_text(yaml.safe_dump(cluster_document("fra")))
    office = await Office(tmp_path / "isochrone.sqlite").open()
    await office.desk.read(directory)
    assert office.in_force()["a.yaml"] == ("Model/one",), "where nothing serves nothing waits"
    await office.store.close()
    (directory / "a.yaml").write_bytes(documents("one", warmupSeconds=7))
    office = await Office(tmp_path / "isochrone.sqlite").open()
    serving = Replicas(model="one", cluster="fra", pool=L4, replicas=3)
    office.hub.plan = Plan(generation=1, desired=(serving,), placement=Placement(replicas=(serving,)))
    try:
        await office.desk.read(directory)
        await office.desk._look(PolicyDirectory(directory))
        assert office.told("PolicyWaits") == ["policy/a.yaml"], "told once"
        assert {one.spec.warmup_seconds for one in office.hub.world.documents.models} == {5}
        now_s = office.hub.clock.monotonic_s()
        office.hub.apply(BrokerFound(now_s=now_s))
        office.hub.apply(Heard(message=a_report("fra"), now_s=now_s))
        await office.desk._look(PolicyDirectory(directory))
        assert {one.spec.warmup_seconds for one in office.hub.world.documents.models} == {7}
    finally:
        await office.store.close()
