"""What a replica takes of a pool."""

from __future__ import annotations

from dataclasses import replace

from placement import capacity
from placement.index import Index
from placement.large.encoding import encode
from placement.problem import Intake, Placed
from tests.unit.placement.test_shortage import a_model, a_problem


def test_a_replica_that_no_longer_fits_holds_a_device_everywhere() -> None:
    """One part would plan on devices that another knows to be taken, when a model's document asks for another card."""
    model = replace(a_model("chat"), shapes=tuple(replace(one, product="H100") for one in a_model("chat").shapes))
    problem = a_problem((model,), {"fra": 4}, {("chat", "fra"): 1.0})
    [pool] = problem.pools
    current = (Placed(model="chat", pool=pool.name, replicas=3),)
    clusters = tuple(replace(one, intake=Intake.HELD) for one in problem.clusters)
    index = Index(replace(problem, clusters=clusters, current=current))
    assert model.shape_for(pool) is None and model.devices_in(pool) == 1
    assert capacity.devices_used(index, index.current)[pool.name] == 3
    assert encode(index).arrays.pool_devices.tolist() == [3], "the large engine's"
