"""The engine for large worlds, on small ones where the truth is known, and on one that is large."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from placement import engine, scale
from placement.check import check
from placement.instance import validate
from placement.model import Problem, Solution
from tests.bench.worlds import a_large_world
from tests.properties.worlds import a_world

pytestmark = pytest.mark.timeout(400)  # the first call compiles, for most of a minute
WORLDS = range(120)


def solved_as_large(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> Solution:
    """The large engine's answer, whatever the size."""
    with monkeypatch.context() as patched:
        patched.setattr(engine, "LARGE_PAIRS", -1)
        return engine.solve(problem)


def test_no_rule_is_broken_and_the_bound_is_below_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large fleet would be overfilled or leave a jurisdiction; or its plan would look nearer the best than it is."""
    compared, dearer = 0, []
    for seed in WORLDS:
        problem = a_world(seed)
        exact, large = engine.solve(problem), solved_as_large(problem, monkeypatch)
        assert check(problem, large) == (), f"seed {seed}"
        if not exact.shortfalls and not large.shortfalls:
            compared += 1
            assert large.bound_usd_per_hour <= exact.cost.total + 1e-3, f"seed {seed}: the bound is no bound"
            dearer.append(large.cost.total / max(exact.cost.total, 1e-9) - 1)
    assert compared > len(WORLDS) // 4
    assert float(np.median(dearer)) < 1e-6, "most tiny worlds are solved to the optimum"


@pytest.fixture(scope="module")
def large() -> scale.Answer:
    return scale.solve(a_large_world(1, clusters=40, cells=400, models=4))


def test_a_large_world_is_within_capacity_and_near_its_bound(large: scale.Answer) -> None:
    """A fleet would be told to run what does not fit, or pay for what it need not."""
    instance = a_large_world(1, clusters=40, cells=400, models=4)
    validate(instance)
    used = np.bincount(instance.option_pool, weights=large.replicas * instance.option_devices)
    assert (used <= instance.pool_devices).all()
    capacity = np.bincount(instance.option_node, weights=large.replicas * instance.option_rps)
    load = np.bincount(instance.arc_node, weights=large.flows, minlength=len(capacity))
    assert (load <= capacity + 1e-6).all()
    served = np.bincount(instance.arc_group, weights=large.flows, minlength=len(instance.group_rps))
    assert np.allclose(served + large.unserved, instance.group_rps)
    assert 0 <= large.gap < 0.03
    assert not large.is_loose


def test_a_lost_cluster_is_repaired_and_the_rest_left_alone(large: scale.Answer) -> None:
    """The loss of one cluster would move replicas all over the world."""
    instance = a_large_world(1, clusters=40, cells=400, models=4)
    running = np.bincount(instance.option_pool, weights=large.replicas * instance.option_devices)
    lost = int(running.argmax())
    gone = instance.option_pool == lost
    without = replace(instance, option_most=np.where(gone, 0, instance.option_most))
    mended = scale.repair(without, large.replicas, large.flows, large.prices)
    fresh = scale.solve(without)
    assert (mended.replicas[gone] == 0).all()
    assert mended.unserved.sum() <= fresh.unserved.sum() + 1e-3
    churn = np.abs(mended.replicas - large.replicas)[~gone].sum()
    assert churn < np.abs(fresh.replicas - large.replicas)[~gone].sum()


def test_an_unchanged_world_is_left_alone(large: scale.Answer) -> None:
    """Every cycle would move replicas for nothing."""
    instance = a_large_world(1, clusters=40, cells=400, models=4)
    again = scale.repair(instance, large.replicas, large.flows, large.prices)
    assert (again.replicas == large.replicas).all()
    assert again.usd_per_hour <= large.usd_per_hour + 1e-6


PROGRAMME = """
import hashlib
from placement import scale
from tests.bench.worlds import a_large_world
made = scale.solve(a_large_world(5, clusters=8, cells=40, models=2))
print(hashlib.sha256(made.replicas.tobytes() + made.flows.tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_compiled_and_plain_give_the_same_bytes() -> None:
    """Two controllers, one of them where numba cannot compile, would disagree on the same world."""
    answers = set()
    for disabled, seed in (("0", "1"), ("1", "2")):
        environment = {**os.environ, "NUMBA_DISABLE_JIT": disabled, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAMME], env=environment, capture_output=True, text=True, check=True, timeout=110
        )
        answers.add(done.stdout.splitlines()[-1])
    assert len(answers) == 1
    assert len(answers.pop()) == hashlib.sha256().digest_size * 2
