"""The agent: reports what is, carries out what is wanted, and keeps what runs when nobody can be heard.

It dials out; nothing dials in. Its life is two tasks: one stays connected, one looks at the cluster and reports.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiomqtt
import msgspec
import structlog

from agents import fence, limits, memory, outgoing
from agents.backend import Backend, BackendError, Observation
from agents.engines.scrape import Engines
from agents.gateway.stats import Gateways
from agents.inventory.offers import condition
from agents.inventory.pools import MAX_CONDITIONS
from agents.returning import Returning
from federation.aiokit import broker
from federation.aiokit.clock import Clock
from federation.aiokit.tasks import together
from federation.wire import messages, topics

log = structlog.get_logger("agent")
SOONEST_REPORT = 0.1
"""Part of the interval: a burst of changes makes one report."""
LOOK_AGAIN = 0.85
"""Part of the interval after which the cluster is held to what was ordered though nothing was seen to change."""
GOODBYE_S = 1.0
HOLDING = 2
"""Intervals for which an agent that has just started holds orders back, unless it hears that it is the one in force."""
YIELDING = 3
"""Intervals for which an agent that was told that another holds its name carries out nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """One agent. `state_path` None remembers nothing over a restart (demos)."""

    cluster: str
    address: broker.BrokerAddress
    interval_s: float = 10.0
    state_path: Path | None = None
    version: str = ""
    gateway_admin: str | None = None
    """URL of the gateway's admin API, by which the agent counts users and sees how its replicas answer; None asks the
    gateways that it finds in the cluster."""


