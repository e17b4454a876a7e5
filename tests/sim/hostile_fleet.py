"""The fleet of the hostile stories: a liar, replicas that do not start, drift, a full disk, people, and the oracle."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from random import Random

import msgspec

from agents.backend import Observation
from agents.simulated import SimulatedBackend, _Replica
from federation.adapters.store import Remembered, StoreError
from federation.latency.sphere import great_circle_km
from federation.loops.policies import Kept, Rejected
from federation.policy.documents import Documents
from federation.state.reduce import BrokerFound, BrokerLost
from federation.wire import messages, topics
from tests.builders import PLACES
from tests.sim.controller import SimController
from tests.sim.fleet import SimAgent, SimFleet
from tests.sim.lies import LIES, TWO_AGENTS
from tests.sim.oracle import MOST_RPS, PERSON, Oracle

WARMUP_S = 60.0
RESTART_S = 5.0
"""Who cannot start is started again."""
CAUSES: dict[str, messages.Cause] = {"image": "image", "crash": "crash"}
POLICY = "policy.yaml"


class FaultyBackend(SimulatedBackend):
    """A cluster whose replicas may not start (`fault` image or crash), or whose devices read 0 for a while."""

    fault = ""
    is_blind = False
    restarts = 0

    def ready(self) -> dict[messages.ModelPool, int]:
        self._suffer()
        return super().ready()

    def ready_count(self) -> int:
        """Replicas that serve now."""
        self._suffer()
        now_s = self._clock.monotonic_s()
        return sum(one.ready_at_s <= now_s for ones in self._running.values() for one in ones)

    def _suffer(self) -> None:
        now_s = self._clock.monotonic_s()
        for ones in self._running.values() if self.fault else ():
            for one in ones:
                warms = one.ready_at_s > now_s - 1.0
                if one.ready_at_s != float("inf") and (warms or self.fault == "crash"):
                    one.ready_at_s = now_s + WARMUP_S

    def drift(self, chance: Random) -> str:
        """Somebody scales or deletes replicas behind the agent's back."""
        found = [ones for _, ones in sorted(self._running.items()) if ones]
        if not found:
            return "nothing to change"
        ones = chance.choice(found)
        self.touched = True
        match chance.choice(("delete", "scale to none", "scale up")):
            case "delete":
                gone = chance.randint(1, len(ones))
                for one in chance.sample(ones, gone):
                    ones.remove(one)
                return f"{gone} deleted"
            case "scale to none":
                ones.clear()
                return "scaled to none"
            case _:
                more = chance.randint(1, 3)
                devices = ones[0].devices
                ones += [_Replica(ready_at_s=float("inf"), devices=devices, warmup_s=WARMUP_S) for _ in range(more)]
                self.set_pools(self._pools)
                return f"{more} more"

    def counts(self) -> dict[messages.ModelPool, int]:
        """(model, pool) -> replicas that somebody wants here."""
        return {key: len(ones) for key, ones in sorted(self._running.items()) if ones}

    def observe(self) -> Observation:
        seen = super().observe()
        if self.is_blind:
            pools = tuple(msgspec.structs.replace(one, allocatable=0, free=0) for one in seen.pools)
            seen = replace(seen, pools=pools)
        if not self.fault:
            return seen
        self.restarts += self.fault == "crash"
        rows = tuple(
            msgspec.structs.replace(one, cause=CAUSES[self.fault], reason=self.fault, restarts=self.restarts)
            if one.ready < one.desired
            else one
            for one in seen.replicas
        )
        return replace(seen, replicas=rows)


