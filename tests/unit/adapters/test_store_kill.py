"""`kill -9` while the store is written to: what it said yes to is there, and no kill is taken for damage."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from federation.adapters.store import Remembered, Store
from federation.control.plan import Routes
from federation.state.world import Cordon
from tests.unit.adapters.test_store import a_plan

KILLS = 20


async def write_for_ever(path: Path) -> None:
    """What the killed process does: a little of everything, each told on standard output when it is durable."""
    store = Store(path)
    found = await store.open()
    print(f"epoch {found.epoch}", flush=True)
    generation = found.plan.generation
    for number in range(100_000):
        name = f"{found.epoch}-{number}.yaml"
        revision = await store.add_policy(name, name.encode() * 50, at_s=1.0, actor="test")
        print(f"policy {name} {revision}", flush=True)
        generation += 1
        await store.commit(a_plan(found.epoch, generation), Routes(version=generation))
        print(f"plan {generation}", flush=True)
        await store.set_cordon(f"cluster-{number}", Cordon(reason=name, drain=True), at_s=1.0, actor="test")
        print(f"cordon cluster-{number} {name}", flush=True)


async def opened(path: Path) -> Remembered:
    store = Store(path)
    found = await store.open()
    await store.close()
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_was_acknowledged_survives_twenty_kills(tmp_path: Path) -> None:
    """A crash would lose a policy, or be told as a damaged database, and the plan be forgotten for it."""
    rng = random.Random(3)
    path = tmp_path / "isochrone.sqlite"
    policies: dict[str, int] = {}
    cordons: dict[str, str] = {}
    generation = epoch = 0
    for kill in range(KILLS):
        command = [sys.executable, "-m", "tests.unit.adapters.test_store_kill", str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            first = process.stdout.readline().split()
            assert int(first[1]) > epoch
            epoch = int(first[1])
            time.sleep(rng.uniform(0.0, 0.15))
            process.kill()
            said = process.stdout.read()
        for line in said.splitlines(keepends=True):
            match line.split() if line.endswith("\n") else []:
                case ["policy", name, revision]:
                    policies[name] = int(revision)
                case ["plan", number]:
                    generation = int(number)
                case ["cordon", cluster, reason]:
                    cordons[cluster] = reason
        found = asyncio.run(opened(path))
        assert found.losses == (), kill
        assert not found.is_incomplete
        assert found.epoch > epoch
        assert found.plan.generation >= generation
        assert found.routes.version == found.plan.generation
        kept = {one.name: one.revision for one in found.policies}
        assert policies.items() <= kept.items()
        assert all(one.payload == one.name.encode() * 50 for one in found.policies)
        assert cordons.keys() <= found.cordons.keys()
        epoch = found.epoch
    assert len(policies) > KILLS, "something was acknowledged"


if __name__ == "__main__":
    asyncio.run(write_for_ever(Path(sys.argv[1])))