class Agent:
    """The agent of one cluster."""

    def __init__(self, settings: AgentSettings, backend: Backend, *, clock: Clock, rng: random.Random) -> None:
        self.settings = settings
        self._backend = backend
        self._clock = clock
        self._rng = rng
        self._boot_id = f"{rng.getrandbits(64):016x}"
        self._identity = secrets.token_hex(8)
        self._yields_until_s = float("-inf")
        self._holds_until_s = float("inf")
        self._held: messages.Desired | None = None
        self._obeying = asyncio.Lock()
        self._returning = Returning(rng, interval_s=settings.interval_s)
        self._memory = memory.Memory()
        self._accepted = fence.AcceptedOrder()
        self._knows_fence = False
        self._hands = asyncio.Lock()
        """What was accepted, and what is carried out, change together."""
        self._told: tuple[messages.Condition, ...] = ()
        self._kept_s = float("-inf")
        self._seq = 0
        self._stats = Gateways(clock)
        self._engines = Engines(clock)
        self._peers: tuple[messages.PeerEndpoint, ...] = ()
        self._rtts: tuple[messages.PeerRtt, ...] = ()
        self._client: aiomqtt.Client | None = None
        self._may_connect = asyncio.Event()
        self._may_connect.set()
        self._log = log.bind(cluster=settings.cluster)

    async def run(self) -> None:
        """Serve until cancelled; then say goodbye, close the backend, and leave everything running."""
        try:
            self._memory = await asyncio.to_thread(memory.read, self.settings.state_path)
            self._memory = msgspec.structs.replace(self._memory, boot_order=self._memory.boot_order + 1)
            await asyncio.to_thread(memory.write, self.settings.state_path, self._memory)
            self._accepted = self._memory.accepted()
            await self._keep()
            await together(link=self._stay_connected(), reports=self._keep_reporting())
        finally:
            await self._backend.close()

    async def _learn_fence(self) -> str:
        """A lost or damaged state file must not let an older plan in: the cluster's objects bear their fence.

        Returns: why it could not be learned yet, or nothing.
        """
        if self._knows_fence:
            return ""
        try:
            epoch, generation = await self._backend.fence()
        except BackendError as error:
            self._log.warning("the cluster cannot be asked yet", cause=str(error))
            return str(error)
        if (epoch, generation) > self._accepted.fence:
            following = msgspec.structs.replace(self._memory, epoch=epoch, generation=generation)
            await asyncio.to_thread(memory.write, self.settings.state_path, following)
            self._memory, self._accepted = following, following.accepted()
            self._log.info("known from the cluster's own objects", accepted=f"{epoch}.{generation}")
        self._knows_fence = True
        return ""

    async def _keep(self) -> None:
        """Hold the cluster to what was accepted, connected or not, as far as the owner still allows it.

        Done when something was touched, and once in each interval.
        """
        now_s = self._clock.monotonic_s()
        if now_s < self._yields_until_s:
            return
        if not self._backend.touched and now_s - self._kept_s < LOOK_AGAIN * self.settings.interval_s:
            return
        self._kept_s = now_s
        await self._learn_fence()
        async with self._hands:
            desired = self._memory.in_force()
            not_allowed = ""
            if desired is not None and self._backend.limits != limits.NONE:
                try:
                    not_allowed = "; ".join(self._beyond(desired, self._backend.observe()))
                except BackendError as error:
                    self._log.warning("what was accepted is looked at later", cause=str(error))
                    return
            if not_allowed and not any(one.type == "NotAllowed" for one in self._told):
                self._log.warning("what was accepted is no longer allowed here; it is left as it is", cause=not_allowed)
            kept = tuple(one for one in self._told if one.type != "NotAllowed")
            told = (condition("NotAllowed", "cluster", f"{not_allowed}; left as it is"),) if not_allowed else ()
            self._told = (*kept, *told)
            await self._backend.keep(None if not_allowed else desired)

    def _beyond(self, desired: messages.Desired, seen: Observation) -> Iterable[str]:
        return limits.violations(
            self._backend.limits,
            desired,
            namespace=self._backend.namespace,
            pools=seen.pools,
            replicas=seen.replicas,
        )

    # ---- the link

    async def _stay_connected(self) -> None:
        while True:
            await self._may_connect.wait()
            try:
                await self._connection()
            except (aiomqtt.MqttError, OSError) as error:
                delay_s = self._returning.next_s()
                self._log.info("no broker; what runs goes on", cause=str(error), retry_s=round(delay_s, 2))
                await asyncio.sleep(delay_s)

    async def _connection(self) -> None:
        cluster = self.settings.cluster
        will = aiomqtt.Will(topics.topic(cluster, "status"), self._status(online=False), qos=1, retain=True)
        # Two clients under one identifier throw each other out: each process has its own.
        identifier = f"isochrone-agent-{cluster}-{self._identity}"
        async with broker.client(self.settings.address, identifier=identifier, will=will) as client:
            await client.publish(topics.topic(cluster, "status"), self._status(online=True), qos=1, retain=True)
            await client.subscribe(topics.topic(cluster, "desired"), qos=1)
            await client.subscribe(topics.topic(cluster, "peers"), qos=1)
            await client.subscribe(topics.topic(cluster, "traffic"), qos=1)
            await client.subscribe(topics.topic(cluster, "session"), qos=1)
            self._client = client
            if self._holds_until_s == float("inf"):
                self._holds_until_s = self._clock.monotonic_s() + HOLDING * self.settings.interval_s
            self._returning.connected()
            self._backend.changed.set()  # report at once: the broker may have forgotten the last one
            try:
                async for message in client.messages:
                    await self._hear(message)
            except asyncio.CancelledError:
                await self._say_goodbye(client)
                raise
            finally:
                self._client = None

    async def _say_goodbye(self, client: aiomqtt.Client) -> None:
        """So that the next start, of an upgrade for one, takes this one's place at once."""
        with suppress(aiomqtt.MqttError, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                payload = self._status(online=False, goodbye=True)
                await client.publish(topics.topic(self.settings.cluster, "status"), payload, qos=1, retain=True)

    def _status(self, *, online: bool, goodbye: bool = False) -> bytes:
        return messages.encode(
            messages.Status(cluster=self.settings.cluster, boot_id=self._boot_id, online=online, goodbye=goodbye)
        )

    async def _hear(self, raw: aiomqtt.Message) -> None:
        try:
            message = messages.decode(raw.payload if isinstance(raw.payload, bytes) else b"")
        except messages.WireError as error:
            self._log.warning("message refused", topic=raw.topic.value, cause=str(error))
            return
        if isinstance(message, messages.Session) and message.cluster == self.settings.cluster:
            await self._on_session(message)
            return
        if self._clock.monotonic_s() < self._yields_until_s:
            return  # what is ordered is for the agent that holds the name
        if isinstance(message, messages.Peers) and message.cluster == self.settings.cluster:
            self._peers = message.peers
            self._backend.changed.set()
        elif isinstance(message, messages.Traffic) and message.cluster == self.settings.cluster:
            await self._backend.steer(message)
        elif isinstance(message, messages.Desired):
            self._held = message
            await self._obey_held()

    async def _obey_held(self) -> None:
        """Carry out the newest order, once it is this agent that is meant by the cluster's name."""
        async with self._obeying:
            if self._held is not None and self._clock.monotonic_s() >= self._holds_until_s:
                desired, self._held = self._held, None
                await self._obey(desired)

    async def _on_session(self, said: messages.Session) -> None:
        """This agent is in force; or another holds the name: until that one is gone, nothing is carried out here."""
        self._returning.told(said.spread_s)
        if said.boot_id == self._boot_id:
            self._yields_until_s = self._holds_until_s = float("-inf")
            await self._obey_held()
            return
        self._held = None
        if self._clock.monotonic_s() >= self._yields_until_s:
            text = f"another agent ({said.boot_id}) reports as {said.cluster}; this one ({self._boot_id}) only reports"
            self._log.error(text, hint="end one of them, or give it a name of its own with --cluster")
        self._yields_until_s = self._clock.monotonic_s() + YIELDING * self.settings.interval_s

    async def _obey(self, desired: messages.Desired) -> None:
        unknown = await self._learn_fence()
        if unknown:
            await self._acknowledge(desired, f"what was accepted here before is not known yet: {unknown}")
            return
        try:
            seen = self._backend.observe()
        except BackendError as error:
            await self._acknowledge(desired, f"the cluster cannot be asked: {error}")
            return
        verdict = fence.judge(
            desired,
            cluster=self.settings.cluster,
            accepted=self._accepted,
            devices=fence.usable_devices(seen.pools, seen.replicas, desired),
            beyond=self._beyond(desired, seen),
            no_place=fence.why_no_place(desired, seen.pools, seen.replicas),
        )
        if not verdict.obey:
            self._log.warning("desired state refused", code=verdict.code.value, cause=verdict.reason)
            await self._acknowledge(desired, f"{verdict.code.value}: {verdict.reason}")
            return
        async with self._hands:
            trouble = await self._carry_out(desired, seen)
        await self._acknowledge(desired, trouble)

    async def _carry_out(self, desired: messages.Desired, seen: Observation) -> str:
        """Remember an order and carry it out, but for what it stops without a reason; gives what was not done, or none.

        The order is remembered first: what is carried out is never newer than what a restart would know.
        """
        carried, self._told = fence.explained(desired, self._memory.in_force(), seen.replicas)
        following = msgspec.structs.replace(
            self._memory, desired=desired, instead=carried if carried is not desired else None
        )
        if following != self._memory:
            try:
                await asyncio.to_thread(memory.write, self.settings.state_path, following)
            except OSError as error:
                return f"cannot remember it: {error}"
            self._memory, self._accepted = following, following.accepted()
        trouble = await self._backend.apply(carried)
        self._log.info("carried out", generation=f"{desired.epoch}.{desired.generation}", trouble=trouble)
        return "; ".join((*(f"{one.object}: {one.message}" for one in self._told), *filter(None, (trouble,))))

    async def _acknowledge(self, desired: messages.Desired, error: str) -> None:
        ack = messages.Ack(
            cluster=self.settings.cluster,
            boot_id=self._boot_id,
            epoch=desired.epoch,
            generation=desired.generation,
            checksum=desired.checksum,
            ok=not error,
            error=error[:1000],
            accepted_epoch=self._accepted.epoch,
            accepted_generation=self._accepted.generation,
        )
        await self._publish("ack", messages.encode(ack))

    async def _publish(self, kind: topics.Kind, payload: bytes) -> None:
        if self._client is None:
            return
        try:
            await self._client.publish(topics.topic(self.settings.cluster, kind), payload, qos=1, retain=True)
        except aiomqtt.MqttError as error:
            self._log.info("not published; the next report says it", kind=kind, cause=str(error))

    # ---- the reports

    async def _keep_reporting(self) -> None:
        interval_s = self.settings.interval_s
        while True:
            wait_s = interval_s * self._rng.uniform(0.9, 1.0)
            try:
                async with self._clock.timeout(wait_s):
                    await self._backend.changed.wait()
            except TimeoutError:
                await self._measure()
            self._backend.changed.clear()
            await self._keep()
            await self._obey_held()
            await self._report()
            await self._clock.sleep(interval_s * SOONEST_REPORT)

    async def _measure(self) -> None:
        if self._peers:
            self._rtts = await self._backend.measure(self._peers)

    def _gateways(self, seen: Observation) -> tuple[str, ...]:
        return (self.settings.gateway_admin,) if self.settings.gateway_admin is not None else seen.gateways

    async def _report(self) -> None:
        if self._client is None:
            return
        if self._peers and not self._rtts:
            await self._measure()
        try:
            seen = self._backend.observe()
        except BackendError as error:
            self._log.warning("no report: the cluster cannot be asked", cause=str(error))
            return
        served = seen.served or await self._stats.read(self._gateways(seen))
        engines = await self._engines.read(seen.endpoints, self._memory.in_force())
        self._seq += 1
        report = messages.Report(
            cluster=self.settings.cluster,
            boot_id=self._boot_id,
            boot_order=self._memory.boot_order,
            seq=self._seq,
            interval_s=self.settings.interval_s,
            pools=seen.pools,
            nodes=seen.nodes,
            replicas=seen.replicas,
            peers=self._rtts,
            demand=self._backend.demand(),
            endpoints=seen.endpoints,
            served=served,
            counted=self._stats.counted,
            engines=engines,
            probe=self._backend.probe(),
            epoch=self._accepted.epoch,
            generation=self._accepted.generation,
            kubernetes_version=seen.kubernetes_version,
            growth=seen.growth,
            conditions=(*self._told, *seen.conditions, *self._engines.conditions)[:MAX_CONDITIONS],
            clock_s=self._clock.wall_s(),
            agent_version=self.settings.version,
        )
        _, payload = outgoing.fit(report)
        await self._publish("report", payload)

    # ---- for demos and fault tests

    def cut(self) -> None:
        """Break the connection without a goodbye, as a lost region does: the broker speaks the last will."""
        self._may_connect.clear()
        link = self._client._client.socket() if self._client is not None else None
        if isinstance(link, socket.socket):
            link.shutdown(socket.SHUT_RDWR)

    def heal(self) -> None:
        """Let it connect again."""
        self._may_connect.set()
