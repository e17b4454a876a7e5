"""Sends each agent its order and its peers: after a commit, after a connection, and repeatedly.

The work is constant: an order without acknowledgement is sent again in each report interval, so a broker that lost
everything is like a quiet day.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterable, Mapping
from typing import TypeVar

from federation.adapters.link import Link
from federation.control import desired as intent
from federation.control import leadership, returning
from federation.control.neighbours import neighbours
from federation.control.plan import Plan
from federation.loops.hub import Hub
from federation.policy.documents import Documents
from federation.state.world import ClusterState, World
from federation.traffic import outputs
from federation.wire import messages, topics

Sent = TypeVar("Sent", messages.Desired, messages.Peers, messages.Traffic, messages.Session)
REST = 1.0
"""The loop rests this many times as long as publishing took; changes meanwhile are published together."""

AT_ONCE = 64
"""Messages under way to the broker at one time."""


class Publisher:
    """Publishes committed values, and nothing else."""

    def __init__(self, hub: Hub, link: Link) -> None:
        self._hub = hub
        self._link = link
        self._probes: dict[str, str] = {}
        self._peers: dict[str, messages.Peers] = {}
        self._traffic: outputs.Told | None = None
        self._sessions: dict[str, messages.Session] = {}
        self._desired = _Orders()
        self._repeated_s = float("-inf")
        """When unacknowledged orders were last repeated."""

    async def run(self) -> None:
        """Publish at each wake-up and in each report interval, for ever."""
        hub = self._hub
        while True:
            interval_s = hub.world.timing.report_interval_s
            due_s = self._repeated_s + interval_s - hub.clock.monotonic_s()
            await hub.republish.wait(min(interval_s, max(0.0, due_s)))
            if hub.outvoted():
                self._repeated_s = hub.clock.monotonic_s()
                continue  # what another controller orders is not to be overwritten
            begun_s = time.perf_counter()
            await self.sessions()
            await self.unacknowledged()
            await self.traffic(again=False)
            await asyncio.sleep(REST * (time.perf_counter() - begun_s))

    async def everything(self) -> None:
        """After a connection: the broker may have lost all retained messages."""
        if self._hub.outvoted():
            return
        await self._send(await self._messages(), "desired")
        await self.peers(again=True)
        await self.traffic(again=True)

    async def traffic(self, *, again: bool) -> None:
        """The table of each cluster's gateway, when it has changed or `again`."""
        hub, before = self._hub, self._traffic
        is_known = before is not None and (before.tables, before.documents) == (hub.tables, hub.world.documents)
        if is_known and not again and before is not None and before.is_lasting:
            return
        self._traffic = following = await hub.beside(outputs.told, hub.tables, hub.world, before)
        known = before.by_cluster if before is not None and not again else {}
        await self._send((one for name, one in following.by_cluster.items() if known.get(name) != one), "traffic")

    async def sessions(self) -> None:
        """Which agent is in force: sent once to each start of an agent, and again while a second one uses its name."""
        world = self._hub.world
        spread_s = returning.spread_s(len(world.clusters), world.timing.report_interval_s)
        news = []
        for name, state in world.clusters.items():
            if state.report is None or state.heard_s is None:
                continue
            known = self._sessions.get(name)
            is_known = known is not None and known.boot_id == state.report.boot_id and known.spread_s == spread_s
            if state.disputed_with or not is_known:
                news.append(messages.Session(cluster=name, boot_id=state.report.boot_id, spread_s=spread_s))
        for one in await self._send(news, "session", retain=False):
            self._sessions[one.cluster] = one

    async def unacknowledged(self) -> None:
        """Orders that their agents have not acknowledged: new ones at once, all of them in each interval."""
        hub = self._hub
        now_s = hub.clock.monotonic_s()
        is_due = now_s - self._repeated_s >= hub.world.timing.report_interval_s - 1e-6
        if is_due:
            self._repeated_s = now_s
        clusters = hub.world.clusters
        made = await self._messages()
        sent = self._desired.sent
        waiting = [
            one
            for one in made
            if (is_due or sent.get(one.cluster) is not one)
            and (state := clusters.get(one.cluster)) is not None
            and not is_acknowledged(state, one)
        ]
        for one in await self._send(waiting, "desired"):
            sent[one.cluster] = one
        if is_due:
            await self.peers(again=False)

    async def peers(self, *, again: bool) -> None:
        """The peers to measure, when they have changed or `again`."""
        hub = self._hub
        probes = {
            name: state.report.probe
            for name, state in hub.world.clusters.items()
            if state.report is not None and state.report.probe
        }
        if probes == self._probes and not again:
            return
        self._probes = probes
        following = await hub.beside(_peers, hub.world.documents, probes)
        known = self._peers if not again else {}
        self._peers = following
        await self._send([one for name, one in following.items() if known.get(name) != one], "peers")

    async def _send(self, many: Iterable[Sent], kind: topics.Kind, *, retain: bool = True) -> list[Sent]:
        """Publish these, some at a time. Returns those that the broker took."""
        taken: list[Sent] = []
        left = iter(many)
        while some := list(itertools.islice(left, AT_ONCE)):
            took = await asyncio.gather(*(self._link.publish(one, kind, retain=retain) for one in some))
            taken += [one for one, is_taken in zip(some, took, strict=True) if is_taken]
        return taken

    async def _messages(self) -> list[messages.Desired]:
        """The committed orders, with the epoch that each agent follows. Empty before the first plan."""
        hub = self._hub
        return await hub.beside(self._desired.of, hub.plan, hub.documents_in_force(), hub.world, hub.epoch)