class HostileFleet(SimFleet):
    """The fleet of the other stories, with one cluster whose agent lies when it is told to."""

    def __init__(self, seed: int, directory: Path, *, liar: str) -> None:
        super().__init__(seed, directory)
        self.documents = msgspec.structs.replace(
            self.documents,
            clusters=tuple(
                msgspec.structs.replace(one, spec=msgspec.structs.replace(one.spec, max_requests_per_second=MOST_RPS))
                for one in self.documents.clusters
            ),
        )
        self.liar = liar
        self.lies: tuple[str, ...] = ()
        self.chance = Random(seed * 7919 + 1)
        self.oracle = Oracle(self, liar)
        self._second_seq = 0
        self._others = {
            name: tuple(
                messages.PeerEndpoint(cluster=other, probe=self.backend(other).probe())
                for other in self.NAMES
                if other != name
            )
            for name in self.NAMES
        }

    def _agent(self, name: str) -> SimAgent:
        agent = super()._agent(name)
        agent.backend.__class__ = FaultyBackend
        agent.backend._rtt_ms = lambda peer, chance: true_rtt_ms(name, peer)
        agent.backend._probe = f"192.0.2.{self.NAMES.index(name) + 1}:443"
        return agent

    def ready(self) -> dict[str, int]:
        return {name: self.backend(name).ready_count() for name in self.NAMES}

    def backend(self, name: str) -> FaultyBackend:
        """A cluster as it is."""
        found = self.agents[name].backend
        assert isinstance(found, FaultyBackend)
        return found

    async def _observed(self, agent: SimAgent) -> messages.Report:
        report = await super()._observed(agent)
        peers = await agent.backend.measure(self._others[agent.name])
        report = msgspec.structs.replace(report, peers=peers, probe=agent.backend.probe())
        if agent.name != self.liar:
            return report
        for kind in self.lies:
            report = LIES[kind](report, self.chance) if kind in LIES else report
        if TWO_AGENTS in self.lies:
            self._speak_twice(report)
        return report

    def _speak_twice(self, report: messages.Report) -> None:
        self._second_seq += 1
        other = msgspec.structs.replace(
            report, boot_id="boot-of-another", boot_order=10**9, seq=self._second_seq, epoch=0, generation=0
        )
        self._send(topics.topic(self.liar, "report"), messages.encode(other))

    async def publish(
        self,
        message: messages.Desired | messages.Peers | messages.Traffic | messages.Session,
        kind: topics.Kind,
        *,
        retain: bool = True,
    ) -> bool:
        if isinstance(message, messages.Desired):
            self.oracle.given(message)
        return await super().publish(message, kind, retain=retain)

    async def _carry_out(self, agent: SimAgent, desired: messages.Desired) -> None:
        backend = self.backend(agent.name)
        before = backend.ready_count()
        await super()._carry_out(agent, desired)
        self.oracle.carried_out(agent, desired, before, backend.ready_count())

    async def _keep(self, agent: SimAgent) -> None:
        backend, carried = self.backend(agent.name), agent.carried
        before = backend.ready_count()
        await super()._keep(agent)
        if carried is not None:
            ordered = sum(one.replicas for one in carried.workloads)
            self.oracle.kept(agent, before, backend.ready_count(), ordered)

    # ---- people

    def files(self) -> dict[str, bytes]:
        """The policy files in force, as people hand them in."""
        known = self.documents
        return {"clusters.yaml": text(known.clusters), "model.yaml": text(known.models), POLICY: text(known.policies)}

    async def hand_in(self, controller: SimController, remembered: Remembered) -> None:
        controller.desk.restore(remembered.policies)
        for name, payload in self.files().items() if not remembered.policies else ():
            await controller.desk.accept(name, payload, actor="directory")

    async def order(self, following: Documents, *, force: str = "") -> str:
        """A person hands in documents, or withdraws a file that would have none; gives what became of it."""
        before, self.documents = self.documents, following
        given, desk = self.files(), self.lead.desk
        for name, payload in given.items():
            self.documents = before
            if payload == self.files()[name]:
                continue
            try:
                if payload:
                    await desk.accept(name, payload, actor=PERSON, force=force)
                else:
                    await desk.withdraw(name, actor=PERSON, force=force)
            except (Rejected, Kept, StoreError) as error:
                return f"refused: {error}"
        self.documents = following
        self.oracle.may_stop |= bool(force)
        return "forced" if force else "accepted"

    # ---- the broker and the controllers

    async def broker_restarts(self) -> None:
        """It comes back empty, and everybody connects anew."""
        for one in self._listening():
            one.hub.apply(BrokerLost(now_s=self.clock.now_s))
        self.forget_broker()
        await self.run(self.chance.uniform(1.0, 30.0), self.oracle.look)
        for one in self._listening():
            one.hub.apply(BrokerFound(now_s=self.clock.now_s))
            await one.publisher.everything()
        for agent in self.agents.values():
            agent.report_at_s = self.clock.now_s if agent.connected else agent.report_at_s

    async def controller_dies(self) -> None:
        """It is started again after a while, on its database."""
        await self.stop_controller()
        await self.run(self.chance.uniform(1.0, 120.0))
        self.oracle.forget()
        while True:
            try:
                await self.start_controller()
            except StoreError as error:
                self.said.append(f"{self.clock.now_s:7.0f} no start: {error}")
                await self.run(RESTART_S)
            else:
                return

    async def replaced(self, after_s: float) -> bool:
        """The machine of the one that leads stops, and `after_s` later another starts on its database. Whether it
        could; the one before sleeps among `others` then."""
        asleep = self.lead
        asleep.runs = False
        await self.run(after_s)
        try:
            lead = await SimController.started(self, self.database(self._database))
        except StoreError:
            await asleep.resume()
            return False
        self.lead, self.others = lead, [*self.others, asleep]
        self.oracle.forget()
        return True

    async def second(self) -> SimController | None:
        """Another controller on this broker, on a database of its own; None where it cannot start."""
        try:
            found = await SimController.started(self, self.database(self._directory / f"second-{next(self.names)}.db"))
        except StoreError:
            return None
        self.others.append(found)
        return found

    async def end(self, other: SimController) -> None:
        """End one that does not lead."""
        self.others.remove(other)
        await other.stop()


@functools.cache
def true_rtt_ms(one: str, other: str) -> float:
    """What the way between two clusters takes: fibre and half as much again."""
    here, there = PLACES[one[:3]], PLACES[other[:3]]
    return 2.0 + 1.5 * great_circle_km(here[0], here[1], there[0], there[1]) / 100.0


def text(documents: tuple[msgspec.Struct, ...]) -> bytes:
    """A policy file; JSON is YAML."""
    return b"\n---\n".join(msgspec.json.encode(one) for one in documents)
