"""What is told as changed by somebody else: what was, and nothing that the agent itself did."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest

from agents.inventory.offers import Access
from agents.kube.api import Api, ApiError
from agents.kube.applier import KINDS, LABEL, Applier
from agents.kube.keeper import Drifts, Keeper
from agents.manifests import names
from agents.manifests.build import ClusterSite
from federation.aiokit.clock import Clock
from federation.wire import messages
from tests.builders import L4, L4_SPOT

NAMESPACE = "isochrone-models"
EVENTS = f"/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events"
WAY = Access(resource="nvidia.com/gpu")


class Server(Api):
    """An API server that stores what is applied."""

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str], dict[str, Any]] = {}
        self.notes: list[str] = []
        self.forgets_to_answer = ""
        """Of a kind's collection: what is deleted there is gone, and the answer is lost."""
        self._made = 0

    async def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        return [copy.deepcopy(one) for (at, _), one in sorted(self.stored.items()) if at == path]

    async def apply(self, path: str, body: Mapping[str, Any], manager: str, *, force: bool = False) -> dict[str, Any]:
        at, _, name = path.rpartition("/")
        self._made += 1
        before = self.stored.get((at, name), {"metadata": {"uid": f"uid-{self._made}"}})
        metadata = {**before["metadata"], **body["metadata"]}
        self.stored[at, name] = {**before, **copy.deepcopy(dict(body)), "metadata": metadata}
        return copy.deepcopy(self.stored[at, name])

    async def create(self, path: str, body: Mapping[str, Any]) -> None:
        assert path == EVENTS
        self.notes.append(f"{body['regarding']['kind']}/{body['regarding']['name']}: {body['note']}")

    async def delete(self, path: str, uid: str) -> None:
        at, _, name = path.rpartition("/")
        self.stored.pop((at, name), None)
        if self.forgets_to_answer and at.endswith(self.forgets_to_answer):
            raise ApiError(0, "API server: TimeoutError")


class Here:
    """An applier and its API server."""

    def __init__(self) -> None:
        self.server, clock = Server(), Clock()
        drifts = Drifts(self.server, NAMESPACE, clock)
        self._applier = Applier(
            self.server, ClusterSite(namespace=NAMESPACE), Keeper(self.server, names.MANAGER, LABEL, drifts, clock)
        )
        self._generation = 0

    async def order(self, *workloads: messages.Workload) -> list[str]:
        """Carry out; gives what could not be done."""
        self._generation += 1
        desired = messages.Desired(cluster="fra", epoch=1, generation=self._generation, workloads=workloads)
        troubles = await self._applier.carry_out(desired, access={L4: WAY, L4_SPOT: WAY}, ceilings={})
        return [one.message for one in troubles]


def workload(replicas: int = 1, *, model: str = "chat", pool: messages.PoolKey = L4) -> messages.Workload:
    return messages.Workload(
        model=model, pool=pool, replicas=replicas, devices=1, runtime="vllm", image="a:1", cpu="1", memory="1Gi"
    )


@pytest.fixture
def here() -> Here:
    return Here()


async def test_what_the_agent_made_a_moment_ago_is_not_told_as_deleted(here: Here) -> None:
    """A model of two pools has one Service: made for the first, it would be told as gone when the second comes."""
    both = (workload(), workload(pool=L4_SPOT))
    assert not await here.order(*both)
    assert not await here.order(*both)
    assert not here.server.notes, here.server.notes


async def test_what_was_ordered_to_go_is_not_told_as_deleted_when_it_is_ordered_again(here: Here) -> None:
    """An answer that was lost would look like somebody's mistake, a plan later."""
    assert not await here.order(workload())
    here.server.forgets_to_answer = KINDS["Deployment"][1]
    assert await here.order(workload(0))
    here.server.forgets_to_answer = ""
    assert not await here.order(workload(0))
    assert not await here.order(workload())
    assert not here.server.notes, here.server.notes


async def test_what_somebody_removed_while_nobody_ordered_it_is_not_told_when_it_is_ordered(here: Here) -> None:
    """It was nobody's mistake: the model was not ordered here."""
    assert not await here.order(workload(), workload(model="other"))
    assert not await here.order(workload(model="other"))
    here.server.stored = {key: one for key, one in here.server.stored.items() if "chat" not in key[1]}
    assert not await here.order(workload(), workload(model="other"))
    assert not here.server.notes, here.server.notes


async def test_what_somebody_deleted_is_put_right_and_told(here: Here) -> None:
    """A slip of kubectl would stop a model, and nobody would know."""
    assert not await here.order(workload())
    before = dict(here.server.stored)
    here.server.stored.clear()
    assert not await here.order(workload())
    assert here.server.stored.keys() == before.keys()
    assert all("deleted, or its labels removed; put right" in one for one in here.server.notes)
    assert len(here.server.notes) == len(before)