class _Orders:
    """The sealed orders of the newest plan; each is computed once."""

    def __init__(self) -> None:
        self._basis: tuple[object, ...] = ()
        self._told: dict[str, tuple[messages.Workload, ...]] = {}
        self._sealed: dict[str, messages.Desired] = {}
        self.sent: dict[str, messages.Desired] = {}
        """The newest published order of each cluster."""

    def of(self, plan: Plan, documents: Documents, world: World, our_epoch: int) -> list[messages.Desired]:
        """The orders of all clusters; where documents are newer than the plan, the next commit covers them."""
        basis = (documents, plan.desired, plan.versions, plan.digests)
        if len(basis) != len(self._basis) or not all(map(_is, basis, self._basis)):
            told = intent.workloads(documents, plan.desired_by_key(), plan.stops_by_key(), plan.versions)
            self._told = {
                name: told.get(name, ())
                for name in sorted(world.clusters)
                if intent.digest(told.get(name, ())) == plan.digests.get(name)
            }
            self._basis = basis
        made = []
        for name, workloads in self._told.items():
            state, generation = world.clusters.get(name), plan.generations.get(name)
            if state is None or generation is None:
                continue
            epoch = leadership.told_epoch(our_epoch, state)
            known = self._sealed.get(name)
            is_known = known is not None and (known.epoch, known.generation) == (epoch, generation)
            if known is None or not is_known or known.workloads != workloads:
                known = messages.seal(
                    messages.Desired(cluster=name, epoch=epoch, generation=generation, workloads=workloads)
                )
                self._sealed[name] = known
            made.append(known)
        return made


def _is(one: object, other: object) -> bool:
    return one is other


def _peers(documents: Documents, probes: Mapping[str, str]) -> dict[str, messages.Peers]:
    """Cluster -> the peers to measure."""
    near = neighbours(documents.clusters)
    known = {name: messages.PeerEndpoint(cluster=name, probe=probe) for name, probe in probes.items()}
    return {
        name: messages.Peers(cluster=name, peers=tuple(known[one] for one in near.peers(name, probes)))
        for name in near.names
    }


def is_acknowledged(state: ClusterState, message: messages.Desired) -> bool:
    """Whether the agent has acknowledged exactly this order."""
    ack = state.ack
    return ack is not None and ack.ok and (ack.epoch, ack.generation) == (message.epoch, message.generation)
