"""Tells every agent what it should run, and whom it should measure: after a commit, after a connection, and again.

Constant work: what an agent has not acknowledged is sent again every report interval, so a broker that lost everything
is as a quiet day.
"""

from __future__ import annotations

from federation.adapters.link import Link
from federation.control import desired as intent
from federation.control import leadership
from federation.loops.hub import Hub
from federation.state.world import ClusterState
from federation.traffic import outputs
from federation.wire import messages


class Publisher:
    """Publishes what is committed, and nothing else."""

    def __init__(self, hub: Hub, link: Link) -> None:
        self._hub = hub
        self._link = link
        self._peers: tuple[messages.PeerEndpoint, ...] = ()
        self._traffic: dict[str, messages.Traffic] = {}
        self._sessions: dict[str, messages.Session] = {}

    async def run(self) -> None:
        """Publish at marks and every report interval, for ever."""
        while True:
            await self._hub.republish.wait(self._hub.world.timing.report_interval_s)
            if self._hub.outvoted():
                continue  # what another controller orders is not to be overwritten
            await self.sessions()
            await self.unacknowledged()
            await self.peers(again=False)
            await self.traffic(again=False)

    async def everything(self) -> None:
        """After a connection: the broker may have forgotten all of it."""
        if self._hub.outvoted():
            return
        for message in self._messages():
            await self._link.publish(message, "desired")
        await self.peers(again=True)
        await self.traffic(again=True)

    async def traffic(self, *, again: bool) -> None:
        """Where each cluster's gateway sends requests, when that has changed or `again`."""
        for name, table in sorted(self._hub.tables.by_cluster.items()):
            message = outputs.message(table, self._hub.tables, self._hub.world)
            if again or self._traffic.get(name) != message:
                self._traffic[name] = message
                await self._link.publish(message, "traffic")

    async def sessions(self) -> None:
        """Who is in force: told to each start of an agent once, and again while a second speaks under its name."""
        for name, state in sorted(self._hub.world.clusters.items()):
            if state.report is None or state.heard_s is None:
                continue
            said = messages.Session(cluster=name, boot_id=state.report.boot_id)
            if state.disputed_with or self._sessions.get(name) != said:
                is_told = await self._link.publish(said, "session", retain=False)
                self._sessions |= {name: said} if is_told else {}

    async def unacknowledged(self) -> None:
        """Desired states that their agents have not acknowledged."""
        for message in self._messages():
            if not is_acknowledged(self._hub.world.clusters[message.cluster], message):
                await self._link.publish(message, "desired")

    async def peers(self, *, again: bool) -> None:
        """Whom to measure, when that has changed or `again`."""
        known = tuple(
            messages.PeerEndpoint(cluster=name, probe=state.report.probe)
            for name, state in sorted(self._hub.world.clusters.items())
            if state.report is not None and state.report.probe
        )
        if known == self._peers and not again:
            return
        self._peers = known
        for name in sorted(self._hub.world.clusters):
            others = tuple(peer for peer in known if peer.cluster != name)
            await self._link.publish(messages.Peers(cluster=name, peers=others), "peers")

    def _messages(self) -> list[messages.Desired]:
        """What is committed, with the epoch that each agent follows to. Nothing before the first plan."""
        hub = self._hub
        told = intent.workloads(
            hub.documents_in_force(), hub.plan.desired_by_key(), hub.plan.stops_by_key(), hub.plan.versions
        )
        made = []
        for name in sorted(hub.world.clusters):
            generation = hub.plan.generations.get(name)
            if generation is None or intent.digest(told.get(name, ())) != hub.plan.digests.get(name):
                continue  # documents are newer than the plan: the next commit speaks for them
            epoch = leadership.told_epoch(hub.epoch, hub.world.clusters[name])
            made.append(
                messages.seal(
                    messages.Desired(cluster=name, epoch=epoch, generation=generation, workloads=told.get(name, ()))
                )
            )
        return made


def is_acknowledged(state: ClusterState, message: messages.Desired) -> bool:
    """Whether the agent has answered for exactly this."""
    ack = state.ack
    return ack is not None and ack.ok and (ack.epoch, ack.generation) == (message.epoch, message.generation)
